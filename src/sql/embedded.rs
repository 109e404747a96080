//! The default store: one durable file of one worker, needing nothing but a disk.
//!
//! ```text
//! Embedded ─▶ queue ─▶ writer thread: ledger ─▶ redb ─▶ seals ─▶ file (and its lock beside it)
//! Reader, verify ──────────────────────────────▶ redb ─▶ overlay ─▶ seals ─▶ file, untouched
//! ```
//!
//! `tables` says what is recorded, `ledger` how a batch is, `sealed` why no bit is believed that was not checked. A batch is
//! one transaction of the engine: first decisions, consumed states, repeats and the request log together or not at all.
//!
//! # What is promised
//! - A verdict is given out after the disk said that it has it. One thread writes, behind a bounded queue; no caller blocks.
//! - An error before the engine's commit began is [`CommitError::Unavailable`], any later one [`CommitError::OutcomeUnknown`].
//!   After either the file is opened again before it is used again, as it may differ from what the engine remembers; so a full
//!   disk or a failed sync heals without a restart. Every batch writes, if only that requests were repeated: so no verdict rests
//!   on something that was seen in memory and never reached the disk.
//! - One process has the file, by a lock beside it; others get [`OpenError::InUse`].
//! - A damaged block is refused when it is read; [`verify()`] finds it before. What no checksum reaches: the unused parts of the
//!   engine's header, and whoever can write the file, as nothing here is a keyed digest.
//! - Killed or without power at any moment, the store opens again within milliseconds, whatever its size, with every verdict it
//!   gave. The tests cut the power of a simulated disk at every write, resize and sync, and kill real processes.
//!
//! # Why redb
//! `bench/engines` compares the candidates, each with the settings that survive power loss: random keys of 37 bytes, values of 8,
//! looked up and inserted in durable batches of 100. What two runs of it printed, on 2 cores shared with other builds and a
//! virtual disk; compare within a column, not across. The first two columns are medians of 5 turns (`cargo run --release --
//! all DIR 1000000` there); the others are of an earlier state of the program that took the engines one after another, up to
//! ten million keys. The program prints its figures in another shape by now.
//!
//! ```text
//!                   inserts/s at                    at 10 M: absent    opening after   bytes
//! engine           0 keys     1 M keys   10 M keys  keys found /s      kill -9, ms     a key
//! redb, sealed      7,102      4,759      4,405      61,361              31             101
//! redb, quick       7,331      4,677      8,399     126,429                             101
//! redb, repair     11,273      6,352      7,383     126,668           1,579             101
//! SQLite           12,596      5,144     10,596      90,886               5              52
//! fjall            16,506     21,133     44,648     179,208           1,372              52
//! ```
//!
//! - **fjall 3** inserts fastest, as a log-structured tree does, but has lost acknowledged writes where it matters here: silently
//!   after reopening (fjall-rs/fjall issue 112), `SyncAll` returning success for a journal that was not written (issue 304, July 2026),
//!   a batch that failed half-way making later, acknowledged ones unreadable (issue 308, August 2026). It also takes seconds to
//!   reopen, for it reads its journal again. All closed; too recent for a record that must hold for ever.
//! - **SQLite** has the best record of all and the densest file, and is as fast. But its default build checks no page when it reads
//!   one, so a flipped bit makes a spent state look unspent; to put checks, or a simulated power cut, beneath it takes a VFS in
//!   unsafe C. The rare WAL-reset bug (3.7.0 to 3.51.2, fixed in March 2026) shows that age is no proof either.
//! - **redb** is pure Rust and lets its file be replaced by ours ([`redb::StorageBackend`]), so that we check what it does not and
//!   cut the power beneath it in every test run. Its own record: corruption above 4 GiB (cberner/redb pull request 516, 2023), after
//!   transient I/O errors (pull request 836, 2024), of failed commits used on (pull request 1309, August 2026); reads that check no
//!   page and believed 8163 of 8224 flipped bytes (issue 1334, August 2026); and, with one-phase commits only, silent roll-back by
//!   a crash during repair (pull request 1290, July 2026). Hence: two-phase commits always; quick repair always, so that there is
//!   no repair; after any error a new handle; seals; and of its API only tables, `get`, `insert`, `range`, `iter`.
//!
//! # What to expect as it grows
//! A commit in a copy-on-write tree rewrites about two blocks for each random key, and a file too large for the memory reads one.
//! So inserts slow down with size, as the table shows, and further with the share
//! of the file that the system cannot cache; quick repair adds the allocator's state, tens of KiB a commit for each GiB of file.
//! That is not flat. Opening is: it reads the allocator's state and 4 MiB of seals. If commits must be flat at fifty
//! million states, keep the log and its seals, and put a log-structured index behind `ledger`.

mod examine;
mod file;
mod ledger;
mod overlay;
mod reader;
mod sealed;
mod tables;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

pub use examine::examine;
pub use file::OpenError;
pub use reader::{Figures, LogEntry, LoggedOutcome, LoggedRepeat, LoggedRequest, ReadError, Reader};
pub use verify::verify;

use crate::domain::{CheckedRequest, Timestamp, Verdict, X500Name};
use crate::ports::uniqueness::CommitError;
use crate::ports::{BoxFuture, Probe, UniquenessProvider};
use file::{Medium, StoreFile};
use ledger::{Ledger, Slot, Totals, TotalsNow};

/// Batches that wait for the writer beside the one it commits. The worker's own limit on commits in flight is the real one; this
/// one holds if somebody has none.
const QUEUE_BATCHES_MAX: usize = 4;

/// How a store is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The worker's name, for the log.
    pub worker: X500Name,
    /// Memory for cached pages, in bytes. More of it saves reads of a store larger than it; the system caches the file as well.
    pub cache_bytes_max: usize,
    /// Whether to make a new store where there is none. A worker that was ever started must not: with a wrong path it would
    /// begin to forget.
    pub create: bool,
}

impl Options {
    /// The cache of a worker that nobody told otherwise, in bytes: it holds the upper levels of the trees up to some hundred
    /// million states, so that a look-up reads one page.
    pub const CACHE_BYTES_DEFAULT: usize = 32 << 20;

    /// For the worker with this name; makes a store where there is none.
    pub fn new(worker: X500Name) -> Self {
        Self { worker, cache_bytes_max: Self::CACHE_BYTES_DEFAULT, create: true }
    }
}

/// The embedded store.
#[derive(Debug)]
pub struct Embedded {
    /// Taken when it is dropped.
    writer: Option<Writer>,
    totals: Arc<Totals>,
    slot: Slot,
    busy: Busy,
    path: PathBuf,
}

/// Since when the writer is at work on one batch, if it is.
type Busy = Arc<Mutex<Option<Instant>>>;

/// A batch that takes longer than this waits for a disk that does not answer: the largest request, 10 000 states, takes about 2 s
/// on the slowest disk measured.
const BATCH_PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

struct Job {
    batch: Vec<CheckedRequest>,
    now: Timestamp,
    answer: oneshot::Sender<Result<Vec<Verdict>, CommitError>>,
}

impl Embedded {
    /// Opens the store at `path`, for this handle alone, and starts its writer. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`OpenError`], which names the file.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        if !options.create && !file::exists(path)? {
            return Err(OpenError::Missing { path: path.into() });
        }
        let file = StoreFile::lock(path)?;
        if options.create && !file::exists(path)? {
            tracing::warn!(path = %path.display(), "there is no store here: making a new one, in which nothing is spent");
            file.create(|backend| {
                ledger::create(backend, options.cache_bytes_max).map_err(|error| OpenError::redb(path, error))
            })?;
        }
        Self::start(Ledger::open(file, options.worker, options.cache_bytes_max)?, path)
    }

    fn start<M: Medium>(ledger: Ledger<M>, path: &Path) -> Result<Self, OpenError> {
        let (slot, totals, busy) = (ledger.slot(), ledger.totals(), Busy::default());
        let (queue, jobs) = mpsc::channel(QUEUE_BATCHES_MAX);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn({
                let busy = Arc::clone(&busy);
                move || write(&ledger, jobs, &busy)
            })
            .map_err(|error| OpenError::io(path, error))?;
        Ok(Self { writer: Some(Writer { queue, thread }), totals, slot, busy, path: path.into() })
    }

    /// What the store holds, as of the last commit. Cheap: it reads no record.
    pub fn figures(&self) -> Figures {
        Figures::new(TotalsNow::of(&self.totals), &self.path)
    }

    /// Reads the records beside the writer.
    pub fn reader(&self) -> Reader {
        Reader::live(Arc::clone(&self.slot), self.path.clone())
    }
}

/// The writer thread: one batch after another, until nobody can send one any more.
fn write<M: Medium>(ledger: &Ledger<M>, mut jobs: mpsc::Receiver<Job>, busy: &Busy) {
    let since = |moment| *busy.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    while let Some(Job { batch, now, answer }) = jobs.blocking_recv() {
        since(Some(Instant::now()));
        let verdicts = ledger.commit(&batch, now);
        since(None);
        // Whoever stopped waiting can ask again; the store remembers.
        let _ = answer.send(verdicts);
    }
    ledger.close();
}

impl UniquenessProvider for Embedded {
    fn commit<'a>(
        &'a self,
        batch: &'a [CheckedRequest],
        now: Timestamp,
    ) -> BoxFuture<'a, Result<Vec<Verdict>, CommitError>> {
        Box::pin(async move {
            let closed = || CommitError::Unavailable("the store is closed".into());
            let (answer, answered) = oneshot::channel();
            let job = Job { batch: batch.to_vec(), now, answer };
            self.writer.as_ref().ok_or_else(closed)?.queue.send(job).await.map_err(|_| closed())?;
            let lost = || CommitError::OutcomeUnknown("the store's writer stopped".into());
            answered.await.unwrap_or_else(|_| Err(lost()))
        })
    }
}

/// Open, and not waiting for its disk. A store that failed works again once it was opened and written again; the look itself does
/// both, as there are no batches to do it while the worker is out of the queue.
impl Probe for Embedded {
    fn part(&self) -> &'static str {
        "store"
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let busy = *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            match busy.map(|since| since.elapsed()) {
                Some(waited) if waited > BATCH_PATIENCE => {
                    return Err(format!("the disk has not answered for {} s", waited.as_secs()));
                }
                Some(_) => return Ok(()),
                None => {}
            }
            let open = self.slot.lock().unwrap_or_else(PoisonError::into_inner).is_some();
            match open {
                true => Ok(()),
                false => self.commit(&[], Timestamp::from_millis(0)).await.map(drop).map_err(|error| error.to_string()),
            }
        })
    }
}

/// Finishes what was begun and closes the file; blocks for at most the batches in the queue.
impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(Writer { queue, thread }) = self.writer.take() {
            drop(queue);
            if thread.join().is_err() {
                tracing::error!(path = %self.path.display(), "the store's writer panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests;
