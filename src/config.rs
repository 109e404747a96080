//! Every setting: its default, unit, bounds and reason. The only reader of configuration files and of the environment.
//!
//! Layers, later ones win: defaults < a Corda node's folder < file (TOML) < environment (`NOTARY__FLOW__SLOTS=64`) < `--set flow.slots=64`. Unknown keys
//! are faults, with a suggestion; so are duplicate ones, which TOML itself refuses. All faults are reported at once, and nothing
//! connects before there are none. Relative paths start at the configuration file's folder.

mod checks;
pub mod corda_node;
pub mod node_conf;
mod secret;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, Environment, File, FileFormat};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use self::corda_node::CordaNode;
pub use secret::{SecretError, SecretRef};

/// What the environment's variables begin with.
const ENVIRONMENT_PREFIX: &str = "NOTARY";

/// One line of the configuration reference.
#[derive(Clone, Debug)]
pub struct Reference {
    /// `section.key`.
    pub key: &'static str,
    /// As it would stand in the file.
    pub default: String,
    /// Allowed values, where bounded.
    pub bounds: Option<String>,
    /// What it means, and why this default.
    pub doc: String,
}

/// Declares sections once; everything else about them (structures, defaults, bounds, the reference) follows from that.
macro_rules! sections {
    ($($(#[doc = $section_doc:literal])+ $section:ident: $Section:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $Type:ty = $default:expr $(, $min:literal..=$max:literal)?;)+
    })+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, PartialEq, Debug)]
            pub struct $Section {
                $($(#[doc = $doc])+ pub $field: $Type,)+
            }
        )+

        /// All settings, by section.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Settings {
            $($(#[doc = $section_doc])+ pub $section: $Section,)+
        }

        impl Settings {
            /// The sections with their meaning, in order.
            pub fn sections() -> Vec<(&'static str, String)> {
                vec![$((stringify!($section), sentence(&[$($section_doc),+])),)+]
            }

            /// Every setting, in order.
            pub fn reference() -> Vec<Reference> {
                vec![$($(Reference {
                    key: concat!(stringify!($section), ".", stringify!($field)),
                    default: <$Type as Setting>::show(&<$Type>::from($default)),
                    bounds: [$(format!("{}..={}", $min, $max),)?].into_iter().next(),
                    doc: sentence(&[$($doc),+]),
                },)+)+]
            }

            fn read(source: &Config, faults: &mut Vec<Fault>) -> Self {
                Self { $($section: $Section { $($field: {
                    let key = concat!(stringify!($section), ".", stringify!($field));
                    let value: $Type = read(source, key, <$Type>::from($default), faults);
                    $(if !($min..=$max).contains(&value) {
                        faults.push(Fault { key: key.into(), problem: format!("{value} is outside {}..={}", $min, $max) });
                    })?
                    value
                },)+ },)+ }
            }

            /// Every setting's value in force, as it would stand in a file. Secrets are references, so nothing here is secret.
            pub fn values(&self) -> Vec<(&'static str, String)> {
                vec![$($((
                    concat!(stringify!($section), ".", stringify!($field)),
                    self.$section.$field.show(),
                ),)+)+]
            }
        }
    };
}

sections! {
    /// This worker's place in the service.
    worker: Worker {
        /// The worker's own legal name, unique in the pool; logged and recorded with every decision.
        name: String = "O=Notary Worker 1, L=Zurich, C=CH";
        /// The platform version that confirms and signatures state; part of the signed bytes. 12 is Corda 4.10.
        platform_version: u16 = 12u16, 4..=9999;
        /// Threads for I/O and for CPU work each; 0 takes one per core.
        threads: usize = 0usize, 0..=256;
        /// How long a stopping worker lets accepted requests finish, in milliseconds, before they go back to their senders.
        drain_ms_max: u64 = 8000u64, 0..=600_000;
        /// Folder for what this worker must remember of its earlier lives, such as messages that made it panic. No notarisation data.
        state: PathBuf = "state";
    }
    /// The service that all workers of the pool share.
    service: Service {
        /// The service's legal name; the network parameters must list it with the signing key, as a non-validating notary.
        name: String = "O=Notary Service, L=Zurich, C=CH";
        /// Inputs plus references of one transaction must stay below this. 10000 is Corda's figure; clients know it.
        states_limit: usize = 10_000usize, 1..=1_000_000;
    }
    /// Who takes part in the network.
    network: Network {
        /// Folder with `root.pem`, `network-parameters`, `network-parameters-update`, `historic-parameters/` and `node-infos/`; all is
        /// verified up to the root, and taken up without a restart when it changes. The next five settings override its parts.
        dir: PathBuf = "network";
        /// The trust root's certificate (PEM), or a key store with it alone or as `cordarootca`. Read once, at the start.
        root: PathBuf = "";
        /// What opens `root`, by reference, if it is a key store.
        root_passphrase: SecretRef = "";
        /// The parameters in force, a file.
        parameters: PathBuf = "";
        /// Parameters that a flag day will bring into force, a file that need not exist. They are accepted from the moment it does.
        parameters_update: PathBuf = "";
        /// Earlier parameters, a folder. Those that the worker saw itself it keeps in `worker.state`.
        historic_parameters: PathBuf = "";
        /// One signed node info a participant, a folder.
        node_infos: PathBuf = "";
        /// How often files are looked at for changes, those of the worker's own certificates as well, in milliseconds; only what changed is
        /// read and verified.
        reload_ms: u64 = 2_000u64, 100..=600_000;
        /// The HTTP network map, as `http(s)://HOST[:PORT][/PATH]`, which `/network-map` follows. Empty: files only. What it says of
        /// parameters in force goes before files; what it said last is kept in `worker.state`, so the worker starts without it.
        url: String = "";
        /// Certificates of the authorities that may vouch for an `https` map (PEM). What the map says is verified up to the root anyway.
        tls_ca: PathBuf = "";
        /// How often the map is asked unless it says itself (`Cache-Control: max-age`), and again after a failure, in milliseconds.
        /// Every pause is up to a fifth shorter or longer, so that workers do not ask in step.
        poll_ms: u64 = 30_000u64, 1_000..=3_600_000;
        /// Folder into which the worker's own signed node info is written as Corda's nodes do it, `nodeInfo-<hash of the name>`, for the
        /// other nodes' folders or the network's operators. Empty: only `url` gets it, if that is set. Needs the section `identity`.
        publish_dir: PathBuf = "";
    }
    /// What the worker publishes about itself: its own legal identity and the service's, for its node info. Without it the node info
    /// is somebody else's business, such as of `notary network register`.
    identity: Identity {
        /// Where the worker's own certificate and its key lie: `file` is two PEM files, `keystore` a key store of Java's (JKS or PKCS#12)
        /// such as a Corda node has, `pkcs11` a certificate in a PEM file and its key on the tokens of section `signing`. A renewed
        /// certificate for the same key is published without a restart.
        kind: KeyKind = KeyKind::File;
        /// The certificate of the worker's own legal identity and those above it (PEM), own first. Empty: nothing is published.
        certificate: PathBuf = "";
        /// The private key of `certificate` (PEM, PKCS#8).
        key: PathBuf = "";
        /// The label of the worker's own key on the tokens.
        key_label: String = "notary-identity";
        /// The id of the worker's own key on the tokens, in hex; empty if the label alone names it.
        key_id: String = "";
        /// The key store (JKS or PKCS#12) with the worker's own certificate, those above it, and its key. Empty: nothing is published.
        keystore: PathBuf = "";
        /// The name of the worker's own key in the key store. This is what Corda calls it.
        alias: String = "identity-private-key";
        /// The passphrase of `key` or `keystore`, by reference; empty if `key` is not encrypted.
        passphrase: SecretRef = "";
        /// The passphrase of the key itself, by reference, if it has another one than its key store.
        key_passphrase: SecretRef = "";
        /// The certificate of the service's identity and those above it (PEM), own first. Its key is that of `signing`. Empty: they are
        /// beside the key in `signing.keystore`.
        service_certificate: PathBuf = "";
    }
    /// Where requests come from and answers go.
    broker: Broker {
        /// Which broker: `p2p` is the worker's own endpoint for Corda nodes (section `p2p`), `embedded` the same for clients on this
        /// machine, `rabbitmq` one that speaks AMQP 0-9-1, `artemis` one that speaks AMQP 1.0.
        kind: BrokerKind = BrokerKind::Embedded;
        /// Who sends (Artemis only): `users` of the broker, answered through the broker; or `peers`, which are Corda nodes whose
        /// bridges speak to the broker as they speak to each other, and are answered at their own brokers.
        senders: Senders = Senders::Users;
        /// Where the broker is: `HOST:PORT`, several separated by commas; each is tried in turn. Not for `embedded`.
        hosts: String = "";
        /// The virtual host (RabbitMQ only).
        vhost: String = "/";
        /// The broker user of this worker. Empty with a client certificate: then the certificate names the user (SASL EXTERNAL).
        user: String = "";
        /// The broker user's password, by reference.
        password: SecretRef = "";
        /// Certificates of the authorities that may vouch for the broker (PEM). Empty: no TLS, which only loopback addresses allow.
        tls_ca: PathBuf = "";
        /// This worker's certificate chain for mutual TLS (PEM); empty for none.
        tls_certificate: PathBuf = "";
        /// The private key of `tls_certificate` (PEM, PKCS#8).
        tls_key: PathBuf = "";
        /// What the names of the service's queues on a shared broker begin with; all workers of the pool share it.
        prefix: String = "notary";
        /// Which broker user is which party: a TOML file with lines `user = "legal name"`. Users whose names are legal names of the
        /// network map need no line. Empty for none.
        callers: PathBuf = "";
        /// Parks a request (dead letter, with the reason) that was delivered so often without being settled. Counts only deliveries
        /// that ended in a lost connection or were given back.
        deliveries_max: u32 = 20u32, 2..=1_000_000;
        /// How long the broker may be silent, in milliseconds, before the connection counts as lost (heartbeat, idle time-out).
        silence_ms_max: u64 = 10_000u64, 1_000..=600_000;
        /// Longest pause between attempts to connect, in milliseconds; they start at 100 ms and double.
        reconnect_cap_ms: u64 = 5_000u64, 100..=600_000;
        /// Where the broker is administered, for `notary broker` and `notary doctor`: RabbitMQ's management API as `http(s)://HOST:PORT`.
        /// Artemis is administered over `hosts`.
        management: String = "";
        /// The administrator's name for `management`; the worker itself never uses it.
        management_user: String = "";
        /// The administrator's password, by reference.
        management_password: SecretRef = "";
        /// Where the embedded endpoint listens; loopback only, as it has no TLS yet.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 10_002));
        /// Who may connect to the embedded endpoint: legal names with digests of their secrets.
        users: PathBuf = "network/sasl-users";
        /// Deliveries that one sending link may have open here. Small, so that most waiting requests stay with their senders.
        link_credit: u32 = 128u32, 1..=4096;
        /// Connections in all; further ones are refused.
        connections_max: usize = 256usize, 1..=65_536;
        /// How long an answer may wait for its receiver, in milliseconds, before the request is given back. Corda clients retry
        /// after 30 s.
        reply_hold_ms: u64 = 30_000u64, 100..=600_000;
    }
    /// The worker as a node among Corda nodes: where their bridges connect, and how answers go to theirs. For `broker.kind = "p2p"`.
    p2p: P2p {
        /// Where nodes connect. All interfaces, as nodes are on other machines; 10002 is the port of Corda's documentation.
        listen: SocketAddr = SocketAddr::from(([0, 0, 0, 0], 10_002));
        /// Under which addresses nodes reach `listen`: `HOST:PORT`, several separated by commas; for the worker's node info.
        addresses: String = "";
        /// Where the worker's TLS certificate and its key lie: `file` is two PEM files, `keystore` a key store of Java's (JKS or PKCS#12)
        /// such as a Corda node has, `pkcs11` a certificate in a PEM file and its key on the tokens of section `signing`. A renewed
        /// certificate is taken up without a restart.
        tls_kind: KeyKind = KeyKind::File;
        /// The worker's TLS certificate and those above it (PEM): its own first, then its node CA, the identity CA, perhaps the root.
        /// Its subject is `worker.name`.
        tls_certificate: PathBuf = "keys/tls.pem";
        /// The private key of `tls_certificate` (PEM, PKCS#8, ECDSA P-256).
        tls_key: PathBuf = "keys/tls.p8";
        /// The label of the TLS key on the tokens: a key of its own, ECDSA P-256, as it signs what peers have a say in.
        tls_key_label: String = "notary-tls";
        /// The id of the TLS key on the tokens, in hex; empty if the label alone names it.
        tls_key_id: String = "";
        /// The key store (JKS or PKCS#12) with the worker's TLS certificate, those above it, and its key.
        tls_keystore: PathBuf = "";
        /// The name of the TLS key in the key store. This is what Corda calls it.
        tls_alias: String = "cordaclienttls";
        /// The passphrase of `tls_key` or `tls_keystore`, by reference; empty if `tls_key` is not encrypted.
        tls_passphrase: SecretRef = "";
        /// The passphrase of the TLS key itself, by reference, if it has another one than its key store.
        tls_key_passphrase: SecretRef = "";
        /// Deliveries that one sending link may have open here. Small, so that most waiting requests stay where other workers can get
        /// them.
        link_credit: u32 = 64u32, 1..=4096;
        /// Connections of nodes in all; a node has two for each worker.
        connections_max: usize = 1024usize, 1..=65_536;
        /// Connections at once that have not said yet who they are, so that strangers cannot take the places of nodes.
        handshakes_max: usize = 128usize, 1..=65_536;
        /// How long a handshake may take in all, in milliseconds: TLS, SASL, open. Several round trips around the world.
        handshake_ms_max: u64 = 10_000u64, 100..=60_000;
        /// Nodes to which answers are under way at once; idle connections make room.
        bridges_max: usize = 1024usize, 1..=65_536;
        /// How long an answer may wait to be accepted by its node, in milliseconds, before the request is given back. Corda clients retry
        /// after 30 s.
        answer_hold_ms: u64 = 30_000u64, 100..=600_000;
        /// How long a connection for answers stays open without any, in milliseconds.
        bridge_idle_ms: u64 = 60_000u64, 1_000..=86_400_000;
    }
    /// Bounds on what is decoded.
    limits: WireLimits {
        /// Largest message in bytes, before and after decompression. 10 MiB is Corda's default for `maxMessageSize`; the most is what the endpoint lets one party hold.
        message_bytes_max: usize = 10_485_760usize, 65_536..=66_000_000;
    }
    /// The first stage: decode, check, reply.
    flow: FlowStage {
        /// Deliveries in the worker at once; the bound behind every other one. A full worker takes no more from the broker.
        slots: usize = 1024usize, 1..=65_536;
        /// A client is told how long its answer will take if that is more, in milliseconds (Corda's `etaMessageThresholdSeconds`).
        /// Clients act only on waits longer than their own `flowTimeout.timeout`, 30 s; telling them of shorter ones is for nothing.
        eta_message_threshold_ms: u64 = 30_000u64, 0..=3_600_000;
    }
    /// The second stage: decide and commit.
    uniqueness: UniquenessStage {
        /// Requests in the stage at once.
        slots: usize = 1024usize, 1..=65_536;
        /// Most requests of one batch. Gains flatten beyond a few hundred, and a batch is committed or repeated as a whole.
        batch_requests_max: usize = 500usize, 1..=10_000;
        /// Most states of one batch, inputs and references; a larger request travels alone.
        batch_states_max: usize = 10_000usize, 1..=1_000_000;
        /// Commits in flight at once. One makes the largest batches. The embedded store has one writer, so more than 2 gains nothing
        /// there; a database far away gains from 2 to 4, as one batch is looked up while another waits for disk and standbys.
        commits_in_flight_max: usize = 1usize, 1..=64;
        /// How often a batch is tried before its requests are given back.
        attempts_max: u32 = 5u32, 1..=100;
        /// Pause after the first failure, in milliseconds; doubles.
        retry_base_ms: u64 = 20u64, 1..=60_000;
        /// Longest pause, in milliseconds.
        retry_cap_ms: u64 = 2000u64, 1..=600_000;
    }
    /// Where decisions are kept.
    store: Store {
        /// Which store: `embedded` is a durable file of this worker alone, `postgres` a PostgreSQL database that all workers share.
        kind: StoreKind = StoreKind::Embedded;
        /// The database: `postgresql://USER@HOST:PORT,HOST:PORT/DATABASE`, without a password. All hosts are tried for the one that
        /// takes writes.
        url: String = "";
        /// The database user's password, by reference.
        password: SecretRef = "";
        /// Certificates of the authorities that may vouch for the database (PEM). Empty: no TLS, which only loopback addresses allow.
        tls_ca: PathBuf = "";
        /// This worker's certificate chain for mutual TLS (PEM); empty for none.
        tls_certificate: PathBuf = "";
        /// The private key of `tls_certificate` (PEM, PKCS#8).
        tls_key: PathBuf = "";
        /// Connections to the database. Commits in flight need one each; one more serves probes and second looks.
        connections_max: usize = 4usize, 2..=256;
        /// How long one statement may take, in milliseconds, before its connection is given up. The worker's own clock: the server's
        /// `statement_timeout` does not end a commit that waits for a standby.
        deadline_ms: u64 = 5_000u64, 100..=600_000;
        /// Serves from a database whose settings may lose commits. Never in production: the worker says so in its log again and again.
        unsafe_for_tests: bool = false;
        /// Serves from the embedded store although the network map says that other workers serve under the service's identity too. Only
        /// where they never will: they do not know what this one commits.
        sole_worker: bool = false;
        /// The embedded store's file. One process opens it at a time.
        path: PathBuf = "data/notary.store";
        /// Memory the embedded store may use for its cache, in bytes.
        cache_bytes_max: usize = 33_554_432usize, 1_048_576usize..=68_719_476_736usize;
    }
    /// The third stage: sign what is committed.
    signing: SigningStage {
        /// Which keeper of the service key: `file` is an encrypted PKCS#8 file, `keystore` a key store of Java's (JKS or PKCS#12) such as a
        /// Corda node has, `pkcs11` one or several tokens.
        kind: SignerKind = SignerKind::File;
        /// The vendor's PKCS#11 module, a shared library.
        module: PathBuf = "";
        /// The tokens that hold the service key, by label, separated by commas; the first that works signs.
        tokens: String = "";
        /// The user PIN of the tokens, by reference. Tried once: a wrong one is never tried again.
        pin: SecretRef = "";
        /// A file that notes which tokens refused the PIN. While a token stands in it, the worker does not try that PIN again, not
        /// even after a restart. A changed `file:` PIN clears it; for other references delete the file once the PIN is right.
        pin_refusals: PathBuf = "data/pin-refused";
        /// The service key's label on the tokens.
        key_label: String = "notary-service";
        /// The service key's id on the tokens, in hex; empty if the label alone names it.
        key_id: String = "";
        /// The vendor's quirks: a name in `hsm/profiles/`, or a file whose name ends in `.toml`.
        profile: String = "generic";
        /// Sessions, and so threads, for each token.
        sessions: usize = 4usize, 1..=64;
        /// How long one token may take for a signature, in milliseconds, before the next one is asked.
        token_deadline_ms: u64 = 2_000u64, 50..=60_000;
        /// The key file (PEM, encrypted PKCS#8, Ed25519 or ECDSA P-256).
        key: PathBuf = "keys/service.p8";
        /// The passphrase of the key file or key store, by reference: `file:PATH` or `env:NAME`.
        passphrase: SecretRef = "file:keys/passphrase";
        /// The key store (JKS or PKCS#12) with the service key.
        keystore: PathBuf = "";
        /// The service key's name in the key store. This is what Corda calls it.
        alias: String = "distributed-notary-private-key";
        /// The passphrase of the key itself, by reference, if it has another one than its key store.
        key_passphrase: SecretRef = "";
        /// Transactions in the stage at once.
        slots: usize = 1024usize, 1..=65_536;
        /// Most transactions under one signature; 1 signs each alone. 0 goes by the key: each alone while a signature costs less
        /// than the Merkle proofs of a batch, as with a key file; all that wait under one with a slow token.
        batch_transactions_max: usize = 0usize, 0..=10_000;
        /// Signatures in the making at once.
        signatures_in_flight_max: usize = 4usize, 1..=256;
        /// How often a signature is tried before the request is given back.
        attempts_max: u32 = 5u32, 1..=100;
        /// Pause after the first failure, in milliseconds; doubles.
        retry_base_ms: u64 = 20u64, 1..=60_000;
        /// Longest pause, in milliseconds.
        retry_cap_ms: u64 = 2000u64, 1..=600_000;
    }
    /// What operators see.
    observe: Observe {
        /// Where figures are served over HTTP (`/metrics`); loopback only.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 10_080));
        /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, or directives such as `info,notary_worker::actors=debug`.
        log: String = "info";
        /// How: `text` or `json`.
        log_format: LogFormat = LogFormat::Text;
    }
}

/// Which broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerKind {
    /// The worker's own AMQP 1.0 endpoint for Corda nodes.
    P2p,
    /// The same for clients on this machine.
    Embedded,
    /// RabbitMQ, over AMQP 0-9-1.
    RabbitMq,
    /// Apache Artemis, over AMQP 1.0.
    Artemis,
}

impl BrokerKind {
    /// Whether it is a broker that all workers share.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::RabbitMq | Self::Artemis)
    }
}

/// Who sends requests to an Artemis broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Senders {
    /// Users of the broker; a caller is the user whom the broker let in.
    Users,
    /// Bridges of Corda nodes; a caller is who the bridge says it is, and proves it by the signature in the request.
    Peers,
}

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// A durable file of this worker alone.
    Embedded,
    /// A PostgreSQL database that all workers share.
    Postgres,
}

/// Where a private key lies with its certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// In PEM files.
    File,
    /// In a key store of Java's.
    KeyStore,
    /// The certificates in a PEM file, the key on the tokens of section `signing`.
    Pkcs11,
}

/// Which keeper of the service key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SignerKind {
    /// An encrypted PKCS#8 file.
    File,
    /// A key store of Java's.
    KeyStore,
    /// One or several PKCS#11 tokens.
    Pkcs11,
}

/// How logs are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A type a setting can have.
trait Setting: DeserializeOwned {
    /// As it stands in a file.
    fn show(&self) -> String;
}

macro_rules! setting {
    ($show:expr; $($Type:ty),+) => { $(impl Setting for $Type {
        fn show(&self) -> String { let show: fn(&$Type) -> String = $show; show(self) }
    })+ };
}
setting!(|value| value.to_string(); usize, u64, u32, u16, bool);
setting!(|text| format!("{text:?}"); String);
setting!(|address| format!("{:?}", address.to_string()); SocketAddr);
setting!(|path| format!("{:?}", path.display().to_string()); PathBuf);
setting!(|secret| format!("{:?}", secret.reference()); SecretRef);
setting!(|kind| format!("{:?}", format!("{kind:?}").to_lowercase()); BrokerKind, Senders, StoreKind, KeyKind, SignerKind, LogFormat);

/// One thing wrong with the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The path to the key, or the file.
    pub key: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)
    }
}

/// Everything wrong with the configuration, a line each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// The settings in force, and which layer set each.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings; relative paths are resolved.
    pub settings: Settings,
    origins: BTreeMap<String, String>,
    cautions: Vec<String>,
}

impl Loaded {
    /// Which layer set `key`.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }

    /// What operators should know about where the settings come from, a sentence each.
    pub fn cautions(&self) -> &[String] {
        &self.cautions
    }
}

/// Loads the settings: `file` if given, then the environment, then `overrides` (`key=value` each).
///
/// # Errors
/// [`Faults`]: all of them.
pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Loaded, Faults> {
    load_from(None, file, std::env::vars().collect(), overrides)
}

/// As [`load`], above what the folder of a Corda node says.
///
/// # Errors
/// [`Faults`]: all of them.
pub fn load_in_place_of(node: &CordaNode, file: Option<&Path>, overrides: &[String]) -> Result<Loaded, Faults> {
    load_from(Some(node), file, std::env::vars().collect(), overrides)
}

/// The settings of a node's folder and `overrides`, and what is still wrong about them: a person corrects that in the file that is
/// made of them.
///
/// # Errors
/// [`Faults`] if an override is none.
pub fn draft_in_place_of(node: &CordaNode, overrides: &[String]) -> Result<(Loaded, Faults), Faults> {
    let Read { loaded, faults, unfit } = read_layers(Some(node), None, std::collections::HashMap::new(), overrides)?;
    if faults.is_empty() { Ok((loaded, Faults(unfit))) } else { Err(Faults(faults)) }
}

fn load_from(
    node: Option<&CordaNode>,
    file: Option<&Path>,
    environment: std::collections::HashMap<String, String>,
    overrides: &[String],
) -> Result<Loaded, Faults> {
    let Read { loaded, mut faults, unfit } = read_layers(node, file, environment, overrides)?;
    faults.extend(unfit);
    if faults.is_empty() { Ok(loaded) } else { Err(Faults(faults)) }
}

/// All layers in one, and what is wrong about them.
struct Read {
    loaded: Loaded,
    /// Of single settings: unknown, no value of its type, out of bounds.
    faults: Vec<Fault>,
    /// Of settings that do not fit each other.
    unfit: Vec<Fault>,
}

fn read_layers(
    node: Option<&CordaNode>,
    file: Option<&Path>,
    environment: std::collections::HashMap<String, String>,
    overrides: &[String],
) -> Result<Read, Faults> {
    let mut faults = Vec::new();
    let mut layers: Vec<(String, Config)> = Vec::new();
    let mut layer = |origin: String, built: Result<Config, ConfigError>, faults: &mut Vec<Fault>| match built {
        Ok(config) => layers.push((origin, config)),
        Err(error) => faults.push(Fault { key: origin, problem: error.to_string() }),
    };

    for (key, value, from) in node.into_iter().flat_map(CordaNode::settings) {
        let built = Config::builder().set_override(*key, value.as_str()).and_then(|builder| builder.build());
        layer(format!("node: {from}"), built, &mut faults);
    }
    if let Some(path) = file {
        match std::fs::read_to_string(path) {
            Ok(text) => match text.parse::<toml::Table>() {
                Ok(_) => {
                    let source = File::from_str(&text, FileFormat::Toml);
                    layer(
                        format!("file {}", path.display()),
                        Config::builder().add_source(source).build(),
                        &mut faults,
                    );
                }
                Err(error) => faults.push(not_toml(path, &text, &error)),
            },
            Err(error) => faults.push(Fault { key: format!("file {}", path.display()), problem: error.to_string() }),
        }
    }
    let variables = environment.into_iter().filter(|(name, _)| name.starts_with("NOTARY__")).collect();
    let source =
        Environment::with_prefix(ENVIRONMENT_PREFIX).prefix_separator("__").separator("__").source(Some(variables));
    layer("environment".into(), Config::builder().add_source(source).build(), &mut faults);
    for entry in overrides {
        match entry.split_once('=') {
            Some((key, value)) => {
                let built =
                    Config::builder().set_override(key.trim(), value.trim()).and_then(|builder| builder.build());
                layer("--set".into(), built, &mut faults);
            }
            None => {
                // What follows the key may be a secret.
                let key = entry.split(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c))).next();
                let key = format!("--set {}", key.unwrap_or_default());
                faults.push(Fault { key, problem: "give it as KEY=VALUE".into() });
            }
        }
    }

    let known: Vec<&str> = Settings::reference().iter().map(|setting| setting.key).collect();
    let mut origins = BTreeMap::new();
    let mut all = Config::builder();
    for (origin, config) in layers {
        for key in leaves(&config) {
            match known.iter().find(|known| **known == key) {
                Some(_) => drop(origins.insert(key, origin.clone())),
                // A table where a value belongs: reading the value says so.
                None if known.iter().any(|known| key.strip_prefix(known).is_some_and(|rest| rest.starts_with('.'))) => {
                }
                None => faults.push(unknown(key, &origin, &known)),
            }
        }
        all = all.add_source(config);
    }
    let mut settings = match all.build() {
        Ok(config) => Settings::read(&config, &mut faults),
        Err(error) => {
            faults.push(Fault { key: "configuration".into(), problem: error.to_string() });
            return Err(Faults(faults));
        }
    };
    let unfit = checks::validate(&settings);
    settings.resolve(file.and_then(Path::parent).unwrap_or(Path::new("")));
    let cautions = node.map(CordaNode::cautions).unwrap_or_default();
    Ok(Read { loaded: Loaded { settings, origins, cautions }, faults, unfit })
}

impl Settings {
    /// The secrets that these settings make the worker or its verbs fetch, with their keys.
    pub fn secrets(&self) -> Vec<(&'static str, &SecretRef)> {
        let (broker, store, signing) = (&self.broker, &self.store, &self.signing);
        let tls_store = self.p2p.tls_kind == KeyKind::KeyStore;
        let tls_on_tokens = self.p2p.tls_kind == KeyKind::Pkcs11;
        let used = [
            (broker.kind.is_shared(), "broker.password", &broker.password),
            (broker.kind == BrokerKind::RabbitMq, "broker.management_password", &broker.management_password),
            (self.speaks_to_nodes() && !tls_on_tokens, "p2p.tls_passphrase", &self.p2p.tls_passphrase),
            (self.speaks_to_nodes() && tls_store, "p2p.tls_key_passphrase", &self.p2p.tls_key_passphrase),
            (store.kind == StoreKind::Postgres, "store.password", &store.password),
            (signing.kind != SignerKind::Pkcs11, "signing.passphrase", &signing.passphrase),
            (signing.kind == SignerKind::KeyStore, "signing.key_passphrase", &signing.key_passphrase),
            (self.needs_tokens(), "signing.pin", &signing.pin),
            (true, "network.root_passphrase", &self.network.root_passphrase),
            (self.identity.kind != KeyKind::Pkcs11, "identity.passphrase", &self.identity.passphrase),
            (self.identity.kind == KeyKind::KeyStore, "identity.key_passphrase", &self.identity.key_passphrase),
        ];
        let used = used.into_iter().filter(|(used, _, secret)| *used && secret.is_configured());
        used.map(|(_, key, secret)| (key, secret)).collect()
    }

    /// Whether the worker itself has connections with Corda nodes, as which it needs a TLS certificate.
    pub fn speaks_to_nodes(&self) -> bool {
        match self.broker.kind {
            BrokerKind::P2p => true,
            BrokerKind::Artemis => self.broker.senders == Senders::Peers,
            BrokerKind::Embedded | BrokerKind::RabbitMq => false,
        }
    }

    /// Whether a key of the worker's is on the tokens of section `signing`.
    pub fn needs_tokens(&self) -> bool {
        let tls = self.speaks_to_nodes() && self.p2p.tls_kind == KeyKind::Pkcs11;
        let named = !self.identity.certificate.as_os_str().is_empty();
        let identity = named && self.identity.kind == KeyKind::Pkcs11;
        tls || identity || self.signing.kind == SignerKind::Pkcs11
    }

    /// The defaults, with relative paths as they are.
    pub fn defaults() -> Self {
        let mut faults = Vec::new();
        let settings = Self::read(&Config::default(), &mut faults);
        debug_assert!(faults.is_empty(), "the defaults are within their own bounds: {faults:?}");
        settings
    }

    /// Makes relative paths start at `folder`.
    fn resolve(&mut self, folder: &Path) {
        let (broker, p2p, store, signing) = (&mut self.broker, &mut self.p2p, &mut self.store, &mut self.signing);
        let network = &mut self.network;
        let paths = [
            &mut self.worker.state,
            &mut network.dir,
            &mut network.root,
            &mut network.parameters,
            &mut network.parameters_update,
            &mut network.historic_parameters,
            &mut network.node_infos,
            &mut network.tls_ca,
            &mut network.publish_dir,
            &mut self.identity.certificate,
            &mut self.identity.key,
            &mut self.identity.keystore,
            &mut self.identity.service_certificate,
            &mut broker.users,
            &mut broker.callers,
            &mut broker.tls_ca,
            &mut broker.tls_certificate,
            &mut broker.tls_key,
            &mut p2p.tls_certificate,
            &mut p2p.tls_key,
            &mut p2p.tls_keystore,
            &mut store.path,
            &mut store.tls_ca,
            &mut store.tls_certificate,
            &mut store.tls_key,
            &mut signing.key,
            &mut signing.keystore,
            &mut signing.module,
            &mut signing.pin_refusals,
        ];
        // An empty path means none, not the folder itself.
        for path in paths.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            *path = folder.join(&path);
        }
        // A profile is a name, unless it looks like a path.
        if signing.profile.ends_with(".toml") {
            signing.profile = folder.join(&signing.profile).to_string_lossy().into_owned();
        }
        let secrets = [&mut broker.password, &mut broker.management_password, &mut store.password];
        let secrets = secrets.into_iter().chain([&mut p2p.tls_passphrase, &mut signing.passphrase, &mut signing.pin]);
        let secrets = secrets.chain([&mut p2p.tls_key_passphrase, &mut signing.key_passphrase]);
        for secret in secrets
            .chain([&mut network.root_passphrase])
            .chain([&mut self.identity.passphrase, &mut self.identity.key_passphrase])
        {
            secret.resolve(folder);
        }
    }
}

fn read<T: Setting>(source: &Config, key: &str, default: T, faults: &mut Vec<Fault>) -> T {
    match source.get::<T>(key) {
        Ok(value) => value,
        Err(ConfigError::NotFound(_)) => default,
        Err(error) => {
            faults.push(Fault { key: key.into(), problem: error.to_string() });
            default
        }
    }
}

/// Says where a file is no TOML, without the line itself: it may be the one with a secret in clear.
fn not_toml(path: &Path, text: &str, error: &toml::de::Error) -> Fault {
    let at = error.span().and_then(|span| text.get(..span.start)).map(|before| {
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("line {line}, column {column}: ")
    });
    let problem = format!("{}{}", at.unwrap_or_default(), error.message().replace('\n', ", "));
    Fault { key: format!("file {}", path.display()), problem }
}

/// The full keys of all values in a layer.
fn leaves(config: &Config) -> Vec<String> {
    fn walk(prefix: &str, value: &config::Value, out: &mut Vec<String>) {
        match &value.kind {
            config::ValueKind::Table(table) => {
                for (key, value) in table {
                    let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                    walk(&path, value, out);
                }
            }
            _ => out.push(prefix.to_owned()),
        }
    }
    let mut out = Vec::new();
    walk("", &config.cache, &mut out);
    out.sort();
    out
}

fn unknown(key: String, origin: &str, known: &[&str]) -> Fault {
    let nearest = known.iter().min_by_key(|candidate| distance(&key, candidate));
    let suggestion = match nearest {
        Some(nearest) if distance(&key, nearest) <= key.len() / 3 + 1 => format!("; did you mean {nearest}?"),
        _ => String::new(),
    };
    Fault { key, problem: format!("no such setting (from {origin}){suggestion}") }
}

/// Levenshtein distance: for suggestions only.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Doc lines as one text.
fn sentence(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
