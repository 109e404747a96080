//! From the first byte to `open`: SASL, and nothing without it. Without TLS it proves who the peer is; over TLS the certificate
//! has proved it, and SASL is a formality, as between nodes.
//!
//! Runs under one deadline for all of it. Whatever goes wrong ends in one [`Fault`]; the peer gets what the protocol has for
//! it, and the connection ends.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::super::amqp::frame::{FrameError, FrameType};
use super::super::amqp::performative::{self, Open, Performative, SASL_AUTH_FAILED, Sasl};
use super::super::amqp::stream::{ReadError, read_frame, read_header};
use super::super::amqp::{HEADER_AMQP, HEADER_SASL, MIN_MAX_FRAME_SIZE};
use super::credentials::{Authenticator, Caller, Evidence};
use super::limits::Limits;
use super::refusal::{Fault, Refusal};

/// A peer that has said who it is and what it can take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Opened {
    pub caller: Caller,
    /// The largest frame it takes, never above ours.
    pub frame_bytes_max: usize,
    /// How long it lets us be silent; `None` for ever.
    pub idle_timeout: Option<Duration>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum HandshakeError {
    /// The peer went away.
    Gone,
    /// It is refused.
    Refused(Fault),
}

impl From<std::io::Error> for HandshakeError {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

impl From<ReadError> for HandshakeError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(_) => Self::Gone,
            ReadError::Frame(error) => Self::Refused(frame_fault(&error)),
        }
    }
}

/// What a frame that cannot be one is to be called.
pub(super) fn frame_fault(error: &FrameError) -> Fault {
    match error {
        FrameError::TooLarge { .. } => Fault::new(Refusal::FrameTooLarge, error),
        FrameError::Malformed(error) => Fault::new(Refusal::Malformed, error),
    }
}

fn refused(reason: Refusal, detail: impl std::fmt::Display) -> HandshakeError {
    HandshakeError::Refused(Fault::new(reason, detail))
}

/// How it is found out who a peer is.
#[derive(Clone, Copy)]
pub(super) enum Proof<'a> {
    /// By user and password.
    Secret(&'a dyn Authenticator),
    /// It is known, by the certificate that was verified.
    Certificate(&'a Caller),
}

/// Admits a peer up to and including `open`.
pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    container_id: &str,
    proof: Proof<'_>,
    limits: &Limits,
) -> Result<Opened, HandshakeError> {
    let caller = authenticate(stream, proof, limits).await?;

    let header = read_header(stream).await?;
    // At once: some peers wait for it before they open.
    stream.write_all(&HEADER_AMQP).await?;
    if header != HEADER_AMQP {
        return Err(refused(Refusal::Malformed, "no AMQP 1.0 header after SASL"));
    }
    let body = read_frame(stream, FrameType::Amqp, limits.open_frame_bytes_max).await?;
    let open = match Performative::decode(&body) {
        Ok((Performative::Open(open), _)) => open,
        Ok(_) => return Err(refused(Refusal::NotAllowed, "the first frame is no open")),
        Err(error) => return Err(refused(Refusal::Malformed, error)),
    };
    if (open.max_frame_size as usize) < MIN_MAX_FRAME_SIZE {
        return Err(refused(Refusal::NotAllowed, "a max-frame-size below 512"));
    }
    let ours = Open {
        container_id,
        hostname: None,
        max_frame_size: limits.frame_bytes_max,
        channel_max: limits.sessions_per_connection_max - 1,
        idle_time_out: u32::try_from(limits.idle_timeout.as_millis() / 4).unwrap_or(u32::MAX),
    };
    let mut answer = Vec::new();
    ours.write(&mut answer);
    stream.write_all(&answer).await?;
    Ok(Opened {
        caller,
        frame_bytes_max: open.max_frame_size.min(limits.frame_bytes_max) as usize,
        idle_timeout: (open.idle_time_out > 0).then(|| Duration::from_millis(open.idle_time_out.into())),
    })
}

/// The SASL layer.
async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proof: Proof<'_>,
    limits: &Limits,
) -> Result<Caller, HandshakeError> {
    let header = read_header(stream).await?;
    let mut answer = HEADER_SASL.to_vec();
    if header != HEADER_SASL {
        // What the specification has for an unknown header (2.2): say which one would do, and go.
        stream.write_all(&answer).await?;
        return Err(match header {
            HEADER_AMQP => refused(Refusal::NotAuthenticated, "no SASL layer"),
            _ => refused(Refusal::Malformed, format_args!("no AMQP 1.0 header: {}", String::from_utf8_lossy(&header))),
        });
    }
    let certified = matches!(proof, Proof::Certificate(_));
    Sasl::Mechanisms { plain: true, external: certified, anonymous: certified }.write(&mut answer);
    stream.write_all(&answer).await?;

    let body = Zeroizing::new(read_frame(stream, FrameType::Sasl, limits.sasl_frame_bytes_max).await?);
    let verdict = match (Sasl::decode(&body), proof) {
        // Nodes say `SystemUsers/Peer` for both user and password, each of them; whatever is said proves nothing.
        (
            Ok(Sasl::Init {
                mechanism: performative::PLAIN | performative::ANONYMOUS | performative::EXTERNAL, ..
            }),
            Proof::Certificate(caller),
        ) => Ok(caller.clone()),
        (Ok(Sasl::Init { mechanism: performative::PLAIN, response: Some(response) }), Proof::Secret(authenticator)) => {
            check_plain(response, authenticator)
        }
        (Ok(Sasl::Init { mechanism, .. }), _) => {
            Err(Fault::new(Refusal::NotAuthenticated, format_args!("mechanism {mechanism} without PLAIN's response")))
        }
        (Ok(_), _) => Err(Fault::new(Refusal::NotAllowed, "no SASL init")),
        (Err(error), _) => Err(Fault::new(Refusal::Malformed, error)),
    };
    let code = if verdict.is_ok() { 0 } else { SASL_AUTH_FAILED };
    let mut answer = Vec::new();
    Sasl::Outcome { code }.write(&mut answer);
    stream.write_all(&answer).await?;
    verdict.map_err(HandshakeError::Refused)
}

/// PLAIN's response (RFC 4616): whom to act for, who one is, and the password, separated by zero bytes.
fn check_plain(response: &[u8], authenticator: &dyn Authenticator) -> Result<Caller, Fault> {
    let mut parts = response.splitn(3, |byte| *byte == 0);
    let (Some(authorization), Some(user), Some(password)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Fault::new(Refusal::Malformed, "a PLAIN response of fewer than three parts"));
    };
    let Ok(user) = std::str::from_utf8(user) else {
        return Err(Fault::new(Refusal::WrongCredentials, "a user that is not UTF-8"));
    };
    if !authorization.is_empty() && authorization != user.as_bytes() {
        return Err(Fault::new(Refusal::WrongCredentials, format_args!("{user} would act for somebody else")));
    }
    authenticator
        .authenticate(Evidence { user, password })
        .ok_or_else(|| Fault::new(Refusal::WrongCredentials, format_args!("user {user}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::X500Name;

    struct OnlyAlice;

    impl Authenticator for OnlyAlice {
        fn authenticate(&self, evidence: Evidence<'_>) -> Option<Caller> {
            let name = X500Name {
                common_name: None,
                organisation_unit: None,
                organisation: "Alice".to_owned(),
                locality: "Madrid".to_owned(),
                state: None,
                country: "ES".to_owned(),
            };
            let known = evidence.user == "alice" && evidence.password == b"pass\0word";
            known.then(|| Caller { name, reply_address: "inbox".to_owned() })
        }
    }

    #[test]
    fn a_plain_response_is_taken_apart() {
        for good in [&b"\0alice\0pass\0word"[..], b"alice\0alice\0pass\0word"] {
            assert!(check_plain(good, &OnlyAlice).is_ok());
        }
        for (bad, reason) in [
            (&b"alice\0pass\0word"[..], Refusal::WrongCredentials),
            (b"bob\0alice\0pass\0word", Refusal::WrongCredentials),
            (b"\0alice\0wrong", Refusal::WrongCredentials),
            (b"\0\xff\0pass\0word", Refusal::WrongCredentials),
            (b"\0alice", Refusal::Malformed),
            (b"", Refusal::Malformed),
        ] {
            assert_eq!(check_plain(bad, &OnlyAlice).map_err(|fault| fault.reason), Err(reason));
        }
    }
}
