//! The judge of histories. Each check stands for a promise of the notary; none knows how the notary decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use notary_worker::domain::notary_error::{Consumption, StateUsage};
use notary_worker::domain::{StateRef, TimeWindow, Timestamp, TxId};

use super::event::{Answer, Asks, Entry, Event, Record, Request, Settled};

/// Reads and verifies the signatures of a test.
pub(crate) trait Verifier {
    /// Whether `signature` is the notary's and covers `tx`; if not, why.
    fn verify(&self, tx: &TxId, signature: &[u8]) -> Result<(), String>;
}

/// What can be asked of a history: how much its writers could see, and how fast the notary must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expectations {
    /// [`Event::Stored`] was recorded for every outcome when it became durable. Else only the copies can be judged.
    pub(crate) store_watched: bool,
    /// [`Event::Settled`] was recorded for every end of a message.
    pub(crate) settlements_watched: bool,
    /// A request that can be understood may be parked. The simulator has no reason to.
    pub(crate) requests_may_be_parked: bool,
    /// From healing, or from being asked if that is later, until everything is answered or parked (P7).
    pub(crate) close_within_ms: u64,
}

/// What was checked, by promise (P1 to P7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Check {
    /// P1: no state is consumed by two transactions.
    SpentOnce,
    /// P1: no signed transaction refers to a state that was consumed before it.
    ReferencesUnspent,
    /// P2: a signature or a refusal leaves only after its outcome is durable.
    DurableFirst,
    /// P2: what was durable once is durable in the end, whole.
    NothingLost,
    /// P3: one definite answer to a transaction, for ever.
    OneAnswer,
    /// P4: a conflict names exactly the states that others had consumed, and by whom.
    ConflictTrue,
    /// A window held when its transaction was committed, and did not when it was refused for it.
    WindowTrue,
    /// What is refused or notarised by the checks that need no store deserves it.
    RefusedRightly,
    /// Every signature that left is the notary's and covers its transaction.
    SignatureTrue,
    /// P6: a message is accepted only after its whole answer is safe, and parked only with a reason.
    SettledSafe,
    /// P7: nothing is open in the end.
    Closed,
    /// Answers go to whom they belong, and the history itself makes sense.
    Sound,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SpentOnce => "P1 spent once",
            Self::ReferencesUnspent => "P1 references unspent",
            Self::DurableFirst => "P2 durable first",
            Self::NothingLost => "P2 nothing lost",
            Self::OneAnswer => "P3 one answer",
            Self::ConflictTrue => "P4 conflict true",
            Self::WindowTrue => "window true",
            Self::RefusedRightly => "refused rightly",
            Self::SignatureTrue => "signature true",
            Self::SettledSafe => "P6 settled safe",
            Self::Closed => "P7 closed",
            Self::Sound => "sound",
        })
    }
}

/// A promise broken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Violation {
    /// By which check.
    pub(crate) check: Check,
    /// The record that shows it, counted from 1; 0 for the history as a whole.
    pub(crate) line: usize,
    /// In words.
    pub(crate) why: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (record {}): {}", self.check, self.line, self.why)
    }
}

/// Judges a history: every promise broken, in no particular order. Empty is good.
pub(crate) fn check(history: &[Record], expectations: &Expectations, verifier: &dyn Verifier) -> Vec<Violation> {
    let mut judge = Judge::new(expectations, verifier);
    for (i, record) in history.iter().enumerate() {
        judge.see(i + 1, record);
    }
    judge.conclude();
    judge.violations
}

struct Exchange<'h> {
    asks: &'h Asks,
    invoked_ms: u64,
    invoked_line: usize,
    complete_ms: Option<u64>,
    settled: bool,
    parked: bool,
}

/// The first sight of something: the record's number and the thing.
type First<'h, T> = (usize, &'h T);

/// What a copy of the store holds in the end.
#[derive(Default)]
struct StoreCopy<'h> {
    entries: BTreeMap<TxId, &'h Entry>,
    /// The consumers of each state: those that it holds as committed, by the inputs that they were asked for with.
    consumers: BTreeMap<StateRef, BTreeSet<TxId>>,
}

impl StoreCopy<'_> {
    fn position(&self, tx: &TxId) -> Option<u64> {
        self.entries.get(tx)?.position
    }
}

struct Judge<'h> {
    expectations: &'h Expectations,
    verifier: &'h dyn Verifier,
    violations: Vec<Violation>,
    exchanges: BTreeMap<u64, Exchange<'h>>,
    requests: BTreeMap<TxId, First<'h, Request>>,
    /// Where each transaction's first signature left.
    signed: BTreeMap<TxId, usize>,
    /// The first definite answer.
    definite: BTreeMap<TxId, First<'h, Answer>>,
    /// Every different conflict that was told, with the record that told it first.
    conflicts: Vec<(TxId, First<'h, Vec<Consumption>>)>,
    stored: BTreeMap<TxId, First<'h, Entry>>,
    copies: BTreeMap<&'h str, StoreCopy<'h>>,
    healed_ms: u64,
}

impl<'h> Judge<'h> {
    fn new(expectations: &'h Expectations, verifier: &'h dyn Verifier) -> Self {
        Self {
            expectations,
            verifier,
            violations: Vec::new(),
            exchanges: BTreeMap::new(),
            requests: BTreeMap::new(),
            signed: BTreeMap::new(),
            definite: BTreeMap::new(),
            conflicts: Vec::new(),
            stored: BTreeMap::new(),
            copies: BTreeMap::new(),
            healed_ms: 0,
        }
    }

    fn broken(&mut self, check: Check, line: usize, why: impl Into<String>) {
        self.violations.push(Violation { check, line, why: why.into() });
    }

    /// What can be judged from the past alone.
    fn see(&mut self, line: usize, record: &'h Record) {
        match &record.event {
            Event::Invoke { exchange, asks } => self.invoked(line, record.at_ms, *exchange, asks),
            Event::Answer { exchange, answer } => self.answered(line, *exchange, answer),
            Event::Complete { exchange } => match self.exchanges.get_mut(exchange) {
                Some(open) => open.complete_ms = open.complete_ms.or(Some(record.at_ms)),
                None => self.broken(Check::Sound, line, format!("exchange {exchange} was answered but never asked")),
            },
            Event::Settled { exchange, how } => self.settled(line, *exchange, how),
            Event::Stored(entry) => match self.stored.get(&entry.tx) {
                None => {
                    self.stored.insert(entry.tx, (line, entry));
                }
                Some((_, first)) if *first != entry => {
                    let why = format!("the store decided {} twice: {first:?}, then {entry:?}", entry.tx);
                    self.broken(Check::NothingLost, line, why);
                }
                Some(_) => {}
            },
            Event::Kept { copy, entry } => {
                if self.copies.entry(copy).or_default().entries.insert(entry.tx, entry).is_some() {
                    self.broken(Check::Sound, line, format!("{copy} holds {} twice", entry.tx));
                }
            }
            Event::Healed => self.healed_ms = record.at_ms,
        }
    }

    fn invoked(&mut self, line: usize, at_ms: u64, exchange: u64, asks: &'h Asks) {
        if let Asks::Notarisation(request) = asks {
            let (_, first) = *self.requests.entry(request.tx).or_insert((line, request));
            if first != request.as_ref() {
                self.broken(Check::Sound, line, format!("two different requests have the id {}", request.tx));
            }
        }
        let open =
            Exchange { asks, invoked_ms: at_ms, invoked_line: line, complete_ms: None, settled: false, parked: false };
        if self.exchanges.insert(exchange, open).is_some() {
            self.broken(Check::Sound, line, format!("exchange {exchange} began twice"));
        }
    }

    fn answered(&mut self, line: usize, exchange: u64, answer: &'h Answer) {
        let tx = match answer {
            Answer::Ok { tx, .. } | Answer::Conflict { tx, .. } | Answer::Invalid { tx, .. } => *tx,
            Answer::Unavailable | Answer::Unknown => return,
        };
        let request = match self.exchanges.get(&exchange).map(|open| open.asks) {
            Some(Asks::Notarisation(request)) if request.tx == tx => request.as_ref(),
            asked => {
                let why = format!("exchange {exchange} was told about {tx}, having asked for {asked:?}");
                return self.broken(Check::Sound, line, why);
            }
        };

        let by_checks = matches!(answer, Answer::Invalid { judged_at: None, .. });
        if by_checks == request.valid {
            self.broken(
                Check::RefusedRightly,
                line,
                format!("a request with valid = {} got {answer:?}", request.valid),
            );
        }
        match answer {
            Answer::Ok { signature, .. } => {
                self.signed.entry(tx).or_insert(line);
                if let Err(why) = self.verifier.verify(&tx, signature) {
                    self.broken(Check::SignatureTrue, line, format!("the signature over {tx} does not hold: {why}"));
                }
            }
            Answer::Invalid { judged_at: Some(moment), .. }
                if request.window.is_none_or(|window| holds(&window, *moment)) =>
            {
                let why = format!("{tx} with window {:?} was refused for it at {moment}", request.window);
                self.broken(Check::WindowTrue, line, why);
            }
            _ => {}
        }
        if self.expectations.store_watched && !by_checks {
            let committed = matches!(answer, Answer::Ok { .. });
            if self.stored.get(&tx).is_none_or(|(_, entry)| entry.committed != committed) {
                self.broken(Check::DurableFirst, line, format!("{tx} got {answer:?} before that was durable"));
            }
        }

        match self.definite.get(&tx) {
            Some((_, first)) if same_answer(first, answer) => return,
            Some((first_line, first)) => {
                let why = format!("{tx} got {first:?} in record {first_line}, then {answer:?}");
                self.broken(Check::OneAnswer, line, why);
            }
            None => {
                self.definite.insert(tx, (line, answer));
            }
        }
        if let Answer::Conflict { consumed, .. } = answer {
            self.conflicts.push((tx, (line, consumed)));
        }
    }

    fn settled(&mut self, line: usize, exchange: u64, how: &Settled) {
        let Some(open) = self.exchanges.get_mut(&exchange) else {
            return self.broken(Check::Sound, line, format!("exchange {exchange} was settled but never asked"));
        };
        let garbage = matches!(open.asks, Asks::Garbage);
        let answered = open.complete_ms.is_some() || matches!(open.asks, Asks::Nothing);
        open.settled |= *how != Settled::Released;
        open.parked |= matches!(how, Settled::Parked { .. });
        match how {
            Settled::Accepted if garbage => {
                self.broken(Check::SettledSafe, line, format!("exchange {exchange} is garbage but was accepted"));
            }
            Settled::Accepted if !answered => {
                self.broken(
                    Check::SettledSafe,
                    line,
                    format!("exchange {exchange} was accepted before its answer was safe"),
                );
            }
            Settled::Parked { reason } if reason.is_empty() => {
                self.broken(Check::SettledSafe, line, format!("exchange {exchange} was parked without a reason"));
            }
            Settled::Parked { reason } if !garbage && !self.expectations.requests_may_be_parked => {
                self.broken(Check::SettledSafe, line, format!("exchange {exchange} was parked: {reason}"));
            }
            _ => {}
        }
    }

    /// What can be judged only with hindsight.
    fn conclude(&mut self) {
        // A store that decided nothing has nothing to tell.
        let by_store = |(_, answer): &First<'_, Answer>| !matches!(answer, Answer::Invalid { judged_at: None, .. });
        if self.copies.is_empty() && (!self.stored.is_empty() || self.definite.values().any(by_store)) {
            self.broken(Check::Sound, 0, "nothing tells what the store holds in the end, so nothing is proven");
        }
        let mut copies = std::mem::take(&mut self.copies);
        for (name, copy) in &mut copies {
            self.find_consumers(copy);
            self.judge_copy(name, copy);
        }
        self.judge_conflicts(&copies);
        self.judge_real_time();
        self.judge_closed();
    }

    fn find_consumers(&self, copy: &mut StoreCopy<'h>) {
        for entry in copy.entries.values().filter(|entry| entry.committed) {
            for state in self.requests.get(&entry.tx).iter().flat_map(|(_, request)| &request.inputs) {
                copy.consumers.entry(*state).or_default().insert(entry.tx);
            }
        }
    }

    fn judge_copy(&mut self, name: &str, copy: &StoreCopy<'h>) {
        for entry in copy.entries.values() {
            self.judge_entry(name, entry);
        }
        for (state, consumers) in &copy.consumers {
            if consumers.len() > 1 {
                self.broken(Check::SpentOnce, 0, format!("{name}: {state} is consumed by {consumers:?}"));
            }
        }
        for (tx, line) in self.signed.clone() {
            if copy.entries.get(&tx).is_none_or(|entry| !entry.committed) {
                self.broken(
                    Check::NothingLost,
                    line,
                    format!("{tx} is signed, but {name} holds {:?}", copy.entries.get(&tx)),
                );
            }
        }
        for (tx, (line, entry)) in self.stored.clone() {
            if copy.entries.get(&tx) != Some(&entry) {
                let why = format!("{tx} was durable as {entry:?}, but {name} holds {:?}", copy.entries.get(&tx));
                self.broken(Check::NothingLost, line, why);
            }
        }
        self.judge_references(name, copy);
    }

    fn judge_entry(&mut self, name: &str, entry: &Entry) {
        let Some((_, request)) = self.requests.get(&entry.tx).copied() else {
            return self.broken(Check::Sound, 0, format!("{name}: {} was decided but nobody asked for it", entry.tx));
        };
        let expected: BTreeSet<_> = request.inputs.iter().filter(|_| entry.committed).collect();
        if entry.spent.iter().collect::<BTreeSet<_>>() != expected {
            let why = format!("{name}: {entry:?} does not consume the inputs of {request:?}");
            self.broken(Check::NothingLost, 0, why);
        }
        if let (true, Some(window), Some(moment)) = (entry.committed, request.window, entry.moment)
            && !holds(&window, moment)
        {
            self.broken(
                Check::WindowTrue,
                0,
                format!("{name}: {} was committed at {moment} outside {window}", entry.tx),
            );
        }
        if let Some((line, answer)) = self.definite.get(&entry.tx).copied()
            && entry.committed != matches!(answer, Answer::Ok { .. })
        {
            self.broken(Check::OneAnswer, line, format!("{name} holds {entry:?}, but the answer was {answer:?}"));
        }
    }

    fn judge_references(&mut self, name: &str, copy: &StoreCopy<'h>) {
        for (tx, line) in self.signed.clone() {
            let references =
                self.requests.get(&tx).map(|(_, request)| request.references.as_slice()).unwrap_or_default();
            for state in references {
                for consumer in copy.consumers.get(state).into_iter().flatten().filter(|consumer| **consumer != tx) {
                    if let (Some(before), Some(after)) = (copy.position(consumer), copy.position(&tx))
                        && before < after
                    {
                        let why = format!("{name}: {tx} refers to {state}, which {consumer} had consumed");
                        self.violations.push(Violation { check: Check::ReferencesUnspent, line, why });
                    }
                }
            }
        }
    }

    /// What needs no word from the store: once the consumer of a state was signed, nobody else who asks later can use it.
    fn judge_real_time(&mut self) {
        let signed = std::mem::take(&mut self.signed);
        let mut consumers: BTreeMap<StateRef, Vec<(TxId, usize)>> = BTreeMap::new();
        for (tx, line) in &signed {
            for state in self.requests.get(tx).iter().flat_map(|(_, request)| &request.inputs) {
                consumers.entry(*state).or_default().push((*tx, *line));
            }
        }
        for (state, consumers) in &consumers {
            if let [(first, _), (second, line), ..] = consumers.as_slice() {
                self.broken(
                    Check::SpentOnce,
                    *line,
                    format!("{state} is consumed by {first} and {second}, both signed"),
                );
            }
        }
        for (tx, line) in &signed {
            let Some((asked_line, request)) = self.requests.get(tx).copied() else { continue };
            for state in &request.references {
                let before = consumers.get(state).into_iter().flatten().find(|(_, signed)| *signed < asked_line);
                if let Some((consumer, _)) = before {
                    let why =
                        format!("{tx} refers to {state}, though {consumer} was signed before it was first asked for");
                    self.broken(Check::ReferencesUnspent, *line, why);
                }
            }
        }
    }

    fn judge_conflicts(&mut self, copies: &BTreeMap<&str, StoreCopy<'h>>) {
        for (tx, (line, told)) in std::mem::take(&mut self.conflicts) {
            let Some((asked_line, request)) = self.requests.get(&tx).copied() else { continue };
            if told.is_empty() {
                self.broken(Check::ConflictTrue, line, format!("the conflict of {tx} names no state"));
            }
            for (name, copy) in copies {
                // The conflict as it must read if those transactions are the ones that came before.
                let truth = |before: &dyn Fn(&TxId) -> bool| -> Vec<Consumption> {
                    let inputs = request.inputs.iter().map(|state| (state, StateUsage::Input));
                    let references = request.references.iter().map(|state| (state, StateUsage::Reference));
                    let consumed = inputs.chain(references).filter_map(|(state, usage)| {
                        let consumer =
                            copy.consumers.get(state)?.iter().find(|consumer| **consumer != tx && before(consumer))?;
                        Some(Consumption { state: *state, hashed_consumer: consumer.hashed().ok()?, usage })
                    });
                    consumed.collect()
                };
                if let Some(refused) = copy.position(&tx) {
                    let exact = truth(&|consumer| copy.position(consumer).is_some_and(|position| position < refused));
                    if *told != exact {
                        let why = format!("{name}: the conflict of {tx} must be {exact:?}, but is {told:?}");
                        self.broken(Check::ConflictTrue, line, why);
                    }
                    continue;
                }
                // Without the order of the store: nothing that is not so in the end or was not yet durable, and everything
                // that was already so when the transaction was first asked for.
                let most = truth(&|consumer| {
                    !self.expectations.store_watched
                        || self.stored.get(consumer).is_some_and(|(stored, _)| *stored < line)
                });
                let least = truth(&|consumer| self.signed.get(consumer).is_some_and(|signed| *signed < asked_line));
                let made_up: Vec<_> = told.iter().filter(|consumption| !most.contains(consumption)).collect();
                let kept_back: Vec<_> = least.iter().filter(|consumption| !told.contains(consumption)).collect();
                if !made_up.is_empty() || !kept_back.is_empty() {
                    let why = format!("{name}: the conflict of {tx} makes up {made_up:?} and keeps back {kept_back:?}");
                    self.broken(Check::ConflictTrue, line, why);
                }
            }
        }
    }

    fn judge_closed(&mut self) {
        let mut open = Vec::new();
        let mut parked = BTreeSet::new();
        for (id, exchange) in &self.exchanges {
            let line = exchange.invoked_line;
            if let (Asks::Notarisation(request), true) = (exchange.asks, exchange.parked) {
                parked.insert(request.tx);
            }
            if self.expectations.settlements_watched && !exchange.settled {
                open.push((line, format!("exchange {id} was never settled")));
            }
            let deadline_ms = exchange.invoked_ms.max(self.healed_ms) + self.expectations.close_within_ms;
            match exchange.complete_ms {
                _ if exchange.parked || matches!(exchange.asks, Asks::Nothing) => {}
                Some(at_ms) if at_ms <= deadline_ms => {}
                Some(at_ms) => {
                    open.push((line, format!("exchange {id} was answered at {at_ms} ms, after {deadline_ms} ms")))
                }
                None => open.push((line, format!("exchange {id} was never answered"))),
            }
        }
        for (tx, (line, _)) in &self.requests {
            if !self.definite.contains_key(tx) && !parked.contains(tx) {
                open.push((*line, format!("{tx} never got a definite answer")));
            }
        }
        self.violations.extend(open.into_iter().map(|(line, why)| Violation { check: Check::Closed, line, why }));
    }
}

/// Whether `moment` lies in `window`: at or after its start, before its end.
fn holds(window: &TimeWindow, moment: Timestamp) -> bool {
    let number = |t: Timestamp| i128::from(t.seconds()) * 1_000_000_000 + i128::from(t.nanos());
    let late_enough = window.from().is_none_or(|from| number(from) <= number(moment));
    let early_enough = window.until().is_none_or(|until| number(moment) < number(until));
    late_enough && early_enough
}

/// Two answers are one if they say the same. Signatures may differ: one transaction can be signed in several batches.
fn same_answer(a: &Answer, b: &Answer) -> bool {
    match (a, b) {
        (Answer::Ok { tx: a, .. }, Answer::Ok { tx: b, .. }) => a == b,
        _ => a == b,
    }
}
