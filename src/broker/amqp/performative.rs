//! Performatives (specification 2.7 and 5.3.3): what frames say. Only fields that this worker reads or writes are named;
//! others are skipped when read and left out when written.

use super::codec::{DecodeError, Described, Fields, Reader, Value, Writer};
use super::frame::{self, FrameType};

/// What a peer says, and the payload behind it, which only transfers have.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Performative<'a> {
    Open(Open<'a>),
    Begin(Begin),
    Attach(Attach<'a>),
    Flow(Flow),
    Transfer(Transfer<'a>),
    Disposition(Disposition<'a>),
    Detach(Detach<'a>),
    End(Option<ErrorInfo<'a>>),
    Close(Option<ErrorInfo<'a>>),
}

const OPEN: u8 = 0x10;
const BEGIN: u8 = 0x11;
const ATTACH: u8 = 0x12;
const FLOW: u8 = 0x13;
const TRANSFER: u8 = 0x14;
const DISPOSITION: u8 = 0x15;
const DETACH: u8 = 0x16;
const END: u8 = 0x17;
const CLOSE: u8 = 0x18;
const ERROR: u8 = 0x1d;
const SOURCE: u8 = 0x28;
const TARGET: u8 = 0x29;
const SASL_MECHANISMS: u8 = 0x40;
const SASL_INIT: u8 = 0x41;
const SASL_OUTCOME: u8 = 0x44;

impl<'a> Performative<'a> {
    /// Reads the body of an AMQP frame.
    ///
    /// # Errors
    /// Unless it starts with a performative of the specification.
    pub(crate) fn decode(body: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut reader = Reader::new(body);
        let Value::Described(described) = reader.value()? else { return Err(DecodeError("no performative")) };
        let fields = described.fields()?;
        let performative = match u8::try_from(described.code) {
            Ok(OPEN) => Self::Open(Open::decode(fields)?),
            Ok(BEGIN) => Self::Begin(Begin::decode(fields)?),
            Ok(ATTACH) => Self::Attach(Attach::decode(fields)?),
            Ok(FLOW) => Self::Flow(Flow::decode(fields)?),
            Ok(TRANSFER) => Self::Transfer(Transfer::decode(fields)?),
            Ok(DISPOSITION) => Self::Disposition(Disposition::decode(fields)?),
            Ok(DETACH) => Self::Detach(Detach::decode(fields)?),
            Ok(END) => Self::End(ErrorInfo::decode(fields)?),
            Ok(CLOSE) => Self::Close(ErrorInfo::decode(fields)?),
            _ => return Err(DecodeError("unknown performative")),
        };
        if !reader.rest().is_empty() && !matches!(performative, Self::Transfer(_)) {
            return Err(DecodeError("bytes after a performative"));
        }
        Ok((performative, reader.rest()))
    }
}

/// Who is there and what it can take.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Open<'a> {
    pub container_id: &'a str,
    pub hostname: Option<&'a str>,
    pub max_frame_size: u32,
    pub channel_max: u16,
    /// Milliseconds; 0 for never.
    pub idle_time_out: u32,
}

impl<'a> Open<'a> {
    fn decode(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            container_id: fields.text()?.ok_or(DecodeError("open without a container id"))?,
            hostname: fields.text()?,
            max_frame_size: fields.uint()?.unwrap_or(u32::MAX),
            channel_max: fields.ushort()?.unwrap_or(u16::MAX),
            idle_time_out: fields.uint()?.unwrap_or(0),
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        amqp_frame(out, 0, OPEN, |w| {
            w.string(self.container_id).optional(self.hostname, |w, name| {
                w.string(name);
            });
            w.uint(self.max_frame_size).ushort(self.channel_max).uint(self.idle_time_out);
        });
    }
}

/// A session starts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Begin {
    pub remote_channel: Option<u16>,
    pub next_outgoing_id: u32,
    pub incoming_window: u32,
    pub outgoing_window: u32,
    pub handle_max: u32,
}

impl Begin {
    fn decode(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            remote_channel: fields.ushort()?,
            next_outgoing_id: fields.mandatory_uint()?,
            incoming_window: fields.mandatory_uint()?,
            outgoing_window: fields.mandatory_uint()?,
            handle_max: fields.uint()?.unwrap_or(u32::MAX),
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, channel: u16) {
        amqp_frame(out, channel, BEGIN, |w| {
            w.optional(self.remote_channel, |w, channel| {
                w.ushort(channel);
            });
            w.uint(self.next_outgoing_id).uint(self.incoming_window).uint(self.outgoing_window).uint(self.handle_max);
        });
    }
}

/// One end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Sender,
    Receiver,
}

impl Role {
    fn from_bool(receiver: bool) -> Self {
        if receiver { Self::Receiver } else { Self::Sender }
    }
}

/// `snd-settle-mode`.
pub(crate) const SENDER_UNSETTLED: u8 = 0;
pub(crate) const SENDER_SETTLED: u8 = 1;
/// `rcv-settle-mode`: the receiver waits for the sender to settle first. The other mode is 0.
pub(crate) const RECEIVER_SETTLES_SECOND: u8 = 1;

/// Where a link comes from or leads to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Terminus<'a> {
    pub address: Option<&'a str>,
    pub dynamic: bool,
    /// Asks that a message go to one consumer only, and so for an address with a queue. Written, not read.
    pub queue: bool,
    /// Which messages a source is to give, in the language of JMS. Written, not read.
    pub selector: Option<&'a str>,
}

/// The capability of a terminus that is a queue, as brokers that also speak JMS know it.
const QUEUE: &str = "queue";
/// The filter that takes a selector (registered with the specification's authors).
const SELECTOR_FILTER: &str = "apache.org:selector-filter:string";

impl<'a> Terminus<'a> {
    /// A node by its name.
    pub(crate) fn at(address: &'a str) -> Self {
        Self { address: Some(address), ..Self::default() }
    }

    /// Source and target share the fields that matter. Anything else, such as a transaction coordinator, reads as absent.
    fn decode(described: Option<Described<'a>>) -> Result<Option<Self>, DecodeError> {
        let Some(described) = described else { return Ok(None) };
        if described.code != u64::from(SOURCE) && described.code != u64::from(TARGET) {
            return Ok(None);
        }
        let mut fields = described.fields()?;
        let address = fields.text()?;
        fields.skip(3)?;
        Ok(Some(Self { address, dynamic: fields.boolean()?, ..Self::default() }))
    }

    fn write(w: &mut Writer<'_>, code: u8, terminus: Option<&Self>) {
        let Some(terminus) = terminus else {
            w.null();
            return;
        };
        w.composite(code, |w| {
            w.optional(terminus.address, |w, address| {
                w.string(address);
            });
            if terminus.dynamic || terminus.queue || terminus.selector.is_some() {
                w.nulls(3).boolean(terminus.dynamic);
            }
            if code == SOURCE && (terminus.queue || terminus.selector.is_some()) {
                w.nulls(2).optional(terminus.selector, |w, selector| {
                    w.map(|w| {
                        w.symbol(SELECTOR_FILTER).symbolic_descriptor(SELECTOR_FILTER).string(selector);
                    });
                });
                w.nulls(2);
            } else if terminus.queue {
                w.null();
            }
            if terminus.queue {
                w.symbol(QUEUE);
            }
        });
    }
}

/// A link starts.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Attach<'a> {
    pub name: &'a str,
    pub handle: u32,
    pub role: Role,
    pub snd_settle_mode: u8,
    pub rcv_settle_mode: u8,
    pub source: Option<Terminus<'a>>,
    pub target: Option<Terminus<'a>>,
    pub initial_delivery_count: Option<u32>,
    /// Bytes; 0 for no limit.
    pub max_message_size: u64,
    /// Of a receiver: those of higher priority are served first, as Artemis has it. Written, not read.
    pub priority: Option<i32>,
}

impl<'a> Attach<'a> {
    fn decode(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        let name = fields.text()?.ok_or(DecodeError("attach without a name"))?;
        let handle = fields.mandatory_uint()?;
        let role = Role::from_bool(fields.boolean()?);
        let snd_settle_mode = fields.ubyte()?.unwrap_or(2);
        let rcv_settle_mode = fields.ubyte()?.unwrap_or(0);
        let source = Terminus::decode(fields.described()?)?;
        let target = Terminus::decode(fields.described()?)?;
        fields.skip(2)?;
        Ok(Self {
            name,
            handle,
            role,
            snd_settle_mode,
            rcv_settle_mode,
            source,
            target,
            initial_delivery_count: fields.uint()?,
            max_message_size: fields.ulong()?.unwrap_or(0),
            priority: None,
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, channel: u16) {
        amqp_frame(out, channel, ATTACH, |w| {
            w.string(self.name).uint(self.handle).boolean(self.role == Role::Receiver);
            w.ubyte(self.snd_settle_mode).ubyte(self.rcv_settle_mode);
            Terminus::write(w, SOURCE, self.source.as_ref());
            Terminus::write(w, TARGET, self.target.as_ref());
            w.nulls(2).optional(self.initial_delivery_count, |w, count| {
                w.uint(count);
            });
            w.ulong(self.max_message_size);
            if let Some(priority) = self.priority {
                w.nulls(2).map(|w| {
                    w.symbol("priority").int(priority);
                });
            }
        });
    }
}

/// The state of a session, and of one of its links if `handle` is present.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Flow {
    pub next_incoming_id: Option<u32>,
    pub incoming_window: u32,
    pub next_outgoing_id: u32,
    pub outgoing_window: u32,
    pub handle: Option<u32>,
    pub delivery_count: Option<u32>,
    pub link_credit: Option<u32>,
    pub drain: bool,
    pub echo: bool,
}

impl Flow {
    fn decode(mut fields: Fields<'_>) -> Result<Self, DecodeError> {
        let next_incoming_id = fields.uint()?;
        let incoming_window = fields.mandatory_uint()?;
        let next_outgoing_id = fields.mandatory_uint()?;
        let outgoing_window = fields.mandatory_uint()?;
        let handle = fields.uint()?;
        let delivery_count = fields.uint()?;
        let link_credit = fields.uint()?;
        fields.skip(1)?;
        Ok(Self {
            next_incoming_id,
            incoming_window,
            next_outgoing_id,
            outgoing_window,
            handle,
            delivery_count,
            link_credit,
            drain: fields.boolean()?,
            echo: fields.boolean()?,
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, channel: u16) {
        fn uint(w: &mut Writer<'_>, value: u32) {
            w.uint(value);
        }
        amqp_frame(out, channel, FLOW, |w| {
            w.optional(self.next_incoming_id, uint);
            w.uint(self.incoming_window).uint(self.next_outgoing_id).uint(self.outgoing_window);
            w.optional(self.handle, uint).optional(self.delivery_count, uint).optional(self.link_credit, uint);
            w.null().boolean(self.drain).boolean(self.echo);
        });
    }
}

/// A delivery, or a part of one; its bytes are the frame's payload.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Transfer<'a> {
    pub handle: u32,
    pub delivery_id: Option<u32>,
    pub delivery_tag: Option<&'a [u8]>,
    pub settled: bool,
    pub more: bool,
    pub aborted: bool,
}

impl<'a> Transfer<'a> {
    fn decode(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        let handle = fields.mandatory_uint()?;
        let delivery_id = fields.uint()?;
        let delivery_tag = fields.binary()?;
        if fields.uint()?.unwrap_or(0) != 0 {
            return Err(DecodeError("unknown message format"));
        }
        let settled = fields.boolean()?;
        let more = fields.boolean()?;
        fields.skip(3)?;
        Ok(Self { handle, delivery_id, delivery_tag, settled, more, aborted: fields.boolean()? })
    }

    /// Writes the frame, with `payload` behind the performative.
    pub(crate) fn write(&self, out: &mut Vec<u8>, channel: u16, payload: &[u8]) {
        frame::write(out, FrameType::Amqp, channel, |out| {
            Writer::new(out).composite(TRANSFER, |w| {
                w.uint(self.handle).optional(self.delivery_id, |w, id| {
                    w.uint(id);
                });
                w.optional(self.delivery_tag, |w, tag| {
                    w.binary(tag);
                });
                w.uint(0).boolean(self.settled).boolean(self.more);
                if self.aborted {
                    w.nulls(3).boolean(true);
                }
            });
            out.extend_from_slice(payload);
        });
    }
}

/// What became of deliveries.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Disposition<'a> {
    /// The role of the peer that says so.
    pub role: Role,
    pub first: u32,
    pub last: u32,
    pub settled: bool,
    pub state: Option<DeliveryState<'a>>,
}

impl<'a> Disposition<'a> {
    fn decode(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        let role = Role::from_bool(fields.boolean()?);
        let first = fields.mandatory_uint()?;
        let last = fields.uint()?.unwrap_or(first);
        let settled = fields.boolean()?;
        let state = fields.described()?.map(DeliveryState::decode).transpose()?;
        Ok(Self { role, first, last, settled, state })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, channel: u16) {
        amqp_frame(out, channel, DISPOSITION, |w| {
            w.boolean(self.role == Role::Receiver).uint(self.first).uint(self.last).boolean(self.settled);
            w.optional(self.state.as_ref(), |w, state| state.write(w));
        });
    }
}

/// A delivery's state (specification 3.4).
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum DeliveryState<'a> {
    Accepted,
    Rejected(Option<ErrorInfo<'a>>),
    Released,
    Modified {
        /// Whether the delivery counts as an attempt that failed.
        failed: bool,
    },
    /// `received`, or a state of an extension: not an outcome.
    Other,
}

impl<'a> DeliveryState<'a> {
    const ACCEPTED: u8 = 0x24;
    const REJECTED: u8 = 0x25;
    const RELEASED: u8 = 0x26;
    const MODIFIED: u8 = 0x27;

    fn decode(described: Described<'a>) -> Result<Self, DecodeError> {
        Ok(match u8::try_from(described.code) {
            Ok(Self::ACCEPTED) => Self::Accepted,
            Ok(Self::REJECTED) => Self::Rejected(ErrorInfo::decode(described.fields()?)?),
            Ok(Self::RELEASED) => Self::Released,
            Ok(Self::MODIFIED) => Self::Modified { failed: described.fields()?.boolean()? },
            _ => Self::Other,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Accepted => w.composite(Self::ACCEPTED, |_| ()),
            Self::Rejected(error) => w.composite(Self::REJECTED, |w| ErrorInfo::write_optional(error.as_ref(), w)),
            Self::Released => w.composite(Self::RELEASED, |_| ()),
            Self::Modified { failed } => w.composite(Self::MODIFIED, |w| {
                w.boolean(*failed);
            }),
            // Nothing here sends an unknown outcome; given back unharmed is what comes next to it.
            Self::Other => w.composite(Self::RELEASED, |_| ()),
        };
    }
}

/// A link ends.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Detach<'a> {
    pub handle: u32,
    pub closed: bool,
    pub error: Option<ErrorInfo<'a>>,
}

impl<'a> Detach<'a> {
    fn decode(mut fields: Fields<'a>) -> Result<Self, DecodeError> {
        let handle = fields.mandatory_uint()?;
        let closed = fields.boolean()?;
        Ok(Self { handle, closed, error: ErrorInfo::decode(fields)? })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, channel: u16) {
        amqp_frame(out, channel, DETACH, |w| {
            w.uint(self.handle).boolean(self.closed);
            ErrorInfo::write_optional(self.error.as_ref(), w);
        });
    }
}

/// Why something was refused or ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ErrorInfo<'a> {
    pub condition: &'a str,
    pub description: Option<&'a str>,
}

impl<'a> ErrorInfo<'a> {
    /// Reads the error that is the next of `fields`, if any.
    fn decode(mut fields: Fields<'a>) -> Result<Option<Self>, DecodeError> {
        let Some(described) = fields.described()? else { return Ok(None) };
        if described.code != u64::from(ERROR) {
            return Err(DecodeError("expected an error"));
        }
        let mut fields = described.fields()?;
        let condition = fields.text()?.ok_or(DecodeError("an error without a condition"))?;
        Ok(Some(Self { condition, description: fields.text()? }))
    }

    fn write_optional(error: Option<&Self>, w: &mut Writer<'_>) {
        w.optional(error, |w, error| {
            w.composite(ERROR, |w| {
                w.symbol(error.condition).optional(error.description, |w, description| {
                    w.string(description);
                });
            });
        });
    }
}

/// Ends a session.
pub(crate) fn write_end(out: &mut Vec<u8>, channel: u16, error: Option<&ErrorInfo<'_>>) {
    amqp_frame(out, channel, END, |w| ErrorInfo::write_optional(error, w));
}

/// Ends the connection.
pub(crate) fn write_close(out: &mut Vec<u8>, error: Option<&ErrorInfo<'_>>) {
    amqp_frame(out, 0, CLOSE, |w| ErrorInfo::write_optional(error, w));
}

/// An empty frame: nothing to say, but alive.
pub(crate) fn write_heartbeat(out: &mut Vec<u8>) {
    frame::write(out, FrameType::Amqp, 0, |_| ());
}

fn amqp_frame(out: &mut Vec<u8>, channel: u16, code: u8, write: impl FnOnce(&mut Writer<'_>)) {
    frame::write(out, FrameType::Amqp, channel, |out| {
        Writer::new(out).composite(code, write);
    });
}

/// SASL frames (specification 5.3.3), as far as PLAIN needs them.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Sasl<'a> {
    /// From the server: which of the mechanisms that we know it offers.
    Mechanisms { plain: bool, external: bool, anonymous: bool },
    /// From the client.
    Init { mechanism: &'a str, response: Option<&'a [u8]> },
    /// From the server: 0 for success.
    Outcome { code: u8 },
}

/// User and password.
pub(crate) const PLAIN: &str = "PLAIN";
/// The certificate of the transport names the user.
pub(crate) const EXTERNAL: &str = "EXTERNAL";
/// Nobody in particular.
pub(crate) const ANONYMOUS: &str = "ANONYMOUS";
/// The outcome of a failed authentication.
pub(crate) const SASL_AUTH_FAILED: u8 = 1;

/// An array of short symbols, as encoded (specification 1.6.24): size, count, the constructor `sym8`, each with its length.
fn symbols(texts: &[&str]) -> Vec<u8> {
    let elements: Vec<u8> = texts.iter().flat_map(|text| [&[text.len() as u8], text.as_bytes()].concat()).collect();
    // Names of mechanisms have at most 20 bytes (RFC 4422), and there are three of them.
    [&[0xe0, elements.len() as u8 + 2, texts.len() as u8, 0xa3][..], &elements].concat()
}

impl<'a> Sasl<'a> {
    /// Reads the body of a SASL frame.
    ///
    /// # Errors
    /// If it is anything else, a challenge or a response included: PLAIN has none.
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let Value::Described(described) = Reader::new(body).value()? else { return Err(DecodeError("no SASL frame")) };
        let mut fields = described.fields()?;
        match u8::try_from(described.code) {
            Ok(SASL_MECHANISMS) => {
                let offered = fields.value()?;
                let offers = |mechanism: &str| match offered {
                    Value::Symbol(only) => only == mechanism,
                    Value::Array(array) => array.contains_symbol(mechanism),
                    _ => false,
                };
                let (plain, external, anonymous) = (offers(PLAIN), offers(EXTERNAL), offers(ANONYMOUS));
                Ok(Self::Mechanisms { plain, external, anonymous })
            }
            Ok(SASL_INIT) => {
                let mechanism = fields.text()?.ok_or(DecodeError("SASL init without a mechanism"))?;
                Ok(Self::Init { mechanism, response: fields.binary()? })
            }
            Ok(SASL_OUTCOME) => {
                Ok(Self::Outcome { code: fields.ubyte()?.ok_or(DecodeError("SASL outcome without a code"))? })
            }
            _ => Err(DecodeError("unexpected SASL frame")),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        frame::write(out, FrameType::Sasl, 0, |out| {
            let mut w = Writer::new(out);
            match self {
                Self::Mechanisms { plain, external, anonymous } => w.composite(SASL_MECHANISMS, |w| {
                    let offered = [(PLAIN, plain), (EXTERNAL, external), (ANONYMOUS, anonymous)];
                    let offered: Vec<_> =
                        offered.iter().filter(|(_, offered)| **offered).map(|(name, _)| *name).collect();
                    w.encoded(Some(&symbols(&offered)));
                }),
                Self::Init { mechanism, response } => w.composite(SASL_INIT, |w| {
                    w.symbol(mechanism).optional(*response, |w, response| {
                        w.binary(response);
                    });
                }),
                Self::Outcome { code } => w.composite(SASL_OUTCOME, |w| {
                    w.ubyte(*code);
                }),
            };
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{HEADER_AMQP, HEADER_SASL};
    use super::*;

    /// What a Corda 4.10 bridge and the node's own AMQP server said to each other, by direction, split into SASL header, SASL
    /// frames, AMQP header, AMQP frames. `vectors/amqp_transcript.json`, PROTOCOL b.4.
    fn transcript() -> [Vec<u8>; 2] {
        let text = include_str!("../../../tests/vectors/amqp_transcript.json");
        let transcript: serde_json::Value = serde_json::from_str(text).expect("a vector");
        ["bridge", "broker side"].map(|side| {
            let steps = transcript["steps"].as_array().expect("steps").iter();
            let said = steps.filter(|step| step["from"].as_str().is_some_and(|from| from.starts_with(side)));
            said.flat_map(|step| hex::decode(step["hex"].as_str().expect("hex")).expect("hex")).collect()
        })
    }

    fn frames(mut bytes: &[u8], kind: FrameType) -> (Vec<&[u8]>, &[u8]) {
        let mut bodies = Vec::new();
        while bytes.len() >= 8 && !bytes.starts_with(b"AMQP") {
            let size = frame::size(bytes, 131_072).expect("a frame").expect("a whole header");
            let (whole, rest) = bytes.split_at(size);
            bodies.push(frame::parse(whole, kind).expect("a frame").body);
            bytes = rest;
        }
        (bodies, bytes)
    }

    #[test]
    fn the_bridge_of_a_corda_node_is_understood() {
        let [bridge, server] = transcript();
        let (sasl, rest) = frames(bridge.strip_prefix(&HEADER_SASL).expect("SASL"), FrameType::Sasl);
        let response = Some(&b"\0SystemUsers/Peer\0SystemUsers/Peer"[..]);
        assert_eq!(sasl.len(), 1);
        assert_eq!(Sasl::decode(sasl[0]), Ok(Sasl::Init { mechanism: PLAIN, response }));

        let (bodies, rest) = frames(rest.strip_prefix(&HEADER_AMQP).expect("AMQP"), FrameType::Amqp);
        assert!(rest.is_empty());
        let said: Vec<_> = bodies.iter().map(|body| Performative::decode(body).expect("a performative")).collect();
        let Performative::Open(open) = &said[0].0 else { panic!("{:?}", said[0]) };
        assert_eq!((open.max_frame_size, open.channel_max, open.idle_time_out), (131_072, 65_535, 5_000));
        assert!(said.iter().any(|(said, _)| matches!(said, Performative::Begin(begin) if begin.handle_max == 65_535)));
        let attach = said.iter().find_map(|(said, _)| match said {
            Performative::Attach(attach) => Some(attach),
            _ => None,
        });
        let attach = attach.expect("an attach");
        assert_eq!((attach.role, attach.snd_settle_mode, attach.rcv_settle_mode), (Role::Sender, SENDER_UNSETTLED, 0));
        assert_eq!(attach.source, attach.target);
        let (transfer, payload) = said
            .iter()
            .find_map(|(said, payload)| match said {
                Performative::Transfer(transfer) => Some((transfer, *payload)),
                _ => None,
            })
            .expect("a transfer");
        assert_eq!((transfer.delivery_id, transfer.delivery_tag), (Some(0), Some(&[0, 0, 0, 0][..])));
        assert!(!transfer.settled && !transfer.more && payload.starts_with(&[0, 0x53, 0x70]));

        let (sasl, rest) = frames(server.strip_prefix(&HEADER_SASL).expect("SASL"), FrameType::Sasl);
        assert_eq!(Sasl::decode(sasl[0]), Ok(Sasl::Mechanisms { plain: true, external: false, anonymous: false }));
        assert_eq!(Sasl::decode(sasl[1]), Ok(Sasl::Outcome { code: 0 }));
        let (bodies, _) = frames(rest.strip_prefix(&HEADER_AMQP).expect("AMQP"), FrameType::Amqp);
        let settled = bodies.iter().filter_map(|body| match Performative::decode(body).expect("a performative").0 {
            Performative::Disposition(disposition) => Some(disposition),
            _ => None,
        });
        let accepted = Some(DeliveryState::Accepted);
        let expected = Disposition { role: Role::Receiver, first: 0, last: 0, settled: true, state: accepted };
        assert_eq!(settled.collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn what_is_written_reads_back() {
        let error = Some(ErrorInfo { condition: "amqp:not-found", description: Some("no such address") });
        let open =
            Open { container_id: "c", hostname: Some("h"), max_frame_size: 512, channel_max: 1, idle_time_out: 5_000 };
        let begin = Begin {
            remote_channel: Some(3),
            next_outgoing_id: 0,
            incoming_window: 1,
            outgoing_window: 2,
            handle_max: 7,
        };
        let attach = Attach {
            name: "link",
            handle: 1,
            role: Role::Receiver,
            snd_settle_mode: 0,
            rcv_settle_mode: 0,
            source: Some(Terminus { dynamic: true, ..Terminus::default() }),
            target: Some(Terminus::at("t")),
            initial_delivery_count: Some(0),
            max_message_size: 1 << 40,
            priority: None,
        };
        let flow = Flow { handle: Some(2), link_credit: Some(5), drain: true, ..Flow::default() };
        let transfer =
            Transfer { handle: 1, delivery_id: Some(9), delivery_tag: Some(b"tag"), more: true, ..Transfer::default() };
        let state = Some(DeliveryState::Rejected(error.clone()));
        let disposition = Disposition { role: Role::Receiver, first: 1, last: 4, settled: true, state };
        let detach = Detach { handle: 4, closed: true, error: error.clone() };

        let mut bytes = Vec::new();
        open.write(&mut bytes);
        begin.write(&mut bytes, 3);
        attach.write(&mut bytes, 3);
        flow.write(&mut bytes, 3);
        transfer.write(&mut bytes, 3, b"payload");
        disposition.write(&mut bytes, 3);
        detach.write(&mut bytes, 3);
        write_end(&mut bytes, 3, error.as_ref());
        write_close(&mut bytes, None);
        write_heartbeat(&mut bytes);

        let (bodies, rest) = frames(&bytes, FrameType::Amqp);
        assert!(rest.is_empty() && bodies.last() == Some(&&[][..]));
        let read: Vec<_> = bodies[..9].iter().map(|body| Performative::decode(body).expect("a performative")).collect();
        assert_eq!(read[4].1, b"payload");
        let read: Vec<_> = read.into_iter().map(|(performative, _)| performative).collect();
        assert_eq!(
            read,
            [
                Performative::Open(open),
                Performative::Begin(begin),
                Performative::Attach(attach),
                Performative::Flow(flow),
                Performative::Transfer(transfer),
                Performative::Disposition(disposition),
                Performative::Detach(detach),
                Performative::End(error),
                Performative::Close(None),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(code in 0x0eu8..0x48, bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let body = [&[0x00, 0x53, code][..], &bytes].concat();
            let _ = Performative::decode(&body);
            let _ = Sasl::decode(&body);
            let listed = [&[0x00, 0x53, code, 0xc0, bytes.len() as u8 + 1, 12][..], &bytes].concat();
            let _ = Performative::decode(&listed);
            let _ = Sasl::decode(&listed);
        }
    }
}
