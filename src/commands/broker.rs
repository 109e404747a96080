//! `notary broker`: declares on a shared broker what the service needs, and says what differs. One verb for every kind of broker;
//! what is declared is data in `broker/`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::doctor::finding_json;
use super::{ConfigSource, Exit, Failure};
use crate::broker::admin::{AdminError, Administrator, Change};
use crate::ports::finding::{Finding, Severity};
use crate::worker;

#[derive(Args, Debug)]
pub(crate) struct BrokerArguments {
    #[command(subcommand)]
    verb: BrokerVerb,
}

#[derive(Subcommand, Debug)]
enum BrokerVerb {
    /// Print what `apply` would change. Exits with 1 if there is anything.
    Plan(Place),
    /// Declare what is missing and correct what differs; repeated, it does nothing.
    Apply(Place),
    /// Look at everything that matters, drift included, and say what to do. Exits with 1 if there is a fault.
    Check(Place),
}

#[derive(Args, Debug)]
struct Place {
    #[command(flatten)]
    source: ConfigSource,
    /// Folder with users' passwords: `USER.password` is read if it is there, otherwise made up and written (mode 0600). Without
    /// it no user is created.
    #[arg(long, value_name = "FOLDER")]
    secrets: Option<PathBuf>,
    /// Declare a user and reply queues for every party of the network map too, not only for those in broker.callers.
    #[arg(long)]
    all_parties: bool,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

impl Place {
    fn open(&self) -> Result<Box<dyn Administrator>, Failure> {
        let settings = self.source.load()?.settings;
        let declared = worker::Declared { all_parties: self.all_parties, secrets: self.secrets.clone() };
        Ok(worker::broker_administrator(&settings, declared)?)
    }

    fn tell(&self, changes: &[Change], place: &str, none: &str) {
        if self.json {
            let changes: Vec<_> =
                changes.iter().map(|Change { what, why }| json!({ "what": what, "why": why })).collect();
            println!("{}", json!({ "broker": place, "changes": changes }));
        } else if changes.is_empty() {
            println!("{place}: {none}");
        } else {
            println!("{place}:");
            changes.iter().for_each(|change| println!("  {change}"));
        }
    }
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Unavailable(_) => Self::unavailable(error),
            AdminError::Refused(_) => Self::new(Exit::Negative, error),
        }
    }
}

pub(crate) fn run(arguments: &BrokerArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        BrokerVerb::Plan(place) => {
            let administrator = place.open()?;
            let changes = administrator.plan()?;
            place.tell(&changes, &administrator.place(), "nothing to do");
            if !place.json && !changes.is_empty() && !administrator.file().is_empty() {
                println!("\nby hand, as only the broker's own file can say it:\n\n{}", administrator.file().trim_end());
            }
            Ok(if changes.is_empty() { Exit::Done } else { Exit::Negative })
        }
        BrokerVerb::Apply(place) => {
            let administrator = place.open()?;
            let changes = administrator.apply()?;
            place.tell(&changes, &administrator.place(), "nothing was to be done");
            Ok(Exit::Done)
        }
        BrokerVerb::Check(place) => {
            let administrator = place.open()?;
            let findings = administrator.examine();
            if place.json {
                let all: Vec<_> = findings.iter().map(finding_json).collect();
                println!("{}", json!({ "broker": administrator.place(), "findings": all }));
            } else {
                println!("{}:", administrator.place());
                findings.iter().for_each(|finding: &Finding| println!("{finding}"));
            }
            let faulty = findings.iter().any(|finding| finding.severity == Severity::Fault);
            Ok(if faulty { Exit::Negative } else { Exit::Done })
        }
    }
}
