//! The network's documents from all places where they may lie, and the view that follows from them.
//!
//! A library is looked through again and again ([`Library::look`]); each look costs what changed. It never forgets network
//! parameters: transactions refer to earlier ones for years, so they go into an archive as well (PR4, FD4).

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::certificate::Certificate;
use super::files::{self, FileError, FileProblem, LoadError};
use super::material::{Node, verify_node_info, verify_parameters};
use super::shelf::{Bounds, Good, Place, Shelf, label};
use crate::domain::network::{KnownParameters, NetworkParameters, NetworkView};
use crate::domain::{SecureHash, Timestamp, X500Name};

/// Bytes of a node info. One with two identities has 6 500.
pub(super) const NODE_INFO_LEN_MAX: usize = 64 * 1024;
/// Bytes of network parameters. Without contract whitelists they have 5 000; with them, some 100 000.
pub(super) const PARAMETERS_LEN_MAX: usize = 4 * 1024 * 1024;
/// Node infos in one folder. Networks have hundreds of participants; verifying this many takes some ten seconds.
pub(super) const NODE_INFOS_MAX: usize = 10_000;
/// Earlier parameters in one folder. Networks change them a few times a year.
const HISTORIC_PARAMETERS_MAX: usize = 1_000;

/// Where a network's documents lie. Files and folders need not exist, but for one of `parameters`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sources {
    /// The parameters in force; the first file that can be believed says which.
    pub parameters: Vec<PathBuf>,
    /// Parameters that will be in force, accepted together with those that are.
    pub parameters_updates: Vec<PathBuf>,
    /// Folders of earlier parameters.
    pub historic_parameters: Vec<PathBuf>,
    /// Folders of node infos.
    pub node_infos: Vec<PathBuf>,
    /// Folder where parameters are kept that came by another way, so that they stay known.
    pub archive: Option<PathBuf>,
}

impl Sources {
    /// Everything in one folder, as `FileNetworkMap` describes it.
    pub fn in_folder(dir: &Path) -> Self {
        Self {
            parameters: vec![dir.join(files::PARAMETERS)],
            parameters_updates: vec![dir.join(files::PARAMETERS_UPDATE)],
            historic_parameters: vec![dir.join(files::HISTORIC_PARAMETERS)],
            node_infos: vec![dir.join(files::NODE_INFOS)],
            archive: None,
        }
    }
}

/// Parameters with the bytes that were signed, as they came.
#[derive(Clone, Debug)]
struct Signed {
    hash: SecureHash,
    parameters: Arc<NetworkParameters>,
    bytes: Arc<[u8]>,
}

/// Everything that is known of a network.
#[derive(Clone, Debug)]
pub struct Library {
    root: Certificate,
    sources: Sources,
    in_force: Shelf<Signed>,
    historic: Shelf<(SecureHash, Arc<NetworkParameters>)>,
    node_infos: Shelf<Node>,
    /// All parameters that were ever seen.
    known: HashMap<SecureHash, Arc<NetworkParameters>>,
    view: Arc<NetworkView>,
    nodes: Arc<[Node]>,
    clashes: Vec<FileProblem>,
    archive_problem: Option<FileProblem>,
}

impl Library {
    /// Reads and verifies everything at the moment `now`.
    ///
    /// # Errors
    /// [`LoadError`] if there are no parameters in force, or a folder cannot be read. What is wrong with other files:
    /// [`Self::problems`].
    pub fn open(root: Certificate, sources: Sources, now: Timestamp) -> Result<Self, LoadError> {
        let folders =
            |paths: &[PathBuf], prefix| paths.iter().map(|path| Place::Folder(path.clone(), prefix)).collect();
        let lasting = sources.parameters.iter().cloned().map(Place::Lasting);
        let passing = sources.parameters_updates.iter().cloned().map(Place::Passing);
        let historic: Vec<PathBuf> = sources.historic_parameters.iter().chain(&sources.archive).cloned().collect();
        let parameters = Bounds { len_max: PARAMETERS_LEN_MAX, count_max: HISTORIC_PARAMETERS_MAX };
        let infos = Bounds { len_max: NODE_INFO_LEN_MAX, count_max: NODE_INFOS_MAX };
        let mut library = Self {
            in_force: Shelf::new(lasting.chain(passing).collect(), parameters),
            historic: Shelf::new(folders(&historic, ""), parameters),
            node_infos: Shelf::new(folders(&sources.node_infos, files::NODE_INFO_PREFIX), infos),
            root,
            sources,
            known: HashMap::new(),
            view: Arc::default(),
            nodes: Arc::new([]),
            clashes: Vec::new(),
            archive_problem: None,
        };
        library.look(now);
        let unreadable =
            |file: &Path, error: &FileError| LoadError::Unreadable { file: label(file), error: error.clone() };
        if let Some((folder, error)) = library.historic.broken().chain(library.node_infos.broken()).next() {
            return Err(unreadable(folder, error));
        }
        if library.view.parameters.current.is_none() {
            let mut candidates = library.sources.parameters.iter();
            let wrong = candidates.find_map(|path| Some((path, library.in_force.problem(path)?)));
            return Err(match wrong {
                Some((_, FileError::Material(error))) => LoadError::Parameters(error.clone()),
                Some((path, error)) => unreadable(path, error),
                None => {
                    let missing = FileError::from(io::Error::from(io::ErrorKind::NotFound));
                    unreadable(
                        library.sources.parameters.last().map_or(Path::new(files::PARAMETERS), |path| path),
                        &missing,
                    )
                }
            });
        }
        Ok(library)
    }

    /// Reads what changed. Returns whether the view is another one than before. Blocks for about a millisecond a changed node info.
    pub fn look(&mut self, now: Timestamp) -> bool {
        let root = &self.root;
        let mut changed = self.in_force.look(now, &|bytes| {
            let (hash, parameters) = verify_parameters(bytes, root, Some(now))?;
            // They stay in force when their signer's certificate ends: without parameters there is no service.
            Ok(Good { document: Signed { hash, parameters: Arc::new(parameters), bytes: bytes.into() }, until: None })
        });
        changed |= self.historic.look(now, &|bytes| {
            let (hash, parameters) = verify_parameters(bytes, root, None)?;
            Ok(Good { document: (hash, Arc::new(parameters)), until: None })
        });
        changed |= self.node_infos.look(now, &|bytes| {
            let node = verify_node_info(bytes, root, now)?;
            Ok(Good { until: Some(node.valid_until), document: node })
        });
        changed && self.compose()
    }

    /// The view that follows from what is believed now. Returns whether it says something new; the same documents in another place
    /// do not, such as parameters that were put into the archive.
    fn compose(&mut self) -> bool {
        let current =
            self.sources.parameters.iter().find_map(|path| self.in_force.document(path)).map(|found| found.hash);
        let recent = self.in_force.documents().map(|(_, signed)| (signed.hash, &signed.parameters));
        for (hash, parameters) in recent.chain(self.historic.documents().map(|(_, (hash, known))| (*hash, known))) {
            self.known.entry(hash).or_insert_with(|| Arc::clone(parameters));
        }

        self.clashes.clear();
        let mut nodes: BTreeMap<&X500Name, &Node> = BTreeMap::new();
        for (path, node) in self.node_infos.documents() {
            let own = node.own();
            match nodes.get(&own.name) {
                Some(known) if known.serial == node.serial && *known != node => {
                    let error = FileError::SerialClash(own.to_string());
                    self.clashes.push(FileProblem { file: label(path), error });
                }
                Some(known) if known.serial >= node.serial => {}
                _ => drop(nodes.insert(&own.name, node)),
            }
        }
        let same_nodes = nodes.values().copied().eq(self.nodes.iter());
        let before = (self.view.parameters.current, self.view.parameters.by_hash.len());
        if same_nodes && before == (current, self.known.len()) {
            return false;
        }
        let parties = nodes.iter().map(|(name, node)| ((*name).clone(), node.own().clone())).collect();
        let routes = nodes.iter().map(|(name, node)| ((*name).clone(), node.route())).collect();
        let parameters = KnownParameters { current, by_hash: self.known.clone() };
        self.nodes = nodes.into_values().cloned().collect();
        self.view = Arc::new(NetworkView { parties, routes, parameters });
        true
    }

    /// Writes parameters into the archive that no folder of earlier ones holds. What goes wrong is a problem of the library.
    pub fn archive(&mut self) {
        let Some(archive) = &self.sources.archive else { return };
        let kept = |hash: &SecureHash| self.historic.documents().any(|(_, (known, _))| known == hash);
        let missing: Vec<&Signed> =
            self.in_force.documents().map(|(_, signed)| signed).filter(|signed| !kept(&signed.hash)).collect();
        let written = missing.into_iter().try_for_each(|signed| {
            let file = archive.join(signed.hash.to_string().replace(':', "-"));
            if file.exists() { Ok(()) } else { files::replace(&file, &signed.bytes) }
        });
        let problem = |error: io::Error| FileProblem { file: label(archive), error: error.into() };
        self.archive_problem = written.err().map(problem);
    }

    /// The view in force.
    pub fn view(&self) -> &Arc<NetworkView> {
        &self.view
    }

    /// The participants, by name.
    pub fn nodes(&self) -> &Arc<[Node]> {
        &self.nodes
    }

    /// Files that are not, or not in their newest version, believed.
    pub fn problems(&self) -> Vec<FileProblem> {
        let files = self.in_force.problems().chain(self.historic.problems()).chain(self.node_infos.problems());
        files.chain(self.clashes.iter().cloned()).chain(self.archive_problem.clone()).collect()
    }
}
