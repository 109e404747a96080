//! Mutual TLS as Corda's nodes speak it (PROTOCOL b.3), as server and as client. Who the other side is follows from its
//! certificate alone: a chain up to the network's root whose last certificate has the role of a TLS certificate. Host names play no
//! part; a client instead demands that the server's name is one of those that it connects for.
//!
//! TLS 1.2 with the two suites that nodes know, and 1.3 where the other side offers it. No connection resumes another one, so that
//! a certificate is looked at on every connection. Revocation is not looked at, see `network::verify_path`.

mod handshakes;
mod remote;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, IpAddr, Ipv4Addr, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ProtocolVersion, ServerConfig, SignatureScheme,
};
use sha2::{Digest, Sha256};

use self::handshakes::Threads;
use self::remote::RemoteKey;
use super::TlsError;
use crate::domain::network::Route;
use crate::domain::{PublicKey, Timestamp, X500Name};
use crate::keys::PrivateKey;
use crate::network::{Certificate, PathError, Role, verify_path};
use crate::ports::clock::Clock;

pub use self::remote::Sign;

/// The suites of Corda's nodes for TLS 1.2.
const SUITES_TLS12: [CipherSuite; 2] =
    [CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256];

/// What a trial signature is made over: a key that proves that it fits its certificate signs this and nothing that means anything.
const TRIAL: &[u8] = b"notary-worker: does this TLS key fit its certificate?";

/// Who this worker is to its peers: its TLS certificate, what leads from it to the network's root, and its key.
#[derive(Clone)]
pub struct Identity {
    name: X500Name,
    /// As sent: own certificate first.
    chain: Vec<Vec<u8>>,
    expires: Timestamp,
    key: Arc<dyn SigningKey>,
}

/// Name and end; never the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, until {})", self.name, self.expires)
    }
}

impl Identity {
    /// From a chain in DER, the worker's own certificate first, each certified by the next; the root may be last, or left out. The
    /// key may be anywhere, such as on a token.
    ///
    /// # Errors
    /// [`TlsError::Identity`] if a certificate cannot be read, the first one's subject is no legal name, or its key is another one.
    pub fn new(chain: Vec<Vec<u8>>, key: Arc<dyn SigningKey>) -> Result<Self, TlsError> {
        let fault = |problem: &dyn fmt::Display| TlsError::Identity(problem.to_string());
        let certificates = chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| fault(&error))?;
        let own = certificates.first().ok_or_else(|| fault(&"no certificate"))?;
        let name = own.legal_name().map_err(|error| fault(&error))?;
        check_fits(own, &*key)?;
        let expires = certificates.iter().map(Certificate::expires).min().expect("there is one at least");
        Ok(Self { name, chain, expires, key })
    }

    /// The same with a key held in this process, which must be an ECDSA key: nodes know no suite for Ed25519.
    ///
    /// # Errors
    /// [`TlsError::Identity`].
    pub fn from_private_key(chain: Vec<Vec<u8>>, key: &PrivateKey) -> Result<Self, TlsError> {
        let pkcs8 = key.to_pkcs8_der();
        // Borrowed: the copy in `pkcs8` is wiped when dropped.
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_bytes()));
        Self::new(chain, ring::sign::any_supported_type(&der)?)
    }

    /// The same with a key that is elsewhere, such as on a token: ECDSA on P-256. `sign` blocks while it waits for a signature, so
    /// handshakes need threads of their own ([`PeerTls::on_own_threads`]).
    ///
    /// # Errors
    /// [`TlsError::Identity`].
    pub fn with_remote_key(chain: Vec<Vec<u8>>, public_key: PublicKey, sign: Sign) -> Result<Self, TlsError> {
        let key = RemoteKey::new(public_key, sign);
        let key = key.ok_or_else(|| TlsError::Identity("a key for TLS on a token must be ECDSA on P-256".into()))?;
        Self::new(chain, Arc::new(key))
    }

    /// The same key with another chain: its renewed certificate.
    ///
    /// # Errors
    /// [`TlsError::Identity`], as [`Self::new`].
    pub fn recertified(&self, chain: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        Self::new(chain, Arc::clone(&self.key))
    }

    /// The certificate's subject: the name by which peers know this worker.
    pub fn name(&self) -> &X500Name {
        &self.name
    }

    /// When the first certificate of the chain ends.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The chain as sent: own certificate first.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }
}

/// A key fits if it is the certificate's, or if it cannot say which it is but its signature verifies.
fn check_fits(certificate: &Certificate, key: &dyn SigningKey) -> Result<(), TlsError> {
    // Corda's suites need one of these.
    let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PKCS1_SHA256];
    let signer = key.choose_scheme(&schemes).ok_or_else(|| {
        TlsError::Identity("a key for TLS must be ECDSA on P-256, or RSA: Corda's nodes know no other".into())
    })?;
    let fits = match key.public_key() {
        Some(spki) => spki.as_ref() == certificate.public_key().as_spki(),
        None => certificate.public_key().verify(TRIAL, &signer.sign(TRIAL)?).is_ok(),
    };
    match fits {
        true => Ok(()),
        false => Err(TlsError::Identity(format!("the key is not that of the certificate of {certificate}"))),
    }
}

/// TLS with peers, both ways. Renewed identities are taken up by the next handshake; open connections stay.
#[derive(Clone)]
pub struct PeerTls {
    shared: Arc<Shared>,
    threads: Option<Arc<Threads>>,
}

struct Shared {
    provider: Arc<CryptoProvider>,
    root: Certificate,
    clock: Arc<dyn Clock>,
    identity: RwLock<(Identity, Arc<CertifiedKey>)>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerTls({:?})", self.read().0)
    }
}

impl fmt::Debug for PeerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl PeerTls {
    /// TLS below `root`, as `identity`. `clock` judges periods of certificates.
    ///
    /// # Errors
    /// [`TlsError::Path`] if peers would not believe the identity: its chain does not lead to the root, or has ended.
    pub fn new(root: Certificate, identity: Identity, clock: Arc<dyn Clock>) -> Result<Self, TlsError> {
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|suite| {
            suite.version().version == ProtocolVersion::TLSv1_3 || SUITES_TLS12.contains(&suite.suite())
        });
        check_believable(&identity, &root, &*clock)?;
        let identity = RwLock::new(certified(identity));
        let shared = Shared { provider: Arc::new(provider), root, clock, identity };
        Ok(Self { shared: Arc::new(shared), threads: None })
    }

    /// Takes up a renewed identity.
    ///
    /// # Errors
    /// As [`Self::new`]; also if it has another name, which peers would not look for here. The identity in force stays.
    pub fn renew(&self, identity: Identity) -> Result<(), TlsError> {
        check_believable(&identity, &self.shared.root, &*self.shared.clock)?;
        let mut current = self.shared.identity.write().unwrap_or_else(PoisonError::into_inner);
        if current.0.name != identity.name {
            return Err(TlsError::Identity(format!("{} cannot take the place of {}", identity.name, current.0.name)));
        }
        *current = certified(identity);
        Ok(())
    }

    /// The identity in force.
    pub fn identity(&self) -> Identity {
        self.shared.read().0.clone()
    }

    /// For accepting connections: a client must show a certificate; [`caller_of`] then tells whose.
    ///
    /// # Errors
    /// [`TlsError::Refused`] if the library does not take the settings.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.shared.provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let verifier = Arc::new(Verifier { shared: Arc::clone(&self.shared), names: None });
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(&self.shared))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// For connecting to the node that `route` leads to: settings, and the name to connect with.
    ///
    /// # Errors
    /// [`TlsError::Refused`] if the library does not take the settings.
    pub fn client(&self, route: &Route) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.shared.provider));
        let builder = builder.with_safe_default_protocol_versions()?;
        let verifier = Arc::new(Verifier { shared: Arc::clone(&self.shared), names: Some(route.names.clone()) });
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = builder.with_client_cert_resolver(Arc::new(Resolver(Arc::clone(&self.shared))));
        config.resumption = Resumption::disabled();
        let indicated = match &route.names[..] {
            [name] => ServerName::try_from(server_name(name)).ok(),
            _ => None,
        };
        config.enable_sni = indicated.is_some();
        // Without indication a name is needed all the same, and is not looked at by anybody.
        let unnamed = || ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
        Ok((Arc::new(config), indicated.unwrap_or_else(unnamed)))
    }
}

/// What a client names when exactly one node is meant: a float in front of several nodes tells them apart by it.
fn server_name(name: &X500Name) -> String {
    let digest = hex::encode(Sha256::digest(name.to_string()));
    format!("{}.corda.net", &digest[..32])
}

/// The certificates in a PEM file, in DER.
///
/// # Errors
/// [`TlsError::File`] if it cannot be read, or holds none.
pub fn read_chain(path: &Path) -> Result<Vec<Vec<u8>>, TlsError> {
    Ok(super::certificates(path)?.into_iter().map(|certificate| certificate.to_vec()).collect())
}

/// Whose certificates these are, as verified in a handshake: own certificate first.
pub fn caller_of(certificates: &[CertificateDer<'_>]) -> Option<X500Name> {
    Certificate::from_der(certificates.first()?).ok()?.legal_name().ok()
}

/// Why a handshake failed, for people: the certificate at fault, where one is.
pub fn handshake_fault(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::Other(OtherError(fault)))) => fault.to_string(),
        Some(error) => error.to_string(),
        None => error.to_string(),
    }
}

impl Shared {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, (Identity, Arc<CertifiedKey>)> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.read().1)
    }

    /// The last certificate of a chain that came with its first one first, if it leads to the root.
    fn verify(&self, own: &[u8], others: &[CertificateDer<'_>]) -> Result<Certificate, PathError> {
        let chain: Vec<_> = [own].into_iter().chain(others.iter().map(|der| der.as_ref())).collect();
        verify_chain(&chain, &self.root, self.clock.now())
    }
}

fn certified(identity: Identity) -> (Identity, Arc<CertifiedKey>) {
    let chain = identity.chain.iter().cloned().map(CertificateDer::from).collect();
    let certified = Arc::new(CertifiedKey::new(chain, Arc::clone(&identity.key)));
    (identity, certified)
}

fn check_believable(identity: &Identity, root: &Certificate, clock: &dyn Clock) -> Result<(), TlsError> {
    let chain: Vec<_> = identity.chain.iter().map(Vec::as_slice).collect();
    verify_chain(&chain, root, clock.now()).map(drop).map_err(TlsError::Path)
}

/// The root may be left out of a chain, as everybody has it.
fn verify_chain(chain: &[&[u8]], root: &Certificate, now: Timestamp) -> Result<Certificate, PathError> {
    // Before anything is copied: the length is the sender's.
    if chain.len() > crate::network::PATH_LEN_MAX {
        return Err(PathError::Length(chain.len()));
    }
    let mut path: Vec<_> = chain.iter().rev().map(|der| der.to_vec()).collect();
    let rooted = match path.first().map(|der| Certificate::from_der(der)).transpose()? {
        Some(first) => first.is_self_issued(),
        None => false,
    };
    if !rooted {
        path.insert(0, root.as_der().to_vec());
    }
    verify_path(&path, root, Some(now), &[Role::Tls])
}

/// Whom the identity in force presents.
#[derive(Debug)]
struct Resolver(Arc<Shared>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.certified())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Judges the other side's certificate.
#[derive(Debug)]
struct Verifier {
    shared: Arc<Shared>,
    /// Names that the other side may have; `None` for any of the network.
    names: Option<Vec<X500Name>>,
}

/// The node that answers has none of the names that were connected for.
#[derive(Debug, thiserror::Error)]
#[error("{found} answers, and not {}", expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or "))]
struct WrongName {
    found: X500Name,
    expected: Vec<X500Name>,
}

impl Verifier {
    fn judge(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let other = |fault| Error::InvalidCertificate(CertificateError::Other(OtherError(fault)));
        let certificate = self.shared.verify(own, others).map_err(|error| other(Arc::new(error)))?;
        let found = certificate.legal_name().map_err(|error| other(Arc::new(error)))?;
        match &self.names {
            Some(expected) if !expected.contains(&found) => {
                Err(other(Arc::new(WrongName { found, expected: expected.clone() })))
            }
            _ => Ok(()),
        }
    }

    fn signed12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.shared.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn signed13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.shared.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.shared.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hint: a node has one certificate for TLS.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.judge(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.judge(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed12(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed13(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;
