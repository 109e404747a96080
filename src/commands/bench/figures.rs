//! What a run measured: counts and a histogram of latencies, merged over tasks.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::commands::Failure;

/// Latencies are kept from 1 µs to 10 minutes with three digits.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Counts and latencies.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// Requests with a right answer.
    pub(crate) transactions: u64,
    /// Input and reference states of those.
    pub(crate) states: u64,
    /// Of those, refused for a conflict, as they should be.
    pub(crate) conflicts: u64,
    /// Requests with a wrong answer or none.
    pub(crate) errors: u64,
    latencies_us: Histogram<u64>,
}

impl Figures {
    pub(crate) fn new() -> Result<Self, Failure> {
        let latencies_us = Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).map_err(Failure::unavailable)?;
        Ok(Self { transactions: 0, states: 0, conflicts: 0, errors: 0, latencies_us })
    }

    /// A right answer after `latency`.
    pub(crate) fn right(&mut self, states: usize, conflict: bool, latency: Duration) {
        self.transactions += 1;
        self.states += states as u64;
        self.conflicts += u64::from(conflict);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
        self.latencies_us.saturating_record(micros.max(1));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.transactions += other.transactions;
        self.states += other.states;
        self.conflicts += other.conflicts;
        self.errors += other.errors;
        // Both histograms have the same bounds.
        let _ = self.latencies_us.add(&other.latencies_us);
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        round(self.latencies_us.value_at_quantile(quantile) as f64 / 1000.0)
    }

    pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
        round(count as f64 / elapsed.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    /// The fields that every benchmark's last line has.
    pub(crate) fn json(&self, elapsed: Duration) -> Value {
        json!({
            "tx_per_s": Self::per_second(self.transactions, elapsed),
            "states_per_s": Self::per_second(self.states, elapsed),
            "p50_ms": self.quantile_ms(0.50),
            "p95_ms": self.quantile_ms(0.95),
            "p99_ms": self.quantile_ms(0.99),
            "errors": self.errors,
            "transactions": self.transactions,
            "conflicts": self.conflicts,
            "seconds": round(elapsed.as_secs_f64()),
        })
    }

    /// For people.
    pub(crate) fn text(&self, elapsed: Duration) -> String {
        format!(
            "{} transactions in {:.1} s: {} tx/s, {} states/s; latency p50 {} ms, p95 {} ms, p99 {} ms; {} conflicts, {} errors",
            self.transactions,
            elapsed.as_secs_f64(),
            Self::per_second(self.transactions, elapsed),
            Self::per_second(self.states, elapsed),
            self.quantile_ms(0.50),
            self.quantile_ms(0.95),
            self.quantile_ms(0.99),
            self.conflicts,
            self.errors
        )
    }
}

/// Three decimals: finer digits are noise.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_figures_add_up() {
        let (mut a, mut b) = (Figures::new().expect("bounds"), Figures::new().expect("bounds"));
        a.right(2, false, Duration::from_millis(1));
        b.right(3, true, Duration::from_millis(3));
        b.errors += 1;
        a.merge(&b);
        let json = a.json(Duration::from_secs(2));
        assert_eq!((json["tx_per_s"].as_f64(), json["states_per_s"].as_f64()), (Some(1.0), Some(2.5)));
        assert_eq!((json["errors"].as_u64(), json["conflicts"].as_u64()), (Some(1), Some(1)));
        assert!((a.quantile_ms(1.0) - 3.0).abs() < 0.1);
    }
}
