//! Figures in Prometheus' terms. Durations are histograms in seconds, so that workers' figures can be added up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::domain::{CheckedRequest, TxId, Verdict};
use crate::ports::request_queue::Settlement;
use crate::ports::signer::SignError;
use crate::ports::uniqueness::CommitError;
use crate::stages::session::Answer;

const STAGE_DEPTH: &str = "notary_stage_depth";
const STAGE_LIMIT: &str = "notary_stage_limit";
const ANSWERS: &str = "notary_answers_total";
const SETTLED: &str = "notary_deliveries_settled_total";
const REQUEST_SECONDS: &str = "notary_request_seconds";
const COMMIT_SECONDS: &str = "notary_batch_commit_seconds";
const COMMIT_REQUESTS: &str = "notary_batch_requests";
const COMMIT_STATES: &str = "notary_batch_states";
const COMMIT_ERRORS: &str = "notary_batch_commit_errors_total";
const VERDICTS: &str = "notary_verdicts_total";
const INPUT_STATES: &str = "notary_committed_input_states_total";
const SIGN_SECONDS: &str = "notary_sign_seconds";
const SIGN_TRANSACTIONS: &str = "notary_sign_transactions";
const SIGN_ERRORS: &str = "notary_sign_errors_total";

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
}

impl Exporter {
    /// Installs the process's recorder. `stages` are asked for depth and limit at every rendering.
    ///
    /// # Errors
    /// [`BuildError`] if a recorder is installed already.
    pub fn install(stages: Vec<(&'static str, StageGauge)>) -> Result<Self, BuildError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
            .set_buckets(&COUNT_BUCKETS)?
            .install_recorder()?;
        describe_gauge!(STAGE_DEPTH, "requests that hold a slot of the stage now");
        describe_gauge!(STAGE_LIMIT, "slots of the stage");
        describe_counter!(ANSWERS, "answers prepared, by outcome");
        describe_counter!(SETTLED, "deliveries ended, by settlement");
        describe_histogram!(REQUEST_SECONDS, "from delivery to settlement, by outcome");
        describe_histogram!(COMMIT_SECONDS, "one batch in the store");
        describe_histogram!(COMMIT_REQUESTS, "requests of a batch");
        describe_histogram!(COMMIT_STATES, "input and reference states of a batch");
        describe_counter!(COMMIT_ERRORS, "batches without verdicts, by kind");
        describe_counter!(VERDICTS, "verdicts of the store, repeats included, by kind");
        describe_counter!(INPUT_STATES, "input states of requests found committed, repeats included");
        describe_histogram!(SIGN_SECONDS, "one signature, its verification included");
        describe_histogram!(SIGN_TRANSACTIONS, "transactions under one signature");
        describe_counter!(SIGN_ERRORS, "signatures that were not made");
        Ok(Self { handle, stages: Arc::new(stages) })
    }

    /// All figures in Prometheus' text format.
    pub fn render(&self) -> String {
        for (stage, read) in self.stages.iter() {
            let (depth, limit) = read();
            gauge!(STAGE_DEPTH, "stage" => *stage).set(depth as f64);
            gauge!(STAGE_LIMIT, "stage" => *stage).set(limit as f64);
        }
        self.handle.render()
    }

    /// Folds recent samples into the histograms; call it every few seconds so that memory stays flat without a scraper.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
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
            Ok(verdicts) => {
                for (request, verdict) in self.batch.iter().zip(verdicts) {
                    let committed = matches!(verdict, Verdict::Committed(_));
                    counter!(VERDICTS, "verdict" => if committed { "committed" } else { "rejected" }).increment(1);
                    if committed {
                        counter!(INPUT_STATES).increment(request.inputs.len() as u64);
                    }
                }
            }
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
