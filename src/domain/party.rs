//! Who takes part: parties, known by legal name and key.

use core::fmt;

use super::signature::PublicKey;
pub use super::x500_name::{NameError, X500Name};

/// A name and the key that speaks for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Party {
    /// Legal name.
    pub name: X500Name,
    /// Legal identity key.
    pub owning_key: PublicKey,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}
