//! Development networks of complete nodes: a folder for each, as Corda's own bootstrapper makes them, that a node in development
//! mode starts from, and a worker of ours in the place of one.
//!
//! ```text
//! <dir>/                            closed to everybody else
//!   root.pem                        the trust root
//!   authorities/                    {root,identity,parameters}.{p8,pem}, to let the network grow: in the clear, throw-away. Below
//!                                   Corda's development CA only the last, as everybody has the others
//!   <node>/                         worker-1, worker-2, …, alice, …
//!     node.conf
//!     nodeInfo-<hash of the name>   what the node says of itself, signed by its identities
//!     additional-node-infos/        what all nodes say
//!     network-parameters
//!     cordapps/                     empty
//!     certificates/
//!       nodekeystore.jks            cordaclientca (the node's own CA), identity-private-key, and with workers the service's
//!                                   distributed-notary-private-key
//!       sslkeystore.jks             cordaclienttls
//!       truststore.jks              cordarootca
//!       distributedService.jks      with workers: the service's key once more, where nodes look for it on their first start
//! ```
//!
//! The passphrases of the key stores are those that nodes in development mode take by default, so none stands in `node.conf`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::authorities::{Authorities, NodeAuthority, Rules, path, sign_node_info};
use super::certificate::{Certificate, Role};
use super::corda_dev_ca::CordaDevCa;
use super::development::{DevelopmentError, WORKERS_MAX, appear, make_dir, secret};
use super::files::{PARAMETERS, ROOT, node_info_file_name};
use super::issue::Authority;
use crate::domain::network::HostAndPort;
use crate::domain::{Party, SignatureScheme, Timestamp, X500Name};
use crate::keys::jks::Writer;
use crate::keys::{PrivateKey, file};

/// Nodes that can be asked for, workers included: more do not fit on one machine, at half a gigabyte each.
pub const NODES_MAX: usize = 100;
/// Ports from one node's first to the next one's: for peers, for RPC, for RPC's administration, and room to read them easily.
pub const PORTS_PER_NODE: u16 = 10;

/// Passphrases of key stores and of trust stores in development mode (Corda's `KeyStoreConfigHelpers.kt`).
const STORE_PASSPHRASE: &str = "cordacadevpass";
const TRUST_PASSPHRASE: &str = "trustpass";
/// Names of entries (Corda's `X509Utilities.kt`).
const NODE_CA: &str = "cordaclientca";
const IDENTITY: &str = "identity-private-key";
const SERVICE: &str = "distributed-notary-private-key";
const TLS: &str = "cordaclienttls";
const TRUSTED_ROOT: &str = "cordarootca";
/// Who may start flows on a party's node.
const RPC_USER: &str = "user";

/// What a network of nodes shall be like.
#[derive(Clone, Debug)]
pub struct NodesSpec {
    /// The notary service's name.
    pub service: X500Name,
    /// Scheme of the service key: Ed25519 or ECDSA P-256.
    pub service_scheme: SignatureScheme,
    /// How many workers share the service, at most [`WORKERS_MAX`].
    pub workers: usize,
    /// The parties' names.
    pub parties: Vec<X500Name>,
    /// Names of further notaries, each of one Corda node and non-validating: to move states to.
    pub other_notaries: Vec<X500Name>,
    /// The host under which all nodes reach each other.
    pub host: String,
    /// The first node's port for peers; every node has the [`PORTS_PER_NODE`] that follow.
    pub port: u16,
    /// What the network's parameters say.
    pub rules: Rules,
    /// The moment of making.
    pub now: Timestamp,
}

/// What a node is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    /// Serves the notary service: a worker of ours, or a Corda node.
    Worker,
    /// A Corda node that uses it.
    Party,
    /// A Corda node that is a notary by itself.
    OtherNotary,
}

/// A node that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MadeNode {
    /// Its folder.
    pub folder: PathBuf,
    /// Its own legal name.
    pub name: X500Name,
    /// What it is for.
    pub kind: NodeKind,
    /// Where peers reach it.
    pub address: HostAndPort,
}

/// Why a network of nodes cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NodesError {
    /// As with every development network.
    #[error(transparent)]
    Development(#[from] DevelopmentError),
    /// A name is taken.
    #[error("two participants are called {0}")]
    Name(String),
    /// More than [`NODES_MAX`].
    #[error("at most {NODES_MAX} nodes can be made")]
    TooMany,
    /// Ports beyond the last one.
    #[error("{0} nodes do not find enough ports after {1}: each takes {PORTS_PER_NODE}")]
    Ports(usize, u16),
    /// The host cannot stand in an address.
    #[error("{0:?} is no host")]
    Host(String),
    /// The development CA has ended, so nobody believes anything below it.
    #[error("the certificate of {0} has ended: make a network with a root of its own")]
    Ended(String),
}

macro_rules! from_development {
    ($($error:ty),*) => {
        $(impl From<$error> for NodesError {
            fn from(error: $error) -> Self {
                DevelopmentError::from(error).into()
            }
        })*
    };
}

from_development!(crate::keys::PrivateKeyError, crate::keys::file::SecretFileError, super::issue::IssueError);

/// Makes the network in `dir`, which must be empty or not exist, below a new root, or below `ca`. It appears complete or not at all.
///
/// # Errors
/// [`NodesError`]; then nothing is left behind.
pub fn create(dir: &Path, spec: &NodesSpec, ca: Option<CordaDevCa>) -> Result<Vec<MadeNode>, NodesError> {
    let nodes = plan(dir, spec)?;
    if let Some(ca) = &ca {
        for authority in [&ca.root, &ca.identity] {
            if authority.certificate.validity.1 <= spec.now.seconds() {
                return Err(NodesError::Ended(authority.certificate.to_string()));
            }
        }
    }
    appear(dir, |unfinished| make(unfinished, spec, ca, &nodes))?;
    Ok(nodes)
}

/// Who is where.
fn plan(dir: &Path, spec: &NodesSpec) -> Result<Vec<MadeNode>, NodesError> {
    if spec.workers == 0 || spec.workers > WORKERS_MAX {
        return Err(DevelopmentError::Workers.into());
    }
    let count = spec.workers.saturating_add(spec.parties.len()).saturating_add(spec.other_notaries.len());
    if count > NODES_MAX {
        return Err(NodesError::TooMany);
    }
    if spec.host.is_empty() || !spec.host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
        return Err(NodesError::Host(spec.host.clone()));
    }
    let X500Name { locality, country, .. } = &spec.service;
    // The service's own locality and country make them valid.
    let worker = |n| X500Name::new(&format!("Notary Worker {n}"), locality, country).expect("as the service's");
    let workers = (1..=spec.workers).map(|n| (format!("worker-{n}"), worker(n), NodeKind::Worker));
    let mut named: Vec<_> = workers.collect();
    let mut names: BTreeSet<X500Name> = named.iter().map(|(_, name, _)| name.clone()).collect();
    let mut folders: BTreeSet<String> = named.iter().map(|(folder, ..)| folder.clone()).collect();
    folders.insert("authorities".into());
    let parties = spec.parties.iter().map(|name| (name, NodeKind::Party));
    let others = spec.other_notaries.iter().map(|name| (name, NodeKind::OtherNotary));
    if !names.insert(spec.service.clone()) {
        return Err(NodesError::Name(spec.service.to_string()));
    }
    for (name, kind) in parties.chain(others) {
        // Short if it can be: alice, or alice-corp if there is another Alice.
        let long = slug(&name.organisation);
        let short = long.split('-').next().unwrap_or(&long).to_owned();
        let taken = || NodesError::Name(name.to_string());
        let short = if kind == NodeKind::Party { short } else { long.clone() };
        let folder = [short, long].into_iter().find(|folder| folders.insert(folder.clone())).ok_or_else(taken)?;
        if !names.insert(name.clone()) {
            return Err(taken());
        }
        named.push((folder, name.clone(), kind));
    }
    let port = |n: usize| {
        let port = usize::from(spec.port) + n * usize::from(PORTS_PER_NODE);
        let last = port + usize::from(PORTS_PER_NODE) - 1;
        u16::try_from(last).map(|_| port as u16).map_err(|_| NodesError::Ports(count, spec.port))
    };
    let nodes = named.into_iter().enumerate().map(|(n, (folder, name, kind))| {
        let address = HostAndPort { host: spec.host.clone(), port: port(n)? };
        Ok(MadeNode { folder: dir.join(folder), name, kind, address })
    });
    nodes.collect()
}

/// Letters and digits in small, and `-` between: `alice-corp`. Legal names have two letters at least.
fn slug(organisation: &str) -> String {
    let mut slug = String::new();
    for c in organisation.chars().flat_map(char::to_lowercase) {
        match c.is_alphanumeric() {
            true => slug.push(c),
            false if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            false => {}
        }
    }
    slug.trim_end_matches('-').to_owned()
}

/// What workers share.
struct Service {
    party: Party,
    key: PrivateKey,
    chain: Vec<Certificate>,
}

fn make(dir: &Path, spec: &NodesSpec, ca: Option<CordaDevCa>, nodes: &[MadeNode]) -> Result<(), NodesError> {
    make_dir(dir)?;
    let keeps_all = ca.is_none();
    let issuers = match ca {
        Some(CordaDevCa { root, identity }) => Authorities::of(root, identity, spec.now)?,
        None => Authorities::make(spec.now)?,
    };
    file::create(&dir.join(ROOT), issuers.root.certificate.to_pem().as_bytes())?;
    make_dir(&dir.join("authorities"))?;
    let above = [("root", &issuers.root), ("identity", &issuers.identity)].into_iter().filter(|_| keeps_all);
    for (name, Authority { certificate, key }) in above.chain([("parameters", &issuers.parameters)]) {
        file::save_plain(&dir.join(format!("authorities/{name}.p8")), key)?;
        file::create(&dir.join(format!("authorities/{name}.pem")), certificate.to_pem().as_bytes())?;
    }

    let key = PrivateKey::generate(spec.service_scheme)?;
    let party = Party { name: spec.service.clone(), owning_key: key.public_key().clone() };
    let service = Service { chain: issuers.service_identity(&party)?, party, key };
    let (mut notaries, mut node_infos) = (vec![service.party.clone()], Vec::new());
    for node in nodes {
        let folder = dir.join(node.folder.file_name().expect("planned with one"));
        make_dir(&folder)?;
        let serves = (node.kind == NodeKind::Worker).then_some(&service);
        let (party, node_info) = make_node(&folder, node, &issuers, serves, spec.now)?;
        file::create(&folder.join("node.conf"), node_conf(node, &spec.service)?.as_bytes())?;
        if node.kind == NodeKind::OtherNotary {
            notaries.push(party);
        }
        node_infos.push((folder, node_info_file_name(&node.name), node_info));
    }
    let parameters = issuers.sign_parameters(&spec.rules, spec.now, notaries);
    for (folder, own, own_info) in &node_infos {
        file::create(&folder.join(PARAMETERS), &parameters)?;
        file::create(&folder.join(own), own_info)?;
        let others = folder.join("additional-node-infos");
        make_dir(&others)?;
        make_dir(&folder.join("cordapps"))?;
        for (_, name, node_info) in &node_infos {
            file::create(&others.join(name), node_info)?;
        }
    }
    Ok(())
}

/// A node's keys and certificates; returns who it is, and its signed node info.
fn make_node(
    folder: &Path,
    node: &MadeNode,
    issuers: &Authorities,
    service: Option<&Service>,
    now: Timestamp,
) -> Result<(Party, Vec<u8>), NodesError> {
    let own: NodeAuthority<'_> = issuers.node(&node.name)?;
    // As Corda does it: Ed25519 for identities, P-256 for everything else.
    let (identity, tls) =
        (PrivateKey::generate(SignatureScheme::Ed25519)?, PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256)?);
    let identity_chain = own.issue(identity.public_key(), Role::LegalIdentity)?;
    let tls_chain = own.issue(tls.public_key(), Role::Tls)?;

    let certificates = folder.join("certificates");
    make_dir(&certificates)?;
    let create = |name: &str, content: Vec<u8>| file::create(&certificates.join(name), &content);
    let [passphrase, trust_passphrase] =
        [STORE_PASSPHRASE, TRUST_PASSPHRASE].map(|text| Zeroizing::new(text.to_owned()));
    let mut store = Writer::new(now).key(NODE_CA, &own.authority.key, &der(&own.chain()), &passphrase)?.key(
        IDENTITY,
        &identity,
        &der(&identity_chain),
        &passphrase,
    )?;
    if let Some(service) = service {
        let with_service = |writer: Writer| writer.key(SERVICE, &service.key, &der(&service.chain), &passphrase);
        store = with_service(store)?;
        create("distributedService.jks", with_service(Writer::new(now))?.finish(&passphrase))?;
    }
    create("nodekeystore.jks", store.finish(&passphrase))?;
    create("sslkeystore.jks", Writer::new(now).key(TLS, &tls, &der(&tls_chain), &passphrase)?.finish(&passphrase))?;
    let root = issuers.root.certificate.as_der();
    create("truststore.jks", Writer::new(now).trusted(TRUSTED_ROOT, root).finish(&trust_passphrase))?;

    let (mut paths, mut keys) = (vec![path(&identity_chain)], vec![&identity]);
    if let Some(service) = service {
        paths.push(path(&service.chain));
        keys.push(&service.key);
    }
    let node_info = sign_node_info(now, node.address.clone(), paths, &keys);
    Ok((Party { name: node.name.clone(), owning_key: identity.public_key().clone() }, node_info))
}

fn der(chain: &[Certificate]) -> Vec<Vec<u8>> {
    chain.iter().map(|certificate| certificate.as_der().to_vec()).collect()
}

/// `node.conf`, in HOCON. Legal names have neither quotes nor backslashes where Corda allows them; to be sure they are quoted as JSON,
/// which HOCON contains.
fn node_conf(node: &MadeNode, service: &X500Name) -> Result<String, NodesError> {
    let HostAndPort { host, port } = &node.address;
    let quoted = |text: &dyn std::fmt::Display| serde_json::Value::from(text.to_string()).to_string();
    let mut conf = format!(
        "myLegalName = {}\n\
         p2pAddress = \"{host}:{port}\"\n\
         rpcSettings {{ address = \"{host}:{}\", adminAddress = \"{host}:{}\" }}\n\
         devMode = true\n\
         detectPublicIp = false\n",
        quoted(&node.name),
        port + 1,
        port + 2,
    );
    match node.kind {
        NodeKind::Worker => {
            conf += &format!("notary {{ validating = false, serviceLegalName = {} }}\n", quoted(service));
        }
        NodeKind::OtherNotary => conf += "notary { validating = false }\n",
        NodeKind::Party => {
            let password = secret()?;
            conf += &format!("rpcUsers = [{{ user = {RPC_USER}, password = \"{password}\", permissions = [ALL] }}]\n");
        }
    }
    Ok(conf)
}

#[cfg(test)]
mod tests;
