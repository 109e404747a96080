//! The declarations in `broker/artemis/`, put together for one service: `topology.toml` if users send requests, `peers/topology.toml`
//! if Corda nodes do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::broker::admin::Service;
use crate::broker::declaration::{Entry, Filling, Values};

/// The declarations.
const USERS: &str = include_str!("../../../broker/artemis/topology.toml");
const PEERS: &str = include_str!("../../../broker/artemis/peers/topology.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    setting: Vec<Entry<Setting>>,
    permission: Vec<Entry<Permission>>,
    user: Vec<Entry<User>>,
    queue: Vec<Entry<Queue>>,
    #[serde(default)]
    divert: Vec<Entry<Divert>>,
}

/// How addresses behave; as the broker's management names it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Setting {
    #[serde(rename = "match")]
    pub matches: String,
    pub values: Map<String, Value>,
}

/// Who may do what with addresses; nobody else may do anything.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Permission {
    #[serde(rename = "match")]
    pub matches: String,
    #[serde(default)]
    pub send: BTreeSet<String>,
    #[serde(default)]
    pub consume: BTreeSet<String>,
    #[serde(default)]
    pub browse: BTreeSet<String>,
}

/// A user with a role.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct User {
    pub name: String,
    pub role: String,
}

/// A durable queue, on an ANYCAST address of its name.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Queue {
    pub name: String,
}

/// An exclusive divert.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct Divert {
    pub name: String,
    pub from: String,
    pub to: String,
}

/// Everything that one service needs.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Topology {
    pub settings: Vec<Setting>,
    pub permissions: Vec<Permission>,
    /// Roles by user.
    pub users: BTreeMap<String, BTreeSet<String>>,
    pub queues: Vec<Queue>,
    pub diverts: Vec<Divert>,
}

fn set(values: &Values, texts: &BTreeSet<String>) -> BTreeSet<String> {
    texts.iter().map(|text| values.text(text)).collect()
}

/// The role of one caller. Artemis lists roles with commas between them, so names that are more than a word go in as a digest.
fn role(prefix: &str, user: &str) -> String {
    let plain = user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@'));
    match plain {
        true => format!("{prefix}.caller.{user}"),
        // 128 bits: nobody finds two names that would share a role.
        false => format!("{prefix}.caller.{}", hex::encode(&Sha256::digest(user)[..16])),
    }
}

/// Whether `name` can be part of an address: wildcards, and the mark between address and queue, would give it another meaning.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let strange = name.chars().find(|c| matches!(c, '#' | '*' | ':' | '{' | '}' | '>') || c.is_control());
    match (name.is_empty(), strange) {
        (true, _) => Err(format!("a {what} without a name")),
        (false, Some(c)) => {
            Err(format!("{what} {name:?}: Artemis gives {c:?} in the name of an address a meaning of its own"))
        }
        (false, None) => Ok(()),
    }
}

impl Topology {
    /// What `service` needs.
    ///
    /// # Errors
    /// In one line, if a name cannot be used with Artemis.
    pub(super) fn of(service: &Service) -> Result<Self, String> {
        check_name("prefix", &service.prefix)?;
        for caller in &service.callers {
            check_name("caller", &caller.user)?;
        }
        let source = match &service.inbox {
            None => USERS,
            Some(inbox) => {
                check_name("inbox", inbox)?;
                for worker in &service.workers {
                    let inbox = worker.inbox.as_deref();
                    let inbox = inbox.ok_or_else(|| format!("{} is not in the network map", worker.name))?;
                    check_name("inbox", inbox)?;
                }
                PEERS
            }
        };
        let source: Source = toml::from_str(source).map_err(|error| format!("topology.toml: {error}"))?;
        let filling = Filling::new(service, |caller| Some(("{caller.role}", role(&service.prefix, &caller.user))));
        let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for user in filling.each(&source.user, |user, v| User { name: v.text(&user.name), role: v.text(&user.role) }) {
            // A worker without a user is one whom a certificate names: the broker knows it, we do not.
            if !user.name.is_empty() {
                users.entry(user.name).or_default().insert(user.role);
            }
        }
        let mut topology = Self {
            settings: filling.each(&source.setting, |setting, v| Setting {
                matches: v.text(&setting.matches),
                values: v.table(&setting.values),
            }),
            permissions: filling.each(&source.permission, |permission, v| Permission {
                matches: v.text(&permission.matches),
                send: set(v, &permission.send),
                consume: set(v, &permission.consume),
                browse: set(v, &permission.browse),
            }),
            users,
            queues: filling.each(&source.queue, |queue, v| Queue { name: v.text(&queue.name) }),
            diverts: filling.each(&source.divert, |divert, v| Divert {
                name: v.text(&divert.name),
                from: v.text(&divert.from),
                to: v.text(&divert.to),
            }),
        };
        topology.merge_inboxes();
        Ok(topology)
    }

    /// Several users may act for one party, and then share its inbox.
    fn merge_inboxes(&mut self) {
        let mut merged: Vec<Permission> = Vec::new();
        for permission in self.permissions.drain(..) {
            match merged.iter_mut().find(|known| known.matches == permission.matches) {
                Some(known) => {
                    known.send.extend(permission.send);
                    known.consume.extend(permission.consume);
                    known.browse.extend(permission.browse);
                }
                None => merged.push(permission),
            }
        }
        self.permissions = merged;
        let mut seen = BTreeSet::new();
        self.settings.retain(|setting| seen.insert(setting.matches.clone()));
        seen.clear();
        self.queues.retain(|queue| seen.insert(queue.name.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::admin::{CallerAccount, WorkerAccount};
    use crate::domain::X500Name;

    fn service(users: &[(&str, Option<&str>)]) -> Service {
        let worker = WorkerAccount {
            name: X500Name::parse("O=Notary Worker 1, L=Zurich, C=CH").expect("a legal name"),
            user: "w1".into(),
            inbox: Some("p2p.inbound.W".into()),
        };
        let caller = |(user, inbox): &(&str, Option<&str>)| CallerAccount {
            user: (*user).into(),
            inbox: inbox.map(str::to_owned),
        };
        Service {
            prefix: "notary".into(),
            workers: vec![worker],
            callers: users.iter().map(caller).collect(),
            inbox: None,
            secrets: None,
        }
    }

    /// The promise behind every caller's name: who may send where, and which ways lead to the shared queue.
    #[test]
    fn nobody_but_a_caller_sends_to_its_entrance_and_nobody_at_all_to_the_shared_queue() {
        let topology = Topology::of(&service(&[("alice", Some("p2p.inbound.A")), ("bob", None)])).expect("good names");
        let senders = |address: &str| {
            let permission = topology.permissions.iter().find(|permission| permission.matches == address);
            permission.expect("it is ruled").send.iter().cloned().collect::<Vec<_>>()
        };
        assert!(senders("notary.requests").is_empty() && senders("notary.#").is_empty());
        assert!(senders("notary.worker.notary-worker-1.zurich.ch").is_empty());
        assert_eq!(senders("notary.from.alice"), ["notary.caller.alice"]);
        assert_eq!(senders("notary.from.bob"), ["notary.caller.bob"]);
        assert_eq!(senders("p2p.inbound.A"), ["notary.worker"]);
        let ways = topology.diverts.iter().filter(|divert| divert.to == "notary.requests");
        assert_eq!(
            ways.map(|divert| divert.from.as_str()).collect::<Vec<_>>(),
            ["notary.from.alice", "notary.from.bob"]
        );
        // No way leads back to an entrance, so no message can go round in circles.
        for divert in &topology.diverts {
            assert!(topology.diverts.iter().all(|other| other.from != divert.to), "{divert:?}");
        }
        assert!(topology.diverts.iter().all(|d| topology.queues.iter().any(|queue| queue.name == d.from)));
        assert!(topology.diverts.iter().all(|d| topology.queues.iter().any(|queue| queue.name == d.to)));
    }

    /// What a node may do: send to the two kinds of inbox. Nothing is created for it, wherever it asks.
    #[test]
    fn peers_may_send_to_the_inboxes_and_to_nothing_else() {
        let peers = Service { inbox: Some("p2p.inbound.S".into()), ..service(&[]) };
        let topology = Topology::of(&peers).expect("good names");
        let may = |right: fn(&Permission) -> &BTreeSet<String>| -> Vec<&str> {
            let permissions = topology.permissions.iter().filter(|p| right(p).contains("notary.peer"));
            permissions.map(|permission| permission.matches.as_str()).collect()
        };
        assert_eq!(may(|permission| &permission.send), ["p2p.inbound.S", "p2p.inbound.W"]);
        assert!(may(|permission| &permission.consume).is_empty() && may(|permission| &permission.browse).is_empty());
        let queues: Vec<_> = topology.queues.iter().map(|queue| queue.name.as_str()).collect();
        assert_eq!(queues, ["notary.dead", "p2p.inbound.S", "p2p.inbound.W"]);
        assert!(topology.diverts.is_empty());
        for setting in &topology.settings {
            assert_eq!(setting.values["autoCreateAddresses"], false, "{}", setting.matches);
        }
        assert!(topology.settings.iter().any(|setting| setting.matches == "p2p.inbound.#"), "unknown inboxes too");

        let mut strangers = peers;
        strangers.workers[0].inbox = None;
        let problem = Topology::of(&strangers).expect_err("nobody could reach this worker");
        assert!(problem.contains("not in the network map"), "{problem}");
    }

    #[test]
    fn users_who_share_a_party_share_its_inbox() {
        let inbox = Some("p2p.inbound.A");
        let topology = Topology::of(&service(&[("a1", inbox), ("a2", inbox)])).expect("good names");
        let rights: Vec<_> = topology.permissions.iter().filter(|p| p.matches == "p2p.inbound.A").collect();
        assert_eq!(rights.len(), 1);
        assert_eq!(
            rights[0].consume.iter().map(String::as_str).collect::<Vec<_>>(),
            ["notary.caller.a1", "notary.caller.a2"]
        );
        assert_eq!(topology.queues.iter().filter(|queue| queue.name == "p2p.inbound.A").count(), 1);
    }

    #[test]
    fn names_with_a_meaning_for_artemis_are_refused_and_commas_never_reach_a_list_of_roles() {
        for name in ["#", "a.*", "a::b", "", "a\nb"] {
            assert!(Topology::of(&service(&[(name, None)])).is_err(), "{name:?}");
        }
        let topology = Topology::of(&service(&[("O=Alice, L=London, C=GB", None)])).expect("a good name");
        let roles: Vec<_> = topology.users["O=Alice, L=London, C=GB"].iter().collect();
        assert!(roles.len() == 1 && !roles[0].contains(','), "{roles:?}");
    }
}
