//! Declares on RabbitMQ what the service needs, and says what differs, through the management API. Least drift: what is as declared
//! is not touched, and what would lose messages, such as replacing a queue, is left to people.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::management::{Api, part};
use super::topology::{Binding, Exchange, Policy, Queue, Topology, User};
use crate::broker::admin::{AdminError, Administrator, Change, Service};
use crate::broker::{passwords, printable};
use crate::ports::Finding;

pub use super::management::Management;

/// The first version with at-least-once dead letters and message TTL in quorum queues.
const VERSION_MIN: (u32, u32) = (3, 10);
/// How long a new queue's figures are waited for: the broker collects them every five seconds.
const FIGURES_WITHIN: Duration = Duration::from_secs(15);
const FIGURES_GLANCE: Duration = Duration::from_millis(250);
/// Characters of a user's name that are shown.
const NAME_CHARS_MAX: usize = 128;

/// An administrator of one virtual host.
pub struct RabbitMqAdmin {
    api: Api,
    url: String,
    vhost: String,
    service: Service,
    topology: Topology,
}

/// What one step of `apply` does.
enum Action {
    Vhost,
    User(String),
    Rights(User),
    Exchange(Exchange),
    Policy(Policy),
    Queue(Queue),
    Binding(Binding),
    /// Only a person can.
    ByHand,
}

type Steps = Vec<(Change, Action)>;

impl RabbitMqAdmin {
    /// Prepares to administer; nothing is asked yet.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if the API's address is none, or would carry the password in the clear over a network.
    pub fn new(management: &Management, vhost: &str, service: Service) -> Result<Self, AdminError> {
        let topology = Topology::of(&service).map_err(AdminError::Refused)?;
        Ok(Self { api: Api::new(management)?, url: management.url.clone(), vhost: vhost.into(), service, topology })
    }

    /// A path below the virtual host: `queues/%2F/name`.
    fn path(&self, kind: &str, name: &str) -> String {
        format!("{kind}/{}/{}", part(&self.vhost), part(name))
    }

    fn binding_path(&self, binding: &Binding) -> String {
        format!("bindings/{}/e/{}/q/{}", part(&self.vhost), part(&binding.exchange), part(&binding.queue))
    }

    /// Everything that differs, in the order in which it is to be done: rights first, policies before the queues they rule.
    fn steps(&self) -> Result<Steps, AdminError> {
        let mut steps: Steps = Vec::new();
        let mut step = |what: String, why: String, action| steps.push((Change { what, why }, action));
        if self.api.get(&format!("vhosts/{}", part(&self.vhost)))?.is_none() {
            step(format!("create virtual host {}", self.vhost), "missing".into(), Action::Vhost);
        }
        for user in self.topology.users.values() {
            let shown = printable(&user.name, NAME_CHARS_MAX);
            let exists = self.api.get(&format!("users/{}", part(&user.name)))?.is_some();
            if !exists {
                let (why, action) = match &self.service.secrets {
                    Some(folder) => {
                        let file = passwords::file(folder, &user.name);
                        let source = if file.exists() { "its password is in" } else { "its password will be in" };
                        (format!("missing; {source} {}", file.display()), Action::User(user.name.clone()))
                    }
                    None => ("missing; name a folder for passwords (--secrets FOLDER)".into(), Action::ByHand),
                };
                step(format!("create user {shown}"), why, action);
                if self.service.secrets.is_none() {
                    continue;
                }
            }
            let held = self.api.get(&self.path("permissions", &user.name))?;
            let why = match &held {
                None => "none in this virtual host".to_owned(),
                Some(held) => different([
                    ("configure", &held["configure"], &user.configure),
                    ("write", &held["write"], &user.write),
                    ("read", &held["read"], &user.read),
                ]),
            };
            if !why.is_empty() {
                step(format!("set the rights of user {shown}"), why, Action::Rights(user.clone()));
            }
        }
        for exchange in &self.topology.exchanges {
            match self.api.get(&self.path("exchanges", &exchange.name))? {
                None => {
                    let what = format!("create exchange {} ({})", exchange.name, exchange.kind);
                    step(what, "missing".into(), Action::Exchange(exchange.clone()));
                }
                Some(held) if held["type"] != exchange.kind.as_str() || held["durable"] != true => {
                    let what = format!("delete exchange {} by hand, then apply again", exchange.name);
                    step(what, format!("it is not a durable {}", exchange.kind), Action::ByHand);
                }
                Some(_) => {}
            }
        }
        for policy in &self.topology.policies {
            let held = self.api.get(&self.path("policies", &policy.name))?;
            let why = match &held {
                None => "missing".to_owned(),
                Some(held) => {
                    let texts = different([
                        ("pattern", &held["pattern"], &policy.pattern),
                        ("apply-to", &held["apply-to"], &policy.apply_to),
                    ]);
                    let rules = different_tables(held["definition"].as_object(), &policy.definition, true);
                    [texts, rules].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
                }
            };
            if !why.is_empty() {
                step(format!("set policy {}", policy.name), why, Action::Policy(policy.clone()));
            }
        }
        for queue in &self.topology.queues {
            match self.api.get(&self.path("queues", &queue.name))? {
                None => step(format!("create queue {}", queue.name), "missing".into(), Action::Queue(queue.clone())),
                Some(held) => {
                    let mut why = different_tables(held["arguments"].as_object(), &queue.arguments, false);
                    if held["durable"] != true {
                        why = "it is not durable".into();
                    }
                    if !why.is_empty() {
                        let what = format!("empty and delete queue {} by hand, then apply again", queue.name);
                        step(what, why, Action::ByHand);
                    }
                }
            }
        }
        for binding in &self.topology.bindings {
            let held = self.api.get(&self.binding_path(binding))?;
            let held = held.as_ref().and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let there =
                |held: &Value| different_tables(held["arguments"].as_object(), &binding.arguments, true).is_empty();
            if !held.iter().any(there) {
                let what = format!("bind queue {} to exchange {}", binding.queue, binding.exchange);
                step(what, "missing".into(), Action::Binding(binding.clone()));
            }
        }
        Ok(steps)
    }

    fn act(&self, action: &Action) -> Result<(), AdminError> {
        match action {
            Action::Vhost => self.api.put(&format!("vhosts/{}", part(&self.vhost)), &json!({})),
            Action::User(name) => {
                let folder = self.service.secrets.as_deref().unwrap_or(Path::new("."));
                let password = passwords::obtain(&passwords::file(folder, name)).map_err(AdminError::Unavailable)?;
                let body = json!({ "password": password.as_str(), "tags": "" });
                self.api.put(&format!("users/{}", part(name)), &body)
            }
            Action::Rights(user) => {
                let body = json!({ "configure": user.configure, "write": user.write, "read": user.read });
                self.api.put(&self.path("permissions", &user.name), &body)
            }
            Action::Exchange(exchange) => {
                let body = json!({ "type": exchange.kind, "durable": true, "auto_delete": false, "arguments": {} });
                self.api.put(&self.path("exchanges", &exchange.name), &body)
            }
            Action::Policy(policy) => {
                let body = json!({
                    "pattern": policy.pattern,
                    "apply-to": policy.apply_to,
                    "definition": policy.definition,
                    // Above policies that an operator made for everything, which have 0 by default.
                    "priority": 10,
                });
                self.api.put(&self.path("policies", &policy.name), &body)
            }
            Action::Queue(queue) => {
                let body = json!({ "durable": true, "auto_delete": false, "arguments": queue.arguments });
                self.api.put(&self.path("queues", &queue.name), &body)
            }
            Action::Binding(binding) => {
                let body = json!({ "routing_key": "", "arguments": binding.arguments });
                self.api.post(&self.binding_path(binding), &body)
            }
            Action::ByHand => Ok(()),
        }
    }

    fn look(&self) -> Result<Vec<Finding>, AdminError> {
        let mut findings = Vec::new();
        let overview = self.api.get("overview")?.unwrap_or_default();
        findings.push(version(&overview["rabbitmq_version"]));
        findings.extend(listeners(&overview["listeners"]));
        findings.extend(alarms(self.api.get("nodes")?.as_ref()));

        let steps = self.steps()?;
        if steps.is_empty() {
            let found = format!("{} queues and all around them are as declared", self.topology.queues.len());
            findings.push(Finding::good("rabbitmq: declaration", found));
        }
        for (Change { what, why }, action) in steps {
            let advice = match action {
                Action::ByHand => what.clone(),
                _ => "run `notary broker apply`".into(),
            };
            findings.push(Finding::fault("rabbitmq: declaration", format!("to {what}: {why}"), advice));
        }
        for queue in &self.topology.queues {
            if let Some(held) = self.known(&queue.name)? {
                findings.extend(self.queue(&queue.name, &held));
            }
        }
        findings.extend(self.users()?);
        Ok(findings)
    }

    /// A queue with its figures, which the broker tells some seconds after it was made.
    fn known(&self, name: &str) -> Result<Option<Value>, AdminError> {
        let deadline = Instant::now() + FIGURES_WITHIN;
        loop {
            match self.api.get(&self.path("queues", name))? {
                Some(held) if held.get("policy").is_none() && Instant::now() < deadline => {
                    std::thread::sleep(FIGURES_GLANCE);
                }
                held => return Ok(held),
            }
        }
    }

    /// What matters of a queue besides its arguments.
    fn queue(&self, name: &str, held: &Value) -> Vec<Finding> {
        let mut findings = Vec::new();
        let subject = format!("rabbitmq: queue {name}");
        let ruled_by = self.topology.policies.iter().find(|policy| held["policy"] == policy.name.as_str());
        match ruled_by {
            Some(policy) => {
                // Operator policies can change what ours say.
                let why = different_tables(held["effective_policy_definition"].as_object(), &policy.definition, false);
                if !why.is_empty() {
                    let advice = "remove the operator policy that overrides ours";
                    findings.push(Finding::fault(&subject, format!("other rules are in force: {why}"), advice));
                }
            }
            None => {
                let policy = held["policy"].as_str().unwrap_or("none");
                let advice = "give our policies the highest priority, or run `notary broker apply`";
                findings.push(Finding::fault(&subject, format!("it is ruled by policy {policy}, not by ours"), advice));
            }
        }
        let count = |key: &str| held[key].as_array().map_or(0, Vec::len);
        let (members, online) = (count("members"), count("online"));
        match (members, online) {
            (0..=2, _) => {
                let advice = "run RabbitMQ on three nodes, so that requests and answers survive the loss of one";
                findings.push(Finding::warning(&subject, format!("{members} copies"), advice));
            }
            _ if online < members => {
                let advice = "bring the missing nodes back";
                findings.push(Finding::warning(&subject, format!("{online} of {members} copies online"), advice));
            }
            _ => {}
        }
        let messages = held["messages"].as_u64().unwrap_or(0);
        if name == format!("{}.dead", self.service.prefix) && messages > 0 {
            let advice = "read the header x-notary-reason of each; `notary inspect` decodes the body";
            findings.push(Finding::warning(&subject, format!("{messages} requests are parked"), advice));
        }
        if name == format!("{}.requests", self.service.prefix) && held["consumers"] == 0 {
            findings.push(Finding::warning(&subject, "no worker consumes it", "start a worker"));
        }
        findings
    }

    /// Users who may do more than they need: forge others' names, administer, or everything.
    fn users(&self) -> Result<Vec<Finding>, AdminError> {
        let mut findings = Vec::new();
        let users = self.api.get("users")?.unwrap_or_default();
        let rights = self.api.get(&format!("vhosts/{}/permissions", part(&self.vhost)))?.unwrap_or_default();
        let empty = Vec::new();
        for user in users.as_array().unwrap_or(&empty) {
            let name = user["name"].as_str().unwrap_or_default();
            let (subject, tags) = (format!("rabbitmq: user {}", printable(name, NAME_CHARS_MAX)), tags(&user["tags"]));
            let ours = self.topology.users.contains_key(name);
            if tags.iter().any(|tag| tag == "impersonator") {
                let advice = "take the tag `impersonator` away: with it a user can send requests in any party's name";
                findings.push(Finding::fault(&subject, "may sign messages with others' names", advice));
            }
            if ours && !tags.is_empty() {
                let advice = "take its tags away: it needs none";
                findings.push(Finding::fault(&subject, format!("has tags: {}", tags.join(", ")), advice));
            }
            if name == "guest" {
                let advice = "delete it, or change its password";
                findings.push(Finding::warning(&subject, "the default user exists", advice));
            }
            let held = rights.as_array().unwrap_or(&empty).iter().find(|held| held["user"] == name);
            let all = |key: &str| held.is_some_and(|held| held[key] == ".*");
            if !ours && tags.is_empty() && (all("configure") || all("write") || all("read")) {
                let advice = "give it rights by name; it can read requests or write answers of others";
                findings.push(Finding::warning(&subject, "has rights on every queue here", advice));
            }
        }
        if findings.is_empty() {
            findings.push(Finding::good("rabbitmq: users", "nobody may do more than is needed"));
        }
        Ok(findings)
    }
}

impl Administrator for RabbitMqAdmin {
    fn place(&self) -> String {
        format!("rabbitmq at {}, virtual host {}", self.url, self.vhost)
    }

    fn plan(&self) -> Result<Vec<Change>, AdminError> {
        Ok(self.steps()?.into_iter().map(|(change, _)| change).collect())
    }

    fn apply(&self) -> Result<Vec<Change>, AdminError> {
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for (change, action) in self.steps()? {
            match action {
                Action::ByHand => left.push(change.to_string()),
                action => {
                    self.act(&action)?;
                    done.push(change);
                }
            }
        }
        match left.is_empty() {
            true => Ok(done),
            false => {
                Err(AdminError::Refused(format!("{} done; left for you to do:\n  {}", done.len(), left.join("\n  "))))
            }
        }
    }

    fn examine(&self) -> Vec<Finding> {
        self.look().unwrap_or_else(|error| {
            let advice = "check broker.management, broker.management_user and broker.management_password";
            vec![Finding::fault("rabbitmq: management", error, advice)]
        })
    }
}

/// What differs between texts held and declared, in words; empty if nothing.
fn different<const N: usize>(fields: [(&str, &Value, &String); N]) -> String {
    let differing = fields.into_iter().filter(|(_, held, declared)| *held != declared.as_str());
    differing
        .map(|(name, held, declared)| format!("{name} is {held}, declared {declared:?}"))
        .collect::<Vec<_>>()
        .join("; ")
}

/// What differs between tables held and declared; with `exact`, what is held beyond what is declared too.
fn different_tables(held: Option<&Map<String, Value>>, declared: &Map<String, Value>, exact: bool) -> String {
    let held_at = |key: &str| held.and_then(|held| held.get(key));
    let missing =
        declared.iter().filter(|(key, value)| held_at(key) != Some(value)).map(|(key, value)| match held_at(key) {
            Some(held) => format!("{key} is {held}, declared {value}"),
            None => format!("{key} is not set, declared {value}"),
        });
    let beyond = held.into_iter().flatten().filter(|(key, _)| exact && !declared.contains_key(*key));
    missing.chain(beyond.map(|(key, value)| format!("{key} is {value}, not declared"))).collect::<Vec<_>>().join("; ")
}

/// Tags, as 3.9 and later list them, or as a text with commas.
fn tags(tags: &Value) -> Vec<String> {
    match tags {
        Value::Array(tags) => tags.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect(),
        Value::String(tags) => tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

fn version(version: &Value) -> Finding {
    let subject = "rabbitmq: version";
    let text = version.as_str().unwrap_or("unknown");
    let mut numbers = text.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN => Finding::good(subject, text),
        _ => Finding::fault(subject, text, "use 3.10 or later: earlier ones lose dead letters of quorum queues"),
    }
}

fn listeners(listeners: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for listener in listeners.as_array().into_iter().flatten() {
        let (protocol, address) =
            (listener["protocol"].as_str().unwrap_or(""), listener["ip_address"].as_str().unwrap_or(""));
        let place = format!("{address}:{}", listener["port"]);
        let loopback = address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if matches!(protocol, "amqp" | "http") && !loopback {
            let advice = "let it listen with TLS only (listeners.tcp = none, management.ssl.port), or on loopback";
            let found = format!("{protocol} in plain text at {place}");
            findings.push(Finding::warning("rabbitmq: listeners", found, advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::good("rabbitmq: listeners", "none in plain text beyond this machine"));
    }
    findings
}

fn alarms(nodes: Option<&Value>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in nodes.and_then(Value::as_array).into_iter().flatten() {
        let subject = format!("rabbitmq: node {}", node["name"].as_str().unwrap_or("?"));
        for (alarm, resource) in [("mem_alarm", "memory"), ("disk_free_alarm", "disk space")] {
            if node[alarm] == true {
                let advice = format!("give it {resource}: until then it takes no messages, and no answer leaves");
                findings.push(Finding::fault(&subject, format!("the alarm for {resource} is on"), advice));
            }
        }
        if node["running"] == false {
            findings.push(Finding::fault(&subject, "is down", "start it"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::finding::Severity;

    #[test]
    fn differences_are_told_in_words() {
        let table = |value: Value| value.as_object().cloned().expect("a table");
        let declared = table(json!({ "max-length": 10, "overflow": "reject-publish" }));
        let held = table(json!({ "max-length": 11, "ttl": 1 }));
        assert_eq!(different_tables(Some(&declared), &declared, true), "");
        assert_eq!(
            different_tables(Some(&held), &declared, true),
            "max-length is 11, declared 10; overflow is not set, declared \"reject-publish\"; ttl is 1, not declared"
        );
        assert!(!different_tables(Some(&held), &declared, false).contains("ttl"));
        assert!(different_tables(None, &declared, true).contains("not set"));
    }

    #[test]
    fn old_servers_and_plain_listeners_are_found() {
        for (text, good) in [("3.10.8", true), ("4.1.0", true), ("3.9.29", false), ("", false), ("x.y", false)] {
            assert_eq!(version(&json!(text)).severity == Severity::Good, good, "{text}");
        }
        let found = listeners(&json!([
            { "protocol": "amqp", "ip_address": "::", "port": 5672 },
            { "protocol": "amqp", "ip_address": "127.0.0.1", "port": 5672 },
            { "protocol": "amqp/ssl", "ip_address": "::", "port": 5671 },
            { "protocol": "clustering", "ip_address": "::", "port": 25672 },
        ]));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].found.contains(":::5672"));
    }
}
