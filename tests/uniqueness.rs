//! The uniqueness suite, on every store.

use notary_worker::ports::UniquenessProvider;
use notary_worker::sql::embedded::Options;
use notary_worker::sql::{Embedded, Memory};
use suite::{Fixture, uniqueness_suite};

#[expect(unreachable_pub, reason = "a suite is written as if it were a library")]
#[path = "suites/uniqueness.rs"]
mod suite;

uniqueness_suite!(memory, Memory);
uniqueness_suite!(embedded, EmbeddedFixture);

impl Fixture for Memory {
    fn new() -> Self {
        Self::new()
    }

    fn store(&self) -> &dyn UniquenessProvider {
        self
    }

    fn reopen(&mut self) {
        *self = self.clone(); // Another worker on the same records.
    }
}

struct EmbeddedFixture {
    dir: tempfile::TempDir,
    store: Option<Embedded>,
}

impl EmbeddedFixture {
    fn open(dir: &tempfile::TempDir) -> Embedded {
        Embedded::open(dir.path().join("store"), Options::new(suite::party("Worker"))).expect("the store opens")
    }
}

impl Fixture for EmbeddedFixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory for tests");
        let store = Some(Self::open(&dir));
        Self { dir, store }
    }

    fn store(&self) -> &dyn UniquenessProvider {
        self.store.as_ref().expect("empty only while it is opened again")
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(Self::open(&self.dir));
    }
}
