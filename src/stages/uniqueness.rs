//! The uniqueness stage: gathers requests into batches and has them committed.
//!
//! A lone request is committed at once; a batch forms only while commits are in flight, so nobody ever waits for a timer. A
//! batch that the store refuses is halved, so that one request it cannot digest does not hold up its neighbours. What fails for
//! want of the store is repeated as it was, an unknown outcome too: a repeat of what was committed gets the same verdict.

use std::collections::{BTreeMap, VecDeque};

use super::{Backoff, GaveUp, Ticket};
use crate::domain::{CheckedRequest, Verdict};
use crate::ports::uniqueness::CommitError;

/// Identifies one batch while it is open.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(pub u64);

/// The stage's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most requests of one batch.
    pub batch_requests_max: usize,
    /// Most states of one batch, inputs and references; a larger request travels alone.
    pub batch_states_max: usize,
    /// Most commits in flight at once.
    pub commits_in_flight_max: usize,
    /// How often one batch is tried before its requests are given back.
    pub attempts_max: u32,
    /// The pause between attempts.
    pub backoff: Backoff,
}

/// What happens to the stage.
#[expect(clippy::large_enum_variant, reason = "an event is handed over once; nobody keeps many")]
#[derive(Debug)]
pub enum Event {
    /// Someone wants a verdict.
    Requested(Ticket, CheckedRequest),
    /// The store answered for a batch.
    Committed(BatchId, Result<Vec<Verdict>, CommitError>),
    /// A pause asked for by [`Effect::Pause`] is over.
    PauseOver(BatchId),
}

/// What the stage wants done.
#[derive(Debug)]
pub enum Effect {
    /// Commit these requests, in this order, and report as [`Event::Committed`].
    Commit(BatchId, Vec<CheckedRequest>),
    /// Report [`Event::PauseOver`] after so many milliseconds (plus jitter).
    Pause(BatchId, u64),
    /// Answer one request.
    Answer(Ticket, Result<Verdict, GaveUp>),
}

#[derive(Debug)]
struct Batch {
    members: Vec<(Ticket, CheckedRequest)>,
    attempts: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Uniqueness {
    limits: Limits,
    forming: VecDeque<(Ticket, CheckedRequest)>,
    /// Halves of a failed batch, each waiting for its turn.
    halves: VecDeque<Batch>,
    /// In flight or pausing.
    open: BTreeMap<BatchId, Batch>,
    next_batch: u64,
}

impl Uniqueness {
    /// An idle stage.
    pub fn new(limits: Limits) -> Self {
        Self { limits, forming: VecDeque::new(), halves: VecDeque::new(), open: BTreeMap::new(), next_batch: 0 }
    }

    /// Requests without a verdict.
    pub fn waiting(&self) -> usize {
        self.forming.len()
            + self.halves.iter().chain(self.open.values()).map(|batch| batch.members.len()).sum::<usize>()
    }

    /// Handles one event.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Requested(ticket, request) => self.forming.push_back((ticket, request)),
            Event::PauseOver(id) => {
                if let Some(batch) = self.open.get(&id) {
                    effects.push(Effect::Commit(id, requests(batch)));
                }
            }
            Event::Committed(id, result) => {
                if let Some(batch) = self.open.remove(&id) {
                    self.committed(id, batch, result, &mut effects);
                }
            }
        }
        self.start(&mut effects);
        effects
    }

    fn committed(
        &mut self,
        id: BatchId,
        mut batch: Batch,
        result: Result<Vec<Verdict>, CommitError>,
        effects: &mut Vec<Effect>,
    ) {
        batch.attempts += 1;
        let error = match result {
            Ok(verdicts) if verdicts.len() == batch.members.len() => {
                let answers = batch.members.into_iter().zip(verdicts);
                effects.extend(answers.map(|((ticket, _), verdict)| Effect::Answer(ticket, Ok(verdict))));
                return;
            }
            Ok(verdicts) => {
                CommitError::OutcomeUnknown(format!("{} verdicts for {} requests", verdicts.len(), batch.members.len()))
            }
            Err(error) => error,
        };
        let (refused, several) = (matches!(error, CommitError::Refused(_)), batch.members.len() > 1);
        if batch.attempts < self.limits.attempts_max && !(refused && several) {
            effects.push(Effect::Pause(id, self.limits.backoff.pause_ms(batch.attempts)));
            self.open.insert(id, batch);
        } else if refused && several {
            let second = batch.members.split_off(batch.members.len() / 2);
            // One attempt for each half, at once: what is refused again is halved again.
            let attempts = self.limits.attempts_max - 1;
            self.halves.push_back(Batch { members: batch.members, attempts });
            self.halves.push_back(Batch { members: second, attempts });
        } else {
            let gave_up = GaveUp { stage: "uniqueness", reason: error.to_string() };
            effects.extend(batch.members.into_iter().map(|(ticket, _)| Effect::Answer(ticket, Err(gave_up.clone()))));
        }
    }

    fn start(&mut self, effects: &mut Vec<Effect>) {
        while self.open.len() < self.limits.commits_in_flight_max {
            let Some(batch) = self.halves.pop_front().or_else(|| self.form()) else { return };
            let id = BatchId(self.next_batch);
            self.next_batch += 1;
            effects.push(Effect::Commit(id, requests(&batch)));
            self.open.insert(id, batch);
        }
    }

    /// The next batch in order of arrival, within the limits; at least one request if any waits.
    fn form(&mut self) -> Option<Batch> {
        let mut members = Vec::new();
        let mut states = 0;
        while let Some((_, request)) = self.forming.front() {
            states += request.inputs.len() + request.references.len();
            let full = members.len() >= self.limits.batch_requests_max || states > self.limits.batch_states_max;
            if full && !members.is_empty() {
                break;
            }
            members.extend(self.forming.pop_front());
        }
        (!members.is_empty()).then_some(Batch { members, attempts: 0 })
    }
}

fn requests(batch: &Batch) -> Vec<CheckedRequest> {
    batch.members.iter().map(|(_, request)| request.clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{CommittedTx, TxId};
    use crate::stages::fixtures::{BACKOFF, committed, request, tx};

    const LIMITS: Limits = Limits {
        batch_requests_max: 4,
        batch_states_max: 10,
        commits_in_flight_max: 1,
        attempts_max: 3,
        backoff: BACKOFF,
    };

    /// Asks for request number `n` with ticket `n`.
    fn ask(machine: &mut Uniqueness, number: u8) -> Vec<Effect> {
        ask_for(machine, number, request(number, 1, 0))
    }

    fn ask_for(machine: &mut Uniqueness, number: u8, request: CheckedRequest) -> Vec<Effect> {
        machine.handle(Event::Requested(Ticket(number.into()), request))
    }

    /// The one commit among effects: its batch and transactions.
    fn commit(effects: &[Effect]) -> (BatchId, Vec<TxId>) {
        let mut commits = effects.iter().filter_map(|effect| match effect {
            Effect::Commit(id, requests) => Some((*id, requests.iter().map(|request| request.tx_id).collect())),
            _ => None,
        });
        let commit = commits.next().expect("a commit");
        assert!(commits.next().is_none(), "one commit only");
        commit
    }

    fn txs(numbers: impl IntoIterator<Item = u8>) -> Vec<TxId> {
        numbers.into_iter().map(tx).collect()
    }

    fn verdicts(numbers: impl IntoIterator<Item = u8>) -> Vec<Verdict> {
        numbers.into_iter().map(|number| Verdict::Committed(committed(number))).collect()
    }

    fn unknown() -> Result<Vec<Verdict>, CommitError> {
        Err(CommitError::OutcomeUnknown("cut off".into()))
    }

    fn unavailable() -> Result<Vec<Verdict>, CommitError> {
        Err(CommitError::Unavailable("down".into()))
    }

    fn refused() -> Result<Vec<Verdict>, CommitError> {
        Err(CommitError::Refused("not like this".into()))
    }

    fn answers(effects: Vec<Effect>) -> BTreeMap<u64, Result<Verdict, GaveUp>> {
        let answers = effects.into_iter().filter_map(|effect| match effect {
            Effect::Answer(ticket, verdict) => Some((ticket.0, verdict)),
            _ => None,
        });
        answers.collect()
    }

    #[test]
    fn a_lone_request_is_committed_at_once() {
        let mut machine = Uniqueness::new(LIMITS);
        let effects = ask(&mut machine, 1);
        assert_eq!(effects.len(), 1);
        assert_eq!(commit(&effects).1, txs([1]));
    }

    #[test]
    fn a_batch_forms_only_while_commits_are_in_flight_and_leaves_when_one_returns() {
        let mut machine = Uniqueness::new(Limits { commits_in_flight_max: 2, ..LIMITS });
        let (first, _) = commit(&ask(&mut machine, 1));
        let (second, _) = commit(&ask(&mut machine, 2));
        for number in 3..=5 {
            assert!(ask(&mut machine, number).is_empty(), "it waits for no timer, only for a commit to return");
        }
        assert_eq!(machine.waiting(), 5);

        let effects = machine.handle(Event::Committed(second, Ok(verdicts([2]))));
        assert_eq!(commit(&effects).1, txs([3, 4, 5]));
        assert_eq!(answers(effects), BTreeMap::from([(2, Ok(Verdict::Committed(committed(2))))]));
        assert!(ask(&mut machine, 6).is_empty(), "two are in flight again");
        assert_eq!(commit(&machine.handle(Event::Committed(first, Ok(verdicts([1]))))).1, txs([6]));
    }

    #[test]
    fn each_verdict_goes_to_the_one_who_asked_even_for_one_transaction_twice() {
        let mut machine = Uniqueness::new(LIMITS);
        let (first, _) = commit(&ask(&mut machine, 1));
        ask(&mut machine, 2);
        ask(&mut machine, 3);
        ask_for(&mut machine, 4, request(2, 1, 0));
        let (batch, _) = commit(&machine.handle(Event::Committed(first, Ok(verdicts([1])))));

        let answered = answers(machine.handle(Event::Committed(batch, Ok(verdicts([2, 3, 2])))));
        let expected = [(2, 2), (3, 3), (4, 2)].map(|(ticket, tx)| (ticket, Ok(Verdict::Committed(committed(tx)))));
        assert_eq!(answered, BTreeMap::from(expected));
        assert_eq!(machine.waiting(), 0);
    }

    #[test]
    fn a_batch_keeps_its_limits_and_the_order_of_arrival() {
        let mut machine = Uniqueness::new(LIMITS);
        let (mut batch, _) = commit(&ask(&mut machine, 0));
        for number in 1..=6 {
            ask(&mut machine, number);
        }
        // Four requests, then states: 1 + 1 + 5 are within ten, another 4 are not; 30 are too many for any company.
        for (number, inputs, references) in [(7, 2, 3), (8, 0, 4), (9, 20, 10), (10, 1, 0)] {
            ask_for(&mut machine, number, request(number, inputs, references));
        }
        let mut done = vec![0];
        for expected in [&[1, 2, 3, 4][..], &[5, 6, 7], &[8], &[9], &[10]] {
            let effects = machine.handle(Event::Committed(batch, Ok(verdicts(done))));
            let (next, members) = commit(&effects);
            assert_eq!(members, txs(expected.iter().copied()));
            (batch, done) = (next, expected.to_vec());
        }
    }

    #[test]
    fn a_batch_of_unknown_outcome_is_repeated_as_it_was_after_ever_longer_pauses() {
        let mut machine = Uniqueness::new(LIMITS);
        let (first, _) = commit(&ask(&mut machine, 1));
        ask(&mut machine, 2);
        ask(&mut machine, 3);
        let (batch, members) = commit(&machine.handle(Event::Committed(first, Ok(verdicts([1])))));

        for (failure, pause_ms) in [(unknown(), 10), (unavailable(), 20)] {
            let effects = machine.handle(Event::Committed(batch, failure));
            assert!(matches!(effects[..], [Effect::Pause(id, ms)] if id == batch && ms == pause_ms), "{effects:?}");
            assert!(ask(&mut machine, 4).is_empty(), "nobody joins, and nobody overtakes");
            assert_eq!(commit(&machine.handle(Event::PauseOver(batch))), (batch, members.clone()));
        }
        let effects = machine.handle(Event::Committed(batch, Ok(verdicts([2, 3]))));
        assert_eq!(commit(&effects).1, txs([4, 4]));
        assert_eq!(answers(effects).into_keys().collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn too_few_or_too_many_verdicts_are_an_unknown_outcome() {
        for wrong in [vec![], verdicts([1, 1])] {
            let mut machine = Uniqueness::new(LIMITS);
            let (batch, _) = commit(&ask(&mut machine, 1));
            let effects = machine.handle(Event::Committed(batch, Ok(wrong)));
            assert!(matches!(effects[..], [Effect::Pause(..)]), "{effects:?}");
        }
    }

    #[test]
    fn a_lone_request_is_given_back_after_its_last_attempt_with_the_reason() {
        let mut machine = Uniqueness::new(LIMITS);
        let (batch, _) = commit(&ask(&mut machine, 1));
        for _ in 1..LIMITS.attempts_max {
            machine.handle(Event::Committed(batch, unknown()));
            machine.handle(Event::PauseOver(batch));
        }
        let answered = answers(machine.handle(Event::Committed(batch, unknown())));
        let gave_up = answered[&1].clone().expect_err("no verdict was found out");
        assert_eq!((gave_up.stage, gave_up.reason), ("uniqueness", unknown().expect_err("an error").to_string()));
        assert_eq!(machine.waiting(), 0);
    }

    #[test]
    fn halving_isolates_the_one_request_that_a_store_cannot_digest() {
        for poison in 1..=8 {
            let limits = Limits { batch_requests_max: 8, ..LIMITS };
            let mut machine = Uniqueness::new(limits);
            let (first, _) = commit(&ask(&mut machine, 0));
            (1..=8).for_each(|number| assert!(ask(&mut machine, number).is_empty()));

            let mut queue: VecDeque<_> = machine.handle(Event::Committed(first, Ok(verdicts([0])))).into();
            let (mut commits, mut answered) = (0, BTreeMap::new());
            while let Some(effect) = queue.pop_front() {
                match effect {
                    Effect::Commit(id, requests) => {
                        commits += 1;
                        let bad = requests.iter().any(|request| request.tx_id == tx(poison));
                        let found = requests.iter().map(|request| CommittedTx::after_durable_commit(request.tx_id));
                        let result = if bad { refused() } else { Ok(found.map(Verdict::Committed).collect()) };
                        queue.extend(machine.handle(Event::Committed(id, result)));
                    }
                    Effect::Pause(id, _) => queue.extend(machine.handle(Event::PauseOver(id))),
                    Effect::Answer(ticket, verdict) => assert!(answered.insert(ticket.0, verdict).is_none()),
                }
            }
            answered.remove(&0);
            assert_eq!(answered.len(), 8);
            for (ticket, verdict) in answered {
                assert_eq!(verdict.is_err(), ticket == u64::from(poison), "{ticket} with {poison}: {verdict:?}");
            }
            // The whole batch, then a good and a bad half at each of three levels.
            assert_eq!(commits, 1 + 2 * 3);
            assert_eq!(machine.waiting(), 0);
        }
    }

    #[test]
    fn halves_go_before_what_came_later() {
        let mut machine = Uniqueness::new(Limits { attempts_max: 1, ..LIMITS });
        let (first, _) = commit(&ask(&mut machine, 1));
        (2..=4).for_each(|number| assert!(ask(&mut machine, number).is_empty()));
        let (batch, _) = commit(&machine.handle(Event::Committed(first, Ok(verdicts([1])))));
        assert!(ask(&mut machine, 5).is_empty());

        let (half, members) = commit(&machine.handle(Event::Committed(batch, refused())));
        assert_eq!((members, machine.waiting()), (txs([2]), 4));
        let (half, members) = commit(&machine.handle(Event::Committed(half, Ok(verdicts([2])))));
        assert_eq!(members, txs([3, 4]));
        assert_eq!(commit(&machine.handle(Event::Committed(half, Ok(verdicts([3, 4]))))).1, txs([5]));
    }

    #[test]
    fn news_of_a_batch_that_is_not_open_changes_nothing() {
        let mut machine = Uniqueness::new(LIMITS);
        let (batch, _) = commit(&ask(&mut machine, 1));
        machine.handle(Event::Committed(batch, Ok(verdicts([1]))));
        for event in [Event::Committed(batch, unknown()), Event::PauseOver(batch), Event::PauseOver(BatchId(99))] {
            assert!(machine.handle(event).is_empty());
        }
    }

    proptest! {
        /// Whatever the store does: one answer to each request, limits kept, a repeat equal to the first try, a verdict only
        /// where the store gave one.
        #[test]
        fn every_request_is_answered_once_and_limits_hold(
            requests_max in 1usize..5,
            states_max in 1usize..12,
            in_flight_max in 1usize..4,
            attempts_max in 1u32..4,
            choices in prop::collection::vec((any::<u8>(), any::<u8>()), 0..120),
        ) {
            let limits = Limits {
                batch_requests_max: requests_max,
                batch_states_max: states_max,
                commits_in_flight_max: in_flight_max,
                attempts_max,
                backoff: BACKOFF,
            };
            let mut machine = Uniqueness::new(limits);
            let mut asked = 0u8;
            let mut answered = BTreeMap::new();
            let mut committed_ok: Vec<TxId> = Vec::new();
            let mut seen: BTreeMap<BatchId, Vec<TxId>> = BTreeMap::new();
            let mut in_flight: BTreeMap<BatchId, Vec<TxId>> = BTreeMap::new();
            let mut pausing: Vec<BatchId> = Vec::new();
            // After the choices nothing fails any more, until all is done.
            let calm = std::iter::repeat_n((1, 0), 2_000);
            for (i, (what, which)) in choices.iter().copied().chain(calm).enumerate() {
                let event = match what % 4 {
                    0 if asked < 60 => {
                        asked += 1;
                        let states = u32::from(which % 6);
                        Event::Requested(Ticket(asked.into()), request(asked, states, which as u32 % 3))
                    }
                    1 | 2 if !in_flight.is_empty() => {
                        let id = *in_flight.keys().nth(usize::from(which) % in_flight.len()).expect("in range");
                        let members = in_flight.remove(&id).expect("it is in flight");
                        if i < choices.len() && which % 3 != 0 {
                            let failures = [unknown, unavailable, refused];
                            Event::Committed(id, failures[usize::from(which / 3) % 3]())
                        } else {
                            committed_ok.extend(&members);
                            let found = members.into_iter().map(CommittedTx::after_durable_commit);
                            Event::Committed(id, Ok(found.map(Verdict::Committed).collect()))
                        }
                    }
                    _ => match pausing.pop() {
                        Some(id) => Event::PauseOver(id),
                        None => continue,
                    },
                };
                for effect in machine.handle(event) {
                    match effect {
                        Effect::Commit(id, requests) => {
                            let states = requests.iter().map(|request| request.inputs.len() + request.references.len());
                            prop_assert!(requests.len() == 1 || states.sum::<usize>() <= states_max);
                            prop_assert!((1..=requests_max).contains(&requests.len()));
                            let members: Vec<_> = requests.iter().map(|request| request.tx_id).collect();
                            prop_assert_eq!(seen.entry(id).or_insert_with(|| members.clone()), &members);
                            prop_assert!(in_flight.insert(id, members).is_none());
                        }
                        Effect::Pause(id, pause_ms) => {
                            prop_assert!((10..=35).contains(&pause_ms));
                            pausing.push(id);
                        }
                        Effect::Answer(ticket, verdict) => {
                            let id = tx(u8::try_from(ticket.0).expect("small"));
                            if let Ok(verdict) = &verdict {
                                prop_assert_eq!(verdict, &Verdict::Committed(CommittedTx::after_durable_commit(id)));
                                prop_assert!(committed_ok.contains(&id));
                            }
                            prop_assert!(answered.insert(ticket.0, verdict).is_none());
                        }
                    }
                }
                prop_assert!(in_flight.len() + pausing.len() <= in_flight_max);
                prop_assert_eq!(machine.waiting() + answered.len(), usize::from(asked));
            }
            prop_assert_eq!((machine.waiting(), answered.len()), (0, usize::from(asked)));
        }
    }
}
