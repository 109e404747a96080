//! What a run did: a digest of it always, lines for people when a run is replayed, and counts of what it reached.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::random::split_mix;

/// Lines for people. Shared with whoever wants to read them even if the run panics.
pub(crate) type Lines = Rc<RefCell<Vec<String>>>;

/// Grows with a run. Two runs with equal digests did the same.
pub(crate) struct Trace {
    digest: u64,
    lines: Option<Lines>,
}

impl Trace {
    pub(crate) fn new(lines: Option<Lines>) -> Self {
        Self { digest: 0, lines }
    }

    /// Notes that `what` happened. `detail` is made only if somebody reads it, so whatever tells runs apart belongs in `marks`.
    pub(crate) fn note(&mut self, at_ms: u64, what: &'static str, marks: &[u64], detail: impl FnOnce() -> String) {
        self.mix(what, &[at_ms]);
        self.mix("", marks);
        if let Some(lines) = &self.lines {
            lines.borrow_mut().push(format!("{at_ms:>6} ms  {what:<18} {}", detail()));
        }
    }

    /// Adds to the digest only.
    pub(crate) fn mix(&mut self, what: &'static str, marks: &[u64]) {
        for number in what.bytes().map(u64::from).chain(marks.iter().copied()) {
            let mut state = self.digest ^ number;
            self.digest = split_mix(&mut state);
        }
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

/// How often each thing of interest happened: a simulation proves nothing about what it never reached.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn hit(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|(what, count)| *self.0.entry(what).or_default() += count);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(what, count)| (*what, *count))
    }
}
