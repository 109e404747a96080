//! `NotaryError` within `NotaryException`: what a client is told when its request is refused (PROTOCOL a.7, c.2).

use std::collections::HashSet;

use super::amqp::{View, Writer};
use super::error::WireError;
use super::hash::{read_hash, read_state_ref, shortened, write_hash, write_state_ref};
use super::time::{corda_time_window, java_instant, read_instant, read_time_window, write_instant, write_time_window};
use super::types::Type;
use crate::domain::notary_error::{Cause, Consumption, StateUsage};
use crate::domain::{NotaryError, TxId};

const THROWABLE: &str = "java.lang.Throwable";

/// A failure that the other side reveals.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FlowException {
    /// A notary's refusal.
    Notary {
        /// Why.
        error: NotaryError,
        /// Of which transaction, if the notary knew.
        tx_id: Option<TxId>,
        /// The same for people.
        message: String,
    },
    /// Any other.
    Other {
        /// The Java class.
        class: String,
        /// For people.
        message: Option<String>,
    },
}

/// Longest text of an exception that is kept, in characters: five states of a conflict take 1,200.
const MESSAGE_CHARS_MAX: usize = 8192;

fn kept(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

pub(super) fn read_flow_exception(view: View<'_, '_>) -> Result<FlowException, WireError> {
    let [properties, _cause, class, message, _stack_trace, _suppressed] = view.throwable()?;
    let message = message.non_null().map(|message| message.string().map(kept)).transpose()?;
    if !view.is(Type::NotaryException) {
        return Ok(FlowException::Other { class: kept(class.string()?), message });
    }
    let (mut error, mut tx_id) = (None, None);
    let mut parts = properties.map()?;
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let (key, value) = (key?, value?);
        let repeated = match key.string()? {
            "error" => error.replace(read_notary_error(value)?).is_some(),
            "txId" => tx_id.replace(value.non_null().map(|id| read_hash(id).map(TxId)).transpose()?).is_some(),
            _ => false,
        };
        if repeated {
            return key.refuse("a property of an exception occurs twice");
        }
    }
    match error {
        Some(error) => {
            Ok(FlowException::Notary { error, tx_id: tx_id.flatten(), message: message.unwrap_or_default() })
        }
        None => view.refuse("a notary exception has no error"),
    }
}

fn read_notary_error(view: View<'_, '_>) -> Result<NotaryError, WireError> {
    const EXPECTED: &str = "net.corda.core.flows.NotaryError";
    let Some(object) = view.as_object() else { return view.wrong_type(EXPECTED) };
    let cause = || read_cause(object.field("cause")?);
    if view.is(Type::ErrorConflict) {
        Ok(NotaryError::Conflict {
            tx_id: TxId(read_hash(object.field("txId")?)?),
            consumed: read_consumed(object.field("consumedStates")?)?,
        })
    } else if view.is(Type::ErrorTimeWindowInvalid) {
        Ok(NotaryError::TimeWindowInvalid {
            now: read_instant(object.field("currentTime")?)?,
            window: read_time_window(object.field("txTimeWindow")?)?,
        })
    } else if view.is(Type::ErrorTransactionInvalid) {
        Ok(NotaryError::TransactionInvalid(cause()?))
    } else if view.is(Type::ErrorRequestSignatureInvalid) {
        Ok(NotaryError::RequestSignatureInvalid(cause()?))
    } else if view.is(Type::ErrorGeneral) {
        Ok(NotaryError::General(cause()?))
    } else {
        view.wrong_type(EXPECTED)
    }
}

fn read_consumed(view: View<'_, '_>) -> Result<Vec<Consumption>, WireError> {
    let mut parts = view.map()?;
    let (mut consumed, mut seen) = (Vec::new(), HashSet::new());
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let (key, value) = (key?, value?);
        let state = read_state_ref(key)?;
        if !seen.insert(state) {
            return key.refuse("a consumed state occurs twice");
        }
        let details = value.object(Type::StateConsumptionDetails)?;
        let usage = details.field("type")?;
        let usage = match usage.constant(Type::ConsumedState)? {
            ("INPUT_STATE", 0) => StateUsage::Input,
            ("REFERENCE_INPUT_STATE", 1) => StateUsage::Reference,
            _ => return usage.refuse("an unknown use of a state, or a name that does not fit its ordinal"),
        };
        consumed.push(Consumption { state, hashed_consumer: read_hash(details.field("hashOfTransactionId")?)?, usage });
    }
    Ok(consumed)
}

/// Reads a cause. Its class is kept if this worker itself sends it; any other is named in the message.
fn read_cause(view: View<'_, '_>) -> Result<Cause, WireError> {
    let [_, _, class, message, _, _] = view.throwable()?;
    let class = class.string()?;
    let message = message.non_null().map(|message| message.string().map(kept)).transpose()?.unwrap_or_default();
    let known = [Cause::ILLEGAL_ARGUMENT, Cause::SIGNATURE, Cause::EXCEPTION].into_iter().find(|known| *known == class);
    Ok(match known {
        Some(class) => Cause { class, message },
        None => Cause { class: Cause::EXCEPTION, message: format!("{}: {message}", shortened(class)) },
    })
}

/// Writes a `NotaryException`.
pub(super) fn write_notary_exception(w: &mut Writer, error: &NotaryError, tx_id: Option<TxId>) {
    let mut throwables = Throwables::default();
    let message = exception_message(error, tx_id);
    w.throwable(Type::NotaryException, |w| {
        w.map_of(Type::MapOfObject, |w| {
            w.string_object("error");
            write_notary_error(w, error, &mut throwables);
            w.string_object("txId");
            w.optional(tx_id, |w, tx_id| write_hash(w, &tx_id.0));
        });
        throwables.write_rest(w, "net.corda.core.flows.NotaryException", &message);
    });
}

fn write_notary_error(w: &mut Writer, error: &NotaryError, throwables: &mut Throwables) {
    match error {
        NotaryError::Conflict { tx_id, consumed } => w.composite(Type::ErrorConflict, |w| {
            w.map_of(Type::MapOfConsumption, |w| {
                for consumption in consumed {
                    write_state_ref(w, &consumption.state);
                    w.composite(Type::StateConsumptionDetails, |w| {
                        write_hash(w, &consumption.hashed_consumer);
                        w.constant(Type::ConsumedState, usage_ordinal(consumption.usage));
                    });
                }
            });
            write_hash(w, &tx_id.0);
        }),
        NotaryError::TimeWindowInvalid { now, window } => w.composite(Type::ErrorTimeWindowInvalid, |w| {
            write_instant(w, *now);
            write_time_window(w, window);
        }),
        NotaryError::TransactionInvalid(cause) => {
            w.composite(Type::ErrorTransactionInvalid, |w| throwables.write_cause(w, cause));
        }
        NotaryError::RequestSignatureInvalid(cause) => {
            w.composite(Type::ErrorRequestSignatureInvalid, |w| throwables.write_cause(w, cause));
        }
        NotaryError::General(cause) => w.composite(Type::ErrorGeneral, |w| throwables.write_cause(w, cause)),
    }
}

fn usage_ordinal(usage: StateUsage) -> usize {
    match usage {
        StateUsage::Input => 0,
        StateUsage::Reference => 1,
    }
}

/// Writes throwables as Java's proxy for them. Java has one instance of the empty list of suppressed throwables, so the second
/// throwable of a message refers to the first one's.
#[derive(Default)]
struct Throwables {
    none_suppressed: Option<u32>,
}

impl Throwables {
    /// Writes a throwable without properties.
    fn write_cause(&mut self, w: &mut Writer, cause: &Cause) {
        w.custom_list(THROWABLE, |w| {
            w.map_of(Type::MapOfObject, |_| {});
            self.write_rest(w, cause.class, &cause.message);
        });
    }

    /// Writes what follows a throwable's properties: no cause, class, message, no stack trace, nothing suppressed.
    fn write_rest(&mut self, w: &mut Writer, class: &str, message: &str) {
        w.null();
        w.string(class);
        w.string(message);
        w.list_of(Type::StackTraceElements, |_| {});
        match self.none_suppressed {
            Some(index) => w.reference(index),
            None => {
                w.list_of(Type::Throwables, |_| {});
                self.none_suppressed = Some(w.last_object());
            }
        }
    }
}

/// `NotaryException.message`.
fn exception_message(error: &NotaryError, tx_id: Option<TxId>) -> String {
    match tx_id {
        Some(tx_id) => format!("Unable to notarise transaction {tx_id} : {}", error_text(error)),
        None => format!("Unable to notarise transaction <Unknown> : {}", error_text(error)),
    }
}

/// `NotaryError.toString()`.
fn error_text(error: &NotaryError) -> String {
    let throwable = |cause: &Cause| format!("{}: {}", cause.class, cause.message);
    match error {
        NotaryError::Conflict { consumed, .. } => conflict_text(consumed),
        NotaryError::TimeWindowInvalid { now, window } => format!(
            "Current time {} is outside the time bounds specified by the transaction: {}",
            java_instant(*now),
            corda_time_window(window)
        ),
        NotaryError::TransactionInvalid(cause) | NotaryError::General(cause) => throwable(cause),
        NotaryError::RequestSignatureInvalid(cause) => format!("Request signature invalid: {}", throwable(cause)),
    }
}

fn conflict_text(consumed: &[Consumption]) -> String {
    /// As many as Corda shows.
    const SHOWN_MAX: usize = 5;
    let mut shown: Vec<_> = consumed
        .iter()
        .take(SHOWN_MAX)
        .map(|Consumption { state, hashed_consumer, usage }| {
            let usage = ["INPUT_STATE", "REFERENCE_INPUT_STATE"][usage_ordinal(*usage)];
            format!("{state} -> StateConsumptionDetails(hashOfTransactionId={hashed_consumer}, type={usage})")
        })
        .collect();
    if consumed.len() > SHOWN_MAX {
        shown.push(String::from("..."));
    }
    format!(
        "One or more input states or referenced states have already been used as input states in other transactions. \
         Conflicting state count: {}, consumption details:\n{}.\n\
         To find out if any of the conflicting transactions have been generated by this node you can use the hashLookup \
         Corda shell command.",
        consumed.len(),
        shown.join(",\n")
    )
}
