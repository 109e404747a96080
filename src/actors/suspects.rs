//! Messages that make the worker panic. A panic ends the worker, the supervisor starts it again, and the broker delivers the same
//! message again: without a memory of its own the pool would circle round one poisonous message for ever (fault F32).
//!
//! While a message is inspected its thread keeps it at hand; a panic there appends the message's digest to a file before the
//! process ends. A message that has done so three times is parked with the reason instead of being looked at again.
//! Nobody else's delivery count is touched.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

/// How often one message may end the worker: the third time can be no accident, and each time costs a restart.
const PANICS_MAX: u32 = 3;
/// The file is read at the start of a worker; one longer than this is not ours.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The longest reason that is kept, in characters.
const REASON_CHARS_MAX: usize = 200;

thread_local! {
    /// The message that this thread inspects.
    static AT_HAND: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Where the panic hook writes; one worker a process.
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// The messages that made earlier lives of this worker panic.
#[derive(Default, Debug)]
pub struct Suspects(HashMap<String, (u32, String)>);

impl Suspects {
    /// Reads what earlier lives of the worker noted in `file`, if there is one; the panic hook notes there what is to come.
    ///
    /// # Errors
    /// Whatever reading fails with, but for a missing file.
    pub fn open(file: &Path) -> std::io::Result<Self> {
        let text = match fs::metadata(file) {
            Ok(about) if about.len() > FILE_BYTES_MAX => {
                return Err(std::io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
            }
            Ok(_) => fs::read_to_string(file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // Later workers of one process, as in tests, keep the first one's file.
        let _ = FILE.set(file.to_owned());
        let mut suspects: HashMap<String, (u32, String)> = HashMap::new();
        for (digest, reason) in text.lines().filter_map(|line| line.split_once(' ')) {
            let entry = suspects.entry(digest.to_owned()).or_default();
            *entry = (entry.0 + 1, reason.to_owned());
        }
        Ok(Self(suspects))
    }

    /// Inspects a message, unless it has made the worker panic too often.
    ///
    /// # Errors
    /// Why it must be parked.
    pub fn inspect<T>(&self, message: Vec<u8>, inspect: impl FnOnce(&[u8]) -> T) -> Result<T, String> {
        // Nothing is digested as long as nothing ever went wrong.
        if !self.0.is_empty()
            && let Some((panics, reason)) = self.0.get(&digest(&message))
            && *panics >= PANICS_MAX
        {
            return Err(format!("made this worker panic {panics} times: {reason}"));
        }
        AT_HAND.set(Some(message));
        let found = AT_HAND.with_borrow(|message| inspect(message.as_deref().unwrap_or_default()));
        AT_HAND.set(None);
        Ok(found)
    }
}

/// Notes the message that this thread inspects, if it does, as the cause of a panic. For the panic hook.
pub fn accuse(reason: &str) {
    let Some(file) = FILE.get() else { return };
    let digest = AT_HAND.with(|at_hand| at_hand.try_borrow().ok().and_then(|message| message.as_deref().map(digest)));
    let Some(digest) = digest else { return };
    let reason: String = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
    let noted = fs::OpenOptions::new().create(true).append(true).open(file).and_then(|mut file| {
        file.write_all(format!("{digest} {reason}\n").as_bytes())?;
        file.sync_data()
    });
    if let Err(error) = noted {
        eprintln!("notary: {}: the message that did it could not be noted: {error}", file.display());
    }
}

fn digest(message: &[u8]) -> String {
    hex::encode(Sha256::digest(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_made_the_worker_panic_three_times_is_not_looked_at_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("suspects");
        for life in 0..PANICS_MAX {
            let suspects = Suspects::open(&file).expect("readable");
            assert_eq!(suspects.inspect(b"innocent".to_vec(), <[u8]>::len), Ok(8));
            let looked = suspects.inspect(b"poison".to_vec(), |_| accuse("index out\nof bounds"));
            assert_eq!(looked, Ok(()), "life {life}");
        }
        let suspects = Suspects::open(&file).expect("readable");
        let parked = suspects.inspect(b"poison".to_vec(), |_| panic!("it must not be looked at"));
        assert_eq!(parked, Err("made this worker panic 3 times: index outof bounds".to_owned()));
        assert_eq!(suspects.inspect(b"innocent".to_vec(), <[u8]>::len), Ok(8));
    }
}
