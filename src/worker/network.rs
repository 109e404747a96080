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
    Certificate, HISTORIC_PARAMETERS, Library, LiveNetworkMap, NODE_INFOS, PARAMETERS, PARAMETERS_UPDATE, ROOT,
    Snapshot, Sources, read_root,
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

/// Starts following the network's material.
pub(super) async fn open(settings: &Settings, runtime: &Handle) -> Result<Arc<LiveNetworkMap>, StartError> {
    let failed = StartError::of("network");
    let (owned, pause) = (settings.clone(), Duration::from_millis(settings.network.reload_ms));
    // Not on this thread: ten thousand participants take ten seconds.
    let loaded = runtime.spawn_blocking(move || load(&owned)).await;
    let library = loaded.map_err(|error| failed(&error))??;
    let map = LiveNetworkMap::start(library, Arc::new(SystemClock), pause).map_err(|error| failed(&error))?;
    Ok(Arc::new(map))
}

/// The trust root.
pub(super) fn root(settings: &Settings) -> Result<Certificate, StartError> {
    let file = part(settings, &settings.network.root, ROOT);
    read_root(&file).map_err(|error| StartError::of("network")(&error))
}

/// Where everything else lies.
fn sources(settings: &Settings) -> Sources {
    let network = &settings.network;
    Sources {
        parameters: vec![part(settings, &network.parameters, PARAMETERS)],
        parameters_updates: vec![part(settings, &network.parameters_update, PARAMETERS_UPDATE)],
        historic_parameters: vec![part(settings, &network.historic_parameters, HISTORIC_PARAMETERS)],
        node_infos: vec![part(settings, &network.node_infos, NODE_INFOS)],
        archive: Some(settings.worker.state.join(HISTORIC_PARAMETERS)),
    }
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
