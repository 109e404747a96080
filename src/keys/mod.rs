//! Private keys held in this process, and the files they are kept in. The worker's service key comes here only through the
//! file key adapter (`hsm::file_key`); the development network makes all its keys here, and its clients sign with them.
//!
//! Two schemes, the ones that Corda recommends and every HSM has: Ed25519 and ECDSA on P-256; and ECDSA on secp256k1, only for
//! keys that are there already. All sign deterministically (RFC 8032, RFC 6979), so no signature depends on the quality of a
//! random number. Secrets are wiped when dropped.

pub mod csr;
pub mod file;
pub mod jks;
pub mod keystore;
mod pkcs12;

use core::fmt;

use p256::ecdsa::signature::Signer as _;
use pkcs8::der::SecretDocument;
use pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding, PrivateKeyInfoRef};
use zeroize::{Zeroize, Zeroizing};

use crate::domain::signature::{ED25519_PREFIX, PublicKey, SignatureScheme};

/// A private key.
pub struct PrivateKey {
    secret: Secret,
    public_key: PublicKey,
}

enum Secret {
    Ed25519(ed25519_dalek::SigningKey),
    EcdsaSecp256r1(p256::ecdsa::SigningKey),
    EcdsaSecp256k1(k256::ecdsa::SigningKey),
}

/// Why there is no key. None of these carries anything secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrivateKeyError {
    /// Only Ed25519 and ECDSA P-256 keys can be held.
    #[error("a private key of this scheme cannot be held; use Ed25519 or ECDSA P-256")]
    UnsupportedScheme,
    /// Not PKCS#8, or not a valid key.
    #[error("not a valid PKCS#8 private key")]
    Malformed,
    /// The operating system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
}

/// PKCS#8 of an Ed25519 key (RFC 8410), without the optional public key, before the 32 bytes of the seed.
const PKCS8_ED25519_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The PEM label of unencrypted PKCS#8.
const PEM_LABEL: &str = "PRIVATE KEY";

impl PrivateKey {
    /// A new key from the operating system's random numbers.
    ///
    /// # Errors
    /// [`PrivateKeyError::UnsupportedScheme`] or [`PrivateKeyError::Random`].
    pub fn generate(scheme: SignatureScheme) -> Result<Self, PrivateKeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        loop {
            random(&mut *seed)?;
            match scheme {
                SignatureScheme::Ed25519 => {
                    return Self::from_secret(Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(&seed)));
                }
                SignatureScheme::EcdsaSecp256r1Sha256 => {
                    // One number in 2^32 is not below the group order, or zero: draw again.
                    if let Ok(key) = p256::ecdsa::SigningKey::from_slice(&*seed) {
                        return Self::from_secret(Secret::EcdsaSecp256r1(key));
                    }
                }
                _ => return Err(PrivateKeyError::UnsupportedScheme),
            }
        }
    }

    fn from_secret(secret: Secret) -> Result<Self, PrivateKeyError> {
        let spki = match &secret {
            Secret::Ed25519(key) => [&ED25519_PREFIX[..], key.verifying_key().as_bytes()].concat(),
            Secret::EcdsaSecp256r1(key) => {
                key.verifying_key().to_public_key_der().map_err(|_| PrivateKeyError::Malformed)?.into_vec()
            }
            Secret::EcdsaSecp256k1(key) => {
                key.verifying_key().to_public_key_der().map_err(|_| PrivateKeyError::Malformed)?.into_vec()
            }
        };
        // An Ed25519 seed never gives a weak key: its scalar is no multiple of the group order.
        let public_key = PublicKey::from_spki(&spki).map_err(|_| PrivateKeyError::Malformed)?;
        Ok(Self { secret, public_key })
    }

    /// Reads unencrypted PKCS#8 DER.
    ///
    /// # Errors
    /// [`PrivateKeyError::Malformed`] or [`PrivateKeyError::UnsupportedScheme`].
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let info = PrivateKeyInfoRef::try_from(der).map_err(|_| PrivateKeyError::Malformed)?;
        let secret = match info.algorithm.oid {
            ed25519_dalek::pkcs8::ALGORITHM_OID => ed25519_dalek::SigningKey::try_from(info)
                .map(Secret::Ed25519)
                .map_err(|_| PrivateKeyError::Malformed)?,
            p256::elliptic_curve::ALGORITHM_OID => {
                // The curve is the algorithm's parameter.
                let (p256, k256) =
                    (p256::ecdsa::SigningKey::try_from(info.clone()), k256::ecdsa::SigningKey::try_from(info));
                match (p256, k256) {
                    (Ok(key), _) => Secret::EcdsaSecp256r1(key),
                    (_, Ok(key)) => Secret::EcdsaSecp256k1(key),
                    // Another curve.
                    (Err(pkcs8::Error::PublicKey(_)), Err(pkcs8::Error::PublicKey(_))) => {
                        return Err(PrivateKeyError::UnsupportedScheme);
                    }
                    _ => return Err(PrivateKeyError::Malformed),
                }
            }
            _ => return Err(PrivateKeyError::UnsupportedScheme),
        };
        Self::from_secret(secret)
    }

    /// Reads unencrypted PKCS#8 PEM.
    ///
    /// # Errors
    /// As [`Self::from_pkcs8_der`].
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, PrivateKeyError> {
        match SecretDocument::from_pem(pem) {
            Ok((PEM_LABEL, document)) => Self::from_pkcs8_der(document.as_bytes()),
            _ => Err(PrivateKeyError::Malformed),
        }
    }

    /// Unencrypted PKCS#8 DER; wiped when dropped.
    ///
    /// # Panics
    /// Never: the encoding of a key has a fixed small size.
    pub fn to_pkcs8_der(&self) -> SecretDocument {
        match &self.secret {
            Secret::Ed25519(key) => {
                let mut seed = key.to_bytes();
                let der = [&PKCS8_ED25519_PREFIX[..], &seed].concat();
                seed.zeroize();
                SecretDocument::try_from(der).expect("this is DER")
            }
            Secret::EcdsaSecp256r1(key) => key.to_pkcs8_der().expect("a P-256 key encodes"),
            Secret::EcdsaSecp256k1(key) => key.to_pkcs8_der().expect("a secp256k1 key encodes"),
        }
    }

    /// The secret itself, as PKCS#11 holds it: the seed of an Ed25519 key, the scalar of an ECDSA key.
    pub(crate) fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(match &self.secret {
            Secret::Ed25519(key) => key.as_bytes().to_vec(),
            Secret::EcdsaSecp256r1(key) => key.to_bytes().to_vec(),
            Secret::EcdsaSecp256k1(key) => key.to_bytes().to_vec(),
        })
    }

    /// Unencrypted PKCS#8 PEM; wiped when dropped.
    ///
    /// # Panics
    /// Never, as [`Self::to_pkcs8_der`].
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        self.to_pkcs8_der().to_pem(PEM_LABEL, LineEnding::LF).expect("small DER has a PEM form")
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Signs `message`; the signature has the form of the scheme (PROTOCOL e.5): 64 bytes for Ed25519, DER for ECDSA.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Secret::EcdsaSecp256r1(key) => {
                let signature: p256::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
            Secret::EcdsaSecp256k1(key) => {
                let signature: k256::ecdsa::DerSignature = key.sign(message);
                signature.as_bytes().to_vec()
            }
        }
    }
}

/// The public half only.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.public_key)
    }
}

/// Fills `bytes` from the operating system.
///
/// # Errors
/// [`PrivateKeyError::Random`].
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), PrivateKeyError> {
    getrandom::fill(bytes).map_err(|error| PrivateKeyError::Random(error.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const SCHEMES: [SignatureScheme; 2] = [SignatureScheme::Ed25519, SignatureScheme::EcdsaSecp256r1Sha256];

    fn manifest() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/manifest.json");
        serde_json::from_str(&std::fs::read_to_string(path).expect("manifest")).expect("JSON")
    }

    fn unhex(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().expect("a string")).expect("hex")
    }

    #[test]
    fn keys_by_corda_are_read_and_sign_as_corda_signs() {
        let manifest = manifest();
        let keys = manifest["keys"].as_object().expect("keys").values();
        let vectors = manifest["vectors"].as_array().expect("vectors");
        let signed = vectors.iter().map(|vector| &vector["expected"]).filter(|expected| expected.get("key").is_some());
        let mut checked = Vec::new();
        for (entry, expected) in keys.map(|key| (key, &Value::Null)).chain(signed.map(|e| (&e["key"], e))) {
            let key = match PrivateKey::from_pkcs8_der(&unhex(&entry["privateKeyPkcs8Hex"])) {
                Ok(key) => key,
                Err(error) => {
                    assert_eq!(error, PrivateKeyError::UnsupportedScheme, "{entry}");
                    continue;
                }
            };
            assert_eq!(key.public_key().as_spki(), unhex(&entry["publicKeyX509Hex"]));
            if !expected.is_null() {
                let (message, by_corda) = (unhex(&expected["signedBytesHex"]), unhex(&expected["signatureHex"]));
                let signature = key.sign(&message);
                assert_eq!(key.public_key().verify(&message, &signature), Ok(()));
                if key.public_key().scheme() == SignatureScheme::Ed25519 {
                    assert_eq!(signature, by_corda);
                }
            }
            checked.push(key.public_key().scheme());
        }
        assert_eq!(checked.len(), 7, "five keys, all but the RSA one, and two signatures: {checked:?}");
    }

    #[test]
    fn the_request_signature_of_a_vector_is_made_again_to_the_byte() {
        let manifest = manifest();
        let alice =
            PrivateKey::from_pkcs8_der(&unhex(&manifest["keys"]["alice"]["privateKeyPkcs8Hex"])).expect("a key");
        let vectors = manifest["vectors"].as_array().expect("vectors");
        let payload = vectors.iter().find(|vector| vector["file"] == "payload_filtered_1_input.bin").expect("a vector");
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");
        let request = std::fs::read(format!("{dir}/payload_filtered_1_input.request.bin")).expect("request bytes");
        let signature = hex::encode(alice.sign(&request));
        assert!(payload.to_string().contains(&signature), "{payload}");
    }

    /// RFC 6979, A.2.5: P-256 with SHA-256, message "sample".
    #[test]
    fn ecdsa_is_deterministic_as_in_rfc_6979() {
        let secret = hex::decode("c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721").expect("hex");
        let key = p256::ecdsa::SigningKey::from_slice(&secret).expect("a key");
        let key = PrivateKey::from_secret(Secret::EcdsaSecp256r1(key)).expect("a key");
        let r = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716";
        let s = "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
        assert_eq!(hex::encode(key.sign(b"sample")), format!("3046022100{r}022100{s}"));
    }

    #[test]
    fn keys_survive_pkcs8_and_are_all_different() {
        for scheme in SCHEMES {
            let (key, other) =
                (PrivateKey::generate(scheme).expect("a key"), PrivateKey::generate(scheme).expect("a key"));
            assert_eq!(key.public_key().scheme(), scheme);
            assert_ne!(key.public_key(), other.public_key());
            let again = PrivateKey::from_pkcs8_pem(&key.to_pkcs8_pem()).expect("the same key");
            assert_eq!(again.public_key(), key.public_key());
            assert_eq!(again.sign(b"m"), key.sign(b"m"));
            assert!(other.public_key().verify(b"m", &key.sign(b"m")).is_err());
        }
        for scheme in [SignatureScheme::RsaSha256, SignatureScheme::EcdsaSecp256k1Sha256, SignatureScheme::Composite] {
            assert_eq!(PrivateKey::generate(scheme).err(), Some(PrivateKeyError::UnsupportedScheme));
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        for scheme in SCHEMES {
            let key = PrivateKey::generate(scheme).expect("a key");
            let printed = format!("{key:?}");
            assert_eq!(
                printed,
                format!("PrivateKey(of PublicKey({} {}))", scheme.name(), key.public_key().name_hash())
            );
        }
    }

    #[test]
    fn damaged_keys_are_refused() {
        let pem = PrivateKey::generate(SignatureScheme::Ed25519).expect("a key").to_pkcs8_pem();
        for damaged in [
            "",
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
            &pem[..80],
            &pem.replace("PRIVATE", "PUBLIC"),
        ] {
            assert_eq!(PrivateKey::from_pkcs8_pem(damaged).err(), Some(PrivateKeyError::Malformed), "{damaged}");
        }
    }
}
