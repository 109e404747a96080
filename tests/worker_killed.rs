//! kill -9 in the middle of 5,000 requests (promises P1, P2, P3, P6; row LB5): every request is answered, nothing is lost, nothing
//! is spent twice, and every retry gets the same answer.

mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use notary_worker::client::cast::{Actor, Cast};
use notary_worker::client::judge::Answer;
use notary_worker::client::ledger::WireTransaction;
use notary_worker::domain::notary_error::Consumption;
use notary_worker::domain::{NotaryError, StateRef, TxId};
use notary_worker::sql::embedded::{LoggedOutcome, Reader, verify};

/// Requests in all.
const REQUESTS: usize = 5_000;
/// Each coin is spent by so many transactions, of which one must win.
const RIVALS: usize = 2;
/// Requests under way at once.
const IN_FLIGHT: usize = 96;
/// The worker is killed after so many answers, each time.
const KILLS: [usize; 4] = [400, 1_500, 2_600, 4_200];

/// What counts of an answer: a signature, or exactly which conflict.
#[derive(Clone, PartialEq, Debug)]
enum Definite {
    Notarised,
    Conflict(Vec<Consumption>),
}

struct Request {
    actor: Arc<Actor>,
    transaction: WireTransaction,
}

async fn ask(request: &Request) -> Definite {
    // The client verifies the signature, and sends again whatever breaks.
    match request.actor.notarise(&request.transaction).await {
        Ok(Answer::Notarised(_)) => Definite::Notarised,
        Ok(Answer::Refused { error: NotaryError::Conflict { consumed, .. }, .. }) => Definite::Conflict(consumed),
        other => panic!("{}: {other:?}", request.transaction.id()),
    }
}

/// Asks for all of them, `IN_FLIGHT` at a time; `answered` counts.
async fn ask_all(requests: &Arc<Vec<Request>>, answered: &Arc<AtomicUsize>) -> Vec<Definite> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (requests, next, answered) = (Arc::clone(requests), Arc::clone(&next), Arc::clone(answered));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(number) else { return answers };
                    answers.push((number, ask(request).await));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut all = vec![None; requests.len()];
    for task in tasks {
        for (number, answer) in task.await.expect("no answer was wrong") {
            all[number] = Some(answer);
        }
    }
    all.into_iter().map(|answer| answer.expect("every request is answered")).collect()
}

#[test]
fn killed_in_the_middle_of_5000_requests_nothing_is_lost_or_spent_twice() {
    let network = worker::Network::init(&[]);
    let mut running = Some(network.start());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");

    let (requests, first) = runtime.block_on(async {
        let cast = Cast::connect(&network.dir(), network.address).await.expect("the parties connect");
        let parties = cast.parties();
        let coins: Vec<StateRef> = (0..REQUESTS / RIVALS).map(|_| parties[0].fresh_state().expect("random")).collect();
        let requests = (0..REQUESTS).map(|number| {
            let actor = Arc::clone(&parties[number % parties.len()]);
            // A coin's rivals come close together, so that they meet in batches and around kills.
            let transaction = actor.spend(&[coins[number / RIVALS]]).expect("it can be made");
            Request { actor, transaction }
        });
        let requests: Arc<Vec<Request>> = Arc::new(requests.collect());
        let answered = Arc::new(AtomicUsize::new(0));

        let asking = {
            let (requests, answered) = (Arc::clone(&requests), Arc::clone(&answered));
            tokio::spawn(async move { ask_all(&requests, &answered).await })
        };
        for kill in KILLS {
            while answered.load(Ordering::Relaxed) < kill {
                assert!(!asking.is_finished(), "the requests ended before kill {kill}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            running.take().expect("it runs").kill();
            running = Some(network.start());
        }
        let first = asking.await.expect("every answer was right");

        // Every retry gets the same answer.
        let again = ask_all(&requests, &Arc::new(AtomicUsize::new(0))).await;
        for (number, (first, again)) in first.iter().zip(&again).enumerate() {
            assert_eq!(first, again, "request {number} got another answer");
        }
        cast.close().await;
        (requests, first)
    });

    // One winner for each coin; its rivals were told exactly who.
    let mut winners: HashMap<StateRef, TxId> = HashMap::new();
    for (request, answer) in requests.iter().zip(&first) {
        if *answer == Definite::Notarised {
            let coin = request.transaction.draft().inputs[0];
            assert_eq!(winners.insert(coin, request.transaction.id()), None, "{coin} was spent twice");
        }
    }
    assert_eq!(winners.len(), REQUESTS / RIVALS, "every coin was spent once");
    for (request, answer) in requests.iter().zip(&first) {
        if let Definite::Conflict(consumed) = answer {
            let coin = request.transaction.draft().inputs[0];
            let named: Vec<_> = consumed.iter().map(|c| (c.state, c.hashed_consumer)).collect();
            assert_eq!(named, [(coin, winners[&coin].hashed().expect("SHA-256"))]);
        }
    }

    // What the store holds is what was answered.
    assert!(running.take().expect("it runs").terminate().success(), "SIGTERM ends the worker with 0");
    let figures = verify(network.store()).expect("the store is sound");
    assert_eq!((figures.committed, figures.states), (winners.len() as u64, winners.len() as u64));
    let reader = Reader::open(network.store()).expect("the store opens");
    for (coin, winner) in &winners {
        let consumer = reader.consumer(coin).expect("it reads").expect("the coin is spent");
        assert_eq!((consumer.tx_id, consumer.outcome), (*winner, LoggedOutcome::Committed));
    }
}
