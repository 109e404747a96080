//! Declares on Artemis what the service needs, and says what differs, through the broker's own management. What is as declared is
//! not touched, and what would lose messages, such as replacing a queue, is left to people.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::acceptors;
use super::access::Access;
use super::management::{BROKER, Management};
use super::topology::{Divert, Permission, Queue, Setting, Topology};
use crate::broker::admin::{AdminError, Administrator, Change, Service};
use crate::broker::{passwords, printable};
use crate::ports::Finding;

/// What must be merged into the broker's own file, as management cannot set it.
pub const BROKER_XML: &str = include_str!("../../../broker/artemis/broker.xml");

/// The same if Corda nodes send requests, with the files for the login of nodes.
pub const PEERS_FILES: &str = concat!(
    include_str!("../../../broker/artemis/peers/broker.xml"),
    "\n---- etc/login.config\n",
    include_str!("../../../broker/artemis/peers/login.config"),
    "\n---- etc/peer-certificates.properties\n",
    include_str!("../../../broker/artemis/peers/peer-certificates.properties"),
    "\n---- etc/peer-users.properties\n",
    include_str!("../../../broker/artemis/peers/peer-users.properties"),
    "\n---- etc/peer-roles.properties\n",
    include_str!("../../../broker/artemis/peers/peer-roles.properties"),
);

/// The first version that is known to keep diverts and users that management made, and to note the original address on messages of
/// any size; the one that the tests use.
const VERSION_MIN: (u32, u32) = (2, 40);

/// Queues that are asked for at once.
const PAGE: usize = 500;

/// How often the list of queues is asked for before it counts as refused.
const LIST_ATTEMPTS: usize = 10;

/// Ids that are to be remembered at least: ten times what one service can have under way.
const ID_CACHE_MIN: u64 = 10_240;

/// An administrator of one broker.
pub struct ArtemisAdmin {
    access: Access,
    service: Service,
    topology: Topology,
}

/// What one step of `apply` does.
enum Action {
    User(String, BTreeSet<String>),
    Setting(Setting),
    Permission(Permission),
    Queue(Queue),
    Divert {
        divert: Divert,
        replaces: bool,
    },
    /// Only a person can.
    ByHand,
}

type Steps = Vec<(Change, Action)>;

/// A queue as the broker has it.
struct HeldQueue {
    address: String,
    routing: String,
    durable: bool,
    messages: u64,
    consumers: u64,
}

impl ArtemisAdmin {
    /// Prepares to administer; nothing is asked yet. `access` is that of a user who may manage.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if the access is none, or a name cannot be used with Artemis.
    pub fn new(access: Access, service: Service) -> Result<Self, AdminError> {
        access.check().map_err(AdminError::Refused)?;
        let topology = Topology::of(&service).map_err(AdminError::Refused)?;
        if service.secrets.is_some()
            && let Some(user) = topology.users.keys().find(|user| user.contains(','))
        {
            return Err(AdminError::Refused(format!(
                "user {user:?}: Artemis's files of roles separate users by commas; give this one another name, or let a \
                 certificate name it"
            )));
        }
        Ok(Self { access, service, topology })
    }

    /// Everything that differs, in the order in which it is to be done: rules before what they rule, ways last.
    fn steps(&self, management: &Management) -> Result<Steps, AdminError> {
        let mut steps: Steps = Vec::new();
        let mut step = |what: String, why: String, action| steps.push((Change { what, why }, action));
        if let Some(folder) = &self.service.secrets {
            let held = users(management)?;
            for (user, roles) in &self.topology.users {
                let shown = printable(user, 128);
                match held.get(user) {
                    None => {
                        let file = passwords::file(folder, user);
                        let source = if file.exists() { "its password is in" } else { "its password will be in" };
                        let why = format!("missing; {source} {}", file.display());
                        step(format!("create user {shown}"), why, Action::User(user.clone(), roles.clone()));
                    }
                    Some(held) if !roles.is_subset(held) => {
                        let roles = roles.iter().cloned().collect::<Vec<_>>().join(", ");
                        step(
                            format!("give user {shown} the role {roles} by hand"),
                            "it has not".into(),
                            Action::ByHand,
                        );
                    }
                    Some(_) => {}
                }
            }
        }
        for setting in &self.topology.settings {
            let held = management.document("getAddressSettingsAsJSON", json!([setting.matches]))?;
            let why = different(&held, &setting.values);
            if !why.is_empty() {
                step(format!("set how {} behaves", setting.matches), why, Action::Setting(setting.clone()));
            }
        }
        for permission in &self.topology.permissions {
            let held = management.document("getRolesAsJSON", json!([permission.matches]))?;
            let why = different_rights(&held, permission);
            if !why.is_empty() {
                let what = format!("set the rights on {}", permission.matches);
                step(what, why, Action::Permission(permission.clone()));
            }
        }
        let held = queues(management)?;
        for queue in &self.topology.queues {
            match held.get(&queue.name) {
                None => step(format!("create queue {}", queue.name), "missing".into(), Action::Queue(queue.clone())),
                Some(held) if held.address != queue.name || held.routing != "ANYCAST" || !held.durable => {
                    let what = format!("empty and delete queue {} by hand, then apply again", queue.name);
                    let durable = if held.durable { "durable" } else { "not durable" };
                    let why = format!("it is {}, {durable}, on address {}", held.routing, held.address);
                    step(what, why, Action::ByHand);
                }
                Some(_) => {}
            }
        }
        let held = divert_names(management)?;
        for divert in &self.topology.diverts {
            let (why, replaces) = match held.contains(&divert.name) {
                false => ("missing".to_owned(), false),
                true => (different_way(management, divert)?, true),
            };
            if !why.is_empty() {
                let what = format!("divert {} to {}", divert.from, divert.to);
                step(what, why, Action::Divert { divert: divert.clone(), replaces });
            }
        }
        Ok(steps)
    }

    fn act(&self, management: &Management, action: &Action) -> Result<(), AdminError> {
        let roles = |roles: &BTreeSet<String>| roles.iter().cloned().collect::<Vec<_>>().join(",");
        let done = match action {
            Action::User(name, held) => {
                let folder = self.service.secrets.as_deref().unwrap_or(std::path::Path::new("."));
                let password = passwords::obtain(&passwords::file(folder, name)).map_err(AdminError::Unavailable)?;
                management.operation(BROKER, "addUser", json!([name, password.as_str(), roles(held), false]))
            }
            Action::Setting(setting) => {
                let values = Value::Object(setting.values.clone()).to_string();
                management.operation(BROKER, "addAddressSettings", json!([setting.matches, values]))
            }
            Action::Permission(Permission { matches, send, consume, browse }) => {
                let (send, consume, browse) = (roles(send), roles(consume), roles(browse));
                // Send, consume, create and delete durable and other queues, manage, browse, create and delete addresses.
                let arguments = json!([matches, send, consume, "", "", "", "", "", browse, "", ""]);
                management.operation(BROKER, "addSecuritySettings", arguments)
            }
            Action::Queue(Queue { name }) => {
                let queue = json!({
                    "name": name, "address": name, "routing-type": "ANYCAST", "durable": true,
                    "auto-create-address": true, "auto-delete": false,
                });
                management.operation(BROKER, "createQueue", json!([queue.to_string()]))
            }
            Action::Divert { divert: Divert { name, from, to }, replaces } => {
                if *replaces {
                    management.operation(BROKER, "destroyDivert", json!([name]))?;
                }
                let divert = json!({
                    "name": name, "routing-name": name, "address": from, "forwarding-address": to,
                    "exclusive": true, "routing-type": "ANYCAST",
                });
                management.operation(BROKER, "createDivert", json!([divert.to_string()]))
            }
            Action::ByHand => Ok(Value::Null),
        };
        done.map(|_| ())
    }

    fn look(&self) -> Result<Vec<Finding>, AdminError> {
        let management = Management::connect(&self.access)?;
        let mut findings = vec![version(&management.attribute(BROKER, "Version")?)];
        findings.extend(durability(&management));
        let listening = management.document("getAcceptorsAsJSON", json!([]))?;
        match self.service.inbox {
            None => findings.extend(acceptors::for_users(&listening)),
            Some(_) => {
                findings.extend(acceptors::in_plain_text(&listening));
                findings.extend(acceptors::for_nodes(&listening));
            }
        }
        let steps = self.steps(&management)?;
        if steps.is_empty() {
            let found = format!("{} queues and all around them are as declared", self.topology.queues.len());
            findings.push(Finding::good("artemis: declaration", found));
        }
        for (Change { what, why }, action) in steps {
            let advice = match action {
                Action::ByHand => what.clone(),
                _ => "run `notary broker apply`".into(),
            };
            findings.push(Finding::fault("artemis: declaration", format!("to {what}: {why}"), advice));
        }
        findings.extend(self.ways(&management)?);
        findings.extend(self.queues(&queues(&management)?));
        Ok(findings)
    }

    /// Diverts of others into our queues: through them requests come whose sender is not known, or passes for another.
    fn ways(&self, management: &Management) -> Result<Vec<Finding>, AdminError> {
        let mut findings = Vec::new();
        let ours = |address: &str| self.topology.queues.iter().any(|queue| queue.name == address);
        for name in divert_names(management)? {
            if self.topology.diverts.iter().any(|divert| divert.name == name) {
                continue;
            }
            let attribute = |attribute| management.attribute(&format!("divert.{name}"), attribute);
            let (from, to) = (attribute("Address")?, attribute("ForwardingAddress")?);
            let text = |value: &Value| printable(value.as_str().unwrap_or_default(), 256);
            // A divert may lead to several addresses, with commas between them.
            if to.as_str().unwrap_or_default().split(',').any(|to| ours(to.trim())) {
                let subject = format!("artemis: divert {}", printable(&name, 128));
                let stale = from.as_str().is_some_and(|from| from.starts_with(&format!("{}.", self.service.prefix)));
                let (from, to) = (text(&from), text(&to));
                findings.push(match stale {
                    // Of a caller or a worker who is not declared any more: harmless, as nobody but its user may send there.
                    true => Finding::warning(
                        subject,
                        format!("leads from {from} to {to}, and is not declared"),
                        "destroy it",
                    ),
                    false => Finding::fault(
                        subject,
                        format!("leads from {from} to {to}"),
                        "destroy it: its senders could pass for callers",
                    ),
                });
            }
        }
        if findings.is_empty() {
            findings.push(Finding::good("artemis: diverts", "no way leads to the service's queues but those declared"));
        }
        Ok(findings)
    }

    /// What lies in our queues.
    fn queues(&self, held: &BTreeMap<String, HeldQueue>) -> Vec<Finding> {
        let prefix = &self.service.prefix;
        let mut findings = Vec::new();
        for Queue { name } in &self.topology.queues {
            let Some(HeldQueue { messages, consumers, .. }) = held.get(name) else { continue };
            let subject = format!("artemis: queue {name}");
            if *name == format!("{prefix}.dead") && *messages > 0 {
                let advice = "read the property x-notary-reason of each; `notary inspect` decodes the body";
                findings.push(Finding::warning(&subject, format!("{messages} requests are parked"), advice));
            }
            let inbox = self.service.inbox.as_ref().is_some_and(|_| *name != format!("{prefix}.dead"));
            if (inbox || *name == format!("{prefix}.requests")) && *consumers == 0 {
                findings.push(Finding::warning(&subject, "no worker receives from it", "start a worker"));
            }
            if name.starts_with(&format!("{prefix}.from.")) && *messages > 0 {
                let advice = "move them to another queue and have their sender send them again";
                let found = format!("{messages} requests came while no divert led on; nobody serves them");
                findings.push(Finding::warning(&subject, found, advice));
            }
        }
        findings
    }
}

impl Administrator for ArtemisAdmin {
    fn place(&self) -> String {
        format!("artemis at {}", self.access.hosts.join(", "))
    }

    fn plan(&self) -> Result<Vec<Change>, AdminError> {
        let management = Management::connect(&self.access)?;
        Ok(self.steps(&management)?.into_iter().map(|(change, _)| change).collect())
    }

    fn apply(&self) -> Result<Vec<Change>, AdminError> {
        let management = Management::connect(&self.access)?;
        let (mut done, mut left) = (Vec::new(), Vec::new());
        for (change, action) in self.steps(&management)? {
            match action {
                Action::ByHand => left.push(change.to_string()),
                action => {
                    self.act(&management, &action)?;
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

    fn file(&self) -> &'static str {
        match self.service.inbox {
            None => BROKER_XML,
            Some(_) => PEERS_FILES,
        }
    }

    fn examine(&self) -> Vec<Finding> {
        self.look().unwrap_or_else(|error| {
            let advice = "check broker.hosts, broker.management_user and broker.management_password";
            vec![Finding::fault("artemis: management", error, advice)]
        })
    }
}

/// Users with their roles.
fn users(management: &Management) -> Result<BTreeMap<String, BTreeSet<String>>, AdminError> {
    let users = management.document("listUser", json!([""]))?;
    let users = users.as_array().into_iter().flatten().map(|user| {
        let roles = user["roles"].as_array().into_iter().flatten();
        let roles = roles.filter_map(|role| role.as_str().map(str::to_owned)).collect();
        (user["username"].as_str().unwrap_or_default().to_owned(), roles)
    });
    Ok(users.collect())
}

fn queues(management: &Management) -> Result<BTreeMap<String, HeldQueue>, AdminError> {
    let mut queues = BTreeMap::new();
    for page in 1.. {
        let filter = json!({ "field": "", "operation": "", "value": "" }).to_string();
        let mut answer = management.document("listQueues", json!([filter, page, PAGE]));
        for _ in 1..LIST_ATTEMPTS {
            // The broker stumbles over queues that others delete while it lists them, such as temporary ones.
            if !matches!(answer, Err(AdminError::Refused(_))) {
                break;
            }
            answer = management.document("listQueues", json!([filter, page, PAGE]));
        }
        let answer = answer?;
        let rows = answer["data"].as_array().map_or(&[][..], Vec::as_slice);
        for row in rows {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let number = |key: &str| text(key).parse().unwrap_or(0);
            let queue = HeldQueue {
                address: text("address"),
                routing: text("routingType"),
                durable: text("durable") == "true",
                messages: number("messageCount"),
                consumers: number("consumerCount"),
            };
            queues.insert(text("name"), queue);
        }
        if rows.len() < PAGE {
            break;
        }
    }
    Ok(queues)
}

fn divert_names(management: &Management) -> Result<BTreeSet<String>, AdminError> {
    let names = management.attribute(BROKER, "DivertNames")?;
    Ok(names.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// What differs between a divert and its declaration, in words; empty if nothing.
fn different_way(management: &Management, declared: &Divert) -> Result<String, AdminError> {
    let resource = format!("divert.{}", declared.name);
    let mut differing = Vec::new();
    for (attribute, expected) in [
        ("Address", json!(declared.from)),
        ("ForwardingAddress", json!(declared.to)),
        ("Exclusive", json!(true)),
        ("Filter", Value::Null),
        ("TransformerClassName", Value::Null),
        ("RoutingType", json!("ANYCAST")),
    ] {
        let held = management.attribute(&resource, attribute)?;
        if held != expected {
            differing.push(format!("{attribute} is {held}, declared {expected}"));
        }
    }
    Ok(differing.join("; "))
}

/// What differs between settings in force and those declared, in words; empty if nothing.
fn different(held: &Value, declared: &Map<String, Value>) -> String {
    let differing = declared.iter().filter(|(key, value)| held[key.as_str()] != **value);
    let told = differing.map(|(key, value)| match &held[key.as_str()] {
        Value::Null => format!("{key} is not set, declared {value}"),
        held => format!("{key} is {held}, declared {value}"),
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What differs between rights in force and those declared, in words; empty if nothing.
fn different_rights(held: &Value, declared: &Permission) -> String {
    let with = |right: &str| -> BTreeSet<String> {
        let roles = held.as_array().into_iter().flatten().filter(|role| role[right] == true);
        roles.filter_map(|role| role["name"].as_str().map(str::to_owned)).collect()
    };
    let none = BTreeSet::new();
    let rights = [
        ("send", &declared.send),
        ("consume", &declared.consume),
        ("browse", &declared.browse),
        ("createDurableQueue", &none),
        ("deleteDurableQueue", &none),
        ("createNonDurableQueue", &none),
        ("deleteNonDurableQueue", &none),
        ("createAddress", &none),
        ("deleteAddress", &none),
        ("manage", &none),
    ];
    let listed = |roles: &BTreeSet<String>| match roles.is_empty() {
        true => "nobody".to_owned(),
        false => roles.iter().map(|role| printable(role, 128)).collect::<Vec<_>>().join(", "),
    };
    let differing = rights.into_iter().filter(|(right, declared)| with(right) != **declared);
    differing
        .map(|(right, declared)| format!("{right}: {}, declared {}", listed(&with(right)), listed(declared)))
        .collect::<Vec<_>>()
        .join("; ")
}

fn version(version: &Value) -> Finding {
    let subject = "artemis: version";
    let text = version.as_str().unwrap_or("unknown");
    let mut numbers = text.split('.').map(|number| number.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= VERSION_MIN => Finding::good(subject, text),
        _ => Finding::warning(subject, text, "use 2.40 or later: the service was tested with that"),
    }
}

/// FAULTS section 3: what keeps accepted messages over the broker's death, and rights being rights.
fn durability(management: &Management) -> Vec<Finding> {
    type Good = fn(&Value) -> bool;
    let yes: Good = |value| *value == true;
    let wanted: [(&str, Good, &str); 7] = [
        ("SecurityEnabled", yes, "set security-enabled to true: otherwise anyone passes for anyone"),
        ("PersistenceEnabled", yes, "set persistence-enabled to true: otherwise a restart loses every request"),
        ("JournalSyncTransactional", yes, "set journal-sync-transactional to true"),
        ("JournalSyncNonTransactional", yes, "set journal-sync-non-transactional to true: accepted must mean on disk"),
        ("PersistIDCache", yes, "set persist-id-cache to true: otherwise a restart forgets which answers were sent"),
        (
            "IDCacheSize",
            |value| value.as_u64().is_some_and(|size| size >= ID_CACHE_MIN),
            "set id-cache-size to ten times the requests under way, at least 10240",
        ),
        (
            "MaxDiskUsage",
            |value| value.as_i64().is_some_and(|share| (1..=95).contains(&share)),
            "set max-disk-usage to 95 or less, so that the journal never meets a full disk",
        ),
    ];
    let mut findings = Vec::new();
    for (attribute, good, advice) in wanted {
        let subject = format!("artemis: {attribute}");
        findings.push(match management.attribute(BROKER, attribute) {
            Ok(value) if good(&value) => Finding::good(subject, value),
            Ok(value) => Finding::fault(subject, value, format!("{advice} (broker/artemis/broker.xml)")),
            Err(error) => Finding::warning(subject, error, "look at the broker's own file"),
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::finding::Severity;

    #[test]
    fn rights_are_compared_exactly() {
        let set = |roles: &[&str]| roles.iter().map(|role| (*role).to_owned()).collect();
        let declared =
            Permission { matches: "a".into(), send: set(&[]), consume: set(&["w"]), browse: BTreeSet::new() };
        let role = |name: &str, right: &str| json!({ "name": name, right: true });
        assert_eq!(different_rights(&json!([role("w", "consume")]), &declared), "");
        let found = different_rights(&json!([role("w", "consume"), role("amq", "send")]), &declared);
        assert_eq!(found, "send: amq, declared nobody");
        assert!(
            different_rights(&json!([role("w", "consume"), role("x", "createAddress")]), &declared)
                .contains("createAddress")
        );
        assert!(different_rights(&json!([]), &declared).contains("declared w"));
    }

    #[test]
    fn plain_acceptors_and_old_brokers_are_found() {
        let found = acceptors::for_users(&json!([
            { "name": "a", "params": { "host": "0.0.0.0" }, "extraProps": {} },
            { "name": "b", "params": { "host": "0.0.0.0", "sslEnabled": "true" }, "extraProps": {} },
            { "name": "c", "params": { "host": "127.0.0.1" }, "extraProps": { "amqpDuplicateDetection": "false" } },
            { "name": "d", "params": { "host": "127.0.0.1" }, "extraProps": { "saslMechanisms": "EXTERNAL, PLAIN" } },
        ]));
        assert_eq!(
            found.iter().map(|finding| finding.severity).collect::<Vec<_>>(),
            [Severity::Warning, Severity::Fault, Severity::Fault]
        );
        for (text, good) in [("2.40.0", true), ("3.0.0", true), ("2.31.2", false), ("", false)] {
            assert_eq!(version(&json!(text)).severity == Severity::Good, good, "{text}");
        }
    }

    /// What the page for operators tells to merge is what `check` asks for.
    #[test]
    fn the_broker_file_says_what_is_checked() {
        for line in [
            "<persist-id-cache>true<",
            "<id-cache-size>20000<",
            "<journal-sync-non-transactional>true<",
            "<max-disk-usage>90<",
        ] {
            assert!(BROKER_XML.contains(line), "{line}");
        }
        const { assert!(20_000 >= ID_CACHE_MIN) };
    }
}
