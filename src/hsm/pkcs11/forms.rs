//! The forms in which tokens hold keys and give signatures, turned into those of the domain (PROTOCOL e.5).

use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use p256::pkcs8::EncodePublicKey;
use sha2::{Digest, Sha256};

use crate::domain::signature::ED25519_PREFIX;
use crate::domain::{PublicKey, SignatureScheme};

/// `CKA_EC_PARAMS` by object identifier: P-256, secp256k1, Ed25519.
pub(super) const P256_OID: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
pub(super) const K256_OID: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
pub(super) const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// Ed25519 by name: PrintableString `edwards25519`.
pub(super) const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

/// Everything of a DigestInfo for SHA-256 before the digest (RFC 8017, 9.2, note 1).
const DIGEST_INFO_SHA256: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20];

/// The public key of an EC or Edwards key, from `CKA_EC_PARAMS` and `CKA_EC_POINT`.
///
/// # Errors
/// What is not understood.
pub(super) fn ec_public_key(parameters: &[u8], point: &[u8]) -> Result<PublicKey, String> {
    let spki = match curve(parameters)? {
        SignatureScheme::Ed25519 => {
            let point = unwrapped(point, 32).ok_or("CKA_EC_POINT is no Ed25519 point")?;
            [&ED25519_PREFIX[..], point].concat()
        }
        scheme => {
            let point = unwrapped(point, 65).ok_or("CKA_EC_POINT is no uncompressed point")?;
            let spki = if scheme == SignatureScheme::EcdsaSecp256r1Sha256 {
                p256::PublicKey::from_sec1_bytes(point).ok().and_then(|key| key.to_public_key_der().ok())
            } else {
                k256::PublicKey::from_sec1_bytes(point).ok().and_then(|key| key.to_public_key_der().ok())
            };
            spki.ok_or("CKA_EC_POINT is not on its curve")?.into_vec()
        }
    };
    PublicKey::from_spki(&spki).map_err(|error| error.to_string())
}

/// Named by object identifier or, as an older standard had it, by a string.
fn curve(parameters: &[u8]) -> Result<SignatureScheme, String> {
    let named = |name: &str| match name {
        "prime256v1" | "secp256r1" | "P-256" => Some(SignatureScheme::EcdsaSecp256r1Sha256),
        "secp256k1" => Some(SignatureScheme::EcdsaSecp256k1Sha256),
        "edwards25519" | "Ed25519" => Some(SignatureScheme::Ed25519),
        _ => None,
    };
    let scheme = match parameters {
        P256_OID => Some(SignatureScheme::EcdsaSecp256r1Sha256),
        K256_OID => Some(SignatureScheme::EcdsaSecp256k1Sha256),
        ED25519_OID => Some(SignatureScheme::Ed25519),
        _ => match AnyRef::from_der(parameters) {
            Ok(any) if any.tag() == Tag::PrintableString => std::str::from_utf8(any.value()).ok().and_then(named),
            _ => None,
        },
    };
    scheme.ok_or_else(|| format!("CKA_EC_PARAMS {} is none of P-256, secp256k1, Ed25519", hex::encode(parameters)))
}

/// The standard wraps a point in an OCTET STRING; some modules give it bare, or in a BIT STRING.
fn unwrapped(point: &[u8], len: usize) -> Option<&[u8]> {
    if point.len() == len {
        return Some(point);
    }
    let any = AnyRef::from_der(point).ok()?;
    let inner = match any.tag() {
        Tag::OctetString => any.value(),
        _ => any.decode_as::<BitStringRef<'_>>().ok()?.as_bytes()?,
    };
    (inner.len() == len).then_some(inner)
}

#[derive(Sequence)]
struct RsaBody<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

#[derive(Sequence)]
struct RsaAlgorithm {
    oid: der::asn1::ObjectIdentifier,
    parameters: der::asn1::Null,
}

#[derive(Sequence)]
struct RsaSpki<'a> {
    algorithm: RsaAlgorithm,
    key: BitStringRef<'a>,
}

/// The public key of an RSA key, from `CKA_MODULUS` and `CKA_PUBLIC_EXPONENT`.
///
/// # Errors
/// What is not understood.
pub(super) fn rsa_public_key(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, String> {
    let encode = || -> der::Result<Vec<u8>> {
        let body = RsaBody { modulus: UintRef::new(modulus)?, exponent: UintRef::new(exponent)? }.to_der()?;
        let oid = der::asn1::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
        let algorithm = RsaAlgorithm { oid, parameters: der::asn1::Null };
        RsaSpki { algorithm, key: BitStringRef::from_bytes(&body)? }.to_der()
    };
    let spki = encode().map_err(|error| error.to_string())?;
    PublicKey::from_spki(&spki).map_err(|error| error.to_string())
}

#[derive(Sequence)]
struct SignedCertificate<'a> {
    tbs: Tbs<'a>,
    algorithm: AnyRef<'a>,
    signature: BitStringRef<'a>,
}

/// As far as the key, and what follows it as it comes.
#[derive(Sequence)]
struct Tbs<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: u8,
    serial: UintRef<'a>,
    algorithm: AnyRef<'a>,
    issuer: AnyRef<'a>,
    validity: AnyRef<'a>,
    subject: AnyRef<'a>,
    spki: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<AnyRef<'a>>,
}

/// The public key that a certificate names. Nothing else of it is believed, or checked: a signature proves the key.
///
/// # Errors
/// What is not understood.
pub(super) fn certificate_public_key(certificate: &[u8]) -> Result<PublicKey, String> {
    let certificate = SignedCertificate::from_der(certificate).map_err(|error| error.to_string())?;
    let spki = certificate.tbs.spki.to_der().map_err(|error| error.to_string())?;
    PublicKey::from_spki(&spki).map_err(|error| error.to_string())
}

/// SHA-256 of a message, for mechanisms that sign any length they are given without complaint: hence a type that has 32 bytes.
pub(super) fn digest(message: &[u8]) -> [u8; 32] {
    Sha256::digest(message).into()
}

/// What `CKM_RSA_PKCS` signs for SHA-256.
pub(super) fn digest_info(message: &[u8]) -> Vec<u8> {
    [&DIGEST_INFO_SHA256[..], &digest(message)].concat()
}

/// A token's signature in the form of the scheme: DER for ECDSA, where tokens give r and s side by side.
///
/// # Errors
/// If it has another form.
pub(super) fn signature(scheme: SignatureScheme, raw: Vec<u8>) -> Result<Vec<u8>, String> {
    let malformed = || format!("a signature of {} bytes has no form of {}", raw.len(), scheme.name());
    match scheme {
        SignatureScheme::EcdsaSecp256r1Sha256 => {
            let signature = p256::ecdsa::Signature::from_slice(&raw).map_err(|_| malformed())?;
            Ok(signature.to_der().as_bytes().to_vec())
        }
        SignatureScheme::EcdsaSecp256k1Sha256 => {
            let signature = k256::ecdsa::Signature::from_slice(&raw).map_err(|_| malformed())?;
            Ok(signature.to_der().as_bytes().to_vec())
        }
        SignatureScheme::Ed25519 if raw.len() != 64 => Err(malformed()),
        SignatureScheme::Composite => Err("a composite key does not sign by itself".into()),
        SignatureScheme::Ed25519 | SignatureScheme::RsaSha256 => Ok(raw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::PrivateKey;

    fn key(scheme: SignatureScheme) -> PrivateKey {
        PrivateKey::generate(scheme).expect("a key")
    }

    #[test]
    fn points_are_read_wrapped_and_bare_under_every_name_of_their_curve() {
        let name = |name: &str| [&[0x13, name.len() as u8], name.as_bytes()].concat();
        let ed25519 = key(SignatureScheme::Ed25519);
        let point = &ed25519.public_key().as_spki()[12..];
        let forms = [point.to_vec(), [&[4, 32], point].concat(), [&[3, 33, 0], point].concat()];
        for parameters in [ED25519_OID.to_vec(), ED25519_NAME.to_vec(), name("Ed25519")] {
            for form in &forms {
                assert_eq!(ec_public_key(&parameters, form).as_ref(), Ok(ed25519.public_key()));
            }
        }
        let p256 = key(SignatureScheme::EcdsaSecp256r1Sha256);
        let point = &p256.public_key().as_spki()[26..];
        for parameters in [P256_OID.to_vec(), name("prime256v1"), name("secp256r1")] {
            for form in [point.to_vec(), [&[4, 65], point].concat()] {
                assert_eq!(ec_public_key(&parameters, &form).as_ref(), Ok(p256.public_key()));
            }
        }
        for (parameters, point) in
            [(P256_OID, &point[1..]), (K256_OID, point), (ED25519_OID, point), (b"\x05\x00", point), (b"", point)]
        {
            assert!(ec_public_key(parameters, point).is_err(), "{parameters:02x?}");
        }
    }

    #[test]
    fn raw_ecdsa_becomes_der_that_verifies() {
        let key = key(SignatureScheme::EcdsaSecp256r1Sha256);
        let der = key.sign(b"message");
        let raw = p256::ecdsa::Signature::from_der(&der).expect("DER").to_bytes().to_vec();
        let again = signature(SignatureScheme::EcdsaSecp256r1Sha256, raw.clone()).expect("64 bytes");
        assert_eq!(key.public_key().verify(b"message", &again), Ok(()));
        for wrong in [&raw[1..], &der, &[0; 64]] {
            assert!(signature(SignatureScheme::EcdsaSecp256r1Sha256, wrong.to_vec()).is_err());
        }
        assert!(signature(SignatureScheme::Ed25519, vec![0; 63]).is_err());
    }

    #[test]
    fn rsa_keys_have_the_encoding_of_java() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/manifest.json");
        let text = std::fs::read_to_string(manifest).expect("manifest");
        let at = text.find("308201a2300d06092a864886f70d010101").expect("an RSA key of Corda's");
        let len = text[at..].find('"').expect("its end");
        let spki = hex::decode(&text[at..at + len]).expect("hex");
        let by_corda = PublicKey::from_spki(&spki).expect("a key");
        let body = RsaSpki::from_der(&spki).expect("DER");
        let body = RsaBody::from_der(body.key.as_bytes().expect("whole bytes")).expect("DER");
        assert_eq!(rsa_public_key(body.modulus.as_bytes(), body.exponent.as_bytes()), Ok(by_corda.clone()));
        let padded = [&[0], body.modulus.as_bytes()].concat();
        assert_eq!(rsa_public_key(&padded, body.exponent.as_bytes()), Ok(by_corda), "a leading zero is no other key");
    }
}
