//! What every broker on the network asks of a connection: hosts that may be spoken to, somebody to log in as, a password fetched
//! late. How to connect is each adapter's own.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::tls::TlsFiles;

/// Fetches a password; asked at every attempt to connect, so that a changed password needs no restart (F33). May block.
pub type Password = Arc<dyn Fn() -> Result<Zeroizing<String>, String> + Send + Sync>;

/// Why there is no connection.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{host}: {problem}")]
pub struct ConnectError {
    /// Which host.
    pub host: String,
    /// What went wrong, for people.
    pub problem: String,
}

/// What is wrong with where and as whom to connect, if anything: without TLS passwords and requests stay on this machine, and
/// nobody connects as nobody.
pub(super) fn check(hosts: &[String], user: &str, tls: Option<&TlsFiles>) -> Result<(), String> {
    if hosts.is_empty() {
        return Err("no host is named".into());
    }
    for host in hosts {
        let (name, _) = split(host, 0)?;
        if tls.is_none() && !is_loopback(name) {
            return Err(format!(
                "{host} is not this machine: without TLS (tls_ca) only loopback addresses are allowed"
            ));
        }
    }
    let certificate = tls.is_some_and(|tls| tls.identity.is_some());
    if user.is_empty() && !certificate {
        return Err("neither a user nor a client certificate (tls_certificate) is given".into());
    }
    Ok(())
}

/// The password of `user`, fetched where it may block, as it may be told by a file or a command.
pub(super) async fn fetch(password: &Password, user: &str, runtime: &Handle) -> Result<Zeroizing<String>, String> {
    let password = Arc::clone(password);
    let fetched = runtime.spawn_blocking(move || password()).await.map_err(|error| error.to_string())?;
    fetched.map_err(|error| format!("the password of {user}: {error}"))
}

/// `HOST:PORT`, `[IPV6]:PORT`, or either without a port.
pub(super) fn split(host: &str, default: u16) -> Result<(&str, u16), String> {
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
}
