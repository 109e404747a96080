//! A file that is opened to be read only, although the engine insists on writing.
//!
//! The engine opens a file whose last writer was killed, or checks one, only if it may write: a flag, a header, the allocator's
//! state. This layer lets it, in memory. So an operator can look at a store, or at a copy on a disk that cannot be written,
//! without touching the evidence.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

/// A backend that keeps what is written in memory and leaves what is below untouched. Opened, read and closed, the engine writes
/// a few thousandths of the file.
#[derive(Debug)]
pub(super) struct Overlay<B> {
    below: B,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Up to here the bytes below show where nothing was written; a file that was cut and grown again is zero beyond.
    below_len: u64,
    blocks: HashMap<u64, Vec<u8>>,
}

/// The unit in which written bytes are kept: redb's page.
const BLOCK: u64 = 4096;

impl<B: StorageBackend> Overlay<B> {
    pub(super) fn over(below: B) -> io::Result<Self> {
        let len = below.len()?;
        Ok(Self { below, written: Mutex::new(Written { len, below_len: len, blocks: HashMap::new() }) })
    }

    /// Calls `visit` with each block that `offset..offset + len` touches, its place in the range, and the place in the block.
    fn each_block(
        offset: u64,
        len: usize,
        mut visit: impl FnMut(u64, Range<usize>, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let inside = (at % BLOCK) as usize;
            let step = (BLOCK as usize - inside).min(len - done);
            visit(at / BLOCK, done..done + step, inside)?;
            done += step;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as it is below, of which `below_len` bytes show.
    fn block_below(&self, block: u64, below_len: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; BLOCK as usize];
        if (block + 1) * BLOCK <= below_len {
            self.below.read(block * BLOCK, &mut bytes)?;
        }
        Ok(bytes)
    }
}

impl<B: StorageBackend> StorageBackend for Overlay<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.lock();
        if offset + out.len() as u64 > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::each_block(offset, out.len(), |block, range, inside| {
            let part = inside..inside + range.len();
            match written.blocks.get(&block) {
                Some(bytes) => out[range].copy_from_slice(&bytes[part]),
                None => out[range].copy_from_slice(&self.block_below(block, written.below_len)?[part]),
            }
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.lock();
        written.blocks.retain(|block, _| block * BLOCK < len);
        written.len = len;
        written.below_len = written.below_len.min(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.lock();
        let Written { below_len, blocks, .. } = &mut *written;
        Self::each_block(offset, data.len(), |block, range, inside| {
            let bytes = match blocks.entry(block) {
                Entry::Occupied(bytes) => bytes.into_mut(),
                Entry::Vacant(room) => room.insert(self.block_below(block, *below_len)?),
            };
            bytes[inside..inside + range.len()].copy_from_slice(&data[range]);
            Ok(())
        })
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }

    // The engine locks for writing. A lock for reading is enough, works on a file that cannot be written, and conflicts with a
    // worker all the same.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.query_lock_range(start, end)
    }
}
