//! Figures in Prometheus' terms. Durations are histograms in seconds, so that workers' figures can be added up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::certificates::Certificates;
use crate::domain::verdict::{Decision, Outcome, Rejection};
use crate::domain::{CheckedRequest, Timestamp, TxId, Verdict};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;
use crate::ports::request_queue::Settlement;
use crate::ports::signer::SignError;
use crate::ports::uniqueness::CommitError;
use crate::stages::session::Answer;

const STAGE_DEPTH: &str = "notary_stage_depth";
const STAGE_LIMIT: &str = "notary_stage_limit";
const ANSWERS: &str = "notary_answers_total";
const SETTLED: &str = "notary_deliveries_settled_total";
const REQUEST_SECONDS: &str = "notary_request_seconds";
const END_TO_END_SECONDS: &str = "notary_end_to_end_seconds";
const COMMIT_SECONDS: &str = "notary_batch_commit_seconds";
const COMMIT_REQUESTS: &str = "notary_batch_requests";
const COMMIT_STATES: &str = "notary_batch_states";
const COMMIT_ERRORS: &str = "notary_batch_commit_errors_total";
const VERDICTS: &str = "notary_verdicts_total";
const INPUT_STATES: &str = "notary_committed_input_states_total";
const DB_RETRIES: &str = "notary_db_retries_total";
const DB_CONNECTION_ERRORS: &str = "notary_db_connection_errors_total";
const DB_CONNECTIONS: &str = "notary_db_connections";
const DB_CONNECTIONS_LIMIT: &str = "notary_db_connections_limit";
const SIGN_SECONDS: &str = "notary_sign_seconds";
const SIGN_TRANSACTIONS: &str = "notary_sign_transactions";
const SIGN_ERRORS: &str = "notary_sign_errors_total";
const TOKEN_SIGN_SECONDS: &str = "notary_token_sign_seconds";
const TOKEN_UP: &str = "notary_token_up";
const TOKEN_FAILOVERS: &str = "notary_token_failovers_total";

const COMMIT_REQUEST_SECONDS: &str = "notary_commit_seconds";
const QUEUED_STATES: &str = "notary_uniqueness_states";
const REQUEST_INPUTS: &str = "notary_request_input_states";
const REQUEST_PARENTS: &str = "notary_request_parent_transactions";
const WAIT_PREDICTED: &str = "notary_wait_predicted_seconds";
const PART_WORKS: &str = "notary_part_works";
const BROKER_CONNECTED: &str = "notary_broker_connected";
const BROKER_DELIVERIES: &str = "notary_broker_deliveries";
const BROKER_REPLY_RETRIES: &str = "notary_broker_reply_retries_total";
const BROKER_PARKED: &str = "notary_broker_parked_total";
const REFUSED: &str = "notary_endpoint_refused_total";
const CONNECTIONS: &str = "notary_endpoint_connections";
const BRIDGES: &str = "notary_bridges";
const ANSWERS_WAITING: &str = "notary_answers_waiting";
const ANSWERS_UNSAFE: &str = "notary_answers_not_taken_total";

/// From 0.1 ms to 100 s: a notarisation's whole range, about three buckets a decade.
const SECONDS_BUCKETS: [f64; 19] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0,
    100.0,
];
/// Batches and the states in them: 1 to 10 000, the largest request.
const COUNT_BUCKETS: [f64; 13] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

/// Reads a stage's depth and limit when figures are asked for.
pub type StageGauge = Box<dyn Fn() -> (usize, usize) + Send + Sync>;

/// Renders all figures of the process.
#[derive(Clone)]
pub struct Exporter {
    handle: PrometheusHandle,
    stages: Arc<Vec<(&'static str, StageGauge)>>,
    certificates: Certificates,
}

impl Exporter {
    /// Installs the process's recorder. `stages` are asked for depth and limit at every rendering, `certificates` for their ends.
    ///
    /// # Errors
    /// [`BuildError`] if a recorder is installed already.
    pub fn install(stages: Vec<(&'static str, StageGauge)>, certificates: Certificates) -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
            .set_buckets(&COUNT_BUCKETS)?
            .install_recorder()?;
        describe_gauge!(STAGE_DEPTH, "requests that hold a slot of the stage now");
        describe_gauge!(STAGE_LIMIT, "slots of the stage");
        describe_counter!(ANSWERS, "answers prepared, by outcome");
        describe_counter!(SETTLED, "deliveries ended, by settlement");
        describe_histogram!(REQUEST_SECONDS, "from delivery to settlement, by outcome");
        describe_histogram!(
            END_TO_END_SECONDS,
            "from the making of a request, as its sender dates it, to its answer being safe; the time in the broker included"
        );
        describe_histogram!(COMMIT_SECONDS, "one batch in the store");
        describe_histogram!(COMMIT_REQUESTS, "requests of a batch");
        describe_histogram!(COMMIT_STATES, "input and reference states of a batch");
        describe_counter!(COMMIT_ERRORS, "batches without verdicts, by kind");
        describe_counter!(VERDICTS, "decisions of the store by kind; `repeat` tells those that were on record before");
        describe_counter!(INPUT_STATES, "input states consumed, each once");
        describe_counter!(DB_RETRIES, "batches decided anew because somebody was faster, by SQLSTATE");
        describe_counter!(DB_CONNECTION_ERRORS, "rounds through the database's hosts that gave no connection");
        describe_gauge!(DB_CONNECTIONS, "connections for commits, by state");
        describe_gauge!(DB_CONNECTIONS_LIMIT, "most connections for commits");
        describe_histogram!(SIGN_SECONDS, "one signature, its verification included");
        describe_histogram!(SIGN_TRANSACTIONS, "transactions under one signature");
        describe_counter!(SIGN_ERRORS, "signatures that were not made");
        describe_histogram!(COMMIT_REQUEST_SECONDS, "one request in the uniqueness stage, waiting included");
        describe_gauge!(QUEUED_STATES, "input and reference states of the requests in the uniqueness stage");
        describe_histogram!(REQUEST_INPUTS, "input states of a request");
        describe_histogram!(REQUEST_PARENTS, "different transactions whose outputs a request consumes or refers to");
        describe_histogram!(
            WAIT_PREDICTED,
            "estimated time in the worker, at arrival; compare with notary_request_seconds"
        );
        describe_gauge!(PART_WORKS, "1 while the part works: store, broker, key");
        describe_histogram!(TOKEN_SIGN_SECONDS, "one signature by a token, by its label");
        describe_gauge!(TOKEN_UP, "1 if the token signs, 0 if it is put aside");
        describe_counter!(TOKEN_FAILOVERS, "signatures that another token made instead of this one");
        describe_gauge!(BROKER_CONNECTED, "1 while a shared broker is connected and served, otherwise 0");
        describe_gauge!(
            BROKER_DELIVERIES,
            "deliveries of a shared broker that nobody has taken yet, and all that are unsettled"
        );
        describe_counter!(
            BROKER_REPLY_RETRIES,
            "replies that the broker gave back or refused, and that were sent again"
        );
        describe_counter!(BROKER_PARKED, "requests put into the dead-letter queue, by reason");
        describe_counter!(REFUSED, "what the worker's own endpoint refused, by reason");
        describe_gauge!(CONNECTIONS, "connections to the worker's own endpoint that have said who they are");
        describe_gauge!(BRIDGES, "peers to which a connection for answers is up, or cannot be had");
        describe_gauge!(ANSWERS_WAITING, "answers that peers have not accepted yet");
        describe_counter!(ANSWERS_UNSAFE, "answers that a peer did not accept in time; its requests come again");
        super::network::describe();
        super::certificates::describe();
        Ok(Self { handle, stages: Arc::new(stages), certificates })
    }

    /// All figures in Prometheus' text format.
    pub fn render(&self) -> String {
        for (stage, read) in self.stages.iter() {
            let (depth, limit) = read();
            gauge!(STAGE_DEPTH, "stage" => *stage).set(depth as f64);
            gauge!(STAGE_LIMIT, "stage" => *stage).set(limit as f64);
        }
        self.certificates.tell(SystemClock.now());
        self.handle.render()
    }

    /// Folds recent samples into the histograms; call it every few seconds so that memory stays flat without a scraper.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// A request in the uniqueness stage; counted out of it when dropped.
pub struct InUniqueness {
    states: f64,
    since: Instant,
}

/// A request enters the uniqueness stage.
pub fn enters_uniqueness(request: &CheckedRequest) -> InUniqueness {
    let states = request.inputs.iter().chain(&request.references);
    let parents: HashSet<_> = states.map(|state| state.tx_id).collect();
    histogram!(REQUEST_INPUTS).record(request.inputs.len() as f64);
    histogram!(REQUEST_PARENTS).record(parents.len() as f64);
    let states = (request.inputs.len() + request.references.len()) as f64;
    gauge!(QUEUED_STATES).increment(states);
    InUniqueness { states, since: Instant::now() }
}

impl Drop for InUniqueness {
    fn drop(&mut self) {
        gauge!(QUEUED_STATES).decrement(self.states);
        histogram!(COMMIT_REQUEST_SECONDS).record(self.since.elapsed());
    }
}

/// How long a delivery may expect to be in the worker, at its arrival.
pub fn wait_predicted(wait: Duration) {
    histogram!(WAIT_PREDICTED).record(wait);
}

/// A part was found working, or not.
pub fn part_works(part: &'static str, works: bool) {
    gauge!(PART_WORKS, "part" => part).set(if works { 1.0 } else { 0.0 });
}

/// What is told of a delivery that gets an answer.
#[derive(Clone, Debug)]
pub struct Answered {
    outcome: &'static str,
    tx_id: Option<TxId>,
}

impl Answered {
    /// Counts an answer.
    pub fn of(answer: &Answer) -> Self {
        let answered = Self { outcome: answer.outcome(), tx_id: answer.tx_id() };
        counter!(ANSWERS, "outcome" => answered.outcome).increment(1);
        answered
    }
}

/// An answer is safe; its request was made at `sent_at` by its sender's clock. What lies in the future, or over a day back, says more
/// about that clock than about us.
pub fn end_to_end(sent_at: Timestamp) {
    const DAY_MS: i64 = 86_400_000;
    let age_ms = SystemClock.now().as_millis() - sent_at.as_millis();
    if (0..=DAY_MS).contains(&age_ms) {
        histogram!(END_TO_END_SECONDS).record(Duration::from_millis(age_ms as u64));
    }
}

/// Counts and logs a delivery's end.
pub fn settled(answered: Option<&Answered>, settlement: &Settlement, elapsed: Duration) {
    let settlement = match settlement {
        Settlement::Accept => "accepted",
        Settlement::Release => "released",
        Settlement::Reject { .. } => "rejected",
    };
    counter!(SETTLED, "settlement" => settlement).increment(1);
    let outcome = answered.map_or("None", |answered| answered.outcome);
    histogram!(REQUEST_SECONDS, "outcome" => outcome).record(elapsed);
    match answered.and_then(|answered| answered.tx_id) {
        Some(tx_id) => tracing::debug!(%tx_id, outcome, settlement, ?elapsed, "request done"),
        None => tracing::debug!(outcome, settlement, ?elapsed, "request done"),
    }
}

/// Counts a batch's decisions, once they are durable: what was decided now apart from what was asked for again, as only the store
/// can tell. Every store calls it.
pub fn decided(batch: &[CheckedRequest], decisions: &[Decision]) {
    for (request, Decision { outcome, repeat }) in batch.iter().zip(decisions) {
        let verdict = match outcome {
            Outcome::Committed => "committed",
            Outcome::Rejected(Rejection::Conflict(_)) => "conflict",
            Outcome::Rejected(Rejection::TimeWindowInvalid { .. }) => "time_window_invalid",
        };
        counter!(VERDICTS, "verdict" => verdict, "repeat" => if *repeat { "true" } else { "false" }).increment(1);
        if *outcome == Outcome::Committed && !repeat {
            counter!(INPUT_STATES).increment(request.inputs.len() as u64);
        }
    }
}

/// Counts a batch that the database made us decide anew: 23505 is a lost race, 40001 and 40P01 a victim's fate.
pub fn database_retry(sqlstate: &str) {
    counter!(DB_RETRIES, "sqlstate" => sqlstate.to_owned()).increment(1);
}

/// Counts a round through the database's hosts that gave no connection.
pub fn database_unreachable() {
    counter!(DB_CONNECTION_ERRORS).increment(1);
}

/// Tells how many connections to the database there are.
pub fn database_connections(in_use: usize, idle: usize, limit: usize) {
    gauge!(DB_CONNECTIONS, "state" => "in_use").set(in_use as f64);
    gauge!(DB_CONNECTIONS, "state" => "idle").set(idle as f64);
    gauge!(DB_CONNECTIONS_LIMIT).set(limit as f64);
}

/// Starts timing a batch's commit.
pub fn batch_commit(batch: &[CheckedRequest]) -> CommitTimer<'_> {
    CommitTimer { batch, since: Instant::now() }
}

/// Times one batch.
pub struct CommitTimer<'a> {
    batch: &'a [CheckedRequest],
    since: Instant,
}

impl CommitTimer<'_> {
    /// Records the batch and what came of it.
    pub fn finish(self, result: &Result<Vec<Verdict>, CommitError>) {
        histogram!(COMMIT_SECONDS).record(self.since.elapsed());
        histogram!(COMMIT_REQUESTS).record(self.batch.len() as f64);
        let states: usize = self.batch.iter().map(|request| request.inputs.len() + request.references.len()).sum();
        histogram!(COMMIT_STATES).record(states as f64);
        match result {
            Ok(_) => {}
            Err(error) => {
                let kind = match error {
                    CommitError::Refused(_) => "refused",
                    CommitError::Unavailable(_) => "unavailable",
                    CommitError::OutcomeUnknown(_) => "outcome_unknown",
                };
                counter!(COMMIT_ERRORS, "kind" => kind).increment(1);
                tracing::warn!(%error, requests = self.batch.len(), "batch not committed");
            }
        }
    }
}

/// Starts timing a signature over so many transactions.
pub fn signature(transactions: usize) -> SignTimer {
    SignTimer { transactions, since: Instant::now() }
}

/// Times one signature.
pub struct SignTimer {
    transactions: usize,
    since: Instant,
}

impl SignTimer {
    /// Records the signature, or that there is none.
    pub fn finish<T>(self, result: &Result<T, SignError>) {
        histogram!(SIGN_SECONDS).record(self.since.elapsed());
        histogram!(SIGN_TRANSACTIONS).record(self.transactions as f64);
        if let Err(error) = result {
            counter!(SIGN_ERRORS).increment(1);
            tracing::warn!(%error, transactions = self.transactions, "not signed");
        }
    }
}

/// A token made a signature.
pub fn token_signed(token: &str, elapsed: Duration) {
    histogram!(TOKEN_SIGN_SECONDS, "token" => token.to_owned()).record(elapsed);
}

/// Whether a token signs.
pub fn token_up(token: &str, up: bool) {
    gauge!(TOKEN_UP, "token" => token.to_owned()).set(if up { 1.0 } else { 0.0 });
}

/// Another token signed instead of this one, within one request.
pub fn token_failed_over(token: &str) {
    counter!(TOKEN_FAILOVERS, "token" => token.to_owned()).increment(1);
}

/// Tells whether a shared broker is connected and served.
pub fn broker_connected(connected: bool) {
    gauge!(BROKER_CONNECTED).set(if connected { 1.0 } else { 0.0 });
}

/// Tells how many deliveries of a shared broker wait to be taken, and how many are unsettled in all.
pub fn broker_deliveries(waiting: usize, unsettled: usize) {
    gauge!(BROKER_DELIVERIES, "state" => "waiting").set(waiting as f64);
    gauge!(BROKER_DELIVERIES, "state" => "unsettled").set(unsettled as f64);
}

/// Counts a reply that the broker gave back or refused.
pub fn reply_retried() {
    counter!(BROKER_REPLY_RETRIES).increment(1);
}

/// Counts a parked request. `reason` is one of a handful of words.
pub fn parked(reason: &'static str) {
    counter!(BROKER_PARKED, "reason" => reason).increment(1);
}

/// Tells how many connections for answers are up, and how many peers cannot be reached.
pub fn bridges(up: usize, down: usize) {
    gauge!(BRIDGES, "state" => "up").set(up as f64);
    gauge!(BRIDGES, "state" => "down").set(down as f64);
}

/// Tells how many answers wait for peers.
pub fn answers_waiting(count: usize) {
    gauge!(ANSWERS_WAITING).set(count as f64);
}

/// Counts an answer that its peer did not accept.
pub fn answer_not_taken() {
    counter!(ANSWERS_UNSAFE).increment(1);
}

/// Counts what the worker's own endpoint refused. `reason` is one of a handful of words.
pub fn refused(reason: &'static str) {
    counter!(REFUSED, "reason" => reason).increment(1);
}

/// Tells how many connections to the worker's own endpoint there are.
pub fn endpoint_connections(count: usize) {
    gauge!(CONNECTIONS).set(count as f64);
}
