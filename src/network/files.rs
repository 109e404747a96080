//! The network map as files: what a node keeps in its directory, and what the worker starts from.
//!
//! ```text
//! root.pem                     the trust root's certificate
//! network-parameters           the parameters in force, as Corda signs and serializes them
//! historic-parameters/*        earlier ones, which transactions still refer to
//! node-infos/nodeInfo-*        one signed node info a participant
//! ```
//!
//! Without root or parameters in force there is no network, so these must be right. One bad file of the others is reported by
//! name and takes nobody else down.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::certificate::{Certificate, CertificateError};
use super::material::{MaterialError, Node, verify_node_info, verify_parameters};
use crate::domain::network::{KnownParameters, NetworkView};
use crate::domain::{Timestamp, X500Name};
use crate::ports::NetworkMap;

/// The root's certificate.
pub const ROOT: &str = "root.pem";
/// The parameters in force.
pub const PARAMETERS: &str = "network-parameters";
/// Directory of earlier parameters.
pub const HISTORIC_PARAMETERS: &str = "historic-parameters";
/// Directory of node infos.
pub const NODE_INFOS: &str = "node-infos";
/// What the names of node infos begin with, in Corda too; other files there are left alone.
pub const NODE_INFO_PREFIX: &str = "nodeInfo-";

/// Bytes of a certificate in PEM.
const ROOT_LEN_MAX: usize = 64 * 1024;
/// Bytes of a node info. One with two identities has 6 500.
const NODE_INFO_LEN_MAX: usize = 64 * 1024;
/// Bytes of network parameters. Without contract whitelists they have 5 000; with them, some 100 000.
const PARAMETERS_LEN_MAX: usize = 4 * 1024 * 1024;
/// Node infos. Networks have hundreds of participants; verifying this many takes some ten seconds.
const NODE_INFOS_MAX: usize = 10_000;
/// Earlier parameters. Networks change them a few times a year.
const HISTORIC_PARAMETERS_MAX: usize = 1_000;

/// The network as its files describe it: a snapshot, taken by [`Self::load`].
#[derive(Clone, Debug)]
pub struct FileNetworkMap {
    view: Arc<NetworkView>,
    nodes: Vec<Node>,
    problems: Vec<FileProblem>,
}

/// Why there is no network map.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file or directory that must be there cannot be read.
    #[error("{file}: {error}")]
    Unreadable {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        error: FileError,
    },
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
        let must = |file: &'static str| move |error| LoadError::Unreadable { file, error };
        let root = load_root(dir)?;
        let mut problems = Vec::new();

        let bytes = read(&dir.join(PARAMETERS), PARAMETERS_LEN_MAX).map_err(must(PARAMETERS))?;
        let (current, parameters) = verify_parameters(&bytes, &root, Some(now))?;
        let mut by_hash = HashMap::from([(current, Arc::new(parameters))]);
        let historic =
            list(dir, HISTORIC_PARAMETERS, "", HISTORIC_PARAMETERS_MAX).map_err(must(HISTORIC_PARAMETERS))?;
        for file in historic {
            let verified = read(&dir.join(&file), PARAMETERS_LEN_MAX)
                .and_then(|bytes| Ok(verify_parameters(&bytes, &root, None)?));
            match verified {
                Ok((hash, parameters)) => {
                    by_hash.entry(hash).or_insert_with(|| Arc::new(parameters));
                }
                Err(error) => problems.push(FileProblem { file, error }),
            }
        }

        let mut nodes: HashMap<X500Name, Node> = HashMap::new();
        for file in list(dir, NODE_INFOS, NODE_INFO_PREFIX, NODE_INFOS_MAX).map_err(must(NODE_INFOS))? {
            let verified = read(&dir.join(&file), NODE_INFO_LEN_MAX)
                .and_then(|bytes| Ok(verify_node_info(&bytes, &root, now)?))
                .and_then(|node| match nodes.get(&node.own().name) {
                    Some(known) if known.serial == node.serial && *known != node => {
                        Err(FileError::SerialClash(node.own().to_string()))
                    }
                    Some(known) if known.serial >= node.serial => Ok(None),
                    _ => Ok(Some(node)),
                });
            match verified {
                Ok(Some(node)) => {
                    nodes.insert(node.own().name.clone(), node);
                }
                Ok(None) => {}
                Err(error) => problems.push(FileProblem { file, error }),
            }
        }
        let mut nodes: Vec<_> = nodes.into_values().collect();
        nodes.sort_by(|a, b| a.own().name.cmp(&b.own().name));

        let parties = nodes.iter().map(|node| (node.own().name.clone(), node.own().clone())).collect();
        let routes = nodes.iter().map(|node| (node.own().name.clone(), node.route())).collect();
        let view = NetworkView { parties, routes, parameters: KnownParameters { current: Some(current), by_hash } };
        Ok(Self { view: Arc::new(view), nodes, problems })
    }

    /// The participants, by name.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Files that were left out.
    pub fn problems(&self) -> &[FileProblem] {
        &self.problems
    }
}

impl NetworkMap for FileNetworkMap {
    fn view(&self) -> Arc<NetworkView> {
        Arc::clone(&self.view)
    }
}

/// The root of the network whose material is in `dir`.
///
/// # Errors
/// [`LoadError`] if there is none.
pub fn load_root(dir: &Path) -> Result<Certificate, LoadError> {
    let root = read(&dir.join(ROOT), ROOT_LEN_MAX).map_err(|error| LoadError::Unreadable { file: ROOT, error })?;
    Ok(Certificate::from_pem(&String::from_utf8_lossy(&root))?)
}

/// The files of a directory whose names begin with `prefix`, as `subdir/name`, in the order of their names, hidden ones left
/// out. None if there is no such directory.
fn list(dir: &Path, subdir: &str, prefix: &str, count_max: usize) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(dir.join(subdir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is read as another one, which then does not exist and is reported.
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && !name.starts_with('.') {
            if files.len() == count_max {
                return Err(FileError::TooMany(count_max));
            }
            files.push(format!("{subdir}/{name}"));
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read(path: &Path, len_max: usize) -> Result<Vec<u8>, FileError> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(FileError::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(len_max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > len_max { Err(FileError::TooLarge(len_max)) } else { Ok(bytes) }
}
