//! What the endpoint refuses, counted by reason and logged within bounds.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::{amqp::condition, printable};
use super::lock;
use crate::observe::metrics;

/// A reason to refuse something.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(usize)]
pub enum Refusal {
    /// More connections in their handshake than allowed.
    TooManyHandshakes,
    /// More connections than allowed.
    TooManyConnections,
    /// More connections of one party than allowed.
    TooManyConnectionsOfCaller,
    /// The handshake took too long.
    HandshakeTimeout,
    /// No TLS, or no certificate of the network.
    Tls,
    /// Not AMQP, or broken.
    Malformed,
    /// No SASL, or a mechanism that is not offered.
    NotAuthenticated,
    /// Unknown user or wrong password.
    WrongCredentials,
    /// More sessions on a connection than allowed.
    TooManySessions,
    /// More links on a session than allowed.
    TooManyLinks,
    /// A link to an address that this worker does not serve.
    UnknownTarget,
    /// A link from an address that belongs to somebody else.
    ForeignReplyAddress,
    /// A frame larger than agreed.
    FrameTooLarge,
    /// A message larger than allowed.
    MessageTooLarge,
    /// More deliveries than there was credit for.
    CreditExceeded,
    /// A request that its sender does not keep until it is answered.
    PreSettled,
    /// Out of order for the protocol, or a part of it that is not spoken here.
    NotAllowed,
    /// A message that cannot be read; the delivery was rejected.
    UndecodableMessage,
    /// A message of a node that is no session message, or that cannot be looked at; the delivery was accepted and dropped.
    UnreadableRequest,
    /// A message whose reply address is not its sender's; the delivery was rejected.
    ForeignReplyTo,
    /// No memory for more requests now; the delivery was released.
    OverBudget,
    /// The peer was silent for too long.
    Idle,
    /// The peer does not read what it is sent.
    Stalled,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 23] = [
        Self::TooManyHandshakes,
        Self::TooManyConnections,
        Self::TooManyConnectionsOfCaller,
        Self::HandshakeTimeout,
        Self::Tls,
        Self::Malformed,
        Self::NotAuthenticated,
        Self::WrongCredentials,
        Self::TooManySessions,
        Self::TooManyLinks,
        Self::UnknownTarget,
        Self::ForeignReplyAddress,
        Self::FrameTooLarge,
        Self::MessageTooLarge,
        Self::CreditExceeded,
        Self::PreSettled,
        Self::NotAllowed,
        Self::UndecodableMessage,
        Self::UnreadableRequest,
        Self::ForeignReplyTo,
        Self::OverBudget,
        Self::Idle,
        Self::Stalled,
    ];

    /// The name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TooManyHandshakes => "too-many-handshakes",
            Self::TooManyConnections => "too-many-connections",
            Self::TooManyConnectionsOfCaller => "too-many-connections-of-caller",
            Self::HandshakeTimeout => "handshake-timeout",
            Self::Tls => "tls",
            Self::Malformed => "malformed",
            Self::NotAuthenticated => "not-authenticated",
            Self::WrongCredentials => "wrong-credentials",
            Self::TooManySessions => "too-many-sessions",
            Self::TooManyLinks => "too-many-links",
            Self::UnknownTarget => "unknown-target",
            Self::ForeignReplyAddress => "foreign-reply-address",
            Self::FrameTooLarge => "frame-too-large",
            Self::MessageTooLarge => "message-too-large",
            Self::CreditExceeded => "credit-exceeded",
            Self::PreSettled => "pre-settled",
            Self::NotAllowed => "not-allowed",
            Self::UndecodableMessage => "undecodable-message",
            Self::UnreadableRequest => "unreadable-request",
            Self::ForeignReplyTo => "foreign-reply-to",
            Self::OverBudget => "over-budget",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
        }
    }

    /// The AMQP error that the peer is told.
    pub(super) const fn condition(self) -> &'static str {
        match self {
            Self::TooManyHandshakes
            | Self::TooManyConnections
            | Self::TooManyConnectionsOfCaller
            | Self::TooManySessions
            | Self::TooManyLinks
            | Self::HandshakeTimeout
            | Self::Idle
            | Self::Stalled
            | Self::OverBudget => condition::RESOURCE_LIMIT_EXCEEDED,
            Self::Malformed | Self::UndecodableMessage | Self::UnreadableRequest => condition::DECODE_ERROR,
            Self::Tls
            | Self::NotAuthenticated
            | Self::WrongCredentials
            | Self::ForeignReplyAddress
            | Self::ForeignReplyTo => condition::UNAUTHORIZED_ACCESS,
            Self::UnknownTarget => condition::NOT_FOUND,
            Self::FrameTooLarge => condition::FRAMING_ERROR,
            Self::MessageTooLarge => condition::MESSAGE_SIZE_EXCEEDED,
            Self::CreditExceeded => condition::TRANSFER_LIMIT_EXCEEDED,
            Self::PreSettled => condition::NOT_IMPLEMENTED,
            Self::NotAllowed => condition::NOT_ALLOWED,
        }
    }
}

/// A refusal, and what the peer and the log are told of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {detail}", reason.name())]
pub(super) struct Fault {
    pub reason: Refusal,
    /// Fit for a log line.
    pub detail: String,
}

impl Fault {
    /// `detail` may contain text of the peer's making, of any length.
    pub(super) fn new(reason: Refusal, detail: impl fmt::Display) -> Self {
        Self { reason, detail: printable(&detail.to_string(), LOGGED_CHARS_MAX) }
    }
}

/// The longest text of a peer's making in a log line, in characters.
pub(super) const LOGGED_CHARS_MAX: usize = 200;

/// Counts refusals, and logs each in one line: at most so many a second, the rest as one number, so that a flood of
/// connections is no flood of lines.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: [AtomicU64; Refusal::ALL.len()],
    log: Mutex<LogBudget>,
}

#[derive(Debug, Default)]
struct LogBudget {
    second: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl Refusals {
    /// Enough for every single refusal of a network that works; a line has some 300 bytes.
    const LINES_PER_SECOND_MAX: u32 = 50;

    /// Counts and logs one. `peer` and `detail` are fit for a log line.
    pub(super) fn record(&self, peer: &dyn fmt::Display, reason: Refusal, detail: &str) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
        metrics::refused(reason.name());
        if let Some(suppressed) = self.may_log(Instant::now()) {
            tracing::warn!(%peer, reason = reason.name(), detail, suppressed, "refused");
        }
    }

    /// How many lines were suppressed before this one; `None` to suppress this one too.
    fn may_log(&self, now: Instant) -> Option<u64> {
        let mut log = lock(&self.log);
        if log.second.is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
            log.second = Some(now);
            log.lines = 0;
        }
        if log.lines >= Self::LINES_PER_SECOND_MAX {
            log.suppressed += 1;
            return None;
        }
        log.lines += 1;
        Some(std::mem::take(&mut log.suppressed))
    }

    pub(super) fn counts(&self) -> Vec<(Refusal, u64)> {
        Refusal::ALL.iter().map(|reason| (*reason, self.counts[*reason as usize].load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_a_name_of_its_own() {
        for (index, reason) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(Refusal::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
    }

    #[test]
    fn what_a_peer_says_stays_on_one_short_line() {
        let fault = Fault::new(Refusal::UnknownTarget, format_args!("target {}\n", "x".repeat(1 << 20)));
        assert!(fault.detail.chars().count() <= LOGGED_CHARS_MAX + 1);
        assert_eq!(Fault::new(Refusal::Malformed, "a\nb\x1b[0m").detail, "a\\nb\\u{1b}[0m");
    }

    #[test]
    fn a_flood_of_refusals_is_counted_but_not_logged_line_by_line() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let logged = (0..1_000).filter(|_| refusals.may_log(now).is_some()).count();
        assert_eq!(logged, Refusals::LINES_PER_SECOND_MAX as usize);
        assert_eq!(
            refusals.may_log(now + Duration::from_secs(1)),
            Some(950),
            "the next line says how many are missing"
        );
        refusals.record(&"peer", Refusal::Idle, "…");
        assert_eq!(refusals.counts()[Refusal::Idle as usize], (Refusal::Idle, 1));
    }
}
