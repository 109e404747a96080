//! Many seeds, each a world of its own; and the proof that the simulator sees what it is for.

use std::any::Any;
use std::collections::BTreeSet;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::thread;

use crate::bugs::Bug;
use crate::history::{Check, Expectations, check, from_json_lines, to_json_lines};
use crate::signer::ModelVerifier;
use crate::trace::{Coverage, Lines};
use crate::world::{Options, Outcome, run};

/// How many seeds each change must stand (FAULTS section 7).
const SEEDS: u64 = 10_000;
/// Where they begin. Fixed, so that a change is judged by itself and not by luck.
const FIRST: u64 = 1;
/// From so many seeds on, everything in [`MUST_HAPPEN`] is sure to happen.
const SEEDS_FOR_COVERAGE: u64 = 2_000;
/// How many seeds a planted bug may survive. Any change is tried with many more.
const SEEDS_FOR_BUG: u64 = 200;
/// How much of a failing run is shown.
const TAIL_LINES: usize = 80;

/// What a simulation worth its name reaches.
const MUST_HAPPEN: [&str; 49] = [
    "answer: confirmed",
    "answer: conflict",
    "answer: invalid",
    "answer: not now",
    "answer: notarised",
    "answer: outside the window",
    "batch: one request",
    "batch: several requests",
    "broker: duplicate",
    "broker: late settlement ignored",
    "broker: parked",
    "broker: redelivered after a lost connection",
    "broker: released",
    "broker: settlement lost",
    "client: asked again in a new session",
    "client: asked though it knew the answer",
    "key: slow",
    "key: unavailable",
    "key: wrong signature",
    "repeat: a reference was consumed since",
    "repeat: on record",
    "repeat: the window is over",
    "reply: broken off",
    "reply: unconfirmed",
    "signature: over one",
    "signature: over several",
    "signing: gave up",
    "signing: signature tried again",
    "store: a batch of several failed",
    "store: committed",
    "store: indigestible batch",
    "store: late batch took effect",
    "store: out of order",
    "store: slow",
    "store: unavailable",
    "store: unknown, batch applied",
    "store: unknown, batch late",
    "store: unknown, batch lost",
    "uniqueness: batch tried again",
    "uniqueness: gave up",
    "verdict: committed",
    "verdict: conflict",
    "verdict: conflict on references only",
    "verdict: conflict within the batch",
    "verdict: outside the window",
    "worker: clock set ahead",
    "worker: clock set back",
    "worker: crashed",
    "worker: frozen",
];

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = from_env("SIMULATION_SEED") {
        return replay(seed);
    }
    let first = from_env("SIMULATION_FIRST").unwrap_or(FIRST);
    let count = from_env("SIMULATION_SEEDS").unwrap_or(SEEDS);
    say(&format!("simulation: {count} seeds, the first is {first}"));

    let threads = thread::available_parallelism().map_or(1, usize::from) as u64;
    let (coverage, happenings, failed) = thread::scope(|scope| {
        let share = |thread| move || run_all((first + thread..first + count).step_by(threads as usize));
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(share(thread))).collect();
        let mut sum = (Coverage::default(), 0, BTreeSet::new());
        for thread in threads {
            let (coverage, happenings, failed) = thread.join().expect("panics of a run are caught in it");
            sum.0.add(&coverage);
            sum.1 += happenings;
            sum.2.extend(failed);
        }
        sum
    });

    if let Some(&seed) = failed.first() {
        tell_failure(seed);
        panic!("{} of {count} seeds fail, the first is {seed}", failed.len());
    }
    say(&format!("simulation: {count} seeds clean, {happenings} happenings"));
    for (what, times) in coverage.iter() {
        println!("{times:>10} {what}");
    }
    if count >= SEEDS_FOR_COVERAGE {
        let missed: Vec<_> = MUST_HAPPEN.into_iter().filter(|what| coverage.of(what) == 0).collect();
        assert!(missed.is_empty(), "never happened: {missed:?}");
    }
}

fn run_all(seeds: impl Iterator<Item = u64>) -> (Coverage, u64, BTreeSet<u64>) {
    let (mut coverage, mut happenings, mut failed) = (Coverage::default(), 0, BTreeSet::new());
    for seed in seeds {
        match run_caught(seed, Options::default()) {
            Ok(outcome) if outcome.violations.is_empty() => {
                coverage.add(&outcome.coverage);
                happenings += outcome.happenings;
            }
            _ => {
                failed.insert(seed);
            }
        }
    }
    (coverage, happenings, failed)
}

/// A run that panics is a run that fails, not the end of all runs.
fn run_caught(seed: u64, options: Options<'_>) -> Result<Outcome, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| run(seed, options)))
}

/// Runs one seed again and tells all of it; also with a planted bug, if `SIMULATION_BUG` names one.
fn replay(seed: u64) {
    let bug = std::env::var("SIMULATION_BUG").ok().map(|name| {
        let named = Bug::ALL.iter().map(|(bug, _)| *bug).find(|bug| format!("{bug:?}") == name);
        named.unwrap_or_else(|| panic!("no planted bug is called {name}"))
    });
    let verdict = tell(seed, bug, usize::MAX);
    assert!(verdict.is_empty(), "seed {seed} fails");
}

fn tell_failure(seed: u64) {
    let verdict = tell(seed, None, TAIL_LINES);
    say(&format!("seed {seed}: {} violations; replay it with", verdict.len()));
    say(&format!("    SIMULATION_SEED={seed} cargo test --test simulation every_seed"));
}

/// Tells the last lines of a run, and what was wrong with it.
fn tell(seed: u64, bug: Option<Bug>, lines_max: usize) -> Vec<String> {
    let lines = Lines::default();
    let outcome = run_caught(seed, Options { bug, lines: Some(lines.clone()), ..Options::default() });
    let lines = lines.borrow();
    lines.iter().skip(lines.len().saturating_sub(lines_max)).for_each(|line| say(line));
    let verdict = match outcome {
        Ok(outcome) => outcome.violations.iter().map(ToString::to_string).collect(),
        Err(_) => vec!["it panicked; the message stands further up".into()],
    };
    verdict.iter().for_each(|line| say(line));
    verdict
}

#[test]
fn a_seed_replays_exactly() {
    for seed in FIRST..FIRST + 40 {
        let (first_lines, second_lines) = (Lines::default(), Lines::default());
        let quiet = run(seed, Options::default());
        let first = run(seed, Options { lines: Some(first_lines.clone()), ..Options::default() });
        let second = run(seed, Options { lines: Some(second_lines.clone()), ..Options::default() });

        // Each run has hash maps with new random states: nothing may depend on their order.
        assert_eq!(first_lines, second_lines, "seed {seed}");
        assert_eq!(to_json_lines(&first.history), to_json_lines(&second.history), "seed {seed}");
        assert_eq!((first.digest, first.coverage), (second.digest, second.coverage), "seed {seed}");
        assert_eq!(quiet.digest, first.digest, "seed {seed}: being watched changes nothing");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let digests: BTreeSet<u64> = (FIRST..FIRST + 100).map(|seed| run(seed, Options::default()).digest).collect();
    assert_eq!(digests.len(), 100);
}

#[test]
fn a_simulated_history_is_judged_alike_after_its_export() {
    let strict = Expectations {
        store_watched: true,
        settlements_watched: true,
        requests_may_be_parked: false,
        close_within_ms: 60_000,
    };
    for seed in FIRST..FIRST + 40 {
        let history = run(seed, Options::default()).history;
        let again = from_json_lines(&to_json_lines(&history)).expect("what was written can be read");
        assert_eq!(again, history, "seed {seed}");
        assert_eq!(check(&again, &strict, &ModelVerifier), []);
    }
}

#[test]
fn every_planted_bug_is_caught_by_the_check_that_is_made_for_it() {
    let mut survivors = Vec::new();
    for (bug, made_for_it) in Bug::ALL {
        let caught = (FIRST..FIRST + SEEDS_FOR_BUG).find_map(|seed| {
            let outcome = run(seed, Options { bug: Some(bug), ..Options::default() });
            let checks: BTreeSet<Check> = outcome.violations.iter().map(|violation| violation.check).collect();
            checks.contains(&made_for_it).then_some((seed, checks))
        });
        match caught {
            Some((seed, checks)) => {
                let checks: Vec<_> = checks.iter().map(ToString::to_string).collect();
                say(&format!("planted bug {:<24} caught at seed {seed:>3}: {}", format!("{bug:?}"), checks.join(", ")));
            }
            None => survivors.push(bug),
        }
    }
    assert!(survivors.is_empty(), "{SEEDS_FOR_BUG} seeds do not catch {survivors:?}");
}

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {value}")))
}

/// Writes a line that the test harness does not hold back: a seed must be known even if the process is killed.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
