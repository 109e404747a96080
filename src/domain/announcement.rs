//! What a worker says of itself to its network, ready to be signed by its identities.

/// A serialized node info. Both identities of a worker sign it, so the service key does too: the one thing it signs besides
/// [`Signable`](super::merkle_batch::Signable)s.
///
/// Only the serializer makes one, from a node info's fields, so nothing else can be had signed this way. And a signature over it
/// is none over a transaction: what is signed for a transaction is a serialized object of another type, and every serialized
/// object begins with its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Announcement(Vec<u8>);

impl Announcement {
    /// For the serializer of node infos alone (`tests/architecture.rs` sees to it).
    pub fn of_serialized_node_info(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes to sign.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
