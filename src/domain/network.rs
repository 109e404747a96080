//! What the worker knows of its Corda network: who takes part, and which network parameters have ever been in force.

use std::collections::HashMap;
use std::sync::Arc;

use super::hash::SecureHash;
use super::party::{Party, X500Name};
use super::time::Timestamp;

/// A snapshot of the network; replaced as a whole when material changes.
#[derive(Clone, Default, Debug)]
pub struct NetworkView {
    /// Participants by the name their transport identity proves.
    pub parties: HashMap<X500Name, Party>,
    /// How to reach their nodes, by the same names.
    pub routes: HashMap<X500Name, Route>,
    /// Parameters in force and earlier ones.
    pub parameters: KnownParameters,
}

/// How to reach a participant's node, as its node info says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it listens, each to be tried in turn.
    pub addresses: Vec<HostAndPort>,
    /// The legal names it answers to: its TLS certificate bears one of them (PROTOCOL b.3).
    pub names: Vec<X500Name>,
}

/// Where a node listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostAndPort {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl core::fmt::Display for HostAndPort {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Every version of the network parameters that is known. Old and new ones are accepted together, so a change of parameters
/// is no outage (FD4).
#[derive(Clone, Default, Debug)]
pub struct KnownParameters {
    /// SHA-256 of the parameters in force.
    pub current: Option<SecureHash>,
    /// By SHA-256 of their serialized form.
    pub by_hash: HashMap<SecureHash, Arc<NetworkParameters>>,
}

impl KnownParameters {
    /// The parameters in force.
    pub fn current(&self) -> Option<&NetworkParameters> {
        self.by_hash.get(self.current.as_ref()?).map(AsRef::as_ref)
    }
}

/// One version of the network parameters, as far as a notary needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkParameters {
    /// Counts up with each version.
    pub epoch: i32,
    /// Lowest platform version allowed on the network.
    pub minimum_platform_version: i32,
    /// The notaries that transactions may use.
    pub notaries: Vec<NotaryInfo>,
    /// Largest message, in bytes.
    pub max_message_size: i32,
    /// Largest transaction, in bytes.
    pub max_transaction_size: i32,
    /// When this version was made.
    pub modified_time: Timestamp,
}

/// One notary of the whitelist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotaryInfo {
    /// Its service identity.
    pub identity: Party,
    /// Whether it validates whole transactions.
    pub validating: bool,
}
