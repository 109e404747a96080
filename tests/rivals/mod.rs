//! Many requests at once of which several spend each coin, and a judge of the answers: every request is answered, one rival wins
//! each coin, the others are told exactly who, and a retry gets the same answer (promises P1, P3, P6).

#![allow(dead_code, unreachable_pub, reason = "each test file is a program of its own and uses a part of this")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use notary_worker::client::cast::{Actor, Cast};
use notary_worker::client::judge::Answer;
use notary_worker::client::ledger::WireTransaction;
use notary_worker::domain::notary_error::Consumption;
use notary_worker::domain::{NotaryError, StateRef, TxId};

/// What counts of an answer: a signature, which the client has verified, or exactly which conflict.
#[derive(Clone, PartialEq, Debug)]
pub enum Definite {
    Notarised,
    Conflict(Vec<Consumption>),
}

struct Request {
    actor: Arc<Actor>,
    transaction: WireTransaction,
}

/// The requests.
pub struct Rivals {
    requests: Arc<Vec<Request>>,
    coins: usize,
    /// Answers so far.
    pub answered: Arc<AtomicUsize>,
}

/// The answers, in the order of the requests.
#[derive(Clone, PartialEq, Debug)]
pub struct Answers {
    /// `None` where there was none in time.
    answers: Vec<Option<Definite>>,
    longest_wait: Duration,
}

impl Rivals {
    /// `coins` coins, each spent by `rivals` transactions of different parties, which come close together: they meet in batches and
    /// around faults.
    pub fn new(cast: &Cast, coins: usize, rivals: usize) -> Self {
        let parties = cast.parties();
        let states: Vec<StateRef> = (0..coins).map(|_| parties[0].fresh_state().expect("random")).collect();
        let requests = (0..coins * rivals).map(|number| {
            let actor = Arc::clone(&parties[number % parties.len()]);
            let transaction = actor.spend(&[states[number / rivals]]).expect("it can be made");
            Request { actor, transaction }
        });
        Self { requests: Arc::new(requests.collect()), coins, answered: Arc::default() }
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Asks for all of them, so many at a time.
    pub async fn ask(&self, in_flight: usize) -> Answers {
        let next = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| {
                let (requests, next, answered) =
                    (Arc::clone(&self.requests), Arc::clone(&next), Arc::clone(&self.answered));
                tokio::spawn(async move {
                    let mut answers = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some(request) = requests.get(number) else { return answers };
                        let since = Instant::now();
                        let answer = ask(request).await;
                        if answer.is_some() {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        answers.push((number, answer, since.elapsed()));
                    }
                })
            })
            .collect();
        let mut all = Answers { answers: vec![None; self.len()], longest_wait: Duration::ZERO };
        for task in tasks {
            for (number, answer, waited) in task.await.expect("no answer was wrong") {
                all.answers[number] = answer;
                all.longest_wait = all.longest_wait.max(waited);
            }
        }
        all
    }

    /// Waits until so many are answered.
    pub async fn answered(&self, count: usize) {
        while self.answered.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Who spent each coin, if all is as it must be.
    pub fn judge(&self, answers: &Answers) -> HashMap<StateRef, TxId> {
        assert_eq!(self.lost(answers), 0, "every request is answered");
        assert_eq!(self.doubled(answers), 0, "no coin is spent twice");
        let winners = self.winners(answers);
        assert_eq!(winners.len(), self.coins, "every coin was spent once");
        for (request, answer) in self.requests.iter().zip(&answers.answers) {
            if let Some(Definite::Conflict(consumed)) = answer {
                let coin = coin(request);
                let named: Vec<_> = consumed.iter().map(|c| (c.state, c.hashed_consumer)).collect();
                assert_eq!(named, [(coin, winners[&coin].hashed().expect("SHA-256"))]);
            }
        }
        winners
    }

    /// How many requests have no answer.
    pub fn lost(&self, answers: &Answers) -> usize {
        answers.answers.iter().filter(|answer| answer.is_none()).count()
    }

    /// How many coins were spent more than once.
    pub fn doubled(&self, answers: &Answers) -> usize {
        let notarised = self.requests.iter().zip(&answers.answers).filter(|(_, a)| **a == Some(Definite::Notarised));
        notarised.count() - self.winners(answers).len()
    }

    fn winners(&self, answers: &Answers) -> HashMap<StateRef, TxId> {
        let notarised = self.requests.iter().zip(&answers.answers).filter(|(_, a)| **a == Some(Definite::Notarised));
        notarised.map(|(request, _)| (coin(request), request.transaction.id())).collect()
    }
}

impl Answers {
    /// How long the most patient request waited.
    pub fn longest_wait(&self) -> Duration {
        self.longest_wait
    }

    /// How many requests got another answer the second time.
    pub fn differences(&self, again: &Self) -> usize {
        self.answers.iter().zip(&again.answers).filter(|(first, again)| first != again).count()
    }
}

fn coin(request: &Request) -> StateRef {
    request.transaction.draft().inputs[0]
}

async fn ask(request: &Request) -> Option<Definite> {
    // The client verifies the signature, and sends again whatever breaks.
    match request.actor.notarise(&request.transaction).await {
        Ok(Answer::Notarised(_)) => Some(Definite::Notarised),
        Ok(Answer::Refused { error: NotaryError::Conflict { consumed, .. }, .. }) => Some(Definite::Conflict(consumed)),
        Err(notary_worker::client::session::AskError::OutOfPatience(_)) => None,
        other => panic!("{}: {other:?}", request.transaction.id()),
    }
}
