//! The embedded store under `kill -9`: a process of its own commits, tells what it was told, and is killed at a random moment.
//! Whatever it told must be there afterwards, to the letter.
//!
//! This proves process death. That power loss is survived is proven where writes and syncs can be told apart: in
//! `src/sql/embedded/tests.rs`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use notary_worker::domain::{CheckedRequest, Timestamp, Verdict};
use notary_worker::ports::UniquenessProvider;
use notary_worker::sql::Embedded;
use notary_worker::sql::embedded::{self, Options, Reader};
use suite::{Model, Random, at, party};

#[expect(unreachable_pub, reason = "a suite is written as if it were a library")]
#[allow(dead_code, unused_imports, reason = "only the suite's model and makers of requests are used here")]
#[path = "suites/uniqueness.rs"]
mod suite;

/// Tells a process that it is the one to be killed: the store's path, and the number of the batch to begin with.
const CHILD: &str = "NOTARY_TEST_CRASH_CHILD";
/// Kills of one store; each round is some tens of milliseconds.
const ROUNDS: u64 = 40;

/// The history that child and parent know by heart. Batch `n` is committed at the moment `n`, whoever commits it.
struct History {
    random: Random,
    batches: Vec<Vec<CheckedRequest>>,
}

impl History {
    fn new() -> Self {
        // Some of a few thousand requests conflict, most do not.
        Self { random: Random::over_states(5000, 4711), batches: Vec::new() }
    }

    fn batch(&mut self, n: usize) -> (&[CheckedRequest], Timestamp) {
        while self.batches.len() <= n {
            let requests = 1 + self.random.below(8);
            let batch = (0..requests).map(|_| self.random.request()).collect();
            self.batches.push(batch);
        }
        (&self.batches[n], at(n as i64 % 7))
    }
}

fn open(path: &Path) -> Embedded {
    Embedded::open(path, Options::new(party("Worker"))).expect("the store opens")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime")
}

/// Not a claim by itself: the process that the other tests start and kill. Without being told so it has nothing to do.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (from, path) = task.split_once(':').expect("number:path");
    let store = open(Path::new(path));
    let mut history = History::new();
    for n in from.parse().expect("a number").. {
        let (batch, now) = history.batch(n);
        let verdicts = runtime().block_on(store.commit(batch, now)).expect("the store is available");
        // To stderr, which is not buffered, in one piece: a kill leaves no half of a line.
        let line = format!("told {n} {}\n", initials(&verdicts));
        std::io::stderr().write_all(line.as_bytes()).expect("the parent reads until it kills");
    }
}

/// One letter a verdict.
fn initials(verdicts: &[Verdict]) -> String {
    verdicts.iter().map(|verdict| if matches!(verdict, Verdict::Committed(_)) { 'c' } else { 'r' }).collect()
}

fn start_child(path: &Path, from: usize) -> Child {
    Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "child_that_commits_until_it_is_killed", "--nocapture"])
        .env(CHILD, format!("{from}:{}", path.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test starts itself")
}

/// Reads what the child tells until it told `lines`, waits a little, kills it, and reads the rest.
fn kill_after(mut child: Child, lines: usize, wait: Duration) -> Vec<(usize, String)> {
    let mut said = BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok);
    let mut told: Vec<String> = said.by_ref().take(lines).collect();
    let since = Instant::now();
    while since.elapsed() < wait {
        std::hint::spin_loop(); // The moment of the kill is the experiment; a sleep has only coarse ones.
    }
    child.kill().expect("kill -9");
    child.wait().expect("the child is gone");
    told.extend(said);
    let parse = |line: &String| {
        let (n, verdicts) = line.strip_prefix("told ")?.split_once(' ')?;
        Some((n.parse().ok()?, verdicts.to_owned()))
    };
    told.iter().map(|line| parse(line).unwrap_or_else(|| panic!("the child failed: {}", told.join("\n")))).collect()
}

#[test]
fn kill_9_at_random_moments_loses_no_verdict() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    let (mut history, mut model, mut random) = (History::new(), Model::default(), Random::new(1));
    let mut expected: Vec<Vec<Verdict>> = Vec::new();
    let mut told_in_all = 0;
    for round in 0..ROUNDS {
        let child = start_child(&path, expected.len());
        let lines = random.below(30) as usize;
        let told = kill_after(child, lines, Duration::from_micros(random.below(4000)));
        told_in_all += told.len();
        for (n, verdicts) in &told {
            assert_eq!(*n, expected.len(), "round {round}");
            let (batch, now) = history.batch(*n);
            expected.push(batch.iter().map(|request| model.decide(request, now)).collect());
            assert_eq!(verdicts, &initials(&expected[*n]), "round {round}, batch {n}");
        }

        // An operator looks first: nothing is repaired for that.
        if path.exists() {
            let reader = Reader::open(&path).expect("a killed worker leaves a readable store");
            let known = (0..expected.len()).flat_map(|n| history.batch(n).0.to_vec());
            for request in known.collect::<Vec<_>>() {
                assert!(reader.transaction(&request.tx_id).expect("reads").is_some(), "round {round}: forgotten");
            }
            drop(reader);
            embedded::verify(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        }

        let store = open(&path);
        check_all(&store, &mut history, &expected, &format!("round {round}"));
        // The batch in flight is there or not; decided at its own moment it must come out the same.
        let n = expected.len();
        let (batch, now) = history.batch(n);
        expected.push(batch.iter().map(|request| model.decide(request, now)).collect());
        let verdicts = runtime().block_on(store.commit(batch, now)).expect("available");
        assert_eq!(verdicts, expected[n], "round {round}");
    }
    assert!(told_in_all > 100, "{told_in_all} batches were told: too few to mean anything");
    check_all(&open(&path), &mut history, &expected, "at the end");
}

/// Asks for every verdict again, in one batch, at another moment.
fn check_all(store: &Embedded, history: &mut History, expected: &[Vec<Verdict>], context: &str) {
    let again: Vec<CheckedRequest> = (0..expected.len()).flat_map(|n| history.batch(n).0.to_vec()).collect();
    let verdicts = runtime().block_on(store.commit(&again, at(1000))).expect("available");
    for ((request, verdict), expected) in again.iter().zip(&verdicts).zip(expected.iter().flatten()) {
        assert_eq!(verdict, expected, "{context}: an acknowledged verdict about {} changed", request.tx_id);
    }
}

#[test]
fn kill_9_while_a_store_is_made_leaves_none_or_a_whole_one() {
    let mut random = Random::new(2);
    let (mut none, mut whole) = (0, 0);
    for round in 0..30 {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("store");
        let child = start_child(&path, 0);
        // Watching for a file makes the moments fall into every part of the creation, on any machine.
        let milestone = dir.path().join(["store.lock", "store.new", "store"][round % 3]);
        let since = Instant::now();
        while !milestone.exists() && !path.exists() {
            assert!(since.elapsed() < Duration::from_secs(60), "the child does not begin");
            std::hint::spin_loop();
        }
        kill_after(child, 0, Duration::from_micros(random.below(3000)));

        match path.exists() {
            true => {
                embedded::verify(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
                whole += 1;
            }
            false => none += 1,
        }
        let store = open(&path);
        let (mut history, mut model) = (History::new(), Model::default());
        let (batch, now) = history.batch(0);
        let expected: Vec<Verdict> = batch.iter().map(|request| model.decide(request, now)).collect();
        assert_eq!(runtime().block_on(store.commit(batch, now)).expect("available"), expected, "round {round}");
    }
    assert!(none > 0 && whole > 0, "{none} kills before the store had its name, {whole} after: not worth their name");
}
