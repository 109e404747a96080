//! Figures of the network's material.

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::domain::Timestamp;

const PARTIES: &str = "notary_network_parties";
const PARAMETERS: &str = "notary_network_parameters";
const EPOCH: &str = "notary_network_parameters_epoch";
const PROBLEMS: &str = "notary_network_problems";
const CHANGES: &str = "notary_network_changes_total";
const CHECKED: &str = "notary_network_checked_timestamp_seconds";
const LISTED: &str = "notary_network_service_listed";
const POLL_FAILURES: &str = "notary_network_poll_failures_total";
const PUBLISHED: &str = "notary_network_published";

/// Describes these figures to the recorder.
pub(super) fn describe() {
    describe_gauge!(PARTIES, "participants that the worker knows and serves");
    describe_gauge!(PARAMETERS, "versions of the network parameters that the worker accepts");
    describe_gauge!(EPOCH, "epoch of the network parameters in force");
    describe_gauge!(PROBLEMS, "files of the network's material that are not, or not in their newest version, used");
    describe_counter!(CHANGES, "changes of the network's material that were taken up");
    describe_gauge!(CHECKED, "when the network's material was last known to be current, by source: files, http");
    describe_gauge!(LISTED, "1 if the parameters in force list the service's key as a non-validating notary");
    describe_gauge!(
        PUBLISHED,
        "1 if the worker's own node info is published as it is now; absent if that is not its business"
    );
    describe_counter!(POLL_FAILURES, "questions to the HTTP network map that brought no usable answer");
}

/// Tells what the network's material says now.
pub fn material(parties: usize, parameters: usize, epoch: i32) {
    gauge!(PARTIES).set(parties as f64);
    gauge!(PARAMETERS).set(parameters as f64);
    gauge!(EPOCH).set(f64::from(epoch));
}

/// Counts a change of the network's material.
pub fn changed() {
    counter!(CHANGES).increment(1);
}

/// The network's material is current: `source` is `files` or `http`.
pub fn checked(source: &'static str, at: Timestamp) {
    gauge!(CHECKED, "source" => source).set(at.as_millis() as f64 / 1000.0);
}

/// How many files of the network's material have something wrong.
pub fn problems(count: usize) {
    gauge!(PROBLEMS).set(count as f64);
}

/// Whether clients would accept a signature of the service's key.
pub fn lists_service(listed: bool) {
    gauge!(LISTED).set(if listed { 1.0 } else { 0.0 });
}

/// Counts a question to the HTTP network map that brought no usable answer.
pub fn poll_failed() {
    counter!(POLL_FAILURES).increment(1);
}

/// Whether the worker's own node info is published.
pub fn published(published: bool) {
    gauge!(PUBLISHED).set(if published { 1.0 } else { 0.0 });
}
