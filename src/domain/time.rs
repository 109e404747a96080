//! Moments and time windows. The rules never ask what time it is: the moment is handed in, from the `Clock` port.

use core::fmt;

/// A moment: seconds since 1970-01-01T00:00:00Z and nanoseconds within the second, as Java's `Instant`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// The earliest second of Java's `Instant`.
    pub const SECONDS_MIN: i64 = -31_557_014_167_219_200;
    /// The last second of Java's `Instant`.
    pub const SECONDS_MAX: i64 = 31_556_889_864_403_199;

    /// A moment; `None` outside the range of Java's `Instant` or with `nanos` of a second or more.
    pub fn new(seconds: i64, nanos: u32) -> Option<Self> {
        ((Self::SECONDS_MIN..=Self::SECONDS_MAX).contains(&seconds) && nanos < 1_000_000_000)
            .then_some(Self { seconds, nanos })
    }

    /// A moment from milliseconds since the epoch.
    pub fn from_millis(millis: i64) -> Self {
        Self { seconds: millis.div_euclid(1000), nanos: (millis.rem_euclid(1000) * 1_000_000) as u32 }
    }

    /// Whole seconds since the epoch.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    /// Nanoseconds within the second.
    pub fn nanos(&self) -> u32 {
        self.nanos
    }

    /// Milliseconds since the epoch, rounded down; saturates far outside any calendar.
    pub fn as_millis(&self) -> i64 {
        self.seconds.saturating_mul(1000).saturating_add(i64::from(self.nanos / 1_000_000))
    }
}

/// RFC 3339 in UTC where the calendar reaches, else seconds and nanoseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::new(self.seconds, self.nanos as i32) {
            Ok(moment) => write!(f, "{moment}"),
            Err(_) => write!(f, "{}.{:09}s", self.seconds, self.nanos),
        }
    }
}

/// When a transaction may be notarised: half-open, `from ≤ now < until`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TimeWindow {
    /// From a moment, up to but excluding another.
    Between {
        /// First moment inside.
        from: Timestamp,
        /// First moment after.
        until: Timestamp,
    },
    /// From a moment on.
    From(Timestamp),
    /// Before a moment.
    Until(Timestamp),
}

impl TimeWindow {
    /// Whether `now` lies inside. No tolerance: clients put theirs into the window.
    pub fn contains(&self, now: Timestamp) -> bool {
        self.from().is_none_or(|from| from <= now) && self.until().is_none_or(|until| now < until)
    }

    /// First moment inside, if bounded.
    pub fn from(&self) -> Option<Timestamp> {
        match *self {
            Self::Between { from, .. } | Self::From(from) => Some(from),
            Self::Until(_) => None,
        }
    }

    /// First moment after, if bounded.
    pub fn until(&self) -> Option<Timestamp> {
        match *self {
            Self::Between { until, .. } | Self::Until(until) => Some(until),
            Self::From(_) => None,
        }
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between { from, until } => write!(f, "[{from}, {until})"),
            Self::From(from) => write!(f, "[{from}, ∞)"),
            Self::Until(until) => write!(f, "(∞, {until})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_half_open() {
        let at = |seconds| Timestamp::new(seconds, 0).expect("in range");
        let window = TimeWindow::Between { from: at(10), until: at(20) };
        assert_eq!([9, 10, 19, 20].map(|s| window.contains(at(s))), [false, true, true, false]);
        assert_eq!([9, 10].map(|s| TimeWindow::From(at(10)).contains(at(s))), [false, true]);
        assert_eq!([9, 10].map(|s| TimeWindow::Until(at(10)).contains(at(s))), [true, false]);
    }
}
