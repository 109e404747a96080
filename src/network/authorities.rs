//! The authorities of a development network, and what they issue and sign.

use core::time::Duration;

use super::certificate::{Certificate, Role};
use super::development::{DevelopmentError, known_name};
use super::issue::{Authority, IssueError, Request};
use crate::domain::network::{HostAndPort, NetworkParameters, NotaryInfo};
use crate::domain::{Party, PublicKey, SignatureScheme, Timestamp, X500Name};
use crate::keys::PrivateKey;
use crate::wire::{
    self, CertificatePath, NetworkParametersDocument, NodeInfo, SignedNetworkParameters, SignedNodeInfo,
};

/// How long certificates are valid, in seconds: ten years, as those of Corda's development mode.
const VALID_SECONDS: i64 = 10 * 365 * 86_400;
/// How long before now they are valid already, in seconds: clocks of other machines may be behind.
const VALID_BEFORE_SECONDS: i64 = 86_400;
/// The platform version of Corda 4.10, which the nodes claim.
const PLATFORM_VERSION: i32 = 12;

/// What a network's parameters say besides its notaries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// The lowest platform version allowed. From 4 on, transactions have to name network parameters.
    pub minimum_platform_version: i32,
    /// Largest message, in bytes.
    pub max_message_size: i32,
    /// Largest transaction, in bytes.
    pub max_transaction_size: i32,
    /// How long a node may stay away.
    pub event_horizon: Duration,
}

/// Corda's defaults.
impl Default for Rules {
    fn default() -> Self {
        Self {
            minimum_platform_version: 4,
            max_message_size: 10_485_760,
            max_transaction_size: 524_288_000,
            event_horizon: Duration::from_secs(30 * 86_400),
        }
    }
}

/// A network's authorities.
pub(super) struct Authorities {
    validity: (i64, i64),
    pub(super) root: Authority,
    pub(super) identity: Authority,
    pub(super) parameters: Authority,
}

impl Authorities {
    /// New ones, with keys of their own.
    pub(super) fn make(now: Timestamp) -> Result<Self, DevelopmentError> {
        let validity = validity(now);
        let root = Authority::root(&name("Root CA"), key()?, validity)?;
        let identity = below(&root, "Identity CA", Role::IdentityCa, validity)?;
        let parameters = below(&root, "Network Parameters", Role::NetworkParameters, validity)?;
        Ok(Self { validity, root, identity, parameters })
    }

    /// With a root and an identity CA that are there already: nothing made by them outlives them.
    pub(super) fn of(root: Authority, identity: Authority, now: Timestamp) -> Result<Self, DevelopmentError> {
        let (from, until) = validity(now);
        let until = until.min(root.certificate.validity.1).min(identity.certificate.validity.1);
        let parameters = below(&root, "Network Parameters", Role::NetworkParameters, (from, until))?;
        Ok(Self { validity: (from, until), root, identity, parameters })
    }

    /// A node's own authority.
    pub(super) fn node(&self, name: &X500Name) -> Result<NodeAuthority<'_>, DevelopmentError> {
        let key = key()?;
        let (public_key, validity) = (&key.public_key().clone(), self.validity);
        let request = Request { subject: name, public_key, role: Some(Role::NodeCa), validity };
        let authority = self.identity.authority(&request, key)?;
        Ok(NodeAuthority { above: self, name: name.clone(), authority })
    }

    /// The chain of a service identity: no node CA, because several nodes share it.
    pub(super) fn service_identity(&self, party: &Party) -> Result<Vec<Certificate>, IssueError> {
        let Party { name: subject, owning_key: public_key } = party;
        let role = Some(Role::ServiceIdentity);
        let identity = self.identity.issue(&Request { subject, public_key, role, validity: self.validity })?;
        Ok(vec![identity, self.identity.certificate.clone(), self.root.certificate.clone()])
    }

    /// The signed parameters of a network with these non-validating notaries.
    pub(super) fn sign_parameters(&self, rules: &Rules, now: Timestamp, notaries: Vec<Party>) -> Vec<u8> {
        let notaries = notaries.into_iter().map(|identity| NotaryInfo { identity, validating: false });
        let parameters = NetworkParameters {
            epoch: 1,
            minimum_platform_version: rules.minimum_platform_version,
            notaries: notaries.collect(),
            max_message_size: rules.max_message_size,
            max_transaction_size: rules.max_transaction_size,
            modified_time: now,
        };
        let event_horizon = Some(rules.event_horizon);
        let (package_ownership, contract_whitelist) = (Vec::new(), Vec::new());
        let document = NetworkParametersDocument { parameters, event_horizon, package_ownership, contract_whitelist };
        let raw = wire::encode_network_parameters(&document);
        wire::encode_signed_network_parameters(&SignedNetworkParameters {
            signature: self.parameters.key.sign(&raw),
            certificate: self.parameters.certificate.as_der().to_vec(),
            parent_certificates: vec![self.root.certificate.as_der().to_vec()],
            raw,
        })
    }
}

/// A node's own authority, for its identity and its TLS certificate.
pub(super) struct NodeAuthority<'a> {
    above: &'a Authorities,
    name: X500Name,
    pub(super) authority: Authority,
}

impl NodeAuthority<'_> {
    /// The authority's own chain.
    pub(super) fn chain(&self) -> Vec<Certificate> {
        let above = [&self.above.identity.certificate, &self.above.root.certificate];
        [&self.authority.certificate].into_iter().chain(above).cloned().collect()
    }

    /// The chain of a certificate for a key of the node's.
    pub(super) fn issue(&self, public_key: &PublicKey, role: Role) -> Result<Vec<Certificate>, IssueError> {
        let request = Request { subject: &self.name, public_key, role: Some(role), validity: self.above.validity };
        Ok([self.authority.issue(&request)?].into_iter().chain(self.chain()).collect())
    }
}

fn validity(now: Timestamp) -> (i64, i64) {
    (now.seconds() - VALID_BEFORE_SECONDS, now.seconds() + VALID_SECONDS)
}

fn name(common_name: &str) -> X500Name {
    X500Name { common_name: Some(common_name.to_owned()), ..known_name("Development Network", "Zurich", "CH") }
}

/// Corda's own authorities have P-256 keys.
fn key() -> Result<PrivateKey, DevelopmentError> {
    Ok(PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256)?)
}

fn below(root: &Authority, common_name: &str, role: Role, validity: (i64, i64)) -> Result<Authority, DevelopmentError> {
    let key = key()?;
    let (subject, public_key) = (&name(common_name), &key.public_key().clone());
    Ok(root.authority(&Request { subject, public_key, role: Some(role), validity }, key)?)
}

/// A chain, own certificate first, as node infos have it: root first.
pub(super) fn path(chain: &[Certificate]) -> CertificatePath {
    CertificatePath(chain.iter().rev().map(|certificate| certificate.as_der().to_vec()).collect())
}

/// A node info with these identities, signed by all of their keys, in their order.
pub(super) fn sign_node_info(
    now: Timestamp,
    address: HostAndPort,
    identities: Vec<CertificatePath>,
    keys: &[&PrivateKey],
) -> Vec<u8> {
    let info = NodeInfo {
        addresses: vec![address],
        identities,
        platform_version: PLATFORM_VERSION,
        // As Corda: the time of making, in milliseconds.
        serial: now.as_millis(),
    };
    let raw = wire::encode_node_info(&info);
    let signatures = keys.iter().map(|key| key.sign(&raw)).collect();
    wire::encode_signed_node_info(&SignedNodeInfo { raw, signatures })
}
