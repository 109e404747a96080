//! `notary network register`: the three steps of a highly available notary's registration, tracked in a folder.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::json;
use zeroize::Zeroizing;

use super::super::{ConfigSource, Exit, Failure};
use crate::config::{Faults, SecretRef, Settings, SignerKind};
use crate::domain::{PublicKey, SignatureScheme, X500Name};
use crate::hsm::pkcs11::Manager;
use crate::keys::file;
use crate::network::Certificate;
use crate::network::registration::{
    IdentityManager, ManagerError, ManagerOptions, Means, Plan, Progress, Registration, RegistrationError, ServiceKey,
    Worker, parse_address,
};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;
use crate::worker;

/// The passphrase's file within the registration folder, made if no other place is given.
const PASSPHRASE: &str = "passphrase";
/// Bytes of a random passphrase: 128 bits cannot be guessed.
const PASSPHRASE_LEN: usize = 16;

#[derive(Args, Debug)]
pub(crate) struct RegisterArguments {
    /// The registration's folder; made by the first run. It stays with the operator: it holds the workers' node CA keys.
    dir: PathBuf,
    /// The identity manager, as in Corda's networkServices.doormanURL.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The network's trust root (PEM), from a source that you trust.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The service's legal name, shared by all workers.
    #[arg(long, value_name = "X500_NAME")]
    service: Option<String>,
    /// A worker's own legal name and where peers reach it; may be repeated, and added to a finished registration.
    #[arg(long = "worker", value_name = "X500_NAME@HOST:PORT[,HOST:PORT]")]
    workers: Vec<String>,
    /// Whom the network's operators may write to.
    #[arg(long, default_value = "", hide_default_value = true)]
    email: String,
    /// Certificates of the authorities that may vouch for an https server (PEM), such as /etc/ssl/certs/ca-certificates.crt.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The submission token that a CENM network hands out, by reference (file:PATH, env:NAME, ...).
    #[arg(long, value_name = "REFERENCE")]
    submission_token: Option<String>,
    /// Encrypts the keys, by reference; without it, a random one in the folder's file `passphrase`.
    #[arg(long, value_name = "REFERENCE")]
    passphrase: Option<String>,
    /// The new service key's scheme. With --config the service key is the one that signing.* names, on a token for instance.
    #[arg(long, value_enum, default_value_t = Scheme::Ed25519)]
    scheme: Scheme,
    /// How long TLS certificates are valid, in days; at most as long as the worker's node CA. Corda's nodes take ten years.
    #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u16).range(1..=3650))]
    tls_days: u16,
    /// How long to wait for the network's operators, in seconds. Without waiting the verb does what it can now.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=604_800))]
    wait_s: u64,
    /// End with one line for machines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: ConfigSource,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Scheme {
    Ed25519,
    P256,
}

impl From<Scheme> for SignatureScheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Ed25519 => Self::Ed25519,
            Scheme::P256 => Self::EcdsaSecp256r1Sha256,
        }
    }
}

impl From<RegistrationError> for Failure {
    fn from(error: RegistrationError) -> Self {
        let exit = match &error {
            RegistrationError::Plan(_) => Exit::Usage,
            RegistrationError::Manager { .. } | RegistrationError::Certificate { .. } | RegistrationError::Csr(_) => {
                Exit::Negative
            }
            RegistrationError::NodeInfo { .. } | RegistrationError::Issue(_) => Exit::Fault,
            RegistrationError::File { .. } | RegistrationError::Secret(_) | RegistrationError::Key(_) => {
                Exit::Unavailable
            }
        };
        Self::new(exit, error)
    }
}

impl From<ManagerError> for Failure {
    fn from(error: ManagerError) -> Self {
        let exit = match error {
            ManagerError::Options(_) => Exit::Usage,
            ManagerError::Unavailable(_) => Exit::Unavailable,
            ManagerError::Rejected(_) | ManagerError::Refused(_) => Exit::Negative,
        };
        Self::new(exit, error)
    }
}

fn usage(problem: impl core::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, problem)
}

pub(crate) fn run(arguments: &RegisterArguments) -> Result<Exit, Failure> {
    let registration = registration(arguments)?;
    let manager = IdentityManager::new(&ManagerOptions {
        url: registration.plan().url.clone(),
        authorities: arguments.ca.clone(),
        token: arguments.submission_token.as_deref().map(|text| secret("--submission-token", text)).transpose()?,
    })?;
    let passphrase = passphrase(arguments)?;
    let elsewhere = service_key(&arguments.source)?;
    let sign = |bytes: &[u8]| elsewhere.as_ref().map_or(Err("no key".to_owned()), |key| key.sign(bytes));
    let plan = registration.plan().clone();
    let worker_files = |worker: &Worker| {
        vec![(PathBuf::from("notary.toml"), configuration(&plan.service, worker, elsewhere.is_some()))]
    };
    let tell = |line: &str| {
        if !arguments.json {
            println!("{line}");
        }
    };
    let until = Instant::now() + Duration::from_secs(arguments.wait_s);
    let mut told = Vec::new();
    let progress = loop {
        let progress = registration.advance(&Means {
            manager: &manager,
            passphrase: &passphrase,
            service_key: match &elsewhere {
                Some(key) => ServiceKey::Elsewhere(key.public_key().clone(), &sign),
                None => ServiceKey::File(arguments.scheme.into()),
            },
            tls_valid_seconds: i64::from(arguments.tls_days) * 86_400,
            now: SystemClock.now(),
            worker_files: &worker_files,
            tell: &tell,
        })?;
        match &progress {
            Progress::Waiting { parts, retry } if Instant::now() < until => {
                if told != *parts {
                    parts.iter().for_each(|(name, why)| tell(&format!("{name}: waiting: {why}")));
                    told.clone_from(parts);
                }
                std::thread::sleep((*retry).min(until.saturating_duration_since(Instant::now())));
            }
            _ => break progress,
        }
    };
    Ok(report(&registration, &progress, arguments))
}

/// The registration in the folder, with what the arguments add; a new one needs all of them.
fn registration(arguments: &RegisterArguments) -> Result<Registration, Failure> {
    let workers = arguments.workers.iter().map(|text| parse_worker(text)).collect::<Result<Vec<_>, _>>()?;
    let service = arguments.service.as_deref().map(|text| parse_name("--service", text)).transpose()?;
    let root = match &arguments.root {
        None => None,
        Some(path) => {
            let pem = std::fs::read_to_string(path)
                .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))?;
            Some(Certificate::from_pem(&pem).map_err(|error| usage(format!("{}: {error}", path.display())))?)
        }
    };
    let kept = Registration::open(&arguments.dir)?;
    let (plan, root) = match (kept.map(Registration::into_parts), &arguments.url, service, root) {
        (Some((kept, kept_root)), url, service, root) => {
            let plan = Plan {
                url: url.clone().unwrap_or(kept.url),
                email: if arguments.email.is_empty() { kept.email } else { arguments.email.clone() },
                service: service.unwrap_or(kept.service),
                workers,
            };
            (plan, root.unwrap_or(kept_root))
        }
        (None, Some(url), Some(service), Some(root)) => {
            if workers.is_empty() {
                return Err(usage("a new registration needs a worker: --worker 'O=…, L=…, C=…@HOST:PORT'"));
            }
            (Plan { url: url.clone(), email: arguments.email.clone(), service, workers }, root)
        }
        (None, ..) => return Err(usage("a new registration needs --url, --root, --service and --worker")),
    };
    Ok(Registration::begin(&arguments.dir, plan, &root)?)
}

fn parse_name(what: &str, text: &str) -> Result<X500Name, Failure> {
    X500Name::parse(text).map_err(|error| usage(format!("{what}: {text:?} is no legal name: {error}")))
}

fn parse_worker(text: &str) -> Result<Worker, Failure> {
    let (name, addresses) =
        text.rsplit_once('@').ok_or_else(|| usage(format!("--worker: {text:?} is not X500_NAME@HOST:PORT")))?;
    let address = |text: &str| parse_address(text).ok_or_else(|| usage(format!("--worker: {text:?} is not HOST:PORT")));
    let addresses = addresses.split(',').map(address).collect::<Result<_, _>>()?;
    Ok(Worker { name: parse_name("--worker", name)?, addresses })
}

fn secret(what: &str, reference: &str) -> Result<Zeroizing<String>, Failure> {
    // Not repeated, as it may be the secret itself.
    let fetched = SecretRef::parse(reference).and_then(|reference| reference.fetch());
    fetched.map_err(|error| usage(format!("{what}: {error}")))
}

fn passphrase(arguments: &RegisterArguments) -> Result<Zeroizing<String>, Failure> {
    if let Some(reference) = &arguments.passphrase {
        return secret("--passphrase", reference);
    }
    let path = arguments.dir.join(PASSPHRASE);
    if !path.exists() {
        let mut bytes = Zeroizing::new([0; PASSPHRASE_LEN]);
        getrandom::fill(&mut *bytes)?;
        file::create(&path, Zeroizing::new(format!("{}\n", hex::encode(*bytes))).as_bytes())?;
    }
    Ok(Zeroizing::new(file::read(&path)?.trim_end_matches('\n').to_owned()))
}

/// A service key that is there already.
enum KeyElsewhere {
    File(crate::keys::PrivateKey),
    Token { manager: Manager, token: String, public_key: PublicKey },
}

impl KeyElsewhere {
    fn public_key(&self) -> &PublicKey {
        match self {
            Self::File(key) => key.public_key(),
            Self::Token { public_key, .. } => public_key,
        }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::File(key) => Ok(key.sign(bytes)),
            Self::Token { manager, token, .. } => {
                let session = manager.session(token).map_err(|error| error.to_string())?;
                session.sign(bytes).map_err(|error| error.to_string())
            }
        }
    }
}

/// The service key that the configuration names, if there is a configuration.
fn service_key(source: &ConfigSource) -> Result<Option<KeyElsewhere>, Failure> {
    if source.config.is_none() && source.set.is_empty() {
        return Ok(None);
    }
    let settings: Settings = source.load()?.settings;
    Ok(Some(match settings.signing.kind {
        SignerKind::File | SignerKind::KeyStore => {
            let key = worker::service_key_in_memory(&settings)?;
            KeyElsewhere::File(key.expect("asked only where the key is not on a token"))
        }
        SignerKind::Pkcs11 => {
            let options = worker::token_options(&settings).map_err(|faults| Failure::from(Faults(faults)))?;
            let token = options.tokens[0].clone();
            let manager = Manager::new(options)?;
            let public_key = manager.session(&token)?.public_key()?;
            KeyElsewhere::Token { manager, token, public_key }
        }
    }))
}

/// The worker's configuration: names, addresses, where its keys are. Broker, store and the rest have their defaults.
fn configuration(service: &X500Name, worker: &Worker, key_elsewhere: bool) -> String {
    // A JSON string is a TOML string.
    let quoted = |text: &dyn core::fmt::Display| json!(text.to_string()).to_string();
    let addresses: Vec<_> = worker.addresses.iter().map(ToString::to_string).collect();
    let port = worker.addresses.first().map_or(10_002, |address| address.port);
    let mut out = format!(
        "# A worker of {service}, as `notary network register` made it. `notary config show` tells every setting.\n\
         # Bring the passphrase of the keys to keys/passphrase (mode 600) by another way than these files.\n\n\
         [worker]\nname = {}\n\n[service]\nname = {}\n\n[network]\n# Its network-parameters come from the network's operators.\ndir = \"network\"\n\n\
         [broker]\nkind = \"p2p\"\n\n[p2p]\nlisten = \"0.0.0.0:{port}\"\naddresses = {}\n\
         tls_certificate = \"certificates/tls.pem\"\ntls_key = \"keys/tls.p8\"\ntls_passphrase = \"file:keys/passphrase\"\n\n\
         [signing]\n",
        quoted(&worker.name),
        quoted(service),
        quoted(&addresses.join(",")),
    );
    match key_elsewhere {
        true => out.push_str("# As in the configuration that the service was registered with:\n# kind, module, tokens, pin, key_label, ...\n"),
        false => {
            let _ = writeln!(out, "kind = \"file\"\nkey = \"keys/service.p8\"\npassphrase = \"file:keys/passphrase\"");
        }
    }
    out
}

fn report(registration: &Registration, progress: &Progress, arguments: &RegisterArguments) -> Exit {
    let plan = registration.plan();
    let ready = |worker: &&Worker| registration.worker_dir(worker).exists();
    let exit = match progress {
        Progress::Done => Exit::Done,
        Progress::Waiting { .. } => Exit::Unavailable,
    };
    let waiting: &[(X500Name, String)] = match progress {
        Progress::Done => &[],
        Progress::Waiting { parts, .. } => parts,
    };
    if arguments.json {
        let workers = plan.workers.iter().map(|worker| {
            let folder = ready(&worker).then(|| registration.worker_dir(worker).display().to_string());
            json!({ "name": worker.name.to_string(), "folder": folder })
        });
        let waiting = waiting.iter().map(|(name, why)| json!({ "name": name.to_string(), "why": why }));
        println!(
            "{}",
            json!({
                "done": exit == Exit::Done,
                "service": plan.service.to_string(),
                "workers": workers.collect::<Vec<_>>(),
                "waiting": waiting.collect::<Vec<_>>(),
                "notaryInfo": registration.notary_info_dir().display().to_string(),
            })
        );
        return exit;
    }
    match progress {
        Progress::Waiting { .. } => {
            waiting.iter().for_each(|(name, why)| println!("{name}: waiting: {why}"));
            println!("run it again to go on:  notary network register {}", arguments.dir.display());
        }
        Progress::Done => {
            println!("1 and 2 are done: {} and {} workers are registered", plan.service, plan.workers.len());
            for worker in &plan.workers {
                println!("   {}: take {} to its machine", worker.name, registration.worker_dir(worker).display());
            }
            println!(
                "3 is the network operators': give them one file of {}; in their network parameters it is\n   \
                 notaries : [ {{ notaryNodeInfoFile = \"{}\", validating = false }} ]",
                registration.notary_info_dir().display(),
                first_file(&registration.notary_info_dir()),
            );
            println!(
                "then bring network-parameters and node infos to each worker's network/, and:  notary run --config notary.toml"
            );
        }
    }
    exit
}

fn first_file(dir: &Path) -> String {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names.first().map_or_else(|| "nodeInfo-…".to_owned(), |name| name.to_string_lossy().into_owned())
}
