//! Verified documents of one kind, from files and folders that may change at any moment.
//!
//! A look reads what changed since the last one and nothing else: verifying ten thousand node infos takes ten seconds. What was
//! good stays until something good replaces it: half-written, cut or forged files only become problems with a name.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use super::files::{FileError, FileProblem};
use super::material::MaterialError;
use super::path::PathError;
use crate::domain::Timestamp;

/// A file changed so recently may change again without a new time stamp, so it is read once more at the next look. Filesystems
/// stamp with the ticks of a clock: 4 ms on Linux, 2 s on the coarsest, FAT.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Where documents lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// One document; what it said stays when the file is gone.
    Lasting(PathBuf),
    /// One document, or none.
    Passing(PathBuf),
    /// One document a file, of those whose names begin so. Hidden files and those ending in `.tmp` are being written.
    Folder(PathBuf, &'static str),
}

/// How much is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of one document.
    pub(super) len_max: usize,
    /// Documents in one folder.
    pub(super) count_max: usize,
}

/// A document that was verified.
#[derive(Clone, Debug)]
pub(super) struct Good<T> {
    pub(super) document: T,
    /// Until when it is to be believed; without, whatever the time.
    pub(super) until: Option<Timestamp>,
}

/// Verifies a document.
pub(super) type Verify<'a, T> = &'a dyn Fn(&[u8]) -> Result<Good<T>, MaterialError>;

/// Documents of one kind.
#[derive(Clone, Debug)]
pub(super) struct Shelf<T> {
    places: Vec<Place>,
    bounds: Bounds,
    entries: BTreeMap<PathBuf, Entry<T>>,
    /// Folders that cannot be read, and why.
    broken: BTreeMap<PathBuf, FileError>,
}

#[derive(Clone, Debug)]
struct Entry<T> {
    /// How the file looked when it was read; none for one that may have changed unseen.
    stamp: Option<Stamp>,
    /// SHA-256 of what was read.
    digest: Option<[u8; 32]>,
    good: Option<Good<T>>,
    problem: Option<FileError>,
    /// By the worker's clock, when the document was refused.
    refused_at: Option<Timestamp>,
    is_missing: bool,
}

/// What tells one version of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
    len: u64,
    file: (u64, u64),
}

impl Stamp {
    /// None if the file may still change without a new stamp.
    fn settled(metadata: &Metadata) -> Option<Self> {
        let stamp = Self {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            len: metadata.len(),
            file: (metadata.dev(), metadata.ino()),
        };
        // The system's clock, not the worker's: it is the one that stamps.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        let age = now - stamp.changed.0.max(stamp.modified.0);
        (age > SETTLED_AFTER.as_secs() as i64).then_some(stamp)
    }
}

impl<T> Shelf<T> {
    pub(super) fn new(places: Vec<Place>, bounds: Bounds) -> Self {
        Self { places, bounds, entries: BTreeMap::new(), broken: BTreeMap::new() }
    }

    /// Reads what changed. Returns whether other documents are to be believed than before.
    ///
    /// A file of a folder stays believed until two looks in a row miss it, as tools replace a file by deleting it first; and for as
    /// long as the folder itself cannot be read.
    pub(super) fn look(&mut self, now: Timestamp, verify: Verify<'_, T>) -> bool {
        let (mut changed, len_max) = (false, self.bounds.len_max);
        let mut left = std::mem::take(&mut self.entries);
        self.broken.clear();
        for place in &self.places {
            let found = match place {
                Place::Lasting(path) | Place::Passing(path) => match fs::metadata(path) {
                    Ok(_) => vec![path.clone()],
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
                    Err(error) => {
                        self.broken.insert(path.clone(), error.into());
                        Vec::new()
                    }
                },
                Place::Folder(folder, prefix) => match list(folder, prefix, self.bounds.count_max) {
                    Ok(files) => files,
                    Err(ListError::Missing) if !left.keys().any(|path| path.parent() == Some(folder)) => Vec::new(),
                    Err(error) => {
                        self.broken.insert(folder.clone(), error.into());
                        Vec::new()
                    }
                },
            };
            for path in found {
                let mut entry = left.remove(&path).unwrap_or_else(Entry::new);
                changed |= entry.look(&path, len_max, now, verify);
                self.entries.insert(path, entry);
            }
        }
        // What was not found.
        for (path, mut entry) in left {
            let is_lasting = self.places.contains(&Place::Lasting(path.clone()));
            let is_hidden =
                path.parent().is_some_and(|folder| self.broken.contains_key(folder)) || self.broken.contains_key(&path);
            let again = std::mem::replace(&mut entry.is_missing, true);
            if entry.good.is_some() && (is_lasting || is_hidden || !again) {
                // Read again when it comes back, whatever it looks like then.
                (entry.stamp, entry.digest) = (None, None);
                entry.problem = is_lasting.then(|| FileError::Io("is gone".into()));
                changed |= entry.ends(now);
                self.entries.insert(path, entry);
            } else {
                changed |= entry.good.is_some();
            }
        }
        changed
    }

    /// What is believed, in the order of the files' names.
    pub(super) fn documents(&self) -> impl Iterator<Item = (&Path, &T)> {
        self.entries.iter().filter_map(|(path, entry)| Some((path.as_path(), &entry.good.as_ref()?.document)))
    }

    /// What is believed of one file.
    pub(super) fn document(&self, path: &Path) -> Option<&T> {
        Some(&self.entries.get(path)?.good.as_ref()?.document)
    }

    /// What is wrong with one file.
    pub(super) fn problem(&self, path: &Path) -> Option<&FileError> {
        self.entries.get(path).and_then(|entry| entry.problem.as_ref()).or_else(|| self.broken.get(path))
    }

    /// Files and folders with something wrong; an earlier version of the file may be believed all the same.
    pub(super) fn problems(&self) -> impl Iterator<Item = FileProblem> {
        let files = self.entries.iter().filter_map(|(path, entry)| Some((path, entry.problem.as_ref()?)));
        files.chain(&self.broken).map(|(path, error)| FileProblem { file: label(path), error: error.clone() })
    }

    /// Folders that cannot be read.
    pub(super) fn broken(&self) -> impl Iterator<Item = (&Path, &FileError)> {
        self.broken.iter().map(|(path, error)| (path.as_path(), error))
    }
}

impl<T> Entry<T> {
    fn new() -> Self {
        Self { stamp: None, digest: None, good: None, problem: None, refused_at: None, is_missing: false }
    }

    fn look(&mut self, path: &Path, len_max: usize, now: Timestamp, verify: Verify<'_, T>) -> bool {
        self.is_missing = false;
        let ended = self.ends(now);
        let stamp = fs::metadata(path).ok().as_ref().and_then(Stamp::settled);
        if stamp.is_some() && stamp == self.stamp && !self.may_be_good_now(now) {
            return ended;
        }
        self.stamp = stamp;
        let bytes = match read(path, len_max) {
            Ok(bytes) => bytes,
            Err(error) => {
                (self.digest, self.problem) = (None, Some(error));
                return ended;
            }
        };
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        if self.digest == Some(digest) && !self.may_be_good_now(now) {
            return ended;
        }
        self.digest = Some(digest);
        match verify(&bytes) {
            Ok(good) => {
                (self.good, self.problem, self.refused_at) = (Some(good), None, None);
                true
            }
            Err(error) => {
                (self.problem, self.refused_at) = (Some(error.into()), Some(now));
                ended
            }
        }
    }

    /// Whether a refused document may be good by now, though its file is the same: its time was not come, or the clock was set back.
    fn may_be_good_now(&self, now: Timestamp) -> bool {
        let early = matches!(self.problem, Some(FileError::Material(MaterialError::Path(PathError::NotYetValid(_)))));
        early || self.refused_at.is_some_and(|refused| now < refused)
    }

    /// Lets go of a document whose time is over. Returns whether it was believed until now.
    fn ends(&mut self, now: Timestamp) -> bool {
        let ended =
            self.good.as_ref().is_some_and(|good| good.until.is_some_and(|until| until.seconds() < now.seconds()));
        if ended {
            // To be verified once more, for a problem that names the certificate.
            (self.good, self.stamp, self.digest) = (None, None, None);
        }
        ended
    }
}

/// A file's name for people: with its folder's.
pub(super) fn label(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let folder = path.parent().and_then(name).map_or(String::new(), |folder| format!("{folder}/"));
    format!("{folder}{}", name(path).unwrap_or_else(|| path.display().to_string()))
}

enum ListError {
    Missing,
    Other(FileError),
}

impl From<io::Error> for ListError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ => Self::Other(error.into()),
        }
    }
}

impl From<ListError> for FileError {
    fn from(error: ListError) -> Self {
        match error {
            ListError::Missing => Self::Io("is gone".into()),
            ListError::Other(error) => error,
        }
    }
}

/// The files of a folder whose names begin with `prefix`.
fn list(folder: &Path, prefix: &str, count_max: usize) -> Result<Vec<PathBuf>, ListError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && !name.starts_with('.') && !name.ends_with(".tmp") {
            if files.len() == count_max {
                return Err(ListError::Other(FileError::TooMany(count_max)));
            }
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The content of a regular file of at most `len_max` bytes.
pub(super) fn read(path: &Path, len_max: usize) -> Result<Vec<u8>, FileError> {
    // Looked at first: opening a named pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(len_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > len_max { Err(FileError::TooLarge(len_max)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::fs::symlink;

    use super::*;

    const BOUNDS: Bounds = Bounds { len_max: 100, count_max: 10 };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::new(seconds, 0).expect("in range")
    }

    /// Texts are good, unless they say otherwise; `counts` tells how often somebody verified one.
    fn verify(counts: &Cell<usize>, bytes: &[u8]) -> Result<Good<String>, MaterialError> {
        counts.set(counts.get() + 1);
        let text = String::from_utf8_lossy(bytes).into_owned();
        match text.starts_with("bad") {
            true => Err(MaterialError::Identities(0)),
            false => Ok(Good { document: text, until: None }),
        }
    }

    fn texts(shelf: &Shelf<String>) -> Vec<String> {
        shelf.documents().map(|(_, text)| text.clone()).collect()
    }

    /// Verifying ten thousand node infos takes ten seconds.
    #[test]
    fn what_did_not_change_is_not_verified_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let counts = Cell::new(0);
        for i in 0..5 {
            fs::write(folder.path().join(format!("n{i}")), format!("text {i}")).expect("written");
        }
        fs::write(folder.path().join("n5"), "bad").expect("written");
        let mut shelf = Shelf::new(vec![Place::Folder(folder.path().into(), "n")], BOUNDS);
        assert!(shelf.look(at(0), &|bytes| verify(&counts, bytes)));
        assert_eq!((counts.get(), texts(&shelf).len(), shelf.problems().count()), (6, 5, 1));
        for _ in 0..3 {
            assert!(!shelf.look(at(0), &|bytes| verify(&counts, bytes)));
        }
        assert_eq!(counts.get(), 6);
        // The same content again, and then another one.
        fs::write(folder.path().join("n2"), "text 2").expect("written");
        assert!(!shelf.look(at(0), &|bytes| verify(&counts, bytes)));
        assert_eq!(counts.get(), 6);
        fs::write(folder.path().join("n2"), "text x").expect("written");
        assert!(shelf.look(at(0), &|bytes| verify(&counts, bytes)));
        assert_eq!((counts.get(), &*texts(&shelf)[2]), (7, "text x"));
    }

    /// The clock of a filesystem ticks slowly: two writes of one length within a tick have one stamp.
    #[test]
    fn a_file_is_trusted_by_its_stamp_only_when_it_is_old() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("n");
        fs::write(&file, "text").expect("written");
        assert_eq!(Stamp::settled(&fs::metadata(&file).expect("there")), None, "just written");
        let program = fs::metadata("/proc/self/exe").expect("this test");
        let age = program.modified().expect("a stamp").elapsed().unwrap_or_default();
        assert_eq!(Stamp::settled(&program).is_some(), age > SETTLED_AFTER + Duration::from_secs(1), "{age:?}");
    }

    #[test]
    fn too_many_too_large_and_no_files_at_all_are_problems() {
        let folder = tempfile::tempdir().expect("a folder");
        let counts = Cell::new(0);
        let file = |name: &str| folder.path().join(name);
        let mut shelf = Shelf::new(vec![Place::Folder(folder.path().into(), "")], BOUNDS);
        fs::write(file("large"), [b'x'; 101]).expect("written");
        fs::create_dir(file("folder")).expect("made");
        symlink("nowhere", file("link")).expect("linked");
        fs::write(file("good"), "text").expect("written");
        assert!(shelf.look(at(0), &|bytes| verify(&counts, bytes)));
        assert_eq!(texts(&shelf), ["text"]);
        let problems: Vec<_> = shelf.problems().map(|problem| problem.error).collect();
        assert!(
            matches!(
                &problems[..],
                [FileError::NotAFile, FileError::TooLarge(100), FileError::Io(_)]
                    | [FileError::NotAFile, FileError::Io(_), FileError::TooLarge(100)]
            ),
            "{problems:?}"
        );
        // One folder too full is left as it was, good files included.
        for i in 0..10 {
            fs::write(file(&format!("more{i}")), "more").expect("written");
        }
        assert!(!shelf.look(at(0), &|bytes| verify(&counts, bytes)));
        assert_eq!(texts(&shelf), ["text"]);
        assert!(shelf.problems().any(|problem| problem.error == FileError::TooMany(10)));
    }

    #[test]
    fn a_document_whose_time_has_not_come_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("n"), "text").expect("written");
        let mut shelf = Shelf::new(vec![Place::Folder(folder.path().into(), "")], BOUNDS);
        let verify = |now: i64| {
            move |bytes: &[u8]| match now {
                ..100 => Err(PathError::NotYetValid("n".into()).into()),
                100..=200 => Ok(Good { document: bytes.to_vec(), until: Some(at(200)) }),
                _ => Err(PathError::Expired("n".into()).into()),
            }
        };
        for (now, changed, believed) in [
            (0, false, 0),
            (99, false, 0),
            (100, true, 1),
            (150, false, 1),
            (200, false, 1),
            (201, true, 0),
            (202, false, 0),
        ] {
            assert_eq!((shelf.look(at(now), &verify(now)), shelf.documents().count()), (changed, believed), "at {now}");
        }
        assert_eq!(shelf.problems().count(), 1);
    }
}
