//! Messages between AMQP 0-9-1 and the port: properties in, replies and parked messages out.

use std::sync::Arc;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::lanes::Letter;
use crate::broker::amqp::message::{SESSION_TOPIC, property};
use crate::broker::printable;
use crate::ports::request_queue::Reply;

/// The header by which a request names the worker that should serve it (LB6): a legal name.
pub(super) const WORKER: &str = "worker";
/// Why a message was parked.
pub(super) const REASON: &str = "x-notary-reason";
/// Who sent a parked message: the broker user, which only the sender itself may put into `user_id`.
const USER: &str = "x-notary-user";
/// From which queue a message was parked.
const QUEUE: &str = "x-notary-queue";
/// How often a quorum queue delivered the message before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// The longest text of a short string, in bytes (AMQP 0-9-1, 4.2.5.3).
pub(super) const SHORT_BYTES_MAX: usize = 255;
/// Characters of a reason: enough for a sentence with a name in it.
const REASON_CHARS_MAX: usize = 512;
/// Headers of a sender's making that a parked message keeps, and the bytes of each: Corda's are ten short ones. All of them and
/// ours fit into one frame, whose least size is 4096 bytes and whose usual one is 131072.
const KEPT_HEADERS_MAX: usize = 32;
const KEPT_VALUE_BYTES_MAX: usize = 1024;
/// Routing that a sender asks the broker for. On a message that we publish it would be done with our rights.
const ROUTING_HEADERS: [&str; 2] = ["CC", "BCC"];

/// A text cut to what a short string may hold.
pub(super) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(SHORT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

pub(super) fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

/// A header as a whole number, whatever width the sender gave it.
fn number(headers: &FieldTable, name: &str) -> Option<i64> {
    Some(match headers.inner().get(name)? {
        AMQPValue::ShortShortInt(n) => (*n).into(),
        AMQPValue::ShortShortUInt(n) => (*n).into(),
        AMQPValue::ShortInt(n) => (*n).into(),
        AMQPValue::ShortUInt(n) => (*n).into(),
        AMQPValue::LongInt(n) => (*n).into(),
        AMQPValue::LongUInt(n) => (*n).into(),
        AMQPValue::LongLongInt(n) => *n,
        _ => return None,
    })
}

/// How often the message was delivered before. The broker counts; what a sender claims only brings its own message to an end.
pub(super) fn prior_deliveries(properties: &BasicProperties, redelivered: bool) -> u32 {
    match properties.headers().as_ref().and_then(|headers| number(headers, DELIVERY_COUNT)) {
        Some(count) => u32::try_from(count.max(0)).unwrap_or(u32::MAX),
        None => redelivered.into(),
    }
}

/// The sender's platform version, if it says.
pub(super) fn platform_version(properties: &BasicProperties) -> Option<i32> {
    let headers = properties.headers().as_ref()?;
    number(headers, property::PLATFORM_VERSION).and_then(|version| i32::try_from(version).ok())
}

/// Texts among the headers.
pub(super) fn texts(properties: &BasicProperties) -> Vec<(String, String)> {
    let headers = properties.headers().iter().flat_map(|headers| headers.inner());
    let texts = headers.filter_map(|(name, value)| match value {
        AMQPValue::LongString(value) => Some((name.to_string(), value.to_string())),
        AMQPValue::ShortString(value) => Some((name.to_string(), value.to_string())),
        _ => None,
    });
    texts.collect()
}

/// A reply, for the queue `to`, to the request with the correlation id `correlation`. Corda's own properties become headers of the
/// same names.
pub(super) fn reply(reply: Reply, to: &str, correlation: Option<&ShortString>, platform_version: i32) -> Letter {
    let mut headers = FieldTable::default();
    for (name, value) in &reply.headers {
        headers.insert((*name).into(), text(value));
    }
    headers.insert(property::TOPIC.into(), text(SESSION_TOPIC));
    headers.insert(property::PLATFORM_VERSION.into(), AMQPValue::LongInt(platform_version));
    let mut properties = BasicProperties::default()
        .with_delivery_mode(2) // Persistent.
        .with_message_id(short(&reply.dedup_id))
        .with_headers(headers);
    if let Some(correlation) = correlation {
        properties = properties.with_correlation_id(correlation.clone());
    }
    Letter { exchange: String::new(), key: to.to_owned(), properties, body: reply.body.into() }
}

/// A message to be parked in the queue `dead`, with the reason. It keeps what tells people about it.
pub(super) fn parked(original: &BasicProperties, body: &Arc<[u8]>, queue: &str, dead: &str, reason: &str) -> Letter {
    let mut headers = FieldTable::default();
    let kept = original.headers().iter().flat_map(|headers| headers.inner()).filter(|(name, value)| {
        let small = match value {
            AMQPValue::LongString(text) => text.as_bytes().len() <= KEPT_VALUE_BYTES_MAX,
            AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) | AMQPValue::ByteArray(_) => false,
            _ => true,
        };
        small && !ROUTING_HEADERS.contains(&name.as_str())
    });
    for (name, value) in kept.take(KEPT_HEADERS_MAX) {
        headers.insert(name.clone(), value.clone());
    }
    headers.insert(REASON.into(), text(&printable(reason, REASON_CHARS_MAX)));
    headers.insert(QUEUE.into(), text(queue));
    if let Some(user) = original.user_id() {
        headers.insert(USER.into(), text(&printable(user.as_str(), SHORT_BYTES_MAX)));
    }
    let mut properties = BasicProperties::default().with_delivery_mode(2).with_headers(headers);
    // Not `user_id`, which must be the publisher's, and no expiration: it is to stay.
    if let Some(id) = original.message_id() {
        properties = properties.with_message_id(id.clone());
    }
    if let Some(id) = original.correlation_id() {
        properties = properties.with_correlation_id(id.clone());
    }
    if let Some(address) = original.reply_to() {
        properties = properties.with_reply_to(address.clone());
    }
    if let Some(kind) = original.content_type() {
        properties = properties.with_content_type(kind.clone());
    }
    if let Some(at) = original.timestamp() {
        properties = properties.with_timestamp(*at);
    }
    Letter { exchange: String::new(), key: dead.to_owned(), properties, body: Arc::clone(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(entries: &[(&str, AMQPValue)]) -> BasicProperties {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert((*name).into(), value.clone());
        }
        BasicProperties::default().with_headers(table)
    }

    #[test]
    fn deliveries_are_counted_by_the_broker_or_at_least_told_apart() {
        assert_eq!(prior_deliveries(&BasicProperties::default(), false), 0);
        assert_eq!(prior_deliveries(&BasicProperties::default(), true), 1);
        assert_eq!(prior_deliveries(&headers(&[(DELIVERY_COUNT, AMQPValue::LongLongInt(7))]), true), 7);
        assert_eq!(prior_deliveries(&headers(&[(DELIVERY_COUNT, AMQPValue::LongLongInt(-7))]), true), 0);
        assert_eq!(prior_deliveries(&headers(&[(DELIVERY_COUNT, AMQPValue::LongLongInt(i64::MAX))]), true), u32::MAX);
        assert_eq!(prior_deliveries(&headers(&[(DELIVERY_COUNT, text("many"))]), false), 0);
    }

    #[test]
    fn a_parked_message_keeps_what_tells_about_it_and_nothing_that_acts() {
        let original = headers(&[
            ("CC", text("notary.replies.alice")),
            ("BCC", text("notary.replies.alice")),
            ("long", text(&"x".repeat(2_000))),
            ("table", AMQPValue::FieldTable(FieldTable::default())),
            (REASON, text("none")),
            ("kept", text("yes")),
        ])
        .with_user_id("mallory".into())
        .with_expiration("1".into())
        .with_message_id("id".into());
        let letter = parked(&original, &Arc::from(*b"body"), "notary.requests", "notary.dead", "bad\n\u{1b}[2Jthing");
        assert_eq!(
            (letter.exchange.as_str(), letter.key.as_str(), &letter.body[..]),
            ("", "notary.dead", &b"body"[..])
        );
        let properties = &letter.properties;
        assert_eq!(
            (properties.user_id(), properties.expiration(), properties.delivery_mode()),
            (&None, &None, &Some(2))
        );
        assert_eq!(properties.message_id().as_ref().map(|id| id.as_str()), Some("id"));
        let mut texts = texts(properties);
        texts.sort();
        let expected =
            [("kept", "yes"), (QUEUE, "notary.requests"), (REASON, "bad\\n\\u{1b}[2Jthing"), (USER, "mallory")];
        assert_eq!(texts, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn long_ids_are_cut_where_a_character_ends() {
        assert_eq!(short("id").as_str(), "id");
        assert_eq!(short(&"ü".repeat(200)).as_str().len(), 254);
    }
}
