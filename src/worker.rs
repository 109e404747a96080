//! The only place where ports meet adapters: builds a worker from its settings, runs it, drains it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::task::AbortHandle;

use crate::actors::pipeline::{Core, CoreLimits, CoreParts, Pipeline, PipelineParts};
use crate::actors::signing::SigningKey;
use crate::actors::suspects::Suspects;
use crate::broker::embedded::{self, Caller, Credentials, Endpoint, SecretDigest};
use crate::config::{BrokerKind, Fault, Faults, LogFormat, Settings, SignerKind, StoreKind};
use crate::domain::check::CheckPolicy;
use crate::domain::network::NetworkView;
use crate::domain::{PublicKey, X500Name};
use crate::hsm::file_key::FileKey;
use crate::network::{FileNetworkMap, development};
use crate::observe;
use crate::observe::health::{Health, Readiness};
use crate::observe::http::{Http, Pulse};
use crate::observe::metrics::Exporter;
use crate::observe::supervisor;
use crate::ports::clock::SystemClock;
use crate::ports::{Clock, NetworkMap, Probe, RequestQueue, Signer, UniquenessProvider};
use crate::sql::embedded::{Embedded, Options as StoreOptions};
use crate::stages::session::Notary;
use crate::stages::{Backoff, signing, uniqueness};
use crate::wire::{self, CordaSignedForm};

/// What AMQP sections around a body may take, in bytes: Corda's ten properties need about 600.
const SECTIONS_BYTES_MAX: usize = 65_536;

/// Why a worker does not start; nothing was answered.
#[derive(Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct StartError {
    part: &'static str,
    reason: String,
}

impl StartError {
    fn of(part: &'static str) -> impl Fn(&dyn core::fmt::Display) -> Self {
        move |reason| Self { part, reason: reason.to_string() }
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
    let mut fault = |key: &str, problem: String| faults.push(Fault { key: key.into(), problem });
    if let Err(error) = settings.signing.passphrase.fetch() {
        fault("signing.passphrase", error.to_string());
    } else if let Err(error) = open_key(settings) {
        fault("signing.key", error.to_string());
    }
    match load_network(settings) {
        Ok(network) => {
            if let Err(error) = credentials(settings, &network.view()) {
                fault("broker.users", error.to_string());
            }
        }
        Err(error) => fault("network.dir", error.to_string()),
    }
    faults
}

fn open_key(settings: &Settings) -> Result<FileKey, StartError> {
    let failed = StartError::of("service key");
    match settings.signing.kind {
        SignerKind::File => {
            let passphrase = settings.signing.passphrase.fetch().map_err(|error| failed(&error))?;
            FileKey::load(&settings.signing.key, &passphrase, signing_threads(settings)).map_err(|error| failed(&error))
        }
    }
}

/// Opens the store that the settings name. The worker never makes one: with a wrong path it would begin to forget.
///
/// # Errors
/// [`StartError`] with the reason.
pub fn open_store(settings: &Settings, create: bool) -> Result<Embedded, StartError> {
    let failed = StartError::of("store");
    let worker = X500Name::parse(&settings.worker.name).map_err(|error| failed(&error))?;
    match settings.store.kind {
        StoreKind::Embedded => {
            let options =
                StoreOptions { cache_bytes_max: settings.store.cache_bytes_max, create, ..StoreOptions::new(worker) };
            Embedded::open(&settings.store.path, options).map_err(|error| failed(&error))
        }
    }
}

/// A running worker.
pub struct Worker {
    pipeline: Arc<Pipeline>,
    endpoint: Arc<Endpoint>,
    http: Http,
    health: Arc<Health>,
    caretakers: [AbortHandle; 2],
    service_key: PublicKey,
}

impl Worker {
    /// Starts a worker; it serves when this returns. I/O and CPU work run on `runtime`.
    ///
    /// # Errors
    /// [`StartError`] names the part that is missing, in use or wrong.
    pub async fn start(settings: &Settings, runtime: &Handle) -> Result<Self, StartError> {
        let suspects = suspects(settings)?;
        let signer = Arc::new(open_key(settings)?);
        let service_key = signer.public_key().clone();
        let network_map = Arc::new(load_network(settings)?);
        check_listed(&service_key, &network_map.view())?;
        let store = Arc::new(open_store(settings, false)?);
        let endpoint = Arc::new(listen(settings, &service_key, &network_map.view(), runtime)?);

        let policy = CheckPolicy { service_key: service_key.clone(), states_limit: settings.service.states_limit };
        let limits = wire::Limits { message_bytes_max: settings.limits.message_bytes_max, ..wire::Limits::DEFAULT };
        let platform_version = i32::from(settings.worker.platform_version);
        let core = CoreParts {
            uniqueness: Arc::clone(&store) as Arc<dyn UniquenessProvider>,
            key: SigningKey {
                signer: Arc::clone(&signer) as Arc<dyn Signer>,
                form: Arc::new(CordaSignedForm),
                platform_version,
            },
            clock: Arc::new(SystemClock),
            limits: core_limits(settings),
        };
        let core = Core::start(core, runtime).map_err(|error| StartError::of("actors")(&error))?;
        let parts = PipelineParts {
            notary: Arc::new(Notary::new(policy, limits, platform_version, settings.worker.name.clone())),
            queue: Arc::clone(&endpoint) as Arc<dyn RequestQueue>,
            network_map,
            suspects: Arc::new(suspects),
            flow_slots: settings.flow.slots,
        };
        let pipeline = Arc::new(Pipeline::start(core, parts, runtime));
        // Before the parts are watched, or nobody would hear that they work.
        let exporter = Exporter::install(pipeline.gauges()).map_err(|error| StartError::of("figures")(&error))?;
        let probes: Vec<Arc<dyn Probe>> = vec![store, Arc::clone(&endpoint) as _, signer];
        let health = Arc::new(Health::watch(probes, runtime));
        let http = Http::start(settings.observe.listen, exporter, Arc::clone(&health), pipeline.pulse(), runtime)
            .await
            .map_err(|error| StartError::of("observe.listen")(&format!("{}: {error}", settings.observe.listen)))?;
        tracing::info!(
            worker = settings.worker.name,
            service = settings.service.name,
            key = service_key.name_hash(),
            amqp = %endpoint.local_addr(),
            figures = %http.address(),
            "serving"
        );
        supervisor::serving("ready");
        let caretakers = [
            runtime.spawn(follow(Arc::clone(&health), Arc::clone(&pipeline))).abort_handle(),
            runtime.spawn(feed_watchdog(pipeline.pulse())).abort_handle(),
        ];
        Ok(Self { pipeline, endpoint, http, health, caretakers, service_key })
    }

    /// Where requests are taken.
    pub fn amqp_address(&self) -> SocketAddr {
        self.endpoint.local_addr()
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
        self.endpoint.close().await;
        self.caretakers.iter().for_each(AbortHandle::abort);
        self.pipeline.stop();
        drained
    }
}

/// Leaves the queue while the store or the key is lost, joins it when both work again, and tells systemd.
async fn follow(health: Arc<Health>, pipeline: Arc<Pipeline>) {
    let mut changes = health.changes();
    // The sender lives in `health`, which this task holds.
    while changes.changed().await.is_ok() {
        let Readiness { may_serve, .. } = *changes.borrow_and_update();
        pipeline.serve(may_serve);
        supervisor::status(&health.summary());
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

/// Reads the network material; a file that does not verify is left out and named in the log.
fn load_network(settings: &Settings) -> Result<FileNetworkMap, StartError> {
    let network = FileNetworkMap::load(&settings.network.dir, SystemClock.now())
        .map_err(|error| StartError::of("network")(&format!("{}: {error}", settings.network.dir.display())))?;
    for problem in network.problems() {
        tracing::warn!(file = problem.file, error = %problem.error, "network material left out");
    }
    Ok(network)
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

/// Who may connect: users who are parties of the network, each with its own inbox.
fn credentials(settings: &Settings, view: &NetworkView) -> Result<Credentials, StartError> {
    let failed = StartError::of("broker.users");
    let mut credentials = Credentials::default();
    for user in development::read_sasl_users(&settings.broker.users).map_err(|error| failed(&error))? {
        let text = user.name.to_string();
        let Some(party) = view.parties.get(&user.name) else {
            tracing::warn!(user = text, "not in the network map: cannot connect");
            continue;
        };
        let digest = SecretDigest::parse(&user.secret_digest)
            .ok_or_else(|| failed(&format!("the digest of {text} is damaged")))?;
        let caller = Caller { name: user.name, reply_address: inbox(&party.owning_key) };
        credentials.add(&text, digest, caller).map_err(|error| failed(&error))?;
    }
    Ok(credentials)
}

fn listen(
    settings: &Settings,
    service_key: &PublicKey,
    view: &NetworkView,
    runtime: &Handle,
) -> Result<Endpoint, StartError> {
    let failed = StartError::of("broker");
    match settings.broker.kind {
        BrokerKind::Embedded => {
            let worker = X500Name::parse(&settings.worker.name).map_err(|error| failed(&error))?;
            let own_key = view.parties.get(&worker).map(|party| &party.owning_key);
            let options = embedded::Settings {
                listen: settings.broker.listen,
                worker_name: settings.worker.name.clone(),
                // Session starts go to the service, what follows to the worker that confirmed.
                addresses: [Some(service_key), own_key].into_iter().flatten().map(inbox).collect(),
                platform_version: settings.worker.platform_version.into(),
                limits: embedded::Limits {
                    message_bytes_max: settings.limits.message_bytes_max + SECTIONS_BYTES_MAX,
                    link_credit: settings.broker.link_credit,
                    connections_max: settings.broker.connections_max,
                    reply_hold: Duration::from_millis(settings.broker.reply_hold_ms),
                    ..embedded::Limits::default()
                },
            };
            let credentials = Arc::new(credentials(settings, view)?);
            Endpoint::listen(options, credentials, runtime).map_err(|error| failed(&error))
        }
    }
}
