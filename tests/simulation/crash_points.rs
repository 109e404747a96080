//! Every way in which workers can die in one small scenario: not sampled, but all of them, one death and two.

use crate::history::Violation;
use crate::world::{Crash, Options, Outcome, run_small};

const WORKERS: usize = 2;

fn run_with(crashes: &[Crash]) -> Outcome {
    let outcome = run_small(Options { crashes, ..Options::default() });
    let violations: Vec<_> = outcome.violations.iter().map(Violation::to_string).collect();
    assert!(violations.is_empty(), "with {crashes:?}: {violations:#?}");
    outcome
}

/// Each point at which each worker can die. A point is the moment before something happens anywhere in the world.
fn points(from: u64, happenings: u64) -> impl Iterator<Item = Crash> {
    (from..happenings).flat_map(|before| (0..WORKERS).map(move |worker| Crash { before, worker }))
}

#[test]
fn the_small_scenario_has_something_to_lose() {
    let calm = run_with(&[]);
    assert_eq!(calm.coverage.of("answer: notarised"), 2, "the transaction that is asked for twice");
    assert_eq!(calm.coverage.of("answer: conflict"), 2, "the one that spends, and the one that refers to, its state");
    assert_eq!(calm.coverage.of("broker: redelivered after a lost connection"), 0);
}

#[test]
fn the_small_scenario_keeps_every_promise_wherever_a_worker_dies() {
    let calm = run_with(&[]);
    let mut redelivered = 0;
    for crash in points(0, calm.happenings) {
        redelivered += run_with(&[crash]).coverage.of("broker: redelivered after a lost connection");
    }
    assert!(redelivered > calm.happenings / 2, "the crashes hit workers at work: {redelivered}");
}

#[test]
fn the_small_scenario_keeps_every_promise_wherever_workers_die_twice() {
    let calm = run_with(&[]);
    for first in points(0, calm.happenings) {
        // The second death may strike what happens only because of the first.
        let once = run_with(&[first]);
        points(first.before, once.happenings).for_each(|second| drop(run_with(&[first, second])));
    }
}
