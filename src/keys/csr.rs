//! Certification requests (PKCS#10, RFC 2986): how a key asks a network's identity CA for its certificate.

use der::asn1::{AnyRef, BitStringRef};
use der::{Encode, Tag};
use pkcs8::LineEnding;

use crate::domain::{PublicKey, SignatureScheme, X500Name};

/// The PEM label of a request (RFC 7468).
const PEM_LABEL: &str = "CERTIFICATE REQUEST";

/// AlgorithmIdentifiers of signatures: Ed25519 (RFC 8410), ecdsa-with-SHA256 (RFC 5758), sha256WithRSAEncryption (RFC 4055).
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
const ECDSA: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00];

/// A request, in DER.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificationRequest(Vec<u8>);

/// Why there is no request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CsrError {
    /// The key did not sign, or not as its scheme demands.
    #[error("the key did not sign the request: {0}")]
    Signature(String),
    /// A composite key asks for no certificate this way.
    #[error("a key of scheme {0} cannot request a certificate")]
    Scheme(&'static str),
}

impl CertificationRequest {
    /// A request for `subject`, without attributes. `sign` signs bytes with the private half of `public_key`, in the form of its
    /// scheme; the signature is verified here.
    ///
    /// # Errors
    /// [`CsrError`].
    ///
    /// # Panics
    /// Never: a name and a key encode.
    pub fn new(
        subject: &X500Name,
        public_key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<Self, CsrError> {
        let algorithm = match public_key.scheme() {
            SignatureScheme::Ed25519 => ED25519,
            SignatureScheme::EcdsaSecp256r1Sha256 | SignatureScheme::EcdsaSecp256k1Sha256 => ECDSA,
            SignatureScheme::RsaSha256 => RSA,
            scheme @ SignatureScheme::Composite => return Err(CsrError::Scheme(scheme.name())),
        };
        // Version 0, and no attributes: [0], which is not optional.
        let info = sequence(&[&[0x02, 0x01, 0x00], &subject.to_der(), public_key.as_spki(), &[0xa0, 0x00]]);
        let signature = sign(&info).map_err(CsrError::Signature)?;
        public_key.verify(&info, &signature).map_err(|error| CsrError::Signature(error.to_string()))?;
        let signature =
            BitStringRef::from_bytes(&signature).and_then(|bits| bits.to_der()).expect("some hundred bytes");
        Ok(Self(sequence(&[&info, algorithm, &signature])))
    }

    /// DER.
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// PEM.
    ///
    /// # Panics
    /// Never: small DER has a PEM form.
    pub fn to_pem(&self) -> String {
        pkcs8::der::pem::encode_string(PEM_LABEL, LineEnding::LF, &self.0).expect("small DER has a PEM form")
    }
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    AnyRef::new(Tag::Sequence, &content).and_then(|any| any.to_der()).expect("a thousand bytes at most")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;

    #[test]
    fn a_request_carries_name_and_key_and_only_the_keys_own_signature() {
        let name = X500Name::new("Notary Service", "Zurich", "CH").expect("a name");
        for scheme in [SignatureScheme::Ed25519, SignatureScheme::EcdsaSecp256r1Sha256] {
            let (key, other) =
                (PrivateKey::generate(scheme).expect("a key"), PrivateKey::generate(scheme).expect("a key"));
            let request = CertificationRequest::new(&name, key.public_key(), |bytes| Ok(key.sign(bytes)));
            let request = request.expect("signed");
            let contains = |part: &[u8]| request.as_der().windows(part.len()).any(|window| window == part);
            assert!(contains(&name.to_der()) && contains(key.public_key().as_spki()));
            assert!(request.to_pem().starts_with("-----BEGIN CERTIFICATE REQUEST-----\n"));

            let wrong = CertificationRequest::new(&name, key.public_key(), |bytes| Ok(other.sign(bytes)));
            assert!(matches!(wrong, Err(CsrError::Signature(_))));
        }
    }
}
