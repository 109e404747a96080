//! The store's file: who may open it, how it comes into being, how it is opened again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::sealed::{RING_BLOCKS, Sealed};

/// Why a store did not open. Every kind names the file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it, or another handle in this one.
    #[error("the store {path} is in use{by}: one worker opens it at a time", path = path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// By whom, if that is known: ` by process 4711`.
        by: String,
    },
    /// There is none, and none was to be made.
    #[error("there is no store at {path}", path = path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is not a store, or it is damaged. The worker never repairs what it did not expect; restore a copy.
    #[error("the store {path} cannot be trusted: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It was written by another version of this program.
    #[error("the store {path} has format {found}; this worker knows format {known} only", path = path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u64,
        /// The format known.
        known: u64,
    },
    /// The operating system refused.
    #[error("the store {path} did not open", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Self::Damaged { path: path.into(), reason: source.to_string() }
            }
            _ => Self::Io { path: path.into(), source },
        }
    }

    /// What redb says of a file it opens or reads.
    pub(super) fn redb(path: &Path, error: impl Into<redb::Error>) -> Self {
        match error.into() {
            redb::Error::DatabaseAlreadyOpen => Self::InUse { path: path.into(), by: String::new() },
            redb::Error::Io(source) => Self::io(path, source),
            error => Self::Damaged { path: path.into(), reason: error.to_string() },
        }
    }
}

/// Where a ledger's bytes are: something that can be opened, and opened again after a failure.
pub(super) trait Medium: Send + 'static {
    type Backend: StorageBackend;

    /// Opens what is there; never makes a new one.
    fn open(&self) -> Result<Self::Backend, OpenError>;

    fn path(&self) -> &Path;
}

/// A store's file, locked for this handle as long as it lives.
#[derive(Debug)]
pub(super) struct StoreFile {
    path: PathBuf,
    /// A file of its own, because the lock must be there before the store is and while it is opened again.
    lock: File,
}

impl StoreFile {
    /// Locks the file at `path`, whether it exists or not.
    pub(super) fn lock(path: &Path) -> Result<Self, OpenError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            create_dir_durably(parent).map_err(|error| OpenError::io(path, error))?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(beside(path, "lock"))
            .map_err(|error| OpenError::io(path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Best effort: the name only helps an operator to find the other process.
                let _ = Read::by_ref(&mut lock).take(20).read_to_string(&mut holder);
                let by = if holder.is_empty() { String::new() } else { format!(" by process {}", holder.trim()) };
                return Err(OpenError::InUse { path: path.into(), by });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::io(path, error)),
        }
        let named =
            lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
        named.map_err(|error| OpenError::io(path, error))?;
        Ok(Self { path: path.into(), lock })
    }

    /// Makes a new store: `fill` gets an empty file, which takes the store's name only once it is complete and durable. So a
    /// crash leaves either no store or a whole one.
    pub(super) fn create(
        &self,
        fill: impl FnOnce(Sealed<FileBackend>) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let fail = |error| OpenError::io(&self.path, error);
        let unfinished = beside(&self.path, "new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished);
        let file = backend(&self.path, file.map_err(fail)?)?;
        fill(Sealed::create(file, RING_BLOCKS).map_err(fail)?)?;
        let durable = File::open(&unfinished).and_then(|file| file.sync_all());
        durable.and_then(|()| fs::rename(&unfinished, &self.path)).map_err(fail)?;
        sync_dir(&self.path).map_err(fail)
    }
}

/// Unlocks by name: closing does not, as long as a process that is just being started still has a copy of the descriptor.
impl Drop for StoreFile {
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "the store's lock is only released by closing it");
        }
    }
}

impl Medium for StoreFile {
    type Backend = Sealed<FileBackend>;

    fn open(&self) -> Result<Sealed<FileBackend>, OpenError> {
        open_sealed(&self.path, OpenOptions::new().read(true).write(true))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether there is a store at `path`.
pub(super) fn exists(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(|error| OpenError::io(path, error))
}

/// Opens the file at `path` for reading only.
pub(super) fn open_to_read(path: &Path) -> Result<Sealed<FileBackend>, OpenError> {
    open_sealed(path, OpenOptions::new().read(true))
}

fn open_sealed(path: &Path, options: &OpenOptions) -> Result<Sealed<FileBackend>, OpenError> {
    match options.open(path) {
        Ok(file) => Sealed::open(backend(path, file)?).map_err(|error| OpenError::io(path, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::Missing { path: path.into() }),
        Err(error) => Err(OpenError::io(path, error)),
    }
}

fn backend(path: &Path, file: File) -> Result<FileBackend, OpenError> {
    FileBackend::new(file).map_err(|error| OpenError::redb(path, error))
}

/// What the file takes on the disk, in bytes: less than its length, as it grows in steps and has holes.
pub(super) fn bytes_on_disk(path: &Path) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(metadata.blocks() * 512) // The unit of `st_blocks`, whatever the file system's own.
    }
    #[cfg(not(unix))]
    Ok(metadata.len())
}

/// A file beside the store, with an ending more.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

/// Makes a directory and its parents, each durable before the next is made in it.
fn create_dir_durably(dir: &Path) -> io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        create_dir_durably(parent)?;
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_dir(dir),
    }
}

/// Makes the directory entry of `path` durable.
fn sync_dir(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Elsewhere a directory cannot be opened as a file; there a rename is as durable as the system makes it.
    if cfg!(unix) { File::open(parent)?.sync_all() } else { Ok(()) }
}
