//! The worker as a node among Corda nodes (row LB5): requests come over TLS to its own endpoint, answers go out on its own
//! connections to each node's broker. The nodes here are ours; real ones are in `tests/corda`.

#[path = "../material/mod.rs"]
mod material;
mod mixed;
mod on_tokens;
mod renewal;
mod rig;
#[path = "../rivals/mod.rs"]
mod rivals;
#[path = "../services/mod.rs"]
mod services;
#[path = "../worker/mod.rs"]
mod worker;

use std::time::Duration;

use notary_worker::client::judge::Answer;
use notary_worker::ports::request_queue::Settlement;
use notary_worker::wire::{self, ExistingPayload, SessionMessage};
use rig::{Network, PATIENCE};
use rivals::Rivals;

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// What a message of an answer is, with its deduplication id.
fn said(delivery: &notary_worker::ports::request_queue::Delivery) -> (&'static str, String) {
    let message = wire::decode_session_message(&delivery.body, &wire::Limits::DEFAULT).expect("a session message");
    let SessionMessage::Existing { payload, .. } = message else { panic!("a session start") };
    let kind = match payload {
        ExistingPayload::Confirm { .. } => "confirm",
        ExistingPayload::Data(_) => "data",
        ExistingPayload::End => "end",
        _ => "another",
    };
    (kind, delivery.dedup_id.clone().expect("every message has one"))
}

/// PROTOCOL b.5, c.2; LB5: the answer comes to the node's own broker, from the worker's certificate, and only then is the request
/// accepted.
#[test]
fn a_nodes_request_is_answered_at_the_nodes_own_broker() {
    let network = Network::create();
    runtime().block_on(async {
        let alice = network.node("alice");
        let worker = network.start(1);
        let (request, _) = alice.request();
        let sent = alice.send(&network, 1, request);
        for (expected, id) in [("confirm", "-0-0"), ("data", "-2-0"), ("end", "-3-0")] {
            let delivery = alice.next().await;
            assert_eq!(delivery.caller, network.worker_name(1));
            let (kind, dedup_id) = said(&delivery);
            assert!(kind == expected && dedup_id.ends_with(id), "{kind} {dedup_id}");
            assert!(!sent.is_finished(), "not accepted before all of the answer is");
            alice.settle(delivery, Settlement::Accept).await;
        }
        sent.await.expect("no panic").expect("accepted");
        assert!(worker.get("/metrics").1.contains("notary_bridges{state=\"up\"} 1"));
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// LB5: whoever does not take an answer gets it again, the same under the same ids.
#[test]
fn an_answer_that_is_given_back_comes_again_with_the_same_ids() {
    let network = Network::create();
    runtime().block_on(async {
        let alice = network.node("alice");
        let _worker = network.start(1);
        let (request, _) = alice.request();
        let sent = alice.send(&network, 1, request.clone());
        let confirm = alice.next().await;
        let first = said(&confirm);
        alice.settle(confirm, Settlement::Accept).await;
        let data = alice.next().await;
        alice.settle(data, Settlement::Release).await;
        sent.await.expect("no panic").expect_err("the request is given back");
        // As a bridge does; what is left of the first answer may come before.
        let sent = alice.send(&network, 1, request);
        let mut again = Vec::new();
        while again.last() != Some(&"end") || again.len() < 3 {
            let delivery = alice.next().await;
            let (kind, dedup_id) = said(&delivery);
            if kind == "confirm" {
                assert_eq!((kind, dedup_id), first);
                again.clear();
            }
            again.push(kind);
            alice.settle(delivery, Settlement::Accept).await;
        }
        assert_eq!(again, ["confirm", "data", "end"]);
        sent.await.expect("no panic").expect("accepted");
    });
}

/// F03, LB5: killed when its answer was out and the request not accepted yet, a worker leaves the request to another, whose
/// messages have the same ids: the node's broker drops them.
#[test]
fn another_worker_says_the_same_under_the_same_ids() {
    let network = Network::create();
    runtime().block_on(async {
        let alice = network.node("alice");
        let worker = network.start_with(1, |command| {
            command.env("NOTARY_FAULTS", "published=kill");
        });
        let (request, _) = alice.request();
        let sent = alice.send(&network, 1, request.clone());
        let mut first = Vec::new();
        for _ in 0..3 {
            let delivery = alice.next().await;
            first.push((said(&delivery), delivery.body.clone()));
            alice.settle(delivery, Settlement::Accept).await;
        }
        worker.wait();
        sent.abort();

        let _other = network.start(2);
        let sent = alice.send(&network, 2, request);
        for (said_first, body) in first {
            let delivery = alice.next().await;
            assert_eq!(delivery.caller, network.worker_name(2));
            assert!(said(&delivery) == said_first && delivery.body == body);
            alice.settle(delivery, Settlement::Accept).await;
        }
        sent.await.expect("no panic").expect("accepted");
    });
}

/// P7, LB5: a node whose own broker is away gets its answers when it is back; meanwhile its requests wait with it, and nobody
/// else's do.
#[test]
fn a_node_whose_broker_is_away_delays_nobody_and_is_answered_when_it_is_back() {
    let network = Network::create();
    runtime().block_on(async {
        let (alice, bob) = (network.node("alice"), network.node("bob"));
        alice.stop();
        let worker = network.start_with(1, |command| {
            // Long enough for a node on a laden machine to be connected with and to take an answer.
            command.args(["--set", "p2p.answer_hold_ms=3000"]);
        });
        let waiting: Vec<_> = (0..20).map(|_| alice.send(&network, 1, alice.request().0)).collect();
        for _ in 0..50 {
            let (request, tx_id) = bob.request();
            let sent = bob.send(&network, 1, request);
            assert!(matches!(bob.answer(tx_id).await, Answer::Notarised(_)));
            sent.await.expect("no panic").expect("accepted");
        }
        assert!(worker.get("/metrics").1.contains("notary_bridges{state=\"down\"} 1"));
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        alice.start();
        let (request, tx_id) = alice.request();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let sent = async {
            while alice.send(&network, 1, request.clone()).await.expect("no panic").is_err() {
                assert!(tokio::time::Instant::now() < deadline, "never answered");
            }
        };
        let answer = alice.answer(tx_id);
        let (answer, ()) = tokio::join!(answer, sent);
        assert!(matches!(answer, Answer::Notarised(_)));
        // Drained in time, although answers may still wait.
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// P1, P3, P6: killed again and again in the middle of rivals' requests, every request has its one answer.
#[test]
fn killed_among_rivals_every_request_of_every_node_is_answered_once_and_for_all() {
    let network = Network::create();
    let runtime = runtime();
    runtime.block_on(async {
        let cast = network.cast().await;
        let mut running = Some(network.start(1));
        let rivals = Rivals::new(&cast, 60, 2);
        let killing = async {
            for kill in [20, 60, 90] {
                rivals.answered(kill).await;
                running.take().expect("it runs").kill();
                running = Some(network.start(1));
            }
        };
        let (first, ()) = tokio::join!(rivals.ask(16), async {
            tokio::time::timeout(Duration::from_secs(300), killing).await.expect("requests go on after every kill");
        });
        rivals.judge(&first);
        assert_eq!(first.differences(&rivals.ask(16).await), 0, "every retry gets the same answer");
        cast.close().await;
        assert_eq!(running.take().expect("it runs").terminate().code(), Some(0));
    });
}
