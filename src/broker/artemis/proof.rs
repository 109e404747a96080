//! Proves, on every new connection, that senders cannot forge who they are: the worker tries it itself. A broker on which it works
//! is not served from.

use std::time::Duration;

use tokio::time::timeout;

use super::Options;
use super::access::explain;
use crate::broker::amqp::connection::{AmqpError, Connection, Disposal, ReceiverOptions, SendOutcome};
use crate::broker::amqp::message::{Message, OutgoingMessage};

/// How long a probe is of use; what a worker left behind that died meanwhile goes by itself.
const TTL: Duration = Duration::from_secs(60);

/// Bytes of the two probes. Artemis handles messages of more than 100 KiB by other code, which leaves their headers as they are.
const BODY_BYTES: [usize; 2] = [16, 256 * 1024];

/// The header by which a worker finds its own probes.
const NONCE: &str = "notary_probe";

/// Tries to pass for another, in every way that a caller could.
///
/// # Errors
/// In one line: how it could be done, or what is missing for the proof.
pub(super) async fn prove(connection: &Connection, options: &Options) -> Result<(), String> {
    let requests = &options.names.requests;
    match connection.sender(requests, true, 1).await {
        Ok(_) => {
            return Err(format!(
                "this worker's user may write to {requests}, so others may too and pass for anyone: \
                 `notary broker check` says whose right that is"
            ));
        }
        Err(AmqpError::Refused { condition, .. }) if condition == "amqp:unauthorized-access" => {}
        Err(error) => return Err(missing(requests, &error)),
    }

    let nonce = format!("{:016x}{:016x}", random()?, random()?);
    let own = &options.names.worker;
    let receiving = ReceiverOptions {
        address: Some(own.clone()),
        selector: Some(format!("{NONCE}='{nonce}'")),
        priority: None,
        message_bytes_max: options.message_bytes_max,
    };
    let mut receiver = connection.receiver(receiving).await.map_err(|error| missing(own, &error))?;
    receiver.set_credit(BODY_BYTES.len() as u32);
    let entrance = &options.probe_entrance;
    let sender = connection.sender(entrance, true, 1).await.map_err(|error| missing(entrance, &error))?;
    let forged = options.entrances.of("forged");
    for (number, bytes) in BODY_BYTES.into_iter().enumerate() {
        let probe = OutgoingMessage {
            dedup_id: &format!("{nonce}-{number}"),
            validated_user: "forged",
            headers: &[(NONCE, nonce.clone())],
            ttl_ms: Some(TTL.as_millis() as u32),
            original_address: Some(&forged),
            body: &vec![0; bytes],
            ..OutgoingMessage::default()
        };
        let sent = sender.send(probe.encode()).await.map_err(|error| explain(&error))?;
        match timeout(options.access.silence_max, sent).await {
            Ok(Ok(SendOutcome::Accepted)) => {}
            Ok(Ok(outcome)) => return Err(format!("{entrance} does not take a probe: {outcome:?}")),
            Ok(Err(error)) => return Err(explain(&error)),
            Err(_) => return Err(format!("{entrance} does not take a probe in time")),
        }
        let arrived = timeout(options.access.silence_max, receiver.next()).await;
        let arrived =
            arrived.map_err(|_| format!("no divert leads from {entrance} to {own}: `notary broker apply`"))?;
        let arrived = arrived.ok_or_else(|| format!("the broker ended the link to {own}"))?;
        let message = arrived.message.as_deref().map(Message::decode);
        let origin = match &message {
            Some(Ok(message)) => message.original_address.map(str::to_owned),
            _ => None,
        };
        connection.dispose(arrived.id, Disposal::Accept).map_err(|error| explain(&error))?;
        if origin.as_deref() != Some(entrance.as_str()) {
            return Err(format!(
                "the broker does not say by which entrance a message of {bytes} bytes came ({origin:?}): \
                 callers could pass for each other"
            ));
        }
    }
    Ok(())
}

fn random() -> Result<u64, String> {
    getrandom::u64().map_err(|error| format!("no randomness: {error}"))
}

fn missing(address: &str, error: &AmqpError) -> String {
    format!(
        "{address}: {}; `notary broker check` says what is missing, `notary broker apply` declares it",
        explain(error)
    )
}
