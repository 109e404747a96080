//! When certificates end, and what became of renewed ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::domain::Timestamp;

const EXPIRY: &str = "notary_certificate_expiry_seconds";
const RENEWALS: &str = "notary_certificate_renewals_total";

/// Describes these figures to the recorder.
pub(super) fn describe() {
    describe_gauge!(EXPIRY, "time until a certificate in use ends, by its use; negative when it has ended");
    describe_counter!(RENEWALS, "renewed certificates, by use (tls, identity) and outcome: taken, refused");
}

/// The end of every certificate in use; shared by whoever knows them and whoever asks for figures.
#[derive(Clone, Default, Debug)]
pub struct Certificates(Arc<Mutex<BTreeMap<&'static str, Timestamp>>>);

impl Certificates {
    /// The certificate for `usage`, or the first of them to end, ends at `at`.
    pub fn ends(&self, usage: &'static str, at: Timestamp) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(usage, at);
    }

    /// Every use, with the end of its certificate.
    pub fn all(&self) -> Vec<(&'static str, Timestamp)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(usage, at)| (*usage, *at)).collect()
    }

    /// Brings the gauges up to date.
    pub(super) fn tell(&self, now: Timestamp) {
        for (usage, at) in self.all() {
            gauge!(EXPIRY, "use" => usage).set((at.as_millis() - now.as_millis()) as f64 / 1000.0);
        }
    }
}

/// Counts a renewed certificate that was taken up.
pub fn renewed(usage: &'static str) {
    counter!(RENEWALS, "use" => usage, "outcome" => "taken").increment(1);
}

/// Counts a renewed certificate that was not taken up.
pub fn renewal_refused(usage: &'static str) {
    counter!(RENEWALS, "use" => usage, "outcome" => "refused").increment(1);
}
