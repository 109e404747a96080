//! One task a connection: handshakes, then bytes between socket and [`Conversation`], with deadlines on silence in either
//! direction. Generic over the stream, so that TLS slips in below.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::super::amqp::performative::{self, ErrorInfo};
use super::conversation::Conversation;
use super::handshake::{self, HandshakeError, Opened, Proof};
use super::hub::Command;
use super::refusal::{Fault, Refusal};
use super::{Caller, Entrance, Handshake, Shared};
use crate::broker::printable;
use crate::tls::peers::{caller_of, handshake_fault};

/// How much is read at once: some requests of the usual 7 KB.
const READ_BYTES: usize = 32 * 1024;

/// How long a goodbye may take to be written to a peer that we are done with.
const FAREWELL: Duration = Duration::from_secs(1);

/// How often deadlines are looked at, at most: a peer that wants a sign of life more often than that is not worth the frames.
const TICK_MIN: Duration = Duration::from_millis(10);

/// Serves one peer until it is gone. `place` is one of those for peers that have not said who they are.
pub(super) async fn serve(stream: TcpStream, peer: impl fmt::Display + Copy, shared: Arc<Shared>, place: Handshake) {
    let deadline = Instant::now() + shared.limits.handshake_timeout;
    let (tls, settings) = match &shared.entrance {
        Entrance::Secrets(authenticator) => {
            let authenticator = Arc::clone(authenticator);
            return converse_as(stream, peer, Proof::Secret(&*authenticator), deadline, shared, place).await;
        }
        Entrance::Certificates { tls, settings, .. } => (tls, settings),
    };
    let stream = match timeout_at(deadline, tls.accept(settings, stream)).await {
        Ok(Ok(stream)) => stream,
        // Whoever only looks whether somebody listens, or goes away, is not worth a line.
        Ok(Err(error)) if error.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>()) => return,
        Ok(Err(error)) => {
            let why = printable(&handshake_fault(&error), super::refusal::LOGGED_CHARS_MAX);
            shared.refusals.record(&peer, Refusal::Tls, &why);
            return;
        }
        Err(_) => {
            shared.refusals.record(&peer, Refusal::HandshakeTimeout, "TLS");
            return;
        }
    };
    // The verifier has demanded a certificate with a legal name.
    let Some(name) = stream.get_ref().1.peer_certificates().and_then(caller_of) else { return };
    let caller = Caller { name, reply_address: String::new() };
    converse_as(stream, peer, Proof::Certificate(&caller), deadline, shared, place).await;
}

async fn converse_as<S>(
    mut stream: S,
    peer: impl fmt::Display,
    proof: Proof<'_>,
    deadline: Instant,
    shared: Arc<Shared>,
    place: Handshake,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let who = || match proof {
        Proof::Certificate(caller) => format!("{peer} ({})", caller.name),
        Proof::Secret(_) => peer.to_string(),
    };
    let handshake = handshake::accept(&mut stream, &shared.container_id, proof, &shared.limits);
    let opened = match timeout_at(deadline, handshake).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(HandshakeError::Gone)) => return,
        Ok(Err(HandshakeError::Refused(fault))) => {
            shared.refusals.record(&who(), fault.reason, &fault.detail);
            return;
        }
        Err(_) => {
            shared.refusals.record(&who(), Refusal::HandshakeTimeout, "");
            return;
        }
    };
    drop(place);

    let caller = Arc::new(opened.caller.clone());
    let (id, commands) = match shared.hub.register(&caller) {
        Ok(registered) => registered,
        Err(reason) => {
            shared.refusals.record(&who(), reason, "");
            let mut farewell = Vec::new();
            let error = ErrorInfo { condition: reason.condition(), description: Some(reason.name()) };
            performative::write_close(&mut farewell, Some(&error));
            // Best effort: the peer is refused whether it hears of it or not.
            let _ = timeout(FAREWELL, async {
                stream.write_all(&farewell).await?;
                stream.shutdown().await
            })
            .await;
            return;
        }
    };
    let mut conversation = Conversation::new(Arc::clone(&shared), id, caller, &opened, &peer);
    tracing::debug!(peer = conversation.peer(), "connected");
    let end = converse(&mut conversation, stream, commands, &opened, &shared).await;
    if let Err(fault) = end {
        shared.refusals.record(&conversation.peer(), fault.reason, &fault.detail);
    }
    tracing::debug!(peer = conversation.peer(), "disconnected");
}

/// Carries bytes until one side ends it.
async fn converse<S>(
    conversation: &mut Conversation,
    stream: S,
    mut commands: UnboundedReceiver<Command>,
    opened: &Opened,
    shared: &Shared,
) -> Result<(), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut input: Vec<u8> = Vec::new();
    let idle_timeout = shared.limits.idle_timeout;
    // Checks come four times as often as what they check, so they are late by a quarter at most.
    let promised = opened.idle_timeout.map_or(idle_timeout, |theirs| theirs.min(idle_timeout));
    let mut tick = interval((promised / 4).max(TICK_MIN));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last_read, mut last_written) = (Instant::now(), Instant::now());
    // TLS keeps what it could not write at once.
    let mut unflushed = false;

    let verdict = loop {
        if let Err(fault) = conversation.on_input(&mut input) {
            break Err(fault);
        }
        conversation.pump();
        if conversation.is_closed() {
            break Ok(());
        }
        let congested = conversation.is_congested();
        tokio::select! {
            // In this order: what the worker decided first, then room for the output, then new input.
            biased;
            command = commands.recv() => match command {
                Some(command) => {
                    conversation.on_command(command);
                    while let Ok(command) = commands.try_recv() {
                        conversation.on_command(command);
                    }
                }
                None => conversation.close(None),
            },
            written = write_some(&mut writer, conversation.pending()), if unflushed || !conversation.pending().is_empty() => {
                match written {
                    Ok(0) if conversation.pending().is_empty() => unflushed = false,
                    Ok(count) if count > 0 => {
                        conversation.on_written(count);
                        unflushed = true;
                    }
                    _ => return Ok(()),
                }
                last_written = Instant::now();
            }
            read = read_some(&mut reader, &mut input), if !congested => match read {
                Ok(count) if count > 0 => last_read = Instant::now(),
                _ => return Ok(()),
            },
            _ = tick.tick() => {
                let now = Instant::now();
                conversation.review();
                if unflushed || !conversation.pending().is_empty() {
                    if now.duration_since(last_written) >= idle_timeout {
                        break Err(Fault::new(Refusal::Stalled, "the peer does not read"));
                    }
                } else if opened.idle_timeout.is_some_and(|theirs| now.duration_since(last_written) >= theirs / 2) {
                    conversation.heartbeat();
                }
                if congested {
                    // Nothing was read because we did not look.
                    last_read = now;
                } else if now.duration_since(last_read) >= idle_timeout {
                    break Err(Fault::new(Refusal::Idle, format_args!("silent for {idle_timeout:?}")));
                }
            }
        }
    };
    if let Err(fault) = &verdict {
        conversation.close(Some(fault));
    }
    let farewell = async {
        while !conversation.pending().is_empty() {
            let count = writer.write(conversation.pending()).await?;
            if count == 0 {
                break;
            }
            conversation.on_written(count);
        }
        writer.shutdown().await
    };
    // Best effort: it is over either way.
    let _: Result<std::io::Result<()>, _> = timeout(FAREWELL, farewell).await;
    verdict
}

/// Writes some of `pending`, or, if that is empty, sees what was written through.
async fn write_some(writer: &mut (impl AsyncWrite + Unpin), pending: &[u8]) -> std::io::Result<usize> {
    match pending {
        [] => writer.flush().await.map(|()| 0),
        pending => writer.write(pending).await,
    }
}

/// Reads what is there, with room for a good deal of it; gives back what a large frame took.
async fn read_some(reader: &mut (impl AsyncRead + Unpin), input: &mut Vec<u8>) -> std::io::Result<usize> {
    if input.is_empty() {
        input.shrink_to(READ_BYTES);
    }
    input.reserve(READ_BYTES);
    reader.read_buf(input).await
}
