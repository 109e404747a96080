//! Certificates in use: when each of them ends, and the renewal of the worker's own one for TLS with nodes without a restart.
//!
//! A renewed certificate is taken up when its files have come to rest. What is wrong with them never harms the one in force.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::{StartError, broker, credentials, network};
use crate::config::{Settings, StoreKind};
use crate::domain::{PublicKey, Timestamp};
use crate::network::{chain_expiry, parameters_expiry, pem_expiry};
use crate::observe::certificates::{self as figures, Certificates};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;
use crate::tls::peers::PeerTls;

/// The worker's own certificate for TLS with nodes.
const TLS: &str = "tls";

/// What was refused is tried again without a change of its files: a certificate that was handed over early becomes valid, a command
/// that tells a passphrase works again.
const AGAIN: Duration = Duration::from_secs(60);

/// Certificates should be renewed before so many days are left: issuing one takes people, and a change of the service's takes the
/// whole network.
pub(super) const CERTIFICATE_DAYS_MIN: i64 = 30;
pub(super) const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Whole days until `at`; negative once it is over.
pub(super) fn days_left(at: Timestamp, now: Timestamp) -> i64 {
    (at.seconds() - now.seconds()).div_euclid(DAY_SECONDS)
}

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
pub(super) fn follow(
    settings: &Settings,
    tls: Option<PeerTls>,
    service_key: &PublicKey,
    ends: Certificates,
    runtime: &Handle,
) -> io::Result<Following> {
    let (stop, stopped) = sync_channel(1);
    let pause = Duration::from_millis(settings.network.reload_ms);
    let owned = settings.clone();
    let tls = tls.map(|tls| {
        let renewal =
            Renewal { tls, settings: settings.clone(), service_key: service_key.clone(), runtime: runtime.clone() };
        (renewal, Watch::new(TLS, credentials::tls(settings).files()))
    });
    // A thread of its own: a command that tells a passphrase may take ten seconds, a network file system longer.
    let thread = thread::Builder::new().name("certificates".into());
    thread.spawn(move || look_again_and_again(&owned, tls, &ends, pause, &stopped))?;
    Ok(Following { _stop: stop })
}

fn look_again_and_again(
    settings: &Settings,
    mut tls: Option<(Renewal, Watch)>,
    ends: &Certificates,
    pause: Duration,
    stopped: &Receiver<()>,
) {
    let files = in_use(settings).into_iter().map(|certificate| certificate.file);
    let files: Vec<_> = files.chain(network::parameters_files(settings)).collect();
    let mut told = None;
    let mut warned = None;
    loop {
        // Reading key stores costs; looking at a file does not.
        let stamps = stamps(&files);
        if told.as_ref() != Some(&stamps) {
            let found = in_use(settings).into_iter().filter(|found| found.usage != TLS);
            found.filter_map(|found| Some((found.usage, found.at?))).for_each(|(usage, at)| ends.ends(usage, at));
            told = Some(stamps);
        }
        if let Some((renewal, watch)) = &mut tls {
            watch.look(Instant::now(), || renewal.renew());
            ends.ends(TLS, renewal.tls.identity().expires());
        }
        let today = SystemClock.now().seconds().div_euclid(DAY_SECONDS);
        if warned.replace(today) != Some(today) {
            warn(&ends.all(), SystemClock.now());
        }
        if !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

/// Says once a day which certificates have to be renewed.
fn warn(ends: &[(&'static str, Timestamp)], now: Timestamp) {
    for (usage, at) in ends {
        match days_left(*at, now) {
            ..0 => tracing::error!(usage, at = %at, "a certificate has ended: renew it"),
            days @ 0..CERTIFICATE_DAYS_MIN => {
                tracing::warn!(usage, days, at = %at, "a certificate ends soon: renew it")
            }
            _ => {}
        }
    }
}

/// What changes with every file that is written or replaced, or made readable.
type Stamp = Option<[i64; 6]>;

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        let (inode, len) = (found.ino() as i64, found.len() as i64);
        Some([inode, len, found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()])
    };
    files.iter().map(stamp).collect()
}

/// Files that belong together, such as a certificate, its key and its passphrase, watched for a renewal.
pub(super) struct Watch {
    /// What for, as figures have it.
    usage: &'static str,
    files: Vec<PathBuf>,
    /// As they were found last, and as they were when they were read last.
    seen: Option<Vec<Stamp>>,
    read: Option<Vec<Stamp>>,
    /// When to read again what was refused.
    again: Option<Instant>,
    /// Why, as it was said last.
    said: Option<String>,
}

impl Watch {
    pub(super) fn new(usage: &'static str, files: Vec<PathBuf>) -> Self {
        Self { usage, files, seen: None, read: None, again: None, said: None }
    }

    /// Has what is new taken up by `take`, once it has come to rest: two files are not replaced at once, and one may be half written.
    /// `take` tells whether there was anything new, and so does this.
    pub(super) fn look(&mut self, now: Instant, take: impl FnOnce() -> Result<bool, StartError>) -> bool {
        let stamps = stamps(&self.files);
        let rests = self.seen.as_ref() == Some(&stamps);
        let is_changed = self.read.as_ref() != Some(&stamps);
        self.seen = Some(stamps.clone());
        if !rests || !(is_changed || self.again.is_some_and(|again| again <= now)) {
            return false;
        }
        self.read = Some(stamps);
        self.again = None;
        let usage = self.usage;
        match take() {
            Ok(is_new) => {
                if is_new {
                    tracing::info!(usage, "renewed certificate taken up");
                    figures::renewed(usage);
                }
                self.said = None;
                is_new
            }
            Err(error) => {
                self.again = Some(now + AGAIN);
                let error = error.to_string();
                if is_changed || self.said.as_ref() != Some(&error) {
                    tracing::warn!(usage, error, "certificate not taken up; the one in force stays");
                    figures::renewal_refused(usage);
                    self.said = Some(error);
                }
                false
            }
        }
    }
}

/// What taking up the worker's renewed certificate for TLS needs.
struct Renewal {
    tls: PeerTls,
    settings: Settings,
    service_key: PublicKey,
    runtime: Handle,
}

impl Renewal {
    /// Has the identity in the files taken up, if it is another one than that in force. Of a key on tokens, the open one serves a
    /// renewed certificate for it; a certificate for another key has the tokens opened anew.
    fn renew(&self) -> Result<bool, StartError> {
        let in_force = self.tls.identity();
        let identity = match broker::read_identity(&self.settings, &self.service_key, Some(&in_force))? {
            broker::Read::Ready(identity) => identity,
            broker::Read::OnTokens(unopened) => {
                let runtime = self.runtime.clone();
                let opened = credentials::wait(&self.runtime, async move { unopened.open(&runtime).await });
                opened.ok_or_else(|| StartError::of("p2p")(&"the worker ends"))??
            }
        };
        if identity.chain() == in_force.chain() {
            return Ok(false);
        }
        self.tls.renew(identity).map_err(|error| StartError::of("p2p")(&error))?;
        Ok(true)
    }
}
