//! The worker as a process of the operating system: what may become of its memory, and how long it takes to stop.

use std::time::Duration;

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

use crate::config::Settings;

/// What a stopping worker may take beyond its drain limit: the broker connection's goodbye (2 s at the embedded endpoint), the
/// last batch of the store, the actors' end.
pub const STOP_EXTRA: Duration = Duration::from_secs(7);

/// Keeps secrets in memory out of core dumps, and other processes of the same user out of this one's memory (threat A8).
///
/// Two measures, as neither is enough alone: a limit of 0 is not asked for where dumps are piped to a program, and the other one
/// ends with `exec`, so that commands which tell secrets would not have it.
///
/// # Errors
/// If the operating system refuses.
pub fn protect_memory() -> std::io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Descriptors that this process may have open; `None` for no limit.
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How long a supervisor must let a stopping worker be.
pub fn stop_patience(settings: &Settings) -> Duration {
    Duration::from_millis(settings.worker.drain_ms_max) + STOP_EXTRA
}
