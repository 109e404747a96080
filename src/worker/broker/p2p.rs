//! The worker as a node among Corda nodes: its endpoint for them, and its bridges to them.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::credentials::{self, Key, Opened};
use super::super::{network, publication};
use super::{Broker, SECTIONS_BYTES_MAX, StartError, inbox};
use crate::broker::embedded::{self, Admission, Endpoint};
use crate::broker::peers::{self, Bridges, PeerQueue};
use crate::config::{Fault, KeyKind, Settings};
use crate::domain::{PublicKey, X500Name};
use crate::hsm::pkcs11;
use crate::ports::clock::SystemClock;
use crate::ports::finding::Finding;
use crate::ports::{NetworkMap, Probe, RequestQueue};
use crate::tls::peers::{Identity, PeerTls};

/// Requests that a node may have open on a link while answers do not reach it: enough to find out when they do.
const CREDIT_WHEN_STUCK: u32 = 2;

/// How long connections may stay, at least and at most, to see their deliveries through when the worker leaves: what the stages
/// take to give up, and what a client waits before it asks again.
const REST_MIN: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(30);

/// What can be checked without listening.
pub(super) fn preflight(settings: &Settings) -> Vec<Fault> {
    match believed(settings) {
        Ok(_) => Vec::new(),
        Err(error) => vec![Fault { key: error.part.into(), problem: error.reason }],
    }
}

/// Who the worker is to nodes, as its files say: a key on tokens is not opened, and signs nothing.
pub(in crate::worker) fn identity(settings: &Settings) -> Result<Identity, StartError> {
    let place = credentials::tls(settings);
    let Opened { key, chain } = place.open()?;
    let identity = match key {
        Key::Here(key) => Identity::from_private_key(chain, &key),
        Key::OnTokens(_) => credentials::identity_unopened(chain),
    };
    identity.map_err(|error| StartError::of(place.setting())(&error).misconfigured())
}

/// Who the worker is to nodes, perhaps but for its key.
pub(in crate::worker) enum Read {
    /// With its key.
    Ready(Identity),
    /// The key is on tokens that have to be opened.
    OnTokens(Unopened),
}

/// A chain whose key is on tokens.
pub(in crate::worker) struct Unopened {
    chain: Vec<Vec<u8>>,
    options: Box<pkcs11::Options>,
    key_setting: &'static str,
    setting: &'static str,
}

impl Unopened {
    /// Opens the tokens, and proves that they hold the key of the certificate.
    pub(in crate::worker) async fn open(self, runtime: &Handle) -> Result<Identity, StartError> {
        let key = credentials::open_tls_key(self.key_setting, *self.options, runtime).await?;
        let identity = credentials::identity_on_tokens(self.chain, key, runtime);
        identity.map_err(|error| StartError::of(self.setting)(&error).misconfigured())
    }
}

/// Reads who the worker is to nodes; `in_force` has a key that is open already. Blocks as long as fetching passphrases takes.
pub(in crate::worker) fn read_identity(
    settings: &Settings,
    service_key: &PublicKey,
    in_force: Option<&Identity>,
) -> Result<Read, StartError> {
    let place = credentials::tls(settings);
    let setting = place.setting();
    let wrong = |error| StartError::of(setting)(&error).misconfigured();
    let Opened { key, chain } = place.open()?;
    let certified = credentials::certified_key(&chain);
    check_apart(settings, certified.as_ref(), service_key)?;
    let identity = match key {
        Key::Here(key) => Identity::from_private_key(chain, &key),
        Key::OnTokens(options) => match in_force {
            Some(in_force) if credentials::certified_key(in_force.chain()) == certified => in_force.recertified(chain),
            _ => {
                // What can be known without the tokens comes first: they count wrong PINs.
                as_worker(settings, credentials::identity_unopened(chain.clone()).map_err(wrong)?)?;
                return Ok(Read::OnTokens(Unopened { chain, options, key_setting: place.key_setting(), setting }));
            }
        },
    };
    identity.map(Read::Ready).map_err(wrong)
}

/// The TLS key signs what other nodes have a say in, so it is no other key of the worker's.
fn check_apart(settings: &Settings, key: Option<&PublicKey>, service_key: &PublicKey) -> Result<(), StartError> {
    let own_key = publication::own_key(settings);
    let others = [("the service key", Some(service_key)), ("the worker's own identity key", own_key.as_ref())];
    let same = others.into_iter().find(|(_, other)| other.is_some() && *other == key);
    same.map_or(Ok(()), |(whose, _)| {
        let failed = StartError::of(credentials::tls(settings).setting());
        Err(failed(&format!("the certificate is for {whose}: TLS needs a key of its own")).misconfigured())
    })
}

/// TLS with nodes, as the worker.
pub(super) async fn tls(settings: &Settings, service_key: &PublicKey, runtime: &Handle) -> Result<PeerTls, StartError> {
    let (owned, key) = (settings.clone(), service_key.clone());
    let read = runtime.spawn_blocking(move || read_identity(&owned, &key, None)).await;
    let identity = match read.map_err(|error| StartError::of("p2p")(&error))?? {
        Read::Ready(identity) => identity,
        Read::OnTokens(unopened) => unopened.open(runtime).await?,
    };
    let tls = as_worker(settings, identity)?;
    match settings.p2p.tls_kind {
        KeyKind::File | KeyKind::KeyStore => Ok(tls),
        KeyKind::Pkcs11 => {
            let sessions = NonZeroUsize::new(settings.signing.sessions).unwrap_or(NonZeroUsize::MIN);
            tls.on_own_threads(sessions).map_err(|error| StartError::of("p2p")(&error))
        }
    }
}

/// Whether nodes would believe the worker, as far as its files tell.
fn believed(settings: &Settings) -> Result<PeerTls, StartError> {
    as_worker(settings, identity(settings)?)
}

fn as_worker(settings: &Settings, identity: Identity) -> Result<PeerTls, StartError> {
    let failed = StartError::of(credentials::tls(settings).setting());
    // A bridge sends only to a node whose certificate bears the first name of its node info.
    let worker = X500Name::parse(&settings.worker.name).map_err(|error| StartError::of("worker.name")(&error))?;
    if *identity.name() != worker {
        let problem = format!("it is that of {}, and the worker is {worker}", identity.name());
        return Err(failed(&problem).misconfigured());
    }
    let root = network::root(settings)?;
    PeerTls::new(root, identity, Arc::new(SystemClock)).map_err(|error| failed(&error).misconfigured())
}

/// Opens the endpoint, and makes the bridges.
pub(super) async fn open(
    settings: &Settings,
    service_key: &PublicKey,
    network_map: &Arc<dyn NetworkMap>,
    runtime: &Handle,
) -> Result<Broker, StartError> {
    let failed = StartError::of("p2p");
    let tls = tls(settings, service_key, runtime).await?;
    let bridges = bridges(settings, bridge_limits(settings), tls.clone(), network_map, runtime);
    let known = network_map.view().parties.get(tls.identity().name()).map(|party| party.owning_key.clone());
    // A new worker publishes its node info in a moment.
    let own_key = known.or_else(|| publication::own_key(settings));
    if own_key.is_none() {
        tracing::warn!(
            worker = settings.worker.name,
            "not in the network map: nodes do not find it, and what follows a confirm cannot reach it"
        );
    }
    let options = embedded::Settings {
        listen: settings.p2p.listen,
        worker_name: settings.worker.name.clone(),
        // Session starts go to the service, what follows to the worker that confirmed.
        addresses: [Some(service_key), own_key.as_ref()].into_iter().flatten().map(inbox).collect(),
        platform_version: settings.worker.platform_version.into(),
        limits: endpoint_limits(settings),
    };
    let endpoint = Endpoint::listen_for_nodes(options, &tls, admission(network_map, &bridges), runtime)
        .map_err(|error| failed(&error))?;
    let listening = endpoint.local_addr();
    let endpoint = Arc::new(endpoint);
    let probe: Arc<dyn Probe> = Arc::clone(&endpoint) as _;
    let queue = PeerQueue::new(endpoint, bridges, Arc::clone(network_map), runtime);
    let place = format!("amqps://{listening}");
    Ok(Broker {
        queue: Arc::new(queue) as Arc<dyn RequestQueue>,
        probe: Some(probe),
        place,
        peer_tls: Some(tls),
        listening: Some(listening),
    })
}

/// What nodes may take of the worker on the way out.
pub(super) fn bridge_limits(settings: &Settings) -> peers::Limits {
    let slots = settings.flow.slots;
    let usual = peers::Limits::default();
    let hold = Duration::from_millis(settings.p2p.answer_hold_ms);
    peers::Limits {
        bridges_max: settings.p2p.bridges_max,
        answer_hold: hold,
        retry_cap: (hold / 3).max(usual.retry_base),
        idle_timeout: Duration::from_millis(settings.p2p.bridge_idle_ms),
        // An answer that waits holds a slot: an eighth for one node, a quarter for all that are stuck, or slots are too few to share.
        answers_per_peer_max: usual.answers_per_peer_max.min((slots / 8).max(1)),
        answers_per_stuck_peer_max: usual.answers_per_stuck_peer_max.min((slots / 64).max(1)),
        answers_stuck_max: (slots / 4).max(1),
        ..usual
    }
}

/// The bridges that answers go out on.
pub(super) fn bridges(
    settings: &Settings,
    limits: peers::Limits,
    tls: PeerTls,
    network_map: &Arc<dyn NetworkMap>,
    runtime: &Handle,
) -> Arc<Bridges> {
    let platform_version = settings.worker.platform_version.into();
    Arc::new(Bridges::new(tls, Arc::clone(network_map), platform_version, limits, runtime))
}

/// Nodes of the network map are served as usual, those that answers do not reach only now and then, all others not at all.
fn admission(network_map: &Arc<dyn NetworkMap>, bridges: &Arc<Bridges>) -> Admission {
    let (network_map, bridges) = (Arc::clone(network_map), Arc::clone(bridges));
    Arc::new(move |name| match network_map.view().parties.contains_key(name) {
        false => 0,
        true if bridges.is_stuck(name) => CREDIT_WHEN_STUCK,
        true => u32::MAX,
    })
}

fn endpoint_limits(settings: &Settings) -> embedded::Limits {
    let p2p = &settings.p2p;
    embedded::Limits {
        message_bytes_max: settings.limits.message_bytes_max + SECTIONS_BYTES_MAX,
        link_credit: p2p.link_credit,
        connections_max: p2p.connections_max,
        handshakes_max: p2p.handshakes_max,
        // Several nodes may come from one address; a quarter leaves room for the others.
        handshakes_per_address_max: (p2p.handshakes_max / 4).max(1),
        handshake_timeout: Duration::from_millis(p2p.handshake_ms_max),
        // As long as a stopping worker lets accepted requests finish, within reason.
        rest_grace: Duration::from_millis(settings.worker.drain_ms_max).clamp(REST_MIN, REST_MAX),
        // A node has a bridge for the service and one for the worker, each with one link; twice that while it reconnects.
        connections_per_caller_max: 8,
        sessions_per_connection_max: 2,
        links_per_session_max: 8,
        ..embedded::Limits::default()
    }
}

/// Who the worker is to nodes, for `notary doctor`.
pub(in crate::worker) fn examine_identity(settings: &Settings) -> Finding {
    let subject = "p2p: TLS";
    match believed(settings) {
        Ok(tls) => Finding::good(subject, format!("{} is believed below the network's root", tls.identity().name())),
        Err(error) => Finding::fault(subject, error, "correct the section p2p, or have the certificate issued again"),
    }
}

/// The part of `notary doctor`: the certificate, and the address. `running` tells whether the worker is known to run.
pub(in crate::worker) fn examine(settings: &Settings, running: bool) -> Vec<Finding> {
    let mut findings = vec![examine_identity(settings)];
    findings.extend(embedded::examine_for_nodes(settings.p2p.listen, running));
    if settings.p2p.addresses.is_empty() {
        let advice = "name in p2p.addresses where nodes reach p2p.listen";
        findings.push(Finding::warning("p2p: addresses", "none are named for the node info", advice));
    }
    findings
}
