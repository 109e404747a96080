//! Conversations with peers that say anything at all.

mod nodes;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use proptest::prelude::*;
use tokio::sync::{Semaphore, mpsc};

use super::super::amqp::frame::{self, FrameType};
use super::super::amqp::message::OutgoingMessage;
use super::super::amqp::performative::{
    Attach, Begin, DeliveryState, Detach, Disposition, Flow, Performative, Role, Terminus, Transfer, write_end,
};
use super::conversation::Conversation;
use super::handshake::Opened;
use super::hub::{Command, Hub, Load};
use super::refusal::{Fault, Refusals};
use super::{Admission, Caller, Credentials, Entrance, Limits, Shared};
use crate::domain::X500Name;
use crate::ports::request_queue::Settlement;
use crate::tls::peers::fixtures::Net;

const SERVICE: &str = "p2p.inbound.service";
const INBOX: &str = "p2p.inbound.mallory";

fn mallory() -> Arc<Caller> {
    let name = X500Name {
        common_name: None,
        organisation_unit: None,
        organisation: "Mallory".to_owned(),
        locality: "Zurich".to_owned(),
        state: None,
        country: "CH".to_owned(),
    };
    Arc::new(Caller { name, reply_address: INBOX.to_owned() })
}

struct Talk {
    conversation: Conversation,
    commands: mpsc::UnboundedReceiver<Command>,
}

/// The entrance of clients, or that of nodes.
fn entrance(for_nodes: bool) -> Entrance {
    static TLS: OnceLock<crate::tls::peers::PeerTls> = OnceLock::new();
    match for_nodes {
        false => Entrance::Secrets(Arc::new(Credentials::default())),
        true => {
            let tls = TLS.get_or_init(|| Net::new().tls("Worker"));
            let settings = tls.server().expect("settings");
            // As if peers came to be stuck, and left the network, at any moment.
            let asked = AtomicU32::new(0);
            let admission: Admission =
                Arc::new(move |_| [64, 2, 64, 64, 0][asked.fetch_add(1, Ordering::Relaxed) as usize % 5]);
            Entrance::Certificates { tls: tls.clone(), settings, admission }
        }
    }
}

/// An endpoint without a socket, under limits that a few frames can reach.
fn shared(for_nodes: bool) -> Arc<Shared> {
    let limits = Arc::new(Limits {
        sessions_per_connection_max: 2,
        links_per_session_max: 3,
        link_credit: 8,
        message_bytes_max: 2_000,
        request_bytes_per_caller_max: 6_000,
        request_bytes_max: 6_000,
        ..Limits::default()
    });
    Arc::new(Shared {
        hub: Arc::new(Hub::new(Arc::clone(&limits))),
        refusals: Refusals::default(),
        entrance: entrance(for_nodes),
        addresses: vec![SERVICE.to_owned()],
        container_id: "worker".to_owned(),
        platform_version: 12,
        handshakes: Arc::new(Semaphore::new(1)),
        callers: Mutex::default(),
        limits,
    })
}

/// A connection of Mallory's with a session and a link each way; `None` while the endpoint drains.
fn talk(shared: &Arc<Shared>) -> Option<Talk> {
    let caller = mallory();
    let (id, commands) = shared.hub.register(&caller).ok()?;
    let opened = Opened { caller: (*caller).clone(), frame_bytes_max: 512, idle_timeout: None };
    let conversation = Conversation::new(Arc::clone(shared), id, caller, &opened, &"test");
    let mut talk = Talk { conversation, commands };
    talk.say(beginning()).expect("a good beginning");
    Some(talk)
}

fn beginning() -> Vec<u8> {
    [begin(), attach(0, Role::Sender, SERVICE, false), attach(1, Role::Receiver, INBOX, false)].concat()
}

impl Talk {
    fn say(&mut self, mut bytes: Vec<u8>) -> Result<(), Fault> {
        self.conversation.on_input(&mut bytes)?;
        self.conversation.pump();
        Ok(())
    }

    /// Checks that whatever the conversation writes can be read.
    fn assert_well_spoken(&mut self) {
        let heard = self.conversation.pending().to_vec();
        self.conversation.on_written(heard.len());
        let mut rest = &heard[..];
        while let Ok(Some(size)) = frame::size(rest, 512) {
            let body = frame::parse(&rest[..size], FrameType::Amqp).expect("our own frame").body;
            assert!(Performative::decode(body).is_ok(), "{body:02x?}");
            rest = &rest[size..];
        }
        assert!(rest.is_empty());
    }

    /// Does what the hub told the connection to do.
    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.conversation.on_command(command);
        }
        self.conversation.pump();
        self.assert_well_spoken();
    }
}

fn attach(handle: u32, role: Role, address: &str, dynamic: bool) -> Vec<u8> {
    let terminus = Terminus { address: (!dynamic).then_some(address), dynamic, ..Terminus::default() };
    let attach = Attach {
        name: "link",
        handle,
        role,
        snd_settle_mode: 0,
        rcv_settle_mode: 0,
        source: Some(terminus.clone()),
        target: Some(terminus),
        initial_delivery_count: Some(0),
        max_message_size: 0,
        priority: None,
    };
    let mut out = Vec::new();
    attach.write(&mut out, 0);
    out
}

fn transfer(handle: u32, delivery_id: u32, more: bool, payload: &[u8]) -> Vec<u8> {
    let transfer =
        Transfer { handle, delivery_id: Some(delivery_id), delivery_tag: Some(b"tag"), more, ..Transfer::default() };
    let mut out = Vec::new();
    transfer.write(&mut out, 0, payload);
    out
}

fn begin() -> Vec<u8> {
    let mut out = Vec::new();
    let begin = Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window: 1_000,
        outgoing_window: 1_000,
        handle_max: 7,
    };
    begin.write(&mut out, 0);
    out
}

fn message() -> Vec<u8> {
    OutgoingMessage { dedup_id: "d", body: b"request", ..OutgoingMessage::default() }.encode()
}

/// One thing that a peer says or a worker does.
#[derive(Clone, Debug)]
enum Step {
    Attach {
        handle: u32,
        role: Role,
        own: bool,
        dynamic: bool,
    },
    Detach {
        handle: u32,
    },
    Flow {
        handle: Option<u32>,
        count: u32,
        credit: u32,
        window: u32,
        drain: bool,
    },
    /// With the id that is due, unless one is given.
    Transfer {
        handle: u32,
        id: Option<u32>,
        more: bool,
        good: bool,
        len: usize,
    },
    Dispose {
        role: Role,
        first: u32,
        last: u32,
        settled: bool,
        accepted: bool,
    },
    Restart,
    Bytes(Vec<u8>),
    Take,
    Settle(Settlement),
    Reply(usize),
    Forget,
    Review,
    Rest(bool),
    Drain,
}

/// Steps of which most are in order, so that conversations get somewhere before one is not.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let role = || prop_oneof![Just(Role::Sender), Just(Role::Receiver)];
    let small = || prop_oneof![20 => 0..6u32, 1 => any::<u32>()];
    let requests = prop_oneof![40 => Just(0u32), 1 => 0..4u32];
    let step = prop_oneof![
        4 => (2..3u32, role(), prop::bool::weighted(0.9), prop::bool::weighted(0.2))
            .prop_map(|(handle, role, own, dynamic)| Step::Attach { handle, role, own, dynamic }),
        1 => (2..3u32).prop_map(|handle| Step::Detach { handle }),
        1 => (0..2u32).prop_map(|handle| Step::Detach { handle }),
        20 => (prop::option::weighted(0.9, prop_oneof![20 => Just(1u32), 1 => 0..4u32]), small(), small(), small(), prop::bool::weighted(0.2))
            .prop_map(|(handle, count, credit, window, drain)| Step::Flow { handle, count, credit, window, drain }),
        40 => (requests, prop::option::weighted(0.02, small()), prop::bool::weighted(0.3), prop::bool::weighted(0.8), 1..900usize)
            .prop_map(|(handle, id, more, good, len)| Step::Transfer { handle, id, more, good, len }),
        20 => (prop_oneof![9 => Just(Role::Receiver), 1 => Just(Role::Sender)], small(), small(), any::<bool>(), any::<bool>())
            .prop_map(|(role, first, last, settled, accepted)| Step::Dispose { role, first, last, settled, accepted }),
        1 => Just(Step::Restart),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Bytes),
        50 => Just(Step::Take),
        40 => prop_oneof![Just(Settlement::Accept), Just(Settlement::Release)].prop_map(Step::Settle),
        20 => (0..1_500usize).prop_map(Step::Reply),
        8 => Just(Step::Forget),
        8 => Just(Step::Review),
        1 => any::<bool>().prop_map(Step::Rest),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 0..150)
}

/// The bytes of a step that the peer takes. `due` is the id of its next transfer.
fn spoken(step: &Step, due: &mut u32) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match step {
        Step::Attach { handle, role, own, dynamic } => {
            let address = match (own, role) {
                (false, _) => "elsewhere",
                (true, Role::Sender) => SERVICE,
                (true, Role::Receiver) => INBOX,
            };
            out = attach(*handle, *role, address, *dynamic && *role == Role::Receiver);
        }
        Step::Detach { handle } => Detach { handle: *handle, closed: true, error: None }.write(&mut out, 0),
        Step::Flow { handle, count, credit, window, drain } => {
            let flow = Flow {
                next_incoming_id: Some(0),
                incoming_window: *window,
                handle: *handle,
                delivery_count: Some(*count),
                link_credit: Some(*credit),
                drain: *drain,
                echo: *credit % 2 == 1,
                ..Flow::default()
            };
            flow.write(&mut out, 0);
        }
        Step::Transfer { handle, id, more, good, len } => {
            out = transfer(*handle, id.unwrap_or(*due), *more, &if *good { message() } else { vec![7; *len] });
            *due += u32::from(!more);
        }
        Step::Dispose { role, first, last, settled, accepted } => {
            let state = Some(if *accepted { DeliveryState::Accepted } else { DeliveryState::Released });
            Disposition { role: *role, first: *first, last: *last, settled: *settled, state }.write(&mut out, 0);
        }
        Step::Restart => {
            write_end(&mut out, 0, None);
            out.extend(beginning());
        }
        Step::Bytes(bytes) => out.clone_from(bytes),
        _ => return None,
    }
    Some(out)
}

proptest! {
    /// Goal: nothing that a peer says makes the endpoint panic, hold more than its limits, or keep anything once it is gone.
    #[test]
    fn any_conversation_stays_within_its_limits_and_leaves_nothing_behind(steps in steps(), for_nodes: bool) {
        let shared = shared(for_nodes);
        let hub = Arc::clone(&shared.hub);
        let mut peer = talk(&shared).expect("the first connection");
        let mut due = 0;
        let (mut taken, mut waiting, mut settled) = (Vec::new(), Vec::new(), Vec::new());
        for step in &steps {
            match step {
                Step::Take => {
                    let mut take = Box::pin(hub.take());
                    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                    if let std::task::Poll::Ready(Ok(delivery)) = take.as_mut().poll(&mut context) {
                        taken.push(delivery.id);
                    }
                }
                Step::Settle(settlement) => {
                    if let Some(id) = taken.pop() {
                        settled.extend(hub.settle(id, settlement.clone()));
                    }
                }
                Step::Reply(len) => {
                    if let Some(id) = taken.last() {
                        waiting.extend(hub.enqueue(*id, [vec![1; *len], vec![2]].into()));
                    }
                }
                Step::Forget => drop(waiting.pop()),
                Step::Review => peer.conversation.review(),
                Step::Rest(true) => hub.rest(),
                Step::Rest(false) => hub.resume(),
                Step::Drain => hub.drain(),
                spoken_step => {
                    let bytes = spoken(spoken_step, &mut due).expect("the peer's steps are spoken");
                    if peer.say(bytes).is_err() {
                        // Its connection ends, and it comes again.
                        peer.assert_well_spoken();
                        due = 0;
                        let Some(again) = talk(&shared) else { break };
                        peer = again;
                    }
                }
            }
            peer.obey();
            let load = hub.load();
            prop_assert!(load.request_bytes <= shared.limits.request_bytes_max);
            prop_assert!(load.undisposed <= taken.len() + 8 * 3, "{load:?}");
            prop_assert!(load.request_links + load.reply_links <= 3);
        }
        drop(peer);
        for id in taken {
            // The worker learns that it is too late, and lets go.
            prop_assert!(hub.settle(id, Settlement::Release).is_err());
        }
        drop(waiting);
        prop_assert_eq!(hub.load(), Load::default());
    }
}
