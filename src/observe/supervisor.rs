//! What systemd is told: that the worker serves, how it is, that it lives, that it stops. Without systemd nothing is told, and
//! nothing is missing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells systemd. A lost word does no harm: the watchdog repeats itself, and the rest is for people.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The worker serves.
pub fn serving(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// How the worker is, in one line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The worker takes no more requests.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// The worker lives: its actors answered just now.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How long to pause between two words of [`alive`], if systemd asks for them at all: a quarter of its patience, so that no single
/// slow answer of an actor ends the worker.
pub fn watchdog_pause() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|interval| interval / 4)
}
