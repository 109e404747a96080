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
    pub platform_version: Option<i32>,
    pub dedup_id: Option<&'a str>,
    pub validated_user: Option<&'a str>,
    /// All application properties, keys and values in turn.
    pub application: Fields<'a>,
    pub body: Cow<'a, [u8]>,
}

impl<'a> Message<'a> {
    /// Reads the sections of a message. The body is one or more data sections, or a single binary or string value as simple
    /// clients send it.
    ///
    /// # Errors
    /// Says what is wrong; also if there is no body, or one of another kind.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        let mut body: Option<Cow<'a, [u8]>> = None;
        let mut reader = Reader::new(bytes);
        while !reader.rest().is_empty() {
            let Value::Described(section) = reader.value()? else { return Err(DecodeError("no section")) };
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
                    _ => return Err(DecodeError("the body is not binary")),
                },
                Ok(DELIVERY_ANNOTATIONS | MESSAGE_ANNOTATIONS | FOOTER) => {}
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
    pub platform_version: i32,
    pub dedup_id: &'a str,
    pub validated_user: &'a str,
    /// Further application properties.
    pub headers: &'a [(&'static str, String)],
    pub body: &'a [u8],
}

impl OutgoingMessage<'_> {
    /// The message's bytes: header (durable), properties (perhaps empty), application properties, one data section.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Sections, names and ids take a few hundred bytes.
        let mut out = Vec::with_capacity(self.body.len() + 512);
        let mut w = Writer::new(&mut out);
        w.composite(HEADER, |w| {
            w.boolean(true);
        });
        w.composite(PROPERTIES, |w| {
            if self.message_id.is_some() || self.reply_to.is_some() || self.correlation_id.is_some() {
                w.optional(self.message_id, |w, id| {
                    w.string(id);
                });
                w.nulls(3).optional(self.reply_to, |w, address| {
                    w.string(address);
                });
                w.encoded(self.correlation_id);
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
            platform_version: 140,
            dedup_id: "d",
            validated_user: "O=W, L=X, C=CH",
            headers: &[("outcome", "committed".to_owned())],
            body: &[1; 300],
        };
        let bytes = sent.encode();
        let read = Message::decode(&bytes).expect("just encoded");
        assert_eq!((read.message_id, read.correlation_id), (Some(&b"\xa1\x01m"[..]), sent.correlation_id));
        assert_eq!((read.reply_to, read.dedup_id, read.platform_version), (Some("r"), Some("d"), Some(140)));
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
