//! What is signed, and the signatures that come of it: one transaction's id, or the root over many (PROTOCOL e.5).

use super::hash::{HashAlgorithm, SecureHash, UnsupportedAlgorithm};
use super::merkle::{MerkleError, MerkleTree, PartialTree};
use super::signature::{PublicKey, SignatureError};
use super::signed_form::{SignatureMetadata, SignedForm};
use super::state_ref::TxId;
use super::verdict::CommittedTx;

/// Bytes that the service key may sign. Only durably committed transactions get in here.
#[derive(Clone, Debug)]
pub struct Signable {
    members: Vec<CommittedTx>,
    /// Absent for a single signature, which covers the plain id.
    tree: Option<MerkleTree>,
    metadata: SignatureMetadata,
    bytes: Vec<u8>,
}

impl Signable {
    /// One transaction, signed by its plain id.
    pub fn single(tx: CommittedTx, metadata: SignatureMetadata, form: &dyn SignedForm) -> Self {
        let bytes = form.signable_data(&tx.tx_id().0, metadata);
        Self { members: vec![tx], tree: None, metadata, bytes }
    }

    /// Many transactions, signed by the Merkle root over their re-hashed ids.
    ///
    /// # Errors
    /// [`BatchError`] unless there is at least one transaction, none occurs twice, and all ids have one computable algorithm.
    pub fn batch(
        members: Vec<CommittedTx>,
        metadata: SignatureMetadata,
        form: &dyn SignedForm,
    ) -> Result<Self, BatchError> {
        let leaves = members.iter().map(|tx| tx.tx_id().hashed()).collect::<Result<Vec<_>, _>>()?;
        let mut sorted = leaves.clone();
        sorted.sort_unstable();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(BatchError::Repeated);
        }
        let algorithm = leaves.first().map_or(HashAlgorithm::Sha256, SecureHash::algorithm);
        let tree = MerkleTree::new(algorithm, &leaves)?;
        let bytes = form.signable_data(&tree.root(), metadata);
        Ok(Self { members, tree: Some(tree), metadata, bytes })
    }

    /// The bytes to sign.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The transactions covered, in order.
    pub fn members(&self) -> &[CommittedTx] {
        &self.members
    }

    /// The members' signatures, in order, once `bytes` of [`Self::bytes`] were made by the key `by`.
    ///
    /// # Errors
    /// [`MerkleError`] never in practice: the tree was built from these members.
    pub fn signatures(&self, by: &PublicKey, bytes: &[u8]) -> Result<Vec<TransactionSignature>, MerkleError> {
        let member = |i: usize| {
            let partial_tree = self.tree.as_ref().map(|tree| tree.partial(|leaf| leaf == i)).transpose()?;
            Ok(TransactionSignature { by: by.clone(), bytes: bytes.to_vec(), partial_tree, metadata: self.metadata })
        };
        (0..self.members.len()).map(member).collect()
    }
}

/// Why transactions cannot be signed together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// A transaction occurs twice.
    #[error("a transaction occurs twice in a signing batch")]
    Repeated,
    /// None at all, or two hash algorithms.
    #[error(transparent)]
    Merkle(#[from] MerkleError),
    /// An id whose algorithm cannot be computed.
    #[error(transparent)]
    Algorithm(#[from] UnsupportedAlgorithm),
}

/// A notary's signature over a transaction, alone or in a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionSignature {
    /// The signing key.
    pub by: PublicKey,
    /// The signature, in the form of its scheme.
    pub bytes: Vec<u8>,
    /// In a batch: proof that the transaction is covered.
    pub partial_tree: Option<PartialTree>,
    /// Part of the signed bytes.
    pub metadata: SignatureMetadata,
}

impl TransactionSignature {
    /// Checks the signature as a Corda client does.
    ///
    /// # Errors
    /// [`SignatureError`] if the tree does not include the transaction or the signature does not verify.
    pub fn verify(&self, tx_id: &TxId, form: &dyn SignedForm) -> Result<(), SignatureError> {
        let signed_id = match &self.partial_tree {
            None => tx_id.0,
            Some(tree) => {
                let leaf = tx_id.hashed().map_err(|_| SignatureError::NotCovered)?;
                if !tree.included().any(|included| included == leaf) {
                    return Err(SignatureError::NotCovered);
                }
                tree.root().map_err(|_| SignatureError::NotCovered)?
            }
        };
        self.by.verify(&form.signable_data(&signed_id, self.metadata), &self.bytes)
    }
}
