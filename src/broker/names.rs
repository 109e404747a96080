//! What a service's queues are called on a shared broker: names that a person understands, one for the service, one for each
//! worker, one for what is parked. `broker/` declares what stands behind them.

use crate::domain::X500Name;

/// The names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    /// The queue from which all workers compete.
    pub requests: String,
    /// This worker's own queue, for requests that name it.
    pub worker: String,
    /// Where requests are parked that can never be done, with the reason.
    pub dead: String,
    /// What the reply queue of a party starts with that has no Corda inbox; its broker user's name follows.
    pub replies: String,
}

impl Names {
    /// The names of the service whose names begin with `prefix`, for one of its workers.
    pub fn new(prefix: &str, worker: &X500Name) -> Self {
        Self {
            requests: format!("{prefix}.requests"),
            worker: format!("{prefix}.worker.{}", slug(worker)),
            dead: format!("{prefix}.dead"),
            replies: format!("{prefix}.replies."),
        }
    }
}

/// A legal name as a word of a queue's name: `O=Notary Worker 1, L=Zurich, C=CH` is `notary-worker-1.zurich.ch`.
pub fn slug(name: &X500Name) -> String {
    let parts = [name.common_name.as_ref(), name.organisation_unit.as_ref(), Some(&name.organisation)];
    let parts = parts.into_iter().flatten().chain([&name.locality, &name.country]);
    let word = |part: &String| {
        let lower = part.to_lowercase();
        let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.collect::<Vec<_>>().join("-")
    };
    parts.map(word).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_and_differ_between_workers() {
        let name = |text| X500Name::parse(text).expect("a legal name");
        let names = Names::new("notary", &name("O=Notary Worker 1, L=Zurich, C=CH"));
        assert_eq!(names.requests, "notary.requests");
        assert_eq!(names.worker, "notary.worker.notary-worker-1.zurich.ch");
        let other = Names::new("notary", &name("CN=2, O=Notary Worker 1, L=Zurich, C=CH"));
        assert_ne!(names.worker, other.worker);
    }
}
