//! Requests of the network's parties, and what was answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use notary_worker::client::cast::{Actor, Cast};
use notary_worker::client::judge::Answer;
use notary_worker::client::ledger::WireTransaction;
use notary_worker::domain::NotaryError;
use notary_worker::domain::notary_error::Consumption;
use tokio::runtime::Runtime;

use super::worker::Network;

/// What counts of an answer: a signature that the client verified, or exactly which conflict.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Definite {
    Notarised,
    Conflict(Vec<Consumption>),
}

pub(super) struct Request {
    pub(super) actor: Arc<Actor>,
    pub(super) transaction: WireTransaction,
}

impl Request {
    /// Asks until there is an answer; the client sends again whatever breaks.
    pub(super) async fn ask(&self) -> Definite {
        match self.actor.notarise(&self.transaction).await {
            Ok(Answer::Notarised(_)) => Definite::Notarised,
            Ok(Answer::Refused { error: NotaryError::Conflict { consumed, .. }, .. }) => Definite::Conflict(consumed),
            other => panic!("{}: {other:?}", self.transaction.id()),
        }
    }
}

pub(super) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

pub(super) async fn cast(network: &Network) -> Cast {
    Cast::connect(&network.dir(), network.address).await.expect("the parties connect")
}

/// `coins` coins, each spent by `rivals` transactions of different parties.
pub(super) fn requests(cast: &Cast, coins: usize, rivals: usize) -> Arc<Vec<Request>> {
    let parties = cast.parties();
    let coins: Vec<_> = (0..coins).map(|_| parties[0].fresh_state().expect("random")).collect();
    let requests = (0..coins.len() * rivals).map(|number| {
        let actor = Arc::clone(&parties[number % parties.len()]);
        let transaction = actor.spend(&[coins[number / rivals]]).expect("it can be made");
        Request { actor, transaction }
    });
    Arc::new(requests.collect())
}

/// Asks for all of them, `at_once` at a time; `answered` counts.
pub(super) async fn ask_all(
    requests: &Arc<Vec<Request>>,
    at_once: usize,
    answered: &Arc<AtomicUsize>,
) -> Vec<Definite> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (requests, next, answered) = (Arc::clone(requests), Arc::clone(&next), Arc::clone(answered));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(request) = requests.get(number) else { return answers };
                    answers.push((number, request.ask().await));
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
