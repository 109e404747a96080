//! Hashes as Corda names them: an algorithm and its digits.
//!
//! The algorithms form a closed list under their canonical names. Java accepts aliases (`sha-384`, `SHA384`), and two spellings
//! of one algorithm would make two names for one state, hence two chances to spend it; so every other spelling is refused where
//! bytes are decoded.

use core::cmp::Ordering;
use core::fmt;

use sha2::{Digest, Sha256, Sha384, Sha512};

/// A hash algorithm by its canonical Corda name.
///
/// Transaction ids can be *recomputed* under the three SHA-2 algorithms only ([`Self::is_computable`]); the others may occur in
/// references to states of older or foreign transactions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum HashAlgorithm {
    /// `SHA-256`, the default; written on the wire without a name.
    Sha256 = 0,
    /// `SHA-384`.
    Sha384 = 1,
    /// `SHA-512`.
    Sha512 = 2,
    /// `SHA-512/256`.
    Sha512_256 = 3,
    /// `SHA3-256`.
    Sha3_256 = 4,
    /// `SHA3-384`.
    Sha3_384 = 5,
    /// `SHA3-512`.
    Sha3_512 = 6,
    /// `BLAKE2S256`, the sample algorithm of Corda's hash agility.
    Blake2s256 = 7,
}

impl HashAlgorithm {
    /// Every algorithm, in the order of its store tag.
    pub const ALL: [Self; 8] = [
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Sha512_256,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
        Self::Blake2s256,
    ];

    /// The canonical name, the only one accepted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
            Self::Sha512_256 => "SHA-512/256",
            Self::Sha3_256 => "SHA3-256",
            Self::Sha3_384 => "SHA3-384",
            Self::Sha3_512 => "SHA3-512",
            Self::Blake2s256 => "BLAKE2S256",
        }
    }

    /// The algorithm with exactly this canonical name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The one-byte tag under which stores keep the algorithm; never renumbered.
    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The algorithm with this store tag.
    pub fn from_tag(tag: u8) -> Option<Self> {
        Self::ALL.get(usize::from(tag)).copied()
    }

    /// Digest length in bytes.
    pub const fn digest_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Sha512_256 | Self::Sha3_256 | Self::Blake2s256 => 32,
            Self::Sha384 | Self::Sha3_384 => 48,
            Self::Sha512 | Self::Sha3_512 => 64,
        }
    }

    /// Whether this worker can compute the algorithm, and so check ids made with it.
    pub const fn is_computable(self) -> bool {
        matches!(self, Self::Sha256 | Self::Sha384 | Self::Sha512)
    }

    /// Digest of the concatenated parts.
    ///
    /// # Errors
    /// [`UnsupportedAlgorithm`] unless [`Self::is_computable`].
    pub fn digest(self, parts: &[&[u8]]) -> Result<SecureHash, UnsupportedAlgorithm> {
        fn run<D: Digest>(algorithm: HashAlgorithm, parts: &[&[u8]]) -> SecureHash {
            let mut hasher = D::new();
            for part in parts {
                hasher.update(part);
            }
            SecureHash::from_exact(algorithm, &hasher.finalize())
        }
        match self {
            Self::Sha256 => Ok(run::<Sha256>(self, parts)),
            Self::Sha384 => Ok(run::<Sha384>(self, parts)),
            Self::Sha512 => Ok(run::<Sha512>(self, parts)),
            _ => Err(UnsupportedAlgorithm(self)),
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The worker knows the algorithm's name but does not compute it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("hash algorithm {0} is not supported for transaction ids")]
pub struct UnsupportedAlgorithm(pub HashAlgorithm);

/// The digits do not fit the algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a {algorithm} hash has {expected} bytes, not {actual}", expected = algorithm.digest_len())]
pub struct HashLengthError {
    /// The algorithm claimed.
    pub algorithm: HashAlgorithm,
    /// The number of bytes found.
    pub actual: usize,
}

/// A hash value. Two hashes are equal only if algorithm *and* digits are: equal digits under two algorithms name two things.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecureHash {
    algorithm: HashAlgorithm,
    /// Left-aligned; the rest is zero, so derived equality is exact.
    digits: [u8; Self::LEN_MAX],
}

impl SecureHash {
    /// The longest digest of any algorithm, in bytes.
    pub const LEN_MAX: usize = 64;

    /// A hash from its digits.
    ///
    /// # Errors
    /// [`HashLengthError`] if the length is not the algorithm's.
    pub fn new(algorithm: HashAlgorithm, bytes: &[u8]) -> Result<Self, HashLengthError> {
        if bytes.len() != algorithm.digest_len() {
            return Err(HashLengthError { algorithm, actual: bytes.len() });
        }
        Ok(Self::from_exact(algorithm, bytes))
    }

    fn from_exact(algorithm: HashAlgorithm, bytes: &[u8]) -> Self {
        debug_assert_eq!(bytes.len(), algorithm.digest_len());
        let mut digits = [0; Self::LEN_MAX];
        digits[..bytes.len()].copy_from_slice(bytes);
        Self { algorithm, digits }
    }

    /// A SHA-256 hash from its 32 bytes.
    pub fn sha256(bytes: [u8; 32]) -> Self {
        Self::from_exact(HashAlgorithm::Sha256, &bytes)
    }

    /// All bytes zero: the padding leaf of Merkle trees.
    pub fn zero(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, digits: [0; Self::LEN_MAX] }
    }

    /// All bytes `ff`: the group hash of an empty component group.
    pub fn all_ones(algorithm: HashAlgorithm) -> Self {
        Self::from_exact(algorithm, &[0xff; Self::LEN_MAX][..algorithm.digest_len()])
    }

    /// The algorithm.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The digits, as long as the algorithm says.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.algorithm.digest_len()]
    }

    /// The hash of the digits, under the same algorithm. Corda reveals consuming transactions only in this form.
    ///
    /// # Errors
    /// [`UnsupportedAlgorithm`] for an algorithm the worker cannot compute.
    pub fn rehash(&self) -> Result<Self, UnsupportedAlgorithm> {
        self.algorithm.digest(&[self.as_bytes()])
    }

    /// Corda's order: raw bytes as unsigned values, shorter prefix first; the algorithm is not looked at.
    pub fn cmp_digits(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }

    /// Reads Corda's text form: hex for SHA-256, `ALGORITHM:HEX` otherwise.
    pub fn parse(text: &str) -> Option<Self> {
        let (algorithm, digits) = match text.split_once(':') {
            Some((name, digits)) => (HashAlgorithm::from_name(name)?, digits),
            None => (HashAlgorithm::Sha256, text),
        };
        Self::new(algorithm, &hex::decode(digits).ok()?).ok()
    }
}

/// Total order: Corda's digit order first, then the algorithm, so that distinct hashes never compare equal.
impl Ord for SecureHash {
    fn cmp(&self, other: &Self) -> Ordering {
        self.cmp_digits(other).then(self.algorithm.cmp(&other.algorithm))
    }
}

impl PartialOrd for SecureHash {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Corda's text form: upper-case hex for SHA-256, `ALGORITHM:HEX` otherwise.
impl fmt::Display for SecureHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.algorithm != HashAlgorithm::Sha256 {
            write!(f, "{}:", self.algorithm)?;
        }
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for SecureHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_for_every_algorithm() {
        for algorithm in HashAlgorithm::ALL {
            let hash = SecureHash::all_ones(algorithm);
            assert_eq!(SecureHash::parse(&hash.to_string()), Some(hash));
            assert_eq!(HashAlgorithm::from_tag(algorithm.tag()), Some(algorithm));
        }
    }

    #[test]
    fn equal_digits_under_two_algorithms_are_two_hashes() {
        let (a, b) = (SecureHash::zero(HashAlgorithm::Sha256), SecureHash::zero(HashAlgorithm::Sha3_256));
        assert_ne!(a, b);
        assert_ne!(a.cmp(&b), Ordering::Equal);
        assert_eq!(a.cmp_digits(&b), Ordering::Equal);
    }

    #[test]
    fn other_spellings_of_an_algorithm_are_unknown() {
        for alias in ["sha-384", "SHA384", "Sha-512", "2.16.840.1.101.3.4.2.2", ""] {
            assert_eq!(HashAlgorithm::from_name(alias), None, "{alias}");
        }
    }
}
