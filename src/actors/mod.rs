//! The stages as actors. An actor owns a stage's machine, translates messages into its events and performs its effects against
//! ports; it decides nothing itself. Every message that brings work carries a slot of [`mailbox::Mailbox`], because an actix
//! mailbox alone bounds nothing.

mod faults;
pub mod flow;
pub mod mailbox;
pub mod pipeline;
pub mod signing;
pub mod suspects;
pub mod uniqueness;

use std::time::Duration;

/// A pause of `pause_ms`, lengthened at random by up to a half, so that workers do not knock in step.
async fn pause_with_jitter(pause_ms: u64) {
    let jitter_ms = match getrandom::u64() {
        Ok(random) => random % (pause_ms / 2 + 1),
        Err(_) => 0, // Without randomness the pause is merely not spread.
    };
    tokio::time::sleep(Duration::from_millis(pause_ms + jitter_ms)).await;
}
