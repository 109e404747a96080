//! How a worker serves its health, and how it stops (rows MO2, UP2, WK2; fault F06).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use notary_worker::sql::embedded::verify;
use serde_json::Value;

use super::load::{Definite, ask_all, cast, requests, runtime};
use super::until;
use super::worker::{Network, Worker};

/// F06's limit.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

fn ready(running: &Worker) -> (u16, Value) {
    let (status, body) = running.get("/ready");
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// Deliveries in the worker, from its figures.
fn depth(running: &Worker) -> usize {
    let (_, figures) = running.get("/metrics");
    let line = figures.lines().find_map(|line| line.strip_prefix("notary_stage_depth{stage=\"flow\"} "));
    line.and_then(|depth| depth.parse().ok()).expect("a figure")
}

#[test]
fn live_ready_and_figures_are_served_and_ready_names_every_part() {
    let network = Network::init(&[]);
    let running = network.start();
    assert_eq!(running.get("/live"), (200, "live\n".to_owned()));
    let (status, report) = ready(&running);
    assert_eq!((status, &report["ready"], &report["draining"]), (200, &true.into(), &false.into()));
    let parts: Vec<_> = report["parts"].as_array().expect("parts").iter().map(|part| &part["part"]).collect();
    assert_eq!(parts, ["store", "broker", "key"]);
    let (status, figures) = running.get("/metrics");
    assert_eq!(status, 200);
    for part in ["store", "broker", "key"] {
        assert!(figures.contains(&format!("notary_part_works{{part=\"{part}\"}} 1")), "{part}\n{figures}");
    }
    assert_eq!(running.get("/elsewhere").0, 404);
    assert!(running.terminate().success());
}

#[test]
fn a_signal_under_load_ends_the_worker_with_0_in_time_and_no_request_is_lost() {
    for signal in ["TERM", "INT"] {
        let network = Network::init(&[]);
        let running = network.start();
        let requests = runtime().block_on(async {
            let cast = cast(&network).await;
            let requests = requests(&cast, 600, 1);
            let answered = Arc::new(AtomicUsize::new(0));
            let asking = {
                let (requests, answered) = (Arc::clone(&requests), Arc::clone(&answered));
                tokio::spawn(async move { ask_all(&requests, 64, &answered).await })
            };
            let (running, took) = tokio::task::spawn_blocking({
                let answered = Arc::clone(&answered);
                move || {
                    until("a third of the answers", || answered.load(Ordering::Relaxed) >= 200);
                    let since = Instant::now();
                    running.signal(signal);
                    (running.wait(), since.elapsed())
                }
            })
            .await
            .expect("it ends");
            assert_eq!(running.code(), Some(0), "SIG{signal}");
            assert!(took < STOPS_WITHIN, "SIG{signal}: {took:?}");
            assert!(answered.load(Ordering::Relaxed) < requests.len(), "it stopped under load");
            // The next worker serves what is left: nobody has to do anything but wait.
            let next = network.start();
            let answers = asking.await.expect("every answer was right");
            assert!(answers.iter().all(|answer| *answer == Definite::Notarised));
            cast.close().await;
            assert!(next.terminate().success());
            requests
        });
        assert_eq!(verify(network.store()).expect("sound").committed, requests.len() as u64, "each was spent once");
    }
}

#[test]
fn a_draining_worker_is_not_ready_and_answers_what_it_has() {
    let network = Network::init(&["worker.drain_ms_max=60000"]);
    let running = network.start_with(|command| {
        command.env("NOTARY_FAULTS", "before_publish=delay:3000");
    });
    runtime().block_on(async {
        let cast = cast(&network).await;
        let requests = requests(&cast, 1, 1);
        let asking = tokio::spawn(async move { requests[0].ask().await });
        let ended = tokio::task::spawn_blocking(move || {
            until("the request is in the worker", || depth(&running) == 1);
            running.signal("TERM");
            // It still answers for itself, and says what it does.
            until("it drains", || {
                let (status, report) = ready(&running);
                (status, &report["draining"]) == (503, &true.into())
            });
            running.wait()
        });
        assert_eq!(ended.await.expect("it ends").code(), Some(0));
        assert_eq!(asking.await.expect("answered"), Definite::Notarised);
        cast.close().await;
    });
}

#[test]
fn what_does_not_finish_within_the_drain_limit_stays_with_its_sender() {
    let network = Network::init(&["worker.drain_ms_max=200"]);
    let running = network.start_with(|command| {
        command.env("NOTARY_FAULTS", "before_publish=delay:600000");
    });
    runtime().block_on(async {
        let cast = cast(&network).await;
        let requests = requests(&cast, 1, 1);
        let asking = tokio::spawn(async move { requests[0].ask().await });
        let stopping = tokio::task::spawn_blocking(move || {
            until("the request is in the worker", || depth(&running) == 1);
            let since = Instant::now();
            let ended = running.terminate();
            (ended, since.elapsed())
        });
        let (ended, took) = stopping.await.expect("it ends");
        assert_eq!(ended.code(), Some(0));
        assert!(took < STOPS_WITHIN, "{took:?}");
        let next = network.start();
        assert_eq!(asking.await.expect("answered by the next one"), Definite::Notarised);
        cast.close().await;
        assert!(next.terminate().success());
    });
}

#[test]
fn a_worker_whose_output_nobody_reads_any_more_drains_all_the_same() {
    let network = Network::init(&["observe.log=error"]);
    let mut child = network.command().stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut output = child.stdout.take().expect("piped");
    let mut first = [0];
    std::io::Read::read_exact(&mut output, &mut first).expect("it serves");
    drop(output);
    super::worker::signal(child.id(), "TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_worker_that_still_waits_for_a_secret_can_be_stopped() {
    let network = Network::init(&["observe.log=error"]);
    let pipe = network.dir().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let mut command = network.command();
    command.args(["--set", &format!("signing.passphrase=exec:cat {}", pipe.display())]);
    let child = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    // Opens once the command reads: the worker waits for it now.
    let secret = std::fs::OpenOptions::new().write(true).open(&pipe).expect("somebody reads");
    super::worker::signal(child.id(), "TERM");
    let output = child.wait_with_output().expect("it ends");
    drop(secret);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(super::stdout(&output), "stopped before it served\n");
}
