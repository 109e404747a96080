//! What a non-validating notary checks before it asks the store (PROTOCOL d.2), in the peer's order: the transaction's kind,
//! its notary, its network parameters, its size, the request signature, the Merkle trees, visibility, the whitelist. Two checks
//! of our own follow: a state named twice, and a state both consumed and referred to.

use std::collections::HashSet;

use super::hash::{HashAlgorithm, SecureHash};
use super::merkle::{self, MerkleError};
use super::network::{KnownParameters, NetworkParameters};
use super::notary_error::{Cause, NotaryError};
use super::party::Party;
use super::request::{CheckedRequest, RequestParts};
use super::signature::PublicKey;
use super::signed_form::SignedForm;
use super::state_ref::{StateRef, TxId};
use super::time::TimeWindow;
use super::transaction::{
    ComponentGroup, ContractUpgradeTransaction, CoreTransaction, FilteredGroup, FilteredTransaction,
    NotarisationPayload, NotaryChangeTransaction, RequestSignature,
};

/// From this platform version on, transactions must name their network parameters.
const PARAMETERS_PLATFORM_VERSION: i32 = 4;

/// What this notary insists on.
#[derive(Clone, Debug)]
pub struct CheckPolicy {
    /// The service key that transactions must name as their notary.
    pub service_key: PublicKey,
    /// Inputs plus references must stay below this (PR3; the peer's figure is [`Self::STATES_LIMIT`]).
    pub states_limit: usize,
}

impl CheckPolicy {
    /// The peer's limit on inputs plus references, exclusive.
    pub const STATES_LIMIT: usize = 10_000;
}

/// A refused request: what the client is told, and about which transaction if that is known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The transaction, once its id is known.
    pub tx_id: Option<TxId>,
    /// The error.
    pub error: NotaryError,
}

/// Checks `payload`, sent by `caller`, under the network's parameters.
///
/// # Errors
/// [`Refusal`] with the error of the first check that fails.
pub fn check(
    payload: &NotarisationPayload<'_>,
    caller: &Party,
    policy: &CheckPolicy,
    parameters: &KnownParameters,
    form: &dyn SignedForm,
) -> Result<CheckedRequest, Box<Refusal>> {
    let parts = extract(&payload.transaction).map_err(|error| Box::new(Refusal { tx_id: None, error }))?;
    let tx_id = parts.tx_id;
    match check_parts(payload, &parts, caller, policy, parameters, form) {
        Ok(()) => Ok(CheckedRequest::assume_checked(RequestParts {
            tx_id,
            inputs: parts.inputs.to_vec(),
            references: parts.references.to_vec(),
            time_window: parts.time_window,
            requester: caller.name.clone(),
            request_signature: payload.request_signature.clone(),
        })),
        Err(error) => Err(Box::new(Refusal { tx_id: Some(tx_id), error })),
    }
}

fn check_parts(
    payload: &NotarisationPayload<'_>,
    parts: &Parts<'_>,
    caller: &Party,
    policy: &CheckPolicy,
    parameters: &KnownParameters,
    form: &dyn SignedForm,
) -> Result<(), NotaryError> {
    check_notary(parts.notary, &policy.service_key)?;
    let in_force = parameters
        .current()
        .ok_or_else(|| retryable("The network parameters in force are not known to this notary yet".into()))?;
    let attached = check_parameters(parts.parameters, in_force, parameters)?;
    check_size(parts, policy.states_limit)?;
    check_request_signature(parts, &payload.request_signature, &caller.owning_key, form)?;
    if let CoreTransaction::Filtered(tx) = &payload.transaction {
        verify_filtered(tx)?;
        check_visible(tx, in_force.minimum_platform_version)?;
    }
    check_whitelisted(parts.whitelisted_notary, attached.unwrap_or(in_force))?;
    check_distinct(parts)
}

/// What of a transaction the commit needs, whatever its kind.
struct Parts<'a> {
    tx_id: TxId,
    inputs: &'a [StateRef],
    references: &'a [StateRef],
    time_window: Option<TimeWindow>,
    notary: Option<&'a Party>,
    /// Who must be on the whitelist: for a notary change that is the *new* notary.
    whitelisted_notary: Option<&'a Party>,
    parameters: Option<SecureHash>,
}

fn extract<'a>(transaction: &'a CoreTransaction<'_>) -> Result<Parts<'a>, NotaryError> {
    match transaction {
        CoreTransaction::Filtered(tx) => {
            let notary = at_most_one(&tx.visible.notaries, "notary")?;
            Ok(Parts {
                tx_id: tx.id,
                inputs: &tx.visible.inputs,
                references: &tx.visible.references,
                time_window: at_most_one(&tx.visible.time_windows, "time window")?.copied(),
                notary,
                whitelisted_notary: notary,
                parameters: at_most_one(&tx.visible.parameters, "network parameters hash")?.copied(),
            })
        }
        CoreTransaction::NotaryChange(tx) => Ok(Parts {
            tx_id: notary_change_id(tx).map_err(|e| NotaryError::invalid(e.to_string()))?,
            inputs: &tx.inputs,
            references: &[],
            time_window: None,
            notary: Some(&tx.notary),
            whitelisted_notary: Some(&tx.new_notary),
            parameters: tx.parameters,
        }),
        CoreTransaction::ContractUpgrade(tx) => Ok(Parts {
            tx_id: contract_upgrade_id(tx).map_err(|e| NotaryError::invalid(e.to_string()))?,
            inputs: &tx.inputs,
            references: &[],
            time_window: None,
            notary: Some(&tx.notary),
            whitelisted_notary: Some(&tx.notary),
            parameters: tx.parameters,
        }),
        CoreTransaction::Unsupported { type_name } => Err(NotaryError::invalid(format!(
            "Received unexpected transaction type: {type_name}; this notary is non-validating and accepts \
             FilteredTransaction, NotaryChangeWireTransaction and ContractUpgradeFilteredTransaction"
        ))),
    }
}

fn at_most_one<'a, T>(found: &'a [T], what: &str) -> Result<Option<&'a T>, NotaryError> {
    match found {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(NotaryError::invalid(format!("A transaction cannot have more than one {what}"))),
    }
}

/// Step 3: keys are compared, names are not.
fn check_notary(notary: Option<&Party>, service_key: &PublicKey) -> Result<(), NotaryError> {
    match notary {
        Some(notary) if notary.owning_key == *service_key => Ok(()),
        Some(notary) => Err(NotaryError::invalid(format!(
            "The notary specified on the transaction: [{notary}] does not match the notary service's identity: [{}]",
            service_key.name_hash()
        ))),
        None => Err(NotaryError::invalid("Transaction does not specify a notary.")),
    }
}

/// Step 4. An unknown hash may belong to parameters that reach this worker in a moment, so it is retryable (PR4).
fn check_parameters<'k>(
    attached: Option<SecureHash>,
    in_force: &NetworkParameters,
    known: &'k KnownParameters,
) -> Result<Option<&'k NetworkParameters>, NotaryError> {
    let required = in_force.minimum_platform_version >= PARAMETERS_PLATFORM_VERSION;
    match attached {
        None if required => {
            Err(NotaryError::invalid("Transaction for notarisation doesn't contain network parameters hash."))
        }
        None => Ok(None),
        Some(hash) => match known.by_hash.get(&hash) {
            // Before version 4 the whitelist in force counts, whatever a transaction attaches.
            Some(found) => Ok(required.then_some(found.as_ref())),
            None => Err(retryable(format!("Transaction for notarisation contains unknown parameters hash: {hash}"))),
        },
    }
}

/// Step 5.
fn check_size(parts: &Parts<'_>, limit: usize) -> Result<(), NotaryError> {
    let states = parts.inputs.len() + parts.references.len();
    if states < limit {
        return Ok(());
    }
    Err(NotaryError::invalid(format!(
        "A transaction cannot have more than {limit} inputs or references, received: {states}"
    )))
}

/// Step 6: signed by the calling party, over its inputs and the id.
fn check_request_signature(
    parts: &Parts<'_>,
    signature: &RequestSignature,
    caller_key: &PublicKey,
    form: &dyn SignedForm,
) -> Result<(), NotaryError> {
    if signature.by != *caller_key {
        return Err(NotaryError::RequestSignatureInvalid(Cause {
            class: Cause::ILLEGAL_ARGUMENT,
            message: format!(
                "Expected a signature by {}, but received by {}",
                caller_key.to_base58(),
                signature.by.to_base58()
            ),
        }));
    }
    let signed = form.notarisation_request(parts.inputs, &parts.tx_id);
    caller_key.verify(&signed, &signature.bytes).map_err(|error| {
        NotaryError::RequestSignatureInvalid(Cause {
            class: Cause::SIGNATURE,
            message: format!("Signature Verification failed! ({error})"),
        })
    })
}

/// Step 7 (PROTOCOL e.3, 1 and 2): the groups make up the id, the visible components belong to their groups.
fn verify_filtered(tx: &FilteredTransaction<'_>) -> Result<(), NotaryError> {
    let refuse = |reason: &str| {
        Err(NotaryError::invalid(format!("Transaction with id:{} cannot be verified. Reason: {reason}", tx.id)))
    };
    if tx.group_hashes.is_empty() {
        return refuse("At least one component group hash is required");
    }
    if merkle::root(tx.digest, &tx.group_hashes) != Ok(tx.id.0) {
        return refuse("Top level Merkle tree cannot be verified against transaction's id");
    }
    let mut seen = HashSet::new();
    for group in &tx.groups {
        let Some(group_hash) = tx.group_hashes.get(group.index as usize) else {
            return refuse("There is no matching component group hash for a filtered group");
        };
        if !seen.insert(group.index) {
            return refuse("A component group occurs twice");
        }
        if group.tree.root() != Ok(*group_hash) {
            return refuse("Partial Merkle tree root and advertised full Merkle tree root do not match");
        }
        let Ok(mut hashes) = component_hashes(tx.digest, group) else {
            return refuse("Visible components cannot be hashed");
        };
        let mut included: Vec<_> = group.tree.included().collect();
        hashes.sort_unstable();
        included.sort_unstable();
        if hashes != included {
            return refuse("Visible components in group cannot be verified against their partial Merkle tree");
        }
    }
    Ok(())
}

/// Hashes of a group's visible components, in order: the digest, twice, of nonce and component.
fn component_hashes(digest: HashAlgorithm, group: &FilteredGroup<'_>) -> Result<Vec<SecureHash>, MerkleError> {
    if group.components.len() != group.nonces.len() {
        return Err(MerkleError::Malformed);
    }
    let hash = |(component, nonce): (&&[u8], &SecureHash)| component_hash(digest, nonce, component);
    group.components.iter().zip(&group.nonces).map(hash).collect()
}

/// A component's hash (PROTOCOL e.2): the digest of the digest of `nonce ‖ component`.
///
/// # Errors
/// [`MerkleError::Mixed`] if the nonce is of another algorithm: a longer or shorter nonce would move the boundary between nonce
/// and component, and show one component to this notary and another to everybody else. [`MerkleError::Algorithm`] for an
/// algorithm the worker cannot compute.
pub fn component_hash(digest: HashAlgorithm, nonce: &SecureHash, component: &[u8]) -> Result<SecureHash, MerkleError> {
    if nonce.algorithm() != digest {
        return Err(MerkleError::Mixed { expected: digest, found: nonce.algorithm() });
    }
    Ok(digest.digest(&[nonce.as_bytes(), component])?.rehash()?)
}

/// Step 8: nothing that decides the verdict is hidden.
fn check_visible(tx: &FilteredTransaction<'_>, minimum_platform_version: i32) -> Result<(), NotaryError> {
    let parameters = (minimum_platform_version >= PARAMETERS_PLATFORM_VERSION).then_some(ComponentGroup::Parameters);
    let groups = [ComponentGroup::Inputs, ComponentGroup::TimeWindow, ComponentGroup::References];
    for group in groups.into_iter().chain(parameters) {
        if !is_fully_visible(tx, group) {
            return Err(NotaryError::invalid(format!(
                "Component visibility error for transaction with id:{}. Reason: Some components for group {} are not visible",
                tx.id, group as u32
            )));
        }
    }
    Ok(())
}

fn is_fully_visible(tx: &FilteredTransaction<'_>, group: ComponentGroup) -> bool {
    let group_hash = tx.group_hashes.get(group as usize);
    match tx.groups.iter().find(|candidate| candidate.index == group as u32) {
        None => group_hash.is_none_or(|hash| *hash == SecureHash::all_ones(tx.digest)),
        Some(shown) => {
            let full_root = component_hashes(tx.digest, shown).and_then(|hashes| merkle::root(tx.digest, &hashes));
            full_root.is_ok_and(|root| Some(&root) == group_hash)
        }
    }
}

/// Step 9: parties compare by key.
fn check_whitelisted(notary: Option<&Party>, parameters: &NetworkParameters) -> Result<(), NotaryError> {
    let Some(notary) = notary else { return Err(NotaryError::invalid("Transaction does not specify a notary.")) };
    if parameters.notaries.iter().any(|listed| listed.identity.owning_key == notary.owning_key) {
        return Ok(());
    }
    Err(NotaryError::invalid(format!(
        "Notary [{notary}] specified by the transaction is not on the network parameter whitelist"
    )))
}

/// Ours: the peer would let a state named twice hit its primary key, or let a transaction refer to what it consumes.
fn check_distinct(parts: &Parts<'_>) -> Result<(), NotaryError> {
    let mut seen = HashSet::with_capacity(parts.inputs.len() + parts.references.len());
    for state in parts.inputs.iter().chain(parts.references) {
        if !seen.insert(state) {
            return Err(NotaryError::invalid(format!(
                "The state {state} occurs more than once among inputs and references"
            )));
        }
    }
    Ok(())
}

fn retryable(message: String) -> NotaryError {
    NotaryError::General(Cause { class: Cause::ILLEGAL_ARGUMENT, message })
}

/// A notary change's id (PROTOCOL e.4): a hash chain over its components.
///
/// # Errors
/// [`MerkleError`] without components or with an algorithm the worker cannot compute.
pub fn notary_change_id(tx: &NotaryChangeTransaction<'_>) -> Result<TxId, MerkleError> {
    let (first, rest) = tx.components.split_first().ok_or(MerkleError::Empty)?;
    let mut chain = tx.digest.digest(&[first])?;
    for component in rest {
        let link = tx.digest.digest(&[component])?;
        chain = tx.digest.digest(&[chain.as_bytes(), link.as_bytes()])?;
    }
    Ok(TxId(chain))
}

/// A contract upgrade's id (PROTOCOL e.4): the digest of all component hashes in the order of their numbers.
///
/// # Errors
/// [`MerkleError`] without components, with a number that is both visible and hidden, or with an algorithm the worker cannot
/// compute.
pub fn contract_upgrade_id(tx: &ContractUpgradeTransaction<'_>) -> Result<TxId, MerkleError> {
    let visible =
        tx.visible.iter().map(|(number, component, nonce)| Ok((*number, component_hash(tx.digest, nonce, component)?)));
    let hidden = tx.hidden.iter().map(|(number, hash)| match hash.algorithm() == tx.digest {
        true => Ok((*number, *hash)),
        false => Err(MerkleError::Mixed { expected: tx.digest, found: hash.algorithm() }),
    });
    let mut hashes = visible.chain(hidden).collect::<Result<Vec<_>, MerkleError>>()?;
    hashes.sort_unstable_by_key(|(number, _)| *number);
    if hashes.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(MerkleError::Malformed);
    }
    if hashes.is_empty() {
        return Err(MerkleError::Empty);
    }
    let parts: Vec<&[u8]> = hashes.iter().map(|(_, hash)| hash.as_bytes()).collect();
    Ok(TxId(tx.digest.digest(&parts)?))
}
