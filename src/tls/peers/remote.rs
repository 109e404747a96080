//! A TLS key that is elsewhere, such as on a token: known by its public half, asked for signatures.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

use crate::domain::{PublicKey, SignatureScheme as Scheme};

/// Has the key sign a message, and blocks until it has or cannot: on threads of handshakes only, see
/// [`PeerTls::on_own_threads`](super::PeerTls::on_own_threads).
pub type Sign = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// An ECDSA key on P-256 that is elsewhere.
pub(super) struct RemoteKey {
    public_key: PublicKey,
    sign: Sign,
}

impl RemoteKey {
    /// `None` for a key of another kind: Corda's suites need this one, and RSA would need a second form of signatures for TLS 1.3.
    pub(super) fn new(public_key: PublicKey, sign: Sign) -> Option<Self> {
        (public_key.scheme() == Scheme::EcdsaSecp256r1Sha256).then_some(Self { public_key, sign })
    }
}

/// The public half only.
impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteKey(of {:?})", self.public_key)
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let offered = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        offered.then(|| Box::new(RemoteSigner(Arc::clone(&self.sign))) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(SubjectPublicKeyInfoDer::from(self.public_key.as_spki()))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

struct RemoteSigner(Sign);

impl fmt::Debug for RemoteSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RemoteSigner")
    }
}

impl Signer for RemoteSigner {
    /// A failure ends the handshake without an alert: the connection is closed, after which Corda's bridges come again within
    /// seconds. An alert, other than `internal_error`, would keep them away for five minutes, and then for a day.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        (self.0)(message).map_err(|why| Error::General(format!("the own TLS key does not sign: {why}")))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
