//! Which broker serves which setting.

mod p2p;
mod shared;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{StartError, inbox};
use crate::broker::embedded::{self, Caller, Credentials, Endpoint, SecretDigest};
use crate::config::{BrokerKind, Fault, Settings};
use crate::domain::network::NetworkView;
use crate::domain::{PublicKey, X500Name};
use crate::network::development;
use crate::ports::{NetworkMap, Probe, RequestQueue};
use crate::tls::peers::PeerTls;

#[cfg(test)]
pub(super) use self::p2p::identity as tls_identity_in_files;
pub(super) use self::p2p::{Read, examine as examine_p2p, examine_identity, read_identity};
pub use self::shared::Declared;
pub(super) use self::shared::administrator;

/// What AMQP sections around a body may take, in bytes: Corda's ten properties need about 600.
const SECTIONS_BYTES_MAX: usize = 65_536;

/// An open request queue.
pub(super) struct Broker {
    pub(super) queue: Arc<dyn RequestQueue>,
    pub(super) probe: Option<Arc<dyn Probe>>,
    /// Where requests come from, for people.
    pub(super) place: String,
    /// TLS with nodes, for identities that are renewed.
    pub(super) peer_tls: Option<PeerTls>,
    /// Where the worker's own endpoint listens.
    pub(super) listening: Option<SocketAddr>,
}

/// What can be checked without connecting.
pub(super) fn preflight(settings: &Settings, view: &NetworkView) -> Vec<Fault> {
    match settings.broker.kind {
        BrokerKind::Embedded => match credentials(settings, view) {
            Err(error) => vec![Fault { key: "broker.users".into(), problem: error.to_string() }],
            Ok(_) => Vec::new(),
        },
        BrokerKind::P2p => p2p::preflight(settings),
        BrokerKind::RabbitMq | BrokerKind::Artemis => shared::preflight(settings),
    }
}

/// Opens the request queue.
pub(super) async fn open(
    settings: &Settings,
    service_key: &PublicKey,
    network_map: &Arc<dyn NetworkMap>,
    runtime: &Handle,
) -> Result<Broker, StartError> {
    match settings.broker.kind {
        BrokerKind::Embedded => {
            let endpoint = listen(settings, service_key, &network_map.view(), runtime)?;
            let listening = endpoint.local_addr();
            let place = format!("amqp://{listening}");
            let queue = Arc::new(endpoint);
            let probe: Arc<dyn Probe> = Arc::clone(&queue) as Arc<dyn Probe>;
            Ok(Broker { queue, probe: Some(probe), place, peer_tls: None, listening: Some(listening) })
        }
        BrokerKind::P2p => p2p::open(settings, service_key, network_map, runtime).await,
        BrokerKind::RabbitMq => shared::open_rabbitmq(settings, network_map, runtime).await,
        BrokerKind::Artemis => shared::open_artemis(settings, service_key, network_map, runtime).await,
    }
}

/// Who may connect to the embedded endpoint: users who are parties of the network, each with its own inbox.
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
