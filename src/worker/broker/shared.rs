//! Shared brokers as the settings describe them: how a worker uses RabbitMQ or Artemis, and what `notary broker` declares on either kind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::{StartError, inbox};
use super::{Broker, SECTIONS_BYTES_MAX, p2p};
use crate::broker::admin::{Administrator, CallerAccount, Service, WorkerAccount};
use crate::broker::artemis::admin::ArtemisAdmin;
use crate::broker::artemis::{self, Artemis, Inboxes};
use crate::broker::callers::Callers;
use crate::broker::names::Names;
use crate::broker::peers::{self, PeerQueue};
use crate::broker::rabbitmq::admin::{Management, RabbitMqAdmin};
use crate::broker::rabbitmq::{self, RabbitMq};
use crate::config::{BrokerKind, Fault, SecretRef, Senders, Settings};
use crate::domain::network::NetworkView;
use crate::domain::{PublicKey, X500Name};
use crate::ports::{NetworkMap, Probe, RequestQueue};
use crate::tls::TlsFiles;

/// As good as at once.
const GIVEN_BACK_AFTER: Duration = Duration::from_millis(1);

/// Whom `notary broker` is to declare besides the users that the file of callers names.
#[derive(Clone, Default, Debug)]
pub struct Declared {
    /// Also every party of the network map that is no notary, as a broker user of the party's name.
    pub all_parties: bool,
    /// The folder with users' passwords; without it no user is created.
    pub secrets: Option<PathBuf>,
}

/// What can be checked of a shared broker's settings without connecting.
pub(super) fn preflight(settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |key: &str, problem: String| faults.push(Fault { key: key.into(), problem });
    let checked = match settings.broker.kind {
        BrokerKind::Artemis => artemis_options(settings).map(|options| options.check()),
        _ => rabbitmq_options(settings).map(|options| options.check()),
    };
    match checked {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => fault("broker.hosts", problem),
        Err(error) => fault("worker.name", error.to_string()),
    }
    if !settings.broker.user.is_empty()
        && let Err(error) = settings.broker.password.fetch()
    {
        fault("broker.password", error.to_string());
    }
    if let Some(files) = tls(settings)
        && let Err(error) = files.client()
    {
        fault("broker.tls_ca", error.to_string());
    }
    if settings.broker.senders == Senders::Peers {
        faults.extend(p2p::preflight(settings));
    } else if let Err(error) = Callers::load(&settings.broker.callers) {
        fault("broker.callers", error.to_string());
    }
    faults
}

/// Connects a worker to RabbitMQ.
pub(super) async fn open_rabbitmq(
    settings: &Settings,
    network_map: &Arc<dyn NetworkMap>,
    runtime: &Handle,
) -> Result<Broker, StartError> {
    let failed = StartError::of("broker");
    let options = rabbitmq_options(settings)?;
    let callers = Callers::load(&settings.broker.callers).map_err(|error| failed(&error))?;
    let place = format!("rabbitmq at {}, queue {}", settings.broker.hosts, options.names.requests);
    let opened = RabbitMq::open(options, callers, Arc::clone(network_map), runtime).await;
    let queue = Arc::new(opened.map_err(|error| failed(&error))?);
    let probe = Arc::clone(&queue) as Arc<dyn Probe>;
    Ok(Broker { queue: queue as Arc<dyn RequestQueue>, probe: Some(probe), place, peer_tls: None, listening: None })
}

/// Connects a worker to Artemis.
pub(super) async fn open_artemis(
    settings: &Settings,
    service_key: &PublicKey,
    network_map: &Arc<dyn NetworkMap>,
    runtime: &Handle,
) -> Result<Broker, StartError> {
    let failed = StartError::of("broker");
    let options = artemis_options(settings)?;
    if settings.broker.senders == Senders::Peers {
        return open_artemis_for_peers(settings, options, service_key, network_map, runtime).await;
    }
    let callers = Callers::load(&settings.broker.callers).map_err(|error| failed(&error))?;
    let place = format!("artemis at {}, queue {}", settings.broker.hosts, options.names.requests);
    let opened = Artemis::open(options, callers, Arc::clone(network_map), runtime).await;
    let queue = Arc::new(opened.map_err(|error| failed(&error))?);
    let probe = Arc::clone(&queue) as Arc<dyn Probe>;
    Ok(Broker { queue: queue as Arc<dyn RequestQueue>, probe: Some(probe), place, peer_tls: None, listening: None })
}

/// The same where Corda nodes send: requests come from Artemis, answers go out on bridges to the nodes' own brokers.
async fn open_artemis_for_peers(
    settings: &Settings,
    mut options: artemis::Options,
    service_key: &PublicKey,
    network_map: &Arc<dyn NetworkMap>,
    runtime: &Handle,
) -> Result<Broker, StartError> {
    let failed = StartError::of("broker");
    // Nodes send what follows a confirm to the worker that they find in their map.
    let worker = worker_name(settings)?;
    let own = network_map.view().parties.get(&worker).map(|party| inbox(&party.owning_key));
    let own = own.ok_or_else(|| failed(&format!("{worker} is not in the network map: nodes would not find it")))?;
    let inboxes = Inboxes { service: inbox(service_key), worker: own };
    let place = format!("artemis at {}, queues {} and {}", settings.broker.hosts, inboxes.service, inboxes.worker);
    options.inboxes = Some(inboxes);
    // What cannot be answered is given back at once: the broker pauses before it delivers again, and holds no place of ours for it.
    let limits =
        peers::Limits { release_base: GIVEN_BACK_AFTER, release_cap: GIVEN_BACK_AFTER, ..p2p::bridge_limits(settings) };
    let tls = p2p::tls(settings, service_key, runtime).await?;
    let bridges = p2p::bridges(settings, limits, tls.clone(), network_map, runtime);
    let opened = Artemis::open(options, Callers::default(), Arc::clone(network_map), runtime).await;
    let artemis = Arc::new(opened.map_err(|error| failed(&error))?);
    let probe = Arc::clone(&artemis) as Arc<dyn Probe>;
    let queue = PeerQueue::new(artemis, bridges, Arc::clone(network_map), runtime);
    Ok(Broker {
        queue: Arc::new(queue) as Arc<dyn RequestQueue>,
        probe: Some(probe),
        place,
        peer_tls: Some(tls),
        listening: None,
    })
}

fn artemis_options(settings: &Settings) -> Result<artemis::Options, StartError> {
    let broker = &settings.broker;
    let access = artemis::Access {
        hosts: hosts(settings),
        user: broker.user.clone(),
        password: password(&broker.password),
        tls: tls(settings),
        silence_max: Duration::from_millis(broker.silence_ms_max),
        name: settings.worker.name.clone(),
    };
    let place = artemis::Place {
        prefix: broker.prefix.clone(),
        worker: worker_name(settings)?,
        platform_version: settings.worker.platform_version.into(),
    };
    let mut options = artemis::Options::new(access, &place);
    options.slots = settings.flow.slots;
    options.message_bytes_max = settings.limits.message_bytes_max + SECTIONS_BYTES_MAX;
    options.deliveries_max = broker.deliveries_max;
    options.reply_hold = Duration::from_millis(broker.reply_hold_ms);
    options.reconnect_cap = Duration::from_millis(broker.reconnect_cap_ms);
    Ok(options)
}

fn rabbitmq_options(settings: &Settings) -> Result<rabbitmq::Options, StartError> {
    let broker = &settings.broker;
    let worker = worker_name(settings)?;
    Ok(rabbitmq::Options {
        access: rabbitmq::Access {
            hosts: hosts(settings),
            vhost: broker.vhost.clone(),
            user: broker.user.clone(),
            password: password(&broker.password),
            tls: tls(settings),
            silence_max: Duration::from_millis(broker.silence_ms_max),
            name: settings.worker.name.clone(),
        },
        names: Names::new(&broker.prefix, &worker),
        platform_version: settings.worker.platform_version.into(),
        slots: settings.flow.slots,
        message_bytes_max: settings.limits.message_bytes_max,
        held_bytes_max: rabbitmq::Options::HELD_BYTES_MAX,
        deliveries_max: broker.deliveries_max,
        reply_hold: Duration::from_millis(broker.reply_hold_ms),
        reconnect_cap: Duration::from_millis(broker.reconnect_cap_ms),
    })
}

/// An administrator of the broker that the settings name, for the service, this worker and its callers.
///
/// # Errors
/// [`StartError`] if the settings do not allow it, or the broker is the embedded endpoint.
pub(in crate::worker) fn administrator(
    settings: &Settings,
    view: &NetworkView,
    declared: Declared,
) -> Result<Box<dyn Administrator>, StartError> {
    let failed = StartError::of("broker");
    let broker = &settings.broker;
    let service = service(settings, view, declared)?;
    let administered_with = || -> Result<_, StartError> {
        if broker.management_user.is_empty() {
            return Err(failed(&"broker.management_user is empty: name an administrator"));
        }
        broker.management_password.fetch().map_err(|error| StartError::of("broker.management_password")(&error))
    };
    match broker.kind {
        BrokerKind::P2p => Err(failed(&"the endpoint for nodes has nothing to declare").misconfigured()),
        BrokerKind::Embedded => Err(failed(&"the embedded endpoint has nothing to declare").misconfigured()),
        BrokerKind::RabbitMq => {
            let management = Management {
                url: broker.management.clone(),
                user: broker.management_user.clone(),
                password: administered_with()?,
                tls: tls(settings),
            };
            let admin = RabbitMqAdmin::new(&management, &broker.vhost, service);
            Ok(Box::new(admin.map_err(|error| failed(&error).misconfigured())?))
        }
        BrokerKind::Artemis => {
            administered_with()?;
            let access = artemis::Access {
                hosts: hosts(settings),
                user: broker.management_user.clone(),
                password: password(&broker.management_password),
                tls: tls(settings),
                silence_max: Duration::from_millis(broker.silence_ms_max),
                name: "notary broker".into(),
            };
            let admin = ArtemisAdmin::new(access, service);
            Ok(Box::new(admin.map_err(|error| failed(&error).misconfigured())?))
        }
    }
}

/// The service's queues and users as the settings, the file of callers and the network map have them.
fn service(settings: &Settings, view: &NetworkView, declared: Declared) -> Result<Service, StartError> {
    let broker = &settings.broker;
    let worker = worker_name(settings)?;
    let inbox_of = |party: &X500Name| view.parties.get(party).map(|party| inbox(&party.owning_key));
    let account = WorkerAccount { inbox: inbox_of(&worker), name: worker.clone(), user: broker.user.clone() };
    if broker.senders == Senders::Peers {
        let workers = vec![account];
        let inbox = Some(inbox(&service_key(settings, view)?));
        let (prefix, secrets) = (broker.prefix.clone(), declared.secrets);
        return Ok(Service { prefix, workers, callers: Vec::new(), inbox, secrets });
    }
    let workers = vec![account];
    let callers = Callers::load(&broker.callers).map_err(|error| StartError::of("broker.callers")(&error))?;
    let account = |user: &str, party: &X500Name| CallerAccount { user: user.to_owned(), inbox: inbox_of(party) };
    let mut accounts: Vec<CallerAccount> = callers.users().map(|(user, party)| account(user, party)).collect();
    if declared.all_parties {
        let notaries = view.parameters.current().map_or(&[][..], |parameters| &parameters.notaries);
        let is_caller = |name: &&X500Name| {
            **name != worker
                && !notaries.iter().any(|notary| notary.identity.name == **name)
                && !callers.users().any(|(_, party)| party == *name)
        };
        let mut others: Vec<&X500Name> = view.parties.keys().filter(is_caller).collect();
        others.sort();
        accounts.extend(others.into_iter().map(|party| account(&party.to_string(), party)));
    }
    Ok(Service { prefix: broker.prefix.clone(), workers, callers: accounts, inbox: None, secrets: declared.secrets })
}

/// The key that the network parameters give for the service.
fn service_key(settings: &Settings, view: &NetworkView) -> Result<PublicKey, StartError> {
    let failed = StartError::of("service.name");
    let name = X500Name::parse(&settings.service.name).map_err(|error| failed(&error))?;
    let notaries = view.parameters.current().map_or(&[][..], |parameters| &parameters.notaries);
    let listed = notaries.iter().find(|notary| notary.identity.name == name);
    listed
        .map(|notary| notary.identity.owning_key.clone())
        .ok_or_else(|| failed(&format!("{name} is not among the notaries of the network parameters")).misconfigured())
}

fn worker_name(settings: &Settings) -> Result<X500Name, StartError> {
    X500Name::parse(&settings.worker.name).map_err(|error| StartError::of("worker.name")(&error))
}

fn hosts(settings: &Settings) -> Vec<String> {
    let hosts = settings.broker.hosts.split(',').map(str::trim).filter(|host| !host.is_empty());
    hosts.map(str::to_owned).collect()
}

fn tls(settings: &Settings) -> Option<TlsFiles> {
    let broker = &settings.broker;
    TlsFiles::configured(&broker.tls_ca, &broker.tls_certificate, &broker.tls_key)
}

/// Fetched anew whenever it is needed (F33).
fn password(secret: &SecretRef) -> rabbitmq::Password {
    let secret = secret.clone();
    Arc::new(move || secret.fetch().map_err(|error| error.to_string()))
}
