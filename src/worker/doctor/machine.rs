//! The machine and the process: folders, clock, limits, how to stop.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use crate::config::{BrokerKind, Settings};
use crate::ports::finding::Finding;
use crate::worker::process;

/// How long a tool that knows the clock may take.
const TOOL_PATIENCE: Duration = Duration::from_secs(5);
const TOOL_GLANCE: Duration = Duration::from_millis(20);
/// The longest answer of such a tool, in bytes.
const TOOL_ANSWER_MAX: u64 = 64 * 1024;
/// What systemd's own time service leaves behind once the clock is right.
const TIMESYNC_MARK: &str = "/run/systemd/timesync/synchronized";
/// Descriptors of the worker beside its callers': store, logs, listeners, arbiters' wake-ups, connections to servers, and room for
/// scrapes of its figures.
const FILES_BESIDE: u64 = 128;

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    vec![clock(), open_files(settings), core_dumps(), stopping(settings)]
}

/// A folder is there and can be written, or can be made.
pub(super) fn writable(subject: &str, key: &str, folder: &Path) -> Vec<Finding> {
    let advice = format!("make it writable for the worker's user, or name another one in {key}");
    let nearest = folder.ancestors().find(|ancestor| ancestor.as_os_str().is_empty() || ancestor.exists());
    let nearest = nearest.filter(|nearest| !nearest.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = folder.display();
    vec![match access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
        _ if !nearest.is_dir() => Finding::fault(subject, format!("{} is no folder", nearest.display()), advice),
        Err(error) => Finding::fault(subject, format!("{} cannot be written: {error}", nearest.display()), advice),
        Ok(()) if nearest == folder => Finding::good(subject, format!("{place} can be written")),
        Ok(()) => Finding::good(subject, format!("{place} is not there yet, and will be made")),
    }]
}

/// Time windows are judged by this machine's clock (threat A5).
fn clock() -> Finding {
    let subject = "clock";
    let advice = "run a time service: systemd-timesyncd or chrony";
    let wrong = |who| Finding::fault(subject, format!("{who} says that it is not synchronised"), advice);
    // timedatectl asks the kernel, whichever service disciplines the clock.
    match ask("timedatectl", &["show", "--property=NTPSynchronized", "--value"]).as_deref().map(str::trim) {
        Some("yes") => return Finding::good(subject, "synchronised, says timedatectl"),
        Some("no") => return wrong("timedatectl"),
        _ => {}
    }
    if Path::new(TIMESYNC_MARK).exists() {
        return Finding::good(subject, "synchronised by systemd-timesyncd");
    }
    match ask("chronyc", &["-n", "tracking"]) {
        Some(answer) if answer.lines().any(|line| line.starts_with("Leap status") && line.ends_with("Normal")) => {
            Finding::good(subject, "synchronised by chrony")
        }
        Some(answer) if answer.contains("Not synchronised") => wrong("chronyc"),
        _ => Finding::warning(subject, "nobody here knows whether it is synchronised", advice),
    }
}

/// What a tool prints, if it is there, succeeds, and does so in time.
fn ask(tool: &str, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let deadline = Instant::now() + TOOL_PATIENCE;
    // Their answers fit a pipe, so they end without being read.
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(TOOL_GLANCE),
            _ => break None,
        }
    };
    if !status.is_some_and(|status| status.success()) {
        // It may have ended by itself just now.
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    let mut answer = String::new();
    child.stdout?.take(TOOL_ANSWER_MAX).read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn open_files(settings: &Settings) -> Finding {
    let subject = "limit: open files";
    let callers = match settings.broker.kind {
        BrokerKind::Embedded => settings.broker.connections_max as u64,
        BrokerKind::P2p => {
            (settings.p2p.connections_max + settings.p2p.handshakes_max + settings.p2p.bridges_max) as u64
        }
        BrokerKind::RabbitMq | BrokerKind::Artemis => 0,
    };
    let needed = callers + FILES_BESIDE;
    match process::open_files_max() {
        Some(limit) if limit < needed => {
            let advice = format!("LimitNOFILE={needed} or more in the unit, ulimit -n here");
            Finding::fault(subject, format!("{limit} here, {needed} are needed"), advice)
        }
        Some(limit) => Finding::good(subject, format!("{limit} here, {needed} are needed")),
        None => Finding::good(subject, "none"),
    }
}

/// The worker does at its start what is tried here.
fn core_dumps() -> Finding {
    let subject = "core dumps";
    match process::protect_memory() {
        Ok(()) => Finding::good(subject, "turned off by the worker itself"),
        Err(error) => {
            let advice = "LimitCORE=0 in the unit: a core dump would hold the service key";
            Finding::warning(subject, format!("the worker cannot turn them off: {error}"), advice)
        }
    }
}

fn stopping(settings: &Settings) -> Finding {
    let (drain, all) = (settings.worker.drain_ms_max, process::stop_patience(settings).as_secs());
    let found = format!("draining ends within {drain} ms; a unit needs TimeoutStopSec={all} or more");
    Finding::good("stop", found)
}
