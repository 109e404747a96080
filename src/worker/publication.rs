//! Makes the worker's own node info known: signed once for each change of what it says, written where the settings say, and handed
//! in at the HTTP network map.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::certificates::Watch;
use super::credentials::{self, Key, Opened};
use super::{StartError, key, network};
use crate::config::{Fault, Settings};
use crate::domain::{PublicKey, Timestamp, X500Name};
use crate::hsm::FileKey;
use crate::hsm::pkcs11::{self, TokenKey};
use crate::network::registration::parse_address;
use crate::network::{
    Certificate, Description, HttpMap, Node, PathError, PublicationError, Snapshot, jittered, replace, verify_node_info,
};
use crate::observe::network as figures;
use crate::ports::clock::SystemClock;
use crate::ports::finding::Finding;
use crate::ports::{Clock, Signer};

/// How long a map may take to list what it was handed in, before it is handed in again. Corda's nodes do so once a day.
const LISTED_WITHIN: Duration = Duration::from_secs(3_600);
/// Bytes of our own node info.
const NODE_INFO_LEN_MAX: u64 = 64 * 1024;
/// Sessions with each token for the worker's own key: it signs once in a while.
const SESSIONS: usize = 1;

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
    bytes: Vec<u8>,
}

/// Everything that publishing needs, but for keys on tokens.
struct Draft {
    description: Arc<Description>,
    own: Own,
    root: Certificate,
    /// The first is the worker's own memory of what it published.
    files: Vec<PathBuf>,
    map: Option<(HttpMap, String)>,
}

/// The worker's own key.
enum Own {
    Open(Arc<dyn Signer>),
    OnTokens(Box<pkcs11::Options>),
}

/// Everything that publishing needs, but for the service key.
pub(super) struct Publication {
    draft: Draft,
    own: Arc<dyn Signer>,
}

/// Publishes once.
///
/// # Errors
/// [`StartError`]: a certificate, a key, a folder or the map is not as it should be, or nothing is configured.
pub async fn publish(settings: &Settings, runtime: &Handle) -> Result<Published, StartError> {
    let key = super::key::open(settings, runtime).await?;
    let owned = settings.clone();
    let draft = runtime.spawn_blocking(move || prepare(&owned)).await;
    let draft = draft.map_err(|error| StartError::of("identity")(&error))??;
    let failed = StartError::of("identity.certificate");
    let draft = draft.ok_or_else(|| failed(&"names no file: there is nothing to publish"))?;
    let publication = draft.unlock(runtime).await?;
    let (owned, handle) = (settings.clone(), runtime.clone());
    // Reads files, and may ask the map.
    let published = runtime.spawn_blocking(move || {
        // A new worker may publish before it knows anybody.
        let known = network::load(&owned).map(|library| library.nodes().to_vec()).unwrap_or_default();
        let published = publication.sign(&key.signer, &known, &handle)?;
        publication.spread(published)
    });
    published.await.map_err(|error| StartError::of("identity")(&error))?
}

/// Keeps the worker's node info published while this lives.
pub(super) struct Publishing {
    _stop: SyncSender<()>,
}

/// What [`start`] begins with: nothing, while certificates have ended and nobody has renewed them.
pub(super) struct Prepared(Option<Publication>);

/// Reads what publishing needs, if the settings ask for it. A configuration that never can be right is an error; certificates that
/// have ended are not, as a worker serves without publishing.
pub(super) async fn open(settings: &Settings, runtime: &Handle) -> Result<Option<Prepared>, StartError> {
    let owned = settings.clone();
    // Unlocking a key takes 0.1 s.
    let prepared = runtime.spawn_blocking(move || prepare(&owned)).await;
    let prepared = match prepared.map_err(|error| StartError::of("identity")(&error))? {
        Ok(Some(draft)) => draft.unlock(runtime).await.map(Some),
        Ok(None) => return Ok(None),
        Err(error) => Err(error),
    };
    match prepared {
        Err(error) if !error.is_misconfigured() => {
            tracing::error!(%error, "the worker's node info is not published");
            figures::published(false);
            Ok(Some(Prepared(None)))
        }
        prepared => Ok(prepared?.map(|publication| Prepared(Some(publication)))),
    }
}

/// Starts publishing, also what is renewed. What fails is tried again; a worker serves all the same.
pub(super) fn start(
    Prepared(publication): Prepared,
    settings: &Settings,
    service: Arc<dyn Signer>,
    changes: watch::Receiver<Snapshot>,
    runtime: &Handle,
) -> Result<Publishing, StartError> {
    let (stop, stopped) = sync_channel(1);
    let keeper = Keeper {
        publication,
        own_key: own_key(settings),
        service,
        changes,
        is_listed: Box::new(network::listing(settings)),
        runtime: runtime.clone(),
        stopped,
        is_failing: false,
        settings: settings.clone(),
    };
    // A thread of its own: a map that hangs must not take the place of work on requests.
    let thread = thread::Builder::new().name("publication".into());
    thread.spawn(move || keeper.run()).map_err(|error| StartError::of("identity")(&error))?;
    Ok(Publishing { _stop: stop })
}

/// The thread's share.
struct Keeper {
    publication: Option<Publication>,
    /// What nodes send to this worker under.
    own_key: Option<PublicKey>,
    service: Arc<dyn Signer>,
    changes: watch::Receiver<Snapshot>,
    is_listed: Box<dyn Fn(&Node) -> bool + Send>,
    runtime: Handle,
    stopped: Receiver<()>,
    is_failing: bool,
    settings: Settings,
}

impl Keeper {
    fn run(mut self) {
        let glance = Duration::from_millis(self.settings.network.reload_ms);
        let mut files = Watch::new("identity", credentials::identity_files(&self.settings));
        let mut due = Some(Instant::now());
        loop {
            let now = Instant::now();
            if files.look(now, || self.renew()) || due.is_some_and(|due| due <= now) {
                due = self.publish().map(|pause| now + jittered(pause));
            }
            if !matches!(self.stopped.recv_timeout(glance), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    /// Whether the certificates in the files are others than those published.
    fn renew(&mut self) -> Result<bool, StartError> {
        let Some(renewed) = prepare(&self.settings)? else { return Ok(false) };
        let in_force = self.publication.as_ref();
        if in_force.is_some_and(|it| it.draft.description.content() == renewed.description.content()) {
            return Ok(false);
        }
        // Requests arrive under the key that the worker started with.
        if self.own_key.as_ref().is_some_and(|key| key != renewed.description.own_key()) {
            return Err(StartError::of("identity")(&"the worker's own key is another one: restart the worker"));
        }
        let publication = match in_force {
            // The same key, as was seen: nothing that is open need be opened again.
            Some(Publication { own, .. }) if own.public_key() == renewed.description.own_key() => {
                Publication { own: Arc::clone(own), draft: renewed }
            }
            _ => {
                let runtime = self.runtime.clone();
                let unlocked = credentials::wait(&self.runtime, async move { renewed.unlock(&runtime).await });
                unlocked.ok_or_else(|| StartError::of("identity")(&"the worker ends"))??
            }
        };
        self.publication = Some(publication);
        Ok(true)
    }

    /// Publishes what there is to publish; when to look again, if ever.
    fn publish(&mut self) -> Option<Duration> {
        let publication = self.publication.as_ref()?;
        let done = self.make_known(publication);
        figures::published(done.is_ok());
        match done {
            Ok(()) => {
                self.is_failing = false;
                publication.draft.map.is_some().then_some(LISTED_WITHIN)
            }
            Err(error) => {
                // Said once a cause is new; nodes that know an earlier node info still find the worker.
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%error, "the worker's node info is not published; it is tried again");
                }
                Some(Duration::from_millis(self.settings.network.poll_ms))
            }
        }
    }

    /// Says nothing to anybody if everybody knows.
    fn make_known(&self, publication: &Publication) -> Result<(), StartError> {
        let nodes = Arc::clone(&self.changes.borrow().nodes);
        let published = publication.sign(&self.service, &nodes, &self.runtime)?;
        let serial = published.node.serial;
        if !published.is_new && (self.is_listed)(&published.node) {
            tracing::debug!(serial, "the HTTP network map lists the worker's node info");
            return publication.write(&published);
        }
        let Published { is_new, map, .. } = publication.spread(published)?;
        tracing::info!(serial, is_new, map = map.unwrap_or_default(), "the worker's node info is published");
        Ok(())
    }
}

/// What can be checked without connecting.
pub(super) fn preflight(settings: &Settings) -> Vec<Fault> {
    let fault = |error: StartError| Fault { key: error.part.into(), problem: error.reason };
    prepare(settings).err().map(fault).into_iter().collect()
}

/// Whether what is published is what there is to say.
pub(super) fn examine(settings: &Settings, now: Timestamp) -> Vec<Finding> {
    let subject = "network: own node info";
    let draft = match prepare(settings) {
        Ok(None) => return Vec::new(),
        Ok(Some(draft)) => draft,
        Err(error) => return vec![Finding::fault(subject, error, "correct the section identity, or renew the file")],
    };
    let advice = "a running worker publishes it, and so does `notary network publish`";
    vec![match draft.held(&[], now) {
        None => Finding::warning(subject, "it does not say yet what the configuration says", advice),
        Some((bytes, node)) => {
            let is_there = |file: &&PathBuf| std::fs::read(file).ok().as_deref() == Some(&bytes[..]);
            match draft.files.iter().find(|file| !is_there(file)) {
                Some(file) => Finding::warning(subject, format!("it is not in {}", file.display()), advice),
                None => Finding::good(subject, format!("signed by both identities, serial {}", node.serial)),
            }
        }
    }]
}

/// The key of the worker's own identity, if the settings name its certificate.
pub(super) fn own_key(settings: &Settings) -> Option<PublicKey> {
    credentials::certified_key(&credentials::identity(settings)?.chain().ok()?)
}

/// Reads what the settings name; nothing, if they ask for nothing. Tokens are not asked.
fn prepare(settings: &Settings) -> Result<Option<Draft>, StartError> {
    let Some(place) = credentials::identity(settings) else { return Ok(None) };
    let Opened { chain: own, key } = place.open()?;
    let service = credentials::service_chain(settings)?;
    let failed = |error: &dyn core::fmt::Display| StartError::of("identity")(error).misconfigured();
    let addresses = settings.p2p.addresses.split(',').map(str::trim).filter(|address| !address.is_empty());
    let addresses = addresses.map(|address| parse_address(address).ok_or(address)).collect::<Result<Vec<_>, _>>();
    let addresses = addresses.map_err(|address| failed(&format!("p2p.addresses: {address:?} is not HOST:PORT")))?;
    let (root, version) = (network::root(settings)?, settings.worker.platform_version);
    let description =
        Description::new(addresses, own, service, version, &root, SystemClock.now()).map_err(|error| match error {
            // Not for ever: only time, or whoever renews the file, makes it right.
            PublicationError::Certificate { error: PathError::Expired(_) | PathError::NotYetValid(_), .. } => {
                StartError::of("identity")(&error)
            }
            error => failed(&error),
        })?;
    let name = description.own_name();
    if X500Name::parse(&settings.worker.name).ok().as_ref() != Some(name) {
        return Err(failed(&format!("the certificate is that of {name}, and the worker is {}", settings.worker.name)));
    }
    if description.own_key() == description.service_key() {
        return Err(failed(&"the worker's own key is the service key: make one of its own"));
    }
    let own = match key {
        Key::Here(key) if key.public_key() != description.own_key() => {
            return Err(failed(&PublicationError::Key("worker")));
        }
        // One thread: it signs once in a while.
        Key::Here(key) => Own::Open(Arc::new(FileKey::start(*key, NonZeroUsize::MIN))),
        Key::OnTokens(options) => Own::OnTokens(options),
    };
    let mut files = vec![network::own_node_infos(settings).join(description.file_name())];
    if !settings.network.publish_dir.as_os_str().is_empty() {
        files.push(settings.network.publish_dir.join(description.file_name()));
    }
    let map = network::http_map(settings)?.map(|map| (map, settings.network.url.clone()));
    Ok(Some(Draft { description: Arc::new(description), own, root, files, map }))
}

impl Draft {
    /// Opens the worker's own key where it is not open yet. It must be that of the certificate.
    async fn unlock(self, runtime: &Handle) -> Result<Publication, StartError> {
        let own = match &self.own {
            Own::Open(own) => Arc::clone(own),
            Own::OnTokens(options) => {
                let part = "identity.key_label";
                let options = pkcs11::Options { sessions: SESSIONS, ..(**options).clone() };
                let key = TokenKey::open(options, runtime).await.map_err(|error| key::not_open(part, &error))?;
                if key.public_key() != self.description.own_key() {
                    return Err(StartError::of(part)(&PublicationError::Key("worker")).misconfigured());
                }
                Arc::new(key)
            }
        };
        Ok(Publication { own, draft: self })
    }

    /// What was published last, if it says what there is to say and nobody knows a newer one that says something else. So a service
    /// key on a token signs once, not at every start.
    fn held(&self, nodes: &[Node], now: Timestamp) -> Option<(Vec<u8>, Node)> {
        let bytes = read(self.files.first()?)?;
        let node = verify_node_info(&bytes, &self.root, now).ok()?;
        let content = self.description.content();
        let outdated = self.known_as(nodes).any(|known| known.serial >= node.serial && known.content != content);
        (node.content == content && !outdated).then_some((bytes, node))
    }

    /// As whom others know the worker.
    fn known_as<'n>(&self, nodes: &'n [Node]) -> impl Iterator<Item = &'n Node> {
        let own = self.description.own_name().clone();
        nodes.iter().filter(move |node| node.own().name == own)
    }
}

impl Publication {
    /// The node info to publish: the one that was published last, or else a new one. Blocks for the time that two signatures take,
    /// so it is not for a runtime's own threads.
    fn sign(&self, service: &Arc<dyn Signer>, nodes: &[Node], runtime: &Handle) -> Result<Published, StartError> {
        let failed = |error: &dyn core::fmt::Display| StartError::of("identity")(error);
        let now = SystemClock.now();
        let held = self.draft.held(nodes, now);
        let is_new = held.is_none();
        let (bytes, node) = match held {
            Some(held) => held,
            None => {
                let bytes = self.sign_new(service, nodes, runtime, now)?;
                let node = verify_node_info(&bytes, &self.draft.root, now).map_err(|error| failed(&error))?;
                (bytes, node)
            }
        };
        Ok(Published { node, is_new, files: self.draft.files.clone(), map: None, bytes })
    }

    fn sign_new(
        &self,
        service: &Arc<dyn Signer>,
        nodes: &[Node],
        runtime: &Handle,
        now: Timestamp,
    ) -> Result<Vec<u8>, StartError> {
        let failed = |error: &dyn core::fmt::Display| StartError::of("identity")(error);
        let draft = &self.draft;
        let earlier = draft.known_as(nodes).map(|node| node.serial);
        // Also one that says something else, or that has ended.
        let filed = draft.files.iter().filter_map(|file| draft.description.serial_of(&read(file)?));
        let earlier: Vec<_> = earlier.chain(filed).collect();
        let (description, root) = (Arc::clone(&draft.description), draft.root.clone());
        let (own, service) = (Arc::clone(&self.own), Arc::clone(service));
        let signing = async move { description.sign(&*own, &*service, earlier, &root, now).await };
        let signed = credentials::wait(runtime, signing).ok_or_else(|| failed(&"the worker ends"))?;
        signed.map_err(|error| match error {
            PublicationError::Key(_) => failed(&error).misconfigured(),
            error => failed(&error),
        })
    }

    /// Writes it into the files and hands it in at the map.
    fn spread(&self, published: Published) -> Result<Published, StartError> {
        self.write(&published)?;
        let Some((map, url)) = &self.draft.map else { return Ok(published) };
        map.publish(&published.bytes).map_err(|error| StartError::of("network.url")(&error))?;
        Ok(Published { map: Some(url.clone()), ..published })
    }

    fn write(&self, published: &Published) -> Result<(), StartError> {
        for file in &self.draft.files {
            if std::fs::read(file).ok().as_deref() != Some(&published.bytes[..]) {
                replace(file, &published.bytes)
                    .map_err(|error| StartError::of("identity")(&format!("{}: {error}", file.display())))?;
            }
        }
        Ok(())
    }
}

/// A node info's file.
fn read(file: &Path) -> Option<Vec<u8>> {
    let is_short = std::fs::metadata(file).is_ok_and(|file| file.len() <= NODE_INFO_LEN_MAX);
    is_short.then(|| std::fs::read(file).ok())?
}
