//! The client's side of a connection against brokers that break the protocol, fall silent, or lie.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use super::super::performative::{
    Attach, Begin, DeliveryState, Detach, Disposition, ErrorInfo, Flow, Open, Role, Terminus, Transfer,
};
use super::engine::Engine;
use super::*;

const FRAMES_MAX: u32 = 8;
const MESSAGE_BYTES_MAX: usize = 1_000;

fn options(silence_max: Duration) -> ConnectOptions {
    ConnectOptions {
        host: "broker".into(),
        port: 0,
        tls: None,
        login: Login::Plain { user: "u".into(), password: Zeroizing::new("p".into()) },
        container_id: "test".into(),
        silence_max,
        step_max: silence_max,
        frames_max: FRAMES_MAX,
    }
}

fn open_and_begin() -> Vec<u8> {
    let mut out = Vec::new();
    Open { container_id: "broker", hostname: None, max_frame_size: 4_096, channel_max: 9, idle_time_out: 0 }
        .write(&mut out);
    begin(Some(0)).write(&mut out, 7);
    out
}

fn begin(remote_channel: Option<u16>) -> Begin {
    Begin { remote_channel, next_outgoing_id: 0, incoming_window: 1_000, outgoing_window: 1_000, handle_max: 9 }
}

fn attach<'a>(name: &'a str, handle: u32, role: Role, address: Option<&'a str>) -> Attach<'a> {
    Attach {
        name,
        handle,
        role,
        snd_settle_mode: 0,
        rcv_settle_mode: 0,
        source: address.map(Terminus::at),
        target: address.map(Terminus::at),
        initial_delivery_count: Some(0),
        max_message_size: 0,
        priority: None,
    }
}

fn receiving() -> ReceiverOptions {
    ReceiverOptions { address: Some("q".into()), selector: None, priority: None, message_bytes_max: MESSAGE_BYTES_MAX }
}

/// An engine with a sender (`link-1`, the peer's handle 5) and a receiver (`link-2`, the peer's handle 6) with four credits.
struct Rig {
    engine: Engine,
    sender: u32,
    receiver: AttachedReceiver,
}

impl Rig {
    fn new() -> Self {
        let mut engine = Engine::new(FRAMES_MAX);
        engine.write_opening("test", None, 1_000);
        let (attached, mut sender) = oneshot::channel();
        engine.attach_sender("q", true, attached);
        let (attached, mut receiver) = oneshot::channel();
        engine.attach_receiver(&receiving(), attached);
        let mut said = open_and_begin();
        attach("link-1", 5, Role::Receiver, Some("q")).write(&mut said, 7);
        attach("link-2", 6, Role::Sender, Some("q")).write(&mut said, 7);
        engine.on_input(&mut said).expect("a broker as it should be");
        let sender = sender.try_recv().expect("attached").expect("not refused");
        let receiver = receiver.try_recv().expect("attached").expect("not refused");
        engine.set_credit(receiver.handle, 4);
        Self { engine, sender, receiver }
    }

    fn hear(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), AmqpError> {
        let mut said = Vec::new();
        write(&mut said);
        self.engine.on_input(&mut said)
    }

    fn transfer(&mut self, id: u32, more: bool, payload: &[u8]) -> Result<(), AmqpError> {
        let tag = id.to_be_bytes();
        let transfer =
            Transfer { handle: 6, delivery_id: Some(id), delivery_tag: Some(&tag), more, ..Transfer::default() };
        self.hear(|out| transfer.write(out, 7, payload))
    }

    fn send(&mut self, message: &[u8]) -> oneshot::Receiver<Result<SendOutcome, AmqpError>> {
        let (outcome, told) = oneshot::channel();
        self.engine.send(self.sender, message.to_vec(), outcome);
        self.engine.pump();
        told
    }

    fn give_credit(&mut self, credit: u32) {
        let flow = Flow {
            next_incoming_id: Some(0),
            incoming_window: 1_000,
            handle: Some(5),
            delivery_count: Some(0),
            link_credit: Some(credit),
            ..Flow::default()
        };
        self.hear(|out| flow.write(out, 7)).expect("a flow");
        self.engine.pump();
    }

    fn dispose(&mut self, id: u32, state: Option<DeliveryState<'_>>) {
        let disposition = Disposition { role: Role::Receiver, first: id, last: id, settled: true, state };
        self.hear(|out| disposition.write(out, 7)).expect("a disposition");
    }
}

/// FW1: the server in Corda's node API, which is also its firewall's, begins a session of its own at once.
#[test]
fn a_session_that_the_peer_begins_for_itself_is_left_alone() {
    let mut engine = Engine::new(FRAMES_MAX);
    engine.write_opening("test", None, 1_000);
    let mut said = Vec::new();
    Open { container_id: "CORDA", hostname: None, max_frame_size: 4_096, channel_max: 9, idle_time_out: 0 }
        .write(&mut said);
    begin(None).write(&mut said, 0);
    engine.on_input(&mut said).expect("nothing is wrong with it");
    assert!(!engine.is_open(), "ours has no answer yet");
    begin(Some(0)).write(&mut said, 1);
    engine.on_input(&mut said).expect("the answer");
    assert!(engine.is_open());

    let mut foreign = Rig::new();
    foreign.hear(|out| begin(None).write(out, 0)).expect("later, too");
    foreign.hear(|out| performative::write_end(out, 0, None)).expect("it may end");
    for channel in [0, 1] {
        foreign.hear(|out| begin(None).write(out, channel)).expect("and others may begin");
    }
    foreign.hear(|out| begin(None).write(out, 2)).expect_err("but not any number of them");
    let mut foreign = Rig::new();
    foreign.hear(|out| begin(None).write(out, 0)).expect("a session");
    let attach = attach("uninvited", 0, Role::Sender, Some("q"));
    foreign.hear(|out| attach.write(out, 0)).expect_err("nothing is taken on it");
}

#[test]
fn every_message_learns_its_own_outcome() {
    let mut rig = Rig::new();
    let mut told: Vec<_> = (0..4).map(|n| rig.send(&[n])).collect();
    assert!(told[0].try_recv().is_err(), "there is no credit yet");
    rig.give_credit(4);
    let error = Some(ErrorInfo { condition: "amqp:resource-limit-exceeded", description: Some("full") });
    rig.dispose(2, Some(DeliveryState::Rejected(error)));
    rig.dispose(0, Some(DeliveryState::Accepted));
    rig.dispose(3, Some(DeliveryState::Modified { failed: true }));
    // Settled without an outcome: not known to be safe.
    rig.dispose(1, None);
    let outcomes: Vec<_> = told.iter_mut().map(|told| told.try_recv().expect("told").expect("an outcome")).collect();
    let rejected = SendOutcome::Rejected { reason: "full".into() };
    assert_eq!(outcomes, [SendOutcome::Accepted, SendOutcome::Released, rejected, SendOutcome::Released]);
}

#[test]
fn a_link_that_the_broker_ends_fails_what_is_under_way_with_the_reason() {
    let mut rig = Rig::new();
    rig.give_credit(1);
    let (mut sent, mut queued) = (rig.send(b"sent"), rig.send(b"queued"));
    let error = Some(ErrorInfo { condition: "amqp:resource-deleted", description: Some("the queue was deleted") });
    rig.hear(|out| Detach { handle: 5, closed: true, error: error.clone() }.write(out, 7)).expect("a detach");
    let refused =
        AmqpError::Refused { condition: "amqp:resource-deleted".into(), description: "the queue was deleted".into() };
    for told in [&mut sent, &mut queued] {
        assert_eq!(told.try_recv().expect("told"), Err(refused.clone()));
    }
    assert_eq!(rig.send(b"late").try_recv().expect("told"), Err(refused));
    rig.hear(|out| Detach { handle: 6, closed: true, error }.write(out, 7)).expect("a detach");
    assert!(matches!(rig.receiver.arrivals.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}

#[test]
fn a_refused_link_tells_why() {
    let mut rig = Rig::new();
    let (attached, mut answer) = oneshot::channel();
    rig.engine.attach_sender("forbidden", true, attached);
    let error = Some(ErrorInfo { condition: "amqp:unauthorized-access", description: None });
    rig.hear(|out| {
        attach("link-3", 8, Role::Receiver, None).write(out, 7);
        Detach { handle: 8, closed: true, error }.write(out, 7);
    })
    .expect("a refusal");
    let told = answer.try_recv().expect("told").expect_err("refused");
    assert!(matches!(&told, AmqpError::Refused { condition, .. } if condition == "amqp:unauthorized-access"), "{told}");
}

#[test]
fn messages_come_in_pieces_and_too_long_ones_without_their_bytes() {
    let mut rig = Rig::new();
    rig.transfer(0, true, &[1; 400]).expect("a part");
    rig.transfer(0, false, &[2; 400]).expect("the rest");
    let whole = rig.receiver.arrivals.try_recv().expect("it is whole");
    assert_eq!(whole.message, Some([[1; 400], [2; 400]].concat()));
    for _ in 0..100 {
        // However long it is, it takes no room: the window stays open.
        rig.transfer(1, true, &[3; 400]).expect("a part");
    }
    rig.transfer(1, false, &[]).expect("the end");
    assert_eq!(rig.receiver.arrivals.try_recv().expect("it ended"), Incoming { id: 1, message: None });
}

#[test]
fn a_broker_that_takes_more_than_it_was_given_is_left() {
    let mut rig = Rig::new();
    for id in 0..4 {
        rig.transfer(id, false, b"x").expect("within the credit");
    }
    assert!(matches!(rig.transfer(4, false, b"x"), Err(AmqpError::Protocol(_))), "a fifth of four");

    let mut rig = Rig::new();
    for part in 0..FRAMES_MAX {
        rig.transfer(0, true, &[0; 10]).unwrap_or_else(|error| panic!("{part}: {error}"));
    }
    assert!(matches!(rig.transfer(0, true, &[0; 10]), Err(AmqpError::Protocol(_))), "beyond the window");

    let mut rig = Rig::new();
    rig.transfer(0, false, b"x").expect("the first");
    assert!(rig.transfer(0, false, b"x").is_err(), "an id that is in use");
    // Credit that is taken back may have been used already.
    let mut rig = Rig::new();
    rig.engine.set_credit(rig.receiver.handle, 0);
    rig.transfer(0, false, b"x").expect("it was under way");
}

#[test]
fn credit_that_is_drained_counts_as_used_and_cannot_be_invented() {
    let mut rig = Rig::new();
    let drained =
        |count| Flow { handle: Some(6), delivery_count: Some(count), link_credit: Some(0), ..Flow::default() };
    rig.engine.drain(rig.receiver.handle);
    rig.transfer(0, false, b"x").expect("it was under way");
    rig.hear(|out| drained(99).write(out, 7)).expect("ignored");
    rig.hear(|out| drained(4).write(out, 7)).expect("a flow");
    assert!(rig.transfer(1, false, b"x").is_err(), "there is no credit left");

    let mut rig = Rig::new();
    rig.engine.drain(rig.receiver.handle);
    rig.hear(|out| drained(4).write(out, 7)).expect("a flow");
    rig.engine.set_credit(rig.receiver.handle, 1);
    rig.transfer(0, false, b"x").expect("credit anew");
    assert!(rig.transfer(1, false, b"x").is_err());
}

#[test]
fn a_window_opens_again_when_messages_are_disposed_of() {
    let mut rig = Rig::new();
    for round in 0..100 {
        rig.engine.set_credit(rig.receiver.handle, 4);
        for id in 0..4 {
            let id = round * 4 + id;
            rig.transfer(id, true, b"x").expect("a part");
            rig.transfer(id, false, b"y").expect("the rest");
            let arrived = rig.receiver.arrivals.try_recv().expect("it arrived");
            rig.engine.dispose(arrived.id, Disposal::Accept);
        }
    }
}

fn frame_of_a_broker() -> impl Strategy<Value = Vec<u8>> {
    let small = 0..10_u32;
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..60),
        (small.clone(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..600)).prop_map(
            |(id, more, payload)| {
                let mut out = Vec::new();
                let tag = id.to_be_bytes();
                let transfer = Transfer {
                    handle: 6 - u32::from(id == 9),
                    delivery_id: (id != 8).then_some(id),
                    delivery_tag: Some(&tag),
                    settled: id == 7,
                    more,
                    aborted: id == 6,
                };
                transfer.write(&mut out, 7, &payload);
                out
            }
        ),
        (any::<u32>(), any::<u32>(), small.clone(), any::<bool>()).prop_map(|(count, credit, handle, echo)| {
            let flow = Flow {
                next_incoming_id: Some(count),
                incoming_window: credit,
                handle: Some(handle),
                delivery_count: Some(count),
                link_credit: Some(credit),
                echo,
                ..Flow::default()
            };
            let mut out = Vec::new();
            flow.write(&mut out, 7);
            out
        }),
        (any::<u32>(), any::<u32>(), any::<bool>(), any::<bool>()).prop_map(|(first, last, settled, accepted)| {
            let state = accepted.then_some(DeliveryState::Accepted);
            let mut out = Vec::new();
            Disposition { role: Role::Receiver, first, last, settled, state }.write(&mut out, 7);
            out
        }),
        (small.clone(), small.clone(), any::<bool>()).prop_map(|(name, handle, sender)| {
            let role = if sender { Role::Sender } else { Role::Receiver };
            let mut out = Vec::new();
            attach(&format!("link-{name}"), handle, role, (handle > 3).then_some("q")).write(&mut out, 7);
            out
        }),
        (small, 0..9_u16).prop_map(|(handle, channel)| {
            let mut out = Vec::new();
            Detach { handle, closed: true, error: None }.write(&mut out, channel);
            begin(Some(channel)).write(&mut out, channel);
            out
        }),
    ]
}

proptest! {
    /// Whatever a broker says, in whatever order: no panic, nobody waits for ever, and what we hold of it stays small.
    #[test]
    fn no_broker_makes_us_panic_or_hoard(frames in proptest::collection::vec(frame_of_a_broker(), 0..40)) {
        let mut rig = Rig::new();
        let mut told: Vec<_> = (0..3).map(|n| rig.send(&[n; 700])).collect();
        let (mut held, mut left) = (0, None);
        for mut frame in frames {
            if let Err(error) = rig.engine.on_input(&mut frame) {
                left = Some(error);
                break;
            }
            rig.engine.pump();
            while let Ok(incoming) = rig.receiver.arrivals.try_recv() {
                held += incoming.message.map_or(0, |message| message.len());
            }
            prop_assert!(held <= 4 * MESSAGE_BYTES_MAX, "no more than the credit that was given");
            prop_assert!(rig.engine.pending().len() < 64 * 1024);
        }
        rig.engine.fail(&left.unwrap_or_else(AmqpError::gone));
        for told in &mut told {
            prop_assert!(told.try_recv().is_ok(), "whoever waits is told");
        }
        prop_assert!(matches!(rig.receiver.arrivals.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    /// The same with the bytes of a good conversation, some of them changed.
    #[test]
    fn no_damage_makes_us_panic(damage in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..20)) {
        let mut rig = Rig::new();
        let mut said = Vec::new();
        for id in 0..3_u32 {
            let tag = id.to_be_bytes();
            Transfer { handle: 6, delivery_id: Some(id), delivery_tag: Some(&tag), ..Transfer::default() }.write(&mut said, 7, &[9; 50]);
            Flow { handle: Some(5), link_credit: Some(id), ..Flow::default() }.write(&mut said, 7);
            Disposition { role: Role::Receiver, first: id, last: id, settled: true, state: Some(DeliveryState::Accepted) }.write(&mut said, 7);
        }
        for (at, byte) in damage {
            let at = usize::from(at) % said.len();
            said[at] ^= byte;
        }
        // Good or bad, it ends.
        let _ = rig.engine.on_input(&mut said);
        rig.engine.pump();
    }
}

/// A broker's end of a stream that says what a test wants it to say.
async fn opening(said: Vec<Vec<u8>>, silence_max: Duration) -> (Result<Connection, AmqpError>, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let runtime = Handle::current();
    let options = options(silence_max);
    let opening = Connection::over(Box::new(ours), &options, &runtime);
    let talking = async {
        for part in said {
            // A client that has left does not listen.
            let _ = theirs.write_all(&part).await;
        }
        theirs
    };
    tokio::join!(opening, talking)
}

fn sasl(code: u8) -> Vec<Vec<u8>> {
    let mut out = HEADER_SASL.to_vec();
    Sasl::Mechanisms { plain: true, external: false, anonymous: false }.write(&mut out);
    Sasl::Outcome { code }.write(&mut out);
    vec![out]
}

const SOON: Duration = Duration::from_millis(200);

#[tokio::test]
async fn every_step_of_opening_ends_in_time_with_its_reason() {
    let header = || vec![HEADER_AMQP.to_vec()];
    let cases = [
        (vec![], "authentication took too long"),
        (vec![b"HTTP/1.1".to_vec()], "no SASL"),
        (vec![HEADER_SASL.to_vec(), vec![0xff; 8]], "frame"),
        (sasl(1), "not authenticated"),
        ([sasl(0), header()].concat(), "opening a session took too long"),
        ([sasl(0), vec![HEADER_SASL.to_vec()]].concat(), "no AMQP 1.0 header"),
        ([sasl(0), header(), vec![vec![0, 0, 0, 9, 2, 0, 0, 0, 1]]].concat(), "protocol"),
    ];
    for (said, expected) in cases {
        let (opened, _theirs) = opening(said, SOON).await;
        let error = opened.expect_err(expected).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_noticed_and_all_who_wait_are_told() {
    let said = [sasl(0), vec![HEADER_AMQP.to_vec(), open_and_begin()]].concat();
    let (opened, mut theirs) = opening(said, SOON).await;
    let connection = opened.expect("it is open");
    let mut said = Vec::new();
    attach("link-1", 5, Role::Receiver, Some("q")).write(&mut said, 7);
    Flow { incoming_window: 9, handle: Some(5), link_credit: Some(9), ..Flow::default() }.write(&mut said, 7);
    let (sender, written) = tokio::join!(connection.sender("q", true, 4), theirs.write_all(&said));
    written.expect("written");
    let sender = sender.expect("attached");
    let sent = sender.send(b"message".to_vec()).await.expect("handed over");
    let error = timeout(10 * SOON, connection.ended()).await.expect("silence is noticed");
    assert_eq!(error, AmqpError::TimedOut("a sign of life from the broker"));
    assert_eq!(sent.await, Err(error.clone()));
    assert_eq!(connection.echo(SOON).await, Err(error.clone()));
    assert_eq!(connection.dispose(0, Disposal::Accept), Err(error));
}

#[tokio::test]
async fn a_link_that_is_never_answered_does_not_wait_for_ever() {
    let said = [sasl(0), vec![HEADER_AMQP.to_vec(), open_and_begin()]].concat();
    let (opened, mut theirs) = opening(said, SOON).await;
    let connection = opened.expect("it is open");
    let heartbeats = async {
        loop {
            let mut alive = Vec::new();
            performative::write_heartbeat(&mut alive);
            theirs.write_all(&alive).await.expect("written");
            tokio::time::sleep(SOON / 4).await;
        }
    };
    tokio::select! {
        attached = connection.sender("q", true, 1) => {
            assert_eq!(attached.expect_err("no answer"), AmqpError::TimedOut("attaching a sender"));
        }
        () = heartbeats => {}
    }
    assert_eq!(connection.end(), None, "the connection itself is well");
}

#[tokio::test]
async fn a_peer_that_asks_and_does_not_read_is_not_answered_for_ever() {
    let said = [sasl(0), vec![HEADER_AMQP.to_vec(), open_and_begin()]].concat();
    let (opened, mut theirs) = opening(said, SOON).await;
    let connection = opened.expect("it is open");
    let mut asking = Vec::new();
    for _ in 0..1_000 {
        Flow { echo: true, ..Flow::default() }.write(&mut asking, 7);
    }
    // It stops taking before long, and ends the connection as nothing is heard that is read.
    let flooding = async { while theirs.write_all(&asking).await.is_ok() {} };
    timeout(Duration::from_secs(30), flooding).await.expect("it stops");
    assert!(connection.end().is_some());
    let mut rest = Vec::new();
    let _ = theirs.read_to_end(&mut rest).await;
    assert!(rest.len() < 2 << 20, "{} bytes were kept for it", rest.len());
}
