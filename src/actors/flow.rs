//! The flow actor: owns deliveries from arrival to settlement.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, AsyncContext, Context, Handler, Message};
use tokio::runtime::Handle;

use super::faults;
use super::mailbox::{Completions, Ping, Slot};
use super::pipeline::Stages;
use super::suspects::Suspects;
use crate::domain::{Timestamp, X500Name};
use crate::observe;
use crate::ports::request_queue::{Delivery, DeliveryId, Settlement};
use crate::ports::{NetworkMap, RequestQueue};
use crate::stages::flow::{Effect, Event, Flow};
use crate::stages::service_rate::ServiceRate;
use crate::stages::session::{self, Answer, Inspection, Notary};

/// A delivery to see through. `slot` is its place in the worker, held until the delivery is settled.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Deliver {
    /// The delivery.
    pub delivery: Delivery,
    /// Its place.
    pub slot: Slot,
}

impl Message for Event {
    type Result = ();
}

/// What a flow actor works with.
#[derive(Clone)]
pub struct FlowPorts {
    /// Whom we are.
    pub notary: Arc<Notary>,
    /// Where requests come from and answers go.
    pub queue: Arc<dyn RequestQueue>,
    /// Who takes part.
    pub network_map: Arc<dyn NetworkMap>,
    /// Messages that are not to be looked at again.
    pub suspects: Arc<Suspects>,
    /// The stages behind this one.
    pub stages: Stages,
    /// Runs I/O and, on its blocking threads, CPU work.
    pub runtime: Handle,
    /// Clients are told of a wait that is longer.
    pub eta_message_threshold: Duration,
}

/// A delivery's place and what is told of it when it ends.
struct Open {
    slot: Slot,
    since: Instant,
    sent_at: Option<Timestamp>,
    answer: Option<observe::metrics::Answered>,
}

/// The actor.
pub struct FlowActor {
    machine: Flow,
    ports: FlowPorts,
    open: HashMap<DeliveryId, Open>,
    rate: ServiceRate,
    started: Instant,
}

impl FlowActor {
    /// An actor without deliveries.
    pub fn new(ports: FlowPorts) -> Self {
        let (rate, started) = (ServiceRate::default(), Instant::now());
        Self { machine: Flow::new(ports.eta_message_threshold), ports, open: HashMap::new(), rate, started }
    }

    fn step(&mut self, event: Event, ctx: &mut Context<Self>) {
        let Some(effect) = self.machine.handle(event) else { return };
        let done = Completions::of(ctx.address());
        let ports = self.ports.clone();
        match effect {
            Effect::Inspect(delivery) => {
                // One message may cost many signature verifications and Merkle trees: never on the arbiter.
                self.ports.runtime.spawn_blocking(move || {
                    let Delivery { id, caller, body, .. } = delivery;
                    let view = ports.network_map.view();
                    let inspect = |body: &[u8]| {
                        faults::inspecting(body);
                        session::inspect(&ports.notary, &view, &caller, body)
                    };
                    let inspection = ports.suspects.inspect(body, inspect);
                    let inspection = inspection.unwrap_or_else(|reason| Inspection::Unreadable { reason });
                    log_refusal(&caller, &inspection);
                    done.report(Event::Inspected(id, inspection));
                });
            }
            Effect::Commit(id, request) => {
                self.ports.runtime.spawn(async move {
                    faults::point("before_commit").await;
                    let decided = ports.stages.commit(request).await;
                    faults::point("committed").await;
                    done.report(Event::Decided(id, decided));
                });
            }
            Effect::Sign(id, tx) => {
                self.ports.runtime.spawn(async move {
                    faults::point("before_sign").await;
                    let signed = ports.stages.sign(tx).await;
                    faults::point("signed").await;
                    done.report(Event::Signed(id, signed));
                });
            }
            Effect::Reply(id, answer) => {
                let answered = observe::metrics::Answered::of(&answer);
                match self.open.get_mut(&id) {
                    // Not the answer yet.
                    Some(_) if matches!(answer, Answer::Wait { .. }) => {}
                    Some(open) => open.answer = Some(answered),
                    None => {}
                }
                self.ports.runtime.spawn(async move {
                    let replies = session::encode(&ports.notary, &answer);
                    faults::point("before_publish").await;
                    let safe = ports.queue.reply(id, replies).await;
                    faults::point("published").await;
                    done.report(Event::Replied(id, safe));
                });
            }
            Effect::Settle(id, settlement) => {
                let Some(open) = self.open.remove(&id) else { return };
                let now_ms = self.started.elapsed().as_millis() as u64;
                match open.answer {
                    Some(_) => self.rate.done(now_ms),
                    None => self.rate.left(now_ms),
                }
                self.ports.runtime.spawn(async move {
                    faults::point("before_ack").await;
                    observe::metrics::settled(open.answer.as_ref(), &settlement, open.since.elapsed());
                    if let (Settlement::Accept, Some(sent_at)) = (&settlement, open.sent_at) {
                        observe::metrics::end_to_end(sent_at);
                    }
                    if let Err(error) = ports.queue.settle(id, settlement).await {
                        // The sender delivers again and gets the same answer.
                        tracing::debug!(delivery = id.0, %error, "not settled");
                    }
                    drop(open.slot); // Not earlier: only now does the delivery weigh on nobody.
                });
            }
        }
    }
}

/// Who is refused without the store being asked, and why: either somebody's fault or somebody's attempt.
fn log_refusal(caller: &X500Name, inspection: &Inspection) {
    use observe::logs::clean;
    match inspection {
        Inspection::Unreadable { reason } => tracing::warn!(%caller, reason = %clean(reason), "message refused"),
        Inspection::Answer(Answer::Refused { tx_id, error, .. }) => {
            let transaction = tx_id.map(|tx_id| tx_id.to_string()).unwrap_or_default();
            tracing::warn!(%caller, transaction, reason = %clean(&error.to_string()), "request refused");
        }
        Inspection::Answer(Answer::Undecodable { reason, .. }) => {
            tracing::warn!(%caller, reason = %clean(reason), "request refused");
        }
        Inspection::Answer(Answer::NoSuchFlow { flow, .. }) => {
            tracing::warn!(%caller, flow = %clean(flow), "session refused: no such flow");
        }
        Inspection::Request { .. } | Inspection::Answer(_) | Inspection::Nothing => {}
    }
}

impl Actor for FlowActor {
    type Context = Context<Self>;
}

impl Handler<Deliver> for FlowActor {
    type Result = ();

    fn handle(&mut self, Deliver { delivery, slot }: Deliver, ctx: &mut Self::Context) {
        faults::handling();
        let wait = self.rate.arrived(self.started.elapsed().as_millis() as u64).map(Duration::from_millis);
        if let Some(wait) = wait {
            observe::metrics::wait_predicted(wait);
        }
        self.open.insert(delivery.id, Open { slot, since: Instant::now(), sent_at: delivery.sent_at, answer: None });
        self.step(Event::Delivered(delivery, wait), ctx);
    }
}

impl Handler<Ping> for FlowActor {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Handler<Event> for FlowActor {
    type Result = ();

    fn handle(&mut self, event: Event, ctx: &mut Self::Context) {
        self.step(event, ctx);
    }
}
