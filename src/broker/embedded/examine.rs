//! The embedded endpoint's part of `notary doctor`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::ports::finding::Finding;

/// How long the endpoint may take to answer one header on the same machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// The header with which AMQP 1.0 over SASL begins on either side (AMQP 1.0, part 5.3.2).
const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

/// Looks at the address: free for the worker, or our worker on it. `running` tells whether the worker is known to run.
pub fn examine(address: SocketAddr, running: bool) -> Vec<Finding> {
    let subject = "broker: embedded endpoint";
    if address.port() == 0 {
        let advice = "name a port in broker.listen: senders could not know this one";
        return vec![Finding::warning(subject, "takes any free port", advice)];
    }
    // Bound for a moment and given back: nobody can have connected.
    let finding = match (TcpListener::bind(address).map(drop), running) {
        (Ok(()), false) => Finding::good(subject, format!("{address} is free for the worker")),
        (Ok(()), true) => {
            let advice = "was broker.listen changed since it started? restart the worker, or look at its log";
            Finding::fault(subject, format!("a worker runs on the store, but nobody listens at {address}"), advice)
        }
        (Err(error), _) if error.kind() == ErrorKind::AddrInUse => match (greet(address), running) {
            (Ok(true), true) => Finding::good(subject, format!("the worker answers at {address}")),
            (Ok(true), false) => {
                let advice = "stop it, or give this worker another port in broker.listen";
                Finding::fault(subject, format!("another AMQP 1.0 endpoint has {address}"), advice)
            }
            (Ok(false), true) => {
                let advice = "look at the worker's log: full of connections, or another program came before it";
                Finding::fault(
                    subject,
                    format!("a worker runs on the store, but {address} does not speak AMQP 1.0"),
                    advice,
                )
            }
            (Ok(false), false) => {
                let advice = "stop it, or name another port in broker.listen";
                Finding::fault(subject, format!("another program has {address}"), advice)
            }
            (Err(error), _) => {
                let advice = "look at the worker's log; is its process stopped, or full of connections?";
                Finding::fault(subject, format!("whoever has {address} does not answer: {error}"), advice)
            }
        },
        (Err(error), _) => Finding::fault(
            subject,
            format!("{address} cannot be had: {error}"),
            "name another address in broker.listen",
        ),
    };
    vec![finding]
}

/// The same for the entrance of nodes, which speaks to nobody without a certificate.
pub fn examine_for_nodes(address: SocketAddr, running: bool) -> Vec<Finding> {
    let subject = "p2p: endpoint";
    let finding = match (TcpListener::bind(address).map(drop), running) {
        _ if address.port() == 0 => {
            let advice = "name a port in p2p.listen: nodes could not know this one";
            Finding::warning(subject, "takes any free port", advice)
        }
        (Ok(()), false) => Finding::good(subject, format!("{address} is free for the worker")),
        (Ok(()), true) => {
            let advice = "was p2p.listen changed since it started? restart the worker, or look at its log";
            Finding::fault(subject, format!("a worker runs on the store, but nobody listens at {address}"), advice)
        }
        (Err(error), true) if error.kind() == ErrorKind::AddrInUse => {
            Finding::good(subject, format!("{address} is in use, as it is while the worker runs"))
        }
        (Err(error), false) if error.kind() == ErrorKind::AddrInUse => {
            let advice = "is it this worker? else stop it, or name another port in p2p.listen";
            Finding::warning(subject, format!("{address} is in use"), advice)
        }
        (Err(error), _) => {
            Finding::fault(subject, format!("{address} cannot be had: {error}"), "name another address in p2p.listen")
        }
    };
    vec![finding]
}

/// Whether an AMQP 1.0 endpoint answers.
fn greet(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&SASL_HEADER)?;
    let mut answer = [0; SASL_HEADER.len()];
    match stream.read_exact(&mut answer) {
        Ok(()) => Ok(answer == SASL_HEADER),
        // Not what an AMQP endpoint does after its own header.
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(false),
        Err(error) => Err(error),
    }
}
