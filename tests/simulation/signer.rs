//! The model of the service key: a keyed digest in place of a signature, over the very bytes that the worker has signed. So a
//! signature can be verified in a microsecond, and nobody but this file can make one.

use notary_worker::domain::merkle::PartialNode;
use notary_worker::domain::merkle_batch::{Signable, TransactionSignature};
use notary_worker::domain::signed_form::{SignatureMetadata, SignedForm};
use notary_worker::domain::{CommittedTx, HashAlgorithm, SecureHash, StateRef, TxId};
use notary_worker::ports::signer::SignError;

use crate::history::Verifier;
use crate::scenario::model_key;

const SECRET: &[u8] = b"the simulated service key";
const METADATA: SignatureMetadata = SignatureMetadata { platform_version: 4, scheme_number_id: 4 };

/// What is signed, in the model's own form.
struct ModelForm;

impl SignedForm for ModelForm {
    fn notarisation_request(&self, _: &[StateRef], _: &TxId) -> Vec<u8> {
        unreachable!("request signatures are checked before the stages that are simulated")
    }

    fn signable_data(&self, id: &SecureHash, metadata: SignatureMetadata) -> Vec<u8> {
        let mut bytes = TxId(*id).to_key();
        bytes.extend(metadata.platform_version.to_be_bytes());
        bytes.extend(metadata.scheme_number_id.to_be_bytes());
        bytes
    }
}

/// Signs as the worker does: one transaction by its id, several under one root. A `wrong` key makes signatures that do not hold;
/// the worker notices, for it verifies each before it leaves.
pub(crate) fn sign(transactions: Vec<CommittedTx>, wrong: bool) -> Result<Vec<TransactionSignature>, SignError> {
    let signable = match transactions.as_slice() {
        [one] => Signable::single(*one, METADATA, &ModelForm),
        _ => Signable::batch(transactions, METADATA, &ModelForm)
            .map_err(|error| SignError::Unavailable(format!("cannot be signed together: {error}")))?,
    };
    if wrong {
        return Err(SignError::Unavailable("the key made a bad signature".into()));
    }
    let digest = keyed_digest(signable.bytes());
    signable.signatures(&model_key(), &digest).map_err(|error| SignError::Unavailable(error.to_string()))
}

fn keyed_digest(bytes: &[u8]) -> Vec<u8> {
    let digest = HashAlgorithm::Sha256.digest(&[SECRET, bytes]).expect("SHA-256 is computable");
    digest.as_bytes().to_vec()
}

/// A signature as histories hold it: the digest, then the nodes of the tree, if it has one, in preorder.
pub(crate) fn encode(signature: &TransactionSignature) -> Vec<u8> {
    let mut bytes = signature.bytes.clone();
    for node in signature.partial_tree.iter().flat_map(|tree| tree.nodes()) {
        let (kind, algorithm, digits) = match node {
            PartialNode::Node(algorithm) => (NODE, *algorithm, &[][..]),
            PartialNode::Leaf(hash) => (LEAF, hash.algorithm(), hash.as_bytes()),
            PartialNode::Included(hash) => (INCLUDED, hash.algorithm(), hash.as_bytes()),
        };
        bytes.extend([kind, algorithm.tag()]);
        bytes.extend(digits);
    }
    bytes
}

const NODE: u8 = 0;
const LEAF: u8 = 1;
const INCLUDED: u8 = 2;

/// Verifies what [`encode`] wrote, as a client would: the tree must include the transaction and lead to what was signed.
pub(crate) struct ModelVerifier;

impl Verifier for ModelVerifier {
    fn verify(&self, tx: &TxId, signature: &[u8]) -> Result<(), String> {
        let (digest, mut tree) = signature.split_at_checked(32).ok_or("too short")?;
        let signed = if tree.is_empty() {
            tx.0
        } else {
            let leaf = tx.hashed().map_err(|error| error.to_string())?;
            let mut covered = false;
            let root = climb(&mut tree, &leaf, &mut covered)?;
            match (covered, tree) {
                (true, []) => root,
                (false, _) => return Err("the tree does not include the transaction".into()),
                (true, rest) => return Err(format!("{} bytes follow the tree", rest.len())),
            }
        };
        if keyed_digest(&ModelForm.signable_data(&signed, METADATA)) == digest {
            Ok(())
        } else {
            Err("the digest is not the key's".into())
        }
    }
}

/// Reads one subtree and computes its root.
fn climb(tree: &mut &[u8], leaf: &SecureHash, covered: &mut bool) -> Result<SecureHash, String> {
    let (&[kind, tag], rest) = tree.split_first_chunk().ok_or("the tree ends early")?;
    *tree = rest;
    let algorithm = HashAlgorithm::from_tag(tag).ok_or("no such algorithm")?;
    if kind == NODE {
        let (left, right) = (climb(tree, leaf, covered)?, climb(tree, leaf, covered)?);
        return algorithm.digest(&[left.as_bytes(), right.as_bytes()]).map_err(|error| error.to_string());
    }
    let (digits, rest) = tree.split_at_checked(algorithm.digest_len()).ok_or("the tree ends early")?;
    *tree = rest;
    let hash = SecureHash::new(algorithm, digits).map_err(|error| error.to_string())?;
    *covered |= kind == INCLUDED && hash == *leaf;
    Ok(hash)
}
