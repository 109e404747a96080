//! What a peer may take of this process. Every figure has a reason; tests inject small ones.

use std::time::Duration;

/// The endpoint's limits and deadlines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections that have not said who they are yet. Separate from [`Self::connections_max`], so that strangers cannot take
    /// the places of parties. 64 at 5 s each let a thousand parties reconnect within 80 s even if all hold out to the end.
    pub handshakes_max: usize,
    /// The same for one address on the network, which may be that of several nodes: nobody takes all of them from one machine.
    pub handshakes_per_address_max: usize,
    /// From TCP accept to the end of `open`: a round trip or four. 5 s forgives a lost packet or two.
    pub handshake_timeout: Duration,
    /// Authenticated connections in all. A notary serves one bridge or a few a party; each costs about 100 KB when quiet.
    pub connections_max: usize,
    /// Authenticated connections a party. A node has one bridge a worker; a load generator a handful.
    pub connections_per_caller_max: usize,
    /// AMQP sessions a connection. A bridge has one, JMS one a JMS session.
    pub sessions_per_connection_max: u16,
    /// Links a session. A bridge has one an address.
    pub links_per_session_max: u32,
    /// A SASL frame, in bytes: what the specification allows before anything is agreed.
    pub sasl_frame_bytes_max: usize,
    /// The `open` frame, in bytes. The specification says 512; real clients send capabilities and properties beyond that.
    pub open_frame_bytes_max: usize,
    /// Any later frame, in bytes: as Corda's nodes have it (PROTOCOL b.4).
    pub frame_bytes_max: u32,
    /// One message, in bytes: Corda's default `maxMessageSize` of 10 MiB, and 64 KiB for sections around the body.
    pub message_bytes_max: usize,
    /// Requests held in memory, in bytes, in all: those being received, waiting, and in the worker. Beyond it, what arrives is
    /// released and stays with its sender. 256 MiB hold about 36 000 usual requests of 7 KB, or 25 of the largest.
    pub request_bytes_max: usize,
    /// The same for one party: a quarter, so that nobody takes it all.
    pub request_bytes_per_caller_max: usize,
    /// Requests a link may have undisposed. At 10 ms a request (one batch commit) 64 let one link carry 6 400 requests a
    /// second; Corda's own server gives 5.
    pub link_credit: u32,
    /// How long a connection of a node may stay to see its deliveries through, when the worker rests: the time in which the stages
    /// give up what they cannot do without a store or a key.
    pub rest_grace: Duration,
    /// A peer silent for this long is gone. A quarter of it is advertised as idle time-out, which gives Corda's 5 s. Not the half that
    /// the specification suggests: a Corda node's first sign of life on a quiet connection comes only after 12.5 s (Proton looks at
    /// what we advertise for the first time when its own 10 s are over).
    pub idle_timeout: Duration,
    /// How long a reply waits to be safe, in all: for a listener, for credit, for acceptance. Clients of Corda try again after
    /// 30 s on their own.
    pub reply_hold: Duration,
    /// Replies of one party that wait to be safe. Three a request: above 1 300 requests.
    pub replies_per_caller_max: usize,
    /// The same in bytes: replies have some 2 to 5 KB, one that lists 10 000 conflicts about 2 MB.
    pub reply_bytes_per_caller_max: usize,
    /// Replies sent on a session, counted from the oldest that is not disposed of: one never disposed of must not make the
    /// list grow, nor each disposition that covers all of it dear. Twice what our client takes at once.
    pub reply_window: usize,
    /// Bytes that wait to be written to a connection. Above it nothing more is read from the peer or sent to it, until it
    /// takes what is there: two of the largest frames.
    pub output_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            handshakes_max: 64,
            handshakes_per_address_max: 64,
            handshake_timeout: Duration::from_secs(5),
            connections_max: 256,
            connections_per_caller_max: 16,
            sessions_per_connection_max: 8,
            links_per_session_max: 16,
            sasl_frame_bytes_max: 512,
            open_frame_bytes_max: 4 * 1024,
            frame_bytes_max: 128 * 1024,
            message_bytes_max: 10 * MIB + 64 * 1024,
            request_bytes_max: 256 * MIB,
            request_bytes_per_caller_max: 64 * MIB,
            link_credit: 64,
            rest_grace: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(20),
            reply_hold: Duration::from_secs(30),
            replies_per_caller_max: 4_096,
            reply_bytes_per_caller_max: 16 * MIB,
            reply_window: 2_048,
            output_bytes_max: 256 * 1024,
        }
    }
}

impl Limits {
    /// Why these limits cannot work, if so.
    pub(super) fn fault(&self) -> Option<&'static str> {
        use super::super::amqp::MIN_MAX_FRAME_SIZE;
        let zero = self.handshakes_max == 0
            || self.handshakes_per_address_max == 0
            || self.connections_max == 0
            || self.connections_per_caller_max == 0
            || self.sessions_per_connection_max == 0
            || self.links_per_session_max == 0
            || self.message_bytes_max == 0
            || self.link_credit == 0
            || self.replies_per_caller_max == 0
            || self.reply_window == 0
            || self.output_bytes_max == 0;
        let small = (self.frame_bytes_max as usize) < MIN_MAX_FRAME_SIZE
            || self.sasl_frame_bytes_max < MIN_MAX_FRAME_SIZE
            || self.open_frame_bytes_max < MIN_MAX_FRAME_SIZE;
        let brief = self.idle_timeout < Duration::from_millis(40) || self.handshake_timeout.is_zero();
        match () {
            () if zero => Some("a limit is zero"),
            () if small => Some("a frame limit is below the 512 bytes that AMQP demands"),
            () if brief => Some("a deadline is too short"),
            () if self.request_bytes_per_caller_max < self.message_bytes_max => {
                Some("a party's budget is below one message")
            }
            () if self.request_bytes_max < self.request_bytes_per_caller_max => {
                Some("the budget of all is below that of one party")
            }
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_work_and_nonsense_cannot() {
        assert_eq!(Limits::default().fault(), None);
        for broken in [
            Limits { link_credit: 0, ..Limits::default() },
            Limits { frame_bytes_max: 511, ..Limits::default() },
            Limits { idle_timeout: Duration::ZERO, ..Limits::default() },
            Limits { request_bytes_per_caller_max: 1, ..Limits::default() },
            Limits { request_bytes_max: 11 << 20, ..Limits::default() },
        ] {
            assert!(broken.fault().is_some(), "{broken:?}");
        }
    }
}
