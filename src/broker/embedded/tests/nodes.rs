//! The entrance of nodes, over real TLS: who is let in, as whom, and what becomes of those who misbehave.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::super::amqp::message::OutgoingMessage;
use super::super::super::amqp::performative::{self, Open, Sasl};
use super::super::super::amqp::{HEADER_AMQP, HEADER_SASL};
use super::super::refusal::Refusal;
use super::super::{Endpoint, Settings};
use super::*;
use crate::domain::network::Route;
use crate::network::Role as CertificateRole;
use crate::ports::request_queue::{Delivery, RequestQueue};
use crate::tls::peers::fixtures::{NOW, VALIDITY, key, name};
use crate::tls::peers::{Identity, PeerTls};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// An endpoint for nodes.
struct Door {
    net: Net,
    endpoint: Arc<Endpoint>,
    /// What every node may have open.
    allowance: Arc<AtomicU32>,
}

impl Door {
    fn open(limits: Limits) -> Self {
        let net = Net::new();
        let tls = net.tls("Worker");
        Self::open_as(net, tls, limits)
    }

    fn open_as(net: Net, tls: PeerTls, limits: Limits) -> Self {
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            worker_name: name("Worker").to_string(),
            addresses: vec![SERVICE.to_owned()],
            platform_version: 12,
            limits,
        };
        let allowance = Arc::new(AtomicU32::new(u32::MAX));
        let asked = Arc::clone(&allowance);
        let admission: Admission = Arc::new(move |_| asked.load(Ordering::Relaxed));
        let endpoint = Endpoint::listen_for_nodes(settings, &tls, admission, &Handle::current()).unwrap();
        Self { net, endpoint: Arc::new(endpoint), allowance }
    }

    fn address(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// After TLS as whom `tls` says; or how it failed.
    async fn secure(&self, tls: &PeerTls) -> std::io::Result<TlsStream<TcpStream>> {
        let route = Route { addresses: Vec::new(), names: vec![name("Worker"), name("Service")] };
        let (config, server) = tls.client(&route).unwrap();
        TlsConnector::from(config).connect(server, self.tcp().await).await
    }

    async fn node(&self, party: &str) -> Node {
        let stream = self.secure(&self.net.tls(party)).await.unwrap();
        Node { stream, frame_bytes_max: 0, idle_ms: 0 }
    }

    /// A node with a session, and a link for requests at handle 0.
    async fn linked(&self, party: &str) -> Node {
        let mut node = self.node(party).await;
        node.log_in(performative::PLAIN, b"\0SystemUsers/Peer\0SystemUsers/Peer").await;
        node.open().await;
        node.say(&begin()).await;
        node.say(&attach(0, Role::Sender, SERVICE, false)).await;
        node
    }

    async fn take(&self) -> Delivery {
        timeout(LONG, self.endpoint.receive()).await.expect("a request should have come").unwrap()
    }

    fn refused(&self, reason: Refusal) -> u64 {
        self.endpoint.figures().refused_for(reason)
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A node's end of a connection, that says exactly what a test wants it to.
struct Node {
    stream: TlsStream<TcpStream>,
    frame_bytes_max: u32,
    idle_ms: u32,
}

/// What a node hears.
#[derive(Debug, PartialEq)]
enum Heard {
    Credit(u32),
    Accepted(u32),
    Released(u32),
    Rejected(u32),
    /// A link was refused, and why.
    Detached(String),
    /// The connection was ended, and why.
    Closed(String),
    /// Without a word of AMQP.
    Gone,
}

impl Node {
    async fn say(&mut self, bytes: &[u8]) {
        // A node that is cut off may fail to, which is no matter here.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    async fn hear_exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(LONG, self.stream.read_exact(&mut bytes)).await.expect("it should say something").unwrap();
        bytes
    }

    async fn frame(&mut self) -> Option<Vec<u8>> {
        let mut size = [0; 4];
        timeout(LONG, self.stream.read_exact(&mut size)).await.expect("it should say something").ok()?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        frame[..4].copy_from_slice(&size);
        timeout(LONG, self.stream.read_exact(&mut frame[4..])).await.expect("the rest should come").ok()?;
        Some(frame)
    }

    async fn log_in(&mut self, mechanism: &str, response: &[u8]) {
        self.say(&HEADER_SASL).await;
        assert_eq!(self.hear_exactly(8).await, HEADER_SASL);
        let offered = self.frame().await.unwrap();
        let offered = Sasl::decode(frame::parse(&offered, FrameType::Sasl).unwrap().body).unwrap();
        assert!(matches!(offered, Sasl::Mechanisms { plain: true, external: true, anonymous: true }));
        let mut init = Vec::new();
        Sasl::Init { mechanism, response: Some(response) }.write(&mut init);
        self.say(&init).await;
        let outcome = self.frame().await.unwrap();
        let outcome = Sasl::decode(frame::parse(&outcome, FrameType::Sasl).unwrap().body).unwrap();
        assert!(matches!(outcome, Sasl::Outcome { code: 0 }));
    }

    async fn open(&mut self) {
        let mut opening = HEADER_AMQP.to_vec();
        let open = Open {
            container_id: "CORDA:x",
            hostname: None,
            max_frame_size: 131_072,
            channel_max: 65_535,
            idle_time_out: 5_000,
        };
        open.write(&mut opening);
        self.say(&opening).await;
        assert_eq!(self.hear_exactly(8).await, HEADER_AMQP);
        let answer = self.frame().await.unwrap();
        let body = frame::parse(&answer, FrameType::Amqp).unwrap().body;
        let (Performative::Open(open), _) = Performative::decode(body).unwrap() else { panic!("no open") };
        (self.frame_bytes_max, self.idle_ms) = (open.max_frame_size, open.idle_time_out);
    }

    async fn request(&mut self, number: u32, message: &[u8]) {
        self.say(&transfer(0, number, false, message)).await;
    }

    /// The next thing worth knowing.
    async fn hear(&mut self) -> Heard {
        loop {
            let Some(frame) = self.frame().await else { return Heard::Gone };
            let body = frame::parse(&frame, FrameType::Amqp).unwrap().body;
            if body.is_empty() {
                continue;
            }
            let text = |error: Option<performative::ErrorInfo<'_>>| {
                error.map_or_else(String::new, |error| error.description.unwrap_or_default().to_owned())
            };
            match Performative::decode(body).unwrap().0 {
                Performative::Flow(flow) if flow.handle.is_some() => {
                    return Heard::Credit(flow.link_credit.unwrap_or_default());
                }
                Performative::Disposition(Disposition { first, settled: true, state, .. }) => {
                    return match state {
                        Some(DeliveryState::Accepted) => Heard::Accepted(first),
                        Some(DeliveryState::Released) => Heard::Released(first),
                        _ => Heard::Rejected(first),
                    };
                }
                Performative::Detach(detach) => return Heard::Detached(text(detach.error)),
                Performative::Close(error) => return Heard::Closed(text(error)),
                _ => {}
            }
        }
    }
}

/// ID7, A1, PROTOCOL b.3: neither SASL nor a property says who a node is.
#[tokio::test(flavor = "multi_thread")]
async fn the_caller_is_whom_the_certificate_names() {
    let door = Door::open(Limits::default());
    for (number, (mechanism, response)) in [
        (performative::PLAIN, &b"\0SystemUsers/Peer\0SystemUsers/Peer"[..]),
        (performative::PLAIN, b"\0O=Bob, L=Zurich, C=CH\0secret"),
        (performative::ANONYMOUS, b""),
        (performative::EXTERNAL, b"O=Bob, L=Zurich, C=CH"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut node = door.node("Alice").await;
        node.log_in(mechanism, response).await;
        node.open().await;
        // PROTOCOL b.4: the same frames and the same idle time-out as a node's own server.
        assert_eq!((node.frame_bytes_max, node.idle_ms), (131_072, 5_000));
        node.say(&begin()).await;
        node.say(&attach(0, Role::Sender, SERVICE, false)).await;
        assert_eq!(node.hear().await, Heard::Credit(Limits::default().link_credit));
        let bob = name("Bob").to_string();
        let message = OutgoingMessage {
            dedup_id: "d",
            validated_user: &bob,
            reply_to: Some("p2p.inbound.bob"),
            body: b"request",
            ..OutgoingMessage::default()
        };
        node.request(0, &message.encode()).await;
        let delivery = door.take().await;
        assert_eq!(delivery.caller, name("Alice"), "{number}");
        door.endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
        assert_eq!(node.hear().await, Heard::Accepted(0));
    }
}

/// A7, A10, F38: strangers cost a handshake at most, and each is named in the log by what its certificate says.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_not_let_in_and_others_do_not_notice() {
    let door = Door::open(Limits::default());
    let mut alice = door.linked("Alice").await;
    assert_eq!(alice.hear().await, Heard::Credit(Limits::default().link_credit));

    // Speaks AMQP without TLS.
    let mut plain = door.tcp().await;
    plain.write_all(&HEADER_SASL).await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(LONG, plain.read_to_end(&mut rest)).await.expect("it is closed");
    eventually("it is counted", || door.refused(Refusal::Tls) == 1).await;

    // Of another network: it does not believe us either, so only our alert or theirs is seen.
    assert!(door.secure(&Net::new().tls("Alice")).await.is_err());
    eventually("it is counted", || door.refused(Refusal::Tls) == 2).await;

    // A certificate that has ended since the node started. In TLS 1.3 it learns of that when it reads.
    let brief =
        PeerTls::new(door.net.root.certificate.clone(), door.net.identity("Bob", NOW + 5), door.net.clock.clone());
    let brief = brief.unwrap();
    door.net.clock.0.store(NOW + 6, Ordering::Relaxed);
    if let Ok(mut stream) = door.secure(&brief).await {
        let _ = stream.write_all(&HEADER_SASL).await;
        assert!(stream.read_to_end(&mut rest).await.is_err(), "an alert");
    }
    eventually("it is counted", || door.refused(Refusal::Tls) == 3).await;

    // Whoever only looks whether somebody listens is not counted.
    drop(door.tcp().await);
    alice.request(0, &message()).await;
    let delivery = door.take().await;
    door.endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    assert_eq!(alice.hear().await, Heard::Accepted(0));
    assert_eq!((door.refused(Refusal::Tls), door.endpoint.figures().connections), (3, 1));
}

/// A7: whoever dawdles in a handshake is cut off, at every stage of it, and holds no place that others need.
#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_end_and_leave_room() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(500),
        handshakes_max: 16,
        handshakes_per_address_max: 6,
        ..Limits::default()
    };
    let door = Door::open(limits);
    let silent = door.tcp().await;
    let mut begun = door.tcp().await;
    // A TLS record that never ends.
    begun.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    let mut secured = door.node("Alice").await;
    let mut half = door.node("Bob").await;
    half.say(&HEADER_SASL[..4]).await;
    let mut unopened = door.node("Carol").await;
    unopened.log_in(performative::ANONYMOUS, b"").await;
    eventually("all are cut off", || door.refused(Refusal::HandshakeTimeout) == 5).await;
    assert_eq!(secured.hear().await, Heard::Gone);
    assert_eq!(door.endpoint.figures().handshakes, 0);
    drop(silent);

    // One address never has all places.
    let mut many = Vec::new();
    for _ in 0..8 {
        many.push(door.tcp().await);
    }
    eventually("the rest are turned away", || door.refused(Refusal::TooManyHandshakes) >= 2).await;
    assert!(door.endpoint.figures().handshakes <= 6);
    drop(many);
    eventually("there is room again", || door.endpoint.figures().handshakes == 0).await;
    let mut alice = door.linked("Alice").await;
    assert_eq!(alice.hear().await, Heard::Credit(Limits::default().link_credit));
}

/// P8: rules that a node breaks end its own connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_breaks_the_rules_loses_its_connection_only() {
    let limits = Limits { connections_per_caller_max: 3, links_per_session_max: 2, ..Limits::default() };
    let door = Door::open(limits);
    let mut alice = door.linked("Alice").await;
    assert!(matches!(alice.hear().await, Heard::Credit(_)));
    let broken: [(Refusal, Vec<u8>); 5] = [
        (Refusal::FrameTooLarge, vec![0x7f, 0, 0, 0, 2, 0, 0, 0]),
        (Refusal::TooManyLinks, attach(2, Role::Sender, SERVICE, false)),
        (Refusal::NotAllowed, transfer(1, 0, false, b"x")),
        (Refusal::Malformed, vec![0, 0, 0, 9, 2, 0, 0, 0, 0xff]),
        (Refusal::NotAllowed, transfer(0, 0, true, b"")),
    ];
    for (reason, bytes) in broken {
        let before = door.refused(reason);
        let mut mallory = door.linked("Mallory").await;
        assert!(matches!(mallory.hear().await, Heard::Credit(_)));
        mallory.say(&bytes).await;
        while !matches!(mallory.hear().await, Heard::Closed(_) | Heard::Gone) {}
        eventually(reason.name(), || door.refused(reason) == before + 1).await;
    }
    eventually("only the good one is left", || door.endpoint.figures().connections == 1).await;
    let _more = [door.linked("Alice").await, door.linked("Alice").await];
    eventually("all three are there", || door.endpoint.figures().connections == 3).await;
    let mut fourth = door.linked("Alice").await;
    assert!(matches!(fourth.hear().await, Heard::Closed(_)));
    assert_eq!(door.refused(Refusal::TooManyConnectionsOfCaller), 1);
    alice.request(0, &message()).await;
    assert_eq!(door.take().await.caller, name("Alice"));
}

/// PROTOCOL b.4, FACTS of real nodes: a refused target must not look like an acknowledgement, and nodes do not receive here.
#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_not_for_requests_are_refused_on_their_own() {
    let door = Door::open(Limits::default());
    let mut alice = door.linked("Alice").await;
    assert!(matches!(alice.hear().await, Heard::Credit(_)));
    alice.say(&attach(1, Role::Sender, "p2p.inbound.other", false)).await;
    match alice.hear().await {
        Heard::Detached(why) => assert!(why.contains("p2p.inbound.other") && !why.contains("AMQ229032"), "{why}"),
        other => panic!("{other:?}"),
    }
    for (handle, address, dynamic) in [(2, "", false), (3, "p2p.inbound.alice", false), (4, "", true)] {
        alice.say(&attach(handle, Role::Receiver, address, dynamic)).await;
        assert!(matches!(alice.hear().await, Heard::Detached(_)), "{address:?}");
    }
    alice.request(0, &message()).await;
    assert_eq!(door.take().await.caller, name("Alice"), "its link lives");
}

/// PROTOCOL c.2, FACTS of real nodes: a bridge repeats for ever what is not accepted, so what can never be served is.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_served_is_accepted_and_counted() {
    let door = Door::open(Limits::default());
    let mut alice = door.linked("Alice").await;
    assert!(matches!(alice.hear().await, Heard::Credit(_)));
    alice.request(0, b"no message at all").await;
    assert_eq!(alice.hear().await, Heard::Accepted(0));
    alice.request(1, &message()).await;
    let delivery = door.take().await;
    door.endpoint.settle(delivery.id, Settlement::Reject { reason: "no session message".into() }).await.unwrap();
    assert_eq!(alice.hear().await, Heard::Accepted(1));
    assert_eq!((door.refused(Refusal::UndecodableMessage), door.refused(Refusal::UnreadableRequest)), (1, 1));
    // What may be served later is not.
    alice.request(2, &message()).await;
    let delivery = door.take().await;
    door.endpoint.settle(delivery.id, Settlement::Release).await.unwrap();
    assert_eq!(alice.hear().await, Heard::Released(2));
}

/// PR: a node gets credit as long as the network map knows it, and little while answers do not reach it.
#[tokio::test(flavor = "multi_thread")]
async fn credit_follows_the_network_map() {
    // Looked at four times in this time-out.
    let door = Door::open(Limits { idle_timeout: Duration::from_secs(2), ..Limits::default() });
    door.allowance.store(0, Ordering::Relaxed);
    let mut alice = door.linked("Alice").await;
    eventually("it is connected", || door.endpoint.figures().request_links == 1).await;
    door.allowance.store(2, Ordering::Relaxed);
    let mut heard = alice.hear_alive().await;
    assert_eq!(heard, Heard::Credit(2), "none before");
    door.allowance.store(u32::MAX, Ordering::Relaxed);
    heard = alice.hear_alive().await;
    assert_eq!(heard, Heard::Credit(Limits::default().link_credit));
    alice.request(0, &message()).await;
    let delivery = door.take().await;
    door.allowance.store(0, Ordering::Relaxed);
    heard = alice.hear_alive().await;
    assert_eq!(heard, Heard::Credit(0));
    // What it sent is seen through.
    door.endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    heard = alice.hear_alive().await;
    assert_eq!(heard, Heard::Accepted(0));
    door.allowance.store(u32::MAX, Ordering::Relaxed);
    heard = alice.hear_alive().await;
    assert_eq!(heard, Heard::Credit(Limits::default().link_credit));
}

impl Node {
    /// [`Self::hear`], with a sign of life now and then.
    async fn hear_alive(&mut self) -> Heard {
        let deadline = Instant::now() + LONG;
        loop {
            assert!(Instant::now() < deadline, "it should say something");
            let mut alive = Vec::new();
            performative::write_heartbeat(&mut alive);
            self.say(&alive).await;
            // Nothing is lost if this is cut short: the first bytes of a frame come with the rest, on one machine.
            let ready = timeout(Duration::from_millis(300), self.stream.get_ref().0.readable()).await;
            if ready.is_ok() {
                return self.hear().await;
            }
        }
    }
}

/// P5, FACTS of real nodes: a bridge keeps for this worker what it took for it, until its connection ends; a connection refused
/// before TLS is tried again soon.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_serve_sees_through_what_it_has_and_lets_nodes_go() {
    let door = Door::open(Limits { rest_grace: Duration::from_millis(300), ..Limits::default() });
    let (mut idle, mut busy, mut stuck) =
        (door.linked("Alice").await, door.linked("Bob").await, door.linked("Carol").await);
    for node in [&mut idle, &mut busy, &mut stuck] {
        assert!(matches!(node.hear().await, Heard::Credit(_)));
    }
    busy.request(0, &message()).await;
    let done = door.take().await;
    stuck.request(0, &message()).await;
    let _never = door.take().await;
    busy.request(1, &message()).await;
    eventually("one waits", || door.endpoint.figures().waiting == 1).await;

    door.endpoint.serve(false);
    while !matches!(idle.hear().await, Heard::Closed(_)) {}
    while busy.hear().await != Heard::Released(1) {}
    door.endpoint.settle(done.id, Settlement::Accept).await.unwrap();
    while busy.hear().await != Heard::Accepted(0) {}
    assert!(matches!(busy.hear().await, Heard::Closed(_)), "it has nothing left here");
    while !matches!(stuck.hear().await, Heard::Closed(_)) {}
    let mut rest = Vec::new();
    let refused = door.tcp().await.read_to_end(&mut rest).await;
    assert!(refused.is_err() || rest.is_empty(), "not a word of TLS");
    eventually("nobody is left", || door.endpoint.figures().connections == 0).await;

    door.endpoint.serve(true);
    let mut again = door.linked("Alice").await;
    assert!(matches!(again.hear().await, Heard::Credit(_)));
    again.request(0, &message()).await;
    assert_eq!(door.take().await.caller, name("Alice"));
}

/// P8: without room for a request, it is given back after a while, as its bridge would send it again at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_given_back_later() {
    let size = message().len();
    let limits = Limits {
        idle_timeout: Duration::from_secs(2),
        message_bytes_max: size,
        request_bytes_per_caller_max: size,
        request_bytes_max: size,
        ..Limits::default()
    };
    let door = Door::open(limits);
    let mut alice = door.linked("Alice").await;
    assert!(matches!(alice.hear().await, Heard::Credit(_)));
    let sent = Instant::now();
    alice.request(0, &message()).await;
    let held = door.take().await;
    alice.request(1, &message()).await;
    eventually("there is no room", || door.refused(Refusal::OverBudget) == 1).await;
    assert_eq!(alice.hear_alive().await, Heard::Released(1));
    // Looked at four times in the idle time-out, and the first time at once.
    assert!(sent.elapsed() >= Duration::from_millis(100));
    door.endpoint.settle(held.id, Settlement::Accept).await.unwrap();
    assert_eq!(alice.hear_alive().await, Heard::Accepted(0));
}

/// F36: goal: while a token takes its time for the signatures of handshakes, on a single thread for everything else, requests on open
/// connections are taken; handshakes whose signature fails end without an alert; and afterwards there are new ones.
#[tokio::test]
async fn a_key_that_takes_its_time_delays_nothing_but_handshakes() {
    let net = Net::new();
    let held = key();
    let chain = net.chain("Worker", held.public_key(), CertificateRole::Tls, VALIDITY.1);
    let public_key = held.public_key().clone();
    // Each signature takes one of these: made at once, or refused once somebody says so.
    let (plan, planned) = mpsc::channel::<Option<mpsc::Receiver<()>>>();
    let planned = std::sync::Mutex::new(planned);
    let asked = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&asked);
    let sign = move |message: &[u8]| {
        let next = planned.lock().expect("no panic").recv().expect("planned");
        seen.fetch_add(1, Ordering::Relaxed);
        match next {
            None => Ok(held.sign(message)),
            Some(until) => {
                until.recv().expect("told");
                Err("the token is gone".to_owned())
            }
        }
    };
    let identity = Identity::with_remote_key(chain, public_key, Arc::new(sign)).expect("they fit");
    let tls = PeerTls::new(net.root.certificate.clone(), identity, net.clock.clone()).expect("believable");
    let tls = tls.on_own_threads(NonZeroUsize::new(2).expect("two")).expect("threads");
    let door = Door::open_as(net, tls, Limits::default());

    plan.send(None).expect("open");
    let mut alice = door.linked("Alice").await;
    assert!(matches!(alice.hear().await, Heard::Credit(_)));
    let (fail, failing): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel()).unzip();
    failing.into_iter().for_each(|until| plan.send(Some(until)).expect("open"));
    let bob = door.net.tls("Bob");
    let more = async { tokio::join!(door.secure(&bob), door.secure(&bob)) };
    let meanwhile = async {
        eventually("both wait for the token", || asked.load(Ordering::Relaxed) == 3).await;
        alice.request(0, &message()).await;
        let caller = door.take().await.caller;
        fail.iter().for_each(|fail| fail.send(()).expect("it waits"));
        caller
    };
    let ((first, second), caller) = tokio::join!(more, meanwhile);
    assert_eq!(caller, name("Alice"));
    for refused in [first, second] {
        // An alert would be an error of the library's; what the client had on its way makes the end of a connection a reset.
        let closed = [std::io::ErrorKind::UnexpectedEof, std::io::ErrorKind::ConnectionReset];
        let error = refused.expect_err("no signature");
        assert!(closed.contains(&error.kind()), "{error}");
    }
    eventually("both are counted", || door.refused(Refusal::Tls) == 2).await;
    plan.send(None).expect("open");
    door.secure(&bob).await.expect("a handshake");
}
