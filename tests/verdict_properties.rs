//! The rule that decides, held against a model of ten lines: random requests over few states, in random batches.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;

use notary_worker::domain::request::RequestParts;
use notary_worker::domain::transaction::RequestSignature;
use notary_worker::domain::verdict::{Decision, History, Outcome, Rejection, decide};
use notary_worker::domain::{CheckedRequest, PublicKey, SecureHash, StateRef, TimeWindow, Timestamp, TxId, X500Name};
use proptest::prelude::*;

/// What a request does, in small numbers. Its transaction id stands for all of it, as a real id does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Plan {
    inputs: Vec<u8>,
    references: Vec<u8>,
    window: Option<(i64, i64)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let states = prop::collection::hash_set(0u8..8, 0..4);
    (states.clone(), states, prop::option::of((0i64..6, 0i64..6))).prop_map(|(inputs, references, window)| {
        let references = references.difference(&inputs).copied().collect::<HashSet<_>>();
        let sorted = |set: HashSet<u8>| {
            let mut states: Vec<_> = set.into_iter().collect();
            states.sort_unstable();
            states
        };
        Plan { references: sorted(references), inputs: sorted(inputs), window }
    })
}

fn state(number: u8) -> StateRef {
    StateRef { tx_id: TxId(SecureHash::sha256([number; 32])), index: 0 }
}

fn alice() -> X500Name {
    X500Name {
        common_name: None,
        organisation_unit: None,
        organisation: "Alice Corp".into(),
        locality: "Madrid".into(),
        state: None,
        country: "ES".into(),
    }
}

fn request(plan: &Plan) -> CheckedRequest {
    // The smallest valid Ed25519 SubjectPublicKeyInfo: RFC 8410's prefix and the base point.
    let mut spki = hex::decode("302a300506032b6570032100").expect("hex");
    spki.extend_from_slice(
        &hex::decode("5866666666666666666666666666666666666666666666666666666666666666").expect("hex"),
    );
    let at = |seconds| Timestamp::new(seconds, 0).expect("in range");
    let digest = notary_worker::domain::HashAlgorithm::Sha256.digest(&[format!("{plan:?}").as_bytes()]);
    CheckedRequest::assume_checked(RequestParts {
        tx_id: TxId(digest.expect("computable")),
        inputs: plan.inputs.iter().copied().map(state).collect(),
        references: plan.references.iter().copied().map(state).collect(),
        time_window: plan.window.map(|(from, until)| TimeWindow::Between { from: at(from), until: at(until) }),
        requester: alice(),
        request_signature: RequestSignature {
            by: PublicKey::from_spki(&spki).expect("a key"),
            bytes: vec![0; 64],
            platform_version: 12,
        },
    })
}

/// The model: one request at a time, everything remembered.
#[derive(Default)]
struct Model {
    outcomes: HashMap<Plan, Outcome>,
    consumed: HashMap<u8, TxId>,
}

impl Model {
    fn decide(&mut self, plan: &Plan, now: i64) -> Outcome {
        if let Some(outcome) = self.outcomes.get(plan) {
            return outcome.clone();
        }
        let in_time = plan.window.is_none_or(|(from, until)| from <= now && now < until);
        let free = plan.inputs.iter().chain(&plan.references).all(|s| !self.consumed.contains_key(s));
        let outcome = match (free, in_time) {
            (true, true) => Outcome::Committed,
            (false, _) => Outcome::Rejected(Rejection::Conflict(Vec::new())),
            (true, false) => {
                let tx = request(plan);
                let window = tx.time_window.expect("only a window can be missed");
                Outcome::Rejected(Rejection::TimeWindowInvalid {
                    now: Timestamp::new(now, 0).expect("in range"),
                    window,
                })
            }
        };
        if outcome == Outcome::Committed {
            self.consumed.extend(plan.inputs.iter().map(|s| (*s, request(plan).tx_id)));
        }
        self.outcomes.insert(plan.clone(), outcome.clone());
        outcome
    }
}

/// A store for the rule under test: what earlier batches decided.
#[derive(Default)]
struct Records {
    outcomes: HashMap<TxId, Outcome>,
    consumed: HashMap<StateRef, TxId>,
}

impl History for Records {
    type Error = Infallible;

    fn outcome(&mut self, request: &CheckedRequest) -> Result<Option<Outcome>, Infallible> {
        Ok(self.outcomes.get(&request.tx_id).cloned())
    }

    fn consumer(&mut self, state: &StateRef) -> Result<Option<TxId>, Infallible> {
        Ok(self.consumed.get(state).copied())
    }
}

impl Records {
    fn commit(&mut self, batch: &[CheckedRequest], now: i64) -> Vec<Decision> {
        let Ok(decisions) = decide(batch, Timestamp::new(now, 0).expect("in range"), self);
        for (request, decision) in batch.iter().zip(&decisions) {
            if !decision.repeat {
                assert_eq!(self.outcomes.insert(request.tx_id, decision.outcome.clone()), None, "decided twice");
                if decision.outcome == Outcome::Committed {
                    for input in &request.inputs {
                        assert_eq!(self.consumed.insert(*input, request.tx_id), None, "{input} spent twice");
                    }
                }
            }
        }
        decisions
    }
}

/// The consumed states a conflict must name: the model knows who holds them.
fn without_details(outcome: &Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected(Rejection::Conflict(_)) => Outcome::Rejected(Rejection::Conflict(Vec::new())),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Verdicts equal the model's, whatever the batches; and they name exactly the states consumed by others at that time.
    #[test]
    fn verdicts_are_the_models_whatever_the_batches(
        batches in prop::collection::vec((prop::collection::vec(plan(), 1..6), 0i64..6), 1..8),
        repeats in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut batches = batches;
        let plans: Vec<Plan> = batches.iter().flat_map(|(plans, _)| plans.clone()).collect();
        for (n, repeat) in repeats.iter().enumerate() {
            let at = n % batches.len();
            batches[at].0.push(repeat.get(&plans).clone());
        }
        let (mut model, mut records, mut alone) = (Model::default(), Records::default(), Records::default());
        for (plans, now) in &batches {
            let batch: Vec<_> = plans.iter().map(request).collect();
            let decisions = records.commit(&batch, *now);
            for ((plan, request), decision) in plans.iter().zip(&batch).zip(&decisions) {
                let held = model.consumed.clone();
                let first = !model.outcomes.contains_key(plan);
                prop_assert_eq!(&without_details(&decision.outcome), &model.decide(plan, *now));
                if let (Outcome::Rejected(Rejection::Conflict(named)), true) = (&decision.outcome, first) {
                    let expected: Vec<_> = plan.inputs.iter().chain(&plan.references).filter_map(|s| {
                        held.get(s).map(|tx| (state(*s), tx.hashed().expect("computable")))
                    }).collect();
                    let named: Vec<_> = named.iter().map(|c| (c.state, c.hashed_consumer)).collect();
                    prop_assert_eq!(named, expected);
                }
                // One by one gives the very same decisions, details included.
                prop_assert_eq!(&alone.commit(std::slice::from_ref(request), *now)[0], decision);
            }
        }
    }

    /// Two transactions that refer to each other's inputs never both succeed.
    #[test]
    fn crosswise_references_never_both_succeed(together in any::<bool>(), a in 0u8..4, b in 4u8..8) {
        let plan = |input, reference| Plan { inputs: vec![input], references: vec![reference], window: None };
        let pair = [request(&plan(a, b)), request(&plan(b, a))];
        let mut records = Records::default();
        let decisions = match together {
            true => records.commit(&pair, 0),
            false => pair.iter().flat_map(|one| records.commit(std::slice::from_ref(one), 0)).collect(),
        };
        prop_assert_eq!(&decisions[0].outcome, &Outcome::Committed);
        prop_assert!(matches!(decisions[1].outcome, Outcome::Rejected(Rejection::Conflict(_))));
    }
}
