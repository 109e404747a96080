//! Transactions as a Corda node builds them, and what of them a non-validating notary is shown (PROTOCOL d.1, e.2).

use crate::domain::check::{self, component_hash};
use crate::domain::hash::HashAlgorithm;
use crate::domain::merkle::{self, MerkleError, MerkleTree};
use crate::domain::signed_form::SignedForm;
use crate::domain::transaction::{
    ComponentGroup, CoreTransaction, FilteredGroup, FilteredTransaction, NotarisationPayload, NotaryChangeTransaction,
    RequestSignature, VisibleComponents,
};
use crate::domain::{Party, SecureHash, StateRef, TimeWindow, TxId};
use crate::keys::PrivateKey;
use crate::wire::{self, CordaSignedForm};

/// What a transaction shall do. Outputs, commands and signers are made up: a non-validating notary never sees them.
#[derive(Clone, Debug)]
pub struct Draft {
    /// States it consumes.
    pub inputs: Vec<StateRef>,
    /// States it refers to.
    pub references: Vec<StateRef>,
    /// When it may be notarised.
    pub time_window: Option<TimeWindow>,
    /// The notary it names.
    pub notary: Party,
    /// The network parameters it is made under.
    pub parameters: SecureHash,
    /// The algorithm of its id.
    pub digest: HashAlgorithm,
    /// Makes ids and nonces unguessable; never shown to the notary.
    pub privacy_salt: [u8; 32],
}

/// A transaction with all its components serialized.
#[derive(Clone, Debug)]
pub struct WireTransaction {
    draft: Draft,
    /// Serialized components by group.
    groups: Vec<Vec<Vec<u8>>>,
    /// Their nonces.
    nonces: Vec<Vec<SecureHash>>,
    group_hashes: Vec<SecureHash>,
    id: TxId,
}

/// Everything the notary is shown; nothing else leaves the client.
const SHOWN: [ComponentGroup; 5] = [
    ComponentGroup::Inputs,
    ComponentGroup::Notary,
    ComponentGroup::TimeWindow,
    ComponentGroup::References,
    ComponentGroup::Parameters,
];

impl Draft {
    /// Serializes the components and computes the id.
    ///
    /// # Errors
    /// [`MerkleError`] for an algorithm that cannot be computed.
    pub fn build(self) -> Result<WireTransaction, MerkleError> {
        // Contents that the notary never opens: the salt makes them different for each transaction.
        let opaque = |label: &[u8]| vec![[label, self.privacy_salt.as_slice()].concat()];
        let groups = vec![
            self.inputs.iter().map(wire::encode_state_ref).collect(),
            opaque(b"output"),
            opaque(b"command"),
            opaque(b"attachment"),
            vec![wire::encode_party(&self.notary)],
            self.time_window.iter().map(wire::encode_time_window).collect(),
            opaque(b"signers"),
            self.references.iter().map(wire::encode_state_ref).collect(),
            vec![wire::encode_secure_hash(&self.parameters)],
        ];
        let mut nonces = Vec::with_capacity(groups.len());
        let mut group_hashes = Vec::with_capacity(groups.len());
        for (group, components) in groups.iter().enumerate() {
            let mut group_nonces = Vec::with_capacity(components.len());
            let mut hashes = Vec::with_capacity(components.len());
            for (index, component) in components.iter().enumerate() {
                let nonce = nonce(self.digest, &self.privacy_salt, group as u32, index as u32, component)?;
                hashes.push(component_hash(self.digest, &nonce, component)?);
                group_nonces.push(nonce);
            }
            group_hashes.push(match hashes.is_empty() {
                true => SecureHash::all_ones(self.digest),
                false => merkle::root(self.digest, &hashes)?,
            });
            nonces.push(group_nonces);
        }
        let id = TxId(merkle::root(self.digest, &group_hashes)?);
        Ok(WireTransaction { draft: self, groups, nonces, group_hashes, id })
    }
}

/// A component's nonce (PROTOCOL e.2); under SHA-256 it depends on the component, by a quirk of Corda's history.
fn nonce(
    digest: HashAlgorithm,
    salt: &[u8; 32],
    group: u32,
    index: u32,
    component: &[u8],
) -> Result<SecureHash, MerkleError> {
    let seed = digest.digest(&[salt, &group.to_be_bytes(), &index.to_be_bytes()])?.rehash()?;
    Ok(match digest {
        HashAlgorithm::Sha256 => digest.digest(&[seed.as_bytes(), component])?.rehash()?,
        _ => seed,
    })
}

impl WireTransaction {
    /// The id.
    pub fn id(&self) -> TxId {
        self.id
    }

    /// What it does.
    pub fn draft(&self) -> &Draft {
        &self.draft
    }

    /// What an honest client shows the notary.
    ///
    /// # Errors
    /// [`MerkleError`] never in practice: the transaction was built from the same components.
    pub fn filtered(&self) -> Result<FilteredTransaction<'_>, MerkleError> {
        self.filtered_hiding(|_, _| false)
    }

    /// As [`Self::filtered`], with the components for which `hide(group, index)` holds torn off: for tests of the notary.
    ///
    /// # Errors
    /// As [`Self::filtered`].
    pub fn filtered_hiding(
        &self,
        hide: impl Fn(ComponentGroup, usize) -> bool,
    ) -> Result<FilteredTransaction<'_>, MerkleError> {
        let mut groups = Vec::new();
        for group in SHOWN {
            let number = group as usize;
            let components = &self.groups[number];
            let shown: Vec<bool> = (0..components.len()).map(|index| !hide(group, index)).collect();
            if !shown.contains(&true) {
                continue;
            }
            let nonces = &self.nonces[number];
            let hashes = components
                .iter()
                .zip(nonces)
                .map(|(component, nonce)| component_hash(self.draft.digest, nonce, component))
                .collect::<Result<Vec<_>, _>>()?;
            let visible = || (0..components.len()).filter(|index| shown[*index]);
            groups.push(FilteredGroup {
                index: number as u32,
                components: visible().map(|index| components[index].as_slice()).collect(),
                nonces: visible().map(|index| nonces[index]).collect(),
                tree: MerkleTree::new(self.draft.digest, &hashes)?.partial(|index| shown[index])?,
            });
        }
        let kept = |group: ComponentGroup, states: &[StateRef]| {
            states.iter().enumerate().filter(|(index, _)| !hide(group, *index)).map(|(_, state)| *state).collect()
        };
        Ok(FilteredTransaction {
            id: self.id,
            digest: self.draft.digest,
            groups,
            group_hashes: self.group_hashes.clone(),
            visible: VisibleComponents {
                inputs: kept(ComponentGroup::Inputs, &self.draft.inputs),
                references: kept(ComponentGroup::References, &self.draft.references),
                notaries: vec![self.draft.notary.clone()],
                time_windows: self.draft.time_window.into_iter().collect(),
                parameters: vec![self.draft.parameters],
            },
        })
    }

    /// The serialized payload of an honest request by the holder of `key`.
    ///
    /// # Errors
    /// As [`Self::filtered`].
    pub fn payload(&self, key: &PrivateKey, platform_version: i32) -> Result<Vec<u8>, MerkleError> {
        let signature = sign_request(key, platform_version, &self.draft.inputs, &self.id);
        Ok(payload(self.filtered()?, signature))
    }
}

/// A party's signature over its request.
pub fn sign_request(key: &PrivateKey, platform_version: i32, inputs: &[StateRef], id: &TxId) -> RequestSignature {
    let bytes = key.sign(&CordaSignedForm.notarisation_request(inputs, id));
    RequestSignature { by: key.public_key().clone(), bytes, platform_version }
}

/// A serialized payload that shows `transaction`, honest or not.
pub fn payload(transaction: FilteredTransaction<'_>, request_signature: RequestSignature) -> Vec<u8> {
    encode(CoreTransaction::Filtered(transaction), request_signature)
}

fn encode(transaction: CoreTransaction<'_>, request_signature: RequestSignature) -> Vec<u8> {
    let payload = NotarisationPayload { transaction, request_signature };
    wire::encode_notarisation_payload(&payload).expect("every kind that is made here can be encoded")
}

/// A serialized request to move `inputs` from `notary` to `new_notary`, with its id.
///
/// # Errors
/// [`MerkleError`] for an algorithm that cannot be computed.
pub fn notary_change(
    key: &PrivateKey,
    platform_version: i32,
    inputs: &[StateRef],
    notary: &Party,
    new_notary: &Party,
    parameters: SecureHash,
) -> Result<(TxId, Vec<u8>), MerkleError> {
    let components = [
        wire::encode_state_refs(inputs),
        wire::encode_party(notary),
        wire::encode_party(new_notary),
        wire::encode_secure_hash(&parameters),
    ];
    let transaction = NotaryChangeTransaction {
        digest: HashAlgorithm::Sha256,
        components: components.iter().map(Vec::as_slice).collect(),
        inputs: inputs.to_vec(),
        notary: notary.clone(),
        new_notary: new_notary.clone(),
        parameters: Some(parameters),
    };
    let id = check::notary_change_id(&transaction)?;
    let signature = sign_request(key, platform_version, inputs, &id);
    Ok((id, encode(CoreTransaction::NotaryChange(transaction), signature)))
}
