//! The signing stage: has committed transactions signed, alone or many under one Merkle root.
//!
//! It never touches the uniqueness stage: a slow key makes signatures late, not commits (FEATURES gap 2). What it gives back is
//! committed all the same, and gets its signature when the request comes again.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Backoff, GaveUp, Ticket};
use crate::domain::merkle_batch::TransactionSignature;
use crate::domain::{CommittedTx, HashAlgorithm};
use crate::ports::signer::SignError;

/// Identifies one signature in the making.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BatchId(pub u64);

/// While a signature costs less than this, each transaction is signed alone: four at a time then make 4 000 a second, more than a
/// store commits, and clients are spared the Merkle proofs.
const ALONE_BELOW: Duration = Duration::from_millis(1);
/// Most transactions under one signature where the stage goes by the key. Each client's proof then has eight hashes; a key of
/// 50 ms signs 5 000 transactions a second.
pub const AUTOMATIC_BATCH_MAX: usize = 256;
/// How many signatures the remembered cost is smoothed over: few enough to follow a token that becomes slow within a dozen, many
/// enough that a single slow one changes little.
const COST_MEMORY: u32 = 8;
/// A slower signature counts as this: the arithmetic stays in bounds, and the cost comes down again soon.
const COST_MAX: Duration = Duration::from_secs(1);

/// The stage's limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Most transactions under one signature; 1 signs each alone, 0 goes by what a signature costs.
    pub batch_transactions_max: usize,
    /// Most signatures in the making at once.
    pub signatures_in_flight_max: usize,
    /// How often one signature is tried before its requests are given back.
    pub attempts_max: u32,
    /// The pause between attempts.
    pub backoff: Backoff,
}

/// What happens to the stage.
#[derive(Debug)]
pub enum Event {
    /// Someone wants a signature.
    Requested(Ticket, CommittedTx),
    /// The key answered after so long, and its signature was verified: one per transaction, in order.
    Signed(BatchId, Result<Vec<TransactionSignature>, SignError>, Duration),
    /// A pause asked for by [`Effect::Pause`] is over.
    PauseOver(BatchId),
}

/// What the stage wants done.
#[derive(Debug)]
pub enum Effect {
    /// Sign these transactions: one alone by its plain id, several under one root. They are distinct and share an algorithm.
    Sign(BatchId, Vec<CommittedTx>),
    /// Report [`Event::PauseOver`] after so many milliseconds (plus jitter).
    Pause(BatchId, u64),
    /// Answer one request.
    Answer(Ticket, Result<TransactionSignature, GaveUp>),
}

/// One transaction and everyone who waits for its signature: a transaction may occur only once under a root.
#[derive(Debug)]
struct Member {
    tx: CommittedTx,
    tickets: Vec<Ticket>,
}

#[derive(Debug)]
struct Batch {
    members: Vec<Member>,
    attempts: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Signing {
    limits: Limits,
    forming: VecDeque<(Ticket, CommittedTx)>,
    open: BTreeMap<BatchId, Batch>,
    next_batch: u64,
    /// What a signature costs, smoothed; unknown before the first.
    cost: Option<Duration>,
}

impl Signing {
    /// An idle stage.
    pub fn new(limits: Limits) -> Self {
        Self { limits, forming: VecDeque::new(), open: BTreeMap::new(), next_batch: 0, cost: None }
    }

    /// Requests without a signature.
    pub fn waiting(&self) -> usize {
        let open = self.open.values().flat_map(|batch| &batch.members).map(|member| member.tickets.len());
        self.forming.len() + open.sum::<usize>()
    }

    /// Handles one event.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Requested(ticket, tx) => self.forming.push_back((ticket, tx)),
            Event::PauseOver(id) => {
                if let Some(batch) = self.open.get(&id) {
                    effects.push(Effect::Sign(id, transactions(batch)));
                }
            }
            Event::Signed(id, result, took) => {
                if let Some(batch) = self.open.remove(&id) {
                    // A failure tells of a deadline or a broken token, not of the cost of a signature.
                    if result.is_ok() {
                        self.learn(took);
                    }
                    self.signed(id, batch, result, &mut effects);
                }
            }
        }
        self.start(&mut effects);
        effects
    }

    fn signed(
        &mut self,
        id: BatchId,
        mut batch: Batch,
        result: Result<Vec<TransactionSignature>, SignError>,
        effects: &mut Vec<Effect>,
    ) {
        batch.attempts += 1;
        let error = match result {
            Ok(signatures) if signatures.len() == batch.members.len() => {
                for (member, signature) in batch.members.into_iter().zip(signatures) {
                    let answers =
                        member.tickets.into_iter().map(|ticket| Effect::Answer(ticket, Ok(signature.clone())));
                    effects.extend(answers);
                }
                return;
            }
            Ok(signatures) => format!("{} signatures for {} transactions", signatures.len(), batch.members.len()),
            Err(error) => error.to_string(),
        };
        if batch.attempts < self.limits.attempts_max {
            effects.push(Effect::Pause(id, self.limits.backoff.pause_ms(batch.attempts)));
            self.open.insert(id, batch);
        } else {
            let gave_up = GaveUp { stage: "signing", reason: error };
            let tickets = batch.members.into_iter().flat_map(|member| member.tickets);
            effects.extend(tickets.map(|ticket| Effect::Answer(ticket, Err(gave_up.clone()))));
        }
    }

    fn learn(&mut self, took: Duration) {
        self.cost = Some(match self.cost {
            Some(cost) => (cost * (COST_MEMORY - 1) + took.min(COST_MAX)) / COST_MEMORY,
            None => took.min(COST_MAX),
        });
    }

    /// How many transactions the next signature may cover.
    fn batch_max(&self) -> usize {
        match (self.limits.batch_transactions_max, self.cost) {
            (0, Some(cost)) if cost >= ALONE_BELOW => AUTOMATIC_BATCH_MAX,
            (0, _) => 1,
            (limit, _) => limit,
        }
    }

    fn start(&mut self, effects: &mut Vec<Effect>) {
        while self.open.len() < self.limits.signatures_in_flight_max {
            let Some(batch) = self.form() else { return };
            let id = BatchId(self.next_batch);
            self.next_batch += 1;
            effects.push(Effect::Sign(id, transactions(&batch)));
            self.open.insert(id, batch);
        }
    }

    /// The next batch in order of arrival: up to the limit of distinct transactions, all of the first one's algorithm.
    fn form(&mut self) -> Option<Batch> {
        let algorithm: HashAlgorithm = self.forming.front()?.1.tx_id().0.algorithm();
        let batch_max = self.batch_max();
        let mut places = std::collections::HashMap::new();
        let mut members: Vec<Member> = Vec::new();
        while let Some((ticket, tx)) = self.forming.front().copied() {
            if tx.tx_id().0.algorithm() != algorithm {
                break;
            }
            match places.get(&tx.tx_id()) {
                Some(&place) => {
                    let member: &mut Member = &mut members[place];
                    member.tickets.push(ticket);
                }
                None if members.len() >= batch_max => break,
                None => {
                    places.insert(tx.tx_id(), members.len());
                    members.push(Member { tx, tickets: vec![ticket] });
                }
            }
            self.forming.pop_front();
        }
        Some(Batch { members, attempts: 0 })
    }
}

fn transactions(batch: &Batch) -> Vec<CommittedTx> {
    batch.members.iter().map(|member| member.tx).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::TxId;
    use crate::stages::fixtures::{BACKOFF, committed, signature, tx, tx_under};

    const LIMITS: Limits =
        Limits { batch_transactions_max: 3, signatures_in_flight_max: 1, attempts_max: 2, backoff: BACKOFF };

    const FAST: Duration = Duration::from_micros(100);

    fn ask(machine: &mut Signing, ticket: u64, number: u8) -> Vec<Effect> {
        machine.handle(Event::Requested(Ticket(ticket), committed(number)))
    }

    /// The one signature wanted among effects: its batch and transactions.
    fn sign(effects: &[Effect]) -> (BatchId, Vec<TxId>) {
        let mut batches = effects.iter().filter_map(|effect| match effect {
            Effect::Sign(id, transactions) => Some((*id, transactions.iter().map(CommittedTx::tx_id).collect())),
            _ => None,
        });
        let batch = batches.next().expect("a signature is wanted");
        assert!(batches.next().is_none(), "one only");
        batch
    }

    /// Answers in the order given: ticket and the signature's number, or none.
    fn answers(effects: Vec<Effect>) -> Vec<(u64, Option<u8>)> {
        let answers = effects.into_iter().filter_map(|effect| match effect {
            Effect::Answer(ticket, signature) => Some((ticket.0, signature.ok().map(|signature| signature.bytes[0]))),
            _ => None,
        });
        answers.collect()
    }

    fn signatures(numbers: &[u8]) -> Result<Vec<TransactionSignature>, SignError> {
        Ok(numbers.iter().map(|number| signature(*number)).collect())
    }

    fn unavailable() -> Result<Vec<TransactionSignature>, SignError> {
        Err(SignError::Unavailable("removed".into()))
    }

    #[test]
    fn a_lone_transaction_is_signed_at_once() {
        let mut machine = Signing::new(LIMITS);
        let (batch, members) = sign(&ask(&mut machine, 1, 7));
        assert_eq!(members, [tx(7)]);
        assert_eq!(answers(machine.handle(Event::Signed(batch, signatures(&[7]), FAST))), [(1, Some(7))]);
        assert_eq!(machine.waiting(), 0);
    }

    #[test]
    fn a_batch_forms_only_while_the_key_is_busy_and_keeps_its_limit() {
        let mut machine = Signing::new(Limits { signatures_in_flight_max: 2, ..LIMITS });
        let (first, _) = sign(&ask(&mut machine, 1, 1));
        let (second, _) = sign(&ask(&mut machine, 2, 2));
        for number in 3..=6 {
            assert!(ask(&mut machine, u64::from(number), number).is_empty());
        }
        assert_eq!(machine.waiting(), 6);
        assert_eq!(sign(&machine.handle(Event::Signed(second, signatures(&[2]), FAST))).1, [tx(3), tx(4), tx(5)]);
        assert_eq!(sign(&machine.handle(Event::Signed(first, signatures(&[1]), FAST))).1, [tx(6)]);
    }

    #[test]
    fn all_who_wait_for_one_transaction_share_one_signature() {
        let mut machine = Signing::new(Limits { batch_transactions_max: 2, ..LIMITS });
        let (first, _) = sign(&ask(&mut machine, 0, 1));
        for (ticket, number) in [(1, 2), (2, 3), (3, 2), (4, 3), (5, 2), (6, 4), (7, 2)] {
            assert!(ask(&mut machine, ticket, number).is_empty());
        }
        // Repeats take no room; what comes after the first that finds none keeps its place in the queue.
        let (batch, members) = sign(&machine.handle(Event::Signed(first, signatures(&[1]), FAST)));
        assert_eq!(members, [tx(2), tx(3)]);
        let effects = machine.handle(Event::Signed(batch, signatures(&[22, 33]), FAST));
        assert_eq!(sign(&effects).1, [tx(4), tx(2)], "a transaction signed before can be signed again");
        assert_eq!(answers(effects), [(1, Some(22)), (3, Some(22)), (5, Some(22)), (2, Some(33)), (4, Some(33))]);
    }

    #[test]
    fn algorithms_are_never_mixed_in_one_signature_and_keep_their_order() {
        let mut machine = Signing::new(Limits { batch_transactions_max: 10, ..LIMITS });
        let (mut batch, _) = sign(&ask(&mut machine, 0, 0));
        let (sha256, sha384) = (HashAlgorithm::Sha256, HashAlgorithm::Sha384);
        let asked = [(sha256, 1), (sha256, 2), (sha384, 1), (sha384, 2), (sha256, 1), (sha384, 3)];
        for (ticket, (algorithm, number)) in asked.into_iter().enumerate() {
            let tx = CommittedTx::after_durable_commit(tx_under(algorithm, number));
            assert!(machine.handle(Event::Requested(Ticket(ticket as u64), tx)).is_empty());
        }
        let mut count = 1;
        for expected in [&[(sha256, 1), (sha256, 2)][..], &[(sha384, 1), (sha384, 2)], &[(sha256, 1)], &[(sha384, 3)]] {
            let (next, members) = sign(&machine.handle(Event::Signed(batch, signatures(&vec![9; count]), FAST)));
            let expected: Vec<_> = expected.iter().map(|(algorithm, number)| tx_under(*algorithm, *number)).collect();
            assert_eq!(members, expected);
            (batch, count) = (next, members.len());
        }
    }

    #[test]
    fn a_failed_signature_is_tried_again_as_it_was_then_all_of_it_is_given_back() {
        let mut machine = Signing::new(LIMITS);
        let (first, _) = sign(&ask(&mut machine, 1, 1));
        for (ticket, number) in [(2, 2), (3, 3), (4, 2)] {
            ask(&mut machine, ticket, number);
        }
        let (batch, members) = sign(&machine.handle(Event::Signed(first, signatures(&[1]), FAST)));
        let effects = machine.handle(Event::Signed(batch, unavailable(), FAST));
        assert!(matches!(effects[..], [Effect::Pause(id, 10)] if id == batch), "{effects:?}");
        assert!(ask(&mut machine, 5, 5).is_empty(), "nobody joins, and nobody overtakes");
        assert_eq!(sign(&machine.handle(Event::PauseOver(batch))), (batch, members));

        let effects = machine.handle(Event::Signed(batch, unavailable(), FAST));
        assert_eq!(sign(&effects).1, [tx(5)], "the next ones get their chance");
        assert_eq!(answers(effects), [(2, None), (4, None), (3, None)]);
    }

    #[test]
    fn a_batch_with_too_few_or_too_many_signatures_gives_none_away() {
        for wrong in [&[][..], &[1, 1]] {
            let mut machine = Signing::new(LIMITS);
            let (batch, _) = sign(&ask(&mut machine, 1, 1));
            let effects = machine.handle(Event::Signed(batch, signatures(wrong), FAST));
            assert!(matches!(effects[..], [Effect::Pause(..)]), "{effects:?}");
        }
    }

    #[test]
    fn each_is_signed_alone_by_a_limit_of_one_or_a_fast_key() {
        for (batch_transactions_max, took) in [(1, FAST), (1, Duration::from_secs(1)), (0, FAST)] {
            let mut machine = Signing::new(Limits { batch_transactions_max, ..LIMITS });
            let (first, _) = sign(&ask(&mut machine, 1, 1));
            ask(&mut machine, 2, 2);
            ask(&mut machine, 3, 3);
            assert_eq!(sign(&machine.handle(Event::Signed(first, signatures(&[1]), took))).1, [tx(2)]);
        }
    }

    #[test]
    fn news_of_a_batch_that_is_not_open_changes_nothing() {
        let mut machine = Signing::new(LIMITS);
        let (batch, _) = sign(&ask(&mut machine, 1, 1));
        machine.handle(Event::Signed(batch, signatures(&[1]), FAST));
        for event in [Event::Signed(batch, unavailable(), FAST), Event::PauseOver(batch)] {
            assert!(machine.handle(event).is_empty());
        }
    }

    const SLOW: Duration = Duration::from_millis(20);
    const AUTOMATIC: Limits = Limits { batch_transactions_max: 0, ..LIMITS };

    #[test]
    fn with_a_slow_key_all_that_wait_share_a_signature_until_it_is_fast_again() {
        let mut machine = Signing::new(AUTOMATIC);
        let (mut batch, members) = sign(&ask(&mut machine, 0, 0));
        assert_eq!(members.len(), 1);
        for number in 1..=200 {
            ask(&mut machine, u64::from(number), number);
        }
        let effects = machine.handle(Event::Signed(batch, signatures(&[0]), SLOW));
        assert_eq!(sign(&effects).1.len(), 200, "known to be slow after one signature");

        batch = sign(&effects).0;
        for number in 1..=100 {
            ask(&mut machine, 1_000 + u64::from(number), number);
        }
        let (mut sizes, mut count) = (Vec::new(), 200);
        loop {
            let effects = machine.handle(Event::Signed(batch, signatures(&vec![9; count]), FAST));
            if !effects.iter().any(|effect| matches!(effect, Effect::Sign(..))) {
                break;
            }
            let (next, members) = sign(&effects);
            (batch, count) = (next, members.len());
            sizes.push(count);
            ask(&mut machine, 2_000, 7);
            if sizes.len() > 60 {
                break;
            }
        }
        assert_eq!(sizes.first(), Some(&100), "one fast signature is no fast key");
        assert_eq!(sizes.last(), Some(&1), "{sizes:?}");
    }

    #[test]
    fn a_failure_says_nothing_about_the_cost() {
        let mut machine = Signing::new(Limits { attempts_max: 9, ..AUTOMATIC });
        let (batch, _) = sign(&ask(&mut machine, 0, 0));
        machine.handle(Event::Signed(batch, unavailable(), Duration::from_secs(60)));
        machine.handle(Event::PauseOver(batch));
        ask(&mut machine, 1, 1);
        ask(&mut machine, 2, 2);
        assert_eq!(sign(&machine.handle(Event::Signed(batch, signatures(&[0]), FAST))).1, [tx(1)]);
    }

    proptest::proptest! {
        /// Whatever a signature costs from one to the next: no more under one than the limit, everyone is answered, the oldest
        /// first; and the same events give the same batches.
        #[test]
        fn any_costs_keep_the_limit_and_lose_nobody(
            costs in proptest::collection::vec(0u64..40_000, 1..60),
            arrivals in proptest::collection::vec(0u8..9, 1..60),
        ) {
            let run = || {
                let mut machine = Signing::new(AUTOMATIC);
                let (mut asked, mut answered, mut sizes) = (0u64, 0usize, Vec::new());
                let mut open: Option<(BatchId, usize)> = None;
                let mut step = 0;
                while step < arrivals.len() || machine.waiting() > 0 {
                    for _ in 0..arrivals.get(step).copied().unwrap_or(0) {
                        let effects = ask(&mut machine, asked, asked as u8);
                        asked += 1;
                        if let Some(Effect::Sign(id, members)) = effects.into_iter().next() {
                            open = Some((id, members.len()));
                        }
                    }
                    if let Some((id, count)) = open.take() {
                        sizes.push(count);
                        let took = Duration::from_micros(costs[step % costs.len()]);
                        for effect in machine.handle(Event::Signed(id, signatures(&vec![1; count]), took)) {
                            match effect {
                                Effect::Sign(id, members) => open = Some((id, members.len())),
                                Effect::Answer(ticket, signature) => {
                                    assert!(signature.is_ok());
                                    assert!(ticket.0 < asked);
                                    answered += 1;
                                }
                                Effect::Pause(..) => panic!("nothing failed"),
                            }
                        }
                    }
                    step += 1;
                }
                assert_eq!(answered as u64, asked);
                assert!(sizes.iter().all(|size| *size <= AUTOMATIC_BATCH_MAX));
                if costs.iter().all(|cost| *cost < 1_000) {
                    assert!(sizes.iter().all(|size| *size == 1), "{sizes:?}");
                }
                sizes
            };
            proptest::prop_assert_eq!(run(), run());
        }
    }
}
