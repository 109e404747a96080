//! What a service must do on whatever broker, store and key it runs: the scenes of the demo, bad messages parked with a reason, and no
//! request lost, answered twice or answered differently when a part of it is killed under load.

#![allow(dead_code, unreachable_pub, reason = "each test file is a program of its own and uses a part of this")]

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use notary_worker::client::cast::Cast;
use notary_worker::client::scenes;
use serde_json::Value;

use crate::rivals::Rivals;
use crate::stack::Stack;
use crate::worker::Worker;

/// How long a request may take, faults included: the broker alone is away for up to half a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// For each fault: coins, each spent by so many rivals, and requests under way at once.
const COINS: usize = 60;
const RIVALS: usize = 2;
const IN_FLIGHT: usize = 24;
/// The fault comes after so many answers.
const ANSWERS_BEFORE: usize = 20;
/// Larger than any message a worker takes (10 MiB).
const OVERSIZED_BYTES: usize = 10 * 1024 * 1024 + 1;
/// A message with these words makes the workers panic, while they are started so.
const POISON: &str = "poison for a notary";

/// One line of the table.
struct Row {
    fault: &'static str,
    requests: usize,
    lost: usize,
    doubled: usize,
    changed: usize,
    longest_wait: Duration,
    /// How long a worker took to see it and say so on `/ready`.
    unready_after: Option<Duration>,
}

/// Everything, in order, on one stack.
pub fn run(mut stack: Stack, said: &str) {
    assert!(said.contains("the worker can serve like this"), "doctor finds no fault:\n{said}");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut workers = Workers { pool: [1, 2].map(|number| Some(stack.start_worker(number))) };
    let cast = runtime.block_on(stack.cast(PATIENCE));

    runtime.block_on(play(&cast));
    runtime.block_on(bad_messages_are_parked(&cast, &stack));
    drop(workers);
    poison_is_parked(&runtime, &cast, &stack);

    workers = Workers { pool: [1, 2].map(|number| Some(stack.start_worker(number))) };
    let faults: [(&'static str, Fault); 4] = [
        ("a worker killed", |stack, workers| {
            workers.pool[0].take().expect("it runs").kill();
            workers.pool[0] = Some(stack.start_worker(1));
            None
        }),
        ("the broker killed", |stack, workers| {
            stack.broker.kill();
            let seen = workers.not_ready("broker");
            stack.broker.restart();
            Some(seen)
        }),
        ("the database killed", |stack, workers| {
            stack.database.kill();
            let seen = workers.not_ready("store");
            stack.database.start_again();
            Some(seen)
        }),
        ("the token removed", |stack, workers| {
            stack.hsm.take_away(crate::stack::TOKEN);
            let seen = workers.not_ready("key");
            stack.hsm.put_back(crate::stack::TOKEN);
            Some(seen)
        }),
    ];
    let mut rows = Vec::new();
    for (name, fault) in faults {
        rows.push(under(&runtime, &cast, &mut stack, &mut workers, name, fault));
    }
    let columns = ["fault", "requests", "lost", "doubled", "changed", "longest wait", "not ready after"];
    let [fault, requests, lost, doubled, changed, wait, unready] = columns;
    println!("{fault:<20} {requests:>8} {lost:>5} {doubled:>8} {changed:>8} {wait:>13} {unready:>16}");
    for Row { fault, requests, lost, doubled, changed, longest_wait, unready_after } in &rows {
        let wait = format!("{:.1} s", longest_wait.as_secs_f64());
        let unready = unready_after.map_or("-".to_owned(), |after| format!("{:.1} s", after.as_secs_f64()));
        println!("{fault:<20} {requests:>8} {lost:>5} {doubled:>8} {changed:>8} {wait:>13} {unready:>16}");
    }
    for Row { fault, lost, doubled, changed, .. } in rows {
        assert_eq!((lost, doubled, changed), (0, 0, 0), "{fault}");
    }
    runtime.block_on(cast.close());
    for worker in workers.pool.into_iter().flatten() {
        assert_eq!(worker.terminate().code(), Some(0), "SIGTERM ends a worker with 0");
    }
}

/// Breaks something and heals it; tells how long a worker took to notice.
type Fault = fn(&mut Stack, &mut Workers) -> Option<Duration>;

struct Workers {
    pool: [Option<Worker>; 2],
}

impl Workers {
    /// Waits until the second worker says that it is not ready, for want of this part. Returns how long that took.
    fn not_ready(&self, part: &str) -> Duration {
        let since = Instant::now();
        self.second(|status, report| {
            status == 503 && report["parts"].as_array().is_some_and(|parts| lost(parts, part))
        });
        since.elapsed()
    }

    /// Waits until the second worker is ready.
    fn ready(&self) {
        self.second(|status, report| status == 200 && report["ready"] == true);
    }

    fn second(&self, says: impl Fn(u16, &Value) -> bool) {
        let worker = self.pool[1].as_ref().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, body) = worker.get("/ready");
            let report = serde_json::from_str(&body).expect("JSON");
            if says(status, &report) {
                return;
            }
            assert!(Instant::now() < deadline, "{status}: {body}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn lost(parts: &[Value], part: &str) -> bool {
    parts.iter().any(|state| state["part"] == part && state["works"] == false && state["why"].is_string())
}

async fn play(cast: &Cast) {
    let scenes = scenes::play(cast).await.expect("the scenes can be played");
    let wrong: Vec<_> = scenes.iter().filter(|scene| !scene.right).map(|scene| scene.row().join(" | ")).collect();
    assert!(wrong.is_empty(), "wrong answers: {wrong:#?}");
    assert!(scenes.len() > 12, "all scenes were played");
}

/// Garbage and an oversized message are parked with the reason, and cost their neighbours nothing.
async fn bad_messages_are_parked(cast: &Cast, stack: &Stack) {
    let mallory = &cast.parties()[2];
    mallory.post(scenes::GARBAGE.to_vec()).await.expect("the broker takes it");
    mallory.post(vec![b'x'; OVERSIZED_BYTES]).await.expect("the broker takes it");
    let rivals = Rivals::new(cast, 10, RIVALS);
    rivals.judge(&rivals.ask(IN_FLIGHT).await);

    let parked = parked(stack, 2).await;
    let reason = |bytes: usize| {
        let found = parked.iter().find(|letter| letter.bytes == bytes);
        found.unwrap_or_else(|| panic!("{bytes} bytes are not parked: {parked:?}")).reason.clone()
    };
    assert!(reason(scenes::GARBAGE.len()).contains("not a session message"), "{parked:?}");
    let oversized = reason(OVERSIZED_BYTES);
    assert!(oversized.contains("long") || oversized.contains("more than"), "{parked:?}");
}

/// Waits until so many messages are parked, and takes them.
async fn parked(stack: &Stack, count: usize) -> Vec<crate::stack::Letter> {
    let mut letters = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while letters.len() < count {
        assert!(Instant::now() < deadline, "only {letters:?} are parked");
        letters.extend(stack.take_parked().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    letters
}

/// A message that makes every worker panic is parked with the reason; the workers are started again as a supervisor does, and what
/// was sent with it is answered.
fn poison_is_parked(runtime: &tokio::runtime::Runtime, cast: &Cast, stack: &Stack) {
    // Not waited for: the poison may end a worker before it says that it serves.
    let start = |number| {
        let mut command = stack.worker_command(number);
        command.env("NOTARY_FAULTS", format!("inspect=panic:{POISON}")).stdout(Stdio::null());
        Supervised(command.spawn().expect("the worker starts"))
    };
    let mut pool = [1, 2].map(|number| (number, start(number)));
    let rivals = Rivals::new(cast, 10, RIVALS);
    let letters = runtime.block_on(async {
        cast.parties()[2].post(POISON.as_bytes().to_vec()).await.expect("the broker takes it");
        let supervising = async {
            loop {
                for (number, worker) in &mut pool {
                    if let Some(status) = worker.0.try_wait().expect("it can be asked") {
                        assert_eq!(status.code(), Some(4), "a panic ends with the documented code");
                        *worker = start(*number);
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let judged = async {
            let (letters, answers) = tokio::join!(parked(stack, 1), rivals.ask(IN_FLIGHT));
            rivals.judge(&answers);
            letters
        };
        tokio::select! {
            () = supervising => unreachable!("it goes on for ever"),
            letters = judged => letters,
        }
    });
    assert_eq!(letters[0].bytes, POISON.len());
    assert!(letters[0].reason.contains("panic 3 times"), "{letters:?}");
}

/// A worker that is started again when it ends; killed when dropped.
struct Supervised(Child);

impl Drop for Supervised {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks under load while `fault` happens and heals; then asks again, to see whether all answers stand.
fn under(
    runtime: &tokio::runtime::Runtime,
    cast: &Cast,
    stack: &mut Stack,
    workers: &mut Workers,
    name: &'static str,
    fault: Fault,
) -> Row {
    let rivals = Rivals::new(cast, COINS, RIVALS);
    let (first, again, unready_after) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| runtime.block_on(rivals.ask(IN_FLIGHT)));
        runtime.block_on(rivals.answered(ANSWERS_BEFORE));
        let unready_after = fault(stack, workers);
        let first = asking.join().expect("no answer was wrong");
        workers.ready();
        (first, runtime.block_on(rivals.ask(IN_FLIGHT)), unready_after)
    });
    if rivals.lost(&first) == 0 && rivals.doubled(&first) == 0 {
        rivals.judge(&first);
    }
    Row {
        fault: name,
        requests: rivals.len(),
        lost: rivals.lost(&first),
        doubled: rivals.doubled(&first),
        changed: first.differences(&again),
        longest_wait: first.longest_wait(),
        unready_after,
    }
}
