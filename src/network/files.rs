//! The network map as files: what a node keeps in its directory, and what the worker starts from.
//!
//! ```text
//! root.pem                     the trust root's certificate
//! network-parameters           the parameters in force, as Corda signs and serializes them
//! network-parameters-update    those that will be in force next, if any: accepted already
//! historic-parameters/*        earlier ones, which transactions still refer to
//! node-infos/nodeInfo-*        one signed node info a participant
//! ```
//!
//! Without root or parameters in force there is no network, so these must be right. One bad file of the others is reported by
//! name and takes nobody else down.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::certificate::{Certificate, CertificateError};
use super::library::{Library, Sources};
use super::material::{MaterialError, Node};
use super::shelf::{label, read};
use crate::domain::network::NetworkView;
use crate::domain::{SecureHash, Timestamp, X500Name};
use crate::keys::keystore::{KeyStore, KeyStoreError, is_key_store};
use crate::ports::NetworkMap;
use crate::wire;

/// The root's certificate.
pub const ROOT: &str = "root.pem";
/// The parameters in force.
pub const PARAMETERS: &str = "network-parameters";
/// The parameters that a flag day will bring into force.
pub const PARAMETERS_UPDATE: &str = "network-parameters-update";
/// Directory of earlier parameters.
pub const HISTORIC_PARAMETERS: &str = "historic-parameters";
/// Directory of node infos.
pub const NODE_INFOS: &str = "node-infos";
/// What the names of node infos begin with, in Corda too; other files there are left alone.
pub const NODE_INFO_PREFIX: &str = "nodeInfo-";

/// The root's name in a node's trust store.
const ROOT_ALIAS: &str = "cordarootca";
/// Bytes of a certificate in PEM, or of a node's trust store.
const ROOT_LEN_MAX: usize = 64 * 1024;

/// The network as its files describe it: a snapshot, taken by [`Self::load`].
#[derive(Clone, Debug)]
pub struct FileNetworkMap {
    library: Library,
    problems: Vec<FileProblem>,
}

/// Why there is no network map.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or directory that must be there cannot be read.
    #[error("{file}: {error}")]
    Unreadable {
        /// Its name and its folder's.
        file: String,
        /// What is wrong.
        error: FileError,
    },
    /// The root is in a key store.
    #[error("{0}: a key store, which needs its passphrase")]
    NotPem(String),
    /// The key store with the root cannot be used.
    #[error("{0}")]
    TrustStore(Box<KeyStoreError>),
    /// No telling which certificate of a key store is the root.
    #[error("{0}: holds no trusted certificate, or several and none of them as {ROOT_ALIAS}")]
    NoRoot(String),
    /// The root is no certificate.
    #[error("{ROOT}: {0}")]
    Root(#[from] CertificateError),
    /// The parameters in force are not to be believed.
    #[error("{PARAMETERS}: {0}")]
    Parameters(#[from] MaterialError),
}

/// A file that was left out, by name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {error}")]
pub struct FileProblem {
    /// Directory and file, as `node-infos/nodeInfo-x`.
    pub file: String,
    /// What is wrong with it.
    pub error: FileError,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// The operating system refuses.
    #[error("{0}")]
    Io(String),
    /// Not a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// More bytes than such a document has.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// A directory with too many files.
    #[error("more than {0} files")]
    TooMany(usize),
    /// The document is not to be believed.
    #[error(transparent)]
    Material(#[from] MaterialError),
    /// Two documents of one node claim to be the same version.
    #[error("has the serial number of another node info of {0}")]
    SerialClash(String),
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

impl FileNetworkMap {
    /// Reads and verifies everything in `dir`, at the moment `now`. Of several node infos of one node the newest serial wins.
    ///
    /// # Errors
    /// [`LoadError`] if root, parameters or a directory cannot be used. What is wrong with other files: [`Self::problems`].
    pub fn load(dir: &Path, now: Timestamp) -> Result<Self, LoadError> {
        let root = read_root(&dir.join(ROOT))?;
        let library = Library::open(root, Sources::in_folder(dir), now)?;
        Ok(Self { problems: library.problems(), library })
    }

    /// The participants, by name.
    pub fn nodes(&self) -> &[Node] {
        self.library.nodes()
    }

    /// Files that were left out.
    pub fn problems(&self) -> &[FileProblem] {
        &self.problems
    }
}

impl NetworkMap for FileNetworkMap {
    fn view(&self) -> Arc<NetworkView> {
        Arc::clone(self.library.view())
    }
}

/// The trust root's certificate in a PEM file.
///
/// # Errors
/// [`LoadError::Unreadable`] or [`LoadError::Root`].
pub fn read_root(file: &Path) -> Result<Certificate, LoadError> {
    let read = read(file, ROOT_LEN_MAX);
    let bytes = read.map_err(|error| LoadError::Unreadable { file: label(file), error })?;
    if is_key_store(&bytes) {
        return Err(LoadError::NotPem(label(file)));
    }
    Ok(Certificate::from_pem(&String::from_utf8_lossy(&bytes))?)
}

/// What a node info's file is called, so that a newer one of the same node takes its place: as Corda's nodes do it.
pub(super) fn node_info_file_name(own: &X500Name) -> String {
    let name = SecureHash::sha256(Sha256::digest(wire::encode_legal_name(own)).into());
    format!("{NODE_INFO_PREFIX}{name}")
}

/// The trust root's certificate in a key store, JKS or PKCS#12: the only trusted one, or that of Corda's name.
///
/// # Errors
/// [`LoadError::TrustStore`], [`LoadError::NoRoot`] or [`LoadError::Root`].
pub fn read_trust_store(file: &Path, passphrase: &Zeroizing<String>) -> Result<Certificate, LoadError> {
    let store = KeyStore::open(file, passphrase).map_err(|error| LoadError::TrustStore(Box::new(error)))?;
    let trusted: Vec<_> = store.trusted().collect();
    let root = match trusted[..] {
        [(_, only)] => Some(only),
        _ => trusted.iter().find_map(|(alias, der)| alias.eq_ignore_ascii_case(ROOT_ALIAS).then_some(*der)),
    };
    Ok(Certificate::from_der(root.ok_or_else(|| LoadError::NoRoot(label(file)))?)?)
}

/// Puts `bytes` into `file` at once: who reads it finds all of the old content or all of the new. Its folder is made if needed.
/// Everybody may read it, as far as the process's umask allows: nothing of the network's material is secret.
///
/// # Errors
/// What the operating system says; then the old content is there.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let readable = Permissions::from_mode(0o644);
    let mut unfinished = tempfile::Builder::new().prefix(".unfinished-").permissions(readable).tempfile_in(folder)?;
    unfinished.write_all(bytes)?;
    unfinished.as_file().sync_all()?;
    unfinished.persist(file)?;
    // The name is on disk only when its folder is.
    File::open(folder)?.sync_all()
}
