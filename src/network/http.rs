//! A network map server's questions and answers (Corda's network map protocol): blocking, with a bound on each.
//!
//! ```text
//! GET  /network-map                            the signed map; Cache-Control: max-age says when to ask again
//! GET  /network-map/node-info/<hash>           a signed node info
//! GET  /network-map/network-parameters/<hash>  signed parameters, in force or announced
//! POST /network-map/publish                    our own signed node info
//! ```
//!
//! Nothing is believed here: whoever asks verifies the answer up to the network's root. So a map may be asked over plain HTTP,
//! as Corda's nodes do; then somebody in between can withhold news, and no more.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ureq::http::header::{CACHE_CONTROL, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use ureq::http::{HeaderName, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::library::{NODE_INFO_LEN_MAX, NODE_INFOS_MAX, PARAMETERS_LEN_MAX};
use crate::domain::SecureHash;

/// Bytes of a map: a hash takes 75.
const MAP_LEN_MAX: usize = 65_536 + NODE_INFOS_MAX * 100;
/// Letters of a reason that a server gives, in our logs.
const REASON_LEN_MAX: usize = 200;

/// Where a map is, and as what to ask it.
#[derive(Clone, Debug)]
pub struct MapOptions {
    /// `http(s)://HOST[:PORT][/PATH]`.
    pub url: String,
    /// Authorities that may vouch for an `https` server (PEM).
    pub authorities: Option<PathBuf>,
    /// Our platform version, which servers log.
    pub platform_version: u16,
    /// How long one question may take.
    pub deadline: Duration,
}

impl MapOptions {
    /// A deadline for servers on other continents; the largest answer has 4 MiB.
    pub const DEADLINE: Duration = Duration::from_secs(20);
}

/// Why there is no answer. All may pass.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct HttpError {
    place: String,
    problem: String,
}

/// What makes a question conditional: what the server said of its last answer.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Version {
    etag: Option<String>,
    modified: Option<String>,
}

/// The map, if it is another than that of the [`Version`] asked for.
pub(super) struct Answer {
    /// The signed map and what to ask with next time.
    pub(super) news: Option<(Vec<u8>, Version)>,
    /// How long the server wants to be left alone.
    pub(super) max_age: Option<Duration>,
}

/// A map server.
pub struct HttpMap {
    agent: Agent,
    base: String,
    platform_version: String,
}

impl HttpMap {
    /// Connects nothing yet.
    ///
    /// # Errors
    /// [`HttpError`] if the authorities cannot be read.
    pub fn new(options: &MapOptions) -> Result<Self, HttpError> {
        let base = format!("{}/network-map", options.url.trim_end_matches('/'));
        let mut config = Agent::config_builder()
            .timeout_global(Some(options.deadline))
            .http_status_as_error(false)
            // A map that moved is for the operator to follow, not for whoever answers on the way.
            .max_redirects(0)
            .proxy(None);
        if let Some(file) = &options.authorities {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let roots = RootCerts::new_with_certs(&authorities(file)?);
            config = config.tls_config(
                TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build(),
            );
        }
        let platform_version = options.platform_version.to_string();
        Ok(Self { agent: config.build().new_agent(), base, platform_version })
    }

    pub(super) fn network_map(&self, known: &Version) -> Result<Answer, HttpError> {
        let mut request = self.agent.get(&self.base);
        if let Some(etag) = &known.etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(modified) = &known.modified {
            request = request.header(IF_MODIFIED_SINCE, modified);
        }
        let answer = request.call().map_err(|error| failed(&self.base, &error))?;
        let max_age = text(&answer, CACHE_CONTROL).as_deref().and_then(max_age);
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(Answer { news: None, max_age });
        }
        let version = Version { etag: text(&answer, ETAG), modified: text(&answer, LAST_MODIFIED) };
        let bytes = content(&self.base, answer, MAP_LEN_MAX)?;
        Ok(Answer { news: Some((bytes, version)), max_age })
    }

    pub(super) fn node_info(&self, hash: &SecureHash) -> Result<Vec<u8>, HttpError> {
        self.get(&format!("{}/node-info/{hash}", self.base), NODE_INFO_LEN_MAX)
    }

    pub(super) fn parameters(&self, hash: &SecureHash) -> Result<Vec<u8>, HttpError> {
        self.get(&format!("{}/network-parameters/{hash}", self.base), PARAMETERS_LEN_MAX)
    }

    fn get(&self, place: &str, len_max: usize) -> Result<Vec<u8>, HttpError> {
        let answer = self.agent.get(place).call().map_err(|error| failed(place, &error))?;
        content(place, answer, len_max)
    }

    /// Hands in a signed node info. Servers verify it before they say yes, and may list it some time later.
    ///
    /// # Errors
    /// [`HttpError`] if the server does not answer, or says no.
    pub fn publish(&self, signed_node_info: &[u8]) -> Result<(), HttpError> {
        let place = format!("{}/publish", self.base);
        let request = self.agent.post(&place).header("content-type", "application/octet-stream");
        let request = request.header("platform-version", &self.platform_version);
        let request = request.header("client-version", env!("CARGO_PKG_VERSION"));
        let answer = request.send(signed_node_info).map_err(|error| failed(&place, &error))?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(refused(&place, answer)),
        }
    }
}

fn authorities(file: &Path) -> Result<Vec<Certificate<'static>>, HttpError> {
    let place = file.display().to_string();
    let pem = std::fs::read(file).map_err(|error| failed(&place, &error))?;
    let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        true => Err(failed(&place, &"no certificate in it")),
        false => Ok(certificates),
    }
}

fn content(place: &str, answer: Response<Body>, len_max: usize) -> Result<Vec<u8>, HttpError> {
    if answer.status() != StatusCode::OK {
        return Err(refused(place, answer));
    }
    let body = answer.into_body().into_with_config().limit(len_max as u64).read_to_vec();
    body.map_err(|error| failed(place, &error))
}

fn refused(place: &str, answer: Response<Body>) -> HttpError {
    let status = answer.status();
    let reason = answer.into_body().into_with_config().limit(REASON_LEN_MAX as u64).read_to_vec().unwrap_or_default();
    let reason = String::from_utf8_lossy(&reason).replace(|c: char| c.is_control(), " ");
    failed(place, &format!("{status} {}", reason.trim()))
}

fn failed(place: &str, problem: &dyn core::fmt::Display) -> HttpError {
    HttpError { place: place.to_owned(), problem: problem.to_string() }
}

fn text(answer: &Response<Body>, name: HeaderName) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().ok()?.to_owned())
}

/// The seconds of `max-age` (RFC 9111, 5.2.2.1).
fn max_age(cache_control: &str) -> Option<Duration> {
    let directives = cache_control.split(',').map(str::trim);
    let seconds = directives.filter_map(|directive| directive.split_once('=')).find_map(|(name, value)| {
        name.trim().eq_ignore_ascii_case("max-age").then(|| value.trim().trim_matches('"').parse().ok())?
    });
    seconds.map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_says_how_long_its_answer_lasts() {
        let seconds = |text| max_age(text).map(|age| age.as_secs());
        assert_eq!(seconds("max-age=600"), Some(600));
        assert_eq!(seconds("public, Max-Age = \"5\", must-revalidate"), Some(5));
        for text in ["", "no-store", "max-age", "max-age=", "max-age=soon", "s-maxage=9"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
