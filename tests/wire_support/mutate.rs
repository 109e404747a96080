//! Changes to real messages, drawn from a seed: some to the bytes, some to the tree so that lengths stay true.

use super::amqp::{MAGIC, Tree, Width, reference};

/// Splitmix64: small, and every seed gives another sequence.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// A message changed once or a few times.
pub(crate) fn mutated(messages: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = messages[dice.below(messages.len())].clone();
    // One change mostly: it must get past the first check to reach the next.
    for _ in 0..=[0, 0, 0, 1, 3][dice.below(5)] {
        bytes = match dice.below(4) {
            0 => change_bytes(bytes, messages, dice),
            _ => change_tree(bytes, messages, dice),
        };
    }
    bytes
}

fn change_bytes(mut bytes: Vec<u8>, messages: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    let place = dice.below(bytes.len());
    match dice.below(6) {
        0 => bytes[place] ^= 1 << dice.below(8),
        1 => bytes[place] = [0x00, 0x40, 0x45, 0x54, 0xa0, 0xa1, 0xa3, 0xc0, 0xc1, 0xd0, 0xd1, 0xff][dice.below(12)],
        2 => {
            bytes.remove(place);
        }
        3 => bytes.insert(place, dice.next() as u8),
        4 => bytes.truncate(place),
        _ => {
            let other = &messages[dice.below(messages.len())];
            let from = dice.below(other.len());
            let length = dice.below(64).min(other.len() - from);
            bytes.splice(place..place, other[from..from + length].iter().copied());
        }
    }
    bytes
}

/// Changes one value, found by its number in the order of a walk. Bytes that are no message are left to the other kind.
fn change_tree(bytes: Vec<u8>, messages: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let Some(mut tree) = read(&bytes) else { return change_bytes(bytes, messages, dice) };
    let donor = read(&messages[dice.below(messages.len())]);
    // Mostly the body: the schema has more values, but few ways to be wrong.
    let part = match &mut tree {
        Tree::Described(_, envelope) => match &mut **envelope {
            Tree::List(parts) if !parts.is_empty() && dice.below(5) != 0 => &mut parts[0],
            other => other,
        },
        other => other,
    };
    let mut count = 0;
    part.each(&mut |_| count += 1);
    let (chosen, mut number) = (dice.below(count), 0);
    part.each(&mut |value| {
        if number == chosen {
            change_value(value, donor.as_ref(), messages, dice);
        }
        number += 1;
    });
    let width = if dice.below(8) == 0 { Width::Widest } else { Width::Narrow };
    tree.to_message(width)
}

/// Takes a message apart, if it is one that the test's own reader understands.
fn read(bytes: &[u8]) -> Option<Tree> {
    bytes.starts_with(MAGIC).then(|| Tree::try_of_message(bytes)).flatten()
}

fn change_value(value: &mut Tree, donor: Option<&Tree>, messages: &[Vec<u8>], dice: &mut Dice) {
    let any_value = |dice: &mut Dice| match dice.below(11) {
        0 => Tree::Null,
        1 => Tree::Int([0, 1, -1, i32::MIN, i32::MAX][dice.below(5)]),
        2 => Tree::Long([0, 1, -1, i64::MIN, i64::MAX][dice.below(5)]),
        3 => Tree::Bool(true),
        4 => Tree::Text(["", "SHA-256", "SHA-384", "error", "é"][dice.below(5)].into()),
        5 => Tree::Bytes(vec![0xff; [0, 1, 31, 32, 48, 300][dice.below(6)]]),
        6 => Tree::List(vec![]),
        7 => reference(dice.below(64) as u32),
        8 => Tree::UInt(7),
        9 => Tree::ULong(dice.next()),
        _ => Tree::Map(vec![]),
    };
    match value {
        Tree::List(parts) | Tree::Map(parts) if !parts.is_empty() => {
            let (a, b) = (dice.below(parts.len()), dice.below(parts.len()));
            match dice.below(6) {
                0 => {
                    parts.remove(a);
                }
                1 => {
                    let again = parts[a].clone();
                    parts.insert(b, again);
                }
                2 => parts.swap(a, b),
                3 => parts[a] = any_value(dice),
                4 => parts[a] = reference(dice.below(64) as u32),
                _ => {
                    let again = parts[a].clone();
                    parts.extend(vec![again; dice.below(200)]);
                }
            }
        }
        // A message within the message: change it in turn.
        Tree::Bytes(bytes) if bytes.starts_with(MAGIC) && dice.below(4) != 0 => {
            *bytes = change_tree(std::mem::take(bytes), messages, dice);
        }
        Tree::Symbol(_) | Tree::Text(_) if dice.below(2) == 0 => {
            let mut found = Vec::new();
            if let Some(donor) = donor {
                donor.clone().each(&mut |value| {
                    if matches!(value, Tree::Symbol(_) | Tree::Text(_)) {
                        found.push(value.clone());
                    }
                });
            }
            if !found.is_empty() {
                let place = dice.below(found.len());
                *value = found.swap_remove(place);
            }
        }
        Tree::Int(value) if dice.below(3) != 0 => *value = [0, 1, -1, 127, 128, i32::MIN, i32::MAX][dice.below(7)],
        Tree::Long(value) if dice.below(3) != 0 => *value = [0, 1, -1, 127, 128, i64::MIN, i64::MAX][dice.below(7)],
        Tree::Bytes(bytes) if !bytes.is_empty() && dice.below(3) != 0 => {
            let place = dice.below(bytes.len());
            bytes[place] ^= 1 << dice.below(8);
        }
        value => *value = any_value(dice),
    }
}
