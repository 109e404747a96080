//! Makes the worker's own node info known: signed once for each change of what it says, written where the settings say, and handed
//! in at the HTTP network map.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::StartError;
use super::network;
use crate::config::{Fault, Settings};
use crate::domain::{PublicKey, Timestamp};
use crate::hsm::FileKey;
use crate::keys::file;
use crate::network::registration::parse_address;
use crate::network::{Certificate, Description, HttpMap, Node, Snapshot, replace, verify_node_info};
use crate::ports::clock::SystemClock;
use crate::ports::{Clock, Signer};
use crate::tls::peers::read_chain;

/// How long a map may take to list what it was handed in, before it is handed in again. Corda's nodes do so once a day.
const LISTED_WITHIN: Duration = Duration::from_secs(3_600);
/// Bytes of our own node info.
const NODE_INFO_LEN_MAX: u64 = 64 * 1024;

/// What publishing came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// The signed node info, as others read it.
    pub node: Node,
    /// Whether it is a new version.
    pub is_new: bool,
    /// Files that were written or found up to date.
    pub files: Vec<PathBuf>,
    /// The map that took it.
    pub map: Option<String>,
}

/// Everything that publishing needs, but for the service key.
pub(super) struct Publication {
    description: Description,
    own: Arc<dyn Signer>,
    root: Certificate,
    /// The first is the worker's own memory of what it published.
    files: Vec<PathBuf>,
    map: Option<(HttpMap, String)>,
}

/// Publishes once.
///
/// # Errors
/// [`StartError`]: a certificate, a key, a folder or the map is not as it should be, or nothing is configured.
pub async fn publish(settings: &Settings, runtime: &Handle) -> Result<Published, StartError> {
    let key = super::key::open(settings, runtime).await?;
    let (owned, handle) = (settings.clone(), runtime.clone());
    // Reads files, and may ask the map.
    let published = runtime.spawn_blocking(move || {
        let failed = StartError::of("identity.certificate");
        let publication = prepare(&owned)?.ok_or_else(|| failed(&"names no file: there is nothing to publish"))?;
        let library = network::load(&owned)?;
        publication.publish(&*key.signer, library.nodes(), &handle)
    });
    published.await.map_err(|error| StartError::of("identity")(&error))?
}

/// Keeps the worker's node info published while this lives.
pub(super) struct Publishing {
    _stop: SyncSender<()>,
}

/// Reads what publishing needs, if the settings ask for it.
pub(super) async fn open(settings: &Settings, runtime: &Handle) -> Result<Option<Publication>, StartError> {
    let owned = settings.clone();
    // Unlocking a key takes 0.1 s.
    let prepared = runtime.spawn_blocking(move || prepare(&owned)).await;
    prepared.map_err(|error| StartError::of("identity")(&error))?
}

/// Starts publishing. What fails is tried again; a worker serves all the same.
pub(super) fn start(
    publication: Publication,
    settings: &Settings,
    service: Arc<dyn Signer>,
    changes: watch::Receiver<Snapshot>,
    runtime: &Handle,
) -> Result<Publishing, StartError> {
    let (stop, stopped) = sync_channel(1);
    let runtime = runtime.clone();
    let pause = Duration::from_millis(settings.network.poll_ms);
    let is_listed = network::listing(settings);
    // A thread of its own: a map that hangs must not take the place of work on requests.
    let thread = thread::Builder::new().name("publication".into());
    let spawned =
        thread.spawn(move || keep_published(&publication, &*service, &changes, &is_listed, pause, &runtime, &stopped));
    spawned.map_err(|error| StartError::of("identity")(&error))?;
    Ok(Publishing { _stop: stop })
}

fn keep_published(
    publication: &Publication,
    service: &dyn Signer,
    changes: &watch::Receiver<Snapshot>,
    is_listed: &dyn Fn(&Node) -> bool,
    pause: Duration,
    runtime: &Handle,
    stopped: &Receiver<()>,
) {
    let mut is_failing = false;
    let wait = |pause| matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
    loop {
        let nodes = Arc::clone(&changes.borrow().nodes);
        match publication.publish(service, &nodes, runtime) {
            Ok(Published { node, is_new, map, .. }) => {
                is_failing = false;
                let map = map.unwrap_or_default();
                tracing::info!(serial = node.serial, is_new, map, "the worker's node info is published");
                if publication.map.is_none() {
                    return;
                }
                loop {
                    if !wait(LISTED_WITHIN) {
                        return;
                    }
                    if !is_listed(&node) {
                        tracing::warn!(
                            "the HTTP network map does not list this worker: handing its node info in again"
                        );
                        break;
                    }
                }
            }
            Err(error) => {
                // Said once a cause is new; nodes that know an earlier node info still find the worker.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "the worker's node info is not published; it is tried again");
                }
                if !wait(pause) {
                    return;
                }
            }
        }
    }
}

/// What can be checked without connecting.
pub(super) fn preflight(settings: &Settings) -> Vec<Fault> {
    let fault = |error: StartError| Fault { key: error.part.into(), problem: error.reason };
    prepare(settings).err().map(fault).into_iter().collect()
}

/// The key of the worker's own identity, if the settings name its certificate.
pub(super) fn own_key(settings: &Settings) -> Option<PublicKey> {
    let chain = read_chain(&settings.identity.certificate).ok()?;
    Some(Certificate::from_der(chain.first()?).ok()?.public_key().clone())
}

/// Reads what the settings name; nothing, if they ask for nothing.
fn prepare(settings: &Settings) -> Result<Option<Publication>, StartError> {
    let identity = &settings.identity;
    if identity.certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    let chain =
        |key: &'static str, file: &Path| read_chain(file).map_err(|error| StartError::of(key)(&error).misconfigured());
    let own = chain("identity.certificate", &identity.certificate)?;
    let service = chain("identity.service_certificate", &identity.service_certificate)?;
    let failed = |error: &dyn core::fmt::Display| StartError::of("identity")(error).misconfigured();
    let addresses = settings.p2p.addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
    let addresses = addresses.map(|address| parse_address(address).ok_or(address)).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(|address| failed(&format!("p2p.addresses: {address:?} is not HOST:PORT")))?;
    let (root, version) = (network::root(settings)?, settings.worker.platform_version);
    let description = Description::new(addresses, own, service, version, &root, SystemClock.now());
    let description = description.map_err(|error| failed(&error))?;
    let name = description.own_name().to_string();
    if crate::domain::X500Name::parse(&settings.worker.name).ok().as_ref() != Some(description.own_name()) {
        return Err(failed(&format!("the certificate is that of {name}, and the worker is {}", settings.worker.name)));
    }
    let key = match identity.passphrase.is_configured() {
        false => file::load_plain(&identity.key),
        true => {
            let passphrase = identity.passphrase.fetch();
            let passphrase =
                passphrase.map_err(|error| StartError::of("identity.passphrase")(&error).misconfigured())?;
            file::load_encrypted(&identity.key, &passphrase)
        }
    };
    let key = key.map_err(|error| StartError::of("identity.key")(&error).misconfigured())?;
    let mut files = vec![network::own_node_infos(settings).join(description.file_name())];
    if !settings.network.publish_dir.as_os_str().is_empty() {
        files.push(settings.network.publish_dir.join(description.file_name()));
    }
    let map = network::http_map(settings)?.map(|map| (map, settings.network.url.clone()));
    // One thread: it signs once in a while.
    Ok(Some(Publication { description, own: Arc::new(FileKey::start(key, NonZeroUsize::MIN)), root, files, map }))
}

impl Publication {
    /// Blocks for the time that a signature, the files and the map take. Not for a runtime's own threads.
    fn publish(&self, service: &dyn Signer, nodes: &[Node], runtime: &Handle) -> Result<Published, StartError> {
        let failed = |error: &dyn core::fmt::Display| StartError::of("identity")(error);
        let now = SystemClock.now();
        let held = self.held(now);
        let is_new = held.is_none();
        let (bytes, node) = match held {
            Some(held) => held,
            None => {
                let own = self.description.own_name();
                let earlier = nodes.iter().filter(|node| node.own().name == *own).map(|node| node.serial);
                // Also one that says something else, or that has ended.
                let earlier = earlier.chain(self.files.iter().filter_map(|file| serial_in(file)));
                let signing = self.description.sign(&*self.own, service, earlier, &self.root, now);
                let bytes = runtime.block_on(signing).map_err(|error| failed(&error))?;
                let node = verify_node_info(&bytes, &self.root, now).map_err(|error| failed(&error))?;
                (bytes, node)
            }
        };
        for file in &self.files {
            if std::fs::read(file).ok().as_deref() != Some(&bytes[..]) {
                let written = replace(file, &bytes);
                written.map_err(|error| failed(&format!("{}: {error}", file.display())))?;
            }
        }
        let map = match &self.map {
            None => None,
            Some((map, url)) => {
                map.publish(&bytes).map_err(|error| StartError::of("network.url")(&error))?;
                Some(url.clone())
            }
        };
        Ok(Published { node, is_new, files: self.files.clone(), map })
    }

    /// What was published last, if it says what there is to say. So a service key on a token signs once, not at every start.
    fn held(&self, now: Timestamp) -> Option<(Vec<u8>, Node)> {
        let file = self.files.first()?;
        let bytes = std::fs::metadata(file).ok().filter(|file| file.len() <= NODE_INFO_LEN_MAX);
        let bytes = bytes.and_then(|_| std::fs::read(file).ok())?;
        let node = verify_node_info(&bytes, &self.root, now).ok()?;
        (node.content == self.description.content()).then_some((bytes, node))
    }
}

/// The serial number in a file, whether it is to be believed or not.
fn serial_in(file: &Path) -> Option<i64> {
    let metadata = std::fs::metadata(file).ok()?;
    let bytes = std::fs::read(file).ok().filter(|_| metadata.len() <= NODE_INFO_LEN_MAX)?;
    let limits = &crate::wire::Limits::DEFAULT;
    let signed = crate::wire::decode_signed_node_info(&bytes, limits).ok()?;
    Some(crate::wire::decode_node_info(&signed.raw, limits).ok()?.serial)
}
