//! Development networks: everything a notary and its clients need to find each other and to be believed, made in one go and
//! thrown away afterwards. All keys are new and random. No key of a real network is handled here.
//!
//! ```text
//! <dir>/                            closed to everybody else
//!   network/                        what a worker reads, see `FileNetworkMap`
//!     root.pem  network-parameters  historic-parameters/  node-infos/nodeInfo-{worker,alice,bob,…}
//!     sasl-users                    one line a party: <salt>:<SHA-256 of salt and secret>, both hex, a space, its legal name
//!     callers.toml                  who a broker user is: `<short name> = "<legal name>"`, one line a party
//!   keys/
//!     service.p8  worker.p8         the service key and the worker's own identity key, encrypted PKCS#8; further workers
//!                                   have worker-2.p8, worker-3.p8, …
//!     passphrase                    opens them
//!   parties/<short name>/           what a client of the party needs
//!     name                          its legal name
//!     identity.p8                   its identity key, PKCS#8 in the clear
//!     sasl-secret                   its secret for the embedded AMQP endpoint; its user there is its legal name
//!   authorities/                    {root,identity,parameters}.p8, to let the network grow: in the clear, throw-away
//! ```
//!
//! The worker keeps digests of the parties' secrets only. One SHA-256 is enough for those, because they are random and long.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::authorities::{Authorities, Rules, path, sign_node_info};
use super::certificate::Role;
use super::files::{HISTORIC_PARAMETERS, NODE_INFO_PREFIX, NODE_INFOS, PARAMETERS, ROOT};
use super::issue::IssueError;
use crate::domain::network::HostAndPort;
use crate::domain::party::NameError;
use crate::domain::{Party, SignatureScheme, Timestamp, X500Name};
use crate::keys::file::{self, SecretFileError};
use crate::keys::{PrivateKey, PrivateKeyError, random};

/// Parties that can be asked for: enough for every demonstration, and made in a second or two.
pub const PARTIES_MAX: usize = 100;
/// Workers that can be asked for.
pub const WORKERS_MAX: usize = 16;
/// Random bytes of a secret: 128 bits cannot be guessed, and are twice as many letters in hex.
const SECRET_LEN: usize = 16;

const NETWORK: &str = "network";
const SASL_USERS: &str = "network/sasl-users";
const CALLERS: &str = "network/callers.toml";
const SERVICE_KEY: &str = "keys/service.p8";
const WORKER_KEY: &str = "keys/worker.p8";
const PASSPHRASE: &str = "keys/passphrase";
const PARTIES: &str = "parties";
const PARTY_NAME: &str = "name";
const PARTY_KEY: &str = "identity.p8";
const PARTY_SECRET: &str = "sasl-secret";

/// The first parties; further ones are numbered. The short name is the organisation's first word in small letters.
const PARTY_NAMES: [(&str, &str, &str); 8] = [
    ("Alice Corp", "Madrid", "ES"),
    ("Bob Plc", "Rome", "IT"),
    ("Charlie Ltd", "London", "GB"),
    ("Dora AG", "Vienna", "AT"),
    ("Emil GmbH", "Berlin", "DE"),
    ("Fatima SA", "Lisbon", "PT"),
    ("Gustav AB", "Stockholm", "SE"),
    ("Hanako KK", "Tokyo", "JP"),
];

/// What a development network shall be like.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many parties, at most [`PARTIES_MAX`]: Alice Corp, Bob Plc, Charlie Ltd, …
    pub parties: usize,
    /// How many workers serve the notary service, at most [`WORKERS_MAX`].
    pub workers: usize,
    /// Scheme of the service key: Ed25519 or ECDSA P-256.
    pub service_scheme: SignatureScheme,
    /// Where the first worker's node info says that it listens; the others follow on the next ports.
    pub worker_address: HostAndPort,
    /// The lowest platform version allowed. From 4 on, transactions have to name network parameters.
    pub minimum_platform_version: i32,
    /// The moment of making: certificates begin a day before, parameters bear it.
    pub now: Timestamp,
}

impl Spec {
    /// Three parties, an Ed25519 service key, and the rules of Corda 4.
    pub fn new(now: Timestamp) -> Self {
        Self {
            parties: 3,
            workers: 1,
            service_scheme: SignatureScheme::Ed25519,
            worker_address: HostAndPort { host: "127.0.0.1".into(), port: 10_002 },
            minimum_platform_version: 4,
            now,
        }
    }
}

/// A development network on disk.
#[derive(Clone, Debug)]
pub struct DevelopmentNetwork {
    dir: PathBuf,
}

/// One party with all its secrets, as a client of its uses them.
#[derive(Debug)]
pub struct PartyAccount {
    /// Its directory's name, such as `alice`.
    pub short_name: String,
    /// Its legal name and public key.
    pub party: Party,
    /// Its identity key; request signatures are by this.
    pub key: PrivateKey,
    /// Its user at the embedded AMQP endpoint: the legal name.
    pub sasl_user: String,
    /// Its secret there.
    pub sasl_secret: Secret,
}

/// Text that is wiped when dropped, and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Zeroizing<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What the worker knows of a party's secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SaslUser {
    /// The user: the party's legal name.
    pub name: X500Name,
    /// `<salt>:<digest>`, both in hex; the digest is SHA-256 of salt and secret.
    pub secret_digest: String,
}

/// Why a development network cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// The directory is not empty; nothing is overwritten.
    #[error("{} is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// More than [`PARTIES_MAX`] parties.
    #[error("at most {PARTIES_MAX} parties can be made")]
    TooManyParties,
    /// None, or more than [`WORKERS_MAX`] workers.
    #[error("1 to {WORKERS_MAX} workers can be made")]
    Workers,
    /// The operating system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// The refusal.
        error: io::Error,
    },
    /// A secret cannot be kept, or read.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] PrivateKeyError),
    /// A certificate cannot be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A legal name in a file is none.
    #[error("{}: {error}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: NameError,
    },
    /// A line of `sasl-users` has another form.
    #[error("{}: line {line} is not `<salt>:<digest> <legal name>`", path.display())]
    SaslUsers {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

impl DevelopmentNetwork {
    /// Makes a network in `dir`, which must be empty or not exist; its parent must exist. It appears complete or not at all.
    ///
    /// # Errors
    /// [`DevelopmentError`]; then nothing is left behind.
    pub fn create(dir: &Path, spec: &Spec) -> Result<Self, DevelopmentError> {
        if spec.parties > PARTIES_MAX {
            return Err(DevelopmentError::TooManyParties);
        }
        if spec.workers == 0 || spec.workers > WORKERS_MAX {
            return Err(DevelopmentError::Workers);
        }
        appear(dir, |unfinished| make(unfinished, spec))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Names an existing network; files are opened when they are asked for.
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The directory for `FileNetworkMap::load`.
    pub fn network_dir(&self) -> PathBuf {
        self.dir.join(NETWORK)
    }

    /// The file of the service key, for `FileKey::load`.
    pub fn service_key_file(&self) -> PathBuf {
        self.dir.join(SERVICE_KEY)
    }

    /// The file of the worker's own identity key, encrypted like the service key.
    pub fn worker_key_file(&self) -> PathBuf {
        self.dir.join(WORKER_KEY)
    }

    /// The file with the passphrase of both.
    pub fn passphrase_file(&self) -> PathBuf {
        self.dir.join(PASSPHRASE)
    }

    /// The passphrase of both keys.
    ///
    /// # Errors
    /// [`DevelopmentError::Secret`].
    pub fn passphrase(&self) -> Result<Zeroizing<String>, DevelopmentError> {
        Ok(read_line(&self.passphrase_file())?)
    }

    /// The parties with all their secrets, in the order of their short names.
    ///
    /// # Errors
    /// [`DevelopmentError`] if a file is missing or damaged.
    pub fn parties(&self) -> Result<Vec<PartyAccount>, DevelopmentError> {
        let parties = self.dir.join(PARTIES);
        let fail = |error| DevelopmentError::Io { path: parties.clone(), error };
        let mut names = Vec::new();
        for entry in fs::read_dir(&parties).map_err(fail)?.take(PARTIES_MAX) {
            names.push(entry.map_err(fail)?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        names.iter().map(|name| self.party(name)).collect()
    }

    /// One party with all its secrets, by its short name, such as `alice`.
    ///
    /// # Errors
    /// [`DevelopmentError`] if there is none, or a file is missing or damaged.
    pub fn party(&self, short_name: &str) -> Result<PartyAccount, DevelopmentError> {
        let dir = self.dir.join(PARTIES).join(short_name);
        let path = dir.join(PARTY_NAME);
        let sasl_user = file::read(&path)?.trim_end().to_owned();
        let name = X500Name::parse(&sasl_user).map_err(|error| DevelopmentError::Name { path, error })?;
        let key = file::load_plain(&dir.join(PARTY_KEY))?;
        let sasl_secret = Secret(read_line(&dir.join(PARTY_SECRET))?);
        let party = Party { name, owning_key: key.public_key().clone() };
        Ok(PartyAccount { short_name: short_name.to_owned(), party, key, sasl_user, sasl_secret })
    }

    /// What the worker knows of the parties' secrets.
    ///
    /// # Errors
    /// [`DevelopmentError`] if the file is missing or damaged.
    pub fn sasl_users(&self) -> Result<Vec<SaslUser>, DevelopmentError> {
        read_sasl_users(&self.dir.join(SASL_USERS))
    }
}

/// Reads a file of users and digests of their secrets.
///
/// # Errors
/// [`DevelopmentError`] if the file is missing or damaged.
pub fn read_sasl_users(path: &Path) -> Result<Vec<SaslUser>, DevelopmentError> {
    let text = file::read(path)?;
    let read = |(i, line): (usize, &str)| {
        let broken = || DevelopmentError::SaslUsers { path: path.to_owned(), line: i + 1 };
        let (secret_digest, name) = line.split_once(' ').ok_or_else(broken)?;
        let name = X500Name::parse(name).map_err(|_| broken())?;
        Ok(SaslUser { name, secret_digest: secret_digest.to_owned() })
    };
    text.lines().enumerate().map(read).collect()
}

/// A secret on one line; the line's end does not belong to it.
fn read_line(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    Ok(Zeroizing::new(file::read(path)?.trim_end_matches('\n').to_owned()))
}

fn make(dir: &Path, spec: &Spec) -> Result<(), DevelopmentError> {
    for subdir in ["", NETWORK, "keys", PARTIES, "authorities"] {
        make_dir(&dir.join(subdir))?;
    }
    let issuers = Authorities::make(spec.now)?;
    let network = dir.join(NETWORK);
    for subdir in [NODE_INFOS, HISTORIC_PARAMETERS] {
        make_dir(&network.join(subdir))?;
    }
    file::create(&network.join(ROOT), issuers.root.certificate.to_pem().as_bytes())?;
    for (name, authority) in
        [("root", &issuers.root), ("identity", &issuers.identity), ("parameters", &issuers.parameters)]
    {
        file::save_plain(&dir.join(format!("authorities/{name}.p8")), &authority.key)?;
    }

    let passphrase = Zeroizing::new(secret()?);
    file::create(&dir.join(PASSPHRASE), format!("{}\n", *passphrase).as_bytes())?;
    let service_key = PrivateKey::generate(spec.service_scheme)?;
    file::save_encrypted(&dir.join(SERVICE_KEY), &service_key, &passphrase)?;
    let service =
        Party { name: known_name("Notary Service", "Zurich", "CH"), owning_key: service_key.public_key().clone() };
    // Nobody serves it; it is there to move states to, as a notary change needs a second notary on the list.
    let other_notary = Party {
        name: known_name("Other Notary", "London", "GB"),
        owning_key: PrivateKey::generate(SignatureScheme::Ed25519)?.public_key().clone(),
    };
    let node_info = |short_name: &str| network.join(NODE_INFOS).join(format!("{NODE_INFO_PREFIX}{short_name}"));
    for n in 1..=spec.workers {
        let (name, short_name, key_file) = worker(n);
        let key = PrivateKey::generate(SignatureScheme::Ed25519)?;
        file::save_encrypted(&dir.join(key_file), &key, &passphrase)?;
        let identity = issuers.node(&name)?.issue(key.public_key(), Role::LegalIdentity)?;
        let paths = [path(&identity), path(&issuers.service_identity(&service)?)];
        // The number of workers is small, and the ports are only named.
        let port = spec.worker_address.port.saturating_add((n - 1) as _);
        let address = HostAndPort { port, ..spec.worker_address.clone() };
        file::create(&node_info(&short_name), &sign_node_info(spec.now, address, paths.into(), &[&key, &service_key]))?;
    }

    let (mut sasl_users, mut callers) = (String::new(), String::new());
    for n in 0..spec.parties {
        let (short_name, name, scheme) = party(n);
        let key = PrivateKey::generate(scheme)?;
        let account = dir.join(PARTIES).join(&short_name);
        make_dir(&account)?;
        file::create(&account.join(PARTY_NAME), format!("{name}\n").as_bytes())?;
        file::save_plain(&account.join(PARTY_KEY), &key)?;
        let secret = Zeroizing::new(secret()?);
        file::create(&account.join(PARTY_SECRET), format!("{}\n", *secret).as_bytes())?;
        sasl_users.push_str(&format!("{} {name}\n", digest(&secret)?));
        callers.push_str(&format!("{short_name} = \"{name}\"\n"));
        // Clients of a development network do not listen; a node info must name an address all the same.
        let address = HostAndPort { host: format!("{short_name}.invalid"), port: 10_002 };
        let identity = issuers.node(&name)?.issue(key.public_key(), Role::LegalIdentity)?;
        file::create(&node_info(&short_name), &sign_node_info(spec.now, address, vec![path(&identity)], &[&key]))?;
    }
    file::create(&dir.join(SASL_USERS), sasl_users.as_bytes())?;
    file::create(&dir.join(CALLERS), callers.as_bytes())?;
    let rules = Rules { minimum_platform_version: spec.minimum_platform_version, ..Rules::default() };
    let parameters = issuers.sign_parameters(&rules, spec.now, [service, other_notary].into());
    file::create(&network.join(PARAMETERS), &parameters)?;
    Ok(())
}

/// Worker number `n`, from 1: its legal name, its short name and where its key is kept.
pub fn worker(n: usize) -> (X500Name, String, String) {
    let suffix = if n == 1 { String::new() } else { format!("-{n}") };
    let name = known_name(&format!("Notary Worker {n}"), "Zurich", "CH");
    (name, format!("worker{suffix}"), format!("keys/worker{suffix}.p8"))
}

/// Makes the directory `dir`, which must be empty or not exist, by `make`: complete or not at all.
pub(super) fn appear<E>(dir: &Path, make: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E>
where
    E: From<DevelopmentError>,
{
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |error| E::from(DevelopmentError::Io { path, error })
    };
    match fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(false) => return Err(DevelopmentError::NotEmpty(dir.to_owned()).into()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(dir)(error)),
        Ok(true) | Err(_) => {}
    }
    let name = dir.file_name().ok_or_else(|| fail(dir)(io::ErrorKind::InvalidInput.into()))?;
    let mut suffix = [0; 8];
    random(&mut suffix).map_err(DevelopmentError::from)?;
    let unfinished = dir.with_file_name(format!(".{}.{}", name.display(), hex::encode(suffix)));
    // Renaming onto an empty directory replaces it; onto one that somebody filled meanwhile, it fails.
    let made = make(&unfinished).and_then(|()| fs::rename(&unfinished, dir).map_err(fail(dir)));
    if made.is_err() {
        // What cannot be removed is at least not taken for a network: its name begins with a dot.
        let _ = fs::remove_dir_all(&unfinished);
    }
    made
}

pub(super) fn make_dir(path: &Path) -> Result<(), DevelopmentError> {
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|error| DevelopmentError::Io { path: path.to_owned(), error })
}

/// A random secret of [`SECRET_LEN`] bytes, in hex.
pub(super) fn secret() -> Result<String, PrivateKeyError> {
    let mut bytes = Zeroizing::new([0; SECRET_LEN]);
    random(&mut *bytes)?;
    Ok(hex::encode(*bytes))
}

/// What the worker keeps of a secret: a salt and the SHA-256 of salt and secret.
fn digest(secret: &str) -> Result<String, PrivateKeyError> {
    let mut salt = [0; 16];
    random(&mut salt)?;
    let digest = Sha256::new().chain_update(salt).chain_update(secret).finalize();
    Ok(format!("{}:{}", hex::encode(salt), hex::encode(digest)))
}

pub(super) fn known_name(organisation: &str, locality: &str, country: &str) -> X500Name {
    X500Name::new(organisation, locality, country).expect("constant and valid")
}

/// Short name, legal name and key scheme of the party number `n`, from 0. Bob has a P-256 key, so that both schemes occur.
pub(super) fn party(n: usize) -> (String, X500Name, SignatureScheme) {
    let scheme = if n == 1 { SignatureScheme::EcdsaSecp256r1Sha256 } else { SignatureScheme::Ed25519 };
    match PARTY_NAMES.get(n) {
        Some((organisation, locality, country)) => {
            let first = organisation.split(' ').next().unwrap_or(organisation);
            (first.to_lowercase(), known_name(organisation, locality, country), scheme)
        }
        None => {
            let organisation = format!("Party {:03} Ltd", n + 1);
            (format!("party-{:03}", n + 1), known_name(&organisation, "Oslo", "NO"), scheme)
        }
    }
}
