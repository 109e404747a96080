//! Session messages: how two flows talk (PROTOCOL c.1).

use std::borrow::Cow;
use std::collections::HashSet;

use super::amqp::header::unpack;
use super::amqp::{Message, Object, View, Writer};
use super::component::read_opaque;
use super::error::WireError;
use super::limits::Limits;
use super::notary_error::{FlowException, read_flow_exception, write_notary_exception};
use super::types::Type;
use crate::domain::{NotaryError, TxId};

/// A message of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionMessage<'a> {
    /// Starts a session.
    Initial(InitialSession<'a>),
    /// Continues one.
    Existing {
        /// The session, by the id that its recipient gave it.
        recipient_session_id: i64,
        /// What it says.
        payload: ExistingPayload<'a>,
    },
}

/// The start of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitialSession<'a> {
    /// The initiator's id of the session: what replies name. May be negative.
    pub initiator_session_id: i64,
    /// Random; part of deduplication ids.
    pub initiation_entropy: i64,
    /// The initiating flow's class: `net.corda.core.flows.NotaryFlow$Client`.
    pub flow_class: Cow<'a, str>,
    /// The flow's own version, 1 for a notary client. Not the platform version.
    pub flow_version: i32,
    /// The application the flow comes from.
    pub app_name: Cow<'a, str>,
    /// The first payload: a serialized message of its own, possibly compressed.
    pub first_payload: Option<Cow<'a, [u8]>>,
    /// Tracing data by component, from platform version 12 on.
    pub telemetry: Option<Telemetry<'a>>,
}

/// Tracing data: bytes by the name of the component that they are for.
pub type Telemetry<'a> = Vec<(Cow<'a, str>, Cow<'a, [u8]>)>;

/// What a message says within a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ExistingPayload<'a> {
    /// The other side accepts the session.
    Confirm {
        /// The other side's id of the session.
        initiated_session_id: i64,
        /// Its flow's version.
        flow_version: i32,
        /// Its application.
        app_name: Cow<'a, str>,
    },
    /// A serialized message of its own, possibly compressed.
    Data(Cow<'a, [u8]>),
    /// The other side's flow failed.
    Error {
        /// Identifies the failure in the other side's log.
        error_id: i64,
        /// What failed, if it is revealed.
        exception: Option<FlowException>,
    },
    /// The other side refuses the session.
    Reject {
        /// Identifies the refusal in the other side's log.
        error_id: i64,
        /// For people.
        message: Cow<'a, str>,
    },
    /// The other side is done.
    End,
}

impl SessionMessage<'_> {
    /// The same message, without borrowing.
    pub fn into_owned(self) -> SessionMessage<'static> {
        fn text(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        fn bytes(bytes: Cow<'_, [u8]>) -> Cow<'static, [u8]> {
            Cow::Owned(bytes.into_owned())
        }
        match self {
            Self::Initial(initial) => SessionMessage::Initial(InitialSession {
                initiator_session_id: initial.initiator_session_id,
                initiation_entropy: initial.initiation_entropy,
                flow_class: text(initial.flow_class),
                flow_version: initial.flow_version,
                app_name: text(initial.app_name),
                first_payload: initial.first_payload.map(bytes),
                telemetry: initial
                    .telemetry
                    .map(|entries| entries.into_iter().map(|(key, value)| (text(key), bytes(value))).collect()),
            }),
            Self::Existing { recipient_session_id, payload } => SessionMessage::Existing {
                recipient_session_id,
                payload: match payload {
                    ExistingPayload::Confirm { initiated_session_id, flow_version, app_name } => {
                        ExistingPayload::Confirm { initiated_session_id, flow_version, app_name: text(app_name) }
                    }
                    ExistingPayload::Data(payload) => ExistingPayload::Data(bytes(payload)),
                    ExistingPayload::Error { error_id, exception } => ExistingPayload::Error { error_id, exception },
                    ExistingPayload::Reject { error_id, message } => {
                        ExistingPayload::Reject { error_id, message: text(message) }
                    }
                    ExistingPayload::End => ExistingPayload::End,
                },
            },
        }
    }
}

/// Reads a session message. It borrows from `bytes`, unless they are compressed.
///
/// # Errors
/// [`WireError`] for anything but exactly one session message within the limits. The payload of a session start or data message
/// is not looked into: [`super::unpack`] it, then decode it, and answer within the session if it is malformed.
pub fn decode_session_message<'a>(bytes: &'a [u8], limits: &Limits) -> Result<SessionMessage<'a>, WireError> {
    match unpack(bytes, limits)? {
        Cow::Borrowed(plain) => read_message(plain, limits),
        Cow::Owned(plain) => read_message(&plain, limits).map(SessionMessage::into_owned),
    }
}

fn read_message<'a>(plain: &'a [u8], limits: &Limits) -> Result<SessionMessage<'a>, WireError> {
    let message = Message::read(plain, limits)?;
    let root = message.root();
    if root.is(Type::InitialSessionMessage) {
        return read_initial(root).map(SessionMessage::Initial);
    }
    let object = root.object(Type::ExistingSessionMessage)?;
    Ok(SessionMessage::Existing {
        recipient_session_id: read_session_id(&object, "recipientSessionId")?,
        payload: read_existing(object.field("payload")?)?,
    })
}

fn read_initial<'a>(view: View<'_, 'a>) -> Result<InitialSession<'a>, WireError> {
    let object = view.object(Type::InitialSessionMessage)?;
    let first_payload = object.optional("firstPayload")?;
    Ok(InitialSession {
        initiator_session_id: read_session_id(&object, "initiatorSessionId")?,
        initiation_entropy: object.field("initiationEntropy")?.long()?,
        flow_class: Cow::Borrowed(object.field("initiatorFlowClassName")?.string()?),
        flow_version: object.field("flowVersion")?.int()?,
        app_name: Cow::Borrowed(object.field("appName")?.string()?),
        first_payload: first_payload.map(|payload| read_opaque(payload).map(Cow::Borrowed)).transpose()?,
        telemetry: object.optional("serializedTelemetry")?.map(read_telemetry).transpose()?,
    })
}

fn read_telemetry<'a>(view: View<'_, 'a>) -> Result<Telemetry<'a>, WireError> {
    let object = view.object(Type::SerializedTelemetry)?;
    let mut parts = object.field("serializedTelemetryData")?.map()?;
    let (mut entries, mut seen) = (Vec::new(), HashSet::new());
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let key = key?;
        if !seen.insert(key.string()?) {
            return key.refuse("a key of the telemetry occurs twice");
        }
        entries.push((Cow::Borrowed(key.string()?), Cow::Borrowed(read_opaque(value?)?)));
    }
    Ok(entries)
}

fn read_session_id(object: &Object<'_, '_>, field: &'static str) -> Result<i64, WireError> {
    object.field(field)?.object(Type::SessionId)?.field("toLong")?.long()
}

fn read_existing<'a>(view: View<'_, 'a>) -> Result<ExistingPayload<'a>, WireError> {
    if view.is(Type::EndSessionMessage) {
        view.restricted(Type::EndSessionMessage)?.boolean()?;
        return Ok(ExistingPayload::End);
    }
    let Some(object) = view.as_object() else {
        return view.wrong_type(Type::ExistingSessionMessagePayload.name());
    };
    if view.is(Type::DataSessionMessage) {
        Ok(ExistingPayload::Data(Cow::Borrowed(read_opaque(object.field("payload")?)?)))
    } else if view.is(Type::ConfirmSessionMessage) {
        let info = object.field("initiatedFlowInfo")?.object(Type::FlowInfo)?;
        Ok(ExistingPayload::Confirm {
            initiated_session_id: read_session_id(&object, "initiatedSessionId")?,
            flow_version: info.field("flowVersion")?.int()?,
            app_name: Cow::Borrowed(info.field("appName")?.string()?),
        })
    } else if view.is(Type::ErrorSessionMessage) {
        Ok(ExistingPayload::Error {
            error_id: object.field("errorId")?.long()?,
            exception: object.optional("flowException")?.map(read_flow_exception).transpose()?,
        })
    } else if view.is(Type::RejectSessionMessage) {
        Ok(ExistingPayload::Reject {
            error_id: object.field("errorId")?.long()?,
            message: Cow::Borrowed(object.field("message")?.string()?),
        })
    } else {
        view.wrong_type(Type::ExistingSessionMessagePayload.name())
    }
}

fn write_session_id(w: &mut Writer, id: i64) {
    w.composite(Type::SessionId, |w| w.long(id));
}

fn existing(recipient: i64, payload: impl FnOnce(&mut Writer)) -> Vec<u8> {
    // Hashes are shared because a node's own conflict error refers to the transaction's id.
    Writer::message_sharing_hashes(|w| {
        w.composite(Type::ExistingSessionMessage, |w| {
            payload(w);
            write_session_id(w, recipient);
        });
    })
}

/// Serializes a session start.
pub fn encode_session_initial(initial: &InitialSession<'_>) -> Vec<u8> {
    Writer::message(|w| {
        w.composite(Type::InitialSessionMessage, |w| {
            w.string(&initial.app_name);
            w.optional(initial.first_payload.as_deref(), write_data);
            w.int(initial.flow_version);
            w.long(initial.initiation_entropy);
            w.string(&initial.flow_class);
            write_session_id(w, initial.initiator_session_id);
            w.optional(initial.telemetry.as_deref(), |w, entries| {
                w.composite(Type::SerializedTelemetry, |w| {
                    w.map_of(Type::MapOfOpaqueBytes, |w| {
                        for (key, value) in entries {
                            w.string_object(key);
                            w.composite(Type::OpaqueBytes, |w| w.binary(value));
                        }
                    });
                });
            });
        });
    })
}

fn write_data(w: &mut Writer, payload: &[u8]) {
    w.composite(Type::SerializedObject, |w| w.binary(payload));
}

/// Serializes the acceptance of a session: the worker's id of it, and the platform version that it offers. `recipient` is the
/// initiator's session id, here and below.
pub fn encode_session_confirm(recipient: i64, initiated_session_id: i64, platform_version: i32) -> Vec<u8> {
    existing(recipient, |w| {
        w.composite(Type::ConfirmSessionMessage, |w| {
            w.composite(Type::FlowInfo, |w| {
                // A node's own flows belong to this application, and have its platform version.
                w.string("corda");
                w.int(platform_version);
            });
            write_session_id(w, initiated_session_id);
        });
    })
}

/// Serializes a data message around a serialized payload.
pub fn encode_session_data(recipient: i64, payload: &[u8]) -> Vec<u8> {
    existing(recipient, |w| w.composite(Type::DataSessionMessage, |w| write_data(w, payload)))
}

/// Serializes the end of a session.
pub fn encode_session_end(recipient: i64) -> Vec<u8> {
    existing(recipient, |w| w.singleton(Type::EndSessionMessage))
}

/// Serializes a failure: a notary error and the transaction it is about, if that is known; or nothing but an id, where the
/// reason is not revealed.
pub fn encode_session_error(recipient: i64, error: Option<(&NotaryError, Option<TxId>)>, error_id: i64) -> Vec<u8> {
    existing(recipient, |w| {
        w.composite(Type::ErrorSessionMessage, |w| {
            w.long(error_id);
            w.optional(error, |w, (error, tx_id)| write_notary_exception(w, error, tx_id));
        });
    })
}

/// Serializes the refusal of a session, in place of a confirm.
pub fn encode_session_reject(recipient: i64, message: &str, error_id: i64) -> Vec<u8> {
    existing(recipient, |w| {
        w.composite(Type::RejectSessionMessage, |w| {
            w.long(error_id);
            w.string(message);
        });
    })
}
