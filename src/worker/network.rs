//! Where the network's material lies, as the settings say, and what the worker does about its changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{StartError, check_listed};
use crate::config::Settings;
use crate::domain::PublicKey;
use crate::network::{
    Cache, Certificate, HISTORIC_PARAMETERS, HttpMap, Library, LiveNetworkMap, LoadError, MapOptions, NODE_INFOS, Node,
    PARAMETERS, PARAMETERS_UPDATE, Poller, Polling, ROOT, Snapshot, Sources, read_root, read_trust_store,
};
use crate::observe::network as figures;
use crate::ports::Clock;
use crate::ports::clock::SystemClock;

/// Reads and verifies the network's material as it lies on disk; changes nothing, and asks nobody. Blocks for about a millisecond a
/// participant.
///
/// # Errors
/// [`StartError`] if there are no parameters in force, or the root or a folder cannot be read.
pub fn load(settings: &Settings) -> Result<Library, StartError> {
    let failed = |error: &dyn core::fmt::Display| {
        StartError::of("network")(&format!("{}: {error}", settings.network.dir.display()))
    };
    Library::open(root(settings)?, sources(settings), SystemClock.now()).map_err(|error| failed(&error))
}

/// The network's material, followed as long as this lives.
pub(super) struct Network {
    pub(super) map: Arc<LiveNetworkMap>,
    /// Asks the HTTP network map, if there is one.
    _polling: Option<Polling>,
}

/// Starts following the network's material.
pub(super) async fn open(settings: &Settings, runtime: &Handle) -> Result<Network, StartError> {
    let failed = StartError::of("network");
    let (owned, pause) = (settings.clone(), Duration::from_millis(settings.network.reload_ms));
    // Not on this thread: ten thousand participants take ten seconds, and the HTTP network map may be slow.
    let loaded = runtime.spawn_blocking(move || load_or_ask(&owned)).await;
    let (library, poller) = loaded.map_err(|error| failed(&error))??;
    let map = LiveNetworkMap::start(library, Arc::new(SystemClock), pause).map_err(|error| failed(&error))?;
    let pause = Duration::from_millis(settings.network.poll_ms);
    let polling = poller.map(|poller| Polling::start(poller, pause, map.waker())).transpose();
    Ok(Network { map: Arc::new(map), _polling: polling.map_err(|error| failed(&error))? })
}

/// What lies on disk; a worker that has no network parameters yet asks the HTTP network map for them first.
fn load_or_ask(settings: &Settings) -> Result<(Library, Option<Poller>), StartError> {
    let mut poller = poller(settings)?;
    match (load(settings), &mut poller) {
        (Err(error), Some(poller)) => {
            tracing::info!(%error, "no network on disk that can be used: asking the HTTP network map");
            poller.first().map_err(|error| StartError::of("network.url")(&error))?;
        }
        (Err(error), None) => return Err(error),
        (Ok(library), _) => return Ok((library, poller)),
    }
    Ok((load(settings)?, poller))
}

/// Who asks the HTTP network map, if there is one.
fn poller(settings: &Settings) -> Result<Option<Poller>, StartError> {
    let Some(map) = http_map(settings)? else { return Ok(None) };
    Ok(Some(Poller::new(map, root(settings)?, cache(settings), Arc::new(SystemClock))))
}

/// The HTTP network map, if there is one. Nothing is connected.
pub(super) fn http_map(settings: &Settings) -> Result<Option<HttpMap>, StartError> {
    let network = &settings.network;
    if network.url.is_empty() {
        return Ok(None);
    }
    let options = MapOptions {
        url: network.url.clone(),
        authorities: Some(network.tls_ca.clone()).filter(|file| !file.as_os_str().is_empty()),
        platform_version: settings.worker.platform_version,
        deadline: MapOptions::DEADLINE,
    };
    Ok(Some(HttpMap::new(&options).map_err(|error| StartError::of("network.tls_ca")(&error).misconfigured())?))
}

/// The folder of the worker's own node info, as it was published last.
pub(super) fn own_node_infos(settings: &Settings) -> PathBuf {
    settings.worker.state.join("own-node-info")
}

/// Tells whether the HTTP network map listed a node info when it was asked last.
pub(super) fn listing(settings: &Settings) -> impl Fn(&Node) -> bool + Send + 'static {
    let cache = cache(settings);
    move |node| cache.node_info(&node.hash).exists()
}

/// Where answers of the HTTP network map are kept.
fn cache(settings: &Settings) -> Cache {
    Cache::new(settings.worker.state.join("network-map"))
}

/// The trust root.
pub(super) fn root(settings: &Settings) -> Result<Certificate, StartError> {
    let (file, secret) = (root_file(settings), &settings.network.root_passphrase);
    let failed = |error: LoadError| StartError::of("network.root")(&error);
    match read_root(&file) {
        Err(LoadError::NotPem(_)) if secret.is_configured() => {
            let passphrase = secret.fetch().map_err(|error| StartError::of("network.root_passphrase")(&error))?;
            read_trust_store(&file, &passphrase).map_err(|error| failed(error).misconfigured())
        }
        Err(error @ LoadError::NotPem(_)) => Err(StartError::of("network.root_passphrase")(&error).misconfigured()),
        read => read.map_err(failed),
    }
}

/// Where the trust root lies.
pub(super) fn root_file(settings: &Settings) -> PathBuf {
    part(settings, &settings.network.root, ROOT)
}

/// Where the parameters in force may lie; the first that can be believed are.
pub(super) fn parameters_files(settings: &Settings) -> Vec<PathBuf> {
    sources(settings).parameters
}

/// Where everything else lies.
fn sources(settings: &Settings) -> Sources {
    let network = &settings.network;
    let mut sources = Sources {
        parameters: vec![part(settings, &network.parameters, PARAMETERS)],
        parameters_updates: vec![part(settings, &network.parameters_update, PARAMETERS_UPDATE)],
        historic_parameters: vec![part(settings, &network.historic_parameters, HISTORIC_PARAMETERS)],
        node_infos: vec![part(settings, &network.node_infos, NODE_INFOS)],
        archive: Some(settings.worker.state.join(HISTORIC_PARAMETERS)),
    };
    // What the worker published itself, so that it knows its own address whatever others have written down.
    sources.node_infos.push(own_node_infos(settings));
    if !network.url.is_empty() {
        let cache = cache(settings);
        // The map's word goes before that of files.
        sources.parameters.insert(0, cache.parameters());
        sources.parameters_updates.push(cache.parameters_update());
        sources.node_infos.push(cache.node_infos());
    }
    sources
}

/// A part of the material: where its own setting says, or in the folder of all.
fn part(settings: &Settings, own: &Path, name: &str) -> PathBuf {
    match own.as_os_str().is_empty() {
        true => settings.network.dir.join(name),
        false => own.to_owned(),
    }
}

/// Says what changed material means for this service. Requests are judged by the new material whatever it says.
pub(super) async fn watch(mut changes: watch::Receiver<Snapshot>, service_key: PublicKey, message_bytes_max: usize) {
    loop {
        let view = Arc::clone(&changes.borrow_and_update().view);
        let listed = check_listed(&service_key, &view);
        figures::lists_service(listed.is_ok());
        if let Err(error) = listed {
            tracing::error!(%error, "no client will believe this service under the network parameters in force");
        }
        let allowed = view.parameters.current().map_or(0, |parameters| parameters.max_message_size.max(0) as usize);
        if allowed > message_bytes_max {
            tracing::warn!(
                allowed,
                message_bytes_max,
                "the network parameters allow larger messages than limits.message_bytes_max: such requests would be refused"
            );
        }
        if changes.changed().await.is_err() {
            return; // The map ended, and so does the worker.
        }
    }
}
