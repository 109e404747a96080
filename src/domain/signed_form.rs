//! The two structures whose *bytes* are signed. The rules need those bytes but not how they come about; `wire` makes them.

use super::hash::SecureHash;
use super::state_ref::{StateRef, TxId};

/// Serializes what is signed, byte for byte as Corda does (PROTOCOL a.8).
pub trait SignedForm: Send + Sync {
    /// `NotarisationRequest(statesToConsume, transactionId)`: what a client's request signature covers. The inputs are given in
    /// any order; the form sorts them stably by [`StateRef::cmp_corda`].
    fn notarisation_request(&self, inputs: &[StateRef], tx_id: &TxId) -> Vec<u8>;

    /// `SignableData(id, metadata)`: what the notary's signature covers; `id` is a transaction's id or a batch's root.
    fn signable_data(&self, id: &SecureHash, metadata: SignatureMetadata) -> Vec<u8>;
}

/// What a signature says of itself; part of the signed bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SignatureMetadata {
    /// The signer's platform version.
    pub platform_version: i32,
    /// The key's scheme number.
    pub scheme_number_id: i32,
}
