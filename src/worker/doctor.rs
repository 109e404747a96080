//! Examines a whole set-up, beside a running worker or a stopped one, and says what to do about what it finds. Every check is a
//! small function that returns [`Finding`]s; each adapter brings its own, and this is the place that names adapters.
//!
//! It changes nothing: it makes no folder, no queue and no table, and signs nothing but a trial text.

mod machine;
mod secrets;

use std::path::Path;
use std::sync::Arc;

use super::certificates::{CERTIFICATE_DAYS_MIN, InUse, days_left, in_use};
use super::credentials::{self, Key, Opened, Place};
use super::{StartError, check_listed, load_network, publication};
use crate::broker::embedded;
use crate::config::{BrokerKind, Fault, KeyKind, Loaded, Senders, Settings, SignerKind, StoreKind};
use crate::domain::network::NetworkView;
use crate::domain::{PublicKey, Timestamp};
use crate::hsm::file_key;
use crate::hsm::pkcs11::{self, TokenKey};
use crate::network::Node;
use crate::ports::finding::{Finding, Severity};
use crate::ports::{Clock, Signer};
use crate::sql;

/// Everything that was looked at. Blocks: up to 10 s for a command that tells a secret, 5 s for a server that does not answer.
pub fn examine(loaded: &Loaded, config: Option<&Path>, clock: &dyn Clock) -> Vec<Finding> {
    let settings = &loaded.settings;
    let place = config.map_or("defaults, environment and --set".to_owned(), |file| file.display().to_string());
    let mut findings = vec![Finding::good("configuration", format!("{place} is valid"))];
    let cautions = loaded.cautions().iter();
    findings
        .extend(cautions.map(|caution| Finding::warning("node in whose place", caution, "see to it before serving")));
    findings.extend(unused(loaded));
    findings.extend(secrets::examine(settings, config));
    findings.extend(safety(settings));
    findings.extend(machine::writable("state folder", "worker.state", &settings.worker.state));

    let (key, service_key) = examine_key(settings);
    let (network, known) = network(settings, service_key.as_ref(), clock.now());
    findings.extend(network);
    findings.extend(own_node_info(settings, clock.now()));
    let view = known.as_ref().map(|known| &*known.view);
    findings.extend(tls(settings));
    findings.extend(certificates(settings, clock.now()));
    let (store, running) = examine_store(settings);
    findings.extend(store);
    let unshared = view.and_then(|view| super::store::check_shared(settings, view).err());
    findings.extend(unshared.map(|error| Finding::fault("store: shared", error.reason, "give all workers one store")));
    findings.extend(examine_broker(settings, view, running));
    findings.extend(key);

    findings.extend(machine::examine(settings));
    findings.push(faults_survived(settings, known.map_or(0, |known| known.workers)));
    findings
}

/// The store's findings, and whether a worker is known to run on it.
fn examine_store(settings: &Settings) -> (Vec<Finding>, bool) {
    match settings.store.kind {
        StoreKind::Embedded => sql::embedded::examine(&settings.store.path),
        StoreKind::Postgres => (super::examine_database(settings).unwrap_or_default(), false),
    }
}

/// The broker's findings. `running` tells whether a worker is known to run here.
fn examine_broker(settings: &Settings, view: Option<&NetworkView>, running: bool) -> Vec<Finding> {
    // Whatever takes requests of nodes, the worker answers them itself.
    let answers = settings.broker.senders == Senders::Peers;
    let mut findings: Vec<_> = answers.then(|| super::broker::examine_identity(settings)).into_iter().collect();
    findings.extend(examine_requests(settings, view, running));
    findings
}

/// Where requests come from.
fn examine_requests(settings: &Settings, view: Option<&NetworkView>, running: bool) -> Vec<Finding> {
    match settings.broker.kind {
        BrokerKind::Embedded => {
            let mut findings = embedded::examine(settings.broker.listen, running);
            findings.extend(view.map(|view| callers(settings, view)));
            findings
        }
        BrokerKind::P2p => super::broker::examine_p2p(settings, running),
        BrokerKind::RabbitMq | BrokerKind::Artemis if settings.broker.management_user.is_empty() => {
            // An administrator's password need not lie on a worker's machine.
            let advice = "run `notary broker check` where broker.management_user is set";
            vec![Finding::warning("broker", "not examined here: no administrator is named", advice)]
        }
        BrokerKind::RabbitMq | BrokerKind::Artemis => {
            let view = view.cloned().unwrap_or_default();
            match super::broker::administrator(settings, &view, super::Declared::default()) {
                Ok(administrator) => administrator.examine(),
                Err(error) => vec![Finding::fault("broker", error, "correct the settings of the section broker")],
            }
        }
    }
}

/// The service key's findings, and its public half if it works.
fn examine_key(settings: &Settings) -> (Vec<Finding>, Option<PublicKey>) {
    let signing = &settings.signing;
    match signing.kind {
        SignerKind::File => held(settings, &signing.key),
        SignerKind::KeyStore => held(settings, &signing.keystore),
        SignerKind::Pkcs11 => examine_tokens(settings),
    }
}

/// A key that the worker holds itself.
fn held(settings: &Settings, place: &Path) -> (Vec<Finding>, Option<PublicKey>) {
    match super::service_key_in_memory(settings) {
        Ok(Some(key)) => file_key::examine(&key, &place.display().to_string()),
        Ok(None) => (Vec::new(), None),
        Err(error) => {
            let advice = "correct signing.passphrase and the place of the key, close its file to others (chmod 600), or restore it";
            (vec![Finding::fault("key: file", error.reason, advice)], None)
        }
    }
}

fn examine_tokens(settings: &Settings) -> (Vec<Finding>, Option<PublicKey>) {
    let options = match super::token_options(settings) {
        Ok(options) => options,
        Err(faults) => {
            let finding = |fault: Fault| Finding::fault(fault.key, fault.problem, "correct the configuration");
            return (faults.into_iter().map(finding).collect(), None);
        }
    };
    let runtime = match super::runtime(1) {
        Ok(runtime) => runtime,
        Err(error) => return (vec![Finding::fault("key: tokens", error, "see the system's limit on threads")], None),
    };
    runtime.block_on(async {
        let findings = pkcs11::examine(&options, runtime.handle()).await;
        // A PIN that was found wrong is not tried again, and a key that does not work has nothing to say.
        let key = match worst(&findings) {
            Some(Severity::Fault) => None,
            _ => TokenKey::open(options, runtime.handle()).await.ok(),
        };
        (findings, key.map(|key| key.public_key().clone()))
    })
}

/// Who may connect to the embedded endpoint.
fn callers(settings: &Settings, view: &NetworkView) -> Finding {
    let subject = "broker: users";
    match super::broker::preflight(settings, view).into_iter().next() {
        None => Finding::good(subject, format!("{} can be read", settings.broker.users.display())),
        Some(fault) => Finding::fault(subject, fault.problem, "correct broker.users, or the file"),
    }
}

/// Settings that somebody made and that do nothing: another kind was chosen, perhaps by mistake.
fn unused(loaded: &Loaded) -> Vec<Finding> {
    let (broker, store, signing) =
        (loaded.settings.broker.kind, loaded.settings.store.kind, loaded.settings.signing.kind);
    let of_shared_brokers = ["hosts", "vhost", "user", "password", "tls_ca", "tls_certificate", "tls_key", "callers"];
    let of_postgres = ["url", "password", "tls_ca", "tls_certificate", "tls_key"];
    let of_tokens = ["module", "tokens", "pin", "profile"];
    let nodes = loaded.settings.speaks_to_nodes();
    let (tls, own) = (loaded.settings.p2p.tls_kind, loaded.settings.identity.kind);
    let sections: [(&str, bool, &[&str]); 20] = [
        ("p2p", broker == BrokerKind::P2p, &["listen"]),
        ("p2p", nodes, &["tls_kind", "answer_hold_ms"]),
        ("p2p", nodes && tls != KeyKind::Pkcs11, &["tls_passphrase"]),
        ("p2p", nodes && tls != KeyKind::KeyStore, &["tls_certificate"]),
        ("p2p", nodes && tls == KeyKind::File, &["tls_key"]),
        ("p2p", nodes && tls == KeyKind::KeyStore, &["tls_keystore", "tls_alias", "tls_key_passphrase"]),
        ("p2p", nodes && tls == KeyKind::Pkcs11, &["tls_key_label", "tls_key_id"]),
        ("identity", own != KeyKind::KeyStore, &["certificate"]),
        ("identity", own == KeyKind::File, &["key"]),
        ("identity", own == KeyKind::KeyStore, &["keystore", "alias", "key_passphrase"]),
        ("identity", own == KeyKind::Pkcs11, &["key_label", "key_id"]),
        ("broker", broker.is_shared(), &of_shared_brokers),
        ("broker", broker == BrokerKind::Embedded, &["listen", "users", "reply_hold_ms"]),
        ("store", store == StoreKind::Postgres, &of_postgres),
        ("store", store == StoreKind::Embedded, &["path", "cache_bytes_max"]),
        ("signing", loaded.settings.needs_tokens(), &of_tokens),
        ("signing", signing == SignerKind::Pkcs11, &["key_label", "key_id"]),
        ("signing", signing == SignerKind::File, &["key"]),
        ("signing", signing == SignerKind::KeyStore, &["keystore", "alias", "key_passphrase"]),
        ("signing", signing != SignerKind::Pkcs11, &["passphrase"]),
    ];
    let idle = sections.into_iter().filter(|(_, used, _)| !used);
    let keys = idle.flat_map(|(section, _, keys)| keys.iter().map(move |key| format!("{section}.{key}")));
    let set = keys.filter(|key| loaded.origin(key) != "default");
    set.map(|key| {
        let kind = match key.split('.').next().unwrap_or_default() {
            "p2p" if nodes => "p2p.tls_kind",
            "p2p" => "broker.kind",
            "broker" => "broker.kind",
            "store" => "store.kind",
            "identity" => "identity.kind",
            _ => "signing.kind",
        };
        let advice = format!("remove it, or choose another {kind}");
        Finding::warning(&key, format!("is set by {}, and not used", loaded.origin(&key)), advice)
    })
    .collect()
}

/// Settings that are for tests.
fn safety(settings: &Settings) -> Vec<Finding> {
    let subject = "store.unsafe_for_tests";
    match settings.store.unsafe_for_tests {
        true => {
            let advice = "remove it, and make the database's settings durable: `notary db check` names them";
            vec![Finding::fault(subject, "on: commits that were answered for may be lost", advice)]
        }
        false => vec![Finding::good(subject, "off")],
    }
}

/// What the network material tells other checks.
struct Known {
    view: Arc<NetworkView>,
    /// Nodes that share the service's identity.
    workers: usize,
}

/// The network material verifies, lists the service, and lasts.
fn network(settings: &Settings, service_key: Option<&PublicKey>, now: Timestamp) -> (Vec<Finding>, Option<Known>) {
    let library = match load_network(settings) {
        Ok(map) => map,
        Err(error) => {
            let advice = "correct network.dir, or fetch the material again from the network's operator";
            return (vec![Finding::fault("network: material", error, advice)], None);
        }
    };
    let view = Arc::clone(library.view());
    let (parties, parameters) = (view.parties.len(), view.parameters.by_hash.len());
    let found = format!("{parties} parties and {parameters} network parameters verify up to the root");
    let mut findings = vec![Finding::good("network: material", found)];
    findings.extend(library.problems().iter().map(|problem| {
        let advice = "fetch the file again, or remove it: its node cannot use this notary";
        Finding::warning("network: material", format!("{} is left out: {}", problem.file, problem.error), advice)
    }));
    findings.push(listed(settings, service_key, &view));
    let nodes = library.nodes().iter().map(|node| (node.valid_until, node.own().name.to_string()));
    let network = in_use(settings).into_iter().filter(of_the_network);
    let network = network.filter_map(|InUse { file, at, .. }| Some((at?, file.display().to_string())));
    findings.extend(nodes.chain(network).min().map(|(at, name)| expiry("network: certificates", &name, at, now)));
    let is_service = |key: &PublicKey| Some(key) == service_key;
    let shares = |node: &&Node| node.identities.iter().any(|identity| is_service(&identity.party.owning_key));
    let workers = library.nodes().iter().filter(shares).count();
    (findings, Some(Known { view, workers }))
}

/// What the worker publishes of itself is right, and lasts.
fn own_node_info(settings: &Settings, now: Timestamp) -> Vec<Finding> {
    let mut findings = publication::examine(settings, now);
    findings.extend(credentials::identity(settings).map(|place| own_key(&place)));
    findings
}

/// A key of the worker's besides the service key: its file is closed to others, or tokens hold it.
fn own_key(place: &Place<'_>) -> Finding {
    let setting = place.key_setting();
    match place {
        Place::Files { key, .. } => secrets::private(setting, key.1),
        Place::KeyStore(_) => secrets::sealed(setting, place.certificates()),
        Place::Tokens(_) => on_tokens(place, setting),
    }
}

/// A key on the tokens is that of its certificate, which a signature proves.
fn on_tokens(place: &Place<'_>, setting: &'static str) -> Finding {
    let opened = || -> Result<_, StartError> {
        let Opened { key, chain } = place.open()?;
        let Key::OnTokens(options) = key else { return Ok(None) };
        let runtime = super::runtime(1).map_err(|error| StartError::of(setting)(&error))?;
        // Opening has every token sign, and verifies it.
        let key = runtime.block_on(credentials::open_tls_key(setting, *options, runtime.handle()))?;
        Ok(Some((key.public_key().clone(), key.health(), chain)))
    };
    let advice =
        "correct the settings of the key and of section signing; `notary keys list` tells what is on the tokens";
    match opened() {
        Err(error) => Finding::fault(setting, error.reason, advice),
        Ok(None) => Finding::good(setting, "not on a token"),
        Ok(Some((key, _, chain))) if credentials::certified_key(&chain).as_ref() != Some(&key) => {
            let found = format!("the tokens hold {key:?}, and {} certifies another", place.certificates().display());
            Finding::fault(setting, found, "name the key of the certificate, or have the certificate issued again")
        }
        Ok(Some((_, health, _))) => {
            let problems: Vec<String> = health.iter().filter_map(|(_, problem)| problem.clone()).collect();
            match problems.is_empty() {
                true => {
                    Finding::good(setting, format!("a signature of {} token(s) fits the certificate", health.len()))
                }
                false => Finding::warning(setting, problems.join("; "), "see to these tokens; another one signs"),
            }
        }
    }
}

/// The service is on the whitelist in force, as non-validating, with our key.
fn listed(settings: &Settings, service_key: Option<&PublicKey>, view: &NetworkView) -> Finding {
    let subject = "network: service";
    let name = &settings.service.name;
    let advice = "the network's operator must list the service, with this key, as non-validating, in new parameters";
    let Some(key) = service_key else {
        let advice = "make the key work first, as said below";
        return Finding::warning(subject, "whether the key is listed is unknown: it cannot be read", advice);
    };
    match check_listed(key, view) {
        Err(error) => Finding::fault(subject, error, advice),
        Ok(()) => {
            let notaries = view.parameters.current().map_or(&[][..], |parameters| &parameters.notaries);
            let identity = notaries.iter().map(|notary| &notary.identity).find(|identity| identity.owning_key == *key);
            match identity.map(|identity| identity.name.to_string()) {
                Some(listed) if !is_same_name(&listed, name) => {
                    let advice = "correct service.name, or check that signing.key is this service's";
                    Finding::fault(subject, format!("the key is listed for {listed}, not for {name}"), advice)
                }
                _ => Finding::good(subject, format!("{name} is listed with the service key, as non-validating")),
            }
        }
    }
}

fn is_same_name(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(|name| crate::domain::X500Name::parse(name).ok());
    a.is_some() && a == b
}

/// Whether a certificate is a part of the network's material.
fn of_the_network(certificate: &InUse) -> bool {
    certificate.usage.starts_with("network_")
}

/// How long the worker's own certificates last, and those of servers' authorities.
fn certificates(settings: &Settings, now: Timestamp) -> Vec<Finding> {
    let own = in_use(settings).into_iter().filter(|certificate| !of_the_network(certificate));
    let told = own.filter_map(|InUse { usage, file, at }| {
        Some(expiry(&format!("certificate: {usage}"), &file.display().to_string(), at?, now))
    });
    told.collect()
}

/// The files for TLS fit together.
fn tls(settings: &Settings) -> Vec<Finding> {
    let (broker, store) = (&settings.broker, &settings.store);
    let mut findings = Vec::new();
    if settings.speaks_to_nodes() {
        findings.push(own_key(&credentials::tls(settings)));
    }
    if settings.signing.kind == SignerKind::KeyStore {
        findings.push(secrets::sealed("signing.keystore", &settings.signing.keystore));
    }
    for (used, part, authorities, certificate, key) in [
        (broker.kind.is_shared(), "broker", &broker.tls_ca, &broker.tls_certificate, &broker.tls_key),
        (store.kind != StoreKind::Embedded, "store", &store.tls_ca, &store.tls_certificate, &store.tls_key),
    ] {
        let subject = format!("{part}: TLS");
        let Some(files) = crate::tls::TlsFiles::configured(authorities, certificate, key).filter(|_| used) else {
            continue;
        };
        match files.client() {
            Ok(_) => findings.push(Finding::good(&subject, "certificates and key load and fit together")),
            Err(error) => findings.push(Finding::fault(&subject, error, format!("correct {part}.tls_*, or the file"))),
        }
        if !key.as_os_str().is_empty() {
            findings.push(secrets::private(&format!("{part}.tls_key"), key));
        }
    }
    findings
}

/// How long the certificates called `name` last.
fn expiry(subject: &str, name: &str, at: Timestamp, now: Timestamp) -> Finding {
    let days = days_left(at, now);
    match days {
        ..0 => Finding::fault(subject, format!("{name} ended at {at}"), "renew it"),
        0..CERTIFICATE_DAYS_MIN => {
            Finding::warning(subject, format!("{name} ends in {days} days, at {at}"), "have it renewed now")
        }
        _ => Finding::good(subject, format!("the first to end is {name}, in {days} days")),
    }
}

/// How many workers and database servers may fail, as far as the configuration and the network map tell (row OV6).
fn faults_survived(settings: &Settings, workers: usize) -> Finding {
    let count = |list: &str| list.split(',').filter(|part| !part.trim().is_empty()).count();
    let subject = "faults survived";
    let workers = match (settings.store.kind, settings.broker.kind) {
        (StoreKind::Embedded, _) | (_, BrokerKind::Embedded) => {
            "workers: 0, as this one has store or endpoint for itself; it serves again when it is started again"
                .to_owned()
        }
        _ => format!("workers: {} of the {workers} in the network map, if all of them run", workers.saturating_sub(1)),
    };
    let databases = match settings.store.kind {
        StoreKind::Embedded => "databases: 0, as the store is one file on one disk".to_owned(),
        StoreKind::Postgres => {
            // The host part only; the rest has been validated.
            let url = settings.store.url.rsplit_once('@').map_or("", |(_, rest)| rest);
            let hosts = count(url.split('/').next().unwrap_or_default());
            // A commit is on a majority: that many may go without losing one or stopping.
            format!("databases: {} of the {hosts} named, if commits wait for a majority", hosts.saturating_sub(1) / 2)
        }
    };
    let brokers = match settings.broker.kind {
        BrokerKind::Embedded | BrokerKind::P2p => String::new(),
        BrokerKind::RabbitMq => {
            let hosts = count(&settings.broker.hosts);
            format!("; brokers: {} of the {hosts} named, with quorum queues", hosts.saturating_sub(1) / 2)
        }
        BrokerKind::Artemis => {
            let hosts = count(&settings.broker.hosts);
            format!("; brokers: {} of the {hosts} named, if they replicate", hosts.saturating_sub(1))
        }
    };
    let tokens = match settings.needs_tokens() {
        false => String::new(),
        true => format!("; tokens: {}", count(&settings.signing.tokens).saturating_sub(1)),
    };
    Finding::good(subject, format!("{workers}; {databases}{brokers}{tokens}"))
}

/// The worst of them, if there are any.
pub fn worst(findings: &[Finding]) -> Option<Severity> {
    findings.iter().map(|finding| finding.severity).max()
}

#[cfg(test)]
mod tests {
    use super::super::certificates::DAY_SECONDS;
    use super::*;
    use crate::config;

    #[test]
    fn certificates_are_called_for_a_month_before_they_end() {
        let now = Timestamp::new(1_790_000_000, 0).expect("in range");
        let ends_in = |seconds: i64| {
            let at = Timestamp::new(now.seconds() + seconds, 0).expect("in range");
            expiry("certificates", "node.pem", at, now).severity
        };
        for (seconds, expected) in [
            (-1, Severity::Fault),
            (0, Severity::Warning),
            (30 * DAY_SECONDS - 1, Severity::Warning),
            (30 * DAY_SECONDS, Severity::Good),
        ] {
            assert_eq!(ends_in(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn what_is_set_and_not_used_is_named() {
        let load = |overrides: &[&str]| {
            let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
            unused(&config::load(None, &overrides).expect("valid"))
        };
        assert_eq!(load(&["broker.listen=127.0.0.1:1"]), []);
        let found = load(&["broker.hosts=localhost:5672", "store.url=postgresql://u@localhost:1/n"]);
        let subjects: Vec<_> = found.iter().map(|finding| finding.subject.as_str()).collect();
        assert_eq!(subjects, ["broker.hosts", "store.url"]);
    }

    #[test]
    fn the_faults_that_a_set_up_survives_are_counted() {
        let count = |workers: usize, overrides: &[&str]| {
            let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
            faults_survived(&config::load(None, &overrides).expect("valid").settings, workers).found
        };
        assert!(count(3, &[]).starts_with("workers: 0"), "a store of its own keeps other workers out");
        let shared = count(
            3,
            &[
                "broker.kind=rabbitmq",
                "broker.hosts=localhost:1,localhost:2,localhost:3",
                "broker.user=u",
                "broker.password=file:p",
                "store.kind=postgres",
                "store.url=postgresql://u@localhost:1,localhost:2,localhost:3,localhost:4,localhost:5/notary",
                "signing.kind=pkcs11",
                "signing.module=m.so",
                "signing.tokens=a,b",
                "signing.pin=file:p",
            ],
        );
        for part in ["workers: 2 of the 3", "databases: 2 of the 5", "brokers: 1 of the 3", "tokens: 1"] {
            assert!(shared.contains(part), "{part} in {shared}");
        }
    }
}
