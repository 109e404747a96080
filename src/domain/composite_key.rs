//! Composite keys: a threshold over weighted keys, written as a SubjectPublicKeyInfo of Corda's own (PROTOCOL e.5).
//!
//! Read more strictly than Corda 4.10 reads them, so that one key has one encoding: Corda sorts the children when it reads a
//! key, turns a composite of one child into that child, and takes a negative weight for a large one. It never *writes* any of
//! these, and they are refused here. The order of children was found by running Corda.

use core::cmp::Reverse;

use der::asn1::BitStringRef;
use der::{Decode, Sequence};

use super::signature::{KeyError, PublicKey};

/// Composite keys inside composite keys. Corda sets no limit; real ones are flat, and each level costs a stack frame.
const DEPTH_MAX: usize = 4;
/// Keys in one composite key, of all levels together. The largest notary clusters have a few dozen members.
const KEYS_MAX: usize = 64;

/// A threshold over weighted keys.
#[derive(Debug)]
pub(super) struct CompositeKey {
    threshold: u32,
    children: Vec<(PublicKey, u32)>,
}

/// What reading may still use up; one for a whole key, nested ones included.
pub(super) struct Budget {
    depth: usize,
    keys: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { depth: DEPTH_MAX, keys: KEYS_MAX }
    }
}

/// What the BIT STRING of the SubjectPublicKeyInfo holds.
#[derive(Sequence)]
struct Body<'a> {
    threshold: u32,
    children: Vec<Child<'a>>,
}

#[derive(Sequence)]
struct Child<'a> {
    key: BitStringRef<'a>,
    weight: u32,
}

impl CompositeKey {
    /// Reads the content of the BIT STRING.
    pub(super) fn read(body: &[u8], budget: &mut Budget) -> Result<Self, KeyError> {
        let refuse = |why: &str| Err(KeyError(format!("composite key {why}")));
        if budget.depth == 0 {
            return refuse("nested too deeply");
        }
        let Body { threshold, children } =
            Body::from_der(body).map_err(|error| KeyError(format!("composite key is malformed: {error}")))?;
        if children.len() < 2 {
            return refuse("has fewer than two children");
        }
        if children.len() > budget.keys {
            return refuse("has too many keys");
        }
        budget.keys -= children.len();
        budget.depth -= 1;
        let children = children
            .into_iter()
            .map(|child| {
                let spki =
                    child.key.as_bytes().ok_or_else(|| KeyError("composite key child has unused bits".into()))?;
                Ok((PublicKey::read(spki, budget)?, child.weight))
            })
            .collect::<Result<Vec<_>, _>>()?;
        budget.depth += 1;

        // Java adds weights as signed ints and refuses an overflow.
        let total = children.iter().try_fold(0i32, |sum, (_, weight)| sum.checked_add((*weight).try_into().ok()?));
        let Some(total) = total else { return refuse("has too much weight") };
        if children.iter().any(|(_, weight)| *weight == 0) {
            return refuse("has a child without weight");
        }
        if threshold == 0 || i64::from(threshold) > i64::from(total) {
            return refuse("has a threshold outside 1..=total weight");
        }
        // Corda refuses a pair of key and weight that occurs twice, and counts a key that occurs under two weights twice.
        let mut keys: Vec<_> = children.iter().map(|(key, _)| key.as_spki()).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return refuse("has the same child twice");
        }
        // Heaviest first, then by encoding.
        if !children.is_sorted_by_key(|(key, weight)| (Reverse(*weight), key.as_spki())) {
            return refuse("has its children in another order than Corda writes");
        }
        Ok(Self { threshold, children })
    }

    /// Whether the weights of the children that `keys` fulfil reach the threshold.
    pub(super) fn is_fulfilled_by(&self, keys: &[PublicKey]) -> bool {
        let fulfilled = self.children.iter().filter(|(child, _)| child.is_fulfilled_by_plain(keys));
        fulfilled.map(|(_, weight)| u64::from(*weight)).sum::<u64>() >= u64::from(self.threshold)
    }

    /// The children, in Corda's order.
    pub(super) fn children(&self) -> impl Iterator<Item = &PublicKey> {
        self.children.iter().map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use der::Encode;
    use der::asn1::AnyRef;

    use super::*;
    use crate::domain::SignatureScheme;
    use crate::domain::signature::SignatureError;

    const OID: [u8; 21] = [
        0x06, 0x13, 0x69, 0xad, 0xa2, 0xaf, 0x89, 0xd5, 0xb8, 0xe2, 0xaf, 0xf3, 0x8d, 0x93, 0xac, 0x9d, 0xe6, 0x96,
        0x9b, 0xd0, 0x5a,
    ];

    fn vector(file: &str) -> Vec<u8> {
        std::fs::read(format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"))).expect("vector")
    }

    /// An Ed25519 key; larger numbers need not have larger encodings.
    fn leaf(n: u8) -> PublicKey {
        let key = ed25519_dalek::SigningKey::from_bytes(&[n; 32]).verifying_key();
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        PublicKey::from_spki(&[&prefix[..], key.as_bytes()].concat()).expect("a key")
    }

    /// `count` Ed25519 keys in the order of their encodings.
    fn leaves(count: u8) -> Vec<PublicKey> {
        let mut leaves: Vec<_> = (0..count).map(leaf).collect();
        leaves.sort_by(|a, b| a.as_spki().cmp(b.as_spki()));
        leaves
    }

    /// A composite key as given, right or wrong.
    fn spki(threshold: u32, children: &[(&PublicKey, u32)]) -> Vec<u8> {
        let child = |(key, weight): &(&'_ PublicKey, u32)| {
            let key = BitStringRef::from_bytes(key.as_spki()).expect("bits");
            [key.to_der().expect("DER"), weight.to_der().expect("DER")].concat()
        };
        let sequence = |content: &[u8]| AnyRef::new(der::Tag::Sequence, content).expect("short").to_der().expect("DER");
        let children: Vec<u8> = children.iter().flat_map(|entry| sequence(&child(entry))).collect();
        let body = sequence(&[threshold.to_der().expect("DER"), sequence(&children)].concat());
        let bits = BitStringRef::from_bytes(&body).expect("bits").to_der().expect("DER");
        sequence(&[sequence(&OID), bits].concat())
    }

    fn refusal(threshold: u32, children: &[(&PublicKey, u32)]) -> String {
        PublicKey::from_spki(&spki(threshold, children)).expect_err("accepted").0
    }

    #[test]
    fn vectors_read_and_are_fulfilled_by_their_thresholds() {
        let both = PublicKey::from_spki(&vector("composite_key_2of2.bin")).expect("a key");
        assert_eq!(both.scheme(), SignatureScheme::Composite);
        assert_eq!(both.name_hash(), "DL8Xs3ExQ1cwhmk69Hhd32yLTyEnqC5wHGSucTVYptdj5r");
        let leaves: Vec<PublicKey> = both.leaf_keys().into_iter().cloned().collect();
        let [alice, bob] = &leaves[..] else { panic!("two leaves") };
        assert!(both.is_fulfilled_by(&leaves));
        assert!(!both.is_fulfilled_by(std::slice::from_ref(alice)));
        assert!(!both.is_fulfilled_by(&[alice.clone(), alice.clone()]), "a key counts once");
        assert!(!both.is_fulfilled_by(std::slice::from_ref(&both)), "a composite key is fulfilled by leaves only");
        assert!(!both.is_fulfilled_by(&[alice.clone(), bob.clone(), both.clone()]), "as in Corda");
        assert_eq!(both.verify(b"", b""), Err(SignatureError::Composite));

        let either = PublicKey::from_spki(&vector("composite_key_1of2.bin")).expect("a key");
        assert_eq!(either.name_hash(), "DLAHdr5myx2NovZq92HL2xanCPEfVyNMgJxPtguJX5pE6q");
        assert!(
            either.is_fulfilled_by(std::slice::from_ref(alice)) && either.is_fulfilled_by(std::slice::from_ref(bob))
        );
        assert!(!either.is_fulfilled_by(&[]) && !either.is_fulfilled_by(&[leaf(9)]));
        assert!(alice.is_fulfilled_by(&leaves) && !alice.is_fulfilled_by(std::slice::from_ref(bob)));
    }

    /// Made by Corda 4.10: weights 200, 3, 1, 1, 1; P-256, secp256k1, Ed25519 and composite children.
    #[test]
    fn a_nested_key_of_mixed_schemes_by_corda_reads() {
        let spki = "308201ea3015061369ada2af89d5b8e2aff38d93ac9de6969bd05a038201cf00308201ca02020082308201c23033032d0030\
            2a300506032b657003210034790764308e0b7b5f7cc9d5cdd29845fd82a03df53d2cffef3c0228547487c5020200c83061035c003059\
            301306072a8648ce3d020106082a8648ce3d030107034200047cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc47\
            66997807775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d10201033032032d00302a300506032b65700321\
            00cecc1507dc1ddd7295951c290888f095adb9044d1b73d696e6df065d683bd4fc020101305e0359003056301006072a8648ce3d0201\
            06052b8104000a03420004f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9388f7b0f632de8140fe337\
            e62a37f3566500a99934c2231b6cb9fd7584b8e67202010130819303818d003081893015061369ada2af89d5b8e2aff38d93ac9de696\
            9bd05a037000306d02010230683032032d00302a300506032b6570032100f4bd46521ce7b57899ae6f4ca09eddec689327a86a2232d4\
            a3f2a4f39ac68a9e0201023032032d00302a300506032b65700321009be3287795907809407e14439ff198d5bfc7dce6f9bc743cb369\
            146f610b4801020101020101";
        let key = PublicKey::from_spki(&hex::decode(spki).expect("hex")).expect("a key");
        assert_eq!(key.name_hash(), "DLBAQ3rxeoMT2GfhqNxzJcNG12uEn9bqXfraF2QNmGekGX");
        let leaves: Vec<_> = key.leaf_keys().into_iter().cloned().collect();
        assert_eq!(leaves.len(), 6);
        assert!(key.is_fulfilled_by(&leaves[..1]), "200 of 130");
        assert!(!key.is_fulfilled_by(&leaves[1..]), "6 of 130");
    }

    #[test]
    fn constraints_hold() {
        let keys = leaves(4);
        let (a, b) = (&keys[0], &keys[1]);
        assert!(PublicKey::from_spki(&spki(2, &[(a, 1), (b, 1)])).is_ok());
        assert!(PublicKey::from_spki(&spki(2, &[(b, 2), (a, 1)])).is_ok());
        for (why, threshold, children) in [
            ("fewer than two", 1, &[][..]),
            ("fewer than two", 1, &[(a, 1)]),
            ("threshold", 0, &[(a, 1), (b, 1)]),
            ("threshold", 3, &[(a, 1), (b, 1)]),
            ("without weight", 1, &[(a, 1), (b, 0)]),
            ("too much weight", 1, &[(a, i32::MAX as u32), (b, 1)]),
            ("too much weight", 1, &[(a, u32::MAX), (b, 1)]),
            ("same child", 2, &[(a, 1), (a, 1)]),
            ("same child", 2, &[(a, 2), (b, 1), (a, 1)]),
            ("another order", 2, &[(b, 1), (a, 1)]),
            ("another order", 2, &[(a, 1), (b, 2)]),
        ] {
            let refusal = refusal(threshold, children);
            assert!(refusal.contains(why), "{why}: {refusal}");
        }
        assert!(PublicKey::from_spki(&spki(1, &[(a, i32::MAX as u32 - 1), (b, 1)])).is_ok());
        let negative = hex::encode(spki(2, &[(a, 1), (b, 1)])).replacen("020102", "0201ff", 1);
        assert!(PublicKey::from_spki(&hex::decode(negative).expect("hex")).is_err());
    }

    #[test]
    fn depth_and_number_of_keys_are_bounded() {
        let mut keys = leaves(DEPTH_MAX as u8 + 1);
        let mut nested = keys.pop().expect("a key");
        for (level, key) in (1..=DEPTH_MAX).zip(keys) {
            // A plain key's encoding is shorter, so it comes first once the other one is composite.
            let mut children = [(&key, 1), (&nested, 1)];
            children.sort_by(|a, b| a.0.as_spki().cmp(b.0.as_spki()));
            nested = PublicKey::from_spki(&spki(2, &children)).unwrap_or_else(|error| panic!("level {level}: {error}"));
        }
        let other = leaf(99);
        assert!(refusal(2, &[(&other, 1), (&nested, 1)]).contains("too deeply"));

        let keys = leaves(KEYS_MAX as u8 + 1);
        let children: Vec<_> = keys.iter().map(|key| (key, 1)).collect();
        assert!(PublicKey::from_spki(&spki(9, &children[..KEYS_MAX])).is_ok());
        assert!(refusal(9, &children).contains("too many"));
        // Two halves in nested keys count together.
        let half = |range: core::ops::Range<usize>| PublicKey::from_spki(&spki(9, &children[range])).expect("a key");
        let (left, right) = (half(0..KEYS_MAX / 2), half(KEYS_MAX / 2..KEYS_MAX));
        let mut children = [(&left, 1), (&right, 1)];
        children.sort_by(|a, b| a.0.as_spki().cmp(b.0.as_spki()));
        assert!(refusal(2, &children).contains("too many"));
    }
}
