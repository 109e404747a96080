//! TLS towards servers: brokers and databases. What may vouch for them is configured, never the system's list of public
//! authorities: a notary's broker is nobody's public web site. TLS with the nodes of the network is in [`peers`].

pub mod peers;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::network::PathError;

/// Where certificates lie, PEM each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The authorities that may vouch for the server.
    pub authorities: PathBuf,
    /// Our own chain and its private key, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or holds nothing of its kind.
    #[error("{path}: {problem}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The own certificate and its key cannot be used with peers.
    #[error("own TLS certificate: {0}")]
    Identity(String),
    /// Peers would not believe the own certificate.
    #[error("own TLS certificate: {0}")]
    Path(PathError),
    /// Certificate and key do not fit, or the library refuses them.
    #[error("TLS: {0}")]
    Refused(#[from] rustls::Error),
}

impl TlsFiles {
    /// As configured: no authorities, no TLS.
    pub fn configured(authorities: &Path, certificate: &Path, key: &Path) -> Option<Self> {
        let named = |path: &Path| !path.as_os_str().is_empty();
        let identity = named(certificate).then(|| (certificate.to_owned(), key.to_owned()));
        named(authorities).then(|| Self { authorities: authorities.to_owned(), identity })
    }

    /// A client's settings: TLS 1.2 or 1.3, the server's certificate and name verified.
    ///
    /// # Errors
    /// [`TlsError`] names the file.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.authorities)? {
            roots.add(certificate)?;
        }
        // Named, so that it does not matter which provider another library made the process's default.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let client = client.with_root_certificates(roots);
        Ok(Arc::new(match &self.identity {
            None => client.with_no_client_auth(),
            Some((chain, key)) => {
                let private = PrivateKeyDer::from_pem_file(key).map_err(|error| fault(key, &error))?;
                client.with_client_auth_cert(certificates(chain)?, private)?
            }
        }))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| fault(path, &error))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| fault(path, &error))?;
    match certificates.is_empty() {
        true => Err(fault(path, &"no certificate in it")),
        false => Ok(certificates),
    }
}

fn fault(path: &Path, problem: &dyn core::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), problem: problem.to_string() }
}
