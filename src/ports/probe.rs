//! Whether the parts that a worker cannot do without work at the moment.

use super::BoxFuture;

/// A part of the worker that can tell whether it works: the store, the broker, the service key.
pub trait Probe: Send + Sync {
    /// Which part, as operators call it: `store`, `broker` or `key`.
    fn part(&self) -> &'static str;

    /// Looks. Costs little enough for every second; the caller stops waiting after a while and takes that for an error.
    ///
    /// # Errors
    /// What is wrong, in one line for operators.
    fn probe(&self) -> BoxFuture<'_, Result<(), String>>;
}
