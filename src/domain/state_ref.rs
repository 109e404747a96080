//! What is spent: an output of a transaction, named by that transaction's id and the output's index.

use core::cmp::Ordering;
use core::fmt;

use super::hash::{HashAlgorithm, SecureHash, UnsupportedAlgorithm};

/// A transaction's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub SecureHash);

impl TxId {
    /// The id as a notary reveals it to strangers: hashed once more.
    ///
    /// # Errors
    /// [`UnsupportedAlgorithm`] for an id whose algorithm the worker cannot compute; a notarised id never is such.
    pub fn hashed(&self) -> Result<SecureHash, UnsupportedAlgorithm> {
        self.0.rehash()
    }

    /// Appends the compact store form: algorithm tag, then digits.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        out.push(self.0.algorithm().tag());
        out.extend_from_slice(self.0.as_bytes());
    }

    /// The compact store form: 33, 49 or 65 bytes.
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + SecureHash::LEN_MAX);
        self.write_key(&mut key);
        key
    }

    /// Reads [`Self::to_key`]'s form.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (&tag, digits) = key.split_first()?;
        SecureHash::new(HashAlgorithm::from_tag(tag)?, digits).ok().map(Self)
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A state: the output `index` of transaction `tx_id`. Corda's index is a Java `int`; a negative one names nothing and is
/// refused where bytes are decoded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateRef {
    /// The transaction that made the state.
    pub tx_id: TxId,
    /// Which of its outputs, from 0.
    pub index: u32,
}

impl StateRef {
    /// The largest index: Java's `int` is signed.
    pub const INDEX_MAX: u32 = i32::MAX as u32;

    /// Corda's order of inputs in a notarisation request: digits, then index. It ties for equal digits under two algorithms,
    /// so sort with it stably, as Corda does.
    pub fn cmp_corda(&self, other: &Self) -> Ordering {
        self.tx_id.0.cmp_digits(&other.tx_id.0).then(self.index.cmp(&other.index))
    }

    /// The compact store key: algorithm tag, digits, index as four big-endian bytes (37 bytes under SHA-256).
    pub fn to_key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + SecureHash::LEN_MAX + 4);
        self.tx_id.write_key(&mut key);
        key.extend_from_slice(&self.index.to_be_bytes());
        key
    }

    /// Reads [`Self::to_key`]'s form.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let (tx_id, index) = key.split_last_chunk::<4>()?;
        Some(Self { tx_id: TxId::from_key(tx_id)?, index: u32::from_be_bytes(*index) })
    }
}

/// Corda's text form: `<hash>(<index>)`.
impl fmt::Display for StateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.tx_id, self.index)
    }
}

impl fmt::Debug for StateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_keep_algorithms_apart() {
        let mut keys = Vec::new();
        for algorithm in HashAlgorithm::ALL {
            for index in [0, 9, 10, 255, 65_535, StateRef::INDEX_MAX] {
                let state = StateRef { tx_id: TxId(SecureHash::all_ones(algorithm)), index };
                let key = state.to_key();
                assert_eq!(StateRef::from_key(&key), Some(state));
                keys.push(key);
            }
        }
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
