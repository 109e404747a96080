//! What every uniqueness provider does, whatever it stores things in. One function a behaviour, named as a claim; the macro
//! [`uniqueness_suite`] stamps all of them onto an adapter.
//!
//! A fixture brings the adapter: a new empty store, and the same store opened again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use notary_worker::domain::notary_error::{Consumption, StateUsage};
use notary_worker::domain::request::RequestParts;
use notary_worker::domain::transaction::RequestSignature;
use notary_worker::domain::verdict::Rejection;
use notary_worker::domain::{
    CheckedRequest, HashAlgorithm, PublicKey, SecureHash, StateRef, TimeWindow, Timestamp, TxId, Verdict, X500Name,
};
use notary_worker::ports::UniquenessProvider;

/// Brings an adapter to the suite.
pub trait Fixture: Send + Sync + 'static {
    /// Whether what the adapter needs is there; if not, its tests are skipped.
    fn is_available() -> bool {
        true
    }
    /// A new store, empty.
    fn new() -> Self;
    /// The store.
    fn store(&self) -> &dyn UniquenessProvider;
    /// Closes the store and opens it again, as a restart does.
    fn reopen(&mut self);
}

#[allow(unused_macros, reason = "other tests borrow only the makers of requests below")]
/// Stamps the suite onto the adapter of a [`Fixture`], as tests of a module.
macro_rules! uniqueness_suite {
    ($module:ident, $fixture:ty) => {
        uniqueness_suite!(@tests $module, $fixture;
            a_committed_request_repeated_gets_the_same_verdict,
            a_repeat_by_somebody_else_gets_the_same_verdict,
            a_second_spend_conflicts_and_names_the_hashed_consumer,
            conflicts_name_inputs_before_references_in_the_order_of_the_request,
            a_retry_succeeds_after_a_referenced_state_was_spent,
            a_retry_succeeds_after_the_window_closed,
            a_request_outside_its_window_is_refused_in_the_same_words_for_ever,
            windows_are_half_open,
            a_conflict_is_told_before_a_window_that_is_over,
            a_conflict_is_refused_in_the_same_words_after_more_of_its_states_were_spent,
            crosswise_references_never_both_succeed_in_one_batch,
            crosswise_references_never_both_succeed_one_after_the_other,
            crosswise_references_never_both_succeed_at_the_same_time,
            a_batch_is_decided_in_its_order,
            an_identical_request_twice_in_a_batch_is_one,
            a_refused_request_twice_in_a_batch_is_refused_alike,
            batching_never_changes_results,
            equal_digits_under_two_algorithms_are_two_states,
            transaction_ids_of_every_computable_algorithm_are_remembered,
            an_issuance_without_inputs_is_remembered,
            a_request_with_9999_inputs_is_committed_whole_and_conflicts_whole,
            an_empty_batch_has_no_verdicts,
            a_refused_transaction_consumes_nothing,
            a_request_whose_inputs_are_partly_consumed_consumes_nothing,
            references_are_not_consumed,
            concurrent_writers_are_as_good_as_one_after_the_other,
            every_verdict_survives_reopening,
        );
    };
    (@tests $module:ident, $fixture:ty; $($behaviour:ident,)*) => {
        mod $module {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $behaviour() {
                    if !<$fixture as suite::Fixture>::is_available() {
                        return;
                    }
                    suite::$behaviour::<$fixture>().await;
                }
            )*
        }
    };
}
pub(crate) use uniqueness_suite;

pub async fn a_committed_request_repeated_gets_the_same_verdict<F: Fixture>() {
    let store = F::new();
    let request = spend(10, &[state(1)], &[state(2)]);

    let first = commit(&store, &[&request], at(0)).await;

    assert_eq!(first, [committed(&request)]);
    assert_eq!(commit(&store, &[&request], at(0)).await, first);
    assert_eq!(commit(&store, &[&request], at(1_000_000)).await, first);
}

pub async fn a_repeat_by_somebody_else_gets_the_same_verdict<F: Fixture>() {
    let store = F::new();
    let (request, rival) = (spend(10, &[state(1)], &[]), spend(11, &[state(1)], &[]));
    let by_bob = |request: &CheckedRequest| changed(request, |parts| parts.requester = party("Bob"));

    let first = commit(&store, &[&request, &rival], at(0)).await;

    assert_eq!(commit(&store, &[&by_bob(&request), &by_bob(&rival)], at(1)).await, first);
}

pub async fn a_second_spend_conflicts_and_names_the_hashed_consumer<F: Fixture>() {
    let store = F::new();
    let (winner, rival) = (spend(10, &[state(1)], &[]), spend(11, &[state(1)], &[]));

    commit(&store, &[&winner], at(0)).await;
    let verdicts = commit(&store, &[&rival], at(1)).await;

    assert_eq!(verdicts, [conflict(&[(state(1), &winner, StateUsage::Input)])]);
    let Verdict::Rejected(Rejection::Conflict(consumed)) = &verdicts[0] else { unreachable!("compared above") };
    assert_eq!(consumed[0].hashed_consumer, winner.tx_id.0.rehash().expect("SHA-256"));
    assert_ne!(consumed[0].hashed_consumer, winner.tx_id.0, "the consumer's id itself is nobody's business");
    assert_eq!(commit(&store, &[&rival], at(2)).await, verdicts, "a refused request, repeated, is refused alike");
    assert_eq!(commit(&store, &[&winner], at(3)).await, [committed(&winner)]);
}

pub async fn conflicts_name_inputs_before_references_in_the_order_of_the_request<F: Fixture>() {
    let store = F::new();
    let (one, two) = (spend(10, &[state(3), state(1)], &[]), spend(11, &[state(4), state(2)], &[]));
    commit(&store, &[&one, &two], at(0)).await;

    // Neither the order of keys nor that of commits.
    let late = spend(12, &[state(4), state(9), state(1)], &[state(2), state(8), state(3)]);

    let expected = [conflict(&[
        (state(4), &two, StateUsage::Input),
        (state(1), &one, StateUsage::Input),
        (state(2), &two, StateUsage::Reference),
        (state(3), &one, StateUsage::Reference),
    ])];
    assert_eq!(commit(&store, &[&late], at(1)).await, expected);
    assert_eq!(commit(&store, &[&late], at(2)).await, expected);
}

pub async fn a_retry_succeeds_after_a_referenced_state_was_spent<F: Fixture>() {
    let store = F::new();
    let (reader, consumer) = (spend(10, &[state(1)], &[state(2)]), spend(11, &[state(2)], &[]));

    assert_eq!(commit(&store, &[&reader], at(0)).await, [committed(&reader)]);
    assert_eq!(commit(&store, &[&consumer], at(1)).await, [committed(&consumer)]);

    assert_eq!(commit(&store, &[&reader], at(2)).await, [committed(&reader)]);
    let newcomer = spend(12, &[state(3)], &[state(2)]);
    assert_eq!(
        commit(&store, &[&newcomer], at(3)).await,
        [conflict(&[(state(2), &consumer, StateUsage::Reference)])],
        "a first request that refers to a consumed state is refused"
    );
}

pub async fn a_retry_succeeds_after_the_window_closed<F: Fixture>() {
    let store = F::new();
    let request = within(spend(10, &[state(1)], &[]), TimeWindow::Between { from: at(0), until: at(10) });

    assert_eq!(commit(&store, &[&request], at(5)).await, [committed(&request)]);

    assert_eq!(commit(&store, &[&request], at(10)).await, [committed(&request)]);
    assert_eq!(commit(&store, &[&request], at(-1)).await, [committed(&request)], "nor does a clock set back matter");
}

pub async fn a_request_outside_its_window_is_refused_in_the_same_words_for_ever<F: Fixture>() {
    let store = F::new();
    let between = TimeWindow::Between { from: at(10), until: at(20) };
    let cases = [
        (1, between, at(9)),
        (2, between, at(20)),
        (3, TimeWindow::From(at(10)), at(-5)),
        (4, TimeWindow::Until(at(10)), Timestamp::new(1_600_000_010, 1).expect("in range")),
        (5, between, Timestamp::new(Timestamp::SECONDS_MAX, 999_999_999).expect("in range")),
    ];
    for (n, window, now) in cases {
        let request = within(spend(n, &[state(n)], &[]), window);
        let refused = [Verdict::Rejected(Rejection::TimeWindowInvalid { now, window })];

        assert_eq!(commit(&store, &[&request], now).await, refused, "{window} at {now}");
        assert_eq!(commit(&store, &[&request], at(15)).await, refused, "inside the window by now");
        let twice = [refused.clone(), refused].concat();
        assert_eq!(commit(&store, &[&request, &request], at(99)).await, twice);
    }
}

pub async fn windows_are_half_open<F: Fixture>() {
    let store = F::new();
    let window = TimeWindow::Between { from: at(10), until: at(20) };
    let before = Timestamp::new(at(20).seconds() - 1, 999_999_999).expect("in range");
    for (n, now, inside) in [(1, at(10), true), (2, before, true), (3, at(20), false)] {
        let request = within(spend(n, &[state(n)], &[]), window);
        let verdicts = commit(&store, &[&request], now).await;
        assert_eq!(verdicts == [committed(&request)], inside, "at {now}");
    }
}

pub async fn a_conflict_is_told_before_a_window_that_is_over<F: Fixture>() {
    let store = F::new();
    let winner = spend(10, &[state(1)], &[]);
    commit(&store, &[&winner], at(0)).await;

    let late = within(spend(11, &[state(1)], &[]), TimeWindow::Until(at(1)));

    let expected = conflict(&[(state(1), &winner, StateUsage::Input)]);
    assert_eq!(commit(&store, &[&late], at(5)).await, [expected]);
}

pub async fn a_conflict_is_refused_in_the_same_words_after_more_of_its_states_were_spent<F: Fixture>() {
    let store = F::new();
    let first = spend(10, &[state(1)], &[]);
    let refused = spend(11, &[state(2), state(1)], &[state(3)]);
    commit(&store, &[&first], at(0)).await;
    let words = commit(&store, &[&refused], at(1)).await;
    assert_eq!(words, [conflict(&[(state(1), &first, StateUsage::Input)])]);

    let (second, third) = (spend(12, &[state(2)], &[]), spend(13, &[state(3)], &[]));
    assert_eq!(commit(&store, &[&second, &refused, &third], at(2)).await[1..2], words);

    assert_eq!(commit(&store, &[&refused], at(3)).await, words);
}

pub async fn crosswise_references_never_both_succeed_in_one_batch<F: Fixture>() {
    let store = F::new();
    let (a, b) = crosswise(10);

    let verdicts = commit(&store, &[&a, &b], at(0)).await;

    let expected = conflict(&[(state(11), &a, StateUsage::Reference)]);
    assert_eq!(verdicts, [committed(&a), expected]);
}

pub async fn crosswise_references_never_both_succeed_one_after_the_other<F: Fixture>() {
    let store = F::new();
    let (a, b) = crosswise(10);

    assert_eq!(commit(&store, &[&b], at(0)).await, [committed(&b)]);
    let expected = conflict(&[(state(12), &b, StateUsage::Reference)]);
    assert_eq!(commit(&store, &[&a], at(0)).await, [expected]);
}

pub async fn crosswise_references_never_both_succeed_at_the_same_time<F: Fixture>() {
    let fixture = Arc::new(F::new());
    for round in 0..20 {
        let (a, b) = crosswise(1000 + round * 10);
        let decide = |request: CheckedRequest| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move { commit(&*fixture, &[&request], at(0)).await.remove(0) })
        };
        let (of_a, of_b) = (decide(a.clone()), decide(b.clone()));
        let verdicts = [of_a.await.expect("no panic"), of_b.await.expect("no panic")];

        let committed = verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Committed(_))).count();
        assert_eq!(committed, 1, "{verdicts:?}");
    }
}

pub async fn a_batch_is_decided_in_its_order<F: Fixture>() {
    let store = F::new();
    let winner = spend(10, &[state(1)], &[]);
    let rival = spend(11, &[state(1), state(2)], &[]);
    let referrer = spend(12, &[state(3)], &[state(1)]);
    let bystander = spend(13, &[state(2)], &[]);

    let verdicts = commit(&store, &[&winner, &rival, &referrer, &bystander], at(0)).await;

    let expected = [
        committed(&winner),
        conflict(&[(state(1), &winner, StateUsage::Input)]),
        conflict(&[(state(1), &winner, StateUsage::Reference)]),
        committed(&bystander),
    ];
    assert_eq!(verdicts, expected);
}

pub async fn an_identical_request_twice_in_a_batch_is_one<F: Fixture>() {
    let store = F::new();
    let request = within(spend(10, &[state(1)], &[state(2)]), TimeWindow::Until(at(10)));

    let verdicts = commit(&store, &[&request, &request, &request], at(0)).await;

    assert_eq!(verdicts, [committed(&request), committed(&request), committed(&request)]);
    assert_eq!(commit(&store, &[&request], at(11)).await, [committed(&request)]);
}

pub async fn a_refused_request_twice_in_a_batch_is_refused_alike<F: Fixture>() {
    let store = F::new();
    let (winner, rival) = (spend(10, &[state(1)], &[]), spend(11, &[state(1), state(2)], &[]));
    let other = spend(12, &[state(2)], &[]);

    let verdicts = commit(&store, &[&winner, &rival, &other, &rival], at(0)).await;

    assert_eq!(verdicts[3], verdicts[1], "although another of its states is consumed by then");
    assert_eq!(commit(&store, &[&rival], at(1)).await[0], verdicts[1]);
}

/// Random histories, decided one by one, split at random, and by the model.
pub async fn batching_never_changes_results<F: Fixture>() {
    for seed in 0..12 {
        println!("seed {seed}");
        let mut random = Random::new(seed);
        let history: Vec<(Timestamp, Vec<CheckedRequest>)> =
            (0..6).map(|epoch| (at(epoch), (0..12).map(|_| random.request()).collect())).collect();
        let (single, split, mut model) = (F::new(), F::new(), Model::default());
        for (now, requests) in &history {
            let expected: Vec<Verdict> = requests.iter().map(|request| model.decide(request, *now)).collect();

            let mut one_by_one = Vec::new();
            for request in requests {
                one_by_one.extend(commit(&single, &[request], *now).await);
            }
            let mut in_batches = Vec::new();
            let mut rest: Vec<&CheckedRequest> = requests.iter().collect();
            while !rest.is_empty() {
                let batch: Vec<_> = rest.drain(..random.below(rest.len() as u64) as usize + 1).collect();
                in_batches.extend(commit(&split, &batch, *now).await);
            }

            assert_eq!(one_by_one, expected, "seed {seed}, one by one");
            assert_eq!(in_batches, expected, "seed {seed}, in batches");
        }
    }
}

pub async fn equal_digits_under_two_algorithms_are_two_states<F: Fixture>() {
    let store = F::new();
    let same_digits = |algorithm| {
        let tx_id = TxId(SecureHash::new(algorithm, &[7; 32]).expect("32 digits"));
        StateRef { tx_id, index: 0 }
    };
    let algorithms = HashAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.digest_len() == 32);
    let states: Vec<StateRef> = algorithms.map(same_digits).collect();
    assert_eq!(states.len(), 4);

    for (n, state) in (10..).zip(&states) {
        let request = spend(n, &[*state], &[]);
        assert_eq!(commit(&store, &[&request], at(0)).await, [committed(&request)], "{state}");
    }
    let all = spend(99, &states, &[]);
    let expected: Vec<_> = (10..).zip(&states).map(|(n, state)| (*state, spend(n, &[*state], &[]))).collect();
    let expected: Vec<_> = expected.iter().map(|(state, by)| (*state, by, StateUsage::Input)).collect();
    assert_eq!(commit(&store, &[&all], at(1)).await, [conflict(&expected)]);
}

pub async fn transaction_ids_of_every_computable_algorithm_are_remembered<F: Fixture>() {
    let store = F::new();
    for (n, algorithm) in HashAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.is_computable()).enumerate() {
        let with_id = |id: &[u8]| {
            let id = TxId(algorithm.digest(&[id]).expect("computable"));
            changed(&spend(0, &[state(n as u64)], &[]), |parts| parts.tx_id = id)
        };
        let (winner, rival) = (with_id(b"winner"), with_id(b"rival"));
        let expected = [committed(&winner), conflict(&[(state(n as u64), &winner, StateUsage::Input)])];
        assert_eq!(commit(&store, &[&winner, &rival], at(0)).await, expected);
        assert_eq!(commit(&store, &[&winner, &rival], at(1)).await, expected);
    }
}

pub async fn an_issuance_without_inputs_is_remembered<F: Fixture>() {
    let mut store = F::new();
    let issuance = within(spend(10, &[], &[]), TimeWindow::Until(at(10)));
    let too_late = within(spend(11, &[], &[]), TimeWindow::Until(at(10)));
    let refused = Verdict::Rejected(Rejection::TimeWindowInvalid { now: at(10), window: TimeWindow::Until(at(10)) });
    let expected = [committed(&issuance), refused];
    assert_eq!(commit(&store, &[&issuance], at(9)).await, expected[..1]);
    assert_eq!(commit(&store, &[&too_late], at(10)).await, expected[1..]);

    store.reopen();

    assert_eq!(commit(&store, &[&issuance, &too_late], at(11)).await, expected);
}

pub async fn a_request_with_9999_inputs_is_committed_whole_and_conflicts_whole<F: Fixture>() {
    let store = F::new();
    let states: Vec<StateRef> = (0..9_999).map(|n| StateRef { index: n, ..state(u64::from(n % 7)) }).collect();
    let (winner, rival) = (spend(10, &states, &[]), spend(11, &[], &states));

    assert_eq!(commit(&store, &[&winner], at(0)).await, [committed(&winner)]);

    let expected: Vec<_> = states.iter().map(|state| (*state, &winner, StateUsage::Reference)).collect();
    assert_eq!(commit(&store, &[&rival], at(1)).await, [conflict(&expected)]);
    assert_eq!(commit(&store, &[&rival, &winner], at(2)).await, [conflict(&expected), committed(&winner)]);
}

pub async fn an_empty_batch_has_no_verdicts<F: Fixture>() {
    let store = F::new();
    assert_eq!(commit(&store, &[], at(0)).await, []);
}

pub async fn a_refused_transaction_consumes_nothing<F: Fixture>() {
    let store = F::new();
    let late = within(spend(10, &[state(1)], &[]), TimeWindow::Until(at(0)));
    let refused = commit(&store, &[&late], at(0)).await;
    assert!(matches!(refused[0], Verdict::Rejected(Rejection::TimeWindowInvalid { .. })));

    let next = spend(11, &[state(1)], &[]);
    assert_eq!(commit(&store, &[&next], at(1)).await, [committed(&next)]);
    assert_eq!(commit(&store, &[&late], at(2)).await, refused, "still for the reason it was first refused for");
}

pub async fn a_request_whose_inputs_are_partly_consumed_consumes_nothing<F: Fixture>() {
    let store = F::new();
    let first = spend(10, &[state(2)], &[]);
    let greedy = spend(11, &[state(1), state(2), state(3)], &[]);
    let expected = conflict(&[(state(2), &first, StateUsage::Input)]);
    assert_eq!(commit(&store, &[&first, &greedy], at(0)).await, [committed(&first), expected]);

    for (n, free) in [(12, state(1)), (13, state(3))] {
        let next = spend(n, &[free], &[]);
        assert_eq!(commit(&store, &[&next], at(1)).await, [committed(&next)]);
    }
}

pub async fn references_are_not_consumed<F: Fixture>() {
    let store = F::new();
    let (a, b) = (spend(10, &[state(1)], &[state(9)]), spend(11, &[state(2)], &[state(9)]));
    let consumer = spend(12, &[state(9)], &[]);

    let verdicts = commit(&store, &[&a, &b, &consumer], at(0)).await;

    assert_eq!(verdicts, [committed(&a), committed(&b), committed(&consumer)]);
}

/// Eight writers over few states. From what each was told an order is found that explains it all; in that order the model must
/// say the same. If there is none, no serial execution explains the verdicts.
pub async fn concurrent_writers_are_as_good_as_one_after_the_other<F: Fixture>() {
    let fixture = Arc::new(F::new());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let fixture = Arc::clone(&fixture);
            tokio::spawn(async move {
                let mut random = Random::new(100 + task);
                let mut told = Vec::new();
                for _ in 0..12 {
                    let batch: Vec<CheckedRequest> = (0..=random.below(4)).map(|_| random.request()).collect();
                    let asked: Vec<&CheckedRequest> = batch.iter().collect();
                    let verdicts = commit(&*fixture, &asked, at(0)).await;
                    told.extend(batch.into_iter().zip(verdicts));
                }
                told
            })
        })
        .collect();
    let mut verdicts: BTreeMap<TxId, (CheckedRequest, Verdict)> = BTreeMap::new();
    for task in tasks {
        for (request, verdict) in task.await.expect("no panic") {
            let first = verdicts.entry(request.tx_id).or_insert_with(|| (request, verdict.clone()));
            assert_eq!(first.1, verdict, "one transaction, one verdict, whoever asks");
        }
    }
    let order = serial_order(&verdicts);
    let mut model = Model::default();
    for tx_id in order {
        let (request, verdict) = &verdicts[&tx_id];
        assert_eq!(&model.decide(request, at(0)), verdict);
    }
}

pub async fn every_verdict_survives_reopening<F: Fixture>() {
    let mut fixture = F::new();
    let mut random = Random::new(7);
    let mut told: Vec<(CheckedRequest, Verdict)> = Vec::new();
    for epoch in 0..5 {
        let batch: Vec<CheckedRequest> = (0..15).map(|_| random.request()).collect();
        let asked: Vec<&CheckedRequest> = batch.iter().collect();
        let verdicts = commit(&fixture, &asked, at(epoch)).await;
        told.extend(batch.into_iter().zip(verdicts));

        fixture.reopen();

        let asked: Vec<&CheckedRequest> = told.iter().map(|(request, _)| request).collect();
        let expected: Vec<Verdict> = told.iter().map(|(_, verdict)| verdict.clone()).collect();
        assert_eq!(commit(&fixture, &asked, at(1000)).await, expected);
    }
    let of = |wanted: fn(&Verdict) -> bool| told.iter().filter(|(_, verdict)| wanted(verdict)).count();
    assert!(of(|verdict| matches!(verdict, Verdict::Committed(_))) > 5, "the history is worth its name");
    assert!(of(|verdict| matches!(verdict, Verdict::Rejected(Rejection::Conflict(_)))) > 5);
    assert!(of(|verdict| matches!(verdict, Verdict::Rejected(Rejection::TimeWindowInvalid { .. }))) > 0);
}

/// The rule in ten lines, for one request after another.
#[derive(Default)]
pub struct Model {
    consumers: HashMap<StateRef, TxId>,
    verdicts: HashMap<TxId, Verdict>,
}

impl Model {
    pub fn decide(&mut self, request: &CheckedRequest, now: Timestamp) -> Verdict {
        if let Some(verdict) = self.verdicts.get(&request.tx_id) {
            return verdict.clone();
        }
        let inputs = request.inputs.iter().map(|state| (state, StateUsage::Input));
        let used = inputs.chain(request.references.iter().map(|state| (state, StateUsage::Reference)));
        let consumed: Vec<Consumption> = used
            .filter_map(|(state, usage)| Some(Consumption::new(*state, *self.consumers.get(state)?, usage)))
            .collect();
        let verdict = match request.time_window {
            _ if !consumed.is_empty() => Verdict::Rejected(Rejection::Conflict(consumed)),
            Some(window) if !window.contains(now) => Verdict::Rejected(Rejection::TimeWindowInvalid { now, window }),
            _ => committed(request),
        };
        if verdict == committed(request) {
            self.consumers.extend(request.inputs.iter().map(|state| (*state, request.tx_id)));
        }
        self.verdicts.insert(request.tx_id, verdict.clone());
        verdict
    }
}

/// An order of decisions that explains the verdicts: who used a state and was not told of its consumer came before it; who was
/// told came after.
pub fn serial_order(verdicts: &BTreeMap<TxId, (CheckedRequest, Verdict)>) -> Vec<TxId> {
    let mut consumers: HashMap<StateRef, TxId> = HashMap::new();
    for (tx_id, (request, verdict)) in verdicts {
        if matches!(verdict, Verdict::Committed(_)) {
            for state in &request.inputs {
                assert_eq!(consumers.insert(*state, *tx_id), None, "{state} was consumed twice");
            }
        }
    }
    let mut before: BTreeMap<TxId, BTreeSet<TxId>> = verdicts.keys().map(|tx_id| (*tx_id, BTreeSet::new())).collect();
    for (tx_id, (request, verdict)) in verdicts {
        let told: HashSet<StateRef> = match verdict {
            Verdict::Rejected(Rejection::Conflict(consumed)) => consumed.iter().map(|found| found.state).collect(),
            _ => HashSet::new(),
        };
        for state in request.inputs.iter().chain(&request.references) {
            match consumers.get(state) {
                Some(consumer) if told.contains(state) => before.entry(*tx_id).or_default().insert(*consumer),
                Some(consumer) if consumer != tx_id => before.entry(*consumer).or_default().insert(*tx_id),
                Some(_) => false,
                None => {
                    assert!(!told.contains(state), "{state} is said to be consumed, but nobody did");
                    false
                }
            };
        }
    }
    let mut order = Vec::new();
    while !before.is_empty() {
        let next = before.iter().find(|(_, earlier)| earlier.is_empty()).map(|(tx_id, _)| *tx_id);
        let next = next.expect("a serial order explains the verdicts");
        before.remove(&next);
        before.values_mut().for_each(|earlier| {
            earlier.remove(&next);
        });
        order.push(next);
    }
    order
}

/// xorshift64*: requests over few states, so that they meet; some of them repeats.
pub struct Random {
    word: u64,
    states: u64,
    made: Vec<CheckedRequest>,
}

impl Random {
    /// Requests over 30 states: enough for six dozen to meet often and not always.
    pub fn new(seed: u64) -> Self {
        Self::over_states(30, seed)
    }

    /// Requests over so many states, at least five.
    pub fn over_states(states: u64, seed: u64) -> Self {
        Self { word: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, states, made: Vec::new() }
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.word ^= self.word >> 12;
        self.word ^= self.word << 25;
        self.word ^= self.word >> 27;
        (self.word.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    pub fn request(&mut self) -> CheckedRequest {
        if !self.made.is_empty() && self.below(4) == 0 {
            let old = self.below(self.made.len() as u64) as usize;
            return self.made[old].clone();
        }
        let mut used: Vec<StateRef> = Vec::new();
        let mut take = |random: &mut Self, most: u64| -> Vec<StateRef> {
            let wanted = random.below(most + 1) as usize;
            let mut taken = Vec::new();
            while taken.len() < wanted {
                let state = state(random.below(random.states));
                if !used.contains(&state) {
                    used.push(state);
                    taken.push(state);
                }
            }
            taken
        };
        let (inputs, references) = (take(self, 3), take(self, 2));
        // The id follows from the content, as it does in truth: two equal transactions are one.
        let mut content: Vec<u8> = inputs.iter().flat_map(StateRef::to_key).collect();
        content.push(b'|');
        content.extend(references.iter().flat_map(StateRef::to_key));
        let window = (self.below(4) == 0).then(|| self.below(6) as i64);
        content.extend(window.unwrap_or(-1).to_be_bytes());
        let id = TxId(HashAlgorithm::Sha256.digest(&[&content]).expect("SHA-256"));
        let request = changed(&spend(0, &inputs, &references), |parts| {
            parts.tx_id = id;
            parts.time_window = window.map(|from| TimeWindow::Between { from: at(from), until: at(from + 3) });
        });
        self.made.push(request.clone());
        request
    }
}

/// Two transactions, each of which refers to what the other consumes: `n + 1` and `n + 2`.
pub fn crosswise(n: u64) -> (CheckedRequest, CheckedRequest) {
    let (one, two) = (state(n + 1), state(n + 2));
    (spend(n + 1, &[one], &[two]), spend(n + 2, &[two], &[one]))
}

pub async fn commit<F: Fixture>(fixture: &F, batch: &[&CheckedRequest], now: Timestamp) -> Vec<Verdict> {
    let batch: Vec<CheckedRequest> = batch.iter().copied().cloned().collect();
    let verdicts = fixture.store().commit(&batch, now).await.expect("the store is available");
    assert_eq!(verdicts.len(), batch.len(), "one verdict per request");
    verdicts
}

pub fn at(seconds: i64) -> Timestamp {
    Timestamp::new(1_600_000_000 + seconds, 0).expect("in range")
}

pub fn state(n: u64) -> StateRef {
    let tx_id = HashAlgorithm::Sha256.digest(&[b"state", &n.to_be_bytes()]).expect("SHA-256");
    StateRef { tx_id: TxId(tx_id), index: (n % 3) as u32 }
}

pub fn party(name: &str) -> X500Name {
    X500Name {
        common_name: None,
        organisation_unit: None,
        organisation: name.into(),
        locality: "Oslo".into(),
        state: None,
        country: "NO".into(),
    }
}

/// Transaction number `n`, asked for by Alice.
pub fn spend(n: u64, inputs: &[StateRef], references: &[StateRef]) -> CheckedRequest {
    CheckedRequest::assume_checked(RequestParts {
        tx_id: TxId(HashAlgorithm::Sha256.digest(&[b"transaction", &n.to_be_bytes()]).expect("SHA-256")),
        inputs: inputs.to_vec(),
        references: references.to_vec(),
        time_window: None,
        requester: party("Alice"),
        request_signature: RequestSignature {
            by: public_key(),
            bytes: n.to_be_bytes().repeat(8), // As long as an Ed25519 signature.
            platform_version: 13,
        },
    })
}

/// An Ed25519 key: the prefix of its DER form, then the curve's base point.
pub fn public_key() -> PublicKey {
    let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0x58];
    spki.extend([0x66; 31]);
    PublicKey::from_spki(&spki).expect("a key")
}

pub fn within(request: CheckedRequest, window: TimeWindow) -> CheckedRequest {
    changed(&request, |parts| parts.time_window = Some(window))
}

pub fn changed(request: &CheckedRequest, change: impl FnOnce(&mut RequestParts)) -> CheckedRequest {
    let mut parts = RequestParts::clone(request);
    change(&mut parts);
    CheckedRequest::assume_checked(parts)
}

pub fn committed(request: &CheckedRequest) -> Verdict {
    Verdict::Committed(notary_worker::domain::CommittedTx::after_durable_commit(request.tx_id))
}

pub fn conflict(consumed: &[(StateRef, &CheckedRequest, StateUsage)]) -> Verdict {
    let consumed = consumed.iter().map(|(state, by, usage)| Consumption::new(*state, by.tx_id, *usage));
    Verdict::Rejected(Rejection::Conflict(consumed.collect()))
}
