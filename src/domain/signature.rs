//! Public keys and signatures in the schemes of Corda (PROTOCOL e.5).
//!
//! A key is read once and strictly: each key has exactly one encoding here, so that equality of bytes is equality of keys.
//! Hence uncompressed points on named curves only, RSA with its NULL parameters, canonical Edwards points, and DER throughout:
//! what Java's `PublicKey.getEncoded` writes.

use core::fmt;
use core::hash::{Hash, Hasher};
use std::sync::Arc;

use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Sequence};
use sha2::{Digest, Sha256};

use super::composite_key::{Budget, CompositeKey};

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

impl SignatureScheme {
    /// Corda's number of the scheme, as it stands in signature metadata.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// Corda's code name of the scheme.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RsaSha256 => "RSA_SHA256",
            Self::EcdsaSecp256k1Sha256 => "ECDSA_SECP256K1_SHA256",
            Self::EcdsaSecp256r1Sha256 => "ECDSA_SECP256R1_SHA256",
            Self::Ed25519 => "EDDSA_ED25519_SHA512",
            Self::Composite => "COMPOSITE",
        }
    }
}

/// A public key in its X.509 (SubjectPublicKeyInfo DER) form. Equality is equality of these bytes, as in Corda. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<ParsedKey>);

struct ParsedKey {
    spki: Box<[u8]>,
    verifier: Verifier,
}

/// A key made ready to verify.
enum Verifier {
    Rsa(rsa::RsaPublicKey),
    EcdsaSecp256k1(k256::ecdsa::VerifyingKey),
    EcdsaSecp256r1(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
    Composite(CompositeKey),
}

/// The bytes are no key that this worker understands.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a usable public key: {0}")]
pub struct KeyError(pub String);

impl KeyError {
    fn new(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

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

/// Everything of a P-256 SubjectPublicKeyInfo before the 64 bytes of the uncompressed point.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
/// The same for secp256k1.
const K256_PREFIX: [u8; 24] = [
    0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x0a, 0x03, 0x42, 0x00, 0x04,
];
/// Everything of an Ed25519 SubjectPublicKeyInfo (RFC 8410) before the 32 bytes of the point.
pub(crate) const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Content of the AlgorithmIdentifier of an RSA key: rsaEncryption, NULL.
const RSA_ALGORITHM: [u8; 13] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// The same of a composite key: OID 2.25.30086077608615255153862931087626791002 without parameters.
const COMPOSITE_ALGORITHM: [u8; 21] = [
    0x06, 0x13, 0x69, 0xad, 0xa2, 0xaf, 0x89, 0xd5, 0xb8, 0xe2, 0xaf, 0xf3, 0x8d, 0x93, 0xac, 0x9d, 0xe6, 0x96, 0x9b,
    0xd0, 0x5a,
];

#[derive(Sequence)]
struct Spki<'a> {
    algorithm: AnyRef<'a>,
    key: BitStringRef<'a>,
}

#[derive(Sequence)]
struct RsaBody<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

impl PublicKey {
    /// The longest encoding read, in bytes: a composite of a dozen RSA keys. An RSA key of 8192 bits takes 1 062.
    pub const SPKI_LEN_MAX: usize = 16 * 1024;
    /// RSA moduli read, in bits: below, they are breakable; above, one check takes milliseconds.
    pub const RSA_BITS: core::ops::RangeInclusive<usize> = 2048..=8192;

    /// Reads a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`KeyError`] for anything but a valid key of a [`SignatureScheme`], in the one encoding that Java writes.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        if spki.len() > Self::SPKI_LEN_MAX {
            return Err(KeyError::new("too long"));
        }
        Self::read(spki, &mut Budget::new())
    }

    pub(super) fn read(spki: &[u8], budget: &mut Budget) -> Result<Self, KeyError> {
        let verifier = if let Some(point) = spki.strip_prefix(&P256_PREFIX) {
            Verifier::EcdsaSecp256r1(
                p256::ecdsa::VerifyingKey::from_sec1_bytes(&uncompressed(point)?).map_err(KeyError::new)?,
            )
        } else if let Some(point) = spki.strip_prefix(&K256_PREFIX) {
            Verifier::EcdsaSecp256k1(
                k256::ecdsa::VerifyingKey::from_sec1_bytes(&uncompressed(point)?).map_err(KeyError::new)?,
            )
        } else if let Some(point) = spki.strip_prefix(&ED25519_PREFIX) {
            Verifier::Ed25519(read_ed25519(point)?)
        } else {
            let Spki { algorithm, key } = Spki::from_der(spki).map_err(KeyError::new)?;
            let body = key.as_bytes().ok_or_else(|| KeyError::new("unused bits"))?;
            match algorithm.value() {
                value if value == RSA_ALGORITHM => Verifier::Rsa(read_rsa(body)?),
                value if value == COMPOSITE_ALGORITHM => Verifier::Composite(CompositeKey::read(body, budget)?),
                _ => return Err(KeyError::new("unknown algorithm or encoding")),
            }
        };
        Ok(Self(Arc::new(ParsedKey { spki: spki.into(), verifier })))
    }

    /// The DER bytes.
    pub fn as_spki(&self) -> &[u8] {
        &self.0.spki
    }

    /// The scheme of signatures by this key.
    pub fn scheme(&self) -> SignatureScheme {
        match self.0.verifier {
            Verifier::Rsa(_) => SignatureScheme::RsaSha256,
            Verifier::EcdsaSecp256k1(_) => SignatureScheme::EcdsaSecp256k1Sha256,
            Verifier::EcdsaSecp256r1(_) => SignatureScheme::EcdsaSecp256r1Sha256,
            Verifier::Ed25519(_) => SignatureScheme::Ed25519,
            Verifier::Composite(_) => SignatureScheme::Composite,
        }
    }

    /// Checks `signature` over `message`.
    ///
    /// A signature has to be acceptable, not unique: nothing of the notary's depends on signature bytes, a request is known by
    /// its transaction. So this accepts what Corda nodes make and verify, malleable as it is:
    /// - ECDSA with a high `s` (BouncyCastle signs without a low-s rule), but DER to the letter, as BouncyCastle demands.
    /// - Ed25519 by the plain, cofactorless equation of Corda's library (`verify`, not `verify_strict`, whose extra check of
    ///   `R` Corda does not make). A scalar of the group order or more is refused: RFC 8032 and Corda 4.12 demand that; Corda 4.10
    ///   accepts it, and no signer makes it.
    ///
    /// # Errors
    /// [`SignatureError`] if it does not hold.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignatureError> {
        use p256::ecdsa::signature::Verifier as _;
        match &self.0.verifier {
            Verifier::Rsa(key) => {
                if signature.len() != rsa::traits::PublicKeyParts::size(key) {
                    return Err(SignatureError::Malformed);
                }
                let scheme = rsa::Pkcs1v15Sign::new::<rsa::sha2::Sha256>();
                key.verify(scheme, &Sha256::digest(message), signature).map_err(|_| SignatureError::Mismatch)
            }
            Verifier::EcdsaSecp256k1(key) => {
                let signature = k256::ecdsa::Signature::from_der(signature).map_err(|_| SignatureError::Malformed)?;
                // The crate refuses a high s on this curve; Corda signs with either.
                key.verify(message, &signature.normalize_s()).map_err(|_| SignatureError::Mismatch)
            }
            Verifier::EcdsaSecp256r1(key) => {
                let signature = p256::ecdsa::Signature::from_der(signature).map_err(|_| SignatureError::Malformed)?;
                key.verify(message, &signature).map_err(|_| SignatureError::Mismatch)
            }
            Verifier::Ed25519(key) => {
                let signature =
                    ed25519_dalek::Signature::from_slice(signature).map_err(|_| SignatureError::Malformed)?;
                key.verify(message, &signature).map_err(|_| SignatureError::Mismatch)
            }
            Verifier::Composite(_) => Err(SignatureError::Composite),
        }
    }

    /// Whether signatures by `keys` fulfil this key: it is among them, or it is composite and they reach its threshold.
    /// As in Corda, a composite key among `keys` fulfils nothing, and spoils the fulfilment of a composite key.
    pub fn is_fulfilled_by(&self, keys: &[PublicKey]) -> bool {
        let no_composite = || keys.iter().all(|key| key.scheme() != SignatureScheme::Composite);
        no_composite() && self.is_fulfilled_by_plain(keys)
    }

    pub(super) fn is_fulfilled_by_plain(&self, keys: &[PublicKey]) -> bool {
        match &self.0.verifier {
            Verifier::Composite(composite) => composite.is_fulfilled_by(keys),
            _ => keys.contains(self),
        }
    }

    /// The keys that sign for this one: itself, or the leaves of a composite key from left to right.
    pub fn leaf_keys(&self) -> Vec<&PublicKey> {
        match &self.0.verifier {
            Verifier::Composite(composite) => composite.children().flat_map(Self::leaf_keys).collect(),
            _ => vec![self],
        }
    }

    /// The name that Corda gives the key in queue addresses and logs (`toStringShort`, PROTOCOL b.1): `DL` and the Base58 form
    /// of the SHA-256 of its encoding.
    pub fn name_hash(&self) -> String {
        format!("DL{}", bs58::encode(Sha256::digest(self.as_spki())).into_string())
    }

    /// The key as it stands in Corda's error texts: Base58 of its encoding. A key of more than 1024 bytes goes by its
    /// [`Self::name_hash`] instead, because Base58 takes quadratic time and a stranger may have sent the key.
    pub fn to_base58(&self) -> String {
        const BASE58_LEN_MAX: usize = 1024;
        if self.as_spki().len() > BASE58_LEN_MAX {
            return self.name_hash();
        }
        bs58::encode(self.as_spki()).into_string()
    }
}

/// The SEC1 form of a point whose leading `04` went with the prefix.
fn uncompressed(point: &[u8]) -> Result<[u8; 65], KeyError> {
    let point: &[u8; 64] = point.try_into().map_err(|_| KeyError::new("wrong length of an elliptic curve point"))?;
    let mut sec1 = [0x04; 65];
    sec1[1..].copy_from_slice(point);
    Ok(sec1)
}

fn read_ed25519(point: &[u8]) -> Result<ed25519_dalek::VerifyingKey, KeyError> {
    let point: &[u8; 32] = point.try_into().map_err(|_| KeyError::new("wrong length of an Ed25519 key"))?;
    // y of p = 2^255 - 19 or more: a second encoding of a small y.
    if point[0] >= 0xed && point[1..31].iter().all(|byte| *byte == 0xff) && point[31] & 0x7f == 0x7f {
        return Err(KeyError::new("non-canonical Ed25519 key"));
    }
    let key = ed25519_dalek::VerifyingKey::from_bytes(point).map_err(KeyError::new)?;
    // A point of small order makes forging easy for everybody; no generator makes one.
    if key.is_weak() { Err(KeyError::new("weak Ed25519 key")) } else { Ok(key) }
}

fn read_rsa(body: &[u8]) -> Result<rsa::RsaPublicKey, KeyError> {
    let RsaBody { modulus, exponent } = RsaBody::from_der(body).map_err(KeyError::new)?;
    let modulus = rsa::BigUint::from_bytes_be(modulus.as_bytes());
    if !PublicKey::RSA_BITS.contains(&modulus.bits()) {
        return Err(KeyError::new("RSA modulus of unsuitable size"));
    }
    // Refuses exponents above 33 bits, too, so a check has a bounded cost.
    let exponent = rsa::BigUint::from_bytes_be(exponent.as_bytes());
    rsa::RsaPublicKey::new_with_max_size(modulus, exponent, *PublicKey::RSA_BITS.end()).map_err(KeyError::new)
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_spki() == other.as_spki()
    }
}

impl Eq for PublicKey {}

impl Hash for PublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_spki().hash(state);
    }
}

/// Scheme and Corda's name of the key.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.scheme().name(), self.name_hash())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors");

    fn manifest() -> Value {
        let text = std::fs::read_to_string(format!("{VECTORS}/manifest.json")).expect("manifest");
        serde_json::from_str(&text).expect("JSON")
    }

    fn unhex(value: &Value) -> Vec<u8> {
        hex::decode(value.as_str().expect("a string")).expect("hex")
    }

    fn key(value: &Value) -> PublicKey {
        PublicKey::from_spki(&unhex(value)).expect("a key")
    }

    /// Key, message, signature of each `sig_*` vector.
    fn signatures() -> Vec<(PublicKey, Vec<u8>, Vec<u8>)> {
        let manifest = manifest();
        let vectors = manifest["vectors"].as_array().expect("vectors").iter();
        let vectors = vectors.filter(|vector| vector["file"].as_str().is_some_and(|file| file.starts_with("sig_")));
        let read = |vector: &Value| {
            let expected = &vector["expected"];
            let by = key(&expected["key"]["publicKeyX509Hex"]);
            assert_eq!(by.scheme().name(), expected["key"]["scheme"]);
            assert_eq!(by.scheme().number(), expected["key"]["schemeNumberID"]);
            assert_eq!(by.name_hash(), expected["key"]["toStringShort"]);
            (by, unhex(&expected["signedBytesHex"]), unhex(&expected["signatureHex"]))
        };
        vectors.map(read).collect()
    }

    #[test]
    fn signatures_of_every_scheme_by_corda_verify_and_no_changed_one_does() {
        let signatures = signatures();
        assert_eq!(signatures.len(), 4);
        for (by, message, signature) in &signatures {
            assert_eq!(by.verify(message, signature), Ok(()), "{by:?}");
            for i in 0..signature.len() {
                let mut changed = signature.clone();
                changed[i] ^= 1;
                assert!(by.verify(message, &changed).is_err(), "{by:?} byte {i}");
            }
            let mut other = message.clone();
            other[20] ^= 0x80;
            assert_eq!(by.verify(&other, signature), Err(SignatureError::Mismatch));
            for cut in [&[][..], &signature[1..], &signature[..signature.len() - 1]] {
                assert_eq!(by.verify(message, cut), Err(SignatureError::Malformed), "{by:?}");
            }
            assert_eq!(by.verify(message, &[signature, &[0][..]].concat()), Err(SignatureError::Malformed));
        }
        for (by, ..) in &signatures {
            for (other, message, signature) in signatures.iter().filter(|(other, ..)| other != by) {
                assert!(by.verify(message, signature).is_err(), "{by:?} accepts a signature of {other:?}");
            }
        }
    }

    #[test]
    fn keys_bear_the_names_that_corda_gives_them() {
        let manifest = manifest();
        for (name, entry) in manifest["keys"].as_object().expect("keys") {
            let key = key(&entry["publicKeyX509Hex"]);
            assert_eq!(key.name_hash(), entry["toStringShort"], "{name}");
            assert_eq!(key.scheme().name(), entry["scheme"], "{name}");
        }
        // From the error text that a real notary gave for tampered_signed_by_bob.bin.
        assert_eq!(
            key(&manifest["keys"]["alice"]["publicKeyX509Hex"]).to_base58(),
            "GfHq2tTVk9z4eXgyJJpYatnPcDDGAQPkEu8T2b4d6E5dmeTEUxJWBWL7vVMt"
        );
    }

    #[test]
    fn ecdsa_accepts_a_high_and_a_low_s_but_only_der() {
        for (by, message, signature) in signatures() {
            let flipped = match by.scheme() {
                SignatureScheme::EcdsaSecp256k1Sha256 => {
                    let signature = k256::ecdsa::Signature::from_der(&signature).expect("DER");
                    let (r, s) = signature.split_scalars();
                    k256::ecdsa::Signature::from_scalars(r, -s).expect("valid").to_der().as_bytes().to_vec()
                }
                SignatureScheme::EcdsaSecp256r1Sha256 => {
                    let signature = p256::ecdsa::Signature::from_der(&signature).expect("DER");
                    let (r, s) = signature.split_scalars();
                    p256::ecdsa::Signature::from_scalars(r, -s).expect("valid").to_der().as_bytes().to_vec()
                }
                _ => continue,
            };
            assert_ne!(flipped, signature);
            assert_eq!(by.verify(&message, &flipped), Ok(()), "{by:?}");

            // A long form of a short length.
            let long_length = [&[0x30, 0x81], &signature[1..]].concat();
            // A leading zero that the integer does not need.
            let r_len = usize::from(signature[3]);
            let mut padded = signature.clone();
            padded[1] += 1;
            padded[3] += 1;
            padded.insert(4, 0);
            // r = 0, s = 0; r alone; a negative r.
            let zeros = vec![0x30, 6, 2, 1, 0, 2, 1, 0];
            let one = [&[0x30, signature[3] + 2], &signature[2..4 + r_len]].concat();
            let negative = [&[0x30, 6, 2, 1, 0xff, 2, 1, 1][..]].concat();
            for malformed in [long_length, padded, zeros, one, negative] {
                assert_eq!(by.verify(&message, &malformed), Err(SignatureError::Malformed), "{malformed:02x?}");
            }
        }
    }

    /// Corda 4.10 accepts this one, RFC 8032 does not; see [`PublicKey::verify`].
    #[test]
    fn ed25519_refuses_a_scalar_above_the_group_order() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let (by, message, mut signature) =
            signatures().into_iter().find(|(by, ..)| by.scheme() == SignatureScheme::Ed25519).expect("a vector");
        let mut carry = 0;
        for (digit, order) in signature[32..].iter_mut().zip(ORDER) {
            let sum = u16::from(*digit) + u16::from(order) + carry;
            (*digit, carry) = (sum as u8, sum >> 8);
        }
        assert_eq!(by.verify(&message, &signature), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_key_has_one_encoding_only() {
        let manifest = manifest();
        let p256 = unhex(&manifest["keys"]["bob"]["publicKeyX509Hex"]);
        let ed25519 = unhex(&manifest["keys"]["alice"]["publicKeyX509Hex"]);
        let rsa = signatures().into_iter().find(|(by, ..)| by.scheme() == SignatureScheme::RsaSha256).expect("RSA").0;
        for spki in [&p256[..], &ed25519, rsa.as_spki()] {
            assert_eq!(PublicKey::from_spki(spki).expect("a key").as_spki(), spki);
            assert!(PublicKey::from_spki(&[spki, &[0][..]].concat()).is_err(), "trailing byte");
            for len in 0..spki.len() {
                assert!(PublicKey::from_spki(&spki[..len]).is_err(), "cut to {len}");
            }
        }
        let changed = |spki: &[u8], at: usize, byte: u8| {
            let mut spki = spki.to_vec();
            spki[at] = byte;
            PublicKey::from_spki(&spki).expect_err("accepted").to_string()
        };
        changed(&p256, 90, p256[90] ^ 1); // Not on the curve.
        changed(&p256, 25, 1); // Unused bits.
        changed(&ed25519, 11, 1);
        assert!(changed(&ed25519, 8, 0x71).contains("unknown algorithm"), "Ed448");
        changed(rsa.as_spki(), 17, 0x04); // OCTET STRING instead of NULL.

        let compressed = p256::PublicKey::from_sec1_bytes(&p256[26..]).expect("a point");
        let compressed = p256::elliptic_curve::sec1::ToSec1Point::to_sec1_point(&compressed, true);
        let compressed = [&[0x30, 0x39], &p256[2..23], &[0x03, 0x22, 0x00], compressed.as_bytes()].concat();
        assert!(PublicKey::from_spki(&compressed).is_err());
    }

    #[test]
    fn weak_and_non_canonical_ed25519_keys_are_refused() {
        let with = |first: u8, middle: u8, last: u8| {
            let mut spki = ED25519_PREFIX.to_vec();
            spki.push(first);
            spki.extend([middle; 30]);
            spki.push(last);
            PublicKey::from_spki(&spki).expect_err("accepted").0
        };
        assert_eq!(with(1, 0, 0), "weak Ed25519 key", "the neutral element");
        assert_eq!(with(0, 0, 0), "weak Ed25519 key", "order four");
        assert_eq!(with(0xee, 0xff, 0x7f), "non-canonical Ed25519 key", "the neutral element as p + 1");
        assert_eq!(with(0xf0, 0xff, 0xff), "non-canonical Ed25519 key", "a point of large order as p + 3");
    }

    #[test]
    fn rsa_keys_are_bounded() {
        let spki = |bits: usize, exponent: &[u8]| {
            let mut modulus = vec![0xff; bits / 8];
            modulus[0] = 0x80;
            let body = RsaBody {
                modulus: UintRef::new(&modulus).expect("integer"),
                exponent: UintRef::new(exponent).expect("integer"),
            };
            let body = der::Encode::to_der(&body).expect("DER");
            let algorithm = AnyRef::new(der::Tag::Sequence, &RSA_ALGORITHM).expect("DER");
            let spki = Spki { algorithm, key: BitStringRef::from_bytes(&body).expect("bits") };
            der::Encode::to_der(&spki).expect("DER")
        };
        for bits in [2048, 3072, 4096, 8192] {
            assert!(PublicKey::from_spki(&spki(bits, &[1, 0, 1])).is_ok(), "{bits}");
        }
        for (bits, exponent) in [(1024, &[1, 0, 1][..]), (2040, &[1, 0, 1]), (8200, &[1, 0, 1]), (2048, &[1, 0, 0])] {
            assert!(PublicKey::from_spki(&spki(bits, exponent)).is_err(), "{bits} {exponent:?}");
        }
        assert!(PublicKey::from_spki(&spki(2048, &[0xff; 64])).is_err(), "huge exponent");
    }
}
