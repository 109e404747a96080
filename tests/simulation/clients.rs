//! Model clients: they ask until they get a definite answer, in ever new sessions, and ask again to see whether it stays. And the
//! messages that go to and fro, in a form of their own: what Corda's bytes look like is for other tests.

use notary_worker::domain::merkle_batch::TransactionSignature;
use notary_worker::domain::{NotaryError, TxId};
use notary_worker::stages::session::{Answer, Inspection, Session};

use crate::history::{self, Asks, Event};
use crate::scenario::{Noise, Scenario, Transaction};
use crate::signer;
use crate::world::{Happening, World};

/// The longest that a client waits before it asks again: well below the time in which everything must be answered.
const PATIENCE_MS_MAX: u64 = 30_000;

/// What a message is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A session start that carries its request.
    Request,
    /// A session start whose request follows once it is confirmed.
    Start,
    /// The request that follows.
    Payload,
    /// The end of a session.
    End,
    /// Nothing anybody understands.
    Garbage,
}

const KINDS: [Kind; 4] = [Kind::Request, Kind::Start, Kind::Payload, Kind::End];

/// A message as the broker carries it: kind, exchange, transaction.
pub(crate) fn encode(kind: Kind, exchange: u64, tx: usize) -> Vec<u8> {
    let tag = KINDS.iter().position(|known| *known == kind).unwrap_or(KINDS.len()) as u8;
    let mut body = vec![tag];
    body.extend(exchange.to_be_bytes());
    body.extend((tx as u32).to_be_bytes());
    body
}

/// Reads and checks a message, as `session::inspect` does with real ones. `not_now` is a worker that lacks the network's
/// parameters.
pub(crate) fn inspect(body: &[u8], transactions: &[Transaction], not_now: bool) -> Inspection {
    let unreadable = || Inspection::Unreadable { reason: "not a session message".into() };
    let Some((&[tag], rest)) = body.split_first_chunk() else { return unreadable() };
    let Some((exchange, tx)) = rest.split_first_chunk() else { return unreadable() };
    let (Some(kind), Ok(tx)) = (KINDS.get(usize::from(tag)), <[u8; 4]>::try_from(tx)) else { return unreadable() };
    let session = Session { peer_id: i64::from_be_bytes(*exchange), entropy: 0, confirm: *kind != Kind::Payload };
    let Some(transaction) = transactions.get(u32::from_be_bytes(tx) as usize) else { return unreadable() };
    let tx_id = Some(transaction.request.tx_id);
    match kind {
        Kind::End | Kind::Garbage => Inspection::Nothing,
        Kind::Start => Inspection::Answer(Answer::Confirmed { session }),
        Kind::Request | Kind::Payload if not_now => {
            let cause = notary_worker::domain::notary_error::Cause {
                class: notary_worker::domain::notary_error::Cause::EXCEPTION,
                message: "the network parameters are not known yet".into(),
            };
            Inspection::Answer(Answer::Refused { session, tx_id, error: NotaryError::General(cause) })
        }
        Kind::Request | Kind::Payload if !transaction.told.valid => {
            let error = NotaryError::invalid("this request was made not to pass");
            Inspection::Answer(Answer::Refused { session, tx_id, error })
        }
        Kind::Request | Kind::Payload => Inspection::Request { session, request: transaction.request.clone() },
    }
}

/// One session message of an answer.
#[derive(Clone)]
pub(crate) enum Part {
    Confirm,
    Wait,
    Data(TxId, TransactionSignature),
    End,
    Error(Option<TxId>, NotaryError),
}

/// The messages of an answer and the exchange they belong to, as `session::encode` lays them out.
pub(crate) fn parts(answer: &Answer) -> (u64, Vec<Part>) {
    let (session, rest) = match answer {
        Answer::Confirmed { session } => (session, vec![]),
        Answer::Wait { session, .. } => (session, vec![Part::Wait]),
        Answer::Notarised { session, tx_id, signature } => {
            (session, vec![Part::Data(*tx_id, signature.clone()), Part::End])
        }
        Answer::Refused { session, tx_id, error } => (session, vec![Part::Error(*tx_id, error.clone())]),
        Answer::Undecodable { .. } | Answer::NoSuchFlow { .. } => unreachable!("the model's messages never lead to it"),
    };
    let mut parts = Vec::with_capacity(3);
    if session.confirm {
        parts.push(Part::Confirm);
    }
    parts.extend(rest);
    (session.peer_id as u64, parts)
}

/// One message and what came back for it. A repeated part changes nothing, as if its deduplication id were known.
pub(crate) struct Exchange {
    pub(crate) kind: Kind,
    pub(crate) tx: usize,
    pub(crate) client: usize,
    goal: Option<usize>,
    confirmed: bool,
    data: bool,
    end: bool,
    error: Option<NotaryError>,
    complete: bool,
}

impl Exchange {
    fn is_whole(&self) -> bool {
        let answered = (self.data && self.end) || self.error.is_some();
        match self.kind {
            Kind::Request => self.confirmed && answered,
            Kind::Start => self.confirmed,
            Kind::Payload => answered,
            Kind::End | Kind::Garbage => false,
        }
    }
}

/// How far a client is with a goal.
pub(crate) struct Progress {
    /// Counts its attempts; a time-out of an earlier one means nothing.
    attempt: u64,
    reached: bool,
    repeats_left: u32,
}

/// All clients.
pub(crate) struct Clients {
    exchanges: Vec<Exchange>,
    goals: Vec<Progress>,
}

impl Clients {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let goals = scenario.goals.iter();
        let goals = goals.map(|goal| Progress { attempt: 0, reached: false, repeats_left: goal.repeats }).collect();
        Self { exchanges: Vec::new(), goals }
    }

    pub(crate) fn exchange(&self, exchange: u64) -> &Exchange {
        &self.exchanges[exchange as usize]
    }

    /// The first exchange about a transaction.
    pub(crate) fn first_about(&self, tx: usize) -> u64 {
        let asks = |exchange: &Exchange| exchange.tx == tx && matches!(exchange.kind, Kind::Request | Kind::Payload);
        self.exchanges.iter().position(asks).unwrap_or_default() as u64
    }
}

impl World {
    /// A client asks, in a new session.
    pub(crate) fn ask(&mut self, goal: usize) {
        let wish = self.scenario.goals[goal];
        let progress = &mut self.clients.goals[goal];
        progress.reached = false;
        progress.attempt += 1;
        let attempt = progress.attempt;
        let kind = if self.rng.chance(100) { Kind::Start } else { Kind::Request };
        self.open_exchange(kind, wish.tx, wish.client, Some(goal));
        // Patience grows with each attempt and with the backlog, of which a notary may tell (`WaitTimeUpdate`): a slow one must
        // not be drowned in repeats.
        let patience_ms = (self.rng.between(300, 600) << attempt.min(4)) * (1 + self.backlog());
        let patience_ms = patience_ms.min(PATIENCE_MS_MAX);
        self.later(patience_ms, Happening::LostPatience { goal, attempt });
    }

    pub(crate) fn lost_patience(&mut self, goal: usize, attempt: u64) {
        let progress = &self.clients.goals[goal];
        if !progress.reached && progress.attempt == attempt {
            self.coverage.hit("client: asked again in a new session");
            self.ask(goal);
        }
    }

    pub(crate) fn make_noise(&mut self, noise: Noise) {
        let kind = match noise {
            Noise::Garbage => Kind::Garbage,
            Noise::SessionEnd => Kind::End,
        };
        self.open_exchange(kind, 0, 0, None);
    }

    fn open_exchange(&mut self, kind: Kind, tx: usize, client: usize, goal: Option<usize>) {
        let exchange = self.clients.exchanges.len() as u64;
        self.clients.exchanges.push(Exchange {
            kind,
            tx,
            client,
            goal,
            confirmed: false,
            data: false,
            end: false,
            error: None,
            complete: false,
        });
        let asks = match kind {
            Kind::Request | Kind::Payload => Asks::Notarisation(self.scenario.transactions[tx].told.clone()),
            Kind::Start => Asks::Confirmation,
            Kind::End => Asks::Nothing,
            Kind::Garbage => Asks::Garbage,
        };
        self.trace.note(self.now_ms, "asked", &[exchange, tx as u64, client as u64], || {
            format!("exchange {exchange}: client {client} sends {kind:?} for tx {tx}")
        });
        self.record(Event::Invoke { exchange, asks });
        self.send_message(exchange);
    }

    /// A part of an answer arrives. From here on it is safe: a client's inbox does not fail.
    pub(crate) fn receive(&mut self, exchange: u64, part: &Part) {
        match part {
            Part::Data(tx, signature) => {
                let signature = signer::encode(signature);
                self.record(Event::Answer { exchange, answer: history::Answer::Ok { tx: *tx, signature } });
            }
            Part::Error(tx, error) => {
                let answer = told(*tx, error);
                self.record(Event::Answer { exchange, answer });
            }
            Part::Confirm | Part::Wait | Part::End => {}
        }
        let inbox = &mut self.clients.exchanges[exchange as usize];
        match part {
            Part::Wait => {}
            Part::Confirm => inbox.confirmed = true,
            Part::Data(..) => inbox.data = true,
            Part::End => inbox.end = true,
            Part::Error(_, error) => {
                inbox.error.get_or_insert_with(|| error.clone());
            }
        }
        if !inbox.complete && inbox.is_whole() {
            inbox.complete = true;
            self.completed(exchange);
        }
    }

    fn completed(&mut self, exchange: u64) {
        let Exchange { kind, tx, client, goal, ref error, .. } = self.clients.exchanges[exchange as usize];
        let retryable = matches!(error, Some(NotaryError::General(_)));
        self.coverage.hit(match error {
            _ if kind == Kind::Start => "answer: confirmed",
            None => "answer: notarised",
            Some(NotaryError::Conflict { .. }) => "answer: conflict",
            Some(NotaryError::TimeWindowInvalid { .. }) => "answer: outside the window",
            Some(NotaryError::General(_)) => "answer: not now",
            Some(_) => "answer: invalid",
        });
        let outcome = error.as_ref().map_or("whole", NotaryError::kind);
        self.trace.note(self.now_ms, "answered", &[exchange], || format!("exchange {exchange} on tx {tx}: {outcome}"));
        self.record(Event::Complete { exchange });

        let Some(goal) = goal else { return };
        if kind == Kind::Start {
            return self.open_exchange(Kind::Payload, tx, client, Some(goal));
        }
        let progress = &mut self.clients.goals[goal];
        let pause_ms = self.rng.between(10, 800);
        if retryable {
            if !progress.reached {
                progress.attempt += 1; // It asks again below, not when its patience ends.
                self.later(pause_ms, Happening::Ask { goal });
            }
            return;
        }
        progress.reached = true;
        if let Some(left) = progress.repeats_left.checked_sub(1) {
            progress.repeats_left = left;
            self.coverage.hit("client: asked though it knew the answer");
            self.later(pause_ms, Happening::Ask { goal });
        }
    }
}

/// What a client makes of an error.
fn told(tx: Option<TxId>, error: &NotaryError) -> history::Answer {
    let Some(tx) = tx else { return history::Answer::Unavailable };
    match error {
        NotaryError::Conflict { consumed, .. } => history::Answer::Conflict { tx, consumed: consumed.clone() },
        NotaryError::TimeWindowInvalid { now, window } => {
            history::Answer::Invalid { tx, reason: format!("outside {window}"), judged_at: Some(*now) }
        }
        NotaryError::General(_) => history::Answer::Unavailable,
        NotaryError::TransactionInvalid(cause) | NotaryError::RequestSignatureInvalid(cause) => {
            history::Answer::Invalid { tx, reason: cause.to_string(), judged_at: None }
        }
    }
}
