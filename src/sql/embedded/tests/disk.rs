//! A disk in memory that keeps what is written apart from what is synced, and can lose the difference in the ways disks do.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::super::file::{Medium, OpenError};
use super::super::sealed::Sealed;
use super::Random;

pub(super) const PATH: &str = "simulated disk";

/// What disks write as one.
const SECTOR: usize = 512;

/// A handle; clones are the same disk.
#[derive(Clone, Default, Debug)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

#[derive(Default, Debug)]
struct Platter {
    /// As the system sees the file.
    seen: Vec<u8>,
    /// As of the last sync.
    synced: Vec<u8>,
    /// Since then, in order.
    unsynced: Vec<Change>,
    /// Writes, resizes and syncs so far.
    steps: u64,
    bytes_written: u64,
    cut_at: Option<u64>,
    fault: Fault,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Resize(usize),
}

/// What is wrong with the disk.
#[derive(Clone, Copy, Default, Debug)]
pub(super) enum Fault {
    #[default]
    None,
    /// No write succeeds once so many bytes were written since the disk was new.
    Full {
        after_bytes: u64,
    },
    /// The sync after so many others fails, once; what was to be synced may or may not be.
    NthSyncFails(u64),
    /// The same, and the bytes that were to be synced stay in the system's memory, never to be written: Linux marks such pages
    /// clean. The file's length is the file system's own business, which keeps it.
    NthSyncForgets(u64),
    SyncsDoNothing,
    ReadsFail,
}

/// What survives of the changes that were not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Survival {
    All,
    Nothing,
    /// Each sector has any of the contents it was given since the last sync, or the one before.
    Mixed,
    /// The changes up to one of them, which is torn.
    Prefix,
    /// The last change and nothing before it.
    LastOnly,
}

impl Survival {
    pub(super) const ALL: [Self; 5] = [Self::All, Self::Nothing, Self::Mixed, Self::Prefix, Self::LastOnly];
}

impl Disk {
    /// Writes, resizes and syncs so far.
    pub(super) fn steps(&self) -> u64 {
        self.lock().steps
    }

    pub(super) fn bytes_written(&self) -> u64 {
        self.lock().bytes_written
    }

    /// From step number `step` of now on, nothing works any more.
    pub(super) fn cut_power_at(&self, step: u64) {
        let mut platter = self.lock();
        platter.cut_at = Some(platter.steps + step);
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    pub(super) fn image(&self) -> Vec<u8> {
        self.lock().seen.clone()
    }

    pub(super) fn set_image(&self, image: Vec<u8>) {
        let mut platter = self.lock();
        (platter.seen, platter.synced) = (image.clone(), image);
        platter.unsynced.clear();
    }

    /// The disk of a machine that lost power now and has it again.
    pub(super) fn after_power_loss(&self, survival: Survival, seed: u64) -> Self {
        let platter = self.lock();
        let mut random = Random::new(seed);
        let mut image = platter.synced.clone();
        let changes = &platter.unsynced[..];
        match survival {
            Survival::All => changes.iter().for_each(|change| change.apply(&mut image)),
            Survival::Nothing => {}
            Survival::LastOnly => changes.iter().rev().take(1).for_each(|change| change.apply(&mut image)),
            Survival::Prefix => {
                let whole = random.below(changes.len() as u64 + 1) as usize;
                changes[..whole].iter().for_each(|change| change.apply(&mut image));
                if let Some(Change::Write(offset, data)) = changes.get(whole) {
                    let torn = random.below(data.len() as u64 / SECTOR as u64 + 1) as usize * SECTOR;
                    Change::Write(*offset, data[..torn.min(data.len())].to_vec()).apply(&mut image);
                }
            }
            Survival::Mixed => {
                // Sectors drop out one by one: a write that is cut into sectors, of which any may be missing, leaves each sector
                // with any of its contents.
                for change in changes {
                    match change {
                        Change::Resize(_) if random.below(3) > 0 => change.apply(&mut image),
                        Change::Resize(_) => {}
                        Change::Write(offset, data) => {
                            for part in sectors(*offset, data.len()).filter(|_| random.below(2) == 0) {
                                let bytes = data[part.start - offset..part.end - offset].to_vec();
                                Change::Write(part.start, bytes).apply(&mut image);
                            }
                        }
                    }
                }
            }
        }
        // A file system zeroes what a file was grown by and never lets it be shorter than what was synced.
        let disk = Self::default();
        disk.set_image(image);
        disk
    }

    fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ranges of `len` bytes from `offset` on, cut where sectors begin.
fn sectors(offset: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = offset + len;
    (offset / SECTOR..end.div_ceil(SECTOR))
        .map(move |sector| (sector * SECTOR).max(offset)..((sector + 1) * SECTOR).min(end))
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Resize(len) => image.resize(*len, 0),
            // A file whose growth was lost has no place for what was written there.
            Self::Write(offset, data) if offset + data.len() <= image.len() => {
                image[*offset..offset + data.len()].copy_from_slice(data);
            }
            Self::Write(..) => {}
        }
    }
}

impl Platter {
    fn is_off(&self) -> bool {
        self.cut_at.is_some_and(|cut_at| self.steps >= cut_at)
    }

    /// Begins a step, unless the power is off.
    fn step(&mut self) -> io::Result<()> {
        if self.is_off() {
            return Err(io::Error::other("no power"));
        }
        self.steps += 1;
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let platter = self.lock();
        if platter.is_off() || matches!(platter.fault, Fault::ReadsFail) {
            return Err(io::Error::other("cannot read"));
        }
        let range = offset as usize..offset as usize + out.len();
        let bytes = platter.seen.get(range).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.lock();
        platter.step()?;
        platter.change(Change::Resize(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.lock();
        platter.step()?;
        match platter.fault {
            Fault::SyncsDoNothing => return Ok(()),
            Fault::NthSyncFails(0) => {
                platter.fault = Fault::None;
                return Err(io::Error::other("cannot sync"));
            }
            Fault::NthSyncForgets(0) => {
                platter.fault = Fault::None;
                platter.unsynced.retain(|change| matches!(change, Change::Resize(_)));
                return Err(io::Error::other("cannot sync"));
            }
            Fault::NthSyncFails(nth) => platter.fault = Fault::NthSyncFails(nth - 1),
            Fault::NthSyncForgets(nth) => platter.fault = Fault::NthSyncForgets(nth - 1),
            Fault::None | Fault::Full { .. } | Fault::ReadsFail => {}
        }
        let Platter { synced, unsynced, .. } = &mut *platter;
        unsynced.drain(..).for_each(|change| change.apply(synced));
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platter = self.lock();
        platter.step()?;
        match platter.fault {
            Fault::Full { after_bytes } if platter.bytes_written + data.len() as u64 > after_bytes => {
                return Err(io::ErrorKind::StorageFull.into());
            }
            _ => platter.bytes_written += data.len() as u64,
        }
        if offset as usize + data.len() > platter.seen.len() {
            return Err(io::ErrorKind::InvalidInput.into()); // The engine resizes before it writes.
        }
        platter.change(Change::Write(offset as usize, data.to_vec()));
        Ok(())
    }
}

impl Medium for Disk {
    type Backend = Sealed<Disk>;

    fn open(&self) -> Result<Sealed<Disk>, OpenError> {
        Sealed::open(self.clone()).map_err(|error| OpenError::io(self.path(), error))
    }

    fn path(&self) -> &Path {
        Path::new(PATH)
    }
}
