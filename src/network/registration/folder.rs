//! The registration folder: what stands where, and that each step's result appears whole or not at all.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::RegistrationError;
use super::manager::RequestId;
use super::plan::Plan;
use crate::domain::SignatureScheme;
use crate::keys::file::{self, SecretFileError};
use crate::keys::{PrivateKey, random};
use crate::network::certificate::Certificate;
use crate::network::files::{NODE_INFO_PREFIX, NODE_INFOS};

pub(super) const PLAN: &str = "registration.json";
const ROOT: &str = "root.pem";
const PENDING: &str = "pending";
const SERVICE: &str = "service";
const AUTHORITIES: &str = "authorities";
const WORKERS: &str = "workers";
const NOTARY_INFO: &str = "notary-info";
const CERTIFICATES: &str = "certificates.pem";
const PENDING_KEY: &str = "key.p8";
const REQUEST_ID: &str = "request-id";
const SERVICE_KEY: &str = "service.p8";
const NODE_CA_KEY: &str = "node-ca.p8";
/// What the names of unfinished things begin with; they are removed when found.
const UNFINISHED: &str = ".unfinished-";
const LOCK: &str = ".lock";
/// Bytes of a plan: 64 workers with 8 addresses each have some 40 000.
const PLAN_LEN_MAX: u64 = 256 << 10;
/// Bytes of a chain in PEM: eight certificates at their largest.
const CHAIN_LEN_MAX: u64 = 256 << 10;

#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// Held while the folder is open: two runs would send two requests for one key.
    _lock: File,
}

fn fail(path: &Path) -> impl FnOnce(io::Error) -> RegistrationError {
    let path = path.to_owned();
    move |error| RegistrationError::File { path, why: error.to_string() }
}

fn wrong(path: &Path, why: &str) -> RegistrationError {
    RegistrationError::File { path: path.to_owned(), why: why.to_owned() }
}

fn make_dir(path: &Path) -> Result<(), RegistrationError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(fail(path))
}

/// So that a rename is on disk before the next step relies on it.
fn sync(dir: &Path) -> Result<(), RegistrationError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail(dir))
}

/// A text file of at most `len_max` bytes; `None` if there is none.
fn read(path: &Path, len_max: u64) -> Result<Option<String>, RegistrationError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(path)(error)),
        Ok(metadata) if metadata.len() > len_max => return Err(wrong(path, "too large")),
        Ok(_) => {}
    }
    fs::read_to_string(path).map(Some).map_err(fail(path))
}

impl Folder {
    /// The folder at `dir`, made if there is none. An existing one must be a registration's, or empty.
    pub(super) fn make(dir: &Path) -> Result<Self, RegistrationError> {
        if !dir.join(PLAN).exists() && dir.exists() {
            let mut entries = fs::read_dir(dir).map_err(fail(dir))?;
            let foreign =
                entries.any(|entry| entry.is_ok_and(|entry| entry.file_name() != LOCK && entry.file_name() != ROOT));
            if foreign {
                return Err(wrong(dir, "not empty, and no registration's folder"));
            }
        }
        DirBuilder::new()
            .mode(0o700)
            .create(dir)
            .or_else(|error| if dir.is_dir() { Ok(()) } else { Err(error) })
            .map_err(fail(dir))?;
        Self::open(dir)
    }

    /// The folder at `dir`, for this process alone.
    pub(super) fn open(dir: &Path) -> Result<Self, RegistrationError> {
        let path = dir.join(LOCK);
        let lock = File::options().create(true).append(true).open(&path).map_err(fail(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(wrong(dir, "another run is at work here")),
            Err(TryLockError::Error(error)) => Err(fail(&path)(error)),
        }
    }

    pub(super) fn plan(&self) -> Result<Option<Plan>, RegistrationError> {
        let path = self.dir.join(PLAN);
        let Some(text) = read(&path, PLAN_LEN_MAX)? else { return Ok(None) };
        Plan::from_json(&text).map(Some).map_err(|error| wrong(&path, &error.to_string()))
    }

    pub(super) fn keep_plan(&self, plan: &Plan) -> Result<(), RegistrationError> {
        if self.plan()?.as_ref() == Some(plan) {
            return Ok(());
        }
        let (path, unfinished) = (self.dir.join(PLAN), self.unfinished_path()?);
        file::create(&unfinished, plan.to_json().as_bytes())?;
        fs::rename(&unfinished, &path).map_err(fail(&path))?;
        sync(&self.dir)
    }

    pub(super) fn root(&self) -> Result<Certificate, RegistrationError> {
        let path = self.dir.join(ROOT);
        let pem = read(&path, CHAIN_LEN_MAX)?.ok_or_else(|| wrong(&path, "missing"))?;
        Certificate::from_pem(&pem).map_err(|error| wrong(&path, &error.to_string()))
    }

    /// The root, which never changes within a folder.
    pub(super) fn keep_root(&self, root: &Certificate) -> Result<Certificate, RegistrationError> {
        let path = self.dir.join(ROOT);
        if !path.exists() {
            file::create(&path, root.to_pem().as_bytes())?;
        }
        let kept = self.root()?;
        if kept.as_der() != root.as_der() {
            return Err(wrong(&path, "another root than the one given; use another folder for another network"));
        }
        Ok(kept)
    }

    /// Removes what an interrupted run left behind.
    pub(super) fn sweep(&self) -> Result<(), RegistrationError> {
        for entry in fs::read_dir(&self.dir).map_err(fail(&self.dir))? {
            let entry = entry.map_err(fail(&self.dir))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let path = entry.path();
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(fail(&path))?;
            }
        }
        let pending = self.dir.join(PENDING);
        for entry in fs::read_dir(&pending).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let done = if name == SERVICE { self.service() } else { self.dir.join(AUTHORITIES).join(&name) };
            if done.exists() {
                fs::remove_dir_all(entry.path()).map_err(fail(&entry.path()))?;
            }
        }
        Ok(())
    }

    fn unfinished_path(&self) -> Result<PathBuf, RegistrationError> {
        let mut suffix = [0; 8];
        random(&mut suffix)?;
        Ok(self.dir.join(format!("{UNFINISHED}{}", hex::encode(suffix))))
    }

    /// A new folder in the making.
    pub(super) fn unfinished(&self) -> Result<Unfinished, RegistrationError> {
        let dir = self.unfinished_path()?;
        make_dir(&dir)?;
        Ok(Unfinished { dir, published: false })
    }

    fn pending(&self, part: &str) -> PathBuf {
        self.dir.join(PENDING).join(part)
    }

    /// The key of a part that is not certified yet: made the first time, then always that one.
    pub(super) fn pending_key(
        &self,
        part: &str,
        scheme: SignatureScheme,
        passphrase: &Zeroizing<String>,
    ) -> Result<PrivateKey, RegistrationError> {
        let dir = self.pending(part);
        make_dir(&dir)?;
        let path = dir.join(PENDING_KEY);
        if path.exists() {
            return Ok(file::load_encrypted(&path, passphrase)?);
        }
        let key = PrivateKey::generate(scheme)?;
        file::save_encrypted(&path, &key, passphrase)?;
        Ok(key)
    }

    pub(super) fn request_id(&self, part: &str) -> Result<Option<RequestId>, RegistrationError> {
        let path = self.pending(part).join(REQUEST_ID);
        let Some(text) = read(&path, PLAN_LEN_MAX)? else { return Ok(None) };
        RequestId::parse(&text).map(Some).ok_or_else(|| wrong(&path, "no request id"))
    }

    pub(super) fn keep_request_id(&self, part: &str, id: &RequestId) -> Result<(), RegistrationError> {
        make_dir(&self.pending(part))?;
        Ok(file::create(&self.pending(part).join(REQUEST_ID), format!("{}\n", id.as_str()).as_bytes())?)
    }

    pub(super) fn forget_request_id(&self, part: &str) -> Result<(), RegistrationError> {
        let path = self.pending(part).join(REQUEST_ID);
        fs::remove_file(&path).map_err(fail(&path))
    }

    fn service(&self) -> PathBuf {
        self.dir.join(SERVICE)
    }

    fn chain(path: &Path) -> Result<Option<Vec<Certificate>>, RegistrationError> {
        let Some(pem) = read(path, CHAIN_LEN_MAX)? else { return Ok(None) };
        Certificate::chain_from_pem(&pem).map(Some).map_err(|error| wrong(path, &error.to_string()))
    }

    pub(super) fn service_chain(&self) -> Result<Option<Vec<Certificate>>, RegistrationError> {
        Self::chain(&self.service().join(CERTIFICATES))
    }

    pub(super) fn service_key_file(&self) -> PathBuf {
        self.service().join(SERVICE_KEY)
    }

    pub(super) fn service_key(&self, passphrase: &Zeroizing<String>) -> Result<PrivateKey, RegistrationError> {
        Ok(file::load_encrypted(&self.service_key_file(), passphrase)?)
    }

    pub(super) fn publish_service(&self, chain: &str, with_key: bool) -> Result<(), RegistrationError> {
        let key = with_key.then_some(SERVICE_KEY);
        self.publish(SERVICE, &self.service(), chain, key)
    }

    pub(super) fn authority_chain(&self, short_name: &str) -> Result<Option<Vec<Certificate>>, RegistrationError> {
        Self::chain(&self.dir.join(AUTHORITIES).join(short_name).join(CERTIFICATES))
    }

    pub(super) fn authority_key(
        &self,
        short_name: &str,
        passphrase: &Zeroizing<String>,
    ) -> Result<PrivateKey, RegistrationError> {
        let path = self.dir.join(AUTHORITIES).join(short_name).join(NODE_CA_KEY);
        Ok(file::load_encrypted(&path, passphrase)?)
    }

    pub(super) fn publish_authority(&self, short_name: &str, chain: &str) -> Result<(), RegistrationError> {
        self.publish(short_name, &self.dir.join(AUTHORITIES).join(short_name), chain, Some(NODE_CA_KEY))
    }

    /// A certified key: the pending one under its final name, and its chain. Then nothing of the part is pending.
    fn publish(&self, part: &str, to: &Path, chain: &str, key: Option<&str>) -> Result<(), RegistrationError> {
        let unfinished = self.unfinished()?;
        if let Some(key) = key {
            unfinished.copy(key, &self.pending(part).join(PENDING_KEY))?;
        }
        unfinished.file(CERTIFICATES, chain.as_bytes())?;
        unfinished.publish(to)?;
        fs::remove_dir_all(self.pending(part)).map_err(fail(&self.pending(part)))
    }

    pub(super) fn worker(&self, short_name: &str) -> PathBuf {
        self.dir.join(WORKERS).join(short_name)
    }

    pub(super) fn has_worker(&self, short_name: &str) -> bool {
        self.worker(short_name).exists()
    }

    pub(super) fn notary_info(&self) -> PathBuf {
        self.dir.join(NOTARY_INFO)
    }

    /// Lays the worker's node info out for the network's operators.
    pub(super) fn copy_notary_info(&self, short_name: &str) -> Result<(), RegistrationError> {
        let from = self.worker(short_name).join("network").join(NODE_INFOS);
        let to = self.notary_info();
        make_dir(&to)?;
        for entry in fs::read_dir(&from).map_err(fail(&from))? {
            let entry = entry.map_err(fail(&from))?;
            let (name, target) = (entry.file_name(), to.join(entry.file_name()));
            if name.to_string_lossy().starts_with(NODE_INFO_PREFIX) && !target.exists() {
                let content = fs::read(entry.path()).map_err(fail(&entry.path()))?;
                file::create(&target, &content)?;
            }
        }
        Ok(())
    }
}

/// The name of a node info's file: Corda wants the prefix, and a rest that differs.
pub(super) fn node_info_name(node_info: &[u8]) -> String {
    format!("{NODE_INFO_PREFIX}{}", hex::encode_upper(Sha256::digest(node_info)))
}

/// A folder in the making; removed unless it is published.
#[derive(Debug)]
pub(super) struct Unfinished {
    dir: PathBuf,
    published: bool,
}

impl Unfinished {
    fn place(&self, path: &str) -> Result<PathBuf, RegistrationError> {
        let path = self.dir.join(path);
        make_dir(path.parent().expect("it is below the folder"))?;
        Ok(path)
    }

    pub(super) fn file(&self, path: &str, content: &[u8]) -> Result<(), RegistrationError> {
        Ok(file::create(&self.place(path)?, content)?)
    }

    pub(super) fn secret(
        &self,
        path: &str,
        key: &PrivateKey,
        passphrase: &Zeroizing<String>,
    ) -> Result<(), RegistrationError> {
        Ok(file::save_encrypted(&self.place(path)?, key, passphrase)?)
    }

    /// A key file as it is: it is encrypted already.
    pub(super) fn copy(&self, path: &str, from: &Path) -> Result<(), RegistrationError> {
        let content = file::read(from).map_err(|error: SecretFileError| RegistrationError::Secret(error))?;
        Ok(file::create(&self.place(path)?, content.as_bytes())?)
    }

    /// Makes it appear, whole and on disk, under its name.
    pub(super) fn publish(mut self, to: &Path) -> Result<(), RegistrationError> {
        let parent = to.parent().expect("it is below the registration's folder");
        make_dir(parent)?;
        sync(&self.dir)?;
        fs::rename(&self.dir, to).map_err(fail(to))?;
        self.published = true;
        sync(parent)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.published {
            // What stays is swept by the next run.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}
