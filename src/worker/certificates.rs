//! Certificates in use: when each of them ends, and the renewal of the worker's own one for TLS with nodes without a restart.
//!
//! A renewed certificate is taken up when its files have come to rest. What is wrong with them never harms the one in force.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{StartError, broker, credentials, network};
use crate::config::{Settings, StoreKind};
use crate::domain::Timestamp;
use crate::network::{chain_expiry, parameters_expiry, pem_expiry};
use crate::observe::certificates::{self as figures, Certificates};
use crate::tls::peers::{Identity, PeerTls};

/// The worker's own certificate for TLS with nodes.
const TLS: &str = "tls";

/// What was refused is tried again without a change of its files: a certificate that was handed over early becomes valid, a command
/// that tells a passphrase works again.
const AGAIN: Duration = Duration::from_secs(60);

/// A certificate, or several in one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct InUse {
    /// What for.
    pub(super) usage: &'static str,
    /// Where it lies.
    pub(super) file: PathBuf,
    /// The end of the first to end; `None` if it cannot be read, which whoever uses it says.
    pub(super) at: Option<Timestamp>,
}

/// Every certificate that the worker uses, as it lies on disk. Blocks as long as fetching passphrases of key stores takes.
pub(super) fn in_use(settings: &Settings) -> Vec<InUse> {
    let mut found = Vec::new();
    let mut add = |usage, file: &Path, at| found.push(InUse { usage, file: file.to_owned(), at });
    let ends = |chain: Result<Vec<Vec<u8>>, StartError>| chain_expiry(chain.ok()?.iter().map(Vec::as_slice));

    if settings.speaks_to_nodes() {
        let place = credentials::tls(settings);
        add(TLS, place.certificates(), ends(place.chain()));
    }
    if let Some(place) = credentials::identity(settings) {
        add("identity", place.certificates(), ends(place.chain()));
    }
    if let Some(file) = credentials::service_certificates(settings) {
        add("service", file, ends(credentials::service_chain(settings)));
    }
    let root = network::root(settings).ok().map(|root| root.expires());
    add("network_root", &network::root_file(settings), root);
    let mut parameters = network::parameters_files(settings).into_iter();
    if let Some((at, file)) = parameters.find_map(|file| Some((parameters_expiry(&file)?, file))) {
        add("network_parameters", &file, Some(at));
    }
    let (broker, store) = (&settings.broker, &settings.store);
    for (used, usage, file) in [
        (broker.kind.is_shared(), "broker", &broker.tls_certificate),
        (broker.kind.is_shared(), "broker_authority", &broker.tls_ca),
        (store.kind != StoreKind::Embedded, "store", &store.tls_certificate),
        (store.kind != StoreKind::Embedded, "store_authority", &store.tls_ca),
    ] {
        if used && !file.as_os_str().is_empty() {
            add(usage, file, pem_expiry(file).ok());
        }
    }
    found
}

/// Follows the files of certificates while this lives.
pub(super) struct Following {
    _stop: SyncSender<()>,
}

/// Tells when certificates end from now on, and has `tls` take up renewed ones. Files are looked at every `pause`.
///
/// # Errors
/// If the operating system starts no thread.
pub(super) fn follow(settings: &Settings, tls: Option<PeerTls>, ends: Certificates) -> io::Result<Following> {
    let (stop, stopped) = sync_channel(1);
    let pause = Duration::from_millis(settings.network.reload_ms);
    let owned = settings.clone();
    let renewal = tls.map(|tls| Renewal::new(tls, credentials::tls(settings).files()));
    // A thread of its own: a command that tells a passphrase may take ten seconds, a network file system longer.
    let thread = thread::Builder::new().name("certificates".into());
    thread.spawn(move || look_again_and_again(&owned, renewal, &ends, pause, &stopped))?;
    Ok(Following { _stop: stop })
}

fn look_again_and_again(
    settings: &Settings,
    mut renewal: Option<Renewal>,
    ends: &Certificates,
    pause: Duration,
    stopped: &Receiver<()>,
) {
    let files = in_use(settings).into_iter().map(|certificate| certificate.file);
    let files: Vec<_> = files.chain(network::parameters_files(settings)).collect();
    let mut told = None;
    loop {
        // Reading key stores costs; looking at a file does not.
        let stamps = stamps(&files);
        if told.as_ref() != Some(&stamps) {
            let found = in_use(settings).into_iter().filter(|found| found.usage != TLS);
            found.filter_map(|found| Some((found.usage, found.at?))).for_each(|(usage, at)| ends.ends(usage, at));
            told = Some(stamps);
        }
        if let Some(renewal) = &mut renewal {
            renewal.look(Instant::now(), || broker::tls_identity(settings));
            ends.ends(TLS, renewal.tls.identity().expires());
        }
        if !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

/// What changes with every file that is written or replaced, or made readable.
pub(super) type Stamp = Option<[i64; 6]>;

pub(super) fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        let (inode, len) = (found.ino() as i64, found.len() as i64);
        Some([inode, len, found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()])
    };
    files.iter().map(stamp).collect()
}

/// Watches the files of one identity.
struct Renewal {
    tls: PeerTls,
    files: Vec<PathBuf>,
    /// As they were found last, and as they were when they were read last.
    seen: Option<Vec<Stamp>>,
    read: Option<Vec<Stamp>>,
    /// When to read again what was refused.
    again: Option<Instant>,
    /// Why, as it was said last.
    said: Option<String>,
}

impl Renewal {
    fn new(tls: PeerTls, files: Vec<PathBuf>) -> Self {
        Self { tls, files, seen: None, read: None, again: None, said: None }
    }

    /// Takes up what is new, once it has come to rest: two files are not replaced at once, and one may be half written.
    fn look(&mut self, now: Instant, read: impl FnOnce() -> Result<Identity, StartError>) {
        let stamps = stamps(&self.files);
        let rests = self.seen.as_ref() == Some(&stamps);
        let is_changed = self.read.as_ref() != Some(&stamps);
        self.seen = Some(stamps.clone());
        if !rests || !(is_changed || self.again.is_some_and(|again| again <= now)) {
            return;
        }
        self.read = Some(stamps);
        self.again = None;
        match self.take(read) {
            Ok(is_new) => {
                if is_new {
                    let identity = self.tls.identity();
                    tracing::info!(name = %identity.name(), until = %identity.expires(), "renewed TLS certificate taken up");
                    figures::renewed();
                }
                self.said = None;
            }
            Err(error) => {
                self.again = Some(now + AGAIN);
                let error = error.to_string();
                if is_changed || self.said.as_ref() != Some(&error) {
                    tracing::warn!(error, "TLS certificate not taken up; the one in force stays");
                    figures::renewal_refused();
                    self.said = Some(error);
                }
            }
        }
    }

    /// Whether there was anything to take up.
    fn take(&self, read: impl FnOnce() -> Result<Identity, StartError>) -> Result<bool, StartError> {
        let identity = read()?;
        if identity.chain() == self.tls.identity().chain() {
            return Ok(false);
        }
        self.tls.renew(identity).map_err(|error| StartError::of("p2p")(&error))?;
        Ok(true)
    }
}
