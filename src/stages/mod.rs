//! The three stages of a request as pure machines: `handle(event) -> effects`. A machine decides; it performs nothing, waits for
//! nothing and asks no clock. The actors perform its effects against real ports, the simulator against modelled ones, and both
//! therefore run the same decisions.
//!
//! A request's way: [`flow`] asks for it to be read and checked → [`uniqueness`] commits it in a batch → [`signing`] signs what
//! was committed → [`flow`] replies, and settles the delivery only once the reply is safe.

pub mod flow;
pub mod service_rate;
pub mod session;
pub mod signing;
pub mod uniqueness;

/// Identifies one request inside a stage; its asker chooses it, unique while the request is open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A stage gives a request back undone: nothing definite was found out, so no answer may be sent. The delivery is released and
/// comes again, here or at another worker.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{stage} gave up for now: {reason}")]
pub struct GaveUp {
    /// Which stage.
    pub stage: &'static str,
    /// Why, for logs.
    pub reason: String,
}

/// A pause that doubles with each attempt, up to a cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// Pause after the first failure, in milliseconds.
    pub base_ms: u64,
    /// Longest pause, in milliseconds.
    pub cap_ms: u64,
}

impl Backoff {
    /// The pause after failure number `attempt`, counted from 1.
    pub fn pause_ms(&self, attempt: u32) -> u64 {
        let doublings = attempt.saturating_sub(1).min(32);
        self.base_ms.saturating_mul(1 << doublings).min(self.cap_ms)
    }
}

/// What the stages' tests share.
#[cfg(test)]
pub(crate) mod fixtures {
    use super::Backoff;
    use crate::domain::merkle_batch::TransactionSignature;
    use crate::domain::request::RequestParts;
    use crate::domain::signed_form::SignatureMetadata;
    use crate::domain::transaction::RequestSignature;
    use crate::domain::{CheckedRequest, CommittedTx, HashAlgorithm, PublicKey, SecureHash, StateRef, TxId, X500Name};

    pub(crate) const BACKOFF: Backoff = Backoff { base_ms: 10, cap_ms: 35 };

    /// The transaction called by a number.
    pub(crate) fn tx(number: u8) -> TxId {
        TxId(SecureHash::sha256([number; 32]))
    }

    /// The same under another algorithm.
    pub(crate) fn tx_under(algorithm: HashAlgorithm, number: u8) -> TxId {
        TxId(SecureHash::new(algorithm, &vec![number; algorithm.digest_len()]).expect("as long as it says"))
    }

    pub(crate) fn committed(number: u8) -> CommittedTx {
        CommittedTx::after_durable_commit(tx(number))
    }

    /// A request for the transaction called by a number, with so many inputs and references.
    pub(crate) fn request(number: u8, inputs: u32, references: u32) -> CheckedRequest {
        let state = |index| StateRef { tx_id: tx(number), index };
        CheckedRequest::assume_checked(RequestParts {
            tx_id: tx(number),
            inputs: (0..inputs).map(state).collect(),
            references: (inputs..inputs + references).map(state).collect(),
            time_window: None,
            requester: name(),
            request_signature: RequestSignature { by: key(), bytes: Vec::new(), platform_version: 4 },
        })
    }

    /// A signature that can be told from others by a number.
    pub(crate) fn signature(number: u8) -> TransactionSignature {
        let metadata = SignatureMetadata { platform_version: 4, scheme_number_id: 4 };
        TransactionSignature { by: key(), bytes: vec![number], partial_tree: None, metadata }
    }

    pub(crate) fn name() -> X500Name {
        X500Name {
            common_name: None,
            organisation_unit: None,
            organisation: "Alice".into(),
            locality: "London".into(),
            state: None,
            country: "GB".into(),
        }
    }

    fn key() -> PublicKey {
        // RFC 8032, section 7.1, test 1, as a SubjectPublicKeyInfo of RFC 8410.
        let spki = "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        PublicKey::from_spki(&hex::decode(spki).expect("hexadecimal")).expect("a key")
    }

    #[test]
    fn pauses_double_up_to_the_cap() {
        let pauses: Vec<_> = (1..=5).map(|attempt| BACKOFF.pause_ms(attempt)).collect();
        assert_eq!(pauses, [10, 20, 35, 35, 35]);
        assert_eq!(Backoff { base_ms: u64::MAX, cap_ms: u64::MAX }.pause_ms(u32::MAX), u64::MAX, "no overflow");
    }
}
