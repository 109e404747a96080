//! Partial Merkle trees: objects within objects on the wire, a flat preorder in the domain.

use core::cell::Cell;

use super::amqp::header::unpack;
use super::amqp::{Message, View, Writer};
use super::error::{Fault, WireError};
use super::hash::{read_algorithm, read_hash, write_hash};
use super::limits::Limits;
use super::types::Type;
use crate::domain::HashAlgorithm;
use crate::domain::merkle::{PartialNode, PartialTree};

/// What the partial Merkle trees of one message may still take.
#[derive(Debug)]
pub(super) struct TreeBudget {
    nodes_left: Cell<usize>,
    nodes_max: usize,
    depth_max: u32,
}

impl TreeBudget {
    pub(super) fn new(limits: &Limits) -> Self {
        let nodes_max = limits.tree_nodes_max;
        Self { nodes_left: Cell::new(nodes_max), nodes_max, depth_max: limits.tree_depth_max }
    }

    fn take_node(&self, depth: u32) -> Result<(), Fault> {
        if depth > self.depth_max {
            return Err(Fault::limit("levels of a partial Merkle tree", self.depth_max.into()));
        }
        let left = self.nodes_left.get().checked_sub(1);
        self.nodes_left.set(left.ok_or(Fault::limit("nodes of partial Merkle trees", self.nodes_max as u64))?);
        Ok(())
    }
}

/// Reads a `PartialMerkleTree`. References could make a tree exponentially larger than its bytes, and deeper than the message;
/// the budget holds whatever its parts are.
pub(super) fn read_tree(view: View<'_, '_>, budget: &TreeBudget) -> Result<PartialTree, WireError> {
    let root = view.object(Type::PartialMerkleTree)?.field("root")?;
    let mut nodes = Vec::new();
    let mut pending = vec![(root, 0)];
    while let Some((part, depth)) = pending.pop() {
        budget.take_node(depth).or_else(|fault| part.fail(fault))?;
        let Some(object) = part.as_object() else { return part.wrong_type(Type::PartialTree.name()) };
        nodes.push(if part.is(Type::TreeNode) {
            // Before platform version 9 nodes did not name their algorithm; an explicit null is refused by Corda as well.
            let algorithm = match object.has("hashAlgorithm") {
                true => read_algorithm(object.field("hashAlgorithm")?)?,
                false => HashAlgorithm::Sha256,
            };
            pending.push((object.field("right")?, depth + 1));
            pending.push((object.field("left")?, depth + 1));
            PartialNode::Node(algorithm)
        } else if part.is(Type::TreeLeaf) {
            PartialNode::Leaf(read_hash(object.field("hash")?)?)
        } else if part.is(Type::TreeIncludedLeaf) {
            PartialNode::Included(read_hash(object.field("hash")?)?)
        } else {
            return part.wrong_type(Type::PartialTree.name());
        });
    }
    PartialTree::from_preorder(nodes).or_else(|error| view.refuse(error.to_string()))
}

/// Reads a `PartialMerkleTree` by itself.
///
/// # Errors
/// [`WireError`] for anything else.
pub fn decode_partial_tree(bytes: &[u8], limits: &Limits) -> Result<PartialTree, WireError> {
    let plain = unpack(bytes, limits)?;
    read_tree(Message::read(&plain, limits)?.root(), &TreeBudget::new(limits))
}

/// Serializes a `PartialMerkleTree` by itself.
pub fn encode_partial_tree(tree: &PartialTree) -> Vec<u8> {
    Writer::message(|w| write_tree(w, tree))
}

/// Writes a `PartialMerkleTree`. The depth of recursion is the tree's; trees are made here, or were read within limits.
pub(super) fn write_tree(w: &mut Writer, tree: &PartialTree) {
    w.composite(Type::PartialMerkleTree, |w| {
        let rest = write_subtree(w, tree.nodes());
        debug_assert!(rest.is_empty(), "a preorder is exactly one tree");
    });
}

/// Writes the subtree at the start of a preorder and gives back what follows it.
fn write_subtree<'n>(w: &mut Writer, nodes: &'n [PartialNode]) -> &'n [PartialNode] {
    let (first, mut rest) = nodes.split_first().expect("a preorder has both subtrees of each of its nodes");
    match first {
        PartialNode::Node(algorithm) => w.composite(Type::TreeNode, |w| {
            w.string(algorithm.name());
            rest = write_subtree(w, rest);
            rest = write_subtree(w, rest);
        }),
        PartialNode::Leaf(hash) => w.composite(Type::TreeLeaf, |w| write_hash(w, hash)),
        PartialNode::Included(hash) => w.composite(Type::TreeIncludedLeaf, |w| write_hash(w, hash)),
    }
    rest
}
