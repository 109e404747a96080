//! Networks for tests: authorities, certificates, a clock that can be set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Identity, PeerTls};
use crate::domain::{SignatureScheme as Scheme, Timestamp, X500Name};
use crate::keys::PrivateKey;
use crate::network::Role;
use crate::network::issue::{Authority, Request};
use crate::ports::Clock;

pub(crate) const NOW: i64 = 1_800_000_000;
pub(crate) const VALIDITY: (i64, i64) = (NOW - 1000, NOW + 1000);

pub(crate) fn name(organisation: &str) -> X500Name {
    X500Name::new(organisation, "Zurich", "CH").expect("a name")
}

pub(crate) fn key() -> PrivateKey {
    PrivateKey::generate(Scheme::EcdsaSecp256r1Sha256).expect("a key")
}

pub(crate) struct SetClock(pub AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::new(self.0.load(Ordering::Relaxed), 0).expect("in range")
    }
}

/// A network's authorities, and a clock that all its members share.
pub(crate) struct Net {
    pub root: Authority,
    pub identity: Authority,
    pub clock: Arc<SetClock>,
}

impl Net {
    pub(crate) fn new() -> Self {
        let root = Authority::root(&name("Root"), key(), VALIDITY).expect("a root");
        let identity = below(&root, "Identity CA", Role::IdentityCa);
        Self { root, identity, clock: Arc::new(SetClock(AtomicI64::new(NOW))) }
    }

    /// Own certificate first, without the root.
    pub(crate) fn chain(
        &self,
        organisation: &str,
        public_key: &crate::domain::PublicKey,
        role: Role,
        ends: i64,
    ) -> Vec<Vec<u8>> {
        let node = below(&self.identity, organisation, Role::NodeCa);
        let request =
            Request { subject: &name(organisation), public_key, role: Some(role), validity: (VALIDITY.0, ends) };
        let own = node.issue(&request).expect("issued");
        [&own, &node.certificate, &self.identity.certificate].map(|c| c.as_der().to_vec()).into()
    }

    pub(crate) fn identity(&self, organisation: &str, ends: i64) -> Identity {
        let key = key();
        let chain = self.chain(organisation, key.public_key(), Role::Tls, ends);
        Identity::from_private_key(chain, &key).expect("key and certificate fit")
    }

    pub(crate) fn tls(&self, organisation: &str) -> PeerTls {
        let identity = self.identity(organisation, VALIDITY.1);
        PeerTls::new(self.root.certificate.clone(), identity, self.clock.clone()).expect("believable")
    }
}

fn below(issuer: &Authority, organisation: &str, role: Role) -> Authority {
    let (key, subject) = (key(), name(organisation));
    let public_key = &key.public_key().clone();
    let request = Request { subject: &subject, public_key, role: Some(role), validity: VALIDITY };
    issuer.authority(&request, key).expect("issued")
}
