//! Brokers: adapters of [`RequestQueue`](crate::ports::RequestQueue), and a client for those who send requests.
//!
//! [`embedded`] listens for AMQP 1.0 itself and stores nothing: a request stays with its sender until its answer is safe.
//! [`peers`] sends answers to Corda nodes on our own connections, whichever way their requests came.
//! [`memory`] is the same contract without a network. [`client`] is the other side of `embedded`: the demo, `submit`, the bench
//! and the tests send requests with it.

mod access;
pub mod admin;
mod amqp;
pub mod artemis;
pub mod callers;
pub mod client;
pub mod embedded;
mod declaration;
mod deliveries;
mod fair;
pub mod memory;
pub mod names;
pub mod peers;
mod passwords;
mod pause;
pub mod rabbitmq;
mod reconnect;

/// A request as its sender hands it in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// Deduplication id (PROTOCOL c.4).
    pub dedup_id: String,
    /// The sender's platform version.
    pub platform_version: i32,
    /// A serialized session message.
    pub body: Vec<u8>,
}

/// What became of a request, as its sender learns it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done; the answer was accepted before.
    Accepted,
    /// Not done: send it again.
    Released,
    /// It never will be done.
    Rejected {
        /// For people.
        reason: String,
    },
}

/// A worker's message as its receiver gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// Deduplication id.
    pub dedup_id: String,
    /// The worker's platform version.
    pub platform_version: Option<i32>,
    /// The worker's name, if it says.
    pub worker: Option<String>,
    /// Every text among the message's application properties.
    pub headers: Vec<(String, String)>,
    /// A serialized session message.
    pub body: Vec<u8>,
}

/// Text of a peer's making, fit for one line of a log: control characters escaped, at most `chars_max` of its characters.
fn printable(text: &str, chars_max: usize) -> String {
    let mut line: String = text.chars().take(chars_max).flat_map(char::escape_debug).collect();
    if text.chars().nth(chars_max).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_peer_cannot_forge_log_lines() {
        assert_eq!(printable("O=A\nERROR \x1b[2J\u{202e}x", 100), "O=A\\nERROR \\u{1b}[2J\\u{202e}x");
        assert_eq!(printable(&"x".repeat(1_000), 3), "xxx…");
    }
}
