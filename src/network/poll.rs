//! Asks an HTTP network map, and keeps what it says in a folder, where the library finds it like any other file.
//!
//! ```text
//! network-parameters         those that the map says are in force
//! network-parameters-update  those that it announces, if it does
//! node-infos/nodeInfo-<hash> the participants that it lists, and no others
//! ```
//!
//! The folder is also what a worker starts from while the map is down. Files are written only when they are what the signed map
//! asked for by hash; the library verifies them once more.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::certificate::Certificate;
use super::files::{NODE_INFO_PREFIX, NODE_INFOS, PARAMETERS, PARAMETERS_UPDATE, replace};
use super::http::{HttpError, HttpMap, Version};
use super::library::{NODE_INFOS_MAX, PARAMETERS_LEN_MAX};
use super::material::{MaterialError, verify_network_map, verify_node_info, verify_parameters};
use super::path::PathError;
use super::shelf::read;
use crate::domain::SecureHash;
use crate::keys;
use crate::observe::network as figures;
use crate::ports::Clock;
use crate::wire::{self, Limits, NetworkMapDocument};

/// However long a server wants to be left alone, a flag day must not pass by.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);
/// However often it wants to be asked.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Node infos that may fail in one round before it ends: then it is the server, not the node infos.
const FAILURES_MAX: usize = 20;
/// After so many new node infos the library is told, so that a large network's participants are not served all at once at the end.
const TELL_EVERY: usize = 200;

/// Where a map's answers are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cache(PathBuf);

impl Cache {
    /// A cache in `folder`, which is made when there is something to keep.
    pub fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// The file of the parameters in force.
    pub fn parameters(&self) -> PathBuf {
        self.0.join(PARAMETERS)
    }

    /// The file of announced parameters.
    pub fn parameters_update(&self) -> PathBuf {
        self.0.join(PARAMETERS_UPDATE)
    }

    /// The folder of node infos.
    pub fn node_infos(&self) -> PathBuf {
        self.0.join(NODE_INFOS)
    }

    /// The file of a node info that the map lists.
    pub fn node_info(&self, hash: &SecureHash) -> PathBuf {
        self.node_infos().join(format!("{NODE_INFO_PREFIX}{}", file_name(hash)))
    }
}

/// Algorithms other than SHA-256 stand before a colon, which not every filesystem likes.
fn file_name(hash: &SecureHash) -> String {
    hash.to_string().replace(':', "-")
}

/// Why a round was not completed. What was learnt before is kept.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    /// The server does not answer as it should.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// What it says is not to be believed.
    #[error("{what} of the network map is not to be believed: {error}")]
    Material {
        /// The document.
        what: &'static str,
        /// What is wrong with it.
        error: MaterialError,
    },
    /// A document is not the one that was asked for.
    #[error("{0} of the network map has another hash than asked for")]
    Hash(&'static str),
    /// A map of more node infos than any network has.
    #[error("the network map lists {0} node infos, more than {NODE_INFOS_MAX}")]
    TooMany(usize),
    /// Some node infos could not be had.
    #[error("{failed} of {listed} node infos could not be had, the last: {last}")]
    NodeInfos {
        /// How many.
        failed: usize,
        /// Out of so many.
        listed: usize,
        /// Why.
        last: String,
    },
    /// The cache cannot be written.
    #[error("the network map cannot be kept: {0}")]
    Cache(#[from] io::Error),
}

impl PollError {
    /// Whether the document may be believed later.
    fn is_early(&self) -> bool {
        matches!(self, Self::Material { error: MaterialError::Path(PathError::NotYetValid(_)), .. })
    }
}

/// Asks a map and keeps its answers.
pub struct Poller {
    map: HttpMap,
    root: Certificate,
    cache: Cache,
    clock: Arc<dyn Clock>,
    version: Version,
    /// The last map, as long as it may not be complete in the cache.
    listed: Option<NetworkMapDocument>,
    /// Node infos that are listed and not to be believed, such as those of nodes whose certificates have ended: real networks have
    /// some. A hash names one content for ever, so they are not asked for again.
    refused: HashSet<SecureHash>,
    told_update: Option<SecureHash>,
}

impl Poller {
    /// Asks nothing yet.
    pub fn new(map: HttpMap, root: Certificate, cache: Cache, clock: Arc<dyn Clock>) -> Self {
        let (version, refused) = (Version::default(), HashSet::new());
        Self { map, root, cache, clock, version, listed: None, refused, told_update: None }
    }

    /// Learns the parameters in force: enough to start with.
    ///
    /// # Errors
    /// [`PollError`].
    pub fn first(&mut self) -> Result<(), PollError> {
        self.ask()?;
        self.learn_parameters().map(|_| ())
    }

    /// Asks for the map and whatever of it is missing; `tell` is called when there is something new in the cache. Returns how long
    /// the server wants to be left alone, if it says.
    ///
    /// # Errors
    /// [`PollError`]; the next round goes on from here.
    pub fn round(&mut self, tell: &dyn Fn()) -> Result<Option<Duration>, PollError> {
        let max_age = self.ask()?;
        let changed = self.learn_parameters()?;
        if changed {
            tell();
        }
        if self.learn_node_infos(tell)? {
            tell();
        }
        figures::checked("http", self.clock.now());
        Ok(max_age)
    }

    fn ask(&mut self) -> Result<Option<Duration>, PollError> {
        let answer = self.map.network_map(&self.version)?;
        if let Some((bytes, version)) = answer.news {
            let map = verify_network_map(&bytes, &self.root, self.clock.now());
            let map = map.map_err(|error| PollError::Material { what: "the answer", error })?;
            if map.node_infos.len() > NODE_INFOS_MAX {
                return Err(PollError::TooMany(map.node_infos.len()));
            }
            (self.listed, self.version) = (Some(map), version);
        }
        Ok(answer.max_age)
    }

    /// Returns whether the cache changed.
    fn learn_parameters(&mut self) -> Result<bool, PollError> {
        let Some(listed) = &self.listed else { return Ok(false) };
        let (in_force, announced) = (self.cache.parameters(), self.cache.parameters_update());
        // Announced ones first: on a flag day they are in force, and until then they are accepted.
        let mut changed = false;
        match &listed.update {
            Some(update) => {
                changed |= self.fetch_parameters(&update.parameters, &announced, "an announced version")?;
                if self.told_update != Some(update.parameters) {
                    tracing::info!(
                        hash = %update.parameters,
                        description = update.description.replace(|c: char| c.is_control(), " "),
                        deadline = %update.deadline,
                        "other network parameters are announced: accepted from now on"
                    );
                    self.told_update = Some(update.parameters);
                }
            }
            None => match fs::remove_file(&announced) {
                Ok(()) => changed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            },
        }
        changed |= self.fetch_parameters(&listed.parameters, &in_force, "the version in force")?;
        Ok(changed)
    }

    fn fetch_parameters(&self, hash: &SecureHash, file: &Path, what: &'static str) -> Result<bool, PollError> {
        let held = read(file, PARAMETERS_LEN_MAX).ok();
        let verified = |bytes: &[u8]| verify_parameters(bytes, &self.root, Some(self.clock.now()));
        if held.is_some_and(|bytes| verified(&bytes).is_ok_and(|(found, _)| found == *hash)) {
            return Ok(false);
        }
        let bytes = self.map.parameters(hash)?;
        let (found, _) = verified(&bytes).map_err(|error| PollError::Material { what, error })?;
        if found != *hash {
            return Err(PollError::Hash(what));
        }
        replace(file, &bytes)?;
        Ok(true)
    }

    /// Returns whether the cache changed since `tell` was called last.
    fn learn_node_infos(&mut self, tell: &dyn Fn()) -> Result<bool, PollError> {
        let Some(listed) = &self.listed else { return Ok(false) };
        let (mut failed, mut last, mut news) = (0, String::new(), 0);
        for hash in &listed.node_infos {
            let file = self.cache.node_info(hash);
            if self.refused.contains(hash) || file.exists() {
                continue;
            }
            match self.fetch_node_info(hash, &file) {
                Ok(()) => {
                    news += 1;
                    if news % TELL_EVERY == 0 {
                        tell();
                    }
                }
                // The rest of this round would end the same way.
                Err(PollError::Cache(error)) => return Err(error.into()),
                Err(PollError::Http(error)) => {
                    (failed, last) = (failed + 1, error.to_string());
                    if failed == FAILURES_MAX {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(%hash, %error, "the HTTP network map lists a node that cannot use this notary");
                    // Only time can make it good.
                    if !error.is_early() {
                        self.refused.insert(*hash);
                    }
                }
            }
        }
        let changed = news + self.remove_unlisted(listed)? > 0;
        let still_listed: HashSet<&SecureHash> = listed.node_infos.iter().collect();
        self.refused.retain(|hash| still_listed.contains(hash));
        if failed > 0 {
            if changed {
                tell();
            }
            return Err(PollError::NodeInfos { failed, listed: listed.node_infos.len(), last });
        }
        Ok(changed)
    }

    fn fetch_node_info(&self, hash: &SecureHash, file: &Path) -> Result<(), PollError> {
        let what = "a node info";
        let bytes = self.map.node_info(hash)?;
        let signed = wire::decode_signed_node_info(&bytes, &Limits::DEFAULT);
        let signed = signed.map_err(|error| PollError::Material { what, error: error.into() })?;
        if SecureHash::sha256(Sha256::digest(&signed.raw).into()) != *hash {
            return Err(PollError::Hash(what));
        }
        let verified = verify_node_info(&bytes, &self.root, self.clock.now());
        verified.map_err(|error| PollError::Material { what, error })?;
        Ok(replace(file, &bytes)?)
    }

    /// Removes the node infos that the map does not list any more. Returns how many.
    fn remove_unlisted(&self, listed: &NetworkMapDocument) -> Result<usize, PollError> {
        let wanted: HashSet<PathBuf> = listed.node_infos.iter().map(|hash| self.cache.node_info(hash)).collect();
        let entries = match fs::read_dir(self.cache.node_infos()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            entries => entries?,
        };
        let mut gone = 0;
        for entry in entries {
            let entry = entry?;
            let ours = entry.file_name().to_string_lossy().starts_with(NODE_INFO_PREFIX);
            if ours && !wanted.contains(&entry.path()) {
                fs::remove_file(entry.path())?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}

/// Asks again and again, on a thread of its own, until dropped.
pub struct Polling {
    wake: SyncSender<()>,
}

impl Polling {
    /// Starts with a round at once. `pause` is for servers that do not say how often to ask, and after failures; `tell` is called
    /// when there is something new in the cache.
    ///
    /// # Errors
    /// If the operating system starts no thread.
    pub fn start(poller: Poller, pause: Duration, tell: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (wake, woken) = sync_channel(1);
        thread::Builder::new().name("network-poll".into()).spawn(move || poll(poller, pause, &tell, &woken))?;
        Ok(Self { wake })
    }

    /// Asks for a round now, and does not wait for it.
    pub fn ask(&self) {
        let _ = self.wake.try_send(()); // Full: a round is due already.
    }
}

fn poll(mut poller: Poller, pause: Duration, tell: &dyn Fn(), woken: &Receiver<()>) {
    let mut is_failing = false;
    loop {
        let wanted = match poller.round(tell) {
            Ok(max_age) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("the HTTP network map answers again");
                }
                max_age
            }
            Err(error) => {
                figures::poll_failed();
                // Said once: the figures go on telling.
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!(%error, "the HTTP network map was not taken up; what is known stays in force");
                }
                None
            }
        };
        let wanted = wanted.map_or(pause, |age| age.clamp(PAUSE_MIN, PAUSE_MAX));
        match woken.recv_timeout(jittered(wanted)) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Up to a fifth shorter or longer, so that workers that were started together do not ask together (FD3).
pub fn jittered(pause: Duration) -> Duration {
    let mut random = [0; 2];
    // Without random numbers it is the middle.
    if keys::random(&mut random).is_err() {
        return pause;
    }
    let fifth = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX) * 0.4;
    pause.mul_f64(0.8 + fifth)
}

#[cfg(test)]
mod tests;
