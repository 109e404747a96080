//! Where the database is: a URL without secrets, and TLS.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::tls::TlsFiles;

/// Silence after which the connection is asked for a sign of life, how often it is asked, and after how many unanswered
/// questions, or how long without an acknowledgement, it counts as lost: a dead peer is noticed within 10 seconds.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(4);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Hosts of one URL: a failover cluster has three or five members.
const HOSTS_MAX: usize = 16;

/// Names that sessions give themselves are cut by the server after so many bytes.
const APPLICATION_NAME_BYTES_MAX: usize = 63;

/// Why a URL is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct PlaceError(String);

/// A database and a user of it, on one or several hosts.
#[derive(Clone)]
pub struct Place {
    user: String,
    database: String,
    hosts: Vec<(String, u16)>,
    tls: Option<MakeRustlsConnect>,
}

impl Place {
    /// Reads `postgresql://USER@HOST:PORT,HOST:PORT/DATABASE`. Without `tls` only loopback addresses are allowed.
    ///
    /// # Errors
    /// [`PlaceError`], which never repeats a password.
    pub fn parse(url: &str, tls: Option<&TlsFiles>) -> Result<Self, PlaceError> {
        let refused = |why: &str| PlaceError(why.to_owned());
        if !url.starts_with("postgresql://") && !url.starts_with("postgres://") {
            return Err(refused("give it as postgresql://USER@HOST:PORT/DATABASE"));
        }
        if url.contains('?') {
            return Err(refused("a URL with parameters: everything else has a setting of its own"));
        }
        let parsed = tokio_postgres::Config::from_str(url).map_err(|_| refused("not a PostgreSQL URL"))?;
        if parsed.get_password().is_some() {
            return Err(refused("a password in the URL: give it by reference"));
        }
        let user = parsed.get_user().filter(|user| !user.is_empty()).ok_or_else(|| refused("no user in the URL"))?;
        let database =
            parsed.get_dbname().filter(|name| !name.is_empty()).ok_or_else(|| refused("no database in the URL"))?;
        let ports = parsed.get_ports();
        let mut hosts = Vec::new();
        for (n, host) in parsed.get_hosts().iter().enumerate() {
            let Host::Tcp(host) = host else { return Err(refused("a socket in the file system: give HOST:PORT")) };
            // As the driver reads it: no port, one for all, or one for each.
            hosts.push((host.clone(), ports.get(n).or(ports.first()).copied().unwrap_or(5432)));
        }
        if hosts.is_empty() || hosts.len() > HOSTS_MAX {
            return Err(PlaceError(format!("{} hosts; between 1 and {HOSTS_MAX} are possible", hosts.len())));
        }
        let tls = match tls {
            Some(files) => {
                let client = files.client().map_err(|error| PlaceError(error.to_string()))?;
                Some(MakeRustlsConnect::new(ClientConfig::clone(&client)))
            }
            None => match hosts.iter().find(|(host, _)| !is_loopback(host)) {
                Some((host, _)) => {
                    return Err(PlaceError(format!("{host} is not a loopback address, so it needs TLS (tls_ca)")));
                }
                None => None,
            },
        };
        Ok(Self { user: user.to_owned(), database: database.to_owned(), hosts, tls })
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// For TLS, if it is to be used.
    pub(super) fn tls(&self) -> Option<&MakeRustlsConnect> {
        self.tls.as_ref()
    }

    /// One configuration for each host, in the URL's order, so that each gets a deadline of its own. Only a host that takes writes
    /// is good enough.
    pub(super) fn hosts(&self, application: &str, password: Option<&str>) -> Vec<(String, tokio_postgres::Config)> {
        let one = |(host, port): &(String, u16)| {
            let mut config = tokio_postgres::Config::new();
            config.host(host).port(*port).user(&self.user).dbname(&self.database);
            config.application_name(shortened(application));
            config.ssl_mode(if self.tls.is_some() { SslMode::Require } else { SslMode::Disable });
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            config.keepalives(true).keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_INTERVAL);
            config.keepalives_retries(KEEPALIVE_RETRIES).tcp_user_timeout(UNACKNOWLEDGED_MAX);
            if let Some(password) = password {
                config.password(password);
            }
            (format!("{host}:{port}"), config)
        };
        self.hosts.iter().map(one).collect()
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        write!(f, "postgresql://{}@{}/{}", self.user, hosts.join(","), self.database)
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn shortened(name: &str) -> &str {
    let mut end = name.len().min(APPLICATION_NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_hosts_are_tried_in_order_each_with_its_port() {
        let place =
            Place::parse("postgresql://notary@127.0.0.1:5433,localhost:5434,[::1]:5435/ledger", None).expect("good");
        let hosts: Vec<String> = place.hosts("test", None).into_iter().map(|(host, _)| host).collect();
        assert_eq!(hosts, ["127.0.0.1:5433", "localhost:5434", "::1:5435"]);
        assert_eq!((place.user(), place.database()), ("notary", "ledger"));
    }

    #[test]
    fn a_url_holds_no_password_no_parameters_and_names_user_and_database() {
        for (url, why) in [
            ("postgresql://notary:geheim@127.0.0.1/ledger", "password"),
            ("postgresql://notary@127.0.0.1/ledger?sslmode=disable", "parameters"),
            ("postgresql://127.0.0.1/ledger", "no user"),
            ("postgresql://notary@127.0.0.1", "no database"),
            ("postgresql://notary@%2Fvar%2Frun/ledger", "socket"),
            ("host=127.0.0.1 user=notary", "postgresql://"),
            ("", "postgresql://"),
            ("postgresql://notary@db.example.net/ledger", "TLS"),
            ("postgresql://notary@127.0.0.1,192.0.2.1/ledger", "192.0.2.1"),
        ] {
            let error = Place::parse(url, None).expect_err(url).to_string();
            assert!(error.contains(why), "{url}: {error}");
            assert!(!error.contains("geheim"), "{error}");
        }
    }

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(shortened("Zürich"), "Zürich");
        let long = "ü".repeat(40);
        assert_eq!(shortened(&long).len(), 62);
    }
}
