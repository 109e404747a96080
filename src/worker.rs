//! The only place where ports meet adapters: builds a worker from its settings, runs it, drains it. Which adapter serves which
//! setting is in `broker`, `store` and `key`.

mod broker;
mod certificates;
mod credentials;
pub mod doctor;
mod key;
mod network;
pub mod process;
mod publication;
mod store;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::task::AbortHandle;

use self::broker::Broker;
use self::store::Store;
use crate::actors::pipeline::{Core, CoreLimits, CoreParts, Pipeline, PipelineParts};
use crate::actors::signing::SigningKey;
use crate::actors::suspects::Suspects;
use crate::broker::admin::Administrator;
use crate::config::{Fault, Faults, LogFormat, Settings};
use crate::domain::PublicKey;
use crate::domain::check::CheckPolicy;
use crate::domain::network::NetworkView;
use crate::observe;
use crate::observe::certificates::Certificates;
use crate::observe::health::{Health, Readiness};
use crate::observe::http::{Http, Pulse};
use crate::observe::metrics::Exporter;
use crate::observe::supervisor;
use crate::ports::NetworkMap;
use crate::ports::clock::SystemClock;
use crate::stages::session::Notary;
use crate::stages::{Backoff, signing, uniqueness};
use crate::wire::{self, CordaSignedForm};

pub use self::broker::Declared;
pub use self::key::{service_key_in_memory, token_options};
pub use self::network::load as load_network;
pub use self::publication::{Published, publish};
pub use self::store::{create_store, examine_database};

/// Why a worker does not start; nothing was answered.
#[derive(Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct StartError {
    part: &'static str,
    reason: String,
    misconfigured: bool,
}

impl StartError {
    fn of(part: &'static str) -> impl Fn(&dyn core::fmt::Display) -> Self {
        move |reason| Self { part, reason: reason.to_string(), misconfigured: false }
    }

    /// Only a change of the configuration can help, as with a wrong passphrase or PIN. Supervisors do not try these again: a
    /// token locks itself after a few wrong PINs.
    fn misconfigured(self) -> Self {
        Self { misconfigured: true, ..self }
    }

    /// Whether trying again with the same configuration is of no use, or does harm.
    pub fn is_misconfigured(&self) -> bool {
        self.misconfigured
    }
}

/// Runs `threads` threads for I/O and as many for CPU work; 0 takes one per core. Bounding the second kind keeps a burst of large
/// requests from taking every core away from I/O.
///
/// # Errors
/// If the operating system gives no threads.
pub fn runtime(threads: usize) -> std::io::Result<Runtime> {
    let threads = match NonZeroUsize::new(threads) {
        Some(threads) => threads,
        None => std::thread::available_parallelism()?,
    };
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.get())
        .max_blocking_threads(threads.get())
        .thread_name("notary")
        .enable_all()
        .build()
}

/// Directs the process's logs as the settings say.
///
/// # Errors
/// [`Faults`] if `observe.log` is no filter.
pub fn init_logs(settings: &Settings) -> Result<(), Faults> {
    let json = settings.observe.log_format == LogFormat::Json;
    observe::logs::init(&settings.observe.log, json)
        .map_err(|error| Faults(vec![Fault { key: "observe.log".into(), problem: error.to_string() }]))
}

/// Threads that sign: as many as signatures may be in the making.
pub fn signing_threads(settings: &Settings) -> NonZeroUsize {
    NonZeroUsize::new(settings.signing.signatures_in_flight_max).unwrap_or(NonZeroUsize::MIN)
}

/// The limits of the stages behind the flow.
pub fn core_limits(settings: &Settings) -> CoreLimits {
    let (uniqueness, signing) = (&settings.uniqueness, &settings.signing);
    CoreLimits {
        uniqueness_slots: uniqueness.slots,
        uniqueness: uniqueness::Limits {
            batch_requests_max: uniqueness.batch_requests_max,
            batch_states_max: uniqueness.batch_states_max,
            commits_in_flight_max: uniqueness.commits_in_flight_max,
            attempts_max: uniqueness.attempts_max,
            backoff: Backoff { base_ms: uniqueness.retry_base_ms, cap_ms: uniqueness.retry_cap_ms },
        },
        signing_slots: signing.slots,
        signing: signing::Limits {
            batch_transactions_max: signing.batch_transactions_max,
            signatures_in_flight_max: signing.signatures_in_flight_max,
            attempts_max: signing.attempts_max,
            backoff: Backoff { base_ms: signing.retry_base_ms, cap_ms: signing.retry_cap_ms },
        },
    }
}

/// What can be checked without connecting anything: files are there, secrets can be read, the network material verifies.
pub fn preflight(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    faults.extend(init_logs(settings).err().into_iter().flat_map(|faults| faults.0));
    faults.extend(store::preflight(settings));
    faults.extend(key::preflight(settings));
    faults.extend(publication::preflight(settings));
    match network::load(settings) {
        Ok(network) => {
            let unshared = store::check_shared(settings, network.view()).err();
            faults.extend(unshared.map(|error| Fault { key: error.part.into(), problem: error.reason }));
            faults.extend(broker::preflight(settings, network.view()));
        }
        // The HTTP network map may know what no file says yet.
        Err(_) if !settings.network.url.is_empty() => {}
        Err(StartError { part, reason, .. }) => {
            // Other parts are not settings, or may lie in several.
            let key = if part.starts_with("network.") { part } else { "network.dir" };
            faults.push(Fault { key: key.into(), problem: reason });
        }
    }
    faults
}

/// A running worker.
pub struct Worker {
    pipeline: Arc<Pipeline>,
    broker: Broker,
    http: Http,
    health: Arc<Health>,
    caretakers: [AbortHandle; 3],
    /// Held, as they end when dropped.
    _network: network::Network,
    _following: certificates::Following,
    _publishing: Option<publication::Publishing>,
    service_key: PublicKey,
}

impl Worker {
    /// Starts a worker; it serves when this returns. I/O and CPU work run on `runtime`.
    ///
    /// # Errors
    /// [`StartError`] names the part that is missing, in use or wrong.
    pub async fn start(settings: &Settings, runtime: &Handle) -> Result<Self, StartError> {
        // Cheapest first, and the key after everything that may be missing: a supervisor that starts the worker again and again
        // must not burn key derivations, or tries of a PIN, on a store that is not there (fault F07).
        let suspects = suspects(settings)?;
        let Store { provider, probe: store_probe } = store::open(settings, runtime).await?;
        let publication = publication::open(settings, runtime).await?;
        let network = network::open(settings, runtime).await?;
        let network_map: Arc<dyn NetworkMap> = Arc::clone(&network.map) as _;
        let key::Key { signer, probe: key_probe } = key::open(settings, runtime).await?;
        let service_key = signer.public_key().clone();
        check_listed(&service_key, &network_map.view())?;
        store::check_shared(settings, &network_map.view())?;
        let broker = broker::open(settings, &service_key, &network_map, runtime).await?;

        let policy = CheckPolicy { service_key: service_key.clone(), states_limit: settings.service.states_limit };
        let limits = wire::Limits { message_bytes_max: settings.limits.message_bytes_max, ..wire::Limits::DEFAULT };
        let platform_version = i32::from(settings.worker.platform_version);
        let core = CoreParts {
            uniqueness: provider,
            key: SigningKey { signer: Arc::clone(&signer), form: Arc::new(CordaSignedForm), platform_version },
            clock: Arc::new(SystemClock),
            limits: core_limits(settings),
        };
        let core = Core::start(core, runtime).map_err(|error| StartError::of("actors")(&error))?;
        let parts = PipelineParts {
            notary: Arc::new(Notary::new(policy, limits, platform_version, settings.worker.name.clone())),
            queue: Arc::clone(&broker.queue),
            network_map,
            suspects: Arc::new(suspects),
            flow_slots: settings.flow.slots,
            eta_message_threshold: Duration::from_millis(settings.flow.eta_message_threshold_ms),
        };
        let pipeline = Arc::new(Pipeline::start(core, parts, runtime));
        let ends = Certificates::default();
        // Before the parts are watched, or nobody would hear that they work.
        let exporter =
            Exporter::install(pipeline.gauges(), ends.clone()).map_err(|error| StartError::of("figures")(&error))?;
        // Figures of the network that were told before there was anybody to hear them.
        network.map.look();
        let probes = [store_probe, broker.probe.clone(), key_probe].into_iter().flatten().collect();
        let health = Arc::new(Health::watch(probes, runtime));
        let http = Http::start(settings.observe.listen, exporter, Arc::clone(&health), pipeline.pulse(), runtime)
            .await
            .map_err(|error| StartError::of("observe.listen")(&format!("{}: {error}", settings.observe.listen)))?;
        let following = certificates::follow(settings, broker.peer_tls.clone(), &service_key, ends, runtime);
        let _following = following.map_err(|error| StartError::of("certificates")(&error))?;
        tracing::info!(
            worker = settings.worker.name,
            service = settings.service.name,
            key = service_key.name_hash(),
            requests = broker.place,
            figures = %http.address(),
            "serving"
        );
        supervisor::serving("ready");
        let caretakers = [
            runtime.spawn(follow(Arc::clone(&health), Arc::clone(&pipeline))).abort_handle(),
            runtime.spawn(feed_watchdog(pipeline.pulse())).abort_handle(),
            runtime
                .spawn(network::watch(network.map.changes(), service_key.clone(), settings.limits.message_bytes_max))
                .abort_handle(),
        ];
        let changes = network.map.changes();
        let publishing =
            publication.map(|publication| publication::start(publication, settings, signer, changes, runtime));
        let _publishing = publishing.transpose()?;
        Ok(Self { pipeline, broker, http, health, caretakers, _network: network, _following, _publishing, service_key })
    }

    /// Where requests are taken, for people.
    pub fn place(&self) -> &str {
        &self.broker.place
    }

    /// Where the embedded endpoint listens, if that is the broker.
    pub fn amqp_address(&self) -> Option<SocketAddr> {
        self.broker.listening
    }

    /// Where figures are served.
    pub fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// The key that signs.
    pub fn service_key(&self) -> &PublicKey {
        &self.service_key
    }

    /// Takes no more requests, finishes those in the worker within `limit`, and ends. What is left stays with its sender. Returns
    /// whether everything finished.
    pub async fn stop(self, limit: Duration) -> bool {
        supervisor::stopping();
        self.health.drain();
        let drained = self.pipeline.drain(limit).await;
        self.broker.queue.close().await;
        self.caretakers.iter().for_each(AbortHandle::abort);
        self.pipeline.stop();
        drained
    }
}

/// Leaves the queue while the store or the key is lost, joins it when both work again, and tells systemd.
async fn follow(health: Arc<Health>, pipeline: Arc<Pipeline>) {
    let mut changes = health.changes();
    loop {
        // The first time for what was lost while the worker started.
        let Readiness { may_serve, .. } = *changes.borrow_and_update();
        pipeline.serve(may_serve);
        supervisor::status(&health.summary());
        if changes.changed().await.is_err() {
            return; // The sender lives in `health`, which this task holds.
        }
    }
}

/// Tells systemd's watchdog that the actors answer, as long as they do.
async fn feed_watchdog(pulse: Pulse) {
    let Some(pause) = supervisor::watchdog_pause() else { return };
    loop {
        if pulse().await {
            supervisor::alive();
        }
        tokio::time::sleep(pause).await;
    }
}

/// The messages that made earlier lives of this worker panic.
fn suspects(settings: &Settings) -> Result<Suspects, StartError> {
    let (failed, folder) = (StartError::of("worker.state"), &settings.worker.state);
    let named = |error: std::io::Error| failed(&format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(named)?;
    Suspects::open(&folder.join("suspects")).map_err(named)
}

/// An administrator of the shared broker that the settings name. It blocks, so it is not for a runtime's threads.
///
/// # Errors
/// [`StartError`] if the settings do not allow it, or the network material cannot be read.
pub fn broker_administrator(settings: &Settings, declared: Declared) -> Result<Box<dyn Administrator>, StartError> {
    broker::administrator(settings, network::load(settings)?.view(), declared)
}

/// The service key must be on the whitelist in force, or no client would accept a signature.
fn check_listed(service_key: &PublicKey, view: &NetworkView) -> Result<(), StartError> {
    let failed = StartError::of("network parameters");
    let Some(in_force) = view.parameters.current() else { return Err(failed(&"none are in force")) };
    match in_force.notaries.iter().find(|notary| notary.identity.owning_key == *service_key) {
        Some(notary) if notary.validating => {
            Err(failed(&format!("{} is listed as validating; this notary is not", notary.identity)))
        }
        Some(_) => Ok(()),
        None => Err(failed(&format!("the service key {} is not among the notaries", service_key.name_hash()))),
    }
}

/// Where messages for the holder of a key arrive (PROTOCOL b.1).
fn inbox(key: &PublicKey) -> String {
    format!("p2p.inbound.{}", key.name_hash())
}
