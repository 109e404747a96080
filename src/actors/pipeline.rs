//! The three actors, joined: broker → flow → uniqueness → signing → reply. [`Core`] is the pair behind the flow stage, which
//! benchmarks drive without a broker.
//!
//! A pump takes a delivery from the queue only when the flow stage has a free slot. So a full worker stops asking, the queue
//! stops granting credit, and waiting requests stay with their senders.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use actix::{Actor, Arbiter, System};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::flow::{Deliver, FlowActor, FlowPorts};
use super::mailbox::Mailbox;
use super::signing::{Sign, SigningActor, SigningKey};
use super::suspects::Suspects;
use super::uniqueness::{Commit, UniquenessActor};
use crate::domain::merkle_batch::TransactionSignature;
use crate::domain::{CheckedRequest, CommittedTx, Verdict};
use crate::observe::http::Pulse;
use crate::observe::metrics::StageGauge;
use crate::ports::{Clock, NetworkMap, RequestQueue, UniquenessProvider};
use crate::stages::session::Notary;
use crate::stages::{GaveUp, signing, uniqueness};

/// What the stages behind the flow are made of.
pub struct CoreParts {
    /// Remembers what was spent.
    pub uniqueness: Arc<dyn UniquenessProvider>,
    /// The service key.
    pub key: SigningKey,
    /// For time windows.
    pub clock: Arc<dyn Clock>,
    /// The stages' limits.
    pub limits: CoreLimits,
}

/// Limits of the stages behind the flow.
#[derive(Clone, Copy, Debug)]
pub struct CoreLimits {
    /// Requests in the uniqueness stage.
    pub uniqueness_slots: usize,
    /// How it batches.
    pub uniqueness: uniqueness::Limits,
    /// Transactions in the signing stage.
    pub signing_slots: usize,
    /// How it batches.
    pub signing: signing::Limits,
}

/// The running uniqueness and signing stages, with the actor system they live in.
pub struct Core {
    stages: Stages,
    system: System,
    flow_arbiter: Arbiter,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// The addresses of the stages behind the flow.
#[derive(Clone)]
pub struct Stages {
    /// Decides and commits.
    pub uniqueness: Mailbox<UniquenessActor>,
    /// Signs what is committed.
    pub signing: Mailbox<SigningActor>,
}

/// The pipeline's thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the actors' thread: {0}")]
pub struct StartError(#[from] std::io::Error);

impl Core {
    /// Starts the actors, each on its own arbiter. I/O and CPU work run on `runtime`, never on an arbiter: what is spawned there
    /// dies with it.
    ///
    /// # Errors
    /// [`StartError`] if the operating system gives no thread.
    pub fn start(parts: CoreParts, runtime: &Handle) -> Result<Self, StartError> {
        let (started, start) = mpsc::channel();
        let thread = thread::Builder::new().name("actix-system".into()).spawn(move || {
            let runner = System::new();
            let arbiters = runner.block_on(async { [Arbiter::new(), Arbiter::new(), Arbiter::new()] });
            // The receiver waits for exactly this.
            let _ = started.send((System::current(), arbiters));
            // An error here is the code given to `stop`, which is always 0.
            let _ = runner.run();
        })?;
        let (system, [flow_arbiter, uniqueness_arbiter, signing_arbiter]) =
            start.recv().map_err(|_| std::io::Error::other("the thread ended at once"))?;

        let CoreParts { uniqueness, key, clock, limits } = parts;
        let handle = runtime.clone();
        let uniqueness = UniquenessActor::start_in_arbiter(&uniqueness_arbiter.handle(), move |_| {
            UniquenessActor::new(limits.uniqueness, uniqueness, clock, handle)
        });
        let handle = runtime.clone();
        let signing = SigningActor::start_in_arbiter(&signing_arbiter.handle(), move |_| {
            SigningActor::new(limits.signing, key, handle)
        });
        let stages = Stages {
            uniqueness: Mailbox::new(uniqueness, limits.uniqueness_slots),
            signing: Mailbox::new(signing, limits.signing_slots),
        };
        Ok(Self { stages, system, flow_arbiter, thread: Mutex::new(Some(thread)) })
    }

    /// Where to ask.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Ends the actors. Whatever is still open stays undone; what is committed stays committed.
    pub fn stop(&self) {
        self.system.stop();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The thread ends with its system; a panic in it has already been reported.
            let _ = thread.join();
        }
    }
}

impl Stages {
    /// Has a request committed; waits for a free slot first.
    ///
    /// # Errors
    /// [`GaveUp`] if no verdict could be found for now.
    pub async fn commit(&self, request: CheckedRequest) -> Result<Verdict, GaveUp> {
        let stopped = |_| GaveUp { stage: "uniqueness", reason: "stopped".into() };
        let slot = self.uniqueness.slot().await.map_err(stopped)?;
        self.uniqueness.ask(slot, |slot| Commit { request, slot }).await.map_err(stopped)?
    }

    /// Has a committed transaction signed; waits for a free slot first.
    ///
    /// # Errors
    /// [`GaveUp`] if there is no signature for now.
    pub async fn sign(&self, tx: CommittedTx) -> Result<TransactionSignature, GaveUp> {
        let stopped = |_| GaveUp { stage: "signing", reason: "stopped".into() };
        let slot = self.signing.slot().await.map_err(stopped)?;
        self.signing.ask(slot, |slot| Sign { tx, slot }).await.map_err(stopped)?
    }
}

/// What a pipeline is made of, besides its core.
pub struct PipelineParts {
    /// Whom we are.
    pub notary: Arc<Notary>,
    /// Where requests come from and answers go.
    pub queue: Arc<dyn RequestQueue>,
    /// Who takes part.
    pub network_map: Arc<dyn NetworkMap>,
    /// Messages that are not to be looked at again.
    pub suspects: Arc<Suspects>,
    /// Deliveries in the worker at once.
    pub flow_slots: usize,
    /// Clients are told of a wait that is longer.
    pub eta_message_threshold: Duration,
}

/// How long an actor may take for a sign of life: none of them ever works for more than some milliseconds.
const PULSE_PATIENCE: Duration = Duration::from_secs(2);

/// A running pipeline.
pub struct Pipeline {
    core: Core,
    flow: Mailbox<FlowActor>,
    /// Whether the pump holds a slot for a delivery that has not come yet.
    slot_kept_free: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    serving: watch::Sender<bool>,
    queue: Arc<dyn RequestQueue>,
    pump: tokio::task::JoinHandle<()>,
}

impl Pipeline {
    /// Starts the flow stage before `core`, and the pump that feeds it.
    pub fn start(core: Core, parts: PipelineParts, runtime: &Handle) -> Self {
        let ports = FlowPorts {
            notary: parts.notary,
            queue: Arc::clone(&parts.queue),
            network_map: parts.network_map,
            suspects: parts.suspects,
            stages: core.stages.clone(),
            runtime: runtime.clone(),
            eta_message_threshold: parts.eta_message_threshold,
        };
        let flow = FlowActor::start_in_arbiter(&core.flow_arbiter.handle(), move |_| FlowActor::new(ports));
        let flow = Mailbox::new(flow, parts.flow_slots);
        let (stop, stopping) = watch::channel(false);
        let (serving, serves) = watch::channel(true);
        let slot_kept_free = Arc::new(AtomicBool::new(false));
        let queue = Arc::clone(&parts.queue);
        let pump = pump(parts.queue, flow.clone(), Arc::clone(&slot_kept_free), stopping, serves);
        let pump = runtime.spawn(pump);
        Self { core, flow, slot_kept_free, stop, serving, queue, pump }
    }

    /// Leaves the queue, or joins it again: a worker without its store or its key keeps no requests from workers that have theirs.
    /// What it has taken it goes on with.
    pub fn serve(&self, serving: bool) {
        if self.serving.send_if_modified(|before| std::mem::replace(before, serving) != serving) {
            self.queue.serve(serving);
        }
    }

    /// Asks every actor for a sign of life; false if one does not give it within two seconds.
    pub fn pulse(&self) -> Pulse {
        let (flow, stages) = (self.flow.clone(), self.core.stages.clone());
        Arc::new(move || {
            let (flow, stages) = (flow.clone(), stages.clone());
            Box::pin(async move {
                let all = async { tokio::join!(flow.ping(), stages.uniqueness.ping(), stages.signing.ping()) };
                matches!(tokio::time::timeout(PULSE_PATIENCE, all).await, Ok((true, true, true)))
            })
        })
    }

    /// Depth and limit of each stage, for the figures.
    pub fn gauges(&self) -> Vec<(&'static str, StageGauge)> {
        fn gauge<A: Actor<Context = actix::Context<A>>>(mailbox: &Mailbox<A>) -> StageGauge {
            let mailbox = mailbox.clone();
            Box::new(move || (mailbox.depth(), mailbox.limit()))
        }
        let Stages { uniqueness, signing } = self.core.stages();
        let (flow, slot_kept_free) = (gauge(&self.flow), Arc::clone(&self.slot_kept_free));
        let flow: StageGauge = Box::new(move || {
            let (taken, limit) = flow();
            (taken.saturating_sub(slot_kept_free.load(Ordering::Relaxed).into()), limit)
        });
        vec![("flow", flow), ("uniqueness", gauge(uniqueness)), ("signing", gauge(signing))]
    }

    /// Takes no more deliveries, and lets those in the worker finish for at most `limit`. What is left then stays with its sender.
    /// Returns whether all of them finished.
    pub async fn drain(&self, limit: Duration) -> bool {
        // What waits here unreceived is for others; on a shared broker they take it at once.
        self.serve(false);
        // The pump holds a receiver as long as it runs; without one there is nothing to stop.
        let _ = self.stop.send(true);
        tokio::time::timeout(limit, self.flow.idle()).await.is_ok()
    }

    /// Ends the actors. Whatever is still open is never settled, so its senders deliver it again.
    pub fn stop(&self) {
        self.pump.abort();
        self.core.stop();
    }
}

/// Moves deliveries from the queue to the flow stage, one slot each.
async fn pump(
    queue: Arc<dyn RequestQueue>,
    flow: Mailbox<FlowActor>,
    slot_kept_free: Arc<AtomicBool>,
    mut stopping: watch::Receiver<bool>,
    mut serving: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => return,
            _ = serving.wait_for(|serving| *serving) => {}
        }
        let Ok(slot) = flow.slot().await else { return };
        slot_kept_free.store(true, Ordering::Relaxed);
        let delivery = tokio::select! {
            biased;
            _ = stopping.wait_for(|stop| *stop) => None,
            _ = serving.wait_for(|serving| !*serving) => None,
            delivery = queue.receive() => Some(delivery),
        };
        slot_kept_free.store(false, Ordering::Relaxed);
        let delivery = match delivery {
            None => continue,
            Some(Err(_)) => return,
            Some(Ok(delivery)) => delivery,
        };
        if flow.ask(slot, |slot| Deliver { delivery, slot }).await.is_err() {
            return;
        }
    }
}
