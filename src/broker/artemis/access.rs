//! Connections to Artemis: where, as whom, secured how.

use std::time::Duration;

use tokio::runtime::Handle;

use crate::broker::access::{self, ConnectError, Password};
use crate::broker::amqp::connection::{AmqpError, ConnectOptions, Connection, Login};
use crate::tls::TlsFiles;

/// The port where no other is given: Artemis's acceptor for all protocols; with TLS, AMQP's own.
const PORT: u16 = 61_616;
const TLS_PORT: u16 = 5_671;

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

impl Access {
    /// What is wrong with it, if anything, without connecting.
    ///
    /// # Errors
    /// In one line.
    pub fn check(&self) -> Result<(), String> {
        access::check(&self.hosts, &self.user, self.tls.as_ref())
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
        let (name, port) = access::split(host, if self.tls.is_some() { TLS_PORT } else { PORT }).map_err(failed)?;
        let tls = self.tls.as_ref().map(TlsFiles::client).transpose().map_err(|error| failed(error.to_string()))?;
        let login = match self.user.is_empty() {
            true => Login::External,
            false => {
                let password = access::fetch(&self.password, &self.user, runtime).await.map_err(failed)?;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zeroize::Zeroizing;

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
