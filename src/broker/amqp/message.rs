//! Messages (specification 3.2), in the form that Corda's bridges give them (PROTOCOL b.4).

use std::borrow::Cow;

use super::codec::{DecodeError, Fields, Reader, Value, Writer};

const HEADER: u8 = 0x70;
const DELIVERY_ANNOTATIONS: u8 = 0x71;
const MESSAGE_ANNOTATIONS: u8 = 0x72;
const PROPERTIES: u8 = 0x73;
const APPLICATION_PROPERTIES: u8 = 0x74;
const DATA: u8 = 0x75;
const AMQP_VALUE: u8 = 0x77;
const FOOTER: u8 = 0x78;

/// How a timestamp is encoded: milliseconds since 1970 in eight bytes follow.
const TIMESTAMP: u8 = 0x83;

/// The longest message id that is echoed, in bytes as encoded: a uuid's text has 38.
const MESSAGE_ID_LEN_MAX: usize = 256;

/// The longest address to reply to, in bytes: `p2p.inbound.` and a key's hash have some 60.
const ADDRESS_LEN_MAX: usize = 256;

/// The most application properties that are looked at; a bridge forwards ten.
const APPLICATION_PROPERTIES_MAX: u32 = 64;

/// The longest dedup id that is kept: Corda's have at most 64 characters; UTF-8 takes up to four bytes for each.
const DEDUP_ID_LEN_MAX: usize = 256;

/// Names of application properties (PROTOCOL b.4).
pub(crate) mod property {
    pub(crate) const TOPIC: &str = "platform-topic";
    pub(crate) const PLATFORM_VERSION: &str = "platform-version";
    pub(crate) const DEDUP_ID: &str = "_AMQ_DUPL_ID";
    pub(crate) const VALIDATED_USER: &str = "_AMQ_VALIDATED_USER";
}

/// The annotation in which Artemis notes the address through which a message came to where it is (`x-opt-` and the broker's own
/// name for it, as a symbol). It is written anew at every divert.
const ORIGINAL_ADDRESS: &str = "x-opt-ORIG-ADDRESS";

/// The most annotations that are looked at; Artemis makes five.
const ANNOTATIONS_MAX: u32 = 64;

/// The topic of every session message.
pub(crate) const SESSION_TOPIC: &str = "platform.session";

/// A message as received.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Message<'a> {
    /// How often it was delivered before, as the sender counts.
    pub delivery_count: u32,
    /// As encoded.
    pub message_id: Option<&'a [u8]>,
    /// As encoded.
    pub correlation_id: Option<&'a [u8]>,
    pub reply_to: Option<&'a str>,
    /// When it was made, as its sender says: milliseconds since 1970.
    pub created_ms: Option<i64>,
    pub platform_version: Option<i32>,
    pub dedup_id: Option<&'a str>,
    pub validated_user: Option<&'a str>,
    /// The address through which the broker routed it here. Who sent the message can write this as well, unless the broker
    /// overwrites it: see `broker/artemis/entrances.rs`.
    pub original_address: Option<&'a str>,
    /// All application properties, keys and values in turn.
    pub application: Fields<'a>,
    pub body: Cow<'a, [u8]>,
}

impl<'a> Message<'a> {
    /// Reads the sections of a message. The body is one or more data sections, or a single binary or string value as simple
    /// clients send it; an empty value is an empty body.
    ///
    /// Sections must come in the specification's order, each once: a broker that rewrites a message looks at the first of a kind
    /// only, so a second one, or one out of place, could say what no broker has seen.
    ///
    /// # Errors
    /// Says what is wrong; also if there is no body, or one of another kind.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        let mut body: Option<Cow<'a, [u8]>> = None;
        let mut reader = Reader::new(bytes);
        let mut latest = 0;
        while !reader.rest().is_empty() {
            let Value::Described(section) = reader.value()? else { return Err(DecodeError("no section")) };
            if section.code < latest || (section.code == latest && section.code != u64::from(DATA)) {
                return Err(DecodeError("a section twice, or out of order"));
            }
            latest = section.code;
            match u8::try_from(section.code) {
                Ok(HEADER) => message.read_header(section.fields()?)?,
                Ok(PROPERTIES) => message.read_properties(section.fields()?)?,
                Ok(APPLICATION_PROPERTIES) => {
                    let Value::Map(map) = Reader::new(section.value).value()? else {
                        return Err(DecodeError("application properties are no map"));
                    };
                    message.read_application_properties(map)?;
                }
                Ok(DATA) => {
                    let Value::Binary(data) = Reader::new(section.value).value()? else {
                        return Err(DecodeError("a data section is not binary"));
                    };
                    match &mut body {
                        None => body = Some(Cow::Borrowed(data)),
                        Some(body) => body.to_mut().extend_from_slice(data),
                    }
                }
                Ok(AMQP_VALUE) if body.is_none() => match Reader::new(section.value).value()? {
                    Value::Binary(data) => body = Some(Cow::Borrowed(data)),
                    Value::String(text) => body = Some(Cow::Borrowed(text.as_bytes())),
                    Value::Null => body = Some(Cow::Borrowed(&[])),
                    _ => return Err(DecodeError("the body is not binary")),
                },
                Ok(MESSAGE_ANNOTATIONS) => {
                    let Value::Map(map) = Reader::new(section.value).value()? else {
                        return Err(DecodeError("annotations are no map"));
                    };
                    message.read_annotations(map)?;
                }
                Ok(DELIVERY_ANNOTATIONS | FOOTER) => {}
                _ => return Err(DecodeError("unexpected section")),
            }
        }
        message.body = body.ok_or(DecodeError("a message without a body"))?;
        Ok(message)
    }

    fn read_header(&mut self, mut fields: Fields<'a>) -> Result<(), DecodeError> {
        fields.skip(4)?;
        self.delivery_count = fields.uint()?.unwrap_or(0);
        Ok(())
    }

    fn read_annotations(&mut self, mut map: Fields<'a>) -> Result<(), DecodeError> {
        if map.remaining() > 2 * ANNOTATIONS_MAX {
            return Err(DecodeError("too many annotations"));
        }
        while map.remaining() > 0 {
            let (key, value) = (map.value()?, map.value()?);
            match (key, value) {
                (Value::Symbol(ORIGINAL_ADDRESS), Value::String(address)) if self.original_address.is_none() => {
                    self.original_address = Some(address);
                }
                (Value::Symbol(ORIGINAL_ADDRESS) | Value::String(ORIGINAL_ADDRESS), _) => {
                    return Err(DecodeError("the original address is given twice, or is no text"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_properties(&mut self, mut fields: Fields<'a>) -> Result<(), DecodeError> {
        let id = |encoded: Option<&'a [u8]>| match encoded {
            Some(id) if id.len() > MESSAGE_ID_LEN_MAX => Err(DecodeError("a message id is too long")),
            id => Ok(id),
        };
        self.message_id = id(fields.encoded()?)?;
        fields.skip(3)?;
        self.reply_to = fields.text()?;
        if self.reply_to.is_some_and(|address| address.len() > ADDRESS_LEN_MAX) {
            return Err(DecodeError("the address to reply to is too long"));
        }
        self.correlation_id = id(fields.encoded()?)?;
        fields.skip(3)?;
        if let Some((TIMESTAMP, millis)) = fields.encoded()?.and_then(|time| Some((*time.first()?, time.get(1..)?))) {
            self.created_ms = millis.try_into().ok().map(i64::from_be_bytes);
        }
        Ok(())
    }

    fn read_application_properties(&mut self, mut map: Fields<'a>) -> Result<(), DecodeError> {
        if map.remaining() > 2 * APPLICATION_PROPERTIES_MAX {
            return Err(DecodeError("too many application properties"));
        }
        self.application = map;
        while map.remaining() > 0 {
            let (key, value) = (map.value()?, map.value()?);
            let Value::String(key) = key else { return Err(DecodeError("an application property without a name")) };
            match (key, value) {
                (property::PLATFORM_VERSION, Value::Signed(version)) => self.platform_version = version.try_into().ok(),
                (property::PLATFORM_VERSION, Value::Unsigned(version)) => {
                    self.platform_version = version.try_into().ok();
                }
                (property::DEDUP_ID, Value::String(id)) if id.len() <= DEDUP_ID_LEN_MAX => self.dedup_id = Some(id),
                (property::DEDUP_ID, Value::String(_)) => return Err(DecodeError("a deduplication id is too long")),
                (property::VALIDATED_USER, Value::String(user)) => self.validated_user = Some(user),
                _ => {}
            }
        }
        Ok(())
    }

    /// The application properties that are text.
    pub(crate) fn text_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut map = self.application;
        core::iter::from_fn(move || {
            while map.remaining() > 0 {
                if let (Ok(Value::String(key)), Ok(Value::String(value))) = (map.value(), map.value()) {
                    return Some((key, value));
                }
            }
            None
        })
    }
}

/// A message to send.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct OutgoingMessage<'a> {
    /// Text of the message id.
    pub message_id: Option<&'a str>,
    pub reply_to: Option<&'a str>,
    /// As encoded.
    pub correlation_id: Option<&'a [u8]>,
    /// When it is made: milliseconds since 1970.
    pub created_ms: Option<i64>,
    pub platform_version: i32,
    pub dedup_id: &'a str,
    pub validated_user: &'a str,
    /// Further application properties.
    pub headers: &'a [(&'static str, String)],
    /// For how many milliseconds the message is of use; for ever unless given. Such a message is not durable.
    pub ttl_ms: Option<u32>,
    /// What is claimed of the address through which the message came: for those who prove that the claim is overwritten.
    pub original_address: Option<&'a str>,
    pub body: &'a [u8],
}

impl OutgoingMessage<'_> {
    /// The message's bytes: header (durable), annotations if there are any, properties (perhaps empty), application properties, one data section.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Sections, names and ids take a few hundred bytes.
        let mut out = Vec::with_capacity(self.body.len() + 512);
        let mut w = Writer::new(&mut out);
        w.composite(HEADER, |w| {
            w.boolean(self.ttl_ms.is_none());
            if let Some(ttl) = self.ttl_ms {
                w.null().uint(ttl);
            }
        });
        if let Some(address) = self.original_address {
            w.descriptor(MESSAGE_ANNOTATIONS).map(|w| {
                w.symbol(ORIGINAL_ADDRESS).string(address);
            });
        }
        w.composite(PROPERTIES, |w| {
            let said = self.message_id.is_some() || self.reply_to.is_some() || self.correlation_id.is_some();
            if said || self.created_ms.is_some() {
                w.optional(self.message_id, |w, id| {
                    w.string(id);
                });
                w.nulls(3).optional(self.reply_to, |w, address| {
                    w.string(address);
                });
                w.encoded(self.correlation_id);
            }
            if let Some(millis) = self.created_ms {
                let mut time = [TIMESTAMP; 9];
                time[1..].copy_from_slice(&millis.to_be_bytes());
                w.nulls(3).encoded(Some(&time));
            }
        });
        w.descriptor(APPLICATION_PROPERTIES).map(|w| {
            w.string(property::TOPIC).string(SESSION_TOPIC);
            w.string(property::PLATFORM_VERSION).int(self.platform_version);
            w.string(property::DEDUP_ID).string(self.dedup_id);
            w.string(property::VALIDATED_USER).string(self.validated_user);
            for (name, value) in self.headers {
                w.string(name).string(value);
            }
        });
        w.descriptor(DATA).binary(self.body);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_message_of_a_corda_bridge_is_understood() {
        let bytes = include_bytes!("../../../tests/vectors/bridge_message_session_initial.amqp");
        let message = Message::decode(bytes).expect("a vector");
        assert_eq!(message.platform_version, Some(12));
        assert_eq!(message.dedup_id, Some("N-R-1234605616436508552--77-0-0"));
        assert_eq!(message.validated_user, Some("O=Alice Corp, L=Madrid, C=ES"));
        assert!(message.text_properties().any(|pair| pair == (property::TOPIC, SESSION_TOPIC)));
        assert_eq!((message.message_id, message.reply_to), (None, None));
        assert_eq!(&*message.body, include_bytes!("../../../tests/vectors/session_initial.bin"));
    }

    #[test]
    fn what_is_encoded_reads_back() {
        let sent = OutgoingMessage {
            message_id: Some("m"),
            reply_to: Some("r"),
            correlation_id: Some(&[0x53, 7]),
            created_ms: Some(1_600_000_000_123),
            platform_version: 140,
            dedup_id: "d",
            validated_user: "O=W, L=X, C=CH",
            headers: &[("outcome", "committed".to_owned())],
            ttl_ms: Some(1_000),
            original_address: Some("o"),
            body: &[1; 300],
        };
        let bytes = sent.encode();
        let read = Message::decode(&bytes).expect("just encoded");
        assert_eq!((read.message_id, read.correlation_id), (Some(&b"\xa1\x01m"[..]), sent.correlation_id));
        assert_eq!((read.reply_to, read.dedup_id, read.platform_version), (Some("r"), Some("d"), Some(140)));
        assert_eq!((read.original_address, read.created_ms), (Some("o"), sent.created_ms));
        assert!(read.text_properties().any(|pair| pair == ("outcome", "committed")));
        assert_eq!(&*read.body, sent.body);
    }

    #[test]
    fn a_body_may_come_in_pieces_or_as_a_plain_value() {
        let pieces = b"\x00\x53\x75\xa0\x02ab\x00\x53\x75\xa0\x01c";
        assert_eq!(&*Message::decode(pieces).expect("data").body, b"abc");
        assert_eq!(&*Message::decode(b"\x00\x53\x77\xa0\x01x").expect("a value").body, b"x");
        assert_eq!(&*Message::decode(b"\x00\x53\x77\xa1\x01x").expect("a value").body, b"x");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in
            [&b""[..], b"\x00\x53\x75\x40", b"\x00\x53\x77\x43", b"\x00\x53\x79\x45", b"abc", b"\x00\x53\x70\x45"]
        {
            assert!(Message::decode(bytes).is_err(), "{bytes:02x?}");
        }
        let id = OutgoingMessage { message_id: Some(&"x".repeat(300)), ..OutgoingMessage::default() }.encode();
        assert_eq!(Message::decode(&id), Err(DecodeError("a message id is too long")));
    }

    /// A broker that rewrites annotations sees those in their place only.
    #[test]
    fn annotations_out_of_place_are_refused() {
        let annotations = |address| {
            let mut out = Vec::new();
            Writer::new(&mut out).descriptor(MESSAGE_ANNOTATIONS).map(|w| {
                w.symbol(ORIGINAL_ADDRESS).string(address);
            });
            out
        };
        let (properties, body) = (&b"\x00\x53\x73\x45"[..], &b"\x00\x53\x75\xa0\x01x"[..]);
        let (genuine, forged) = (annotations("genuine"), annotations("forged"));
        let good = [&genuine[..], properties, body].concat();
        assert_eq!(Message::decode(&good).expect("in order").original_address, Some("genuine"));
        for bad in [
            [&genuine[..], &forged, body].concat(),
            [&genuine[..], properties, &forged, body].concat(),
            [&genuine[..], body, &forged].concat(),
            [properties, &forged, body].concat(),
        ] {
            assert!(Message::decode(&bad).is_err(), "{bad:02x?}");
        }
        let mut twice = Vec::new();
        Writer::new(&mut twice).descriptor(MESSAGE_ANNOTATIONS).map(|w| {
            w.symbol(ORIGINAL_ADDRESS).string("genuine").symbol(ORIGINAL_ADDRESS).string("forged");
        });
        assert!(Message::decode(&[&twice[..], body].concat()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
            let vector = include_bytes!("../../../tests/vectors/bridge_message_session_initial.amqp");
            let mut damaged = vector[..400].to_vec();
            for (at, byte) in bytes.iter().enumerate() {
                damaged[(at * 7 + usize::from(*byte)) % 400] ^= byte;
            }
            if let Ok(message) = Message::decode(&damaged) {
                let _ = message.text_properties().count();
            }
        }
    }
}
