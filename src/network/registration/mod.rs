//! Registration with a Corda network's identity manager: the service identity first, then each worker; what comes back is
//! verified up to the root before anything of it is kept (RG1 to RG3).
//!
//! ```text
//! <dir>/                                closed to everybody else; stays with the operator
//!   registration.json  root.pem         what is registered where, and the trust root
//!   pending/<service|short name>/       a key (key.p8) and its request's id (request-id), until the certificate is there
//!   service/                            certificates.pem, and service.p8 unless the key lies elsewhere (on a token)
//!   authorities/<short name>/           node-ca.p8  certificates.pem: the worker's own authority
//!   workers/<short name>/               what goes to the worker's machine
//!     keys/{identity,tls,service}.p8    encrypted PKCS#8
//!     certificates/{identity,tls,service}.pem    chains, own certificate first, root last
//!     network/root.pem  network/node-infos/nodeInfo-…
//!   notary-info/nodeInfo-…              for the network's operators, one a worker (step three)
//! ```
//!
//! Corda's nodes do the same, with the node CA's key in the node's own key store for good. Here that key makes two certificates,
//! the worker's legal identity and its TLS certificate, and stays in `authorities/`: whoever takes over a worker can then not
//! certify further keys in its name (ID3). Renewing a TLS certificate needs the folder again, not the identity manager.
//!
//! [`Registration::advance`] does whatever can be done now, in that order, and may be called again and again: each step leaves
//! its result by one rename, and a step whose result is there is not done again. A key is made once, before its request is
//! sent; a request whose id was lost in a crash is sent again, to the byte.

mod folder;
mod manager;
mod plan;
#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use zeroize::Zeroizing;

use self::folder::Folder;
use super::certificate::{Certificate, CertificateError, Role};
use super::issue::{Authority, IssueError, Request};
use super::material::{MaterialError, verify_node_info};
use super::path::{PATH_LEN_MAX, PathError, verify_path};
use crate::domain::{PublicKey, SignatureScheme, Timestamp, X500Name};
use crate::keys::csr::{Attributes, CertificationRequest, CsrError};
use crate::keys::file::SecretFileError;
use crate::keys::{PrivateKey, PrivateKeyError};
use crate::wire::{self, CertificatePath, NodeInfo, SignedNodeInfo};

pub use manager::{Answer, IdentityManager, ManagerError, ManagerOptions, RequestId};
pub use plan::{ADDRESSES_MAX, Plan, PlanError, WORKERS_MAX, Worker, parse_address};

/// How long identities are certified, in seconds: ten years, as Corda's nodes do; never longer than their node CA.
const IDENTITY_VALID_SECONDS: i64 = 3650 * 86_400;
/// How long before now certificates are valid already, in seconds: clocks of other machines may be behind.
const VALID_BEFORE_SECONDS: i64 = 3600;
/// When to try again if the manager cannot answer.
const UNAVAILABLE_RETRY: Duration = Duration::from_secs(30);
/// The platform version that node infos claim: Corda 4.10.
const PLATFORM_VERSION: i32 = 12;

/// How a key that lies elsewhere signs: the bytes to sign, the signature in the form of its scheme, or why not.
pub type Sign<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>, String>;

/// Where the service key is.
pub enum ServiceKey<'a> {
    /// In a file that the registration makes, with a key of this scheme.
    File(SignatureScheme),
    /// Elsewhere, such as on a token: it stays there.
    Elsewhere(PublicKey, Sign<'a>),
}

/// What the steps need.
pub struct Means<'a> {
    /// Whom to ask.
    pub manager: &'a IdentityManager,
    /// Encrypts the keys made here, at least 8 bytes.
    pub passphrase: &'a Zeroizing<String>,
    /// The service key.
    pub service_key: ServiceKey<'a>,
    /// How long TLS certificates are valid, in seconds.
    pub tls_valid_seconds: i64,
    /// Now.
    pub now: Timestamp,
    /// Further files of a worker's folder (path within it, content), such as its configuration.
    pub worker_files: &'a dyn Fn(&Worker) -> Vec<(PathBuf, String)>,
    /// Is told what was done, line by line.
    pub tell: &'a dyn Fn(&str),
}

/// How far a registration has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Everybody is registered, and step three's files are there.
    Done,
    /// These wait for the identity manager's operators, or for the manager itself; worth asking again after `retry`.
    Waiting {
        /// Names, each with the id of its request or with what stands in the way.
        parts: Vec<(X500Name, String)>,
        /// When.
        retry: Duration,
    },
}

/// Why a registration cannot go on. What was done before stays.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The plan in the folder, or the one given.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key file.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] PrivateKeyError),
    /// The service key did not sign.
    #[error(transparent)]
    Csr(#[from] CsrError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The identity manager refuses; the request of a rejected name is forgotten, its key is kept.
    #[error("{name}: {error}")]
    Manager {
        /// Whose request.
        name: Box<X500Name>,
        /// What it said.
        error: ManagerError,
    },
    /// What the manager issued is not what was asked for, or does not verify. Nothing of it was kept.
    #[error("the certificate for {name} is not to be believed: {error}")]
    Certificate {
        /// Whose.
        name: Box<X500Name>,
        /// What is wrong.
        error: Box<ChainError>,
    },
    /// The node info that was made does not verify.
    #[error("the node info of {name}: {error}")]
    NodeInfo {
        /// Whose.
        name: Box<X500Name>,
        /// What is wrong.
        error: Box<MaterialError>,
    },
}

/// What is wrong with a chain of certificates.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChainError {
    /// A certificate in a file cannot be read.
    #[error(transparent)]
    Unreadable(#[from] CertificateError),
    /// None.
    #[error("no certificate")]
    Empty,
    /// It certifies another key.
    #[error("it is for another key")]
    Key,
    /// It bears another name.
    #[error("it is for {0}")]
    Name(String),
    /// The path up to the root.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A registration in its folder.
#[derive(Debug)]
pub struct Registration {
    folder: Folder,
    plan: Plan,
    root: Certificate,
}

/// A certified key: the chain, own certificate first and root last.
struct Certified {
    chain: Vec<Certificate>,
}

impl Certified {
    /// Root first, as node infos have it.
    fn path(&self) -> CertificatePath {
        CertificatePath(self.chain.iter().rev().map(|certificate| certificate.as_der().to_vec()).collect())
    }

    fn to_pem(&self) -> String {
        self.chain.iter().map(Certificate::to_pem).collect()
    }

    /// The chain of a certificate that this one's key has issued.
    fn below(&self, certificate: Certificate) -> Self {
        Self { chain: [certificate].into_iter().chain(self.chain.iter().cloned()).collect() }
    }
}

/// Who is being registered.
struct Part<'a> {
    /// Its folder below `pending`.
    folder: String,
    name: &'a X500Name,
    role: Role,
}

impl Registration {
    /// Begins a registration in `dir`, or goes on with the one there: then `given` may add workers, and must otherwise agree.
    /// `root` is the network's trust root, from a source that is trusted.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn begin(dir: &Path, given: Plan, root: &Certificate) -> Result<Self, RegistrationError> {
        let given = given.checked()?;
        let folder = Folder::make(dir)?;
        let plan = match folder.plan()? {
            None => given,
            Some(kept) => kept.merged(given)?,
        };
        let root = folder.keep_root(root)?;
        folder.keep_plan(&plan)?;
        Ok(Self { folder, plan, root })
    }

    /// The registration in `dir`; none if there is none.
    ///
    /// # Errors
    /// [`RegistrationError`].
    pub fn open(dir: &Path) -> Result<Option<Self>, RegistrationError> {
        if !dir.join(folder::PLAN).exists() {
            return Ok(None);
        }
        let folder = Folder::open(dir)?;
        let Some(plan) = folder.plan()? else { return Ok(None) };
        let root = folder.root()?;
        Ok(Some(Self { folder, plan, root }))
    }

    /// The plan and the root; the folder is closed.
    pub fn into_parts(self) -> (Plan, Certificate) {
        (self.plan, self.root)
    }

    /// What is registered.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where a worker's finished folder is, or will be.
    pub fn worker_dir(&self, worker: &Worker) -> PathBuf {
        self.folder.worker(&worker.short_name())
    }

    /// Where the files for the network's operators are, or will be.
    pub fn notary_info_dir(&self) -> PathBuf {
        self.folder.notary_info()
    }

    /// Does what can be done now. The workers' requests are sent once the service is certified: a network that refuses the
    /// service is then not left with workers of nothing. They are sent together, so that they can be approved together.
    ///
    /// # Errors
    /// [`RegistrationError`]; what was done before stays, and a later call goes on from there.
    pub fn advance(&self, means: &Means<'_>) -> Result<Progress, RegistrationError> {
        self.folder.sweep()?;
        let mut waiting = Waiting::default();
        let service = match self.service(means, &mut waiting)? {
            Some(service) => service,
            None => return Ok(waiting.into_progress()),
        };
        // Once more, as the service key may be another one by now: its file was restored, or the token changed.
        let service_key = self.service_key(means)?;
        self.check_chain(&service, &self.plan.service, service_key.public_key(), Role::ServiceIdentity, means.now)?;
        let mut first = None;
        for worker in &self.plan.workers {
            if let Err(error) = self.worker(worker, &service, &service_key, means, &mut waiting) {
                // One rejected worker does not keep the others waiting.
                first.get_or_insert(error);
            }
        }
        match first {
            Some(error) => Err(error),
            None => Ok(waiting.into_progress()),
        }
    }

    fn service(&self, means: &Means<'_>, waiting: &mut Waiting) -> Result<Option<Certified>, RegistrationError> {
        if let Some(chain) = self.folder.service_chain()? {
            return Ok(Some(Certified { chain }));
        }
        let part = Part { folder: "service".into(), name: &self.plan.service, role: Role::ServiceIdentity };
        let made;
        let (public_key, sign): (&PublicKey, Sign<'_>) = match &means.service_key {
            ServiceKey::Elsewhere(public_key, sign) => (public_key, *sign),
            ServiceKey::File(scheme) => {
                made = self.folder.pending_key(&part.folder, *scheme, means.passphrase)?;
                (made.public_key(), &|bytes: &[u8]| Ok(made.sign(bytes)))
            }
        };
        let Some(certified) = self.certified(&part, public_key, sign, means, waiting)? else { return Ok(None) };
        self.folder.publish_service(&certified.to_pem(), matches!(means.service_key, ServiceKey::File(_)))?;
        (means.tell)(&format!("{}: certified as the service identity", part.name));
        Ok(Some(certified))
    }

    fn service_key<'m>(&self, means: &'m Means<'_>) -> Result<HeldServiceKey<'m>, RegistrationError> {
        Ok(match &means.service_key {
            ServiceKey::Elsewhere(public_key, sign) => HeldServiceKey::Elsewhere(public_key, *sign),
            ServiceKey::File(_) => HeldServiceKey::File(Box::new(self.folder.service_key(means.passphrase)?)),
        })
    }

    fn worker(
        &self,
        worker: &Worker,
        service: &Certified,
        service_key: &HeldServiceKey<'_>,
        means: &Means<'_>,
        waiting: &mut Waiting,
    ) -> Result<(), RegistrationError> {
        let short_name = worker.short_name();
        if !self.folder.has_worker(&short_name) {
            let Some(authority) = self.authority(worker, &short_name, means, waiting)? else { return Ok(()) };
            self.make_worker(worker, &authority, service, service_key, means)?;
            (means.tell)(&format!("{}: ready in {}", worker.name, self.folder.worker(&short_name).display()));
        }
        self.folder.copy_notary_info(&short_name)
    }

    /// The worker's own authority, once it is certified.
    fn authority(
        &self,
        worker: &Worker,
        short_name: &str,
        means: &Means<'_>,
        waiting: &mut Waiting,
    ) -> Result<Option<(PrivateKey, Certified)>, RegistrationError> {
        let part = Part { folder: short_name.to_owned(), name: &worker.name, role: Role::NodeCa };
        if let Some(chain) = self.folder.authority_chain(short_name)? {
            let (key, certified) = (self.folder.authority_key(short_name, means.passphrase)?, Certified { chain });
            self.check_chain(&certified, part.name, key.public_key(), part.role, means.now)?;
            return Ok(Some((key, certified)));
        }
        // P-256, as Corda's own: TLS certificates below it have to be understood by every peer's TLS.
        let scheme = SignatureScheme::EcdsaSecp256r1Sha256;
        let key = self.folder.pending_key(&part.folder, scheme, means.passphrase)?;
        let sign = |bytes: &[u8]| Ok(key.sign(bytes));
        let Some(certified) = self.certified(&part, key.public_key(), &sign, means, waiting)? else { return Ok(None) };
        self.folder.publish_authority(short_name, &certified.to_pem())?;
        (means.tell)(&format!("{}: its node CA is certified", part.name));
        Ok(Some((key, certified)))
    }

    /// The certificate of a pending key: asks for it if that was not done yet, then asks once what became of the request.
    fn certified(
        &self,
        part: &Part<'_>,
        public_key: &PublicKey,
        sign: Sign<'_>,
        means: &Means<'_>,
        waiting: &mut Waiting,
    ) -> Result<Option<Certified>, RegistrationError> {
        let refused = |error| RegistrationError::Manager { name: Box::new(part.name.clone()), error };
        let id = match self.folder.request_id(&part.folder)? {
            Some(id) => id,
            None => {
                let attributes = Attributes { email: &self.plan.email, role: part.role as u8 };
                let request = CertificationRequest::with_attributes(part.name, public_key, &attributes, sign)?;
                match means.manager.submit(&request) {
                    Ok(id) => {
                        self.folder.keep_request_id(&part.folder, &id)?;
                        (means.tell)(&format!("{}: requested as {}, id {}", part.name, part.role, id.as_str()));
                        id
                    }
                    Err(ManagerError::Unavailable(why)) => {
                        waiting.add(part.name, why, UNAVAILABLE_RETRY);
                        return Ok(None);
                    }
                    Err(error) => return Err(refused(error)),
                }
            }
        };
        let chain = match means.manager.retrieve(&id) {
            Ok(Answer::Issued(chain)) => chain,
            Ok(Answer::Pending(retry)) => {
                waiting.add(part.name, format!("request {} is not decided yet", id.as_str()), retry);
                return Ok(None);
            }
            Err(ManagerError::Unavailable(why)) => {
                waiting.add(part.name, why, UNAVAILABLE_RETRY);
                return Ok(None);
            }
            Err(error @ ManagerError::Rejected(_)) => {
                // As Corda's nodes: the next run asks again.
                self.folder.forget_request_id(&part.folder)?;
                return Err(refused(error));
            }
            Err(error) => return Err(refused(error)),
        };
        let mut certified = Certified { chain };
        // The manager may leave the root out; a chain with another root at its end fails below.
        let roots = |last: &Certificate| last.as_der() == self.root.as_der();
        if certified.chain.len() < PATH_LEN_MAX && !certified.chain.last().is_some_and(roots) {
            certified.chain.push(self.root.clone());
        }
        self.check_chain(&certified, part.name, public_key, part.role, means.now)?;
        Ok(Some(certified))
    }

    /// Whether the chain certifies that key for that name and role, below the root.
    fn check_chain(
        &self,
        certified: &Certified,
        name: &X500Name,
        public_key: &PublicKey,
        role: Role,
        now: Timestamp,
    ) -> Result<(), RegistrationError> {
        let check = || {
            let own = certified.chain.first().ok_or(ChainError::Empty)?;
            if own.public_key() != public_key {
                return Err(ChainError::Key);
            }
            let verified = verify_path(&certified.path().0, &self.root, Some(now), &[role])?;
            match verified.legal_name().map_err(PathError::from)? {
                found if found == *name => Ok(()),
                found => Err(ChainError::Name(found.to_string())),
            }
        };
        check().map_err(|error| {
            let error = Box::new(error);
            RegistrationError::Certificate { name: Box::new(name.clone()), error }
        })
    }

    /// Identity and TLS certificate by the worker's own authority, and the folder that goes to the worker.
    fn make_worker(
        &self,
        worker: &Worker,
        authority: &(PrivateKey, Certified),
        service: &Certified,
        service_key: &HeldServiceKey<'_>,
        means: &Means<'_>,
    ) -> Result<(), RegistrationError> {
        let identity_key = PrivateKey::generate(SignatureScheme::Ed25519)?;
        let identity = self.issue(
            worker,
            authority,
            identity_key.public_key(),
            Role::LegalIdentity,
            IDENTITY_VALID_SECONDS,
            means,
        )?;
        // Corda's TLS suites are for ECDSA and RSA.
        let tls_key = PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256)?;
        let tls = self.issue(worker, authority, tls_key.public_key(), Role::Tls, means.tls_valid_seconds, means)?;

        let node_info = self.node_info(worker, &identity, &identity_key, service, service_key, means)?;
        let unfinished = self.folder.unfinished()?;
        unfinished.secret("keys/identity.p8", &identity_key, means.passphrase)?;
        unfinished.secret("keys/tls.p8", &tls_key, means.passphrase)?;
        unfinished.file("certificates/identity.pem", identity.to_pem().as_bytes())?;
        unfinished.file("certificates/tls.pem", tls.to_pem().as_bytes())?;
        unfinished.file("certificates/service.pem", service.to_pem().as_bytes())?;
        if matches!(service_key, HeldServiceKey::File(_)) {
            unfinished.copy("keys/service.p8", &self.folder.service_key_file())?;
        }
        unfinished.file("network/root.pem", self.root.to_pem().as_bytes())?;
        unfinished.file(&format!("network/node-infos/{}", folder::node_info_name(&node_info)), &node_info)?;
        for (path, content) in (means.worker_files)(worker) {
            unfinished.file(&path.to_string_lossy(), content.as_bytes())?;
        }
        unfinished.publish(&self.folder.worker(&worker.short_name()))
    }

    fn issue(
        &self,
        worker: &Worker,
        (key, authority): &(PrivateKey, Certified),
        public_key: &PublicKey,
        role: Role,
        valid_seconds: i64,
        means: &Means<'_>,
    ) -> Result<Certified, RegistrationError> {
        let issuer = authority.chain.first().expect("it was checked");
        let now = means.now.seconds();
        // Never outside the issuer's own period.
        let (from, until) = issuer.validity;
        let validity = ((now - VALID_BEFORE_SECONDS).max(from), (now + valid_seconds).min(until));
        let request = Request { subject: &worker.name, public_key, role: Some(role), validity };
        let certified = authority.below(Authority::issue_with(issuer, key, &request)?);
        self.check_chain(&certified, &worker.name, public_key, role, means.now)?;
        Ok(certified)
    }

    /// The worker's signed node info: its own identity first, the service second, signed by both keys.
    fn node_info(
        &self,
        worker: &Worker,
        identity: &Certified,
        identity_key: &PrivateKey,
        service: &Certified,
        service_key: &HeldServiceKey<'_>,
        means: &Means<'_>,
    ) -> Result<Vec<u8>, RegistrationError> {
        let raw = wire::encode_node_info(&NodeInfo {
            addresses: worker.addresses.clone(),
            identities: vec![identity.path(), service.path()],
            platform_version: PLATFORM_VERSION,
            // As Corda: the time of making, in milliseconds.
            serial: means.now.as_millis(),
        });
        let by_service = service_key.sign(&raw).map_err(CsrError::Signature)?;
        let signatures = vec![identity_key.sign(&raw), by_service];
        let signed = wire::encode_signed_node_info(&SignedNodeInfo { raw, signatures });
        let failed =
            |error| RegistrationError::NodeInfo { name: Box::new(worker.name.clone()), error: Box::new(error) };
        verify_node_info(&signed, &self.root, means.now).map_err(failed)?;
        Ok(signed)
    }
}

/// The service key once it is certified.
enum HeldServiceKey<'a> {
    File(Box<PrivateKey>),
    Elsewhere(&'a PublicKey, Sign<'a>),
}

impl HeldServiceKey<'_> {
    fn public_key(&self) -> &PublicKey {
        match self {
            Self::File(key) => key.public_key(),
            Self::Elsewhere(public_key, _) => public_key,
        }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::File(key) => Ok(key.sign(bytes)),
            Self::Elsewhere(_, sign) => sign(bytes),
        }
    }
}

#[derive(Default)]
struct Waiting {
    parts: Vec<(X500Name, String)>,
    retry: Option<Duration>,
}

impl Waiting {
    fn add(&mut self, name: &X500Name, why: String, retry: Duration) {
        self.parts.push((name.clone(), why));
        self.retry = Some(self.retry.map_or(retry, |earlier| earlier.min(retry)));
    }

    fn into_progress(self) -> Progress {
        match self.retry {
            None => Progress::Done,
            Some(retry) => Progress::Waiting { parts: self.parts, retry },
        }
    }
}
