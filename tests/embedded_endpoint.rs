//! The embedded endpoint towards peers of all kinds: bad input costs its sender only.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use notary_worker::broker::Outcome;
use notary_worker::broker::client::{Client, ClientError, Listen};
use notary_worker::broker::embedded::{Credentials, Endpoint, Limits, ListenError, Refusal};
use notary_worker::ports::request_queue::{QueueError, Reply, RequestQueue, Settlement};
use tokio::runtime::Handle;

mod peers;

use peers::*;

/// Waits for something to become true, which it does soon or never.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn reply(body: &[u8]) -> Reply {
    Reply { dedup_id: "id".to_owned(), headers: Vec::new(), body: body.to_vec() }
}

/// One request of Alice's from end to end: the endpoint serves.
async fn serves(endpoint: &Endpoint) {
    let (client, mut answers) = connect(endpoint, "Alice").await;
    let sending = tokio::spawn(async move { client.send(request("request")).await });
    let delivery = endpoint.receive().await.unwrap();
    assert_eq!((&*delivery.body, delivery.caller), (&b"request"[..], name("Alice")));
    let (replied, answer) = tokio::join!(endpoint.reply(delivery.id, vec![reply(b"answer")]), answers.next());
    replied.unwrap();
    let answer = answer.unwrap();
    assert_eq!((&*answer.body, answer.platform_version), (&b"answer"[..], Some(12)));
    assert_eq!(answer.worker.as_deref(), Some("O=Worker, L=Zurich, C=CH"));
    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    assert_eq!(sending.await.unwrap(), Ok(Outcome::Accepted));
}

fn condition(result: Result<impl Sized, ClientError>) -> String {
    match result.map(|_| "connected") {
        Err(ClientError::Refused { condition, .. }) => condition,
        other => panic!("not refused: {other:?}"),
    }
}

async fn counts(endpoint: &Endpoint, reason: Refusal, count: u64) {
    eventually(reason.name(), || endpoint.figures().refused_for(reason) >= count).await;
    assert_eq!(endpoint.figures().refused_for(reason), count, "{}", reason.name());
}

// Who may connect, and where to.

#[tokio::test]
async fn it_listens_on_loopback_only() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let settings = settings(address, Limits::default());
        let refused = Endpoint::listen(settings, Arc::new(Credentials::default()), &Handle::current());
        assert!(matches!(refused, Err(ListenError::NotLoopback(_))), "{address}");
    }
    let limits = Limits { link_credit: 0, ..Limits::default() };
    let broken =
        Endpoint::listen(settings("127.0.0.1:0", limits), Arc::new(Credentials::default()), &Handle::current());
    assert!(matches!(broken, Err(ListenError::Limits(_))));
}

#[tokio::test]
async fn wrong_passwords_and_unknown_users_are_refused() {
    let endpoint = endpoint(Limits::default());
    for (user, password) in [("Alice", "Bob"), ("Alice", ""), ("Eve", "Eve")] {
        let mut options = options(&endpoint, user, Listen::Not);
        options.password = password.to_owned().into();
        assert_eq!(Client::connect(options).await.unwrap_err(), ClientError::Unauthenticated);
    }
    counts(&endpoint, Refusal::WrongCredentials, 3).await;
    serves(&endpoint).await;
}

#[tokio::test]
async fn nobody_comes_in_without_a_name() {
    let endpoint = endpoint(Limits::default());
    let mut bare = RawPeer::connect(&endpoint).await;
    bare.say(b"AMQP\x00\x01\x00\x00").await;
    assert_eq!(bare.hear_out().await, b"AMQP\x03\x01\x00\x00", "it says that it wants SASL, and goes");

    let mut anonymous = RawPeer::connect(&endpoint).await;
    anonymous.say(b"AMQP\x03\x01\x00\x00").await;
    anonymous.say(&frame(1, 0, &list(0x41, &[&symbol("ANONYMOUS"), &binary(b"anon")]))).await;
    let heard = anonymous.hear_out().await;
    // The outcome: descriptor 0x44, code 1.
    assert!(contains(&heard, b"PLAIN") && heard.ends_with(&[0x50, 1]), "{heard:02x?}");
    counts(&endpoint, Refusal::NotAuthenticated, 2).await;
    serves(&endpoint).await;
}

#[tokio::test]
async fn links_lead_to_this_worker_and_to_the_peers_own_inbox_only() {
    let endpoint = endpoint(Limits::default());
    let mut elsewhere = options(&endpoint, "Mallory", Listen::Not);
    elsewhere.request_address = "p2p.inbound.other".to_owned();
    assert_eq!(condition(Client::connect(elsewhere).await), "amqp:not-found");
    let foreign = options(&endpoint, "Mallory", Listen::Inbox(inbox("Alice")));
    assert_eq!(condition(Client::connect(foreign).await), "amqp:unauthorized-access");
    counts(&endpoint, Refusal::UnknownTarget, 1).await;
    counts(&endpoint, Refusal::ForeignReplyAddress, 1).await;

    // A refused link does not take the others of its connection along.
    let mut peer = RawPeer::with_session(&endpoint).await;
    peer.say(&attach_sender(0, "nowhere")).await;
    peer.say(&attach_receiver(1, &inbox("Alice"))).await;
    peer.say(&attach_sender(2, SERVICE)).await;
    let heard = peer.hear(b"\x00\x53\x13").await;
    assert!(contains(&heard, "amqp:not-found") && contains(&heard, "amqp:unauthorized-access"));
    assert_eq!((endpoint.figures().request_links, endpoint.figures().reply_links), (1, 0));
}

#[tokio::test]
async fn answers_also_come_to_a_dynamic_address() {
    let endpoint = endpoint(Limits::default());
    let (client, mut answers) = Client::connect(options(&endpoint, "Alice", Listen::Dynamic)).await.unwrap();
    // The inbox has a listener as well: the request says which one it means.
    let (_other, mut inbox) = connect(&endpoint, "Alice").await;
    let sending = tokio::spawn(async move { client.send(request("request")).await });
    let delivery = endpoint.receive().await.unwrap();
    let (replied, answer) = tokio::join!(endpoint.reply(delivery.id, vec![reply(b"answer")]), answers.next());
    replied.unwrap();
    assert_eq!(answer.unwrap().body, b"answer");
    assert!(tokio::time::timeout(Duration::from_millis(50), inbox.next()).await.is_err());

    let replying = tokio::spawn({
        let (endpoint, id) = (Arc::clone(&endpoint), delivery.id);
        async move { endpoint.reply(id, vec![reply(b"late")]).await }
    });
    drop(answers);
    sending.abort();
    let _ = sending.await;
    assert!(matches!(replying.await.unwrap(), Err(QueueError::Unsafe(_))), "the address is gone with its link");
    assert!(endpoint.settle(delivery.id, Settlement::Release).await.is_err());
    eventually("nothing is left", || endpoint.figures().undisposed + endpoint.figures().replies == 0).await;
}

#[tokio::test]
async fn connections_are_limited_in_all_and_by_party() {
    let endpoint = endpoint(Limits { connections_max: 3, connections_per_caller_max: 2, ..Limits::default() });
    let first = connect(&endpoint, "Mallory").await;
    let _second = connect(&endpoint, "Mallory").await;
    assert_eq!(condition(try_connect(&endpoint, "Mallory").await), "amqp:resource-limit-exceeded");
    let bob = connect(&endpoint, "Bob").await;
    assert_eq!(condition(try_connect(&endpoint, "Alice").await), "amqp:resource-limit-exceeded");
    counts(&endpoint, Refusal::TooManyConnectionsOfCaller, 1).await;
    counts(&endpoint, Refusal::TooManyConnections, 1).await;

    drop(first);
    eventually("a place is free", || endpoint.figures().connections == 2).await;
    serves(&endpoint).await;
    bob.0.close().await;
    eventually("and another", || endpoint.figures().connections == 1).await;
}

// Deadlines.

#[tokio::test]
async fn a_slow_handshake_is_cut_and_keeps_nobody_out() {
    let limits = Limits { handshakes_max: 3, handshake_timeout: Duration::from_millis(200), ..Limits::default() };
    let endpoint = endpoint(limits);
    let mut slow = Vec::new();
    for said in [&b""[..], b"AMQP\x03", b"AMQP\x03\x01\x00\x00\x00\x00"] {
        let mut peer = RawPeer::connect(&endpoint).await;
        peer.say(said).await;
        slow.push(peer);
    }
    eventually("all places are taken", || endpoint.figures().handshakes == 3).await;
    let mut late = RawPeer::connect(&endpoint).await;
    assert!(late.hear_out().await.is_empty());
    counts(&endpoint, Refusal::TooManyHandshakes, 1).await;
    for peer in &mut slow {
        peer.hear_out().await;
    }
    counts(&endpoint, Refusal::HandshakeTimeout, 3).await;
    serves(&endpoint).await;
}

#[tokio::test]
async fn a_silent_peer_is_closed_and_a_living_one_is_not() {
    let endpoint = endpoint(Limits { idle_timeout: Duration::from_millis(200), ..Limits::default() });
    let (client, mut answers) = connect(&endpoint, "Alice").await;
    let mut silent = RawPeer::with_link(&endpoint).await;
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send(request("request")).await }
    });
    let delivery = endpoint.receive().await.unwrap();
    // This takes longer than the idle time-out, in which Alice's client says nothing of its own.
    let heard = silent.hear_out().await;
    assert!(contains(&heard, "amqp:resource-limit-exceeded") && contains(&heard, "silent"));
    counts(&endpoint, Refusal::Idle, 1).await;
    let (replied, answer) = tokio::join!(endpoint.reply(delivery.id, vec![reply(b"answer")]), answers.next());
    replied.unwrap();
    assert_eq!(answer.unwrap().body, b"answer");
    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    assert_eq!(sending.await.unwrap(), Ok(Outcome::Accepted));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_closed_and_its_reply_is_unsafe() {
    let limits =
        Limits { idle_timeout: Duration::from_millis(200), reply_bytes_per_caller_max: 1 << 30, ..Limits::default() };
    let endpoint = endpoint(limits);
    let mut deaf = RawPeer::with_link(&endpoint).await;
    deaf.say(&attach_receiver(1, &inbox("Mallory"))).await;
    deaf.say(&flow(1, 1_000)).await;
    deaf.say(&transfer(0, false, false, &data(b"request"))).await;
    let delivery = endpoint.receive().await.unwrap();
    // More than the buffers of a loopback socket take.
    let replies = (0..8).map(|_| reply(&vec![0; 8 << 20])).collect();
    let replied = endpoint.reply(delivery.id, replies).await;
    assert!(matches!(replied, Err(QueueError::Unsafe(_))), "{replied:?}");
    counts(&endpoint, Refusal::Stalled, 1).await;
    assert!(endpoint.settle(delivery.id, Settlement::Release).await.is_err());
    assert_eq!((endpoint.figures().undisposed, endpoint.figures().replies), (0, 0));
    serves(&endpoint).await;
}

// Broken and hostile input.

#[tokio::test]
async fn garbage_costs_its_sender_the_connection() {
    let endpoint = endpoint(Limits::default());
    let sasl = b"AMQP\x03\x01\x00\x00".to_vec();
    let before_login = [
        b"GET / HTTP/1.1\r\nHost: notary\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0xff; 4_096],
        [sasl.clone(), vec![0, 0, 0, 4]].concat(),
        [sasl.clone(), vec![0, 0, 0, 0]].concat(),
        [sasl.clone(), frame(1, 0, b"\x00\x53\x41\x45")].concat(),
        [sasl.clone(), frame(1, 0, &list(0x42, &[]))].concat(),
        [sasl.clone(), frame(0, 0, &list(0x41, &[&symbol("PLAIN")]))].concat(),
        [sasl.clone(), frame(1, 0, &list(0x41, &[&symbol("PLAIN"), &binary(b"no zero")]))].concat(),
        [sasl, vec![0x7f, 0xff, 0xff, 0xff, 2, 1, 0, 0]].concat(),
    ];
    for bytes in &before_login {
        let mut peer = RawPeer::connect(&endpoint).await;
        peer.say(bytes).await;
        peer.hear_out().await;
    }
    let refused: u64 = endpoint.figures().refused.iter().map(|(_, count)| count).sum();
    assert_eq!(refused, before_login.len() as u64);

    let deep_list = [0xc0, 0xff, 0x01].repeat(10_000);
    let deep_description = [[0x00, 0x53, 0x00].repeat(10_000), NULL.to_vec()].concat();
    let after_login: [(&[u8], &str); 12] = [
        (&[0, 0, 0, 7], "amqp:decode-error"),
        (&[0, 2, 0, 1, 2, 0, 0, 0], "amqp:connection:framing-error"),
        (&[0, 0, 0, 8, 9, 0, 0, 0], "amqp:decode-error"),
        (&frame(1, 0, &list(0x41, &[&symbol("PLAIN")])), "amqp:decode-error"),
        (&frame(0, 0, &list(0x7f, &[])), "amqp:decode-error"),
        (&frame(0, 0, b"nonsense"), "amqp:decode-error"),
        (&frame(0, 0, &list(0x10, &[&string("again")])), "amqp:not-allowed"),
        (&frame(0, 0, &list(0x13, &[&deep_description, &deep_list])), "amqp:decode-error"),
        (&begin(0), "amqp:not-allowed"),
        (&begin(1_000), "amqp:resource-limit-exceeded"),
        (&flow(9, 1), "amqp:not-allowed"),
        (&transfer(0, false, false, b""), "amqp:not-allowed"),
    ];
    for (bytes, condition) in after_login {
        let mut peer = RawPeer::with_session(&endpoint).await;
        peer.say(bytes).await;
        let heard = peer.hear_out().await;
        assert!(contains(&heard, condition), "{:02x?} got {}", &bytes[..8], String::from_utf8_lossy(&heard));
    }
    eventually("all are gone", || endpoint.figures().connections == 0).await;
    serves(&endpoint).await;
}

#[tokio::test]
async fn many_hostile_connections_at_once_leave_nothing_behind() {
    let endpoint = endpoint(Limits { handshake_timeout: Duration::from_secs(1), ..Limits::default() });
    let mut hostile = Vec::new();
    for seed in 0..500u32 {
        let endpoint = Arc::clone(&endpoint);
        hostile.push(tokio::spawn(async move {
            let mut peer = RawPeer::connect(&endpoint).await;
            // A linear congruential generator: what the bytes are matters little, that they differ does.
            let mut state = seed;
            let mut bytes = if seed % 2 == 0 { b"AMQP\x03\x01\x00\x00".to_vec() } else { Vec::new() };
            bytes.extend((0..seed % 700).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }));
            peer.say(&bytes).await;
            peer.hear_out().await;
        }));
    }
    serves(&endpoint).await;
    for peer in hostile {
        peer.await.unwrap();
    }
    let figures = endpoint.figures();
    assert_eq!((figures.handshakes, figures.undisposed, figures.request_bytes), (0, 0, 0));
    serves(&endpoint).await;
}

#[tokio::test]
async fn a_disposition_of_everything_costs_nothing() {
    let endpoint = endpoint(Limits::default());
    let mut peer = RawPeer::with_link(&endpoint).await;
    peer.say(&transfer(0, false, false, &data(b"request"))).await;
    eventually("the request waits", || endpoint.figures().waiting == 1).await;
    let all = |role, settled| frame(0, 0, &list(0x15, &[role, &uint(0), &uint(u32::MAX), settled]));
    for _ in 0..100 {
        peer.say(&all(TRUE, TRUE)).await;
        peer.say(&all(FALSE, FALSE)).await;
    }
    peer.say(&all(FALSE, TRUE)).await;
    // Its sender settled the request: it is nobody's any more, and is not handed out.
    eventually("the request is forgotten", || endpoint.figures().undisposed == 0).await;
    serves(&endpoint).await;
}

#[tokio::test]
async fn more_deliveries_than_credit_end_the_connection() {
    let endpoint = endpoint(Limits { link_credit: 2, ..Limits::default() });
    let mut peer = RawPeer::with_link(&endpoint).await;
    for id in 0..3 {
        peer.say(&transfer(id, false, false, &data(b"request"))).await;
    }
    assert!(contains(&peer.hear_out().await, "amqp:link:transfer-limit-exceeded"));
    counts(&endpoint, Refusal::CreditExceeded, 1).await;
    eventually("what it sent is forgotten", || endpoint.figures().undisposed == 0).await;
    serves(&endpoint).await;
}

#[tokio::test]
async fn sessions_and_links_are_limited() {
    let endpoint = endpoint(Limits { sessions_per_connection_max: 2, links_per_session_max: 2, ..Limits::default() });
    let mut peer = RawPeer::with_session(&endpoint).await;
    peer.say(&begin(1)).await;
    peer.say(&begin(2)).await;
    peer.hear_out().await;
    counts(&endpoint, Refusal::TooManySessions, 1).await;
    let mut peer = RawPeer::with_session(&endpoint).await;
    for handle in 0..3 {
        // Refused links count until the peer has confirmed: it cannot pile them up.
        peer.say(&attach_sender(handle, if handle == 0 { "nowhere" } else { SERVICE })).await;
    }
    peer.hear_out().await;
    counts(&endpoint, Refusal::TooManyLinks, 1).await;
    serves(&endpoint).await;
}

#[tokio::test]
async fn a_request_that_its_sender_does_not_keep_is_refused() {
    let endpoint = endpoint(Limits::default());
    let mut peer = RawPeer::with_link(&endpoint).await;
    peer.say(&transfer(0, true, false, &data(b"request"))).await;
    assert!(contains(&peer.hear_out().await, "amqp:not-implemented"));
    counts(&endpoint, Refusal::PreSettled, 1).await;
    assert_eq!(endpoint.figures().undisposed, 0);
}

#[tokio::test]
async fn a_message_too_large_ends_the_connection_before_it_is_whole() {
    let message_bytes_max = 100_000;
    let endpoint = endpoint(Limits { message_bytes_max, ..Limits::default() });
    let (client, _answers) = connect(&endpoint, "Bob").await;
    let too_large = client.send(request(&"x".repeat(message_bytes_max))).await;
    assert_eq!(condition(too_large), "amqp:link:message-size-exceeded");

    let mut peer = RawPeer::with_link(&endpoint).await;
    let part = vec![0; 40_000];
    peer.say(&transfer(0, false, true, &part)).await;
    peer.say(&transfer(0, false, true, &part)).await;
    eventually("two parts are kept", || endpoint.figures().request_bytes == 80_000).await;
    peer.say(&transfer(0, false, true, &part)).await;
    assert!(contains(&peer.hear_out().await, "amqp:link:message-size-exceeded"));
    counts(&endpoint, Refusal::MessageTooLarge, 2).await;
    eventually("nothing is kept", || endpoint.figures().request_bytes == 0).await;

    let mut peer = RawPeer::with_link(&endpoint).await;
    peer.say(&transfer(0, false, true, &part)).await;
    peer.say(&transfer(0, false, true, b"")).await;
    assert!(contains(&peer.hear_out().await, "amqp:not-allowed"), "parts without content never end");
    serves(&endpoint).await;
}

#[tokio::test]
async fn a_delivery_may_be_aborted_and_credit_drained() {
    let endpoint = endpoint(Limits { link_credit: 1, ..Limits::default() });
    let mut peer = RawPeer::with_link(&endpoint).await;
    peer.say(&transfer(0, false, true, &data(b"half"))).await;
    eventually("a part is kept", || endpoint.figures().request_bytes > 0).await;
    let tag = binary(&[0; 4]);
    let aborted = [&uint(0), &uint(0), &tag, &uint(0), FALSE, FALSE, NULL, NULL, NULL, TRUE];
    peer.say(&frame(0, 0, &list(0x14, &aborted))).await;
    // The credit comes back, for a delivery count of one.
    peer.hear(&[&uint_small(0)[..], &uint_small(1), &uint_small(1)].concat()).await;
    assert_eq!((endpoint.figures().request_bytes, endpoint.figures().undisposed), (0, 0));

    peer.say(&attach_receiver(1, &inbox("Mallory"))).await;
    let (window, drain) = (uint(1 << 30), TRUE);
    let fields = [&uint(0), &window, &uint(1), &window, &uint(1), &uint(0), &uint(7), NULL, drain];
    peer.say(&frame(0, 0, &list(0x13, &fields))).await;
    // The link used its credit up: a delivery count of seven, no credit.
    peer.hear(&[&uint_small(1)[..], &uint_small(7), &uint_small(0)].concat()).await;

    peer.say(&transfer(1, false, false, &data(b"whole"))).await;
    let delivery = endpoint.receive().await.unwrap();
    assert_eq!(delivery.body, b"whole");
    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
}

#[tokio::test]
async fn what_there_is_no_memory_for_stays_with_its_sender() {
    let limits = Limits {
        message_bytes_max: 100_000,
        request_bytes_per_caller_max: 100_000,
        request_bytes_max: 150_000,
        ..Limits::default()
    };
    let endpoint = endpoint(limits);
    let (client, _answers) = connect(&endpoint, "Bob").await;
    let large = "x".repeat(60_000);
    let first = client.submit(request(&large)).await.unwrap();
    let delivery = endpoint.receive().await.unwrap();
    assert_eq!(client.send(request(&large)).await, Ok(Outcome::Released), "Bob's budget is used up");
    counts(&endpoint, Refusal::OverBudget, 1).await;
    serves(&endpoint).await;

    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    assert_eq!(first.await, Ok(Outcome::Accepted));
    assert_eq!(endpoint.figures().request_bytes, 0);
    let again = client.submit(request(&large)).await.unwrap();
    let delivery = endpoint.receive().await.unwrap();
    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    assert_eq!(again.await, Ok(Outcome::Accepted));
}

#[tokio::test]
async fn a_message_that_cannot_be_used_is_rejected_alone() {
    let endpoint = endpoint(Limits::default());
    let mut peer = RawPeer::with_link(&endpoint).await;
    peer.say(&transfer(0, false, false, b"no sections")).await;
    peer.hear(b"amqp:decode-error").await;
    // Properties whose reply-to names somebody else's inbox.
    let foreign = list(0x73, &[NULL, NULL, NULL, NULL, &string(&inbox("Alice"))]);
    peer.say(&transfer(1, false, false, &[foreign, data(b"request")].concat())).await;
    peer.hear(b"amqp:unauthorized-access").await;
    peer.say(&transfer(2, false, false, &data(b"fine"))).await;
    let delivery = endpoint.receive().await.unwrap();
    assert_eq!((&*delivery.body, delivery.caller), (&b"fine"[..], name("Mallory")));
    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    peer.hear(b"\x00\x53\x24").await;
    counts(&endpoint, Refusal::UndecodableMessage, 1).await;
    counts(&endpoint, Refusal::ForeignReplyTo, 1).await;
    assert_eq!(endpoint.figures().request_bytes, 0);
}

#[tokio::test]
async fn replies_of_one_party_are_bounded() {
    let limits = Limits { replies_per_caller_max: 2, reply_bytes_per_caller_max: 10_000, ..Limits::default() };
    let endpoint = endpoint(limits);
    let mut peer = RawPeer::with_link(&endpoint).await;
    peer.say(&transfer(0, false, false, &data(b"request"))).await;
    let delivery = endpoint.receive().await.unwrap();
    for replies in [vec![reply(b"one"), reply(b"two"), reply(b"three")], vec![reply(&[0; 10_000])]] {
        let refused = endpoint.reply(delivery.id, replies).await;
        assert!(matches!(refused, Err(QueueError::Unsafe(reason)) if reason.contains("too many")));
    }
    assert_eq!(endpoint.figures().replies, 0);
    endpoint.settle(delivery.id, Settlement::Release).await.unwrap();
    peer.hear(b"\x00\x53\x26").await;
}

// Life and death.

#[tokio::test]
async fn a_listener_with_a_credit_of_one_gets_all_in_order() {
    let endpoint = endpoint(Limits::default());
    let mut options = options(&endpoint, "Alice", Listen::Inbox(inbox("Alice")));
    options.answer_credit = 1;
    let (client, mut answers) = Client::connect(options).await.unwrap();
    let _pending = client.submit(request("request")).await.unwrap();
    let delivery = endpoint.receive().await.unwrap();
    let replies: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n; 200_000]).collect();
    let (replied, ()) =
        tokio::join!(endpoint.reply(delivery.id, replies.iter().map(|body| reply(body)).collect()), async {
            for expected in &replies {
                assert!(answers.next().await.unwrap().body == *expected);
            }
        });
    replied.unwrap();
    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_longer_than_its_grace() {
    let endpoint = endpoint(Limits::default());
    let (client, _answers) = connect(&endpoint, "Alice").await;
    let pending = client.submit(request("request")).await.unwrap();
    let delivery = endpoint.receive().await.unwrap();
    endpoint.shutdown(Duration::from_millis(50)).await;
    assert_eq!(condition(pending.await), "amqp:connection:forced");
    assert!(endpoint.settle(delivery.id, Settlement::Accept).await.is_err());
    assert!(try_connect(&endpoint, "Alice").await.is_err(), "it listens no more");
    let figures = endpoint.figures();
    assert_eq!((figures.connections, figures.undisposed, figures.request_links), (0, 0, 0));
}

#[tokio::test]
async fn a_dropped_endpoint_takes_its_connections_along() {
    let endpoint = endpoint(Limits::default());
    let (client, mut answers) = connect(&endpoint, "Alice").await;
    drop(endpoint);
    assert_eq!(answers.next().await, None);
    assert!(matches!(client.send(request("request")).await, Err(ClientError::Connection(_))));
}

#[test]
fn the_queue_needs_no_runtime_of_its_callers() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let limits = Limits { reply_hold: Duration::from_millis(20), ..Limits::default() };
    let endpoint = endpoint_on(runtime.handle(), limits);
    let (client, _answers) = {
        let options = options(&endpoint, "Alice", Listen::Not);
        runtime.block_on(Client::connect(options)).unwrap()
    };
    let pending = runtime.spawn(async move { client.send(request("request")).await });
    // From here on this thread has no runtime, as an arbiter may have another one.
    let delivery = block_on(endpoint.receive()).unwrap();
    let replied = block_on(endpoint.reply(delivery.id, vec![reply(b"answer")]));
    assert!(matches!(replied, Err(QueueError::Unsafe(_))), "nobody listens");
    block_on(endpoint.settle(delivery.id, Settlement::Accept)).unwrap();
    assert_eq!(runtime.block_on(pending).unwrap(), Ok(Outcome::Accepted));
}

/// The smallest executor there is.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
