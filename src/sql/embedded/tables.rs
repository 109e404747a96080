//! What the embedded store writes: its tables and the form of its records. A change here is a change of [`FORMAT`].
//!
//! ```text
//! meta          name -> number                   format, and totals that verification counts again
//! log           seq -> record                    one per transaction, in the order of decisions: the truth
//! transactions  transaction -> seq               what was decided about it: look in the log
//! states        state -> seq                     consumed, by the transaction with this number
//! repeats       (seq, identity) -> record        who asked again, how often, when last
//! names         kind and name -> id              identities and workers, written once
//! names_by_id   id -> kind and name
//! ```
//!
//! Numbers in records are LEB128, little end first; signed ones are zigzagged. Only the log has a transaction's id in full where
//! a state has a number of six bytes, and a refusal needs no list of states: those of its states that were consumed under a
//! lower number than its own are its conflicts, today and in ten years.

use redb::TableDefinition;

use crate::domain::{TimeWindow, Timestamp, TxId, X500Name};

/// Version of everything in this module.
pub(super) const FORMAT: u64 = 1;

pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const TRANSACTIONS: TableDefinition<&[u8], SeqBytes> = TableDefinition::new("transactions");
pub(super) const STATES: TableDefinition<&[u8], SeqBytes> = TableDefinition::new("states");
pub(super) const REPEATS: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("repeats");
pub(super) const NAMES: TableDefinition<&[u8], u32> = TableDefinition::new("names");
pub(super) const NAMES_BY_ID: TableDefinition<u32, &[u8]> = TableDefinition::new("names_by_id");

/// Keys of [`META`].
pub(super) mod meta {
    pub(in super::super) const FORMAT: &str = "format";
    pub(in super::super) const COMMITTED: &str = "committed";
    pub(in super::super) const REJECTED: &str = "rejected";
    pub(in super::super) const REPEATS: &str = "repeats";
}

/// A transaction's number in the order of decisions, from 1, as the indexes keep it: six bytes last for 890 years at ten
/// thousand transactions a second.
pub(super) type SeqBytes = [u8; 6];

pub(super) fn seq_bytes(seq: u64) -> SeqBytes {
    let [high @ .., a, b, c, d, e, f] = seq.to_be_bytes();
    assert_eq!(high, [0; 2], "six bytes hold every number a store lives to see");
    [a, b, c, d, e, f]
}

pub(super) fn seq_of(bytes: SeqBytes) -> u64 {
    let [a, b, c, d, e, f] = bytes;
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// A record that does not read as this module writes it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a record of the table \"{0}\" is malformed")]
pub(super) struct Malformed(pub(super) &'static str);

/// What the first decision about a transaction said, as recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Committed,
    Conflict,
    TimeWindowInvalid(TimeWindow),
}

/// A record of [`LOG`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LogRecord<'a> {
    pub(super) kind: Kind,
    pub(super) tx_id: TxId,
    /// The moment of the decision; also the moment that a [`Kind::TimeWindowInvalid`] names.
    pub(super) decided_at: Timestamp,
    /// Numbers of input and reference states.
    pub(super) inputs: u64,
    pub(super) references: u64,
    /// Ids in [`NAMES_BY_ID`].
    pub(super) requester: u32,
    pub(super) worker: u32,
    pub(super) platform_version: i32,
    pub(super) signature: &'a [u8],
}

impl<'a> LogRecord<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(192); // Fits the usual record: 33 + 64 + some twenty bytes.
        match self.kind {
            Kind::Committed => out.push(0),
            Kind::Conflict => out.push(1),
            Kind::TimeWindowInvalid(window) => {
                out.push(match window {
                    TimeWindow::Between { .. } => 2,
                    TimeWindow::From(_) => 3,
                    TimeWindow::Until(_) => 4,
                });
                window.from().into_iter().chain(window.until()).for_each(|end| put_timestamp(&mut out, end));
            }
        }
        self.tx_id.write_key(&mut out);
        put_timestamp(&mut out, self.decided_at);
        for number in [self.inputs, self.references, self.requester.into(), self.worker.into()] {
            put_number(&mut out, number);
        }
        put_number(&mut out, zigzag(self.platform_version.into()));
        out.extend_from_slice(self.signature);
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::take(bytes).ok_or(Malformed("log"))
    }

    fn take(bytes: &'a [u8]) -> Option<Self> {
        let rest = &mut &*bytes;
        let kind = match take_bytes(rest, 1)?[0] {
            0 => Kind::Committed,
            1 => Kind::Conflict,
            2 => Kind::TimeWindowInvalid(TimeWindow::Between {
                from: take_timestamp(rest)?,
                until: take_timestamp(rest)?,
            }),
            3 => Kind::TimeWindowInvalid(TimeWindow::From(take_timestamp(rest)?)),
            4 => Kind::TimeWindowInvalid(TimeWindow::Until(take_timestamp(rest)?)),
            _ => return None,
        };
        Some(Self {
            kind,
            tx_id: take_tx_id(rest)?,
            decided_at: take_timestamp(rest)?,
            inputs: take_number(rest)?,
            references: take_number(rest)?,
            requester: take_number(rest)?.try_into().ok()?,
            worker: take_number(rest)?.try_into().ok()?,
            platform_version: unzigzag(take_number(rest)?).try_into().ok()?,
            signature: rest,
        })
    }
}

/// A record of [`REPEATS`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RepeatRecord<'a> {
    pub(super) count: u64,
    pub(super) last_seen: Timestamp,
    /// The asker's first signature; empty if the log has one of this asker already.
    pub(super) signature: &'a [u8],
}

impl<'a> RepeatRecord<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_number(&mut out, self.count);
        put_timestamp(&mut out, self.last_seen);
        out.extend_from_slice(self.signature);
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let rest = &mut &*bytes;
        let take = |rest: &mut &'a [u8]| {
            Some(Self { count: take_number(rest)?, last_seen: take_timestamp(rest)?, signature: rest })
        };
        take(rest).ok_or(Malformed("repeats"))
    }
}

/// What [`NAMES`] gives an id to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Name<'a> {
    /// Who asked, and with which key: the key's SubjectPublicKeyInfo.
    Requester(X500Name, &'a [u8]),
    /// Which worker decided.
    Worker(X500Name),
}

impl<'a> Name<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (tag, name, key) = match self {
            Self::Requester(name, key) => (b'r', name, *key),
            Self::Worker(name) => (b'w', name, &[][..]),
        };
        let mut out = vec![tag];
        let X500Name { common_name, organisation_unit, organisation, locality, state, country } = name;
        let (required, optional) = ([organisation, locality, country], [common_name, organisation_unit, state]);
        for text in required.into_iter().map(Some).chain(optional.map(Option::as_ref)) {
            // A length one higher than the text's, so that zero says "absent".
            put_number(&mut out, text.map_or(0, |text| text.len() as u64 + 1));
            out.extend_from_slice(text.map_or(&[], |text| text.as_bytes()));
        }
        out.extend_from_slice(key);
        out
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::take(bytes).ok_or(Malformed("names_by_id"))
    }

    fn take(bytes: &'a [u8]) -> Option<Self> {
        let rest = &mut &*bytes;
        let tag = take_bytes(rest, 1)?[0];
        let text = |rest: &mut &'a [u8]| match take_number(rest)? {
            0 => Some(None),
            length => String::from_utf8(take_bytes(rest, length - 1)?.to_vec()).ok().map(Some),
        };
        let name = X500Name {
            organisation: text(rest)??,
            locality: text(rest)??,
            country: text(rest)??,
            common_name: text(rest)?,
            organisation_unit: text(rest)?,
            state: text(rest)?,
        };
        match tag {
            b'r' => Some(Self::Requester(name, rest)),
            b'w' => rest.is_empty().then_some(Self::Worker(name)),
            _ => None,
        }
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take_bytes(rest, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

fn put_timestamp(out: &mut Vec<u8>, moment: Timestamp) {
    put_number(out, zigzag(moment.seconds()));
    put_number(out, moment.nanos().into());
}

fn take_timestamp(rest: &mut &[u8]) -> Option<Timestamp> {
    let seconds = unzigzag(take_number(rest)?);
    Timestamp::new(seconds, take_number(rest)?.try_into().ok()?)
}

fn take_tx_id(rest: &mut &[u8]) -> Option<TxId> {
    let algorithm = crate::domain::HashAlgorithm::from_tag(*rest.first()?)?;
    TxId::from_key(take_bytes(rest, 1 + algorithm.digest_len() as u64)?)
}

fn take_bytes<'a>(rest: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count.try_into().ok()?)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{HashAlgorithm, SecureHash};

    fn moments() -> impl Strategy<Value = Timestamp> {
        (Timestamp::SECONDS_MIN..=Timestamp::SECONDS_MAX, 0..1_000_000_000u32)
            .prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).expect("in range"))
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Committed),
            Just(Kind::Conflict),
            (moments(), moments())
                .prop_map(|(from, until)| Kind::TimeWindowInvalid(TimeWindow::Between { from, until })),
            moments().prop_map(|from| Kind::TimeWindowInvalid(TimeWindow::From(from))),
            moments().prop_map(|until| Kind::TimeWindowInvalid(TimeWindow::Until(until))),
        ]
    }

    fn tx_ids() -> impl Strategy<Value = TxId> {
        (0..HashAlgorithm::ALL.len(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(algorithm, a, b)| {
            let algorithm = HashAlgorithm::ALL[algorithm];
            let digits = [a, b].concat();
            TxId(SecureHash::new(algorithm, &digits[..algorithm.digest_len()]).expect("its length"))
        })
    }

    proptest! {
        #[test]
        fn log_records_read_as_written_and_nothing_shorter_does(
            kind in kinds(),
            tx_id in tx_ids(),
            decided_at in moments(),
            (inputs, references, requester, worker) in any::<(u64, u64, u32, u32)>(),
            platform_version in any::<i32>(),
            signature in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let record = LogRecord {
                kind, tx_id, decided_at, inputs, references, requester, worker, platform_version, signature: &signature,
            };
            let bytes = record.encode();
            prop_assert_eq!(LogRecord::decode(&bytes), Ok(record));
            for length in 0..bytes.len() - signature.len() {
                prop_assert_eq!(LogRecord::decode(&bytes[..length]), Err(Malformed("log")));
            }
        }

        #[test]
        fn names_read_as_written(
            required in any::<[String; 3]>(),
            optional in any::<[Option<String>; 3]>(),
            key in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let [organisation, locality, country] = required;
            let [common_name, organisation_unit, state] = optional;
            let name = X500Name { common_name, organisation_unit, organisation, locality, state, country };
            for name in [Name::Requester(name.clone(), &key), Name::Worker(name.clone())] {
                let bytes = name.encode();
                prop_assert_eq!(Name::decode(&bytes), Ok(name));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LogRecord::decode(&bytes);
            let _ = RepeatRecord::decode(&bytes);
            let _ = Name::decode(&bytes);
        }

        #[test]
        fn numbers_are_ordered_as_their_bytes(a in 0..1u64 << 48, b in 0..1u64 << 48) {
            prop_assert_eq!(seq_of(seq_bytes(a)), a);
            prop_assert_eq!(seq_bytes(a).cmp(&seq_bytes(b)), a.cmp(&b));
        }
    }
}
