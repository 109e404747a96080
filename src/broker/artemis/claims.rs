//! Who sent a request that came by the bridge of a Corda node: who it says it is.
//!
//! A bridge writes the name in its own node's TLS certificate into `_AMQ_VALIDATED_USER` (PROTOCOL b.4). The broker has seen that
//! certificate, and lets in nobody without one of this network; but it does not compare, and it tells us nothing of what it saw. So
//! the name **proves** that *some* member of the network sent the request, and no more than that. Any member may claim to be any
//! other. What that can and cannot do:
//!
//! - *It cannot have anything notarised in another's name.* The flow checks the request's signature against the key that the network
//!   map gives the claimed party, so a request under a claimed name is refused unless that party signed it.
//! - *It learns nothing.* The answer goes to the claimed party, at the address that the network map gives.
//! - *It can have us send an answer to a node that did not ask*, which logs and drops it, as it knows no such session (PROTOCOL c.3);
//!   and it can use up what is bounded for each caller, at the claimed party's expense. A worker that must rule this out listens to
//!   bridges itself, where the certificate names the caller.

use crate::domain::X500Name;
use crate::domain::network::NetworkView;

/// The most characters of a claimed name: a legal name has at most six parts of at most 128 characters each.
const CLAIM_CHARS_MAX: usize = 1_024;

/// What a claim of being somebody comes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Claim {
    /// A party of the network.
    Party(X500Name),
    /// Nobody that the network map knows; perhaps it will, as nodes use a map before everybody has it.
    Unknown(X500Name),
    /// No legal name, and so never anybody.
    Nobody(String),
}

/// Whom a message claims to be from.
pub(super) fn claim(validated_user: Option<&str>, view: &NetworkView) -> Claim {
    let Some(text) = validated_user else {
        return Claim::Nobody("it does not say who sent it (_AMQ_VALIDATED_USER)".into());
    };
    if text.chars().nth(CLAIM_CHARS_MAX).is_some() {
        return Claim::Nobody("the name of its sender is too long".into());
    }
    match X500Name::parse(text) {
        Ok(name) if view.parties.contains_key(&name) => Claim::Party(name),
        Ok(name) => Claim::Unknown(name),
        Err(error) => Claim::Nobody(format!("its sender says to be {text:?}, which is no legal name: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::SignatureScheme;
    use crate::domain::{Party, PublicKey};
    use crate::keys::PrivateKey;

    fn key() -> PublicKey {
        PrivateKey::generate(SignatureScheme::Ed25519).expect("randomness").public_key().clone()
    }

    #[test]
    fn a_claim_is_a_party_of_the_map_or_may_become_one_or_is_nothing() {
        let alice = X500Name::parse("O=Alice Corp, L=Madrid, C=ES").expect("a legal name");
        let mut view = NetworkView::default();
        view.parties.insert(alice.clone(), Party { name: alice.clone(), owning_key: key() });
        assert_eq!(claim(Some("O=Alice Corp, L=Madrid, C=ES"), &view), Claim::Party(alice.clone()));
        // As other certificates order it.
        assert_eq!(claim(Some("C=ES,L=Madrid,O=Alice Corp"), &view), Claim::Party(alice));
        assert!(matches!(claim(Some("O=Bob Plc, L=Rome, C=IT"), &view), Claim::Unknown(_)));
        let long = format!("O={}, L=Rome, C=IT", "x".repeat(2_000));
        for nobody in [None, Some(""), Some("SystemUsers/Peer"), Some("CN=worker1"), Some(long.as_str())] {
            assert!(matches!(claim(nobody, &view), Claim::Nobody(_)), "{nobody:?}");
        }
    }
}
