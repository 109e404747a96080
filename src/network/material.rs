//! Node infos and network parameters: read, and verified up to the trust root (PROTOCOL i).

use sha2::{Digest, Sha256};

use super::certificate::{Certificate, Role};
use super::path::{PathError, verify_path, verify_path_until};
use crate::domain::network::{HostAndPort, NetworkParameters, Route};
use crate::domain::{Party, SecureHash, SignatureScheme, Timestamp};
use crate::wire::{self, Limits, WireError};

/// Identities in one node info. A node has one, a notary worker two; each costs a path of certificates to verify.
pub const IDENTITIES_MAX: usize = 16;

/// A node as its verified node info describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its identities, at least one. The first is its own and the name of its TLS certificate; a notary worker shares the
    /// second with its cluster.
    pub identities: Vec<Identity>,
    /// Where it listens.
    pub addresses: Vec<HostAndPort>,
    /// Its platform version.
    pub platform_version: i32,
    /// Grows with each new version of the node info.
    pub serial: i64,
    /// The last moment at which all its certificates are valid.
    pub valid_until: Timestamp,
    /// Tells versions of the node info apart that say different things: a hash of all but the serial number.
    pub content: SecureHash,
    /// SHA-256 of what was signed: what a network map lists it by.
    pub hash: SecureHash,
}

impl Node {
    /// The node's own identity.
    ///
    /// # Panics
    /// Never for a node of [`verify_node_info`].
    pub fn own(&self) -> &Party {
        &self.identities.first().expect("verified nodes have an identity").party
    }

    /// How others reach it.
    pub fn route(&self) -> Route {
        let names = self.identities.iter().map(|identity| identity.party.name.clone()).collect();
        Route { addresses: self.addresses.clone(), names }
    }
}

/// A certified identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Name and key of its certificate.
    pub party: Party,
    /// [`Role::LegalIdentity`] or [`Role::ServiceIdentity`].
    pub role: Role,
}

/// Why a document of the network is not to be believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MaterialError {
    /// Not such a document.
    #[error("cannot be read: {0}")]
    Wire(#[from] WireError),
    /// A node without identities, or with more than [`IDENTITIES_MAX`].
    #[error("a node with {0} identities")]
    Identities(usize),
    /// A certificate path proves nothing.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Each identity whose key is not composite signs a node info, and nobody else.
    #[error("{found} signatures instead of {expected}")]
    SignatureCount {
        /// Identities that sign.
        expected: usize,
        /// Signatures there are.
        found: usize,
    },
    /// A signature over the document does not hold.
    #[error("the signature of {0} does not verify")]
    Signature(String),
    /// The first identity is shared with other nodes, or a later one appears again.
    #[error("identity {0} stands where it may not")]
    Misplaced(String),
    /// Parameters that no network can have.
    #[error("network parameters with {0}")]
    Parameters(&'static str),
}

/// Reads a `SignedNodeInfo` and verifies all of it at the moment `now`: every identity's certificate path up to `root`, and the
/// signature of every identity over the raw bytes, in order (composite keys do not sign).
///
/// # Errors
/// [`MaterialError`], the first thing that is wrong.
pub fn verify_node_info(bytes: &[u8], root: &Certificate, now: Timestamp) -> Result<Node, MaterialError> {
    let signed = wire::decode_signed_node_info(bytes, &Limits::DEFAULT)?;
    let info = wire::decode_node_info(&signed.raw, &Limits::DEFAULT)?;
    if !(1..=IDENTITIES_MAX).contains(&info.identities.len()) {
        return Err(MaterialError::Identities(info.identities.len()));
    }
    let mut identities: Vec<Identity> = Vec::with_capacity(info.identities.len());
    let mut ends = i64::MAX;
    for path in &info.identities {
        let allowed = &[Role::LegalIdentity, Role::ServiceIdentity];
        let (certificate, path_ends) = verify_path_until(&path.0, root, Some(now), allowed)?;
        ends = ends.min(path_ends);
        let name = certificate.legal_name().map_err(PathError::from)?;
        let role = certificate.role().expect("one of the two allowed");
        // A service identity is shared, so it says nothing about which node this is.
        let misplaced = identities.is_empty() && role == Role::ServiceIdentity;
        if misplaced || identities.iter().any(|earlier| earlier.party.name == name) {
            return Err(MaterialError::Misplaced(name.to_string()));
        }
        let owning_key = certificate.public_key().clone();
        identities.push(Identity { party: Party { name, owning_key }, role });
    }
    let signers = identities.iter().map(|identity| &identity.party);
    let signers: Vec<_> = signers.filter(|party| party.owning_key.scheme() != SignatureScheme::Composite).collect();
    if signers.len() != signed.signatures.len() {
        return Err(MaterialError::SignatureCount { expected: signers.len(), found: signed.signatures.len() });
    }
    for (party, signature) in signers.into_iter().zip(&signed.signatures) {
        let verified = party.owning_key.verify(&signed.raw, signature);
        verified.map_err(|_| MaterialError::Signature(party.to_string()))?;
    }
    let (content, hash) = (content_of(&info), SecureHash::sha256(Sha256::digest(&signed.raw).into()));
    let wire::NodeInfo { addresses, platform_version, serial, .. } = info;
    let ends = ends.clamp(Timestamp::SECONDS_MIN, Timestamp::SECONDS_MAX);
    let valid_until = Timestamp::new(ends, 0).expect("clamped to what a timestamp can say");
    Ok(Node { identities, addresses, platform_version, serial, valid_until, content, hash })
}

/// A hash of what a node info says, whatever its serial number.
pub(super) fn content_of(info: &wire::NodeInfo) -> SecureHash {
    let unnumbered = wire::encode_node_info(&wire::NodeInfo { serial: 0, ..info.clone() });
    SecureHash::sha256(Sha256::digest(unnumbered).into())
}

/// Reads a `SignedDataWithCert<NetworkParameters>` and verifies its signature and the signer's path up to `root`, at the moment
/// `now`; without one, whenever: for historic parameters, whose signer's certificate may have expired since. The hash is the one
/// that transactions name: SHA-256 of the raw bytes.
///
/// # Errors
/// [`MaterialError`], the first thing that is wrong.
pub fn verify_parameters(
    bytes: &[u8],
    root: &Certificate,
    now: Option<Timestamp>,
) -> Result<(SecureHash, NetworkParameters), MaterialError> {
    let signed = wire::decode_signed_network_parameters(bytes, &Limits::DEFAULT)?;
    let parameters = wire::decode_network_parameters(&signed.raw, &Limits::DEFAULT)?.parameters;
    // Network map certificates signed parameters before platform version 4.
    verify_signed(&signed, root, now, &[Role::NetworkParameters, Role::NetworkMap])?;

    // As Corda's own constructor demands.
    let mut notaries: Vec<_> = parameters.notaries.iter().map(|notary| notary.identity.owning_key.as_spki()).collect();
    notaries.sort_unstable();
    let refused = match &parameters {
        p if p.minimum_platform_version < 1 => Some("a minimum platform version below 1"),
        p if p.epoch < 1 => Some("an epoch below 1"),
        p if p.max_message_size < 1 || p.max_transaction_size < 1 => Some("a maximum size below 1"),
        _ if notaries.windows(2).any(|pair| pair[0] == pair[1]) => Some("the same notary twice"),
        _ => None,
    };
    match refused {
        Some(why) => Err(MaterialError::Parameters(why)),
        None => Ok((SecureHash::sha256(Sha256::digest(&signed.raw).into()), parameters)),
    }
}

/// Reads a `SignedDataWithCert<NetworkMap>` and verifies its signature and the signer's path up to `root`, at the moment `now`.
///
/// # Errors
/// [`MaterialError`], the first thing that is wrong.
pub fn verify_network_map(
    bytes: &[u8],
    root: &Certificate,
    now: Timestamp,
) -> Result<wire::NetworkMapDocument, MaterialError> {
    let signed = wire::decode_signed_network_parameters(bytes, &Limits::DEFAULT)?;
    let map = wire::decode_network_map(&signed.raw, &Limits::DEFAULT)?;
    verify_signed(&signed, root, Some(now), &[Role::NetworkMap])?;
    Ok(map)
}

/// The signature over a document, and its signer's path up to `root`.
fn verify_signed(
    signed: &wire::SignedNetworkParameters,
    root: &Certificate,
    now: Option<Timestamp>,
    allowed: &[Role],
) -> Result<(), MaterialError> {
    // From the signer upwards; the root may be left out.
    let mut path: Vec<_> = [&signed.certificate].into_iter().chain(&signed.parent_certificates).cloned().collect();
    path.reverse();
    if path[0] != root.as_der() && path.len() == 1 {
        path.insert(0, root.as_der().to_vec());
    }
    let signer = verify_path(&path, root, now, allowed)?;
    let verified = signer.public_key().verify(&signed.raw, &signed.signature);
    verified.map_err(|_| MaterialError::Signature(signer.to_string()))
}
