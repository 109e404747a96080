//! The layer of seals alone.

use redb::StorageBackend;

use super::disk::{Disk, Survival};
use super::{RING_BLOCKS, Random, Sealed};

const BLOCK: usize = 4096;

fn block(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(BLOCK / 8)
}

fn read(file: &Sealed<Disk>, number: u64) -> std::io::Result<Vec<u8>> {
    let mut data = vec![0; BLOCK];
    file.read(number * BLOCK as u64, &mut data).map(|()| data)
}

/// A file of 1200 blocks, in three groups.
fn filled() -> (Disk, Sealed<Disk>) {
    let disk = Disk::default();
    let file = Sealed::create(disk.clone(), RING_BLOCKS).expect("empty");
    file.set_len(1200 * BLOCK as u64).expect("grows");
    for number in 0..1200 {
        file.write(number * BLOCK as u64, &block(number)).expect("writes");
    }
    file.sync_data().expect("syncs");
    (disk, file)
}

#[test]
fn lengths_are_those_of_the_blocks_alone() {
    let file = Sealed::create(Disk::default(), RING_BLOCKS).expect("empty");
    assert_eq!(file.len().expect("works"), 0);
    for blocks in [1, 2, 511, 512, 513, 1023, 1024, 1025, 5000, 512, 1, 0, 7] {
        file.set_len(blocks * BLOCK as u64).expect("works");
        assert_eq!(file.len().expect("works"), blocks * BLOCK as u64);
    }
}

#[test]
fn what_was_written_is_read_across_groups_and_after_opening_again() {
    let (disk, file) = filled();
    let check = |file: &Sealed<Disk>| {
        for (first, count) in [(1, 1), (500, 30), (511, 2), (0, 1200)] {
            let mut data = vec![0; count * BLOCK];
            file.read(first * BLOCK as u64, &mut data).expect("whole");
            let expected: Vec<u8> = (first..first + count as u64).flat_map(block).collect();
            assert!(data == expected, "{count} blocks from {first} on");
        }
    };
    check(&file);
    check(&Sealed::open(disk).expect("opens"));
}

#[test]
fn every_flipped_bit_of_a_block_is_noticed() {
    let (disk, file) = filled();
    drop(file);
    let image = disk.image();
    // Block 700's bytes, found by what they are.
    let place = image.windows(16).position(|bytes| bytes == &block(700)[..16]).expect("it is there");
    let mut random = Random::new(1);
    for _ in 0..500 {
        let mut rotten = image.clone();
        rotten[place + random.below(BLOCK as u64) as usize] ^= 1 << random.below(8);
        disk.set_image(rotten);
        let file = Sealed::open(disk.clone()).expect("opens");
        assert!(read(&file, 700).is_err());
        assert_eq!(read(&file, 701).expect("whole"), block(701));
    }
}

#[test]
fn a_block_in_the_wrong_place_is_refused() {
    let (disk, file) = filled();
    drop(file);
    let mut image = disk.image();
    let place = |image: &[u8], n: u64| image.windows(16).position(|bytes| bytes == &block(n)[..16]).expect("there");
    let (from, to) = (place(&image, 3), place(&image, 4));
    image.copy_within(from..from + BLOCK, to);
    disk.set_image(image);
    let file = Sealed::open(disk).expect("opens");
    assert_eq!(read(&file, 3).expect("whole"), block(3));
    assert!(read(&file, 4).is_err(), "a whole block, but not this one");
}

#[test]
fn a_write_that_the_disk_lost_is_refused() {
    let (disk, file) = filled();
    let place = disk.image().windows(16).position(|bytes| bytes == &block(9)[..16]).expect("there");
    file.write(9 * BLOCK as u64, &block(9_000)).expect("writes");
    file.sync_data().expect("the disk says that it did");
    let mut image = disk.image();
    image[place..place + BLOCK].copy_from_slice(&block(9));
    disk.set_image(image);

    assert!(read(&file, 9).is_err(), "whole and in its place, but of yesterday");
    assert!(read(&Sealed::open(disk).expect("opens"), 9).is_err());
}

/// Goal: seals of synced blocks hold through any number of rounds of the ring and a power cut anywhere. Method: a random history
/// of writes that, like the engine's, never touches a block that the last sync made durable.
#[test]
fn seals_of_synced_blocks_survive_power_loss_anywhere() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let disk = Disk::default();
        let file = Sealed::create(disk.clone(), RING_BLOCKS).expect("empty");
        file.set_len(1200 * BLOCK as u64).expect("grows");
        file.sync_data().expect("syncs");
        disk.cut_power_at(random.below(400));
        // Content of the live blocks, as of the last sync that returned.
        let mut live: std::collections::BTreeMap<u64, u64> = std::collections::BTreeMap::new();
        let mut content = 0;
        'power: loop {
            let mut next = live.clone();
            for _ in 0..1 + random.below(12) {
                let number = 1 + random.below(1199);
                if live.contains_key(&number) {
                    next.remove(&number); // Freed: it may be written after the next sync.
                    continue;
                }
                content += 1;
                if file.write(number * BLOCK as u64, &block(content)).is_err() {
                    break 'power;
                }
                next.insert(number, content);
            }
            if file.sync_data().is_err() {
                break;
            }
            live = next;
        }
        let survival = Survival::ALL[random.below(Survival::ALL.len() as u64) as usize];
        let disk = disk.after_power_loss(survival, seed);
        let file = Sealed::open(disk).expect("opens");
        for (number, content) in &live {
            let found = read(&file, *number).unwrap_or_else(|error| panic!("seed {seed}, {survival:?}: {error}"));
            assert!(found == block(*content), "seed {seed}, {survival:?}: block {number} changed");
        }
    }
}
