//! Who a peer is. This is the only place that decides it; nothing in a message does.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};

use crate::domain::X500Name;

/// Whom a connection speaks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Caller {
    /// The party.
    pub name: X500Name,
    /// The address of its inbox, `p2p.inbound.<H(its key)>`: the only one it may listen at, and where its replies go.
    pub reply_address: String,
}

/// What a peer shows of itself. A connection over TLS will add the certificate that was verified.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// SASL PLAIN: the user.
    pub user: &'a str,
    /// SASL PLAIN: the password.
    pub password: &'a [u8],
}

/// Decides whom a peer speaks for.
pub trait Authenticator: Send + Sync {
    /// The caller, if the evidence suffices.
    fn authenticate(&self, evidence: Evidence<'_>) -> Option<Caller>;
}

/// A salted digest of a secret. One SHA-256 is enough only because secrets are drawn at random with at least 128 bits, as
/// `notary init` does; it would be too fast for passwords that people choose.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretDigest {
    salt: [u8; 16],
    digest: [u8; 32],
}

impl SecretDigest {
    /// The digest of `secret` under a fresh salt.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn of(secret: &[u8]) -> Result<Self, getrandom::Error> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)?;
        Ok(Self { salt, digest: Self::digest(salt, secret) })
    }

    /// Reads the text form, `<salt>:<digest>` in hex.
    pub fn parse(text: &str) -> Option<Self> {
        let (salt, digest) = text.split_once(':')?;
        Some(Self {
            salt: hex::decode(salt).ok()?.try_into().ok()?,
            digest: hex::decode(digest).ok()?.try_into().ok()?,
        })
    }

    fn digest(salt: [u8; 16], secret: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(salt).chain_update(secret).finalize().into()
    }

    /// Whether this is the digest of `secret`; takes the same time for every secret of one length.
    fn matches(&self, secret: &[u8]) -> bool {
        let digest = Self::digest(self.salt, secret);
        let difference = digest.iter().zip(&self.digest).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
        difference == 0
    }
}

/// The text form. A digest is no secret, but no use to anybody in a log either: `Debug` hides it.
impl fmt::Display for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", hex::encode(self.salt), hex::encode(self.digest))
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(…)")
    }
}

/// Two parties that could be taken for one another.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{user}` shares its user name, legal name or inbox with another user")]
pub struct DuplicateUser {
    /// The user that came second.
    pub user: String,
}

/// Users of a development network and their secrets. The user is the party's X.500 name as text.
#[derive(Clone, Default, Debug)]
pub struct Credentials {
    users: HashMap<String, (SecretDigest, Caller)>,
}

impl Credentials {
    /// Adds a user.
    ///
    /// # Errors
    /// [`DuplicateUser`] if the user, its legal name or its inbox is another's already.
    pub fn add(&mut self, user: &str, secret: SecretDigest, caller: Caller) -> Result<(), DuplicateUser> {
        let same = |known: &Caller| known.name == caller.name || known.reply_address == caller.reply_address;
        if self.users.contains_key(user) || self.users.values().any(|(_, known)| same(known)) {
            return Err(DuplicateUser { user: user.to_owned() });
        }
        self.users.insert(user.to_owned(), (secret, caller));
        Ok(())
    }
}

impl Authenticator for Credentials {
    fn authenticate(&self, evidence: Evidence<'_>) -> Option<Caller> {
        // A digest is computed for unknown users too, so that time does not tell who is known.
        let nobody = SecretDigest { salt: [0; 16], digest: [0; 32] };
        let entry = self.users.get(evidence.user);
        let matches = entry.map_or(&nobody, |(secret, _)| secret).matches(evidence.password);
        entry.filter(|_| matches).map(|(_, caller)| caller.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Caller {
        let name = X500Name {
            common_name: None,
            organisation_unit: None,
            organisation: "Alice".to_owned(),
            locality: "Madrid".to_owned(),
            state: None,
            country: "ES".to_owned(),
        };
        Caller { name, reply_address: "p2p.inbound.a".to_owned() }
    }

    #[test]
    fn only_the_secret_of_the_user_is_taken() {
        let mut credentials = Credentials::default();
        credentials.add("alice", SecretDigest::of(b"s3cret").expect("randomness"), alice()).expect("a new user");
        let try_in = |user, password| credentials.authenticate(Evidence { user, password });
        assert_eq!(try_in("alice", b"s3cret"), Some(alice()));
        for (user, password) in [("alice", &b"s3cre"[..]), ("alice", b""), ("Alice", b"s3cret"), ("", b"")] {
            assert_eq!(try_in(user, password), None);
        }
    }

    #[test]
    fn nobody_can_be_taken_for_another() {
        let mut credentials = Credentials::default();
        let secret = SecretDigest::of(b"s3cret").expect("randomness");
        credentials.add("alice", secret.clone(), alice()).expect("a new user");
        let bob = Caller { name: X500Name { organisation: "Bob".to_owned(), ..alice().name }, ..alice() };
        for (user, caller) in [("alice", alice()), ("alias", alice()), ("bob", bob)] {
            assert_eq!(credentials.add(user, secret.clone(), caller), Err(DuplicateUser { user: user.to_owned() }));
        }
    }

    #[test]
    fn digests_are_salted_and_round_trip_as_text() {
        let (one, two) =
            (SecretDigest::of(b"s3cret").expect("randomness"), SecretDigest::of(b"s3cret").expect("randomness"));
        assert_ne!(one, two);
        assert_eq!(SecretDigest::parse(&one.to_string()), Some(one));
        for broken in ["", ":", "00:11", "zz:zz"] {
            assert_eq!(SecretDigest::parse(broken), None);
        }
    }
}
