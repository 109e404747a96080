//! Connections to Artemis: where, as whom, secured how.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::broker::amqp::connection::{AmqpError, ConnectOptions, Connection, Login};
use crate::tls::TlsFiles;

/// The port where no other is given: Artemis's acceptor for all protocols; with TLS, AMQP's own.
const PORT: u16 = 61_616;
const TLS_PORT: u16 = 5_671;

/// Fetches a password; asked at every attempt to connect, so that a changed password needs no restart (F33). May block.
pub type Password = Arc<dyn Fn() -> Result<Zeroizing<String>, String> + Send + Sync>;

/// How to reach a broker, and as whom.
#[derive(Clone)]
pub struct Access {
    /// `HOST` or `HOST:PORT`, each tried in turn.
    pub hosts: Vec<String>,
    /// The broker user; empty if the client certificate names it (SASL EXTERNAL).
    pub user: String,
    /// Its password; not asked for without a user.
    pub password: Password,
    /// Certificates, read at every attempt to connect (F38). Without them only loopback hosts are allowed.
    pub tls: Option<TlsFiles>,
    /// How long the broker may be silent before the connection counts as lost; also the deadline of every step of connecting.
    pub silence_max: Duration,
    /// What the broker calls the connection.
    pub name: String,
}

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{host}: {problem}")]
pub struct ConnectError {
    /// Which host.
    pub host: String,
    /// What went wrong, for people.
    pub problem: String,
}

impl Access {
    /// What is wrong with it, if anything, without connecting.
    ///
    /// # Errors
    /// In one line.
    pub fn check(&self) -> Result<(), String> {
        if self.hosts.is_empty() {
            return Err("no host is named".into());
        }
        for host in &self.hosts {
            let (name, _) = split(host, PORT)?;
            if self.tls.is_none() && !is_loopback(name) {
                return Err(format!(
                    "{host} is not this machine: without TLS (tls_ca) only loopback addresses are allowed"
                ));
            }
        }
        let certificate = self.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
        if self.user.is_empty() && !certificate {
            return Err("neither a user nor a client certificate (tls_certificate) is given".into());
        }
        Ok(())
    }

    /// Connects to one host; every step has the deadline. `frames_max` bounds what is held of messages, see [`ConnectOptions`].
    pub(super) async fn connect(
        &self,
        host: &str,
        frames_max: u32,
        runtime: &Handle,
    ) -> Result<Connection, ConnectError> {
        let failed = |problem: String| ConnectError { host: host.to_owned(), problem };
        self.check().map_err(failed)?;
        let (name, port) = split(host, if self.tls.is_some() { TLS_PORT } else { PORT }).map_err(failed)?;
        let tls = self.tls.as_ref().map(TlsFiles::client).transpose().map_err(|error| failed(error.to_string()))?;
        let login = match self.user.is_empty() {
            true => Login::External,
            false => {
                // It may be told by a file or a command.
                let password = Arc::clone(&self.password);
                let asked =
                    runtime.spawn_blocking(move || password()).await.map_err(|error| failed(error.to_string()))?;
                let password = asked.map_err(|error| failed(format!("the password of {}: {error}", self.user)))?;
                Login::Plain { user: self.user.clone(), password }
            }
        };
        let options = ConnectOptions {
            host: name.to_owned(),
            port,
            tls,
            login,
            container_id: self.name.clone(),
            silence_max: self.silence_max,
            step_max: self.silence_max,
            frames_max,
        };
        Connection::open(&options, runtime).await.map_err(|error| failed(explain(&error)))
    }

    /// Connects to the first host that lets us.
    pub(super) async fn connect_any(&self, frames_max: u32, runtime: &Handle) -> Result<Connection, ConnectError> {
        let mut last = ConnectError { host: String::new(), problem: "no host is named".into() };
        for host in &self.hosts {
            match self.connect(host, frames_max, runtime).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// An error as a line for people: brokers describe errors in texts of their own making.
pub(super) fn explain(error: &AmqpError) -> String {
    crate::broker::printable(&error.to_string(), 512)
}

/// `HOST:PORT`, `[IPV6]:PORT`, or either without a port.
fn split(host: &str, default: u16) -> Result<(&str, u16), String> {
    let fault = || format!("{host:?} is not HOST or HOST:PORT");
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && !port.contains(']') => (name, port.parse().map_err(|_| fault())?),
        Some((_, "")) => return Err(fault()),
        _ => (host, default),
    };
    let bare = name.strip_prefix('[').map_or(Some(name), |name| name.strip_suffix(']')).ok_or_else(fault)?;
    match bare.is_empty() || (bare == name && name.contains(':')) {
        true => Err(fault()),
        false => Ok((bare, port)),
    }
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(hosts: &[&str], tls: bool, user: &str) -> Access {
        let tls = tls.then(|| TlsFiles { authorities: "ca.pem".into(), identity: None });
        Access {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            user: user.into(),
            password: Arc::new(|| Ok(Zeroizing::default())),
            tls,
            silence_max: Duration::from_secs(1),
            name: "test".into(),
        }
    }

    #[test]
    fn hosts_are_read_with_and_without_ports() {
        for (host, expected) in [
            ("a", Some(("a", 1))),
            ("a:5", Some(("a", 5))),
            ("[::1]:5", Some(("::1", 5))),
            ("[::1]", Some(("::1", 1))),
            ("::1", None),
            ("a:", None),
            ("a:x", None),
            ("", None),
            (":5", None),
            ("a:70000", None),
        ] {
            assert_eq!(split(host, 1).ok(), expected, "{host}");
        }
    }

    #[test]
    fn without_tls_only_this_machine_is_trusted() {
        for host in ["127.0.0.1:1", "localhost", "[::1]:1"] {
            assert_eq!(access(&[host], false, "u").check(), Ok(()), "{host}");
        }
        assert!(access(&["127.0.0.1", "broker.example"], false, "u").check().is_err());
        assert!(access(&["broker.example"], true, "u").check().is_ok());
        assert!(access(&["127.0.0.1"], false, "").check().is_err(), "nobody");
        assert!(access(&[], false, "u").check().is_err());
    }
}
