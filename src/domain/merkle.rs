//! Merkle trees as Corda builds them (PROTOCOL e.2, e.3).
//!
//! Leaves are padded with zero hashes to a power of two; a node is the hash of its children's concatenated digits. A single
//! leaf is its own root under SHA-256, but is padded to two leaves under every other algorithm.

use super::hash::{HashAlgorithm, SecureHash, UnsupportedAlgorithm};

/// The root over `leaves`.
///
/// # Errors
/// [`MerkleError::Empty`] without leaves; [`MerkleError::Algorithm`] if `algorithm` cannot be computed or a leaf has another.
pub fn root(algorithm: HashAlgorithm, leaves: &[SecureHash]) -> Result<SecureHash, MerkleError> {
    let mut level = padded(algorithm, leaves)?;
    while level.len() > 1 {
        for i in 0..level.len() / 2 {
            level[i] = node(algorithm, &level[2 * i], &level[2 * i + 1])?;
        }
        level.truncate(level.len() / 2);
    }
    Ok(level[0])
}

fn padded(algorithm: HashAlgorithm, leaves: &[SecureHash]) -> Result<Vec<SecureHash>, MerkleError> {
    if leaves.is_empty() {
        return Err(MerkleError::Empty);
    }
    if let Some(stranger) = leaves.iter().find(|leaf| leaf.algorithm() != algorithm) {
        return Err(MerkleError::Mixed { expected: algorithm, found: stranger.algorithm() });
    }
    if !algorithm.is_computable() {
        return Err(UnsupportedAlgorithm(algorithm).into());
    }
    let width_min = if algorithm == HashAlgorithm::Sha256 { 1 } else { 2 };
    let width = leaves.len().next_power_of_two().max(width_min);
    let mut level = Vec::with_capacity(width);
    level.extend_from_slice(leaves);
    level.resize(width, SecureHash::zero(algorithm));
    Ok(level)
}

fn node(algorithm: HashAlgorithm, left: &SecureHash, right: &SecureHash) -> Result<SecureHash, UnsupportedAlgorithm> {
    algorithm.digest(&[left.as_bytes(), right.as_bytes()])
}

/// One node of a partial tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartialNode {
    /// An inner node, whose two subtrees follow; the hash algorithm joins them.
    Node(HashAlgorithm),
    /// The root of a subtree that is not shown.
    Leaf(SecureHash),
    /// A leaf that the tree proves to be included.
    Included(SecureHash),
}

/// A partial Merkle tree in preorder: a node, then its left subtree, then its right one. Flat, so that a hostile depth can
/// exhaust no stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartialTree {
    nodes: Vec<PartialNode>,
}

impl PartialTree {
    /// A tree from its nodes in preorder.
    ///
    /// # Errors
    /// [`MerkleError::Malformed`] unless the nodes form exactly one tree.
    pub fn from_preorder(nodes: Vec<PartialNode>) -> Result<Self, MerkleError> {
        let mut missing = 1usize;
        for node in &nodes {
            // Nothing may follow the last subtree.
            missing = missing.checked_sub(1).ok_or(MerkleError::Malformed)?;
            if matches!(node, PartialNode::Node(_)) {
                missing += 2;
            }
        }
        if missing == 0 { Ok(Self { nodes }) } else { Err(MerkleError::Malformed) }
    }

    /// The nodes in preorder.
    pub fn nodes(&self) -> &[PartialNode] {
        &self.nodes
    }

    /// The included leaves, left to right.
    pub fn included(&self) -> impl Iterator<Item = SecureHash> + '_ {
        self.nodes.iter().filter_map(|node| match node {
            PartialNode::Included(hash) => Some(*hash),
            _ => None,
        })
    }

    /// The root this tree leads to.
    ///
    /// # Errors
    /// [`MerkleError::Algorithm`] for an algorithm that cannot be computed, [`MerkleError::Mixed`] for children of another
    /// algorithm than their node's siblings (Corda refuses to concatenate them).
    pub fn root(&self) -> Result<SecureHash, MerkleError> {
        // Preorder read backwards meets the right child first and the left child last, just before their node.
        let mut stack: Vec<SecureHash> = Vec::new();
        for entry in self.nodes.iter().rev() {
            match *entry {
                PartialNode::Leaf(hash) | PartialNode::Included(hash) => stack.push(hash),
                PartialNode::Node(algorithm) => {
                    let (Some(left), Some(right)) = (stack.pop(), stack.pop()) else {
                        return Err(MerkleError::Malformed);
                    };
                    if left.algorithm() != right.algorithm() {
                        return Err(MerkleError::Mixed { expected: left.algorithm(), found: right.algorithm() });
                    }
                    stack.push(node(algorithm, &left, &right)?);
                }
            }
        }
        stack.pop().ok_or(MerkleError::Malformed)
    }

    /// The tree over `leaves` that shows only those for which `included` holds; subtrees without any are pruned to their root.
    ///
    /// # Errors
    /// As [`root`].
    pub fn build(
        algorithm: HashAlgorithm,
        leaves: &[SecureHash],
        included: impl Fn(usize) -> bool,
    ) -> Result<Self, MerkleError> {
        MerkleTree::new(algorithm, leaves)?.partial(included)
    }
}

/// A full tree with all its levels, from which many partial trees can be cut.
#[derive(Clone, Debug)]
pub struct MerkleTree {
    algorithm: HashAlgorithm,
    leaf_count: usize,
    /// `levels[0]` are the padded leaves, the last level is the root alone.
    levels: Vec<Vec<SecureHash>>,
}

impl MerkleTree {
    /// The tree over `leaves`.
    ///
    /// # Errors
    /// As [`root`].
    pub fn new(algorithm: HashAlgorithm, leaves: &[SecureHash]) -> Result<Self, MerkleError> {
        let mut levels = vec![padded(algorithm, leaves)?];
        while let Some(last) = levels.last()
            && last.len() > 1
        {
            let next =
                last.chunks_exact(2).map(|pair| node(algorithm, &pair[0], &pair[1])).collect::<Result<_, _>>()?;
            levels.push(next);
        }
        Ok(Self { algorithm, leaf_count: leaves.len(), levels })
    }

    /// The root.
    pub fn root(&self) -> SecureHash {
        self.levels[self.levels.len() - 1][0]
    }

    /// The partial tree that shows only the leaves for which `included` holds.
    ///
    /// # Errors
    /// [`MerkleError::Malformed`] never in practice; kept because the preorder is validated like any other.
    pub fn partial(&self, included: impl Fn(usize) -> bool) -> Result<PartialTree, MerkleError> {
        // marks[level][i]: the subtree under that node has an included leaf.
        let mut marks = vec![(0..self.levels[0].len()).map(|i| i < self.leaf_count && included(i)).collect::<Vec<_>>()];
        for level in 1..self.levels.len() {
            marks.push(marks[level - 1].chunks_exact(2).map(|pair| pair[0] || pair[1]).collect());
        }
        let mut nodes = Vec::new();
        let mut pending = vec![(self.levels.len() - 1, 0)];
        while let Some((level, i)) = pending.pop() {
            nodes.push(match (marks[level][i], level) {
                (false, _) => PartialNode::Leaf(self.levels[level][i]),
                (true, 0) => PartialNode::Included(self.levels[0][i]),
                (true, _) => {
                    pending.push((level - 1, 2 * i + 1));
                    pending.push((level - 1, 2 * i));
                    PartialNode::Node(self.algorithm)
                }
            });
        }
        PartialTree::from_preorder(nodes)
    }
}

/// Why a tree has no root.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MerkleError {
    /// A tree needs a leaf.
    #[error("a Merkle tree needs at least one leaf")]
    Empty,
    /// The algorithm is known by name only.
    #[error(transparent)]
    Algorithm(#[from] UnsupportedAlgorithm),
    /// Hashes of two algorithms stand side by side.
    #[error("a Merkle tree mixes {expected} and {found} hashes")]
    Mixed {
        /// The algorithm of the tree.
        expected: HashAlgorithm,
        /// The other one.
        found: HashAlgorithm,
    },
    /// The nodes do not form exactly one tree.
    #[error("a partial Merkle tree is malformed")]
    Malformed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(n: u8) -> SecureHash {
        SecureHash::sha256([n; 32])
    }

    #[test]
    fn single_leaf_is_its_own_root_under_sha256_only() {
        assert_eq!(root(HashAlgorithm::Sha256, &[leaf(1)]), Ok(leaf(1)));
        let wide = SecureHash::all_ones(HashAlgorithm::Sha384);
        let expected = HashAlgorithm::Sha384.digest(&[wide.as_bytes(), &[0; 48]]);
        assert_eq!(root(HashAlgorithm::Sha384, &[wide]), Ok(expected.expect("computable")));
    }

    #[test]
    fn every_partial_tree_leads_to_the_full_root_and_includes_what_was_asked() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512] {
            for count in 1..=17usize {
                let leaves: Vec<_> = (0..count).map(|n| algorithm.digest(&[&[n as u8]]).expect("computable")).collect();
                let full = root(algorithm, &leaves).expect("root");
                for shown in 0..count {
                    let tree = PartialTree::build(algorithm, &leaves, |i| i == shown).expect("tree");
                    assert_eq!(tree.root(), Ok(full));
                    assert_eq!(tree.included().collect::<Vec<_>>(), [leaves[shown]]);
                }
                let all = PartialTree::build(algorithm, &leaves, |_| true).expect("tree");
                assert_eq!(all.root(), Ok(full));
                assert_eq!(all.included().collect::<Vec<_>>(), leaves);
            }
        }
    }

    #[test]
    fn preorder_must_be_exactly_one_tree() {
        use PartialNode::{Included, Leaf, Node};
        let n = Node(HashAlgorithm::Sha256);
        assert!(PartialTree::from_preorder(vec![n, Leaf(leaf(1)), Included(leaf(2))]).is_ok());
        for nodes in [vec![], vec![n], vec![n, Leaf(leaf(1))], vec![Leaf(leaf(1)), Leaf(leaf(2))]] {
            assert_eq!(PartialTree::from_preorder(nodes), Err(MerkleError::Malformed));
        }
    }

    #[test]
    fn mixed_algorithms_are_refused() {
        let mixed = [leaf(1), SecureHash::zero(HashAlgorithm::Sha3_256)];
        assert!(matches!(root(HashAlgorithm::Sha256, &mixed), Err(MerkleError::Mixed { .. })));
        assert!(root(HashAlgorithm::Sha3_256, &mixed[1..]).is_err());
    }
}
