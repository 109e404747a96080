//! The worker as a process under a supervisor: how it says that it lives, stops, ends and is started again; what it says about a
//! broken set-up; that it keeps its secrets (rows MO2, UP2, WK2, OB1, OB3, OV6, CF1, CF2; faults F01-F03, F06, F07, F11, F32, F39;
//! threat A8).

#[path = "../worker/mod.rs"]
mod worker;

mod configuration;
mod doctor;
mod faults;
mod load;
mod secrets;
mod start;
mod stop;
mod supervisor;

use std::process::Output;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up: far more than it takes, as machines are busy.
const PATIENCE: Duration = Duration::from_secs(120);

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Waits until `look` is true; the pause between two looks decides nothing.
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
