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

/// What a request to a Corda network's identity manager says beside name and key: attributes, as Corda's own
/// `X509Utilities.createCertificateSigningRequest` writes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes<'a> {
    /// Whom the identity manager's operators may write to; may be empty.
    pub email: &'a str,
    /// The number of the certificate role asked for (`network::Role`).
    pub role: u8,
}

/// Attribute types: emailAddress (PKCS#9), and Corda's certificate role.
const EMAIL: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01];
const ROLE: &[u8] = &[0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0x8a, 0x62, 0x01, 0x01];

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
        Self::make(subject, public_key, &[], sign)
    }

    /// A request with Corda's two attributes, which an identity manager needs; otherwise as [`Self::new`].
    ///
    /// # Errors
    /// [`CsrError`].
    ///
    /// # Panics
    /// Never: a name, a key and short attributes encode.
    pub fn with_attributes(
        subject: &X500Name,
        public_key: &PublicKey,
        attributes: &Attributes<'_>,
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<Self, CsrError> {
        let attribute = |oid: &[u8], value: &[u8]| sequence(&[oid, &tagged(Tag::Set, &[value])]);
        let email = tagged(Tag::Utf8String, &[attributes.email.as_bytes()]);
        let role = attributes.role.to_der().expect("a small integer");
        let mut set = [attribute(EMAIL, &email), attribute(ROLE, &role)];
        // DER orders the members of a set by their encodings.
        set.sort_unstable();
        Self::make(subject, public_key, &set.concat(), sign)
    }

    fn make(
        subject: &X500Name,
        public_key: &PublicKey,
        attributes: &[u8],
        sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, String>,
    ) -> Result<Self, CsrError> {
        let algorithm = match public_key.scheme() {
            SignatureScheme::Ed25519 => ED25519,
            SignatureScheme::EcdsaSecp256r1Sha256 | SignatureScheme::EcdsaSecp256k1Sha256 => ECDSA,
            SignatureScheme::RsaSha256 => RSA,
            scheme @ SignatureScheme::Composite => return Err(CsrError::Scheme(scheme.name())),
        };
        // Version 0. The attributes are [0] IMPLICIT SET OF, which is not optional.
        let attributes = tagged(Tag::ContextSpecific { constructed: true, number: der::TagNumber(0) }, &[attributes]);
        let info = sequence(&[&[0x02, 0x01, 0x00], &subject.to_der(), public_key.as_spki(), &attributes]);
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
    tagged(Tag::Sequence, parts)
}

fn tagged(tag: Tag, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    AnyRef::new(tag, &content).and_then(|any| any.to_der()).expect("a thousand bytes at most")
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
    /// `tests/corda/registered` compares them with those of Corda's own requests.
    #[test]
    fn a_request_to_an_identity_manager_has_cordas_attributes() {
        let name = X500Name::new("Notary Service", "Zurich", "CH").expect("a name");
        let key = PrivateKey::generate(SignatureScheme::Ed25519).expect("a key");
        let attributes = Attributes { email: "a@b.c", role: 3 };
        let sign = |bytes: &[u8]| Ok(key.sign(bytes));
        let request = CertificationRequest::with_attributes(&name, key.public_key(), &attributes, sign).expect("made");
        let text = hex::encode(request.as_der());
        let email = "301406092a864886f70d01090131070c056140622e63";
        let role = "3011060a2b06010401838a6201013103020103";
        assert!(text.contains(&format!("a029{role}{email}")), "{text}");
    }
}
