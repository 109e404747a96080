//! A file whose every block has a seal, so that a damaged block is *refused when it is read* instead of being believed.
//!
//! redb keeps a checksum of each page, but looks at it only in a repair or an integrity check. A flipped bit in a key would make
//! a spent state look unspent until then; and redb may panic on a page that it did not write. So redb does not see the file: it
//! sees this layer, which knows the seal of every block, a 64-bit digest of its bytes and its number. What is read must match:
//! a flipped bit, a block written to the wrong place, and a write that the disk lost are all refused.
//!
//! ```text
//! superblock | ring: the seals of recent writes, in order | group | group | group ...
//!                                                          group: one block of 512 seals, then the 512 blocks
//! ```
//!
//! A commit writes blocks all over the file. Writing their seals in place would write as many blocks again; instead they are
//! appended to the ring, one block for 254 of them, and go with the same sync. When the ring is full, the seal blocks that are
//! behind are written in place, all together, and the ring begins anew.
//!
//! Power loss. redb overwrites no block that its last durable commit needs, except block 0, its header, whose parts carry redb's
//! own checksums and whose switch is one byte; so block 0 has no seal. Seals of all other blocks that matter are in the ring
//! from the sync that made the blocks durable until a sync made their places durable. Writing a seal block in place writes the
//! other seals' bytes unchanged, and a torn write of it is mended by the ring, which is read again at the next opening.
//!
//! What a seal is not: a defence against somebody who can write the file. It is no keyed digest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{BackendError, StorageBackend};

/// redb's page size, and what a file system writes at least.
const BLOCK: usize = 4096;
/// Seals that fill a block.
const GROUP: u64 = (BLOCK / 8) as u64;
/// Says what kind of file this is. The control characters catch a transfer in text mode, as in PNG.
const MAGIC: [u8; 12] = *b"NOTARY\x1a\r\n\x00st";
/// Version of the layout in this module.
const VERSION: u32 = 1;
/// Ring blocks of a new file: some hundreds of full batches between two rounds of writing in place; 4 MiB to read at opening.
pub(crate) const RING_BLOCKS: u32 = 1024;
/// A ring block: digest of the rest, its number in the order of writing, the number up to which seals are in place, how many
/// seals follow; then block number and seal of each.
const RING_HEAD: usize = 32;
const RING_SEALS: usize = (BLOCK - RING_HEAD) / 16;
/// Seal blocks kept in memory, at most: 64 MiB of them, for a file of 32 GiB. A larger file reads some again.
const GROUPS_CACHED_MAX: usize = 16_384;

/// Sealed blocks over a backend that keeps bytes.
#[derive(Debug)]
pub(crate) struct Sealed<B> {
    inner: B,
    ring_blocks: u64,
    seals: Mutex<Seals>,
}

#[derive(Debug)]
struct Seals {
    /// Seal blocks as they are in the file.
    in_place: HashMap<u64, Box<[u8; BLOCK]>>,
    /// Block and seal of every write since the seals in place were written.
    recent: BTreeMap<u64, u64>,
    /// Those of them that are not in the ring yet.
    pending: BTreeSet<u64>,
    /// Where the next ring block goes, and its number.
    next_slot: u64,
    next_number: u64,
    /// The number of the last ring block whose seals are all in place.
    in_place_up_to: u64,
}

impl<B: StorageBackend> Sealed<B> {
    /// Begins a sealed file in `inner`, which is empty.
    ///
    /// # Errors
    /// Those of `inner`, or [`io::ErrorKind::AlreadyExists`] if it is not empty.
    pub(crate) fn create(inner: B, ring_blocks: u32) -> io::Result<Self> {
        if inner.len()? != 0 {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the new file is not empty"));
        }
        let sealed = Self::new(inner, ring_blocks);
        sealed.inner.set_len(sealed.position(0))?;
        sealed.inner.write(0, &superblock(VERSION, ring_blocks))?;
        // Written, the ring has its place on the disk: a disk that fills up does not stop it in the middle of a round.
        for slot in 0..sealed.ring_blocks {
            sealed.inner.write(Self::slot_position(slot), &[0; BLOCK])?;
        }
        Ok(sealed)
    }

    /// Opens the sealed file in `inner`; writes nothing.
    ///
    /// # Errors
    /// Those of `inner`, or [`io::ErrorKind::InvalidData`] if it is no such file, is damaged, or is of another version.
    pub(crate) fn open(inner: B) -> io::Result<Self> {
        let mut found = superblock(VERSION, 0);
        if inner.len()? < BLOCK as u64 {
            return Err(invalid("the file is too short to be a store"));
        }
        inner.read(0, &mut found)?;
        if found[..MAGIC.len()] != MAGIC {
            return Err(invalid("the file is not a store of this worker"));
        }
        let (body, seal) = found.split_at(found.len() - 8);
        if word(seal) != digest(u64::MAX, body) {
            return Err(invalid("the superblock is damaged"));
        }
        let ring_blocks = word(&body[16..]) as u32;
        if found != superblock(VERSION, ring_blocks) {
            return Err(invalid("the file's layout is of a version that this worker does not know"));
        }
        let sealed = Self::new(inner, ring_blocks);
        // redb would begin a new database in a file without blocks.
        if sealed.inner.len()? <= sealed.position(0) {
            return Err(invalid("the file is too short to be a store"));
        }
        sealed.read_ring()?;
        Ok(sealed)
    }

    fn new(inner: B, ring_blocks: u32) -> Self {
        let seals = Seals {
            in_place: HashMap::new(),
            recent: BTreeMap::new(),
            pending: BTreeSet::new(),
            next_slot: 0,
            next_number: 1,
            in_place_up_to: 0,
        };
        Self { inner, ring_blocks: ring_blocks.into(), seals: Mutex::new(seals) }
    }

    fn lock(&self) -> MutexGuard<'_, Seals> {
        self.seals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `block` is.
    fn position(&self, block: u64) -> u64 {
        (1 + self.ring_blocks + block / GROUP + 1 + block) * BLOCK as u64
    }

    /// Where the seals of the group `group` are: before its first block.
    fn seals_position(&self, group: u64) -> u64 {
        self.position(group * GROUP) - BLOCK as u64
    }

    fn slot_position(slot: u64) -> u64 {
        (1 + slot) * BLOCK as u64
    }

    /// Takes the seals from the ring that may not be in place.
    ///
    /// A ring block that does not read is one whose sync did not return, so that nothing depends on it; or it is damaged, and then
    /// the blocks it vouched for are refused.
    fn read_ring(&self) -> io::Result<()> {
        let mut ring = vec![0; self.ring_blocks as usize * BLOCK];
        self.inner.read(Self::slot_position(0), &mut ring)?;
        let mut found: Vec<(u64, u64, &[u8])> = (0..)
            .zip(ring.chunks_exact(BLOCK))
            .filter(|(_, block)| word(block) == digest(0, &block[8..]))
            .map(|(slot, block)| (word(&block[8..]), slot, block))
            .collect();
        found.sort_unstable_by_key(|(number, ..)| *number);
        let Some((last_number, last_slot, last)) = found.last() else { return Ok(()) };
        let mut seals = self.lock();
        seals.in_place_up_to = word(&last[16..]);
        (seals.next_slot, seals.next_number) = (last_slot + 1, last_number + 1);
        for (number, _, block) in &found {
            if *number > seals.in_place_up_to {
                let count = (word(&block[24..]) as usize).min(RING_SEALS);
                let pairs = block[RING_HEAD..].chunks_exact(16).take(count);
                seals.recent.extend(pairs.map(|pair| (word(pair), word(&pair[8..]))));
            }
        }
        Ok(())
    }

    /// The blocks of the group `group`'s seals as they are in the file; zero where it has not grown to.
    fn seals_in_place<'a>(&self, seals: &'a mut Seals, group: u64) -> io::Result<&'a mut [u8; BLOCK]> {
        if seals.in_place.len() >= GROUPS_CACHED_MAX && !seals.in_place.contains_key(&group) {
            seals.in_place.clear();
        }
        match seals.in_place.entry(group) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::hash_map::Entry::Vacant(room) => {
                let mut block = Box::new([0; BLOCK]);
                let position = self.seals_position(group);
                if position + BLOCK as u64 <= self.inner.len()? {
                    self.inner.read(position, &mut *block)?;
                }
                Ok(room.insert(block))
            }
        }
    }

    fn check(&self, block: u64, data: &[u8]) -> io::Result<()> {
        let found = digest(block, data);
        let mut seals = self.lock();
        let seal = match seals.recent.get(&block) {
            Some(seal) => *seal,
            None => word(&self.seals_in_place(&mut seals, block / GROUP)?[(block % GROUP) as usize * 8..]),
        };
        match seal == found {
            true => Ok(()),
            false => Err(invalid(&format!("block {block} is damaged: it does not match its seal"))),
        }
    }

    /// Appends the pending seals to the ring, and syncs.
    fn sync_to_ring(&self, seals: &mut Seals) -> io::Result<()> {
        let pending: Vec<(u64, u64)> = seals.pending.iter().map(|block| (*block, seals.recent[block])).collect();
        for pairs in pending.chunks(RING_SEALS) {
            self.write_slot(seals, pairs)?;
        }
        self.inner.sync_data()?;
        seals.pending.clear();
        Ok(())
    }

    fn write_slot(&self, seals: &mut Seals, pairs: &[(u64, u64)]) -> io::Result<()> {
        let mut slot = vec![0; BLOCK];
        let head = [seals.next_number, seals.in_place_up_to, pairs.len() as u64];
        let words = head.into_iter().chain(pairs.iter().flat_map(|(block, seal)| [*block, *seal]));
        for (word, bytes) in words.zip(slot[8..].chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let sealed = digest(0, &slot[8..]);
        slot[..8].copy_from_slice(&sealed.to_le_bytes());
        self.inner.write(Self::slot_position(seals.next_slot), &slot)?;
        (seals.next_slot, seals.next_number) = (seals.next_slot + 1, seals.next_number + 1);
        Ok(())
    }

    /// Writes all recent seals in place, and syncs; then begins the ring anew with a block that says so, and syncs again. Until
    /// that block is durable the old ring counts, and it contradicts only seals of blocks that nothing depends on yet.
    fn sync_in_place(&self, seals: &mut Seals) -> io::Result<()> {
        let end = self.inner.len()?;
        let groups: BTreeSet<u64> = seals.recent.keys().map(|block| block / GROUP).collect();
        for group in groups {
            let recent = seals.recent.range(group * GROUP..(group + 1) * GROUP);
            let recent: Vec<(u64, u64)> = recent.map(|(block, seal)| (*block, *seal)).collect();
            let in_place = self.seals_in_place(seals, group)?;
            for (block, seal) in recent {
                in_place[(block % GROUP) as usize * 8..][..8].copy_from_slice(&seal.to_le_bytes());
            }
            // A group that the file was cut by needs no seals.
            if self.seals_position(group) + (BLOCK as u64) <= end {
                self.inner.write(self.seals_position(group), &in_place[..])?;
            }
        }
        self.inner.sync_data()?;
        seals.recent.clear();
        seals.pending.clear();
        (seals.next_slot, seals.in_place_up_to) = (0, seals.next_number);
        self.write_slot(seals, &[])?;
        self.inner.sync_data()
    }
}

impl<B: StorageBackend> StorageBackend for Sealed<B> {
    fn len(&self) -> io::Result<u64> {
        let blocks = (self.inner.len()? / BLOCK as u64).saturating_sub(1 + self.ring_blocks);
        Ok((blocks - blocks.div_ceil(GROUP + 1)) * BLOCK as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let block = offset / BLOCK as u64;
        if block == 0 && offset + out.len() as u64 <= BLOCK as u64 {
            return self.inner.read(self.position(0) + offset, out);
        }
        whole_blocks(offset, out.len())?;
        for (block, data) in in_groups(block, out.len()) {
            let data = &mut out[data];
            self.inner.read(self.position(block), data)?;
            for (block, data) in (block..).zip(data.chunks_exact(BLOCK)).filter(|(block, _)| *block != 0) {
                self.check(block, data)?;
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        whole_blocks(0, len as usize)?;
        self.inner.set_len(match len / BLOCK as u64 {
            0 => self.position(0) - BLOCK as u64,
            blocks => self.position(blocks - 1) + BLOCK as u64,
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut seals = self.lock();
        match seals.next_slot + seals.pending.len().div_ceil(RING_SEALS) as u64 <= self.ring_blocks {
            true => self.sync_to_ring(&mut seals),
            false => self.sync_in_place(&mut seals),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let block = offset / BLOCK as u64;
        if block == 0 && offset + data.len() as u64 <= BLOCK as u64 {
            return self.inner.write(self.position(0) + offset, data);
        }
        whole_blocks(offset, data.len())?;
        {
            let mut seals = self.lock();
            for (block, data) in (block..).zip(data.chunks_exact(BLOCK)).filter(|(block, _)| *block != 0) {
                seals.recent.insert(block, digest(block, data));
                seals.pending.insert(block);
            }
        }
        in_groups(block, data.len()).try_for_each(|(block, range)| self.inner.write(self.position(block), &data[range]))
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// Cuts `len` bytes from `block` on where groups begin: first block and range of bytes of each part.
fn in_groups(block: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let first = block + (done / BLOCK) as u64;
        let step = ((GROUP - first % GROUP) as usize * BLOCK).min(len - done);
        done += step;
        (step > 0).then(|| (first, done - step..done))
    })
}

/// redb reads and writes whole pages, except for its header.
fn whole_blocks(offset: u64, len: usize) -> io::Result<()> {
    match offset.is_multiple_of(BLOCK as u64) && len.is_multiple_of(BLOCK) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not whole blocks")),
    }
}

/// Magic, version, size of the ring, digest of the three.
fn superblock(version: u32, ring_blocks: u32) -> [u8; 28] {
    let mut superblock = [0; 28];
    superblock[..12].copy_from_slice(&MAGIC);
    superblock[12..16].copy_from_slice(&version.to_le_bytes());
    superblock[16..20].copy_from_slice(&ring_blocks.to_le_bytes());
    let sealed = digest(u64::MAX, &superblock[..20]);
    superblock[20..].copy_from_slice(&sealed.to_le_bytes());
    superblock
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The first eight bytes, or as many as there are, little end first.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let len = bytes.len().min(8);
    word[..len].copy_from_slice(&bytes[..len]);
    u64::from_le_bytes(word)
}

/// The digest of `data` as block `block`: four lanes of FNV-1a over 64-bit words, folded. Every step is a bijection of the lane
/// and of the word, so a change confined to one word always changes the digest; any other goes unnoticed once in 2^64. Four
/// lanes because a multiplication takes four cycles: some 0.3 µs a block.
fn digest(block: u64, data: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    let step = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(PRIME);
        mixed ^ (mixed >> 32)
    };
    let mut lanes = [OFFSET, OFFSET ^ 1, OFFSET ^ 2, OFFSET ^ 3];
    let mut chunks = data.chunks_exact(32);
    for chunk in &mut chunks {
        for (lane, bytes) in lanes.iter_mut().zip(chunk.chunks_exact(8)) {
            *lane = step(*lane, word(bytes));
        }
    }
    for (lane, bytes) in lanes.iter_mut().zip(chunks.remainder().chunks(8)) {
        *lane = step(*lane, word(bytes));
    }
    let digest = lanes.into_iter().fold(step(OFFSET, block), step);
    // A hole in the file reads as zero, which must not pass for a seal.
    step(digest, data.len() as u64).max(1)
}
