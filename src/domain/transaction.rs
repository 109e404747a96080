//! The three kinds of transaction that a non-validating notary accepts, as decoded: what is visible of them, and the bytes from
//! which their ids are recomputed. `'a` is the message's buffer; components are not copied.

use super::hash::{HashAlgorithm, SecureHash};
use super::merkle::PartialTree;
use super::party::Party;
use super::signature::PublicKey;
use super::state_ref::{StateRef, TxId};
use super::time::TimeWindow;

/// What a client sends: a transaction and its signature over the request.
#[derive(Clone, Debug)]
pub struct NotarisationPayload<'a> {
    /// The transaction, as much of it as a notary may see.
    pub transaction: CoreTransaction<'a>,
    /// By the calling party, over `NotarisationRequest(inputs, id)`.
    pub request_signature: RequestSignature,
}

/// A party's signature over its request; kept, so that it can be proven who asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestSignature {
    /// The signing key.
    pub by: PublicKey,
    /// The signature, in the form of its scheme.
    pub bytes: Vec<u8>,
    /// The client's platform version.
    pub platform_version: i32,
}

/// A transaction by kind.
#[derive(Clone, Debug)]
pub enum CoreTransaction<'a> {
    /// Torn-off ordinary transaction.
    Filtered(FilteredTransaction<'a>),
    /// Moves states to another notary.
    NotaryChange(NotaryChangeTransaction<'a>),
    /// Moves states to another contract version.
    ContractUpgrade(ContractUpgradeTransaction<'a>),
    /// Anything else, such as the `SignedTransaction` that a validating notary gets. Refused.
    Unsupported {
        /// The Java class on the wire.
        type_name: String,
    },
}

/// A component group by its number on the wire (PROTOCOL d.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[expect(missing_docs, reason = "the names say it all")]
pub enum ComponentGroup {
    Inputs = 0,
    Outputs = 1,
    Commands = 2,
    Attachments = 3,
    Notary = 4,
    TimeWindow = 5,
    Signers = 6,
    References = 7,
    Parameters = 8,
}

/// An ordinary transaction with everything torn off that a notary need not see.
#[derive(Clone, Debug)]
pub struct FilteredTransaction<'a> {
    /// The id it claims.
    pub id: TxId,
    /// `digestService`; SHA-256 where the field is absent.
    pub digest: HashAlgorithm,
    /// Groups with visible components, in the order sent.
    pub groups: Vec<FilteredGroup<'a>>,
    /// Root of each component group, by group number.
    pub group_hashes: Vec<SecureHash>,
    /// The visible components of interest, decoded.
    pub visible: VisibleComponents,
}

/// The visible components of one group.
#[derive(Clone, Debug)]
pub struct FilteredGroup<'a> {
    /// Group number.
    pub index: u32,
    /// Serialized components.
    pub components: Vec<&'a [u8]>,
    /// One nonce a component.
    pub nonces: Vec<SecureHash>,
    /// Proof that they belong to the group.
    pub tree: PartialTree,
}

/// Decoded visible components: all that occur, even where at most one is allowed.
#[derive(Clone, Default, Debug)]
pub struct VisibleComponents {
    /// Group 0.
    pub inputs: Vec<StateRef>,
    /// Group 7.
    pub references: Vec<StateRef>,
    /// Group 4.
    pub notaries: Vec<Party>,
    /// Group 5.
    pub time_windows: Vec<TimeWindow>,
    /// Group 8.
    pub parameters: Vec<SecureHash>,
}

/// A notary change: all components are visible, the id is a hash chain over them.
#[derive(Clone, Debug)]
pub struct NotaryChangeTransaction<'a> {
    /// `digestService`; SHA-256 where the field is absent.
    pub digest: HashAlgorithm,
    /// Serialized components: inputs, notary, new notary, parameters hash (absent before platform version 4).
    pub components: Vec<&'a [u8]>,
    /// Component 0.
    pub inputs: Vec<StateRef>,
    /// Component 1.
    pub notary: Party,
    /// Component 2.
    pub new_notary: Party,
    /// Component 3.
    pub parameters: Option<SecureHash>,
}

/// A contract upgrade with its states' contents hidden.
#[derive(Clone, Debug)]
pub struct ContractUpgradeTransaction<'a> {
    /// `digestService`; SHA-256 where the field is absent.
    pub digest: HashAlgorithm,
    /// Visible components by number, ascending: serialized component and nonce.
    pub visible: Vec<(u32, &'a [u8], SecureHash)>,
    /// Hashes of hidden components by number, ascending.
    pub hidden: Vec<(u32, SecureHash)>,
    /// Component 0.
    pub inputs: Vec<StateRef>,
    /// Component 1.
    pub notary: Party,
    /// Component 5.
    pub parameters: Option<SecureHash>,
}
