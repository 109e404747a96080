//! Secrets can be fetched, are nobody else's to read, and stand nowhere in clear (rows OB1, OB3; threat A8).

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::config::{SecretRef, Settings};
use crate::ports::finding::{Finding, Severity};

/// Shorter secrets occur in texts by chance.
const TELLING_LEN_MIN: usize = 8;
/// The longest configuration file looked through, in bytes.
const CONFIG_LEN_MAX: u64 = 1 << 20;

/// Every secret in use, each fetched once.
pub(super) fn examine(settings: &Settings, config: Option<&Path>) -> Vec<Finding> {
    let text = config.map(read).unwrap_or_default();
    let mut findings = Vec::new();
    for (key, secret) in settings.secrets() {
        findings.extend(one(key, secret, &text));
    }
    findings.extend(config.map(unchangeable));
    findings
}

fn one(key: &'static str, secret: &SecretRef, config: &str) -> Vec<Finding> {
    let subject = format!("secret: {key}");
    let fetched = match secret.fetch() {
        Ok(fetched) => fetched,
        Err(error) => {
            let advice = "make the file, variable, credential or command available to the worker's user";
            return vec![Finding::fault(subject, error, advice)];
        }
    };
    let mut findings = Vec::new();
    if fetched.is_empty() {
        findings.push(Finding::fault(&subject, "is empty", format!("put the secret where {key} says it is")));
    }
    if fetched.len() >= TELLING_LEN_MIN && config.contains(fetched.as_str()) {
        let advice = "take it out, change it wherever it is in use, and refer to it by file: or credential:";
        findings.push(Finding::fault(&subject, "stands in clear in the configuration file", advice));
    }
    if fetched.len() >= TELLING_LEN_MIN && std::env::args().any(|argument| argument.contains(fetched.as_str())) {
        let advice = "change it: every user of the machine can read command lines";
        findings.push(Finding::fault(&subject, "stands in clear on the command line", advice));
    }
    if let Some(name) = secret.variable() {
        let advice = "prefer file: or credential:; processes that the worker's user starts inherit variables";
        findings.push(Finding::warning(&subject, format!("is in the environment, as {name}"), advice));
    }
    findings.extend(secret.file().map(|file| private(&subject, &file)));
    if findings.is_empty() {
        findings.push(Finding::good(subject, format!("fetched, from {}", secret.reference())));
    }
    findings
}

/// A file with a secret is closed to group and others.
pub(super) fn private(subject: &str, file: &Path) -> Finding {
    let place = file.display();
    match std::fs::metadata(file) {
        Ok(about) if about.permissions().mode() & 0o077 != 0 => {
            let mode = about.permissions().mode() & 0o777;
            let advice = format!("chmod 600 {place}; if others could read it, change the secret");
            Finding::fault(subject, format!("{place} has mode {mode:03o}: not the worker's alone"), advice)
        }
        Ok(_) => Finding::good(subject, format!("{place} can be read, and by nobody else")),
        Err(error) => Finding::fault(subject, format!("{place}: {error}"), "correct the path, or restore the file"),
    }
}

/// A key store is closed to group and others. Its passphrase protects it as well, JKS poorly.
pub(super) fn sealed(subject: &str, file: &Path) -> Finding {
    let found = private(subject, file);
    match found.severity {
        Severity::Fault if file.is_file() => Finding { severity: Severity::Warning, ..found },
        _ => found,
    }
}

/// Whoever can write the configuration chooses store and key.
fn unchangeable(config: &Path) -> Finding {
    let subject = "configuration: file";
    let place = config.display();
    match std::fs::metadata(config).map(|about| about.permissions().mode() & 0o777) {
        Ok(mode) if mode & 0o022 != 0 => {
            let found = format!("{place} has mode {mode:03o}: others may change it");
            Finding::fault(subject, found, format!("chmod go-w {place}"))
        }
        Ok(_) => Finding::good(subject, format!("{place} is changed by its owner only")),
        Err(error) => Finding::warning(subject, format!("{place}: {error}"), "look at its permissions"),
    }
}

fn read(config: &Path) -> Zeroizing<String> {
    let short = std::fs::metadata(config).is_ok_and(|about| about.len() <= CONFIG_LEN_MAX);
    // It was read a moment ago; if it is gone by now, there is nothing to look through.
    Zeroizing::new(if short { std::fs::read_to_string(config).unwrap_or_default() } else { String::new() })
}
