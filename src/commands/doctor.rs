//! `notary doctor`.

use clap::Args;
use serde_json::json;

use super::{ConfigSource, Exit, Failure};
use crate::ports::clock::SystemClock;
use crate::ports::finding::{Finding, Severity};
use crate::worker::{doctor, process};

#[derive(Args, Debug)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    source: ConfigSource,
    /// Print one JSON object instead: `findings` and the counts.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &DoctorArguments) -> Result<Exit, Failure> {
    // It reads the same secrets as a worker. Where that fails it is a finding.
    let _ = process::protect_memory();
    let loaded = arguments.source.load()?;
    let findings = doctor::examine(&loaded, arguments.source.config.as_deref(), &SystemClock);
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let [good, warnings, faults] = [Severity::Good, Severity::Warning, Severity::Fault].map(count);
    if arguments.json {
        let all: Vec<_> = findings.iter().map(finding_json).collect();
        println!("{}", json!({ "findings": all, "good": good, "warnings": warnings, "faults": faults }));
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
        let verdict =
            if faults == 0 { "the worker can serve like this" } else { "the worker must not serve like this" };
        println!("\n{good} good, {warnings} warnings, {faults} faults: {verdict}");
    }
    Ok(if doctor::worst(&findings) == Some(Severity::Fault) { Exit::Negative } else { Exit::Done })
}

pub(super) fn finding_json(finding: &Finding) -> serde_json::Value {
    let Finding { subject, severity, found, advice } = finding;
    let severity = match severity {
        Severity::Good => "good",
        Severity::Warning => "warning",
        Severity::Fault => "fault",
    };
    json!({ "subject": subject, "severity": severity, "found": found, "advice": advice })
}
