//! A short history that keeps every promise, and the means to write and to spoil such ones.

use std::collections::BTreeSet;
use std::sync::Arc;

use notary_worker::domain::notary_error::{Consumption, StateUsage};
use notary_worker::domain::{SecureHash, StateRef, TimeWindow, Timestamp, TxId};

use crate::history::{Answer, Asks, Check, Entry, Event, Expectations, Record, Request, Settled, Verifier, check};

/// Signatures of these stories: a word and the id.
pub(crate) struct WordVerifier;

impl Verifier for WordVerifier {
    fn verify(&self, tx: &TxId, signature: &[u8]) -> Result<(), String> {
        if signature == sign(tx) { Ok(()) } else { Err("not the word".into()) }
    }
}

pub(crate) fn sign(tx: &TxId) -> Vec<u8> {
    [b"signed ", tx.0.as_bytes()].concat()
}

pub(crate) const STRICT: Expectations = Expectations {
    store_watched: true,
    settlements_watched: true,
    requests_may_be_parked: false,
    close_within_ms: 60_000,
};

/// The transaction called by a number.
pub(crate) fn tx(number: u8) -> TxId {
    TxId(SecureHash::sha256([number; 32]))
}

/// The state called by a number: an output of a transaction that the stories never see.
pub(crate) fn state(number: u32) -> StateRef {
    StateRef { tx_id: tx(0xee), index: number }
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 0).expect("in range")
}

pub(crate) fn request(number: u8, inputs: &[u32], references: &[u32]) -> Request {
    let states = |numbers: &[u32]| numbers.iter().map(|number| state(*number)).collect();
    Request { tx: tx(number), inputs: states(inputs), references: states(references), window: None, valid: true }
}

pub(crate) fn consumed(number: u32, by: u8, usage: StateUsage) -> Consumption {
    Consumption { state: state(number), hashed_consumer: tx(by).hashed().expect("SHA-256"), usage }
}

/// A history in the writing.
#[derive(Default)]
pub(crate) struct Story {
    pub(crate) records: Vec<Record>,
    requests: Vec<Request>,
    exchanges: u64,
    outcomes: u64,
}

impl Story {
    pub(crate) fn write(&mut self, event: Event) {
        let at_ms = self.records.len() as u64;
        self.records.push(Record { at_ms, process: "test".into(), event });
    }

    /// Someone asks; the exchange's number.
    pub(crate) fn ask(&mut self, request: &Request) -> u64 {
        self.requests.push(request.clone());
        self.open(Asks::Notarisation(Arc::new(request.clone())))
    }

    pub(crate) fn open(&mut self, asks: Asks) -> u64 {
        self.exchanges += 1;
        self.write(Event::Invoke { exchange: self.exchanges, asks });
        self.exchanges
    }

    pub(crate) fn store(&mut self, request: &Request, committed: bool, moment: Timestamp) {
        let spent = if committed { request.inputs.clone() } else { Vec::new() };
        let position = Some(self.outcomes);
        self.outcomes += 1;
        self.write(Event::Stored(Entry { tx: request.tx, committed, position, moment: Some(moment), spent }));
    }

    pub(crate) fn answer(&mut self, exchange: u64, answer: Answer) {
        self.write(Event::Answer { exchange, answer });
        self.write(Event::Complete { exchange });
    }

    pub(crate) fn ok(&mut self, exchange: u64, tx: TxId) {
        self.answer(exchange, Answer::Ok { tx, signature: sign(&tx) });
    }

    pub(crate) fn settle(&mut self, exchange: u64, how: Settled) {
        self.write(Event::Settled { exchange, how });
    }

    /// A request with its whole way to a signature.
    pub(crate) fn notarised(&mut self, request: &Request) {
        let exchange = self.ask(request);
        self.store(request, true, at(100));
        self.ok(exchange, request.tx);
        self.settle(exchange, Settled::Accepted);
    }

    /// A request with its whole way to a conflict.
    pub(crate) fn refused(&mut self, request: &Request, consumed: Vec<Consumption>) {
        let exchange = self.ask(request);
        self.store(request, false, at(100));
        self.answer(exchange, Answer::Conflict { tx: request.tx, consumed });
        self.settle(exchange, Settled::Accepted);
    }

    /// The store's last word, which a standby shares.
    pub(crate) fn end(&mut self) {
        let stored: Vec<Entry> = self
            .records
            .iter()
            .filter_map(|record| match &record.event {
                Event::Stored(entry) => Some(entry.clone()),
                _ => None,
            })
            .collect();
        for copy in ["store", "standby"] {
            for entry in stored.clone() {
                self.write(Event::Kept { copy: copy.into(), entry });
            }
        }
    }

    /// Changes every record for which `change` finds something to change; it must find something.
    pub(crate) fn change(&mut self, mut change: impl FnMut(&mut Event) -> bool) {
        let changed = self.records.iter_mut().filter_map(|record| change(&mut record.event).then_some(())).count();
        assert!(changed > 0, "the story has nothing of the kind");
    }

    /// Takes out every record for which `drop` holds; there must be one.
    pub(crate) fn remove(&mut self, drop: impl Fn(&Event) -> bool) {
        let before = self.records.len();
        self.records.retain(|record| !drop(&record.event));
        assert!(self.records.len() < before, "the story has nothing of the kind");
    }

    /// Takes the order of outcomes away, as from a store that does not keep it.
    pub(crate) fn forget_order(&mut self) {
        self.change(|event| match event {
            Event::Stored(entry) | Event::Kept { entry, .. } => entry.position.take().is_some(),
            _ => false,
        });
    }

    /// The checks that the story fails.
    pub(crate) fn fails(&self, expectations: &Expectations) -> BTreeSet<Check> {
        let violations = check(&self.records, expectations, &WordVerifier);
        violations.iter().for_each(|violation| println!("{violation}"));
        violations.into_iter().map(|violation| violation.check).collect()
    }
}

/// A story with a bit of everything, in which all promises are kept.
///
/// Transaction 1 consumes states 1 and 2; 2 wants state 2 and refers to 1, too late; 3 refers to state 3, then 4 consumes it, then
/// 3 is asked for again; 5 is in time, 6 is not; 7 is not valid. One request is at first told to come again.
pub(crate) fn good() -> Story {
    let mut story = Story::default();
    let early = story.ask(&request(1, &[1, 2], &[]));
    story.answer(early, Answer::Unavailable);
    story.settle(early, Settled::Released);
    story.settle(early, Settled::Accepted);
    story.notarised(&request(1, &[1, 2], &[]));
    story.refused(
        &request(2, &[9, 2], &[8, 1]),
        vec![consumed(2, 1, StateUsage::Input), consumed(1, 1, StateUsage::Reference)],
    );
    story.notarised(&request(3, &[], &[3]));
    story.notarised(&request(4, &[3], &[]));
    let again = story.ask(&request(3, &[], &[3]));
    story.ok(again, tx(3));
    story.settle(again, Settled::Accepted);

    let window = TimeWindow::Between { from: at(100), until: at(200) };
    story.notarised(&Request { window: Some(window), ..request(5, &[5], &[]) });
    let late = Request { window: Some(window), ..request(6, &[6], &[]) };
    for first in [true, false] {
        let exchange = story.ask(&late);
        if first {
            story.store(&late, false, at(200));
        }
        story.answer(exchange, Answer::Invalid { tx: late.tx, reason: "too late".into(), judged_at: Some(at(200)) });
        story.settle(exchange, Settled::Accepted);
    }
    let forged = Request { valid: false, ..request(7, &[7], &[]) };
    let exchange = story.ask(&forged);
    story.answer(exchange, Answer::Invalid { tx: forged.tx, reason: "forged".into(), judged_at: None });
    story.settle(exchange, Settled::Accepted);

    let start = story.open(Asks::Confirmation);
    story.write(Event::Complete { exchange: start });
    story.settle(start, Settled::Accepted);
    let end = story.open(Asks::Nothing);
    story.settle(end, Settled::Accepted);
    let garbage = story.open(Asks::Garbage);
    story.settle(garbage, Settled::Parked { reason: "unreadable".into() });
    story.write(Event::Healed);
    story.end();
    story
}
