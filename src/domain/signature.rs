//! Public keys and signatures in the schemes of Corda (PROTOCOL e.5).

use std::sync::Arc;

/// A signature scheme by Corda's number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum SignatureScheme {
    /// RSA, PKCS#1 v1.5 with SHA-256.
    RsaSha256 = 1,
    /// ECDSA on secp256k1 with SHA-256; DER signature.
    EcdsaSecp256k1Sha256 = 2,
    /// ECDSA on P-256 with SHA-256; DER signature.
    EcdsaSecp256r1Sha256 = 3,
    /// Ed25519; 64-byte signature.
    Ed25519 = 4,
    /// A composite key: a threshold over weighted keys.
    Composite = 6,
}

/// A public key in its X.509 (SubjectPublicKeyInfo DER) form. Equality is equality of these bytes, as in Corda.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    spki: Arc<[u8]>,
    scheme: SignatureScheme,
}

impl PublicKey {
    /// The DER bytes.
    pub fn as_spki(&self) -> &[u8] {
        &self.spki
    }

    /// The scheme of signatures by this key.
    pub fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// The bytes are no key that this worker understands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a usable public key: {0}")]
pub struct KeyError(pub String);

/// Why a signature does not hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SignatureError {
    /// The signature does not verify under the key.
    #[error("the signature does not verify")]
    Mismatch,
    /// The signature's bytes do not have the form of the scheme.
    #[error("the signature is malformed")]
    Malformed,
    /// The signature covers a batch without this transaction.
    #[error("the signature does not cover this transaction")]
    NotCovered,
    /// Composite keys verify through their leaves only.
    #[error("a composite key does not sign by itself")]
    Composite,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError`] for anything but a valid key of a scheme above.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let _ = spki;
        Err(KeyError("helper D writes this".into()))
    }

    /// Checks `signature` over `message`.
    ///
    /// # Errors
    /// [`SignatureError`] if it does not hold.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        let _ = (message, signature);
        Err(SignatureError::Mismatch)
    }
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PublicKey({:?})", self.scheme)
    }
}
