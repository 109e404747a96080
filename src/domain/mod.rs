//! The notary's rules as plain functions and types. Nothing here reads a clock, draws a random number or performs I/O,
//! so a worker, a test and the simulator run the very same decisions.

pub mod announcement;
pub mod check;
mod composite_key;
pub mod hash;
pub mod merkle;
pub mod merkle_batch;
pub mod network;
pub mod notary_error;
pub mod party;
pub mod request;
pub mod signature;
pub mod signed_form;
pub mod state_ref;
pub mod time;
pub mod transaction;
pub mod verdict;
pub mod x500_name;

pub use hash::{HashAlgorithm, SecureHash};
pub use notary_error::NotaryError;
pub use party::{Party, X500Name};
pub use request::CheckedRequest;
pub use signature::{PublicKey, SignatureScheme};
pub use state_ref::{StateRef, TxId};
pub use time::{TimeWindow, Timestamp};
pub use verdict::{CommittedTx, Verdict};
