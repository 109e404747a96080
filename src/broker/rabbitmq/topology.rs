//! The declaration in `broker/rabbitmq/topology.toml`, put together for one service.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::broker::admin::Service;
use crate::broker::declaration::{Entry, Filling, Values};

/// The declaration.
const SOURCE: &str = include_str!("../../../broker/rabbitmq/topology.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    exchange: Vec<Entry<Exchange>>,
    queue: Vec<Entry<Queue>>,
    binding: Vec<Entry<Binding>>,
    policy: Vec<Entry<Policy>>,
    user: Vec<Entry<User>>,
}

/// An exchange; durable.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Exchange {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
}

/// A queue; durable.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Queue {
    pub name: String,
    pub arguments: Map<String, Value>,
}

/// A queue bound to an exchange.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Binding {
    pub exchange: String,
    pub queue: String,
    #[serde(default)]
    pub arguments: Map<String, Value>,
}

/// A policy of the virtual host.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct Policy {
    pub name: String,
    pub pattern: String,
    pub apply_to: String,
    pub definition: Map<String, Value>,
}

/// A user's rights in the virtual host.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub(super) struct User {
    pub name: String,
    pub configure: String,
    pub write: String,
    pub read: String,
}

/// Everything that one service needs.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Topology {
    pub exchanges: Vec<Exchange>,
    pub queues: Vec<Queue>,
    pub bindings: Vec<Binding>,
    pub policies: Vec<Policy>,
    /// One for each user: a later entry of the declaration replaces an earlier one.
    pub users: BTreeMap<String, User>,
}

/// A regular expression in which each value matches itself alone.
fn pattern(values: &Values, text: &str) -> String {
    values.escaped(text, escape)
}

/// A text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~/ ".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

impl Topology {
    /// The declaration for one service.
    pub(super) fn of(service: &Service) -> Result<Self, String> {
        let source: Source = toml::from_str(SOURCE).map_err(|error| format!("topology.toml: {error}"))?;
        let filling = Filling::new(service, |_| None);
        let users = filling.each(&source.user, |user, v| User {
            name: v.text(&user.name),
            configure: pattern(v, &user.configure),
            write: pattern(v, &user.write),
            read: pattern(v, &user.read),
        });
        Ok(Self {
            exchanges: filling.each(&source.exchange, |exchange, v| Exchange {
                name: v.text(&exchange.name),
                kind: exchange.kind.clone(),
            }),
            queues: filling.each(&source.queue, |queue, v| Queue {
                name: v.text(&queue.name),
                arguments: v.table(&queue.arguments),
            }),
            bindings: filling.each(&source.binding, |binding, v| Binding {
                exchange: v.text(&binding.exchange),
                queue: v.text(&binding.queue),
                arguments: v.table(&binding.arguments),
            }),
            policies: filling.each(&source.policy, |policy, v| Policy {
                name: v.text(&policy.name),
                pattern: pattern(v, &policy.pattern),
                apply_to: policy.apply_to.clone(),
                definition: v.table(&policy.definition),
            }),
            // A user without a name is one whom a certificate names: the broker knows it, we do not.
            users: users
                .into_iter()
                .filter(|user| !user.name.is_empty())
                .map(|user| (user.name.clone(), user))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::admin::{CallerAccount, WorkerAccount};
    use crate::domain::X500Name;

    fn service() -> Service {
        let name = X500Name::parse("O=Notary Worker 1, L=Zurich, C=CH").expect("a legal name");
        Service {
            prefix: "notary".into(),
            workers: vec![WorkerAccount { name, user: "worker1".into(), inbox: None }],
            callers: vec![
                CallerAccount { user: "alice".into(), inbox: None },
                CallerAccount { user: "O=Bob, L=Rome, C=IT".into(), inbox: Some("p2p.inbound.DLxyz".into()) },
            ],
            inbox: None,
            secrets: None,
        }
    }

    #[test]
    fn the_declaration_is_filled_in_for_each() {
        let topology = Topology::of(&service()).expect("the declaration is well-formed");
        let queues: Vec<_> = topology.queues.iter().map(|queue| queue.name.as_str()).collect();
        let expected = [
            "notary.requests",
            "notary.worker.notary-worker-1.zurich.ch",
            "notary.dead",
            "notary.replies.alice",
            "notary.replies.O=Bob, L=Rome, C=IT",
            "p2p.inbound.DLxyz",
        ];
        assert_eq!(queues, expected);
        assert!(topology.queues.iter().all(|queue| queue.arguments["x-queue-type"] == "quorum"));
        assert_eq!(topology.bindings[1].arguments["worker"], "O=Notary Worker 1, L=Zurich, C=CH");
        let rights: Vec<_> = topology.users.values().map(|user| (user.name.as_str(), user.read.as_str())).collect();
        let expected = [
            ("O=Bob, L=Rome, C=IT", r"^(notary\.replies\.O=Bob,\ L=Rome,\ C=IT|p2p\.inbound\.DLxyz)$"),
            ("alice", r"^notary\.replies\.alice$"),
            ("worker1", r"^(notary\.requests|notary\.worker\.notary\-worker\-1\.zurich\.ch)$"),
        ];
        assert_eq!(rights, expected);
        assert!(topology.users.values().all(|user| user.configure == "^$"), "nobody configures");
    }

    #[test]
    fn no_placeholder_is_left_and_none_is_made_by_a_name() {
        let mut hostile = service();
        hostile.callers[0].user = "{prefix}|.*".into();
        let topology = Topology::of(&hostile).expect("the declaration is well-formed");
        assert_eq!(topology.users["{prefix}|.*"].read, r"^notary\.replies\.\{prefix\}\|\.\*$");
        let rest = format!("{:?}", Topology::of(&service()).expect("the declaration is well-formed"));
        for placeholder in ["{prefix", "{worker", "{caller"] {
            assert!(!rest.contains(placeholder), "{placeholder}");
        }
    }

    #[test]
    fn every_queue_refuses_rather_than_drops() {
        let topology = Topology::of(&service()).expect("the declaration is well-formed");
        for policy in topology.policies.iter().filter(|policy| policy.apply_to == "queues") {
            assert_eq!(policy.definition["overflow"], "reject-publish", "{}", policy.name);
            if policy.definition.contains_key("dead-letter-exchange") {
                assert_eq!(policy.definition["dead-letter-strategy"], "at-least-once", "{}", policy.name);
            }
        }
    }
}
