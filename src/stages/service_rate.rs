//! How fast the worker serves while it has work, and so how long a new delivery will take (Little's law, rows BP2, MT10). Pure: the
//! caller tells the time.

/// How much of the estimate the latest sample makes up: after five samples a change of pace is all but adopted.
const LATEST_WEIGHT: f64 = 0.4;
/// The length of one sample, in milliseconds of work: long enough to hold several batches.
const SAMPLE_MS: u64 = 1_000;

/// Counts what is done in the time in which there is something to do.
#[derive(Clone, Default, Debug)]
pub struct ServiceRate {
    open: u64,
    last_ms: u64,
    busy_ms: u64,
    done: u64,
    /// Milliseconds of work for one. Times are averaged and not rates: one very quick delivery would outweigh many slow ones.
    ms_each: Option<f64>,
}

impl ServiceRate {
    /// A delivery arrives at `now_ms`, on any clock that only goes forward. Returns how long it may expect to take, in
    /// milliseconds; `None` as long as there is nothing to go by.
    pub fn arrived(&mut self, now_ms: u64) -> Option<u64> {
        self.pass(now_ms);
        self.open += 1;
        Some((self.open as f64 * self.ms_each?) as u64)
    }

    /// A delivery was answered at `now_ms`.
    pub fn done(&mut self, now_ms: u64) {
        self.left(now_ms);
        self.done += 1;
        // The first deliveries make a first estimate; later samples are longer.
        if self.busy_ms >= SAMPLE_MS || (self.ms_each.is_none() && self.busy_ms > 0) {
            let latest = self.busy_ms as f64 / self.done as f64;
            let before = self.ms_each.unwrap_or(latest);
            self.ms_each = Some(before + LATEST_WEIGHT * (latest - before));
            (self.busy_ms, self.done) = (0, 0);
        }
    }

    /// A delivery ended at `now_ms` without an answer, such as the end of a session: that says nothing about how long one takes.
    pub fn left(&mut self, now_ms: u64) {
        self.pass(now_ms);
        self.open = self.open.saturating_sub(1);
    }

    fn pass(&mut self, now_ms: u64) {
        if self.open > 0 {
            self.busy_ms += now_ms.saturating_sub(self.last_ms);
        }
        self.last_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A worker with `open` deliveries that ends one every `every_ms` and gets another, for so many seconds.
    fn steady(rate: &mut ServiceRate, now_ms: &mut u64, seconds: u64, every_ms: u64) -> Option<u64> {
        let mut foretold = None;
        for _ in 0..seconds * 1_000 / every_ms {
            *now_ms += every_ms;
            rate.done(*now_ms);
            foretold = rate.arrived(*now_ms);
        }
        foretold
    }

    fn full(open: u64) -> (ServiceRate, u64) {
        let mut rate = ServiceRate::default();
        (0..open).for_each(|_| assert_eq!(rate.arrived(0), None, "nothing is foretold from nothing"));
        (rate, 0)
    }

    #[test]
    fn in_a_steady_state_the_wait_is_the_queue_over_the_rate() {
        let (mut rate, mut now_ms) = full(500);
        let wait_ms = steady(&mut rate, &mut now_ms, 20, 10).expect("there was work");
        assert!((4_900..=5_100).contains(&wait_ms), "500 at 100 a second: {wait_ms} ms");
    }

    #[test]
    fn a_change_of_pace_is_adopted_within_ten_seconds() {
        let (mut rate, mut now_ms) = full(100);
        steady(&mut rate, &mut now_ms, 20, 10);
        let wait_ms = steady(&mut rate, &mut now_ms, 10, 100).expect("there was work");
        assert!((9_000..=11_000).contains(&wait_ms), "100 at 10 a second: {wait_ms} ms");
    }

    #[test]
    fn what_needs_no_answer_makes_nobody_look_quick() {
        let mut rate = ServiceRate::default();
        for second in 0..20 {
            let now_ms = second * 3_000;
            rate.arrived(now_ms);
            // A node ends each session with a message of its own.
            rate.arrived(now_ms);
            rate.left(now_ms + 1);
            rate.done(now_ms + 2_999);
        }
        let wait_ms = rate.arrived(60_000).expect("there was work");
        assert!((2_900..=3_000).contains(&wait_ms), "{wait_ms} ms");
    }

    #[test]
    fn a_lone_request_now_and_then_is_no_slow_worker() {
        let mut rate = ServiceRate::default();
        let mut foretold = None;
        for hour in 0..1_000 {
            let now_ms = hour * 3_600_000;
            foretold = rate.arrived(now_ms);
            rate.done(now_ms + 5);
        }
        assert_eq!(foretold, Some(5));
    }
}
