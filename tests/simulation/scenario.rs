//! What a seed stands for: how many workers under which limits, who asks for what and when, and what goes wrong how often.

use std::sync::Arc;

use notary_worker::domain::request::RequestParts;
use notary_worker::domain::transaction::RequestSignature;
use notary_worker::domain::{
    CheckedRequest, HashAlgorithm, PublicKey, SecureHash, StateRef, TimeWindow, Timestamp, TxId, X500Name,
};
use notary_worker::stages::{Backoff, signing, uniqueness};

use crate::history;
use crate::random::Random;

/// The wall clock's time when a run begins, in milliseconds since 1970.
pub(crate) const WALL_START_MS: i64 = 1_700_000_000_000;

/// A transaction that clients ask for.
pub(crate) struct Transaction {
    /// As the worker's checks let it through.
    pub(crate) request: CheckedRequest,
    /// As histories tell of it.
    pub(crate) told: Arc<history::Request>,
}

/// One client's wish to have a transaction notarised.
#[derive(Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) client: usize,
    pub(crate) tx: usize,
    pub(crate) first_ask_ms: u64,
    /// How often it asks again though it knows the answer.
    pub(crate) repeats: u32,
}

/// A message that is no request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noise {
    Garbage,
    SessionEnd,
}

/// How often things go wrong: rates in a thousand, of worker steps or of the operation named.
#[derive(Clone, Copy, Default)]
pub(crate) struct Faults {
    /// A worker dies right after a step.
    pub(crate) crash: u64,
    /// A worker stands still for a while after a step, and may lose its connection meanwhile.
    pub(crate) freeze: u64,
    /// A worker's wall clock is set to something else after a step.
    pub(crate) clock_step: u64,
    /// A worker loses its broker connection, and with it every delivery it holds.
    pub(crate) connection_lost: u64,
    /// A settlement does not reach the broker.
    pub(crate) settlement_lost: u64,
    /// A message is sent twice.
    pub(crate) duplicate: u64,
    /// An answer breaks off before one of its messages is sent.
    pub(crate) reply_broken: u64,
    /// A whole answer arrives, but its confirmation does not.
    pub(crate) reply_unconfirmed: u64,
    /// The worker does not know the network parameters yet, and says so.
    pub(crate) not_now: u64,
    /// The store refuses a batch before it writes anything.
    pub(crate) store_unavailable: u64,
    /// The store writes a batch, and the answer is lost.
    pub(crate) store_unknown_applied: u64,
    /// A batch is lost on its way, and nobody knows.
    pub(crate) store_unknown_lost: u64,
    /// The store gives up on a batch, which takes effect all the same, later.
    pub(crate) store_unknown_late: u64,
    /// The store takes its time.
    pub(crate) store_slow: u64,
    /// The key does not answer.
    pub(crate) signer_unavailable: u64,
    /// The key takes its time.
    pub(crate) signer_slow: u64,
    /// The key makes a signature that does not hold.
    pub(crate) signer_wrong: u64,
}

/// A time during which something is out of order.
#[derive(Clone, Copy)]
pub(crate) struct Outage {
    pub(crate) from_ms: u64,
    pub(crate) until_ms: u64,
}

impl Outage {
    pub(crate) fn lasts(&self, now_ms: u64) -> bool {
        (self.from_ms..self.until_ms).contains(&now_ms)
    }
}

/// Everything that is fixed before a run begins.
pub(crate) struct Scenario {
    pub(crate) workers: usize,
    pub(crate) transactions: Vec<Transaction>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) noise: Vec<(u64, Noise)>,
    /// Deliveries that a worker takes at once.
    pub(crate) flow_slots: usize,
    /// Requests that its uniqueness stage takes at once.
    pub(crate) uniqueness_slots: usize,
    /// Requests that its signing stage takes at once.
    pub(crate) signing_slots: usize,
    pub(crate) uniqueness: uniqueness::Limits,
    pub(crate) signing: signing::Limits,
    /// The longest time that a step within a worker usually takes.
    pub(crate) step_ms_max: u64,
    /// The same for a way over the network.
    pub(crate) network_ms_max: u64,
    /// The same for a way to or from the store.
    pub(crate) store_ms_max: u64,
    /// The same for the key.
    pub(crate) key_ms_max: u64,
    /// What the wall clocks count in. Coarse clocks meet the very ends of windows.
    pub(crate) clock_tick_ms: u64,
    pub(crate) faults: Faults,
    pub(crate) store_outages: Vec<Outage>,
    pub(crate) signer_outages: Vec<Outage>,
    /// A transaction with which every batch fails until healing.
    pub(crate) indigestible: Option<usize>,
    /// When the last fault ends.
    pub(crate) heal_at_ms: u64,
}

impl Scenario {
    /// The scenario of a seed, drawn from the stream that the run goes on with.
    pub(crate) fn draw(rng: &mut Random) -> Self {
        let heal_at_ms = rng.between(1_500, 5_000);
        let clock_tick_ms = rng.pick(&[1, 250]);
        let count = rng.count(4, 16);
        let transactions = draw_transactions(rng, count, heal_at_ms, clock_tick_ms);
        let clients = rng.count(2, 4);
        // Everybody at once, so that batches form, or spread over the run.
        let asked_within_ms = if rng.chance(500) { rng.between(1, 100) } else { heal_at_ms };
        let mut goals: Vec<Goal> = Vec::new();
        for tx in 0..transactions.len() {
            for _ in 0..rng.pick(&[1, 1, 2]) {
                // Neighbours get in each other's way most if they come together.
                let first_ask_ms = match goals.last() {
                    Some(last) if rng.chance(500) => last.first_ask_ms + rng.below(3),
                    _ => rng.below(asked_within_ms),
                };
                goals.push(Goal {
                    client: rng.count(0, clients - 1),
                    tx,
                    first_ask_ms,
                    repeats: rng.pick(&[0, 0, 1, 2]),
                });
            }
        }
        let noise = (0..rng.count(0, 3))
            .map(|_| (rng.below(heal_at_ms), rng.pick(&[Noise::Garbage, Noise::SessionEnd])))
            .collect();
        let indigestible = rng.chance(100).then(|| rng.count(0, transactions.len() - 1));
        Self {
            workers: rng.count(1, 3),
            transactions,
            goals,
            noise,
            flow_slots: rng.count(1, 20),
            uniqueness_slots: rng.count(1, 20),
            signing_slots: rng.count(1, 20),
            uniqueness: uniqueness::Limits {
                batch_requests_max: rng.count(1, 6),
                batch_states_max: rng.count(1, 20),
                commits_in_flight_max: rng.pick(&[1, 1, 2, 3]),
                attempts_max: rng.between(1, 4) as u32,
                backoff: Backoff { base_ms: rng.between(1, 50), cap_ms: rng.between(50, 400) },
            },
            signing: signing::Limits {
                // None: by what a signature costs.
                batch_transactions_max: rng.count(0, 5),
                signatures_in_flight_max: rng.pick(&[1, 1, 2]),
                attempts_max: rng.between(1, 4) as u32,
                backoff: Backoff { base_ms: rng.between(1, 50), cap_ms: rng.between(50, 400) },
            },
            step_ms_max: rng.pick(&[0, 2, 10]),
            network_ms_max: rng.pick(&[2, 20, 100]),
            store_ms_max: rng.pick(&[2, 20, 200]),
            key_ms_max: rng.pick(&[2, 20, 300]),
            clock_tick_ms,
            faults: Faults::draw(rng),
            store_outages: draw_outages(rng, heal_at_ms),
            signer_outages: draw_outages(rng, heal_at_ms),
            indigestible,
            heal_at_ms,
        }
    }

    /// Two workers and the least that can still go wrong: two transactions that spend one state, one of them asked for twice,
    /// and one that refers to the state. Nothing happens to it but what [`crate::world::Crash`] says.
    pub(crate) fn small(rng: &mut Random) -> Self {
        let (coin, other) = (draw_state(rng), draw_state(rng));
        let transactions = vec![
            transaction(rng, HashAlgorithm::Sha256, vec![coin], vec![], None, true),
            transaction(rng, HashAlgorithm::Sha256, vec![coin], vec![], None, true),
            transaction(rng, HashAlgorithm::Sha384, vec![other], vec![coin], None, true),
        ];
        let goal = |client, tx, first_ask_ms, repeats| Goal { client, tx, first_ask_ms, repeats };
        Self {
            workers: 2,
            transactions,
            goals: vec![goal(0, 0, 0, 1), goal(1, 1, 1, 0), goal(0, 2, 2, 0)],
            noise: Vec::new(),
            flow_slots: 3,
            uniqueness_slots: 3,
            signing_slots: 3,
            uniqueness: uniqueness::Limits {
                batch_requests_max: 2,
                batch_states_max: 8,
                commits_in_flight_max: 1,
                attempts_max: 2,
                backoff: Backoff { base_ms: 10, cap_ms: 20 },
            },
            signing: signing::Limits {
                batch_transactions_max: 2,
                signatures_in_flight_max: 1,
                attempts_max: 2,
                backoff: Backoff { base_ms: 10, cap_ms: 20 },
            },
            step_ms_max: 2,
            network_ms_max: 10,
            store_ms_max: 10,
            key_ms_max: 10,
            clock_tick_ms: 1,
            faults: Faults::default(),
            store_outages: Vec::new(),
            signer_outages: Vec::new(),
            indigestible: None,
            heal_at_ms: 1_000,
        }
    }
}

impl Scenario {
    /// What a transaction does, for the head of a trace.
    pub(crate) fn describe(&self, tx: usize) -> String {
        let short =
            |state: &StateRef| format!("{}({})", &hex::encode_upper(state.tx_id.0.as_bytes())[..8], state.index);
        let list = |states: &[StateRef]| states.iter().map(short).collect::<Vec<_>>().join(", ");
        let Transaction { request, told } = &self.transactions[tx];
        let window = request.time_window.map_or(String::new(), |window| format!(" within {window}"));
        let valid = if told.valid { "" } else { ", not valid" };
        let (inputs, references) = (list(&request.inputs), list(&request.references));
        format!("{} consumes [{inputs}], refers to [{references}]{window}{valid}", request.tx_id)
    }

    /// A transaction's name in traces.
    pub(crate) fn tx_name(&self, tx_id: &TxId) -> String {
        let tx = self.transactions.iter().position(|known| known.request.tx_id == *tx_id);
        tx.map_or("no tx".into(), |tx| format!("tx {tx}"))
    }
}

impl Faults {
    /// Every fault is absent in half of all runs, so that each is met alone, together with others, and not at all.
    fn draw(rng: &mut Random) -> Self {
        let mut rate = |rates: &[u64]| if rng.chance(500) { rng.pick(rates) } else { 0 };
        let (rare, common) = ([2, 5, 15], [20, 100, 300]);
        Self {
            crash: rate(&rare),
            freeze: rate(&rare),
            clock_step: rate(&rare),
            connection_lost: rate(&rare),
            settlement_lost: rate(&common),
            duplicate: rate(&common),
            reply_broken: rate(&common),
            reply_unconfirmed: rate(&common),
            not_now: rate(&common),
            store_unavailable: rate(&common),
            store_unknown_applied: rate(&common),
            store_unknown_lost: rate(&common),
            store_unknown_late: rate(&common),
            store_slow: rate(&common),
            signer_unavailable: rate(&common),
            signer_slow: rate(&common),
            signer_wrong: rate(&common),
        }
    }
}

fn draw_outages(rng: &mut Random, heal_at_ms: u64) -> Vec<Outage> {
    let outage = |rng: &mut Random| {
        let from_ms = rng.below(heal_at_ms);
        Outage { from_ms, until_ms: from_ms + rng.between(50, 1_500) }
    };
    (0..rng.pick(&[0, 0, 1, 2])).map(|_| outage(rng)).collect()
}

/// Transactions that get in each other's way: over a few states, which they consume, refer to, or use crosswise.
fn draw_transactions(rng: &mut Random, count: usize, heal_at_ms: u64, tick_ms: u64) -> Vec<Transaction> {
    let mut pool: Vec<StateRef> = (0..rng.count(3, 16)).map(|_| draw_state(rng)).collect();
    if rng.chance(200) {
        // Equal digits under two algorithms are two states.
        let twin = SecureHash::new(HashAlgorithm::Sha3_256, pool[0].tx_id.0.as_bytes()).expect("both have 32 bytes");
        pool.push(StateRef { tx_id: TxId(twin), index: pool[0].index });
    }
    let mut transactions: Vec<Transaction> = Vec::new();
    while transactions.len() < count {
        let algorithm = match rng.below(10) {
            0 => HashAlgorithm::Sha384,
            1 => HashAlgorithm::Sha512,
            _ => HashAlgorithm::Sha256,
        };
        let states = shuffled(rng, &pool);
        let window = rng.chance(350).then(|| draw_window(rng, heal_at_ms, tick_ms));
        let valid = !rng.chance(50);
        match rng.below(10) {
            0 | 1 => {
                // Each consumes what the other refers to: at most one may ever succeed.
                let (a, b) = (vec![states[0]], vec![states[1]]);
                transactions.push(transaction(rng, algorithm, a.clone(), b.clone(), None, true));
                transactions.push(transaction(rng, algorithm, b, a, window, true));
            }
            2 => {
                let references = rng.count(0, 2);
                let window = window.or_else(|| Some(draw_window(rng, heal_at_ms, tick_ms)));
                transactions.push(transaction(rng, algorithm, vec![], states[..references].to_vec(), window, valid));
            }
            3 | 4 => {
                // Rivals for one state.
                for i in 0..rng.count(2, 3) {
                    let mut inputs = vec![states[0], states[i + 1 - i / 2]];
                    inputs.truncate(rng.count(1, 2));
                    transactions.push(transaction(rng, algorithm, inputs, vec![], window, valid));
                }
            }
            _ => {
                let inputs = rng.count(1, 3);
                let references = rng.pick(&[0, 0, 1, 2]).min(states.len() - inputs);
                let (inputs, rest) = states.split_at(inputs);
                transactions.push(transaction(
                    rng,
                    algorithm,
                    inputs.to_vec(),
                    rest[..references].to_vec(),
                    window,
                    valid,
                ));
            }
        }
        if rng.chance(300) {
            let tx_id = transactions[transactions.len() - 1].request.tx_id;
            pool.push(StateRef { tx_id, index: rng.below(3) as u32 });
        }
    }
    transactions
}

fn transaction(
    rng: &mut Random,
    algorithm: HashAlgorithm,
    inputs: Vec<StateRef>,
    references: Vec<StateRef>,
    time_window: Option<TimeWindow>,
    valid: bool,
) -> Transaction {
    let tx_id = TxId(SecureHash::new(algorithm, &rng.bytes::<64>()[..algorithm.digest_len()]).expect("cut to length"));
    let told = history::Request {
        tx: tx_id,
        inputs: inputs.clone(),
        references: references.clone(),
        window: time_window,
        valid,
    };
    let request = CheckedRequest::assume_checked(RequestParts {
        tx_id,
        inputs,
        references,
        time_window,
        requester: party_name(0),
        request_signature: RequestSignature { by: model_key(), bytes: Vec::new(), platform_version: 4 },
    });
    Transaction { request, told: Arc::new(told) }
}

fn draw_state(rng: &mut Random) -> StateRef {
    StateRef { tx_id: TxId(SecureHash::sha256(rng.bytes())), index: rng.below(3) as u32 }
}

/// A window that is open, over or to come when it is first looked at, or becomes so while requests are repeated.
fn draw_window(rng: &mut Random, heal_at_ms: u64, tick_ms: u64) -> TimeWindow {
    let at = |ms: u64| Timestamp::from_millis(WALL_START_MS + (ms - ms % tick_ms) as i64);
    let (from, length) = (rng.below(heal_at_ms), rng.between(1, heal_at_ms));
    match rng.below(3) {
        0 => TimeWindow::Between { from: at(from), until: at(from + length) },
        1 => TimeWindow::From(at(from)),
        _ => TimeWindow::Until(at(length)),
    }
}

fn shuffled(rng: &mut Random, pool: &[StateRef]) -> Vec<StateRef> {
    let mut states = pool.to_vec();
    for i in (1..states.len()).rev() {
        states.swap(i, rng.count(0, i));
    }
    states
}

/// The name of a client.
pub(crate) fn party_name(client: usize) -> X500Name {
    X500Name {
        common_name: None,
        organisation_unit: None,
        organisation: format!("Client {client}"),
        locality: "London".into(),
        state: None,
        country: "GB".into(),
    }
}

/// A key that stands in for every key; the model's signatures do not use it.
pub(crate) fn model_key() -> PublicKey {
    // The public key of RFC 8032, section 7.1, test 1, after the fixed head of an Ed25519 SubjectPublicKeyInfo (RFC 8410).
    const SPKI: &str = "302a300506032b6570032100d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    static KEY: std::sync::OnceLock<PublicKey> = std::sync::OnceLock::new();
    KEY.get_or_init(|| {
        let spki = hex::decode(SPKI).expect("the constant is hexadecimal");
        PublicKey::from_spki(&spki).expect("the constant is a key")
    })
    .clone()
}
