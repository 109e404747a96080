//! Every store, behind the port [`UniquenessProvider`](crate::ports::UniquenessProvider). The folder is called after what most
//! of them speak; the default one speaks no SQL.
//!
//! A store keeps records and makes them durable. It never decides: [`decide`](crate::domain::verdict::decide) does, over the
//! store's records, and the suite in `tests/suites/uniqueness.rs` holds every store to the same behaviour.

pub mod embedded;
pub mod memory;
pub mod postgres;

pub use embedded::Embedded;
pub use memory::Memory;
pub use postgres::Postgres;
