//! The wall clock, for time windows only. Deadlines and pauses use the runtime's monotonic clock instead.

use crate::domain::Timestamp;

/// Tells the notary's time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = jiff::Timestamp::now();
        // jiff's range lies within Java's, and it rounds towards zero before 1970 only.
        Timestamp::new(now.as_second(), now.subsec_nanosecond().max(0) as u32).unwrap_or(Timestamp::from_millis(0))
    }
}
