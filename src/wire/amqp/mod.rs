//! Corda's AMQP serialization as a format (PROTOCOL a), knowing no Corda type: bytes to a tree of typed values, and back.
//!
//! A message carries its own schema. Reading goes `header` (magic, compression) → `schema` (the types) → `body` (the values,
//! in one flat arena, references to earlier objects resolved) → `view` (access by type and field name). `writer` goes the
//! other way.

pub(super) mod body;
pub(super) mod cursor;
pub(super) mod header;
pub(super) mod known;
pub(super) mod schema;
pub(super) mod view;
pub(super) mod writer;

pub(super) use body::Message;
pub(super) use view::{Elements, Object, View};
pub(super) use writer::Writer;
