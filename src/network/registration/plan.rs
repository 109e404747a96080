//! What is to be registered, as kept in the registration folder, so that a second run needs no arguments.

use serde::{Deserialize, Serialize};

use crate::domain::X500Name;
use crate::domain::network::HostAndPort;

/// Workers of one registration: more than any pool has, and each costs its operators an approval.
pub const WORKERS_MAX: usize = 64;
/// Addresses of one worker, as node infos have them; clients try each in turn.
pub const ADDRESSES_MAX: usize = 8;
/// Characters of an e-mail address (RFC 5321: 254).
const EMAIL_LEN_MAX: usize = 254;

/// Who is to be registered with which identity manager.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The identity manager's address.
    pub url: String,
    /// Whom its operators may write to; may be empty.
    pub email: String,
    /// The service's legal name.
    pub service: X500Name,
    /// The workers, each once.
    pub workers: Vec<Worker>,
}

/// A worker to be registered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Worker {
    /// Its own legal name.
    pub name: X500Name,
    /// Where peers reach it.
    pub addresses: Vec<HostAndPort>,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError {
    /// The text is not such a plan.
    #[error("not a registration plan: {0}")]
    Malformed(String),
    /// Two of those to be registered have one name, or names that make one folder.
    #[error("{0} is to be registered twice, or its organisation is too much like another's")]
    Twice(String),
    /// A worker without an address, or with more than [`ADDRESSES_MAX`].
    #[error("{0} needs 1 to {ADDRESSES_MAX} addresses")]
    Addresses(String),
    /// More than [`WORKERS_MAX`].
    #[error("at most {WORKERS_MAX} workers can be registered together")]
    TooManyWorkers,
    /// Not an e-mail address.
    #[error("{0:?} is no e-mail address")]
    Email(String),
    /// The plan in the folder says otherwise.
    #[error("this folder registers with {what} {kept}, not {given}; use another folder for another registration")]
    Changed {
        /// What differs.
        what: &'static str,
        /// As the folder has it.
        kept: String,
        /// As it was given now.
        given: String,
    },
}

impl Worker {
    /// The name of its folder: the organisation in small letters and digits, with hyphens between words.
    pub fn short_name(&self) -> String {
        let lower = self.name.organisation.to_lowercase();
        let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let short = words.collect::<Vec<_>>().join("-");
        if short.is_empty() { "worker".to_owned() } else { short }
    }
}

impl Plan {
    /// The plan itself, if it makes sense.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn checked(self) -> Result<Self, PlanError> {
        if self.workers.len() > WORKERS_MAX {
            return Err(PlanError::TooManyWorkers);
        }
        let fine = |c: char| c.is_ascii_graphic();
        let (local, domain) = self.email.split_once('@').unwrap_or_default();
        let email = self.email.is_empty()
            || (self.email.len() <= EMAIL_LEN_MAX
                && self.email.chars().all(fine)
                && !local.is_empty()
                && !domain.is_empty());
        if !email {
            return Err(PlanError::Email(self.email));
        }
        for (i, worker) in self.workers.iter().enumerate() {
            let clash = |other: &Worker| other.name == worker.name || other.short_name() == worker.short_name();
            if worker.name == self.service || self.workers[..i].iter().any(clash) {
                return Err(PlanError::Twice(worker.name.to_string()));
            }
            if !(1..=ADDRESSES_MAX).contains(&worker.addresses.len()) {
                return Err(PlanError::Addresses(worker.name.to_string()));
            }
        }
        Ok(self)
    }

    /// This plan, which the folder has, with what is given now: workers may be added (WK1), all else must agree.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn merged(mut self, given: Self) -> Result<Self, PlanError> {
        let same = |what, kept: String, given: String| match kept == given {
            true => Ok(()),
            false => Err(PlanError::Changed { what, kept, given }),
        };
        same("the identity manager", self.url.clone(), given.url)?;
        same("the e-mail address", self.email.clone(), given.email)?;
        same("the service", self.service.to_string(), given.service.to_string())?;
        for worker in given.workers {
            match self.workers.iter().find(|known| known.name == worker.name) {
                None => self.workers.push(worker),
                Some(known) => same("addresses", addresses(&known.addresses), addresses(&worker.addresses))?,
            }
        }
        self.checked()
    }

    /// As the folder keeps it.
    ///
    /// # Panics
    /// Never: strings make JSON.
    pub fn to_json(&self) -> String {
        let workers = self.workers.iter().map(|worker| WorkerLine {
            name: worker.name.to_string(),
            addresses: worker.addresses.iter().map(ToString::to_string).collect(),
        });
        let lines = PlanLines {
            url: self.url.clone(),
            email: self.email.clone(),
            service: self.service.to_string(),
            workers: workers.collect(),
        };
        serde_json::to_string_pretty(&lines).expect("strings make JSON") + "\n"
    }

    /// Reads what [`Self::to_json`] wrote.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn from_json(text: &str) -> Result<Self, PlanError> {
        let malformed = |error: &dyn core::fmt::Display| PlanError::Malformed(error.to_string());
        let lines: PlanLines = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        let name = |text: &str| X500Name::parse(text).map_err(|error| malformed(&error));
        let worker = |line: &WorkerLine| {
            let addresses = line
                .addresses
                .iter()
                .map(|text| parse_address(text).ok_or_else(|| malformed(&format!("{text:?} is not HOST:PORT"))));
            Ok(Worker { name: name(&line.name)?, addresses: addresses.collect::<Result<_, _>>()? })
        };
        let workers = lines.workers.iter().map(worker).collect::<Result<_, _>>()?;
        let service = name(&lines.service)?;
        Self { url: lines.url, email: lines.email, service, workers }.checked()
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanLines {
    url: String,
    email: String,
    service: String,
    workers: Vec<WorkerLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkerLine {
    name: String,
    addresses: Vec<String>,
}

fn addresses(addresses: &[HostAndPort]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub fn parse_address(text: &str) -> Option<HostAndPort> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let fine = (1..=253).contains(&host.len()) && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let port = port.parse().ok().filter(|port| *port != 0)?;
    fine.then(|| HostAndPort { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(organisation: &str) -> Worker {
        let name = X500Name::new(organisation, "Zurich", "CH").expect("a name");
        Worker { name, addresses: vec![parse_address("notary.example:10002").expect("an address")] }
    }

    fn plan(workers: Vec<Worker>) -> Plan {
        let service = X500Name::new("Notary Service", "Zurich", "CH").expect("a name");
        Plan { url: "http://doorman".into(), email: "ops@bank.example".into(), service, workers }
    }

    #[test]
    fn a_plan_survives_its_file_and_grows_by_workers_only() {
        let kept = plan(vec![worker("Worker 1")]).checked().expect("fine");
        assert_eq!(Plan::from_json(&kept.to_json()).expect("read"), kept);
        let grown = kept.clone().merged(plan(vec![worker("Worker 2")])).expect("grown");
        assert_eq!(grown.workers.iter().map(Worker::short_name).collect::<Vec<_>>(), ["worker-1", "worker-2"]);
        assert_eq!(grown.clone().merged(plan(vec![])).expect("nothing new"), grown);

        let elsewhere = Plan { url: "http://other".into(), ..kept.clone() };
        assert!(matches!(kept.clone().merged(elsewhere), Err(PlanError::Changed { .. })));
        let mut moved = worker("Worker 1");
        moved.addresses[0].port = 1;
        assert!(matches!(kept.merged(plan(vec![moved])), Err(PlanError::Changed { what: "addresses", .. })));
    }

    #[test]
    fn names_that_would_share_a_folder_are_refused() {
        let twice = plan(vec![worker("Worker 1"), worker("Worker-1")]).checked();
        assert!(matches!(twice, Err(PlanError::Twice(_))));
        assert!(matches!(plan(vec![worker("Notary Service")]).checked(), Err(PlanError::Twice(_))));
        let homeless = Worker { addresses: vec![], ..worker("Worker 1") };
        assert!(matches!(plan(vec![homeless]).checked(), Err(PlanError::Addresses(_))));
        let odd = Plan { email: "nobody".into(), ..plan(vec![]) };
        assert!(matches!(odd.checked(), Err(PlanError::Email(_))));
    }

    #[test]
    fn addresses_are_a_host_and_a_port() {
        for (text, host, port) in [("a.b:1", "a.b", 1), ("[::1]:65535", "::1", 65535)] {
            assert_eq!(parse_address(text), Some(HostAndPort { host: host.into(), port }));
        }
        for odd in ["", "a", "a:", ":1", "a:0", "a:65536", "::1:1", "a b:1", "a/b:1", "[::1:1"] {
            assert_eq!(parse_address(odd), None, "{odd}");
        }
    }
}
