//! What the rules need from outside, as traits: adapters in `broker/`, `sql/`, `hsm/` and `network/` fulfil them.

use std::pin::Pin;

pub mod clock;
pub mod finding;
pub mod network_map;
pub mod probe;
pub mod request_queue;
pub mod signer;
pub mod uniqueness;

pub use clock::Clock;
pub use finding::Finding;
pub use network_map::NetworkMap;
pub use probe::Probe;
pub use request_queue::RequestQueue;
pub use signer::Signer;
pub use uniqueness::UniquenessProvider;

/// A future that an object-safe port returns.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
