//! The embedded store's part of `notary doctor`.

use std::path::Path;

use super::file::{OpenError, StoreFile, exists};
use super::reader::Reader;
use crate::ports::finding::Finding;

/// Free space below which the store should be moved: some hundred commits at their largest, and time to act.
const FREE_BYTES_LOW: u64 = 1 << 30;
/// Free space below which commits are about to fail: the file grows in steps of its own size up to this.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// Looks at the store at `path`, beside a running worker or a stopped one; changes nothing in it. Reads the whole of no table.
/// The second value tells whether a worker runs on it.
pub fn examine(path: &Path) -> (Vec<Finding>, bool) {
    let subject = "store: file";
    let place = path.display();
    match exists(path) {
        Ok(true) => {}
        Ok(false) => {
            let advice = "correct store.path, or restore the file; for a new service only: `notary store create`";
            return (vec![Finding::fault(subject, format!("there is none at {place}"), advice)], false);
        }
        Err(error) => {
            return (vec![Finding::fault(subject, described(&error), "make the path readable for the worker")], false);
        }
    }
    let mut findings = Vec::new();
    // The lock first: without it a worker might start meanwhile, and what we read would be half of two states.
    let locked = StoreFile::lock(path);
    let running = matches!(locked, Err(OpenError::InUse { .. }));
    match &locked {
        Err(OpenError::InUse { by, .. }) => {
            findings.push(Finding::good(subject, format!("{place} is in use{by}, so a worker has checked it")));
        }
        Err(error) => {
            findings.push(Finding::fault(subject, described(error), "make its folder writable for the worker"))
        }
        Ok(_) => match Reader::open(path).map(|reader| reader.figures()) {
            Ok(Ok(figures)) => {
                let (transactions, states) = (figures.transactions(), figures.states);
                let held = format!("{place}: {transactions} transactions, {states} states spent, no worker runs on it");
                findings.push(Finding::good(subject, held));
            }
            Ok(Err(error)) => findings.push(damaged(subject, &error.to_string())),
            Err(error) => findings.push(damaged(subject, &described(&error))),
        },
    }
    findings.push(free_space(path));
    (findings, running)
}

fn damaged(subject: &str, found: &str) -> Finding {
    Finding::fault(
        subject,
        found,
        "look closer with `notary store verify`; restore a copy, never start with an empty store",
    )
}

/// The error with its causes, as `Display` gives the first only.
fn described(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn free_space(path: &Path) -> Finding {
    let subject = "store: disk";
    let space = match rustix::fs::statvfs(path) {
        Ok(space) => space,
        Err(error) => return Finding::warning(subject, format!("free space is unknown: {error}"), "look with df"),
    };
    let (free, all) = (space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize));
    let found = format!("{} MiB of {} MiB free", free >> 20, all >> 20);
    let advice = "make room, or move the store of a stopped worker to a larger disk";
    match free {
        ..FREE_BYTES_MIN => Finding::fault(subject, found, advice),
        FREE_BYTES_MIN..FREE_BYTES_LOW => Finding::warning(subject, found, advice),
        _ => Finding::good(subject, found),
    }
}
