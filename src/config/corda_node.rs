//! An existing Corda notary worker's folder as a layer of settings: `node.conf`, `certificates/*.jks`, signed network material.
//!
//! Every key of the node.conf is accounted for: taken, not needed, to be seen to by a person, or unknown. None is dropped silently.

use core::fmt;
use std::path::{Path, PathBuf};

use super::node_conf::{NODE_CONF, NodeConf, NodeConfError, Obfuscation};
use super::{Fault, Faults};

/// What Corda calls the keys of a node.
const ALIASES: [(&str, &str); 3] = [
    ("enterpriseConfiguration.identityKeyAlias", "identity-private-key"),
    ("enterpriseConfiguration.distributedNotaryKeyAlias", "distributed-notary-private-key"),
    ("enterpriseConfiguration.tlsKeyAlias", "cordaclienttls"),
];
/// The port that marks a CockroachDB address, as Corda's documentation gives it; it speaks PostgreSQL's protocol, and differs in
/// what it promises.
const COCKROACH_PORT: &str = "26257";
/// Where Corda's documentation and its notaries have had the database of a notary's service, by spelling (FEATURES CF6).
const DATA_SOURCES: [&str; 4] = [
    "notary.jpa.dataSourceProperties",
    "notary.jpa.dataSource",
    "notary.mysql.dataSource",
    "notary.mysql.dataSourceProperties",
];
const URLS: [&str; 3] = ["jdbcUrl", "dataSource.url", "url"];
const USERS: [&str; 4] = ["username", "dataSource.user", "user", "dataSource.username"];
const PASSWORDS: [&str; 2] = ["password", "dataSource.password"];

/// What became of one key of a node.conf.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// These settings say it now.
    Taken(Vec<&'static str>),
    /// A worker has no use for it, for this reason.
    NotNeeded(&'static str),
    /// A person has to decide: the worker does otherwise, or needs what cannot be read here.
    SeeTo(String),
    /// Corda 4.10 does not document it, or this version does not know it; nothing was done with it.
    Unknown,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(settings) => write!(f, "taken: {}", settings.join(", ")),
            Self::NotNeeded(reason) => write!(f, "not needed: {reason}"),
            Self::SeeTo(problem) => write!(f, "see to it: {problem}"),
            Self::Unknown => f.write_str("unknown: nothing was done with it"),
        }
    }
}

/// One key, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// The full key, such as `rpcUsers[0].password`.
    pub key: String,
    /// What became of it.
    pub fate: Fate,
    /// What else is to be said of it: that it is given twice, obfuscated, or overridden by a variable.
    pub remarks: Vec<String>,
}

/// A node's folder, read.
#[derive(Debug)]
pub struct CordaNode {
    /// `section.key`, its value as `--set` takes it, and where that comes from. A path is absolute; a secret is a reference.
    settings: Vec<(&'static str, String, String)>,
    accounts: Vec<Account>,
    /// Which keys were used for which settings.
    taken: Vec<(String, Vec<&'static str>)>,
    see_to: Vec<(String, String)>,
    base: PathBuf,
    conf: NodeConf,
}

impl CordaNode {
    /// Reads a node's folder, or the node.conf in it under whatever name.
    ///
    /// # Errors
    /// [`Faults`]: the file cannot be read, or says something that a worker cannot be.
    pub fn read(place: &Path) -> Result<Self, Faults> {
        let path = if place.is_dir() { place.join(NODE_CONF) } else { place.to_owned() };
        let fault = |error: NodeConfError| {
            Faults(vec![Fault { key: format!("node {}", place.display()), problem: error.to_string() }])
        };
        let conf = NodeConf::read(&path).map_err(fault)?;
        let base = conf.path().parent().unwrap_or(Path::new("/")).to_owned();
        let mut node =
            Self { settings: Vec::new(), accounts: Vec::new(), taken: Vec::new(), see_to: Vec::new(), base, conf };
        let mut faults = Vec::new();
        node.names(&mut faults);
        node.addresses(&mut faults);
        node.keys();
        node.material();
        node.store();
        node.figures(&mut faults);
        node.account();
        if faults.is_empty() { Ok(node) } else { Err(Faults(faults)) }
    }

    /// The layer: `section.key`, value, and where it comes from.
    pub fn settings(&self) -> &[(&'static str, String, String)] {
        &self.settings
    }

    /// All keys of the node.conf, in order.
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// What whoever puts a worker in the node's place should know, a sentence each.
    pub fn cautions(&self) -> Vec<String> {
        let keys = self.accounts.iter().filter_map(|account| match &account.fate {
            Fate::SeeTo(problem) => Some(format!("{}: {problem}", account.key)),
            Fate::Unknown => Some(format!("{}: {}", account.key, account.fate)),
            Fate::Taken(_) | Fate::NotNeeded(_) => None,
        });
        let states = "states that this notary has marked as spent in its earlier database are not known to the store of this worker: put it \
                      in the place of a notary that has never notarised, or be sure that they are in the store";
        keys.chain([states.to_owned()]).collect()
    }

    /// The node.conf, as an absolute path.
    pub fn path(&self) -> &Path {
        self.conf.path()
    }

    fn set(&mut self, setting: &'static str, value: impl Into<String>, from: &str) {
        self.settings.push((setting, value.into(), from.to_owned()));
    }

    fn set_path(&mut self, setting: &'static str, path: &Path) {
        let from = path.strip_prefix(&self.base).unwrap_or(path).display().to_string();
        let from = if from.is_empty() { "its folder" } else { &from };
        self.set(setting, path.display().to_string(), from);
    }

    /// Takes `key` for `setting`.
    fn take(&mut self, key: &str, setting: &'static str, value: impl Into<String>) {
        self.set(setting, value, key);
        self.note(key, setting);
    }

    fn note(&mut self, key: &str, setting: &'static str) {
        match self.taken.iter_mut().find(|(taken, _)| taken == key) {
            Some((_, settings)) => settings.push(setting),
            None => self.taken.push((key.to_owned(), vec![setting])),
        }
    }

    fn see_to(&mut self, key: &str, problem: impl Into<String>) {
        self.see_to.push((key.to_owned(), problem.into()));
    }

    /// Takes the secret under `key` for `setting`, by reference: it stays where it is.
    fn refer(&mut self, key: &str, setting: &'static str) {
        let reference = format!("node-conf:{}#{key}", self.conf.path().display());
        self.take(key, setting, reference);
    }

    fn text(&self, key: &str) -> Option<String> {
        self.conf.text(key).map(str::to_owned)
    }

    fn is_true(&self, key: &str) -> bool {
        self.conf.text(key) == Some("true")
    }

    /// Fills `setting` with what Corda calls this key, or what node.conf calls it.
    fn alias(&mut self, which: usize, setting: &'static str) {
        let (key, default) = ALIASES[which];
        match self.text(key) {
            Some(alias) => self.take(key, setting, alias),
            None => self.set(setting, default, "Corda's default"),
        }
    }

    fn names(&mut self, faults: &mut Vec<Fault>) {
        let mut need = |key: &str, problem: &str| faults.push(Fault { key: key.into(), problem: problem.into() });
        match self.text("myLegalName") {
            Some(name) => self.take("myLegalName", "worker.name", name),
            None => need("myLegalName", "node.conf does not name the worker"),
        }
        match self.text("notary.serviceLegalName") {
            Some(name) => self.take("notary.serviceLegalName", "service.name", name),
            None => need(
                "notary.serviceLegalName",
                "node.conf names no service: this is the folder of a node that is no notary, or of one under its own name alone, in \
                 whose place a pool of workers cannot serve",
            ),
        }
        if self.is_true("notary.validating") {
            need("notary.validating", "this node is a validating notary; this product is a non-validating one");
        }
    }

    fn addresses(&mut self, faults: &mut Vec<Fault>) {
        self.set("broker.kind", "p2p", "a Corda node's way");
        let Some(address) = self.text("p2pAddress") else {
            faults
                .push(Fault { key: "p2pAddress".into(), problem: "node.conf does not say where the worker is".into() });
            return;
        };
        let more: Vec<String> = self.conf.list("additionalP2PAddresses").into_iter().map(str::to_owned).collect();
        let all = core::iter::once(&address).chain(&more).cloned().collect::<Vec<_>>().join(",");
        self.take("p2pAddress", "p2p.addresses", all);
        for i in 0..more.len() {
            self.note(&format!("additionalP2PAddresses[{i}]"), "p2p.addresses");
        }
        // Inside the node, its broker may listen elsewhere than nodes are told.
        let (key, bound) = match self.text("messagingServerAddress") {
            Some(_) if self.is_external_broker() => {
                let problem = "the node's messages went through an Artemis of its own kind. The worker listens at p2pAddress itself; to \
                               keep a broker in between, see broker.kind = \"artemis\" with broker.senders = \"peers\"";
                self.see_to("messagingServerAddress", problem);
                ("p2pAddress", address)
            }
            Some(bound) => ("messagingServerAddress", bound),
            None => ("p2pAddress", address),
        };
        match listening(&bound) {
            Some(listen) => self.take(key, "p2p.listen", listen),
            None => faults.push(Fault { key: key.into(), problem: "is not HOST:PORT".into() }),
        }
        if self.conf.text("messagingServerExternal") == Some("false") {
            self.note("messagingServerExternal", "p2p.listen");
        }
    }

    fn is_external_broker(&self) -> bool {
        self.conf.text("messagingServerExternal") != Some("false")
    }

    fn keys(&mut self) {
        let folder = match self.text("certificatesDirectory") {
            Some(folder) => {
                self.note("certificatesDirectory", "p2p.tls_keystore");
                self.base.join(folder)
            }
            None => self.base.join("certificates"),
        };
        let (own, tls) = (folder.join("nodekeystore.jks"), folder.join("sslkeystore.jks"));
        // Where the bootstrapper and the registration tool leave it. A node in development mode copies it to its own at its first start.
        let shared = folder.join("distributedService.jks");
        let service = if shared.exists() { shared } else { own.clone() };

        self.set("p2p.tls_kind", "keystore", "a Corda node's way");
        self.set_path("p2p.tls_keystore", &tls);
        self.alias(2, "p2p.tls_alias");
        self.set("identity.kind", "keystore", "a Corda node's way");
        self.set_path("identity.keystore", &own);
        self.alias(0, "identity.alias");
        self.set("signing.kind", "keystore", "a Corda node's way");
        self.set_path("signing.keystore", &service);
        self.alias(1, "signing.alias");
        for setting in ["p2p.tls_passphrase", "identity.passphrase", "signing.passphrase"] {
            self.refer("keyStorePassword", setting);
        }
        self.set_path("network.root", &folder.join("truststore.jks"));
        self.refer("trustStorePassword", "network.root_passphrase");

        for key in ["cryptoServiceName", "cryptoServiceConf"] {
            if self.conf.text(key).is_some_and(|name| name != "BC_SIMPLE") {
                self.see_to(
                    key,
                    "the node's keys are in an HSM: for the service key set signing.kind = \"pkcs11\" with signing.module, \
                     signing.tokens and signing.pin, for the others identity.kind and p2p.tls_kind",
                );
            }
        }
    }

    fn material(&mut self) {
        let base = self.base.clone();
        self.set_path("network.dir", &base);
        self.set_path("network.parameters", &base.join("network-parameters"));
        self.set_path("network.parameters_update", &base.join("network-parameters-update"));
        self.set_path("network.node_infos", &base.join("additional-node-infos"));
        self.set_path("network.historic_parameters", &base.join("notary/historic-parameters"));
        let key = ["networkServices.networkMapURL", "compatibilityZoneURL"];
        let key = key.into_iter().find(|key| self.conf.text(key).is_some());
        let Some((key, url)) = key.and_then(|key| Some((key, self.text(key)?))) else { return };
        if self.is_true("devMode") && !self.is_true("devModeOptions.allowCompatibilityZone") {
            return self.see_to(key, "not asked, as the node would not: devMode is true");
        }
        let is_secure = url.starts_with("https:");
        self.take(key, "network.url", url);
        if is_secure {
            self.see_to(key, "taken as network.url; also name in network.tls_ca who may vouch for it, such as the system's authorities");
        }
    }

    fn store(&mut self) {
        let base = self.base.join("notary");
        self.set_path("worker.state", &base.join("state"));
        self.set_path("store.path", &base.join("notary.store"));
        self.set_path("signing.pin_refusals", &base.join("pin-refused"));
        for source in DATA_SOURCES {
            let find = |names: &[&str]| {
                names.iter().map(|name| format!("{source}.{name}")).find(|key| self.conf.text(key).is_some())
            };
            let (url, user, password) = (find(&URLS), find(&USERS), find(&PASSWORDS));
            let Some(url) = url else { continue };
            if self.conf.obfuscation(&url).is_some() {
                self.see_to(&url, "cannot be read: give store.kind, store.url and store.password");
                continue;
            }
            let user = user.and_then(|key| Some((self.text(&key)?, key)));
            let Some(database) = self.conf.text(&url).and_then(Database::parse) else {
                let problem = "this database is not one of ours: give store.kind = \"postgres\" with store.url and store.password. The spent \
                               states in it are not taken over";
                self.see_to(&url, problem);
                continue;
            };
            let name = user.as_ref().map(|(name, _)| name.clone()).or(database.user).unwrap_or_default();
            self.set("store.kind", "postgres", &url);
            self.take(&url, "store.url", format!("postgresql://{name}@{}/{}", database.hosts, database.name));
            if let Some((_, key)) = user {
                self.note(&key, "store.url");
            }
            if let Some(key) = password {
                self.refer(&key, "store.password");
            }
            for (setting, file) in [
                ("store.tls_ca", database.root),
                ("store.tls_certificate", database.certificate),
                ("store.tls_key", database.key),
            ] {
                if let Some(file) = file {
                    let path = self.base.join(file);
                    self.take(&url, setting, path.display().to_string());
                }
            }
            let problem = "taken as store.url. Run `notary db apply` on it first: our tables are apart from Corda's, whose spent states are \
                           not taken over; a key for it in DER (.pk8) must be turned into PEM";
            self.see_to(&url, problem);
        }
    }

    fn figures(&mut self, faults: &mut Vec<Fault>) {
        // The port on which operators had the node, which is this node's alone on its machine. Loopback only, whatever its host is.
        let key = "rpcSettings.adminAddress";
        let port = self.conf.text(key).and_then(|address| address.rsplit_once(':')?.1.parse::<u16>().ok());
        if let Some(port) = port.filter(|port| *port != 0) {
            self.take(key, "observe.listen", format!("127.0.0.1:{port}"));
        }
        let key = "notary.etaMessageThresholdSeconds";
        if let Some(text) = self.text(key) {
            match text.parse::<u32>() {
                Ok(seconds) => {
                    self.take(key, "flow.eta_message_threshold_ms", (u64::from(seconds) * 1_000).to_string())
                }
                Err(_) => faults.push(Fault { key: key.into(), problem: "is no number of seconds".into() }),
            }
        }
        let key = "sslHandshakeTimeout";
        if let Some(ms) = self.text(key).filter(|text| text.parse::<u64>().is_ok_and(|ms| (100..=60_000).contains(&ms)))
        {
            self.take(key, "p2p.handshake_ms_max", ms);
        }
    }

    /// Says of every key what became of it.
    fn account(&mut self) {
        let keys: Vec<String> = self.conf.keys().map(str::to_owned).collect();
        self.accounts = keys.into_iter().map(|key| self.account_for(key)).collect();
    }

    fn account_for(&self, key: String) -> Account {
        let mut remarks = Vec::new();
        if self.conf.is_repeated(&key) {
            remarks.push("given more than once: the last value counts".to_owned());
        }
        if let Some(variable) = self.conf.overridden_by(&key) {
            remarks.push(format!(
                "from the environment variable {variable}, which the worker does not read again from a file of ours"
            ));
        }
        let taken = self.taken.iter().find(|(taken, _)| *taken == key).map(|(_, settings)| settings.clone());
        let seen = self.see_to.iter().find(|(seen, _)| *seen == key).map(|(_, problem)| problem.clone());
        let fate = match (self.conf.obfuscation(&key), seen, taken) {
            (Some(Obfuscation::Done), _, Some(settings)) => Fate::SeeTo(format!(
                "obfuscated by Corda's configuration obfuscator, which cannot be read here: give {} by reference, such as file:PATH",
                settings.join(", ")
            )),
            (_, Some(problem), _) => Fate::SeeTo(problem),
            (_, None, Some(settings)) => Fate::Taken(settings),
            (_, None, None) if SWITCHES.contains(&key.as_str()) && self.conf.text(&key) == Some("false") => {
                Fate::NotNeeded("it is off")
            }
            (_, None, None) => known(&key),
        };
        match self.conf.obfuscation(&key) {
            Some(Obfuscation::Done) => remarks.push("obfuscated by Corda's configuration obfuscator".to_owned()),
            Some(Obfuscation::Due) => {
                remarks.push("meant for Corda's configuration obfuscator, and still in clear".to_owned())
            }
            None => {}
        }
        Account { key, fate, remarks }
    }
}

/// Where to listen so that `address` is reached: on this machine alone if that is what it names, on all its interfaces otherwise,
/// as a node does.
fn listening(address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|port| *port != 0)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    Some(match (is_here, host) {
        (true, "::1") => format!("[::1]:{port}"),
        (true, _) => format!("127.0.0.1:{port}"),
        (false, _) => format!("0.0.0.0:{port}"),
    })
}

/// A JDBC address of PostgreSQL.
struct Database {
    hosts: String,
    name: String,
    user: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Database {
    /// `jdbc:postgresql://HOST[:PORT],…/NAME?option=value&…`; `None` for other databases, and for CockroachDB.
    fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("jdbc:postgresql://")?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, name) = rest.split_once('/')?;
        let hosts: Vec<String> = hosts
            .split(',')
            .map(|host| {
                if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
                    host.to_owned()
                } else {
                    format!("{host}:5432")
                }
            })
            .collect();
        if hosts.iter().any(|host| host.ends_with(&format!(":{COCKROACH_PORT}"))) || name.is_empty() {
            return None;
        }
        let option = |wanted: &str| {
            let mut pairs = options.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
        };
        Some(Self {
            hosts: hosts.join(","),
            name: name.to_owned(),
            user: option("user"),
            root: option("sslrootcert"),
            certificate: option("sslcert"),
            key: option("sslkey"),
        })
    }
}

/// What is done with keys that no setting takes. A line is for the key itself and all below it; the longest that fits counts.
fn known(key: &str) -> Fate {
    let fits = |prefix: &str| {
        key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.') || rest.starts_with('['))
    };
    let longest = |table: &'static [(&'static str, &'static str)]| {
        table.iter().filter(|(prefix, _)| fits(prefix)).max_by_key(|(prefix, _)| prefix.len())
    };
    match (longest(NOT_NEEDED), longest(SEE_TO)) {
        (Some((idle, _)), Some((prefix, problem))) if prefix.len() > idle.len() => Fate::SeeTo((*problem).to_owned()),
        (None, Some((_, problem))) => Fate::SeeTo((*problem).to_owned()),
        (Some((_, reason)), _) => Fate::NotNeeded(reason),
        (None, None) => Fate::Unknown,
    }
}

const NO_CORDAPPS: &str = "a worker runs no CorDapps";
const NO_JVM: &str = "there is no Java";
const NO_RPC: &str = "there is no RPC and no shell; operators have the verbs of `notary`, /metrics and the log";
const NO_NODE_DATABASE: &str = "a worker has no vault and no checkpoints, so no database of its own";
const NO_FLOWS: &str = "a worker keeps no flows; its limits are explicit (flow.slots and others)";
const FIGURES: &str = "figures are at observe.listen, /metrics and /ready";
const REGISTRATION: &str = "is for registration: see `notary network register`";
const RETRIES: &str = "the worker reconnects and retries by itself (store.*, uniqueness.retry_*)";

/// Keys that a worker has no use for.
const NOT_NEEDED: &[(&str, &str)] = &[
    ("additionalNodeInfoPollingFrequencyMsec", "node infos are looked at every network.reload_ms"),
    ("attachmentCacheBound", NO_CORDAPPS),
    ("attachmentContentCacheSizeMegaBytes", NO_CORDAPPS),
    ("baseDirectory", "the folder is where node.conf is"),
    ("blacklistedAttachmentSigningKeys", NO_CORDAPPS),
    ("cordappDirectories", NO_CORDAPPS),
    ("cordappSignerKeyFingerprintBlacklist", NO_CORDAPPS),
    ("cryptoServiceFlowRetryCount", "signatures are tried again as signing.attempts_max says"),
    ("cryptoServiceName", "the keys are in key stores"),
    ("custom", NO_JVM),
    ("database", NO_NODE_DATABASE),
    ("dataSourceProperties", NO_NODE_DATABASE),
    ("devMode", "keys and certificates are taken as they are, never made up"),
    ("devModeOptions", "there is no development mode"),
    ("emailAddress", REGISTRATION),
    ("enableSNI", "always on where a peer has a name for it"),
    ("enterpriseConfiguration.attachmentClassLoaderCacheSize", NO_CORDAPPS),
    ("enterpriseConfiguration.auditService", NO_RPC),
    ("enterpriseConfiguration.clientCaKeyAlias", REGISTRATION),
    ("enterpriseConfiguration.enableURLConnectionCache", NO_JVM),
    ("enterpriseConfiguration.healthCheck", FIGURES),
    ("enterpriseConfiguration.maintenanceMode", "there is nothing to keep house in"),
    ("enterpriseConfiguration.metricsConfiguration", FIGURES),
    (
        "enterpriseConfiguration.mutualExclusionConfiguration",
        "all workers serve at once; none waits for another to fail",
    ),
    ("enterpriseConfiguration.processedMessageCleanup", NO_FLOWS),
    (
        "enterpriseConfiguration.tuning",
        "threads and buffers find themselves; bounds are in flow.*, uniqueness.* and signing.*",
    ),
    ("enterpriseConfiguration.useMultiThreadedSMM", NO_FLOWS),
    ("enterpriseConfiguration.messagingServerConnectionConfiguration", "there is no broker of the node's own"),
    ("enterpriseConfiguration.messagingServerBackupAddresses", "there is no broker of the node's own"),
    ("flowExternalOperationThreadPoolSize", NO_FLOWS),
    ("flowMonitorPeriodMillis", NO_FLOWS),
    ("flowMonitorSuspensionLoggingThresholdMillis", NO_FLOWS),
    ("flowOverrides", NO_FLOWS),
    ("flowTimeout", "is for nodes that ask a notary; a worker asks nobody"),
    ("graphiteOptions", FIGURES),
    ("h2Port", NO_NODE_DATABASE),
    ("h2port", NO_NODE_DATABASE),
    ("h2Settings", NO_NODE_DATABASE),
    ("jarDirs", NO_CORDAPPS),
    ("jmxMonitoringHttpPort", FIGURES),
    ("jmxReporterType", FIGURES),
    ("lazyBridgeStart", "connections to nodes are always made on demand"),
    ("manAllowed", NO_RPC),
    ("messagingServerExternal", "see messagingServerAddress"),
    ("networkParameterAcceptanceSettings", "old and new parameters are accepted together"),
    ("networkServices.csrToken", REGISTRATION),
    ("networkServices.doormanURL", REGISTRATION),
    ("networkServices.inferred", REGISTRATION),
    ("noLocalShell", NO_RPC),
    ("notary.extraConfig", "is for Corda's simple notary; see uniqueness.*"),
    ("notary.jpa.connectionRetries", RETRIES),
    ("notary.jpa.backOffIncrement", RETRIES),
    ("notary.jpa.backOffBase", RETRIES),
    ("notary.jpa.maxDBTransactionRetryCount", RETRIES),
    ("notary.jpa.maxBatchSize", "batches form by themselves; their bound is uniqueness.batch_requests_max"),
    ("notary.jpa.maxBatchInputStates", "batches form by themselves; their bound is uniqueness.batch_states_max"),
    ("notary.jpa.batchTimeoutMs", "a batch never waits"),
    ("notary.jpa.maxQueueSize", "the bound is flow.slots; what is beyond it waits at its sender"),
    ("notary.jpa.generateNativeSQL", "SQL is PostgreSQL's own"),
    ("notary.jpa.generateNativeSql", "SQL is PostgreSQL's own"),
    ("notary.jpa.database", "our tables are in a schema of their own, which `notary db check` validates"),
    ("notary.jpa.dataSourceProperties", "the pool of connections is the worker's own (store.connections_max)"),
    ("notary.jpa.dataSource", "the pool of connections is the worker's own (store.connections_max)"),
    ("notary.mysql.connectionRetries", RETRIES),
    ("notary.mysql.backOffIncrement", RETRIES),
    ("notary.mysql.backOffBase", RETRIES),
    ("notary.mysql.maxBatchSize", "batches form by themselves; their bound is uniqueness.batch_requests_max"),
    ("notary.mysql.maxBatchInputStates", "batches form by themselves; their bound is uniqueness.batch_states_max"),
    ("notary.mysql.batchTimeoutMs", "a batch never waits"),
    ("notary.mysql.maxQueueSize", "the bound is flow.slots; what is beyond it waits at its sender"),
    ("notary.mysql.dataSource", "the pool of connections is the worker's own (store.connections_max)"),
    ("notary.validating", "this notary is a non-validating one"),
    ("quasarExcludePackages", NO_JVM),
    ("reloadCheckpointAfterSuspend", NO_FLOWS),
    ("rpcAddress", NO_RPC),
    ("rpcSettings", NO_RPC),
    ("rpcUsers", NO_RPC),
    ("security", NO_RPC),
    ("sshd", NO_RPC),
    ("systemProperties", NO_JVM),
    ("telemetry", FIGURES),
    ("transactionCacheSizeMegaBytes", NO_FLOWS),
    ("useOpenSsl", "TLS is rustls"),
    ("verfierType", NO_CORDAPPS),
    ("verifierType", NO_CORDAPPS),
];

/// Keys of [`SEE_TO`] that ask for nothing if they are off.
const SWITCHES: &[&str] =
    &["crlCheckArtemisServer", "detectPublicIp", "enterpriseConfiguration.externalBridge", "useTestClock"];

/// Keys whose meaning a worker does not have, and a person may miss.
const SEE_TO: &[(&str, &str)] = &[
    ("certificateChainCheckPolicies", "chains are always verified up to the root, whatever is said here"),
    ("crlCheckArtemisServer", "revocation lists are not looked at; take a node off the network map instead"),
    ("crlCheckSoftFail", "revocation lists are not looked at; take a node off the network map instead"),
    ("cryptoServiceTimeout", "how long a token may take is signing.token_deadline_ms"),
    ("detectPublicIp", "addresses are advertised as they are written"),
    ("enterpriseConfiguration.artemisCryptoServiceConfig", "there is no broker of the node's own"),
    (
        "enterpriseConfiguration.externalBridge",
        "nodes connect to the worker itself: let them through where the Corda Firewall was",
    ),
    ("enterpriseConfiguration.messagingServerSslConfiguration", "there is no broker of the node's own"),
    ("enterpriseConfiguration.previousIdentityKeyAliases", "only the identity in force is served"),
    (
        "enterpriseConfiguration.tlsCryptoServiceConfig",
        "the TLS key is in an HSM: set p2p.tls_kind = \"pkcs11\" with p2p.tls_certificate and p2p.tls_key_label",
    ),
    ("extraNetworkMapKeys", "private network maps are not asked"),
    ("networkServices.pnm", "private network maps are not asked"),
    ("networkServices.proxyAddress", "the network map is asked without a proxy"),
    ("networkServices.proxyPassword", "the network map is asked without a proxy"),
    ("networkServices.proxyType", "the network map is asked without a proxy"),
    ("networkServices.proxyUser", "the network map is asked without a proxy"),
    ("notary.bftSMaRt", "a BFT-SMaRt cluster has its spent states in itself; they are not taken over"),
    (
        "notary.className",
        "the notary's own code is not run: if it did more than a non-validating notary does, that is lost",
    ),
    ("notary.raft", "a Raft cluster has its spent states in itself; they are not taken over"),
    ("relay", "there is no tunnel; nodes connect to p2p.listen"),
    ("tlsCertCrlDistPoint", "certificates are taken as they are"),
    ("tlsCertCrlIssuer", "certificates are taken as they are"),
    ("useTestClock", "the clock is the machine's"),
];

#[cfg(test)]
#[path = "corda_node/tests.rs"]
mod tests;
