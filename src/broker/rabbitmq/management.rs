//! RabbitMQ's management API over HTTP: blocking, with a deadline on every question.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::StatusCode;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body, http};
use zeroize::Zeroizing;

use crate::broker::admin::AdminError;
use crate::tls::TlsFiles;

/// How long one question may take: the API counts messages and may be busy, but it is on the operator's network.
const DEADLINE: Duration = Duration::from_secs(20);
/// The longest answer, in bytes: lists of some ten thousand queues.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where the API is, and as whom to ask.
#[derive(Clone)]
pub struct Management {
    /// `http(s)://HOST:PORT`.
    pub url: String,
    /// The administrator.
    pub user: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// Certificates of the authorities that may vouch for the API, for `https`.
    pub tls: Option<TlsFiles>,
}

/// A connection to the API.
pub(super) struct Api {
    agent: Agent,
    base: String,
    authorization: Zeroizing<String>,
}

impl Api {
    pub(super) fn new(management: &Management) -> Result<Self, AdminError> {
        let refused = |problem: String| AdminError::Refused(format!("broker.management: {problem}"));
        let base = management.url.trim_end_matches('/').to_owned();
        let uri: http::Uri = base.parse().map_err(|error| refused(format!("{base:?} is no URL: {error}")))?;
        let mut config = Agent::config_builder()
            .timeout_global(Some(DEADLINE))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None);
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => {
                let host = host.trim_matches(['[', ']']);
                let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
                if !here {
                    return Err(refused(format!(
                        "{base}: the password would cross the network in the clear; use https"
                    )));
                }
            }
            (Some("https"), Some(_)) => {
                let files = management.tls.as_ref().ok_or_else(|| refused("https needs broker.tls_ca".into()))?;
                let pem = std::fs::read(&files.authorities)
                    .map_err(|error| refused(format!("{}: {error}", files.authorities.display())))?;
                let certificates: Vec<Certificate<'static>> = ureq::tls::parse_pem(&pem)
                    .filter_map(|item| match item {
                        Ok(PemItem::Certificate(certificate)) => Some(certificate),
                        _ => None,
                    })
                    .collect();
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let tls = TlsConfig::builder()
                    .root_certs(RootCerts::new_with_certs(&certificates))
                    .unversioned_rustls_crypto_provider(provider)
                    .build();
                config = config.tls_config(tls);
            }
            _ => return Err(refused(format!("{base:?} is neither http://HOST:PORT nor https://HOST:PORT"))),
        }
        let credentials = Zeroizing::new(format!("{}:{}", management.user, management.password.as_str()));
        let authorization = Zeroizing::new(format!("Basic {}", base64(credentials.as_bytes())));
        Ok(Self { agent: config.build().new_agent(), base, authorization })
    }

    /// What is at `path`, or `None` if there is nothing.
    pub(super) fn get(&self, path: &str) -> Result<Option<Value>, AdminError> {
        let asked = self.agent.get(self.url(path)).header("authorization", self.authorization.as_str()).call();
        let (status, body) = self.answer(path, asked)?;
        match status {
            StatusCode::OK => serde_json::from_str(&body).map(Some).map_err(|error| self.failed(path, &error)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.refused(path, status, &body)),
        }
    }

    pub(super) fn put(&self, path: &str, body: &Value) -> Result<(), AdminError> {
        let request = self.agent.put(self.url(path)).header("authorization", self.authorization.as_str());
        self.done(path, request.send_json(body))
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<(), AdminError> {
        let request = self.agent.post(self.url(path)).header("authorization", self.authorization.as_str());
        self.done(path, request.send_json(body))
    }

    fn done(&self, path: &str, sent: Result<http::Response<Body>, ureq::Error>) -> Result<(), AdminError> {
        let (status, body) = self.answer(path, sent)?;
        match status.is_success() {
            true => Ok(()),
            false => Err(self.refused(path, status, &body)),
        }
    }

    fn answer(
        &self,
        path: &str,
        answered: Result<http::Response<Body>, ureq::Error>,
    ) -> Result<(StatusCode, String), AdminError> {
        let answered = answered.map_err(|error| self.failed(path, &error))?;
        let status = answered.status();
        let body = answered.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        Ok((status, body.map_err(|error| self.failed(path, &error))?))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/{path}", self.base)
    }

    fn failed(&self, path: &str, error: &dyn core::fmt::Display) -> AdminError {
        AdminError::Unavailable(format!("{}: {error}", self.url(path)))
    }

    fn refused(&self, path: &str, status: StatusCode, body: &str) -> AdminError {
        let reason = serde_json::from_str::<Value>(body).ok();
        let reason = reason.as_ref().and_then(|body| body["reason"].as_str()).unwrap_or(body);
        let text = format!("{}: {status}: {}", self.url(path), crate::broker::printable(reason, 300));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => AdminError::Unavailable(format!(
                "{text}; broker.management_user must have the tag `administrator`, and its password be right"
            )),
            _ => AdminError::Refused(text),
        }
    }
}

/// A part of a path: everything but letters and digits is escaped.
pub(super) fn part(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(byte.into()),
            // Also the full stop, as `.` and `..` would be taken for folders.
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            match place <= chunk.len() {
                true => out.push(ALPHABET[(word >> (18 - 6 * place) & 63) as usize].into()),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xef, 0xbe]), "/+++");
    }

    #[test]
    fn a_name_stays_one_part_of_a_path() {
        assert_eq!(part("O=Bob, L=Rome"), "O%3DBob%2C%20L%3DRome");
        assert_eq!(part("/"), "%2F");
        assert_eq!(part(".."), "%2E%2E");
    }

    #[test]
    fn passwords_do_not_cross_a_network_in_the_clear() {
        let management = |url: &str| Management {
            url: url.into(),
            user: "admin".into(),
            password: Zeroizing::new("secret".into()),
            tls: None,
        };
        assert!(Api::new(&management("http://127.0.0.1:15672/")).is_ok());
        assert!(Api::new(&management("http://[::1]:15672")).is_ok());
        for url in ["http://10.0.0.1:15672", "https://broker.example", "ftp://127.0.0.1", "127.0.0.1:15672", ""] {
            assert!(matches!(Api::new(&management(url)), Err(AdminError::Refused(_))), "{url}");
        }
    }
}
