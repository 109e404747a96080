//! A key on tokens that proves to other nodes who the worker is: the key of its TLS certificate. A type of its own, so that no
//! holder of the service key can be had to sign what a handshake asks for, in which the other side has a say.

use std::fmt;

use tokio::runtime::Handle;

use super::{OpenError, Options, TokenKey};
use crate::domain::PublicKey;
use crate::ports::signer::SignError;

/// The private key of the worker's TLS certificate, on its tokens. Dropping it closes their sessions.
pub struct TransportKey(TokenKey);

impl TransportKey {
    /// Opens every token, on `runtime`; as [`TokenKey::open`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: Options, runtime: &Handle) -> Result<Self, OpenError> {
        TokenKey::open(options, runtime).await.map(Self)
    }

    /// The public half, which a token has proven to belong to the private one.
    pub fn public_key(&self) -> &PublicKey {
        &self.0.public_key
    }

    /// Signs what a handshake asks for; the signature has the form of the key's scheme. Ends within twice the token's deadline for
    /// each token.
    ///
    /// # Errors
    /// [`SignError`], at once while no token works.
    pub async fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.0.sign_bytes(message).await
    }

    /// Every token by its label, and what is wrong with it if it does not sign now.
    pub fn health(&self) -> Vec<(String, Option<String>)> {
        self.0.health()
    }
}

/// The public half only.
impl fmt::Debug for TransportKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransportKey(of {:?})", self.public_key())
    }
}
