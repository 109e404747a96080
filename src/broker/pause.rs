//! Pauses that double up to a cap, each cut by chance, so that workers that failed together do not come back together.

use std::time::Duration;

/// How long to pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    pub base: Duration,
    pub cap: Duration,
}

impl Pause {
    /// The pause after so many failures before this one: between half and all of `base · 2^failures`, at most `cap`.
    pub(super) fn after(self, failures: u32) -> Duration {
        let whole = self.base.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(self.cap);
        // Without randomness the pause is whole, which is only less polite.
        let share = getrandom::u32().map_or(1.0, |random| 0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX));
        whole.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_keep_at_least_half() {
        let pause = Pause { base: Duration::from_millis(100), cap: Duration::from_secs(5) };
        for (failures, whole) in
            [(0, 100), (1, 200), (3, 800), (10, 5_000), (31, 5_000), (32, 5_000), (u32::MAX, 5_000)]
        {
            let whole = Duration::from_millis(whole);
            for _ in 0..100 {
                let pause = pause.after(failures);
                assert!(whole / 2 <= pause && pause <= whole, "{failures}: {pause:?}");
            }
        }
    }
}
