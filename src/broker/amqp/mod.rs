//! AMQP 1.0 as far as this worker speaks it: values, frames, performatives, messages. Pure: bytes in, bytes out.
//!
//! Written here because the listener faces peers that may be hostile, in a process that aborts on panic. The Rust library at
//! hand (fe2o3-amqp 0.18.4 with serde_amqp 0.18.0) panics on a frame of four bytes before any authentication, overflows the
//! stack on nested values, spends a core for seconds on one disposition over a wide range, and queues up to 65 535 frames a
//! session. The tests use it, and Apache Qpid Proton, as independent clients.
//!
//! Rules of this module: nothing recurses, nothing allocates by a length that a peer merely claims, no input panics. Compound
//! values are handed out as slices; what is not needed is skipped in constant time by its size.
//!
//! Left out: transactions, link resumption, symbolic descriptors (no implementation we met sends them).

pub(super) mod codec;
pub(super) mod connection;
pub(super) mod frame;
pub(super) mod message;
pub(super) mod performative;
pub(super) mod stream;
pub(super) mod transfer;

/// The largest frame before `open` agrees on one (specification 2.4.1).
pub(super) const MIN_MAX_FRAME_SIZE: usize = 512;

/// What every AMQP peer we speak with must accept as session windows: we bound deliveries by link credit, not by these.
pub(super) const SESSION_WINDOW: u32 = 0x7fff_ffff;

/// Error conditions of the specification that this worker sends.
pub(super) mod condition {
    pub(crate) const DECODE_ERROR: &str = "amqp:decode-error";
    pub(crate) const NOT_ALLOWED: &str = "amqp:not-allowed";
    pub(crate) const NOT_FOUND: &str = "amqp:not-found";
    pub(crate) const NOT_IMPLEMENTED: &str = "amqp:not-implemented";
    pub(crate) const RESOURCE_LIMIT_EXCEEDED: &str = "amqp:resource-limit-exceeded";
    pub(crate) const UNAUTHORIZED_ACCESS: &str = "amqp:unauthorized-access";
    pub(crate) const CONNECTION_FORCED: &str = "amqp:connection:forced";
    pub(crate) const FRAMING_ERROR: &str = "amqp:connection:framing-error";
    pub(crate) const MESSAGE_SIZE_EXCEEDED: &str = "amqp:link:message-size-exceeded";
    pub(crate) const TRANSFER_LIMIT_EXCEEDED: &str = "amqp:link:transfer-limit-exceeded";
}

/// The protocol headers (specification 2.2 and 5.3.2).
pub(super) const HEADER_AMQP: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
pub(super) const HEADER_SASL: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
