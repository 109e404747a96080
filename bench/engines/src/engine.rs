//! The candidates behind one trait, each with the settings under which a commit survives power loss.

use std::path::Path;

use crate::sealed::{self, Sealed};

/// Length of a state's key under SHA-256: tag, digits, index.
pub const KEY_LEN: usize = 37;
pub type Key = [u8; KEY_LEN];

/// Memory each engine may use for its cache: what a worker would grant.
const CACHE: usize = 64 << 20;

pub const NAMES: [&str; 5] = ["redb-repair", "redb-quick", "redb-sealed", "sqlite", "fjall"];

pub trait Engine {
    /// Looks every key up (none may be there), inserts it, and commits; returns once it is durable.
    fn insert(&mut self, batch: &[(Key, u64)]);
    fn get(&mut self, key: &Key) -> Option<u64>;
}

pub fn open(name: &str, dir: &Path) -> Box<dyn Engine> {
    match name {
        // Two-phase commit, but a killed process leaves a file that must be walked whole.
        "redb-repair" => Box::new(Redb::open(dir, false, false)),
        // Every commit also writes the allocator's state, so that nothing has to be walked.
        "redb-quick" => Box::new(Redb::open(dir, true, false)),
        // The same over sealed blocks.
        "redb-sealed" => Box::new(Redb::open(dir, true, true)),
        "sqlite" => Box::new(Sqlite::open(dir)),
        "fjall" => Box::new(Fjall::open(dir)),
        _ => unreachable!("main checked the name"),
    }
}

struct Redb {
    db: redb::Database,
    quick_repair: bool,
}

const TABLE: redb::TableDefinition<&[u8], u64> = redb::TableDefinition::new("states");

impl Redb {
    fn open(dir: &Path, quick_repair: bool, sealed: bool) -> Self {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("redb"))
            .expect("open");
        let file = redb::backends::FileBackend::new(file).expect("open");
        let mut builder = redb::Builder::new();
        builder.set_cache_size(CACHE);
        let db = match sealed {
            true if dir.join("redb").metadata().expect("open").len() == 0 => {
                builder.create_with_backend(Sealed::create(file, sealed::RING_BLOCKS).expect("create"))
            }
            true => builder.create_with_backend(Sealed::open(file).expect("open")),
            false => builder.create_with_backend(file),
        };
        Self { db: db.expect("open"), quick_repair }
    }
}

impl Engine for Redb {
    fn insert(&mut self, batch: &[(Key, u64)]) {
        use redb::ReadableTable;
        let mut transaction = self.db.begin_write().expect("begin");
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(self.quick_repair);
        {
            let mut table = transaction.open_table(TABLE).expect("table");
            for (key, value) in batch {
                assert!(table.get(key.as_slice()).expect("get").is_none());
                table.insert(key.as_slice(), value).expect("insert");
            }
        }
        transaction.commit().expect("commit");
    }

    fn get(&mut self, key: &Key) -> Option<u64> {
        use redb::{ReadableDatabase, ReadableTable};
        let table = self.db.begin_read().expect("begin").open_table(TABLE).expect("table");
        let value = ReadableTable::get(&table, key.as_slice()).expect("get");
        value.map(|value| value.value())
    }
}

struct Sqlite(rusqlite::Connection);

impl Sqlite {
    fn open(dir: &Path) -> Self {
        let db = rusqlite::Connection::open(dir.join("sqlite")).expect("open");
        db.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -{};
             CREATE TABLE IF NOT EXISTS states (key BLOB PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;",
            CACHE >> 10
        ))
        .expect("settings");
        Self(db)
    }
}

impl Engine for Sqlite {
    fn insert(&mut self, batch: &[(Key, u64)]) {
        let transaction = self.0.transaction().expect("begin");
        {
            let mut get = transaction.prepare_cached("SELECT value FROM states WHERE key = ?1").expect("select");
            let mut put = transaction.prepare_cached("INSERT INTO states VALUES (?1, ?2)").expect("insert");
            for (key, value) in batch {
                assert!(!get.exists([key.as_slice()]).expect("get"));
                put.execute(rusqlite::params![key.as_slice(), *value as i64]).expect("insert");
            }
        }
        transaction.commit().expect("commit");
    }

    fn get(&mut self, key: &Key) -> Option<u64> {
        use rusqlite::OptionalExtension;
        let mut get = self.0.prepare_cached("SELECT value FROM states WHERE key = ?1").expect("select");
        let value: Option<i64> = get.query_row([key.as_slice()], |row| row.get(0)).optional().expect("get");
        value.map(|value| value as u64)
    }
}

struct Fjall {
    db: fjall::Database,
    states: fjall::Keyspace,
}

impl Fjall {
    fn open(dir: &Path) -> Self {
        let db = fjall::Database::builder(dir).cache_size(CACHE as u64).open().expect("open");
        let states = db.keyspace("states", fjall::KeyspaceCreateOptions::default).expect("keyspace");
        Self { db, states }
    }
}

impl Engine for Fjall {
    fn insert(&mut self, batch: &[(Key, u64)]) {
        let mut write = self.db.batch().durability(Some(fjall::PersistMode::SyncAll));
        for (key, value) in batch {
            assert!(self.states.get(key).expect("get").is_none());
            write.insert(&self.states, key, value.to_be_bytes());
        }
        write.commit().expect("commit");
    }

    fn get(&mut self, key: &Key) -> Option<u64> {
        let value = self.states.get(key).expect("get");
        value.map(|value| u64::from_be_bytes(value.as_ref().try_into().expect("8 bytes")))
    }
}
