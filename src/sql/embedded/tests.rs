//! The embedded store on a disk that fails: power cut at every step, full, erring, rotten.

mod disk;
mod rot;
mod seals;

use std::collections::HashMap;

use super::file::OpenError;
use super::ledger::{self, Ledger};
use super::sealed::Sealed;
use super::tables;
use super::verify::verify_backend;
use crate::domain::request::RequestParts;
use crate::domain::transaction::RequestSignature;
use crate::domain::{
    CheckedRequest, HashAlgorithm, PublicKey, SecureHash, StateRef, TimeWindow, Timestamp, TxId, Verdict, X500Name,
};
use crate::ports::uniqueness::CommitError;
use crate::ports::{Probe, UniquenessProvider};
use crate::sql::Memory;
use disk::{Disk, Fault};

/// Small, so that pages are evicted and read again.
const CACHE_BYTES: usize = 64 << 10;
/// Small, so that the ring of seals begins anew every few commits.
const RING_BLOCKS: u32 = 4;

/// A store on `disk`, new and empty; what is on the disk is durable.
fn create(disk: &Disk) {
    let backend = Sealed::create(disk.clone(), RING_BLOCKS).expect("the disk is empty");
    ledger::create(backend, CACHE_BYTES).expect("the disk works");
}

fn open(disk: &Disk) -> Result<Ledger<Disk>, OpenError> {
    Ledger::open(disk.clone(), name("Worker"), CACHE_BYTES)
}

fn verify(disk: &Disk) -> Result<super::Figures, OpenError> {
    verify_backend(
        Sealed::open(disk.clone()).map_err(|error| OpenError::io(disk::PATH.as_ref(), error))?,
        disk::PATH.as_ref(),
    )
}

/// Batches over few states, some requests repeated, some with a window that closes while the history goes on.
fn history(seed: u64, batches: u64, requests: u64) -> Vec<(Timestamp, Vec<CheckedRequest>)> {
    let mut random = Random::new(seed);
    let mut made: Vec<CheckedRequest> = Vec::new();
    let batch = |epoch: u64| {
        for _ in 0..requests {
            if !made.is_empty() && random.below(5) == 0 {
                made.push(made[random.below(made.len() as u64) as usize].clone());
                continue;
            }
            let inputs = (0..random.below(4)).map(|_| state(random.below(requests * batches))).collect();
            let window = (random.below(4) == 0).then(|| TimeWindow::Until(at(epoch + random.below(3))));
            made.push(request(random.next(), inputs, window));
        }
        (at(epoch), made[made.len() - requests as usize..].to_vec())
    };
    (0..batches).map(batch).collect()
}

/// Commits the history until the store fails; returns what was acknowledged, and whether a batch was cut off.
type Told = Vec<(Timestamp, Vec<CheckedRequest>, Vec<Verdict>)>;

fn commit_all(ledger: &Ledger<Disk>, history: &[(Timestamp, Vec<CheckedRequest>)]) -> (Told, Option<CommitError>) {
    let mut told = Vec::new();
    for (now, batch) in history {
        match ledger.commit(batch, *now) {
            Ok(verdicts) => told.push((*now, batch.clone(), verdicts)),
            Err(error) => return (told, Some(error)),
        }
    }
    (told, None)
}

/// After an accident: the store opens, is whole, and stands by every verdict it gave. The batch that was cut off is there as a
/// whole or not at all, which shows in its verdicts: `later` is another moment, at which some windows are over. Then the rest of
/// the history runs.
fn stands_by_its_word(
    disk: &Disk,
    told: &Told,
    history: &[(Timestamp, Vec<CheckedRequest>)],
    context: &str,
) -> Ledger<Disk> {
    let ledger = open(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let later = at(1000);
    let (as_was, as_later) = (Memory::new(), Memory::new());
    for (now, batch, verdicts) in told {
        let again = ledger.commit(batch, later).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(&again, verdicts, "{context}: an acknowledged verdict changed");
        for model in [&as_was, &as_later] {
            assert_eq!(&model_commit(model, batch, *now), verdicts, "{context}: a wrong verdict");
        }
    }
    let mut rest = history[told.len()..].iter();
    if let Some((now, batch)) = rest.next() {
        let verdicts = ledger.commit(batch, later).unwrap_or_else(|error| panic!("{context}: {error}"));
        let (committed, not_committed) = (model_commit(&as_was, batch, *now), model_commit(&as_later, batch, later));
        assert!(
            verdicts == committed || verdicts == not_committed,
            "{context}: a batch is neither there nor not there"
        );
        let model = if verdicts == committed { as_was } else { as_later };
        for (now, batch) in rest {
            let verdicts = ledger.commit(batch, *now).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(verdicts, model_commit(&model, batch, *now), "{context}: wrong after the accident");
        }
    }
    ledger
}

fn model_commit(model: &Memory, batch: &[CheckedRequest], now: Timestamp) -> Vec<Verdict> {
    let commit = model.commit(batch, now);
    futures_util::FutureExt::now_or_never(commit).expect("memory does not wait").expect("memory does not fail")
}

/// Goal: power may go at any step of the disk. Method: one history, cut at every write, resize and sync in turn, with what was
/// not synced surviving in every manner of [`disk::Survival`].
#[test]
fn power_loss_at_every_step_loses_no_verdict() {
    let history = history(1, 5, 8);
    let blank = Disk::default();
    create(&blank);
    let steps = {
        let disk = blank.after_power_loss(disk::Survival::All, 0);
        let (told, failed) = commit_all(&open(&disk).expect("opens"), &history);
        assert_eq!((told.len(), failed), (history.len(), None));
        disk.steps()
    };
    assert!(steps > 50, "{steps} steps are too few to mean anything");
    for step in 0..steps {
        for survival in disk::Survival::ALL {
            let context = format!("cut at step {step}, {survival:?}");
            let disk = blank.after_power_loss(disk::Survival::All, 0);
            disk.cut_power_at(step);
            let told = open(&disk).map_or(Vec::new(), |ledger| commit_all(&ledger, &history).0);
            let disk = disk.after_power_loss(survival, step);
            drop(stands_by_its_word(&disk, &told, &history, &context));
            let figures = verify(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(figures.committed > 0, "{context}");
        }
    }
}

/// Goal: power may go again while the store recovers, and in larger files that grow. Method: seeds.
#[test]
fn power_loss_after_power_loss_loses_no_verdict() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let history = history(seed, 6, 120);
        let mut disk = Disk::default();
        create(&disk);
        let mut told: Told = Vec::new();
        for cut in 0..4 {
            let survival = disk::Survival::ALL[random.below(disk::Survival::ALL.len() as u64) as usize];
            disk = disk.after_power_loss(survival, random.next());
            disk.cut_power_at(random.below(1500));
            let Ok(ledger) = open(&disk) else { continue };
            let context = format!("seed {seed}, cut {cut}");
            for (now, batch) in &history {
                match ledger.commit(batch, *now) {
                    Ok(verdicts) => match told.iter().find(|(_, known, _)| known == batch) {
                        Some((_, _, known)) => assert_eq!(&verdicts, known, "{context}"),
                        None => told.push((*now, batch.clone(), verdicts)),
                    },
                    Err(_) => break,
                }
            }
        }
        let disk = disk.after_power_loss(disk::Survival::Mixed, seed);
        drop(stands_by_its_word(&disk, &told, &history, &format!("seed {seed}, the end")));
        verify(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// The simulated disk is worth something only if it catches a store that does not sync.
#[test]
fn a_disk_that_ignores_syncs_is_found_out() {
    let history = history(1, 5, 8);
    let mut caught = 0;
    for seed in 0..20 {
        let disk = Disk::default();
        create(&disk);
        let disk = disk.after_power_loss(disk::Survival::All, 0);
        disk.set_fault(Fault::SyncsDoNothing);
        let (told, _) = commit_all(&open(&disk).expect("opens"), &history);
        let disk = disk.after_power_loss(disk::Survival::Mixed, seed);
        let holds = std::panic::catch_unwind(|| drop(stands_by_its_word(&disk, &told, &history, "expected to fail")));
        caught += usize::from(holds.is_err());
    }
    assert!(caught >= 15, "{caught} of 20 losses were noticed");
}

#[test]
fn a_full_disk_fails_cleanly_and_heals() {
    let history = history(3, 12, 200);
    let disk = Disk::default();
    create(&disk);
    let ledger = open(&disk).expect("opens");
    disk.set_fault(Fault::Full { after_bytes: disk.bytes_written() + 600_000 });
    let (told, failed) = commit_all(&ledger, &history);
    assert!(!told.is_empty() && told.len() < history.len(), "the disk fills up within the history");
    assert!(failed.is_some());
    for _ in 0..3 {
        let (now, batch) = &history[told.len()];
        let error = ledger.commit(batch, *now).expect_err("the disk is still full");
        assert!(
            matches!(error, CommitError::Unavailable(_) | CommitError::Refused(_) | CommitError::OutcomeUnknown(_)),
            "{error}"
        );
    }

    disk.set_fault(Fault::None); // Somebody made room.

    for (_, batch, verdicts) in &told {
        assert_eq!(ledger.commit(batch, at(1000)).as_ref(), Ok(verdicts), "the same handle works again");
    }
    let (rest, failed) = commit_all(&ledger, &history[told.len()..]);
    assert_eq!((rest.len(), failed), (history.len() - told.len(), None));
    drop(ledger);
    verify(&disk).expect("whole");
}

/// Goal: readiness follows the disk (promise P5, row MO2). Method: fill it, look, make room, look, with no batch in between.
#[tokio::test]
async fn a_store_on_a_full_disk_is_seen_not_to_work_and_heals_without_a_batch() {
    let disk = Disk::default();
    create(&disk);
    let store = super::Embedded::start(open(&disk).expect("opens"), disk::PATH.as_ref()).expect("starts");
    let batch = [request(1, vec![state(1)], None)];
    assert_eq!(store.probe().await, Ok(()));

    disk.set_fault(Fault::Full { after_bytes: 0 });
    store.commit(&batch, at(0)).await.expect_err("the disk is full");
    for _ in 0..2 {
        store.probe().await.expect_err("it is still full");
    }

    disk.set_fault(Fault::None);
    assert_eq!(store.probe().await, Ok(()));
    assert!(matches!(store.commit(&batch, at(0)).await.expect("works")[..], [Verdict::Committed(_)]));
}

/// Goal: an error says what is known. Method: fail each sync of a commit in turn; the repeat comes when the window is over, so its
/// verdict shows whether the first try was written.
#[test]
fn a_failed_sync_leaves_the_outcome_unknown_and_the_repeat_decides() {
    let mut unknown = 0;
    for nth in 0.. {
        let disk = Disk::default();
        create(&disk);
        let ledger = open(&disk).expect("opens");
        let batch = [request(1, vec![state(1)], Some(TimeWindow::Until(at(10))))];
        disk.set_fault(Fault::NthSyncFails(nth));

        let first = ledger.commit(&batch, at(0));

        disk.set_fault(Fault::None);
        let again = ledger.commit(&batch, at(99)).expect("healed");
        match first {
            Ok(first) => {
                assert_eq!(again, first);
                break;
            }
            Err(CommitError::OutcomeUnknown(_)) => unknown += 1,
            Err(CommitError::Unavailable(_) | CommitError::Refused(_)) => {
                assert!(matches!(again[..], [Verdict::Rejected(_)]), "it was written")
            }
        }
        assert_eq!(ledger.commit(&batch, at(100)).expect("works"), again);
    }
    assert!(unknown >= 2, "a commit of two phases has two syncs");
}

/// Goal: after a failed sync the system may show what never reaches the disk; no verdict may rest on that. Method: fail each sync
/// of a history in turn, repeat what failed, and cut the power at the end.
#[test]
fn what_a_failed_sync_left_in_memory_is_not_built_upon() {
    let history = history(5, 6, 8);
    for nth in 0.. {
        let disk = Disk::default();
        create(&disk);
        let ledger = open(&disk).expect("opens");
        disk.set_fault(Fault::NthSyncForgets(nth));
        let mut failures = 0;
        let mut told = Told::new();
        for (now, batch) in &history {
            let verdicts = ledger.commit(batch, *now).or_else(|_| {
                failures += 1;
                ledger.commit(batch, *now)
            });
            told.push((*now, batch.clone(), verdicts.expect("healed")));
        }
        for survival in disk::Survival::ALL {
            let disk = disk.after_power_loss(survival, nth);
            let context = format!("sync {nth}, {survival:?}");
            drop(stands_by_its_word(&disk, &told, &history, &context));
            verify(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        }
        if failures == 0 {
            assert!(nth > 12, "{nth} syncs for {} commits of two phases", history.len());
            break;
        }
    }
}

#[test]
fn a_read_that_fails_before_the_commit_leaves_nothing_written() {
    let disk = Disk::default();
    create(&disk);
    let ledger = open(&disk).expect("opens");
    let (first, second) = (history(1, 1, 300).remove(0).1, history(2, 1, 300).remove(0).1);
    ledger.commit(&first, at(0)).expect("works");
    disk.set_fault(Fault::ReadsFail);

    let error = ledger.commit(&second, at(0)).expect_err("the cache is too small to do without reads");

    assert!(matches!(error, CommitError::Refused(_)), "{error}");
    disk.set_fault(Fault::None);
    drop(ledger);
    let figures = verify(&disk).expect("whole");
    assert_eq!(figures.transactions() + figures.repeats, 300, "of the first batch only");
}

#[test]
fn a_store_that_went_back_in_time_is_not_opened_again() {
    let disk = Disk::default();
    create(&disk);
    let ledger = open(&disk).expect("opens");
    ledger.commit(&[request(1, vec![state(1)], None)], at(0)).expect("works");
    let old = disk.image();
    ledger.commit(&[request(2, vec![state(2)], None)], at(0)).expect("works");
    disk.set_fault(Fault::NthSyncFails(0));
    ledger.commit(&[request(3, vec![state(3)], None)], at(0)).expect_err("so that the file is opened again");
    disk.set_fault(Fault::None);
    disk.set_image(old);

    let error = ledger.commit(&[request(4, vec![state(2)], None)], at(0)).expect_err("state 2 was spent");

    assert!(
        matches!(&error, CommitError::Unavailable(reason) | CommitError::Refused(reason) if reason.contains("fewer transactions")),
        "{error}"
    );
}

#[test]
fn a_store_of_another_format_is_refused() {
    let disk = Disk::default();
    create(&disk);
    let database = ledger::open_database(Sealed::open(disk.clone()).expect("opens"), CACHE_BYTES).expect("opens");
    let transaction = database.begin_write().expect("works");
    transaction.open_table(tables::META).expect("works").insert(tables::meta::FORMAT, 2).expect("works");
    transaction.commit().expect("works");
    drop(database);

    for error in [open(&disk).err(), verify(&disk).err()] {
        assert!(matches!(error, Some(OpenError::UnknownFormat { found: 2, known: 1, .. })), "{error:?}");
    }
}

/// Goal: the integrity check finds what no checksum can. Method: records are changed behind the ledger's back.
#[test]
fn verification_finds_records_that_contradict_each_other() {
    type Change = fn(&redb::WriteTransaction);
    let changes: [(&str, Change); 7] = [
        ("states that number 3 consumed are missing", |transaction| {
            drop(transaction.open_table(tables::STATES).expect("works").remove(state(3).to_key().as_slice()));
        }),
        ("consumed under number 4, which did not", |transaction| {
            let mut states = transaction.open_table(tables::STATES).expect("works");
            states.insert(state(3).to_key().as_slice(), tables::seq_bytes(4)).expect("works");
        }),
        ("transactions are indexed", |transaction| {
            let mut transactions = transaction.open_table(tables::TRANSACTIONS).expect("works");
            transactions.insert(TxId(hash(b"ghost", 0)).to_key().as_slice(), tables::seq_bytes(4)).expect("works");
        }),
        ("number 5 in the log and", |transaction| {
            let mut transactions = transaction.open_table(tables::TRANSACTIONS).expect("works");
            transactions.remove(TxId(hash(b"transaction", 5)).to_key().as_slice()).expect("works");
        }),
        ("the log has 7 where 6 belongs", |transaction| {
            drop(transaction.open_table(tables::LOG).expect("works").remove(6));
        }),
        ("the totals say", |transaction| {
            transaction.open_table(tables::META).expect("works").insert(tables::meta::REPEATS, 1).expect("works");
        }),
        ("names have", |transaction| {
            transaction.open_table(tables::NAMES).expect("works").remove(&[][..]).expect("works");
            transaction.open_table(tables::NAMES).expect("works").insert(&b"x"[..], 9).expect("works");
        }),
    ];
    for (expected, change) in changes {
        let disk = Disk::default();
        create(&disk);
        let batch: Vec<_> = (1..9).map(|n| request(n, vec![state(n)], None)).collect();
        open(&disk).expect("opens").commit(&batch, at(0)).expect("works");
        verify(&disk).expect("whole so far");
        let database = ledger::open_database(Sealed::open(disk.clone()).expect("opens"), CACHE_BYTES).expect("opens");
        let transaction = database.begin_write().expect("works");
        change(&transaction);
        transaction.commit().expect("works");
        drop(database);

        let error = verify(&disk).expect_err(expected).to_string();

        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_600_000_000_000 + seconds as i64 * 1000)
}

fn hash(kind: &[u8], n: u64) -> SecureHash {
    HashAlgorithm::Sha256.digest(&[kind, &n.to_be_bytes()]).expect("SHA-256")
}

fn state(n: u64) -> StateRef {
    StateRef { tx_id: TxId(hash(b"state", n)), index: 0 }
}

fn name(organisation: &str) -> X500Name {
    X500Name {
        common_name: None,
        organisation_unit: None,
        organisation: organisation.into(),
        locality: "Oslo".into(),
        state: None,
        country: "NO".into(),
    }
}

fn request(n: u64, mut inputs: Vec<StateRef>, time_window: Option<TimeWindow>) -> CheckedRequest {
    let mut spki = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00, 0x58];
    spki.extend([0x66; 31]); // Ed25519's base point.
    let mut seen = HashMap::new();
    inputs.retain(|state| seen.insert(*state, ()).is_none());
    CheckedRequest::assume_checked(RequestParts {
        tx_id: TxId(hash(b"transaction", n)),
        inputs,
        references: Vec::new(),
        time_window,
        requester: name("Alice"),
        request_signature: RequestSignature {
            by: PublicKey::from_spki(&spki).expect("a key"),
            bytes: n.to_be_bytes().repeat(8),
            platform_version: 13,
        },
    })
}
