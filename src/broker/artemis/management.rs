//! Artemis's management, spoken over AMQP 1.0: a message with the names of a resource and an operation goes to the management
//! address, and the answer comes back as JSON.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::access::{Access, explain};
use crate::broker::admin::AdminError;
use crate::broker::amqp::codec::{Value, Writer};
use crate::broker::amqp::connection::{Connection, Disposal, Receiver, ReceiverOptions, SendOutcome, Sender};
use crate::broker::amqp::message::Message;
use crate::broker::printable;

/// Where management listens (`management-address`, its default).
const ADDRESS: &str = "activemq.management";

/// The longest answer, in bytes: a page of 500 queues takes some 400 KB.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// The frames of one answer, and some.
const FRAMES_MAX: u32 = 512;

/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// The broker as a whole.
pub(super) const BROKER: &str = "broker";

/// A connection to management. It blocks, so it must not be used on a thread that runs tasks.
pub(super) struct Management {
    runtime: Runtime,
    _connection: Connection,
    sender: Sender,
    answers: Mutex<Receiver>,
    /// An answer did not come in time; a late one must not be taken for the next question's.
    broken: AtomicBool,
}

impl Management {
    pub(super) fn connect(access: &Access) -> Result<Self, AdminError> {
        let failed = |problem: &dyn std::fmt::Display| AdminError::Unavailable(problem.to_string());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| failed(&error))?;
        let handle = runtime.handle().clone();
        let opened = runtime.block_on(async {
            let connection = access.connect_any(FRAMES_MAX, &handle).await.map_err(|error| failed(&error))?;
            let sender = connection.sender(ADDRESS, false, 1).await;
            let sender = sender.map_err(|error| failed(&format!("{ADDRESS}: {}", explain(&error))))?;
            let receiving =
                ReceiverOptions { address: None, selector: None, priority: None, message_bytes_max: ANSWER_BYTES_MAX };
            let answers = connection.receiver(receiving).await.map_err(|error| failed(&explain(&error)))?;
            Ok::<_, AdminError>((connection, sender, answers))
        });
        let (connection, sender, answers) = opened?;
        Ok(Self {
            runtime,
            _connection: connection,
            sender,
            answers: Mutex::new(answers),
            broken: AtomicBool::new(false),
        })
    }

    /// Has `resource` do `operation`.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] without an answer, [`AdminError::Refused`] with the broker's reason.
    pub(super) fn operation(&self, resource: &str, operation: &str, arguments: Json) -> Result<Json, AdminError> {
        self.ask(resource, ("_AMQ_OperationName", operation), &arguments)
    }

    /// An attribute of `resource`.
    ///
    /// # Errors
    /// As [`Management::operation`].
    pub(super) fn attribute(&self, resource: &str, attribute: &str) -> Result<Json, AdminError> {
        self.ask(resource, ("_AMQ_Attribute", attribute), &json!([]))
    }

    /// An operation whose answer is a text that is JSON itself.
    pub(super) fn document(&self, operation: &str, arguments: Json) -> Result<Json, AdminError> {
        let answer = self.operation(BROKER, operation, arguments)?;
        let text = answer.as_str().unwrap_or("null");
        serde_json::from_str(text).map_err(|error| AdminError::Unavailable(format!("{operation}: {error}")))
    }

    fn ask(&self, resource: &str, question: (&str, &str), arguments: &Json) -> Result<Json, AdminError> {
        let failed =
            |problem: String| AdminError::Unavailable(format!("management of {resource}, {}: {problem}", question.1));
        if self.broken.load(Ordering::Relaxed) {
            return Err(failed("an earlier question was not answered".into()));
        }
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let message = encode(resource, question, &arguments.to_string(), answers.address());
        let asking = async {
            answers.set_credit(1);
            let sent = self.sender.send(message).await.map_err(|error| explain(&error))?;
            match sent.await.map_err(|error| explain(&error))? {
                SendOutcome::Accepted => {}
                SendOutcome::Released => return Err("the broker gave the question back".to_owned()),
                SendOutcome::Rejected { reason } => return Err(printable(&reason, 512)),
            }
            let answer = answers.next().await.ok_or("the connection ended")?;
            self._connection.dispose(answer.id, Disposal::Accept).map_err(|error| explain(&error))?;
            answer.message.ok_or_else(|| format!("an answer of more than {ANSWER_BYTES_MAX} bytes"))
        };
        // The timer is made within the runtime that drives it; the caller has none.
        let asked = self.runtime.block_on(async { timeout(DEADLINE, asking).await });
        let answer = match asked {
            Ok(answer) => answer.map_err(failed)?,
            Err(_) => {
                self.broken.store(true, Ordering::Relaxed);
                return Err(failed(format!("no answer within {DEADLINE:?}")));
            }
        };
        let (succeeded, body) = decode(&answer).map_err(failed)?;
        match succeeded {
            true => Ok(body),
            false => {
                let reason = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
                Err(AdminError::Refused(format!("{} of {resource}: {}", question.1, printable(&reason, 512))))
            }
        }
    }
}

fn encode(resource: &str, (kind, name): (&str, &str), arguments: &str, reply_to: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = Writer::new(&mut out);
    w.composite(0x73, |w| {
        w.nulls(4).string(reply_to);
    });
    w.descriptor(0x74).map(|w| {
        w.string("_AMQ_ResourceName").string(resource).string(kind).string(name);
    });
    w.descriptor(0x77).string(arguments);
    out
}

/// Whether it worked, and the result: a JSON array of one element, or nothing.
fn decode(answer: &[u8]) -> Result<(bool, Json), String> {
    let message = Message::decode(answer).map_err(|error| error.to_string())?;
    let mut properties = message.application;
    let mut succeeded = false;
    while properties.remaining() > 0 {
        let (name, value) = (properties.value(), properties.value());
        if (name, value) == (Ok(Value::String("_AMQ_OperationSucceeded")), Ok(Value::Bool(true))) {
            succeeded = true;
        }
    }
    if message.body.is_empty() {
        return Ok((succeeded, Json::Null));
    }
    let body: Json = serde_json::from_slice(&message.body).map_err(|error| error.to_string())?;
    Ok((succeeded, body.get(0).cloned().unwrap_or_default()))
}
