//! What a message may cost. Every limit is checked before the memory or the time is spent, and each has its reason.

use core::cell::Cell;
use std::borrow::Cow;

use super::amqp::header;
use super::error::{Fault, WireError};

/// Limits on one message and everything nested in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest message, in bytes, before and after decompression.
    pub message_bytes_max: usize,
    /// Deepest nesting of values inside one message.
    pub depth_max: u32,
    /// Most elements of one list, or keys plus values of one map.
    pub elements_max: u32,
    /// Most values inside one message.
    pub nodes_max: u32,
    /// Most references to earlier objects inside one message.
    pub references_max: u32,
    /// Most types in one message's schema.
    pub types_max: u32,
    /// Most fields, choices and provided interfaces of one type.
    pub fields_max: u32,
    /// Most nodes of all partial Merkle trees of one message.
    pub tree_nodes_max: usize,
    /// Deepest partial Merkle tree.
    pub tree_depth_max: u32,
    /// How much reading a message may take, per byte of it; reading a value costs its length. References make it cheap to name
    /// one value many times, so neither time nor memory follows from a message's size alone.
    pub work_per_byte_max: u64,
    /// Bytes of all nested messages together, each counted as often as it is opened, per byte of the outermost one.
    pub nested_bytes_per_byte_max: usize,
}

impl Limits {
    /// What a Corda network allows, with room to spare.
    pub const DEFAULT: Self = Self {
        // `maxMessageSize` of the default network parameters; larger messages are dropped by their sender.
        message_bytes_max: 10_485_760,
        // The deepest real message, a tree over 16,384 leaves within a payload, nests 21 deep.
        depth_max: 64,
        // Fewer than 10,000 inputs and references are allowed; the largest map holds a key and a value for each.
        elements_max: 32_768,
        // 10,000 inputs with nonces and tree nodes make about 100,000 values.
        nodes_max: 500_000,
        // A notary change may name the hash of one transaction in each of its 10,000 inputs.
        references_max: 32_768,
        // The largest message of this protocol has 18 types.
        types_max: 256,
        // The largest type of this protocol has 9 fields.
        fields_max: 128,
        // A full tree over 16,384 leaves, the next power of two above 10,000, has 32,767 nodes; inputs and references have one
        // each.
        tree_nodes_max: 65_536,
        // 2^32 leaves are more than any component group can have.
        tree_depth_max: 32,
        // Values are read once. What real messages name again are hashes of 32 to 64 bytes, by references that take 12 or more
        // themselves and mostly stand in an object of 50.
        work_per_byte_max: 4,
        // Messages nest four deep at most (session, payload, transaction, component), each within the one around it.
        nested_bytes_per_byte_max: 4,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What is left of the bytes that may be read in messages nested in one message.
#[derive(Debug)]
pub(super) struct NestedBudget<'l> {
    limits: &'l Limits,
    total: usize,
    bytes: Cell<usize>,
}

impl<'l> NestedBudget<'l> {
    /// The budget of messages nested in one of `length` bytes.
    pub(super) fn new(limits: &'l Limits, length: usize) -> Self {
        let total = length.saturating_mul(limits.nested_bytes_per_byte_max);
        Self { limits, total, bytes: Cell::new(total) }
    }

    pub(super) fn limits(&self) -> &'l Limits {
        self.limits
    }

    /// Undoes the compression of a nested message and pays for its bytes.
    pub(super) fn open<'a>(&self, bytes: &'a [u8]) -> Result<Cow<'a, [u8]>, WireError> {
        let left = self.bytes.get();
        let exhausted = || WireError::new(Fault::limit("bytes of nested messages", self.total as u64), 0);
        if bytes.len() > left {
            return Err(exhausted());
        }
        let limits = Limits { message_bytes_max: left.min(self.limits.message_bytes_max), ..*self.limits };
        let plain = header::unpack(bytes, &limits)?;
        // Reading takes as long as the longer form.
        self.bytes.set(left.checked_sub(plain.len().max(bytes.len())).ok_or_else(exhausted)?);
        Ok(plain)
    }
}
