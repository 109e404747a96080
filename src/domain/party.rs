//! Who takes part: X.500 names as Corda restricts them, and parties.

use core::fmt;

use super::signature::PublicKey;

/// A legal name with Corda's attributes. Two names are equal if all attributes are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct X500Name {
    /// CN.
    pub common_name: Option<String>,
    /// OU.
    pub organisation_unit: Option<String>,
    /// O, always present.
    pub organisation: String,
    /// L, always present.
    pub locality: String,
    /// ST.
    pub state: Option<String>,
    /// C, always present: two letters.
    pub country: String,
}

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

impl fmt::Display for X500Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "O={}, L={}, C={}", self.organisation, self.locality, self.country)
    }
}
