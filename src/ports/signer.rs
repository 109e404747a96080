//! The holder of the service key.

use super::BoxFuture;
use crate::domain::PublicKey;
use crate::domain::announcement::Announcement;
use crate::domain::merkle_batch::Signable;

/// Signs with the service key. It takes only a [`Signable`], which is made only from durably committed transactions, and, once in a
/// while, an [`Announcement`], whose signature is of no use for a transaction.
pub trait Signer: Send + Sync {
    /// The service key's public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs `what`; the signature has the form of the key's scheme (PROTOCOL e.5).
    ///
    /// # Errors
    /// [`SignError`]; the transactions stay committed and can be signed later.
    fn sign<'a>(&'a self, what: &'a Signable) -> BoxFuture<'a, Result<Vec<u8>, SignError>>;

    /// Signs the worker's node info.
    ///
    /// # Errors
    /// [`SignError`].
    fn announce<'a>(&'a self, what: &'a Announcement) -> BoxFuture<'a, Result<Vec<u8>, SignError>>;
}

/// Why there is no signature, by what the caller must do next.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignError {
    /// The key does not answer now. Repeat later, or give the request back.
    #[error("the service key is unavailable: {0}")]
    Unavailable(String),
}
