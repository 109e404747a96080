//! An identity manager (once "doorman") over HTTP, as Corda's nodes speak to it (corda/corda, `HTTPNetworkRegistrationService`):
//!
//! ```text
//! POST <url>/certificate        the request (PKCS#10, DER); headers Platform-Version, Client-Version, Private-Network-Map (empty
//!                               where there is none), and X-CENM-Submission-Token where the operator gave one
//!   200                         the request's id, as text
//! GET  <url>/certificate/<id>
//!   204                         not decided yet; Cache-Control: max-age says when to ask again, without it 10 s
//!   200                         a zip with one certificate an entry (DER or PEM), the requested one first, then its issuers; with
//!                               or without the root
//!   401                         rejected; the body says why
//!   502, 503, 504               unavailable
//! ```
//!
//! Nothing here is believed because of TLS: certificates count only once they verify up to the root. So `http` does too, except
//! with a submission token, which is a secret.

use std::io::{Cursor, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Response, StatusCode, Uri, header};
use ureq::tls::{Certificate as TlsCertificate, PemItem, RootCerts, TlsConfig};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use crate::keys::csr::CertificationRequest;
use crate::network::certificate::{CERTIFICATE_LEN_MAX, Certificate};
use crate::network::path::PATH_LEN_MAX;

/// How long one question may take. The manager is a web service with a database; people are not waited for within a question.
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a zip with certificates: as many as a path has, each as large as may be, and the zip's own lists.
const ZIP_LEN_MAX: u64 = (PATH_LEN_MAX * CERTIFICATE_LEN_MAX) as u64 + (16 << 10);
/// Bytes of a request's id, or of a reason for a refusal. Real ids are UUIDs or hashes.
const TEXT_LEN_MAX: u64 = 4096;
const ID_LEN_MAX: usize = 256;
/// When to ask again if the manager does not say, as Corda's nodes do; and what it may say.
const POLL_DEFAULT: Duration = Duration::from_secs(10);
const POLL_MIN: Duration = Duration::from_secs(1);
const POLL_MAX: Duration = Duration::from_secs(3600);
/// The platform version of Corda 4.10, whose protocol this is.
const PLATFORM_VERSION: &str = "12";

/// Where the identity manager is, and what it wants besides the request.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// `http(s)://HOST[:PORT][/PATH]`; Corda's `networkServices.doormanURL`.
    pub url: String,
    /// Certificates of the authorities that may vouch for an `https` server (PEM); required with `https`.
    pub authorities: Option<PathBuf>,
    /// What CENM calls a submission token; sent with requests only, and never in the clear.
    pub token: Option<Zeroizing<String>>,
}

/// A connection to an identity manager.
pub struct IdentityManager {
    agent: Agent,
    base: String,
    token: Option<Zeroizing<String>>,
}

/// Why the identity manager did not do what it was asked. The text is fit to be printed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ManagerError {
    /// These options cannot work.
    #[error("identity manager: {0}")]
    Options(String),
    /// It cannot be reached, or says that it cannot answer now: ask again later.
    #[error("the identity manager is not available: {0}")]
    Unavailable(String),
    /// Its operators rejected the request.
    #[error("the identity manager rejected the request: {0}")]
    Rejected(String),
    /// It answered what this protocol does not have, or refused in another way: asking again is of no use.
    #[error("the identity manager refused: {0}")]
    Refused(String),
}

/// The manager's name for a request: characters that a path may have (RFC 3986), as Corda puts it into one unchanged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(String);

impl RequestId {
    /// Reads an id as the manager sent it, or as it was kept; white space around it does not belong to it.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_ascii();
        let of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&byte);
        let fine = (1..=ID_LEN_MAX).contains(&text.len()) && text.bytes().all(of_path);
        fine.then(|| Self(text.to_owned()))
    }

    /// The id itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the manager says about a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Not decided yet; ask again after so long.
    Pending(Duration),
    /// The requested certificate, then its issuers. Read, but not trusted.
    Issued(Vec<Certificate>),
}

impl IdentityManager {
    /// Prepares to speak to the manager; nothing is connected yet.
    ///
    /// # Errors
    /// [`ManagerError::Options`].
    pub fn new(options: &ManagerOptions) -> Result<Self, ManagerError> {
        let wrong = |problem: String| ManagerError::Options(problem);
        let base = options.url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|error| wrong(format!("{base:?} is no URL: {error}")))?;
        let mut config = Agent::config_builder()
            .timeout_global(Some(DEADLINE))
            .http_status_as_error(false)
            // Corda's nodes follow none either: an identity manager has one address.
            .max_redirects(0)
            .proxy(None);
        match (uri.scheme_str(), uri.host()) {
            (Some("http"), Some(host)) => {
                let host = host.trim_matches(['[', ']']);
                let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
                if options.token.is_some() && !here {
                    return Err(wrong(format!(
                        "{base}: the submission token would cross the network in the clear; use https"
                    )));
                }
            }
            (Some("https"), Some(_)) => {
                let path = options.authorities.as_ref();
                let path =
                    path.ok_or_else(|| wrong(format!("{base}: https needs the authorities that vouch for it")))?;
                let pem = std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
                let certificates = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                let certificates: Vec<TlsCertificate<'static>> = certificates.collect();
                if certificates.is_empty() {
                    return Err(wrong(format!("{}: no certificate in it", path.display())));
                }
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let tls = TlsConfig::builder()
                    .root_certs(RootCerts::new_with_certs(&certificates))
                    .unversioned_rustls_crypto_provider(provider)
                    .build();
                config = config.tls_config(tls);
            }
            _ => return Err(wrong(format!("{base:?} is neither http://HOST nor https://HOST"))),
        }
        Ok(Self { agent: config.build().new_agent(), base, token: options.token.clone() })
    }

    /// Asks for a certificate. The same request, sent twice, may have one id or two.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub fn submit(&self, request: &CertificationRequest) -> Result<RequestId, ManagerError> {
        let mut post = self
            .agent
            .post(format!("{}/certificate", self.base))
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header("Platform-Version", PLATFORM_VERSION)
            .header("Client-Version", env!("CARGO_PKG_VERSION"))
            .header("Private-Network-Map", "");
        if let Some(token) = &self.token {
            post = post.header("X-CENM-Submission-Token", token.as_str());
        }
        let answer = post.send(request.as_der()).map_err(|error| self.lost(&error))?;
        match answer.status() {
            StatusCode::OK => {
                let id = RequestId::parse(&text(answer)?);
                id.ok_or_else(|| ManagerError::Refused("its answer is no request id".into()))
            }
            status => Err(refusal(status, answer)),
        }
    }

    /// Asks what became of a request.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub fn retrieve(&self, id: &RequestId) -> Result<Answer, ManagerError> {
        let get = self.agent.get(format!("{}/certificate/{}", self.base, id.as_str()));
        let answer = get.call().map_err(|error| self.lost(&error))?;
        match answer.status() {
            StatusCode::NO_CONTENT => Ok(Answer::Pending(poll_interval(&answer))),
            StatusCode::OK => {
                let zip = answer.into_body().into_with_config().limit(ZIP_LEN_MAX).read_to_vec();
                let zip = zip.map_err(|error| match error {
                    ureq::Error::BodyExceedsLimit(_) => ManagerError::Refused("its answer is too large".into()),
                    error => self.lost(&error),
                })?;
                certificates(&zip).map(Answer::Issued).map_err(ManagerError::Refused)
            }
            StatusCode::UNAUTHORIZED => Err(ManagerError::Rejected(text(answer)?)),
            status => Err(refusal(status, answer)),
        }
    }

    fn lost(&self, error: &ureq::Error) -> ManagerError {
        ManagerError::Unavailable(format!("{}: {error}", self.base))
    }
}

/// The certificates of a zip, in its order.
fn certificates(zip: &[u8]) -> Result<Vec<Certificate>, String> {
    let bad = |error: zip::result::ZipError| format!("its answer is no zip of certificates: {error}");
    let mut archive = zip::ZipArchive::new(Cursor::new(zip)).map_err(bad)?;
    if archive.is_empty() || archive.len() > PATH_LEN_MAX {
        return Err(format!("its answer has {} certificates", archive.len()));
    }
    let mut certificates = Vec::with_capacity(archive.len());
    for i in 0..archive.len() {
        let mut bytes = Vec::new();
        let entry = archive.by_index(i).map_err(bad)?;
        // A third more for the PEM form. What is declared does not count: what comes out does.
        let read = entry.take(2 * CERTIFICATE_LEN_MAX as u64).read_to_end(&mut bytes);
        read.map_err(|error| format!("its answer is no zip of certificates: {error}"))?;
        let certificate = match bytes.starts_with(b"-----BEGIN ") {
            true => Certificate::from_pem(&String::from_utf8_lossy(&bytes)),
            false => Certificate::from_der(&bytes),
        };
        certificates.push(certificate.map_err(|error| format!("certificate {} of its answer: {error}", i + 1))?);
    }
    Ok(certificates)
}

fn poll_interval(answer: &Response<Body>) -> Duration {
    let said = answer.headers().get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let seconds = said.and_then(|said| {
        said.split(',').find_map(|part| part.trim().strip_prefix("max-age=").and_then(|age| age.trim().parse().ok()))
    });
    seconds.map_or(POLL_DEFAULT, Duration::from_secs).clamp(POLL_MIN, POLL_MAX)
}

fn refusal(status: StatusCode, answer: Response<Body>) -> ManagerError {
    let said = text(answer).unwrap_or_default();
    let said = if said.is_empty() { status.to_string() } else { format!("{status}: {said}") };
    match status.is_server_error() {
        true => ManagerError::Unavailable(said),
        false => ManagerError::Refused(said),
    }
}

/// A short text of the server's, fit to be printed.
fn text(answer: Response<Body>) -> Result<String, ManagerError> {
    let bytes = answer.into_body().into_with_config().limit(TEXT_LEN_MAX).read_to_vec();
    let bytes = bytes.map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => ManagerError::Refused("its answer is too long".into()),
        error => ManagerError::Unavailable(error.to_string()),
    })?;
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    Ok(String::from_utf8_lossy(&bytes).chars().map(printable).collect::<String>().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_what_a_path_may_have() {
        for id in ["7C4F1B-0", "a/b:c@d", "%20"] {
            assert_eq!(RequestId::parse(&format!("{id}\r\n")).expect("an id").as_str(), id);
        }
        for odd in ["", " ", "a b", "a\u{7}b", "ä", "a?b", "a#b", "<html>", &"x".repeat(ID_LEN_MAX + 1)] {
            assert_eq!(RequestId::parse(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_token_never_crosses_the_network_in_the_clear() {
        let options = |url: &str, token: bool| ManagerOptions {
            url: url.into(),
            authorities: None,
            token: token.then(|| Zeroizing::new("secret".into())),
        };
        let refused = |url, token| IdentityManager::new(&options(url, token)).err().map(|error| error.to_string());
        assert_eq!(refused("http://doorman.example:10000", false), None);
        assert_eq!(refused("http://127.0.0.1:10000", true), None);
        assert_eq!(refused("http://[::1]:10000", true), None);
        assert!(refused("http://doorman.example", true).expect("refused").contains("in the clear"));
        assert!(refused("https://doorman.example", true).expect("refused").contains("authorities"));
        for url in ["doorman.example", "ftp://doorman.example", "http://", ""] {
            assert!(refused(url, false).is_some(), "{url}");
        }
    }

    #[test]
    fn what_is_no_zip_of_certificates_is_refused() {
        for bytes in [&b""[..], b"PK", b"PK\x05\x06garbage garbage garbage", &[0x30; 4000]] {
            certificates(bytes).expect_err("accepted");
        }
        // An empty archive: the end record alone.
        let empty = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
        certificates(&empty).expect_err("accepted");
    }
}
