//! Who asks, on a broker that others use too: the user whom the broker authenticated, mapped to a party. Never a property that the
//! sender can write (threat A1, row ID7).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::domain::X500Name;
use crate::domain::network::NetworkView;

/// Largest file of callers, in bytes: a hundred thousand lines.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Broker users and the parties they act for.
#[derive(Clone, Default, Debug)]
pub struct Callers(BTreeMap<String, X500Name>);

/// Why the callers are not known.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct CallersError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

impl Callers {
    /// Reads the file of callers: TOML, `user = "legal name"` a line. No file, no users but those called like their parties.
    ///
    /// # Errors
    /// [`CallersError`].
    pub fn load(path: &Path) -> Result<Self, CallersError> {
        if path.as_os_str().is_empty() {
            return Ok(Self::default());
        }
        let fault = |problem: String| CallersError { path: path.to_owned(), problem };
        if std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.len() > FILE_BYTES_MAX {
            return Err(fault(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        let lines: BTreeMap<String, String> = toml::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let named = lines.into_iter().map(|(user, name)| {
            let name = X500Name::parse(&name).map_err(|error| fault(format!("{user}: {name:?}: {error}")))?;
            Ok((user, name))
        });
        Ok(Self(named.collect::<Result<_, CallersError>>()?))
    }

    /// The users that the file names, with their parties.
    pub fn users(&self) -> impl Iterator<Item = (&str, &X500Name)> {
        self.0.iter().map(|(user, name)| (user.as_str(), name))
    }

    /// The party for which `user` acts, as the file says; otherwise a user who is called like a party of the network is that party.
    pub fn party(&self, user: &str, view: &NetworkView) -> Option<X500Name> {
        match self.0.get(user) {
            Some(name) => Some(name.clone()),
            None => X500Name::parse(user).ok().filter(|name| view.parties.contains_key(name)),
        }
    }
}

/// Where answers to `user`, acting for `party`, may go, given what the request asks for: the party's Corda inbox, or the queue whose
/// name is `replies` and the user's. Anything else would let one party fill another's queue; a longer name too, as it may belong to
/// a user with that longer name.
pub fn reply_address(
    asked: Option<&str>,
    user: &str,
    party: &X500Name,
    view: &NetworkView,
    replies: &str,
) -> Result<String, String> {
    let inbox = view.parties.get(party).map(|party| format!("p2p.inbound.{}", party.owning_key.name_hash()));
    let own = format!("{replies}{user}");
    match (asked, inbox) {
        (Some(asked), Some(inbox)) if asked == inbox => Ok(inbox),
        (Some(asked), _) if asked == own => Ok(own),
        (Some(asked), _) => Err(format!("{asked:?} is no reply queue of user {user:?}")),
        (None, Some(inbox)) => Ok(inbox),
        (None, None) => Err(format!("no reply queue is named, and {party} has no inbox in the network map")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> X500Name {
        X500Name::parse(text).expect("a legal name")
    }

    fn callers(text: &str) -> Result<Callers, CallersError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("callers.toml");
        std::fs::write(&path, text).expect("written");
        Callers::load(&path)
    }

    #[test]
    fn a_user_is_the_party_that_the_file_says_and_strangers_are_nobody() {
        let callers = callers("alice = \"O=Alice, L=London, C=GB\"\n").expect("well-formed");
        let view = NetworkView::default();
        assert_eq!(callers.party("alice", &view), Some(name("O=Alice, L=London, C=GB")));
        assert_eq!(callers.party("mallory", &view), None);
        assert_eq!(callers.party("O=Mallory, L=London, C=GB", &view), None, "not in the network map");
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_user_it_is_about() {
        assert!(callers("alice = \"nobody\"").expect_err("no legal name").problem.contains("alice"));
        assert!(callers("alice = 1").is_err());
        assert!(callers("alice = \"O=A, L=B, C=GB\"\nalice = \"O=A, L=B, C=GB\"").is_err(), "twice");
    }

    #[test]
    fn answers_go_to_queues_of_the_user_only() {
        let (alice, view) = (name("O=Alice, L=London, C=GB"), NetworkView::default());
        let address = |asked| reply_address(asked, "alice", &alice, &view, "notary.replies.");
        assert_eq!(address(Some("notary.replies.alice")).as_deref(), Ok("notary.replies.alice"));
        for foreign in ["notary.replies.bob", "notary.replies.alice2", "notary.replies.alice.x", "notary.requests", ""]
        {
            assert!(address(Some(foreign)).is_err(), "{foreign}");
        }
        assert!(address(None).is_err(), "without an inbox nobody knows where to");
    }
}
