//! A worker's own node info: how it is described, numbered and signed. What is published is first believed by ourselves, with the
//! code that judges everybody else's.

use super::certificate::{Certificate, Role};
use super::files::node_info_file_name;
use super::material::{MaterialError, content_of, verify_node_info};
use super::path::{PathError, verify_path};
use crate::domain::network::HostAndPort;
use crate::domain::{Party, PublicKey, SecureHash, SignatureScheme, Timestamp, X500Name};
use crate::ports::Signer;
use crate::ports::signer::SignError;
use crate::wire::{self, CertificatePath, Limits, NodeInfo, SignedNodeInfo};

/// What a worker says of itself.
#[derive(Clone, Debug)]
pub struct Description {
    info: NodeInfo,
    own: Party,
    service: Party,
}

/// Why nothing can be published.
#[derive(Debug, thiserror::Error)]
pub enum PublicationError {
    /// A certificate does not say what it should.
    #[error("the certificate of the {whose}: {error}")]
    Certificate {
        /// Worker or service.
        whose: &'static str,
        /// What is wrong.
        error: PathError,
    },
    /// A key is another one than its certificate's.
    #[error("the key of the {0} is not the one in its certificate")]
    Key(&'static str),
    /// Nodes could not reach the worker.
    #[error("no address: name in p2p.addresses where nodes reach the worker")]
    NoAddress,
    /// A key does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Others would not believe it, so it is not published.
    #[error("the node info would not be believed: {0}")]
    Unbelievable(#[from] MaterialError),
}

impl Description {
    /// A worker with these addresses, of these identities: its own legal identity, and the service's that it shares with its pool.
    /// Chains are in DER, own certificate first; the root may be left out.
    ///
    /// # Errors
    /// [`PublicationError::Certificate`] unless both chains lead up to `root` at the moment `now`, each for its role, and
    /// [`PublicationError::NoAddress`].
    pub fn new(
        addresses: Vec<HostAndPort>,
        own: Vec<Vec<u8>>,
        service: Vec<Vec<u8>>,
        platform_version: u16,
        root: &Certificate,
        now: Timestamp,
    ) -> Result<Self, PublicationError> {
        if addresses.is_empty() {
            return Err(PublicationError::NoAddress);
        }
        let certified = |whose, chain: Vec<Vec<u8>>, role| {
            let path = upwards_down(chain, root);
            let verified = verify_path(&path.0, root, Some(now), &[role])
                .and_then(|leaf| Ok(Party { name: leaf.legal_name()?, owning_key: leaf.public_key().clone() }));
            verified.map(|party| (path, party)).map_err(|error| PublicationError::Certificate { whose, error })
        };
        let (own_path, own) = certified("worker", own, Role::LegalIdentity)?;
        let (service_path, service) = certified("service", service, Role::ServiceIdentity)?;
        let identities = vec![own_path, service_path];
        let info = NodeInfo { addresses, identities, platform_version: platform_version.into(), serial: 0 };
        Ok(Self { info, own, service })
    }

    /// The worker's own name.
    pub fn own_name(&self) -> &X500Name {
        &self.own.name
    }

    /// The worker's own key, as its certificate says.
    pub fn own_key(&self) -> &PublicKey {
        &self.own.owning_key
    }

    /// The service's key, as its certificate says.
    pub fn service_key(&self) -> &PublicKey {
        &self.service.owning_key
    }

    /// The serial number of an earlier node info of this worker, whether it is still good or not. Only the worker's key may tell:
    /// who can write a file must not be able to use up the numbers.
    pub fn serial_of(&self, signed: &[u8]) -> Option<i64> {
        let signed = wire::decode_signed_node_info(signed, &Limits::DEFAULT).ok()?;
        self.own.owning_key.verify(&signed.raw, signed.signatures.first()?).ok()?;
        Some(wire::decode_node_info(&signed.raw, &Limits::DEFAULT).ok()?.serial)
    }

    /// Tells descriptions apart, whatever their serial numbers: compare with [`Node::content`](super::Node).
    pub fn content(&self) -> SecureHash {
        content_of(&self.info)
    }

    /// What the file is called, so that a newer node info of the same worker takes its place: as Corda's nodes do it.
    pub fn file_name(&self) -> String {
        node_info_file_name(&self.own.name)
    }

    /// The signed node info, newer than all `earlier` ones: the worker's key signs first, the service's second, as far as it is no
    /// composite one.
    ///
    /// # Errors
    /// [`PublicationError`]: a key is another one or does not sign, or the result would not be believed.
    pub async fn sign(
        &self,
        own: &dyn Signer,
        service: &dyn Signer,
        earlier: impl IntoIterator<Item = i64>,
        root: &Certificate,
        now: Timestamp,
    ) -> Result<Vec<u8>, PublicationError> {
        // As Corda: the time of making, in milliseconds. But a clock that was set back must not make it an old one.
        let newest = earlier.into_iter().max().map_or(i64::MIN, |serial| serial.saturating_add(1));
        let info = NodeInfo { serial: now.as_millis().max(newest), ..self.info.clone() };
        let what = wire::announcement(&info);
        let mut signatures = Vec::new();
        for (whose, signer, party) in [("worker", own, &self.own), ("service", service, &self.service)] {
            if party.owning_key.scheme() == SignatureScheme::Composite {
                continue;
            }
            if *signer.public_key() != party.owning_key {
                return Err(PublicationError::Key(whose));
            }
            signatures.push(signer.announce(&what).await?);
        }
        let signed = wire::encode_signed_node_info(&SignedNodeInfo { raw: what.bytes().to_vec(), signatures });
        verify_node_info(&signed, root, now)?;
        Ok(signed)
    }
}

/// A path as documents have it: root first.
fn upwards_down(mut chain: Vec<Vec<u8>>, root: &Certificate) -> CertificatePath {
    let ends_at_a_root = |der: &Vec<u8>| Certificate::from_der(der).is_ok_and(|last| last.is_self_issued());
    if !chain.last().is_some_and(ends_at_a_root) {
        chain.push(root.as_der().to_vec());
    }
    chain.reverse();
    CertificatePath(chain)
}
