//! What no single bound can say: settings that need each other, or exclude each other. Each fault says what would be right, and
//! none repeats a value that may hold a secret.

use super::{BrokerKind, Fault, KeyKind, Senders, Settings, SignerKind, StoreKind};
use crate::domain::X500Name;

/// All faults of settings that are each within their bounds.
pub(super) fn validate(settings: &Settings) -> Vec<Fault> {
    let mut faults = Faulty(Vec::new());
    names(settings, &mut faults);
    listeners(settings, &mut faults);
    pauses(settings, &mut faults);
    network_map(settings, &mut faults);
    identity(settings, &mut faults);
    match settings.broker.kind {
        BrokerKind::Embedded => {}
        BrokerKind::P2p => nodes(settings, &mut faults),
        BrokerKind::RabbitMq | BrokerKind::Artemis => shared_broker(settings, &mut faults),
    }
    if settings.speaks_to_nodes() {
        tls_identity(settings, &mut faults);
    }
    let alone = settings.broker.senders == Senders::Users || settings.broker.kind == BrokerKind::Artemis;
    faults.check(alone, "broker.senders", || "peers send to an Artemis broker only: set broker.kind to artemis".into());
    match settings.store.kind {
        StoreKind::Embedded => {}
        StoreKind::Postgres => database(settings, &mut faults),
    }
    match settings.signing.kind {
        SignerKind::File => faults.check(settings.signing.passphrase.is_configured(), "signing.passphrase", || {
            "the key file has no passphrase: give file:PATH, env:NAME, exec:COMMAND or credential:NAME".into()
        }),
        SignerKind::KeyStore => key_store(settings, &mut faults),
        SignerKind::Pkcs11 => {
            let signing = &settings.signing;
            let keys = ["signing.key_label", "signing.key_id"];
            key_on_tokens("service", keys, &signing.key_label, &signing.key_id, &mut faults);
        }
    }
    if settings.needs_tokens() {
        tokens(settings, &mut faults);
    }
    faults.0
}

struct Faulty(Vec<Fault>);

impl Faulty {
    fn add(&mut self, key: &str, problem: String) {
        self.0.push(Fault { key: key.into(), problem });
    }

    fn check(&mut self, right: bool, key: &str, problem: impl FnOnce() -> String) {
        if !right {
            self.add(key, problem());
        }
    }
}

fn names(settings: &Settings, faults: &mut Faulty) {
    let mut parsed = Vec::new();
    for (key, name) in [("worker.name", &settings.worker.name), ("service.name", &settings.service.name)] {
        match X500Name::parse(name) {
            Ok(name) => parsed.push(name),
            Err(error) => faults.add(key, format!("{name:?} is no legal name: {error}")),
        }
    }
    faults.check(parsed.len() < 2 || parsed[0] != parsed[1], "worker.name", || {
        "a worker has a name of its own, another one than service.name, which all workers share".into()
    });
}

fn listeners(settings: &Settings, faults: &mut Faulty) {
    let (requests, figures) = (settings.broker.listen, settings.observe.listen);
    for (key, address) in [("broker.listen", requests), ("observe.listen", figures)] {
        faults.check(address.ip().is_loopback(), key, || {
            format!("{address} is not a loopback address, and this listener has no TLS: take 127.0.0.1 or [::1]")
        });
    }
    let both = settings.broker.kind == BrokerKind::Embedded && requests == figures && figures.port() != 0;
    faults.check(!both, "observe.listen", || format!("{figures} is broker.listen already: take another port"));
}

fn nodes(settings: &Settings, faults: &mut Faulty) {
    let (p2p, figures) = (&settings.p2p, settings.observe.listen);
    let same = p2p.listen.port() == figures.port()
        && figures.port() != 0
        && (p2p.listen.ip().is_unspecified() || p2p.listen.ip() == figures.ip());
    faults.check(!same, "observe.listen", || format!("{figures} is p2p.listen already: take another port"));
    for address in split(&p2p.addresses) {
        faults.check(host_and_port(address).is_some(), "p2p.addresses", || format!("{address:?} is not HOST:PORT"));
    }
}

/// The worker's TLS certificate.
fn tls_identity(settings: &Settings, faults: &mut Faulty) {
    let p2p = &settings.p2p;
    let named = |path: &std::path::Path| !path.as_os_str().is_empty();
    match p2p.tls_kind {
        KeyKind::File => {
            for (key, path) in [("p2p.tls_certificate", &p2p.tls_certificate), ("p2p.tls_key", &p2p.tls_key)] {
                faults.check(named(path), key, || {
                    "nodes speak TLS only: give the worker's TLS certificate chain and its key".into()
                });
            }
        }
        KeyKind::KeyStore => {
            faults.check(named(&p2p.tls_keystore), "p2p.tls_keystore", || {
                "nodes speak TLS only: name the key store (JKS or PKCS#12) with the worker's TLS certificate".into()
            });
            faults.check(!p2p.tls_alias.is_empty(), "p2p.tls_alias", || "name the TLS key in the key store".into());
            faults.check(p2p.tls_passphrase.is_configured(), "p2p.tls_passphrase", || {
                "the key store has no passphrase: give file:PATH, env:NAME, exec:COMMAND or credential:NAME".into()
            });
        }
        KeyKind::Pkcs11 => {
            faults.check(named(&p2p.tls_certificate), "p2p.tls_certificate", || {
                "nodes speak TLS only: give the chain of the worker's TLS certificate".into()
            });
            let keys = ["p2p.tls_key_label", "p2p.tls_key_id"];
            key_on_tokens("TLS", keys, &p2p.tls_key_label, &p2p.tls_key_id, faults);
        }
    }
}

fn pauses(settings: &Settings, faults: &mut Faulty) {
    let (uniqueness, signing) = (&settings.uniqueness, &settings.signing);
    for (key, base, cap) in [
        ("uniqueness.retry_cap_ms", uniqueness.retry_base_ms, uniqueness.retry_cap_ms),
        ("signing.retry_cap_ms", signing.retry_base_ms, signing.retry_cap_ms),
    ] {
        faults.check(base <= cap, key, || format!("{cap} is below the first pause, {base}: make it at least that"));
    }
}

/// All of what publishing needs, or nothing.
fn identity(settings: &Settings, faults: &mut Faulty) {
    let identity = &settings.identity;
    let named = |path: &std::path::Path| !path.as_os_str().is_empty();
    let own = match identity.kind {
        KeyKind::File => {
            vec![("identity.certificate", named(&identity.certificate)), ("identity.key", named(&identity.key))]
        }
        KeyKind::KeyStore => vec![("identity.keystore", named(&identity.keystore))],
        KeyKind::Pkcs11 => vec![("identity.certificate", named(&identity.certificate))],
    };
    let is_certified = named(&identity.service_certificate);
    let publishes = named(&settings.network.publish_dir) || is_certified;
    if !publishes && !own.iter().any(|(_, is_named)| *is_named) {
        return;
    }
    for (key, is_named) in own {
        faults.check(is_named, key, || "the worker's node info needs it: name the file".into());
    }
    if identity.kind == KeyKind::KeyStore {
        faults.check(!identity.alias.is_empty(), "identity.alias", || "name the worker's key in the key store".into());
        faults.check(identity.passphrase.is_configured(), "identity.passphrase", || {
            "the key store has no passphrase: give file:PATH, env:NAME, exec:COMMAND or credential:NAME".into()
        });
    }
    if identity.kind == KeyKind::Pkcs11 {
        let keys = ["identity.key_label", "identity.key_id"];
        key_on_tokens("worker's own", keys, &identity.key_label, &identity.key_id, faults);
    }
    let beside_its_key = settings.signing.kind == SignerKind::KeyStore;
    faults.check(is_certified || beside_its_key, "identity.service_certificate", || {
        "the worker's node info needs it: name the file".into()
    });
    faults.check(split(&settings.p2p.addresses).next().is_some(), "p2p.addresses", || {
        "the worker's node info needs it: name where nodes reach the worker, as HOST:PORT".into()
    });
}

fn network_map(settings: &Settings, faults: &mut Faulty) {
    let network = &settings.network;
    let key = "network.url";
    let shape = "give it as http(s)://HOST[:PORT][/PATH]";
    let authorities = !network.tls_ca.as_os_str().is_empty();
    if network.url.is_empty() {
        let problem = || "there is no network.url that it could vouch for: remove it".into();
        return faults.check(!authorities, "network.tls_ca", problem);
    }
    let (tls, rest) = match network.url.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return faults.add(key, shape.into()),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') || rest.contains(['?', '#']) {
        return faults.add(key, format!("it holds more than an address: {shape}"));
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    faults.check(host_and_port(&address).is_some(), key, || format!("{authority:?} is no HOST[:PORT]: {shape}"));
    faults.check(authorities || !tls, "network.tls_ca", || {
        "https needs to know who may vouch for the map: name a file of authorities (PEM), such as the system's".into()
    });
}

fn shared_broker(settings: &Settings, faults: &mut Faulty) {
    let broker = &settings.broker;
    hosts("broker.hosts", &broker.hosts, !broker.tls_ca.as_os_str().is_empty(), "broker.tls_ca", faults);
    let certificate = !broker.tls_certificate.as_os_str().is_empty();
    mutual_tls("broker", [&broker.tls_ca, &broker.tls_certificate, &broker.tls_key], faults);
    match (broker.user.is_empty(), broker.password.is_configured()) {
        (true, true) => faults.add("broker.user", "there is a password, but no user: name the broker user".into()),
        (true, false) => faults.check(certificate, "broker.user", || {
            "name the broker user, or give broker.tls_certificate for SASL EXTERNAL".into()
        }),
        (false, password) => faults.check(password || certificate, "broker.password", || {
            "the broker user has no password: give file:PATH, env:NAME, exec:COMMAND or credential:NAME".into()
        }),
    }
    let usual = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    faults.check(!broker.prefix.is_empty() && broker.prefix.chars().all(usual), "broker.prefix", || {
        format!("{:?} does not begin a queue's name: take letters, digits, dots, dashes, underscores", broker.prefix)
    });
    if broker.kind == BrokerKind::RabbitMq {
        faults.check(!broker.vhost.is_empty(), "broker.vhost", || "name the virtual host; the usual one is /".into());
        management(settings, faults);
    }
}

fn management(settings: &Settings, faults: &mut Faulty) {
    let broker = &settings.broker;
    if broker.management.is_empty() {
        return;
    }
    let key = "broker.management";
    let (tls, rest) = match broker.management.split_once("://") {
        Some(("https", rest)) => (true, rest),
        Some(("http", rest)) => (false, rest),
        _ => return faults.add(key, "give it as http://HOST:PORT or https://HOST:PORT".into()),
    };
    if rest.contains('@') {
        let problem = "it must not hold a user or a password: they are management_user and management_password";
        return faults.add(key, problem.into());
    }
    match host_and_port(rest.trim_end_matches('/')) {
        None => faults.add(key, "give it as http://HOST:PORT or https://HOST:PORT".into()),
        Some((host, _)) => faults.check(tls || is_loopback(host), key, || {
            format!("{host} is not this machine: the administrator's password needs https://")
        }),
    }
    let named = !broker.management_user.is_empty() && broker.management_password.is_configured();
    faults.check(named, "broker.management_user", || {
        "name the administrator, and give management_password by reference".into()
    });
}

fn database(settings: &Settings, faults: &mut Faulty) {
    let store = &settings.store;
    mutual_tls("store", [&store.tls_ca, &store.tls_certificate, &store.tls_key], faults);
    let needed = settings.uniqueness.commits_in_flight_max + 1;
    faults.check(store.connections_max >= needed, "store.connections_max", || {
        format!(
            "{} are too few for uniqueness.commits_in_flight_max and one more: make it {needed}",
            store.connections_max
        )
    });
    let key = "store.url";
    let shape = "give it as postgresql://USER@HOST:PORT,HOST:PORT/DATABASE";
    // The address is not repeated in any of these: it may hold a password after all.
    let rest = store.url.strip_prefix("postgresql://").or_else(|| store.url.strip_prefix("postgres://"));
    let Some(rest) = rest else {
        let problem = if store.url.is_empty() { "names no database" } else { "is no address of PostgreSQL" };
        return faults.add(key, format!("{problem}: {shape}"));
    };
    // Before the last @ of all, whatever stands between: a password may hold any sign.
    let password = rest.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'));
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    if password || options.split('&').any(|option| option.starts_with("password=")) {
        return faults.add(key, "it holds a password: take it out, and give store.password by reference".into());
    }
    let (authority, name) = rest.split_once('/').unwrap_or((rest, ""));
    let Some((_, all)) = authority.split_once('@').filter(|(user, _)| !user.is_empty()) else {
        return faults.add(key, format!("names no user: {shape}"));
    };
    faults.check(!name.is_empty(), key, || format!("names no database: {shape}"));
    hosts(key, all, !store.tls_ca.as_os_str().is_empty(), "store.tls_ca", faults);
    let elsewhere = split(all).any(|host| host_and_port(host).is_some_and(|(host, _)| !is_loopback(host)));
    faults.check(!(store.unsafe_for_tests && elsewhere), "store.unsafe_for_tests", || {
        "is for a database on this machine only: remove it, and make the database's settings durable".into()
    });
}

fn key_store(settings: &Settings, faults: &mut Faulty) {
    let signing = &settings.signing;
    faults.check(!signing.keystore.as_os_str().is_empty(), "signing.keystore", || {
        "name the key store (JKS or PKCS#12) with the service key".into()
    });
    faults.check(!signing.alias.is_empty(), "signing.alias", || "name the service key in the key store".into());
    faults.check(signing.passphrase.is_configured(), "signing.passphrase", || {
        "the key store has no passphrase: give file:PATH, env:NAME, exec:COMMAND or credential:NAME".into()
    });
}

fn tokens(settings: &Settings, faults: &mut Faulty) {
    let signing = &settings.signing;
    faults.check(!signing.module.as_os_str().is_empty(), "signing.module", || {
        "name the vendor's PKCS#11 module, a shared library".into()
    });
    faults.check(split(&signing.tokens).next().is_some(), "signing.tokens", || {
        "name the tokens by label, separated by commas".into()
    });
    faults.check(signing.pin.is_configured(), "signing.pin", || {
        "the tokens have no PIN: give file:PATH, env:NAME, exec:COMMAND or credential:NAME".into()
    });
}

/// Where a key lies on the tokens.
fn key_on_tokens(whose: &str, [label_key, id_key]: [&str; 2], label: &str, id: &str, faults: &mut Faulty) {
    faults.check(!label.is_empty() || !id.is_empty(), label_key, || {
        format!("name the {whose} key by its label, its id ({id_key}), or both")
    });
    let hex = id.len().is_multiple_of(2) && id.chars().all(|c| c.is_ascii_hexdigit());
    faults.check(hex, id_key, || format!("{id:?} is not hex: two digits a byte"));
}

/// Authorities, our certificate, its key: the last two together or not at all, and not without the first.
fn mutual_tls(section: &str, [authorities, certificate, key]: [&std::path::PathBuf; 3], faults: &mut Faulty) {
    let [authorities, certificate, key] = [authorities, certificate, key].map(|path| !path.as_os_str().is_empty());
    let name = |key: &str| format!("{section}.{key}");
    faults.check(key || !certificate, &name("tls_key"), || "tls_certificate needs its private key".into());
    faults.check(certificate || !key, &name("tls_certificate"), || "tls_key needs its certificate".into());
    faults.check(authorities || !certificate, &name("tls_ca"), || {
        "a client certificate needs TLS: name the authorities that may vouch for the server".into()
    });
}

/// `HOST:PORT` at least once, and TLS for those that are not this machine.
fn hosts(key: &str, list: &str, tls: bool, tls_key: &str, faults: &mut Faulty) {
    faults.check(split(list).next().is_some(), key, || "names no host: give HOST:PORT, several by commas".into());
    for host in split(list) {
        match host_and_port(host) {
            // Not repeated: it may be a whole address, password included.
            None if host.contains('@') => {
                faults.add(key, "give HOST:PORT alone; users and passwords go elsewhere".into())
            }
            None => faults.add(key, format!("{host:?} is not HOST:PORT")),
            Some((name, _)) => faults.check(tls || is_loopback(name), key, || {
                format!("{name} is not this machine: it needs TLS, so set {tls_key}")
            }),
        }
    }
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    let plain = bare.is_some() || host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c));
    (plain && !host.is_empty()).then_some((host, port))
}

/// Names are not looked up: only this one means this machine everywhere.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_map_has_an_address_and_https_has_authorities() {
        let faults = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
            let loaded = crate::config::load(None, &overrides);
            loaded.err().map_or(Vec::new(), |faults| faults.0.into_iter().map(|fault| fault.key).collect())
        };
        for url in ["http://127.0.0.1:8080", "http://map.example/zone/1", "http://[::1]:80/", "http://[::1]"] {
            assert_eq!(faults(&[&format!("network.url={url}")]), Vec::<String>::new(), "{url}");
        }
        for url in [
            "map.example",
            "ftp://map.example",
            "http://",
            "http://a:b@map.example",
            "http://map.example/?x",
            "http://a:x",
        ] {
            assert_eq!(faults(&[&format!("network.url={url}")]), ["network.url"], "{url}");
        }
        assert_eq!(faults(&["network.url=https://map.example"]), ["network.tls_ca"]);
        assert_eq!(faults(&["network.url=https://map.example", "network.tls_ca=ca.pem"]), Vec::<String>::new());
        assert_eq!(faults(&["network.tls_ca=ca.pem"]), ["network.tls_ca"]);
    }

    /// HS10: whichever key is on the tokens, the tokens have to be named.
    #[test]
    fn keys_on_tokens_need_tokens_and_a_place_on_them() {
        let faults = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
            let loaded = crate::config::load(None, &overrides);
            loaded.err().map_or(Vec::new(), |faults| faults.0.into_iter().map(|fault| fault.key).collect())
        };
        let tokens = ["signing.module", "signing.tokens", "signing.pin"];
        let named = ["signing.module=m.so", "signing.tokens=a", "signing.pin=file:p"];
        let nodes = ["broker.kind=p2p", "p2p.tls_kind=pkcs11"];
        let artemis = ["broker.kind=artemis", "broker.hosts=localhost:1", "broker.user=u", "broker.password=file:p"];
        let peers = [&artemis[..], &["broker.senders=peers", "p2p.tls_kind=pkcs11"]].concat();
        let identity = [
            "identity.kind=pkcs11",
            "identity.certificate=own.pem",
            "identity.service_certificate=service.pem",
            "p2p.addresses=localhost:1",
        ];
        for on_tokens in [&nodes[..], &peers, &identity] {
            assert_eq!(faults(on_tokens), tokens, "{on_tokens:?}");
            assert_eq!(faults(&[on_tokens, &named].concat()), Vec::<String>::new(), "{on_tokens:?}");
        }
        assert_eq!(faults(&["p2p.tls_kind=pkcs11"]), Vec::<String>::new(), "nobody asks for TLS");
        let with = |key: &str, setting: &'static str| match key {
            "p2p" => faults(&[&nodes[..], &named, &[setting]].concat()),
            _ => faults(&[&identity[..], &named, &[setting]].concat()),
        };
        for (section, setting, fault) in [
            ("p2p", "p2p.tls_key_label=", "p2p.tls_key_label"),
            ("p2p", "p2p.tls_key_id=0g", "p2p.tls_key_id"),
            ("p2p", "p2p.tls_certificate=", "p2p.tls_certificate"),
            ("identity", "identity.key_label=", "identity.key_label"),
            ("identity", "identity.key_id=123", "identity.key_id"),
        ] {
            assert_eq!(with(section, setting), [fault]);
        }
    }

    #[test]
    fn hosts_have_a_name_and_a_port() {
        for (text, expected) in [
            ("localhost:5672", Some(("localhost", 5672))),
            ("[::1]:5672", Some(("::1", 5672))),
            ("db-1.example:1", Some(("db-1.example", 1))),
        ] {
            assert_eq!(host_and_port(text), expected, "{text}");
        }
        for text in ["", "localhost", ":5672", "a:0", "a:70000", "a b:1", "::1:5672", "user:secret@a:1"] {
            assert_eq!(host_and_port(text), None, "{text}");
        }
        assert!(is_loopback("127.9.9.9") && is_loopback("::1") && is_loopback("localhost"));
        assert!(!is_loopback("10.0.0.1") && !is_loopback("localhost.example"));
    }
}
