//! Which tokens have refused the PIN. A wrong PIN is tried once: three or so lock a token for good, and a worker that is started
//! again and again would do that within seconds. So a refusal is noted in a file that outlives the process; while the note stands
//! and the secret is the same, the PIN is not tried.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use zeroize::Zeroizing;

/// Fetches the PIN; may block.
pub type FetchPin = Arc<dyn Fn() -> Result<Zeroizing<String>, String> + Send + Sync>;
/// Tells whether the secret is another than before without revealing anything of it, such as by its file's time; `None` if that
/// cannot be told.
pub type StampPin = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Where the user PIN comes from.
#[derive(Clone)]
pub struct PinSource {
    /// Fetches it, each time a token is opened.
    pub fetch: FetchPin,
    /// Tells when it is another one.
    pub stamp: StampPin,
    /// The file that notes refusals; without one they are forgotten with the process.
    pub notes: Option<PathBuf>,
}

/// A refusal: what the secret looked like then.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct Note {
    stamp: Option<String>,
}

/// The notes of one file, shared by all of a process who use it: several keys of a worker may be on one token, and each of them
/// trying a wrong PIN once would be three tries.
#[derive(Clone)]
pub(super) struct PinNotes {
    source: PinSource,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    noted: Mutex<BTreeMap<String, Note>>,
    turns: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// By file; those of nobody are left out when another one is opened.
static IN_USE: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// Bytes of the notes' file that are read: a line for each token.
const FILE_LEN_MAX: u64 = 64 * 1024;

impl PinNotes {
    pub(super) fn read(source: PinSource) -> Self {
        let Some(path) = source.notes.clone() else { return Self { source, shared: Arc::default() } };
        let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = in_use.get(&path).and_then(Weak::upgrade) {
            return Self { source, shared };
        }
        let mut noted = BTreeMap::new();
        if std::fs::metadata(&path).is_ok_and(|found| found.len() <= FILE_LEN_MAX)
            && let Ok(text) = std::fs::read_to_string(&path)
        {
            noted = serde_json::from_str(&text).unwrap_or_default();
        }
        let shared = Arc::new(Shared { noted: Mutex::new(noted), ..Shared::default() });
        in_use.retain(|_, shared| shared.strong_count() > 0);
        in_use.insert(path, Arc::downgrade(&shared));
        Self { source, shared }
    }

    /// One at a time tries a PIN with `token`, from [`Self::pin_for`] until it is known, and noted, whether it was right.
    pub(super) async fn turn(&self, token: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.shared.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(token.to_owned()).or_default())
        };
        turn.lock_owned().await
    }

    /// The PIN for `token`, unless that token has refused it. A note about another secret than today's is dropped.
    ///
    /// # Errors
    /// Why it must not be tried, or cannot be had.
    pub(super) fn pin_for(&self, token: &str) -> Result<Zeroizing<String>, NoPin> {
        let stamp = (self.source.stamp)();
        let mut noted = self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(note) = noted.get(token) {
            if note.stamp.is_none() || note.stamp == stamp {
                return Err(NoPin::Refused(self.standing(note)));
            }
            noted.remove(token);
            self.write(&noted);
        }
        drop(noted);
        (self.source.fetch)().map_err(NoPin::Missing)
    }

    /// Notes that `token` refused the PIN.
    pub(super) fn refused(&self, token: &str) {
        let mut noted = self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.insert(token.to_owned(), Note { stamp: (self.source.stamp)() });
        self.write(&noted);
    }

    fn standing(&self, note: &Note) -> String {
        let file = self.source.notes.as_ref().map(|path| path.display().to_string());
        match (&note.stamp, file) {
            (Some(_), _) => {
                "the token refused this PIN before, and it has not been changed since: it is not tried again".into()
            }
            (None, Some(file)) => format!(
                "the token refused the PIN before: it is not tried again; once the PIN is right, delete {file} and start again"
            ),
            (None, None) => "the token refused the PIN before: it is not tried again by this process".into(),
        }
    }

    /// What cannot be written is remembered by this process all the same.
    fn write(&self, noted: &BTreeMap<String, Note>) {
        let Some(path) = &self.source.notes else { return };
        let written = || -> std::io::Result<()> {
            if noted.is_empty() {
                return std::fs::remove_file(path);
            }
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
            file.write_all(serde_json::to_string(noted)?.as_bytes())?;
            file.sync_all()
        };
        if let Err(error) = written() {
            tracing::error!(file = %path.display(), %error, "cannot note that a PIN was refused: a restart would try it again");
        }
    }
}

/// Why there is no PIN to try.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum NoPin {
    /// The token refused it.
    #[error("{0}")]
    Refused(String),
    /// It cannot be fetched.
    #[error("no PIN: {0}")]
    Missing(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(stamp: Option<&str>, notes: Option<PathBuf>) -> PinSource {
        let stamp = stamp.map(str::to_owned);
        PinSource {
            fetch: Arc::new(|| Ok(Zeroizing::new("31415".into()))),
            stamp: Arc::new(move || stamp.clone()),
            notes,
        }
    }

    fn allowed(notes: &PinNotes, token: &str) -> bool {
        notes.pin_for(token).is_ok()
    }

    #[test]
    fn a_refused_pin_is_not_tried_again_even_by_the_next_process_until_it_changes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("deeper/pin-refused");
        let first = PinNotes::read(source(Some("monday"), Some(file.clone())));
        assert!(allowed(&first, "a"));
        first.refused("a");
        assert!(!allowed(&first, "a") && allowed(&first, "b"), "each token on its own");

        let next = PinNotes::read(source(Some("monday"), Some(file.clone())));
        assert!(!allowed(&next, "a"));
        let text = std::fs::read_to_string(&file).expect("the notes");
        assert!(!text.contains("31415"), "{text}");

        let changed = PinNotes::read(source(Some("tuesday"), Some(file.clone())));
        assert!(allowed(&changed, "a"));
        assert!(!file.exists(), "nothing is left to note");
    }

    /// Goal: keys of one process on one token try a wrong PIN once in all, also at the same moment.
    #[tokio::test]
    async fn the_keys_of_a_process_try_a_wrong_pin_once_in_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pin-refused");
        let keys: Vec<_> = (0..3).map(|_| PinNotes::read(source(Some("monday"), Some(file.clone())))).collect();
        let tries = keys.iter().map(|notes| async {
            let _turn = notes.turn("a").await;
            let tried = allowed(notes, "a");
            // The token answers in its own time.
            tokio::task::yield_now().await;
            if tried {
                notes.refused("a");
            }
            tried
        });
        let tried = futures_util::future::join_all(tries).await;
        assert_eq!(tried.into_iter().filter(|tried| *tried).count(), 1);
    }

    #[test]
    fn where_a_change_cannot_be_told_the_note_stands_until_it_is_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pin-refused");
        PinNotes::read(source(None, Some(file.clone()))).refused("a");
        let next = PinNotes::read(source(None, Some(file.clone())));
        let Err(NoPin::Refused(why)) = next.pin_for("a") else { panic!("it would be tried") };
        assert!(why.contains(file.to_str().expect("UTF-8")), "{why}");
        drop(next);
        std::fs::remove_file(&file).expect("deleted");
        assert!(allowed(&PinNotes::read(source(None, Some(file))), "a"));
    }

    #[test]
    fn without_a_place_for_notes_the_process_remembers() {
        let notes = PinNotes::read(source(None, None));
        notes.refused("a");
        assert!(!allowed(&notes, "a") && !allowed(&notes.clone(), "a"));
    }
}
