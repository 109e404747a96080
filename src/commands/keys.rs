//! `notary keys`: make, list, move and test the service key. `signing.kind` says where it lies: on PKCS#11 tokens or in a file.
//!
//! Secrets come by reference only (`signing.pin`, `signing.passphrase`, `--passphrase`), and are never printed.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{ConfigSource, Exit, Failure, table};
use crate::config::{Faults, SecretRef, Settings, SignerKind};
use crate::domain::{PublicKey, SignatureScheme, X500Name};
use crate::hsm::FileKey;
use crate::hsm::pkcs11::{self, Conformance, Imported, KeyPlace, ManageError, Manager};
use crate::keys::PrivateKey;
use crate::keys::csr::{CertificationRequest, CsrError};
use crate::keys::file::{self, SecretFileError};
use crate::ports::Finding;
use crate::ports::finding::Severity;
use crate::worker;

#[derive(Args, Debug)]
pub(crate) struct KeysArguments {
    #[command(subcommand)]
    verb: KeysVerb,
}

#[derive(Subcommand, Debug)]
enum KeysVerb {
    /// Make the service key: on a token, where it stays for ever and only signs, or in an encrypted file.
    Generate {
        /// The key's scheme; a key file holds ed25519 or p256.
        #[arg(long, value_enum, default_value_t = Scheme::Ed25519)]
        scheme: Scheme,
        /// The token; without it, the first of signing.tokens.
        #[arg(long, value_name = "LABEL")]
        token: Option<String>,
        #[command(flatten)]
        source: ConfigSource,
    },
    /// List tokens and the private keys on them, or the key in the file.
    List {
        /// For machines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: ConfigSource,
    },
    /// Print a certification request (PKCS#10) for the service key, signed by it.
    Csr {
        /// The legal name to certify; without it, service.name.
        #[arg(long, value_name = "X500_NAME")]
        name: Option<String>,
        /// Write DER to this file instead of PEM to standard output.
        #[arg(long, value_name = "FILE")]
        der: Option<PathBuf>,
        /// The token; without it, the first of signing.tokens.
        #[arg(long, value_name = "LABEL")]
        token: Option<String>,
        #[command(flatten)]
        source: ConfigSource,
    },
    /// Copy a key from a PKCS#8 file onto tokens. It existed outside: make a new one on a token wherever you can.
    Import {
        /// The file (PEM, Ed25519 or ECDSA P-256).
        file: PathBuf,
        /// The file's passphrase, by reference (file:PATH, env:NAME, ...); without it the file must not be encrypted.
        #[arg(long, value_name = "REFERENCE")]
        passphrase: Option<String>,
        /// The token; without it, all of signing.tokens, so that they hold one key.
        #[arg(long, value_name = "LABEL")]
        token: Option<String>,
        #[command(flatten)]
        source: ConfigSource,
    },
    /// Put the key through what the worker will ask of it, and measure. Any vendor's module can be tried with it.
    Test {
        /// How many messages to have signed by each token.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: u32,
        /// For machines.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        source: ConfigSource,
    },
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Scheme {
    Ed25519,
    P256,
    Secp256k1,
    /// RSA with 3072 bits.
    Rsa,
}

impl From<Scheme> for SignatureScheme {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Ed25519 => Self::Ed25519,
            Scheme::P256 => Self::EcdsaSecp256r1Sha256,
            Scheme::Secp256k1 => Self::EcdsaSecp256k1Sha256,
            Scheme::Rsa => Self::RsaSha256,
        }
    }
}

impl From<ManageError> for Failure {
    fn from(error: ManageError) -> Self {
        let exit = match error {
            ManageError::Unavailable(_) | ManageError::Exists { .. } => Exit::Unavailable,
            ManageError::Pin(_) => Exit::Usage,
            ManageError::Refused(_) => Exit::Negative,
        };
        Self::new(exit, error)
    }
}

impl From<SecretFileError> for Failure {
    fn from(error: SecretFileError) -> Self {
        Self::unavailable(error)
    }
}

impl From<CsrError> for Failure {
    fn from(error: CsrError) -> Self {
        Self::new(Exit::Negative, error)
    }
}

pub(crate) fn run(arguments: &KeysArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        KeysVerb::Generate { scheme, token, source } => {
            let settings = source.load()?.settings;
            match settings.signing.kind {
                SignerKind::File => generate_in_file(&settings, (*scheme).into()),
                SignerKind::KeyStore => Err(Failure::new(Exit::Usage, IN_KEY_STORES)),
                SignerKind::Pkcs11 => generate_on_token(&settings, (*scheme).into(), token.as_deref()),
            }
        }
        KeysVerb::List { json, source } => {
            let settings = source.load()?.settings;
            match settings.signing.kind {
                SignerKind::File | SignerKind::KeyStore => list_file(&settings, *json),
                SignerKind::Pkcs11 => list_tokens(&settings, *json),
            }
        }
        KeysVerb::Csr { name, der, token, source } => {
            let settings = source.load()?.settings;
            let name = name.as_deref().unwrap_or(&settings.service.name);
            let name = X500Name::parse(name)
                .map_err(|error| Failure::new(Exit::Usage, format!("{name:?} is no legal name: {error}")))?;
            let request = request(&settings, &name, token.as_deref())?;
            match der {
                None => print!("{}", request.to_pem()),
                Some(path) => std::fs::write(path, request.as_der())
                    .map_err(|error| Failure::unavailable(format!("{}: {error}", path.display())))?,
            }
            Ok(Exit::Done)
        }
        KeysVerb::Import { file, passphrase, token, source } => {
            let settings = source.load()?.settings;
            import(&settings, file, passphrase.as_deref(), token.as_deref())
        }
        KeysVerb::Test { count, json, source } => {
            let settings = source.load()?.settings;
            let found = match settings.signing.kind {
                SignerKind::File | SignerKind::KeyStore => test_file(&settings, *count as usize)?,
                SignerKind::Pkcs11 => {
                    let options = token_options(&settings)?;
                    let runtime = worker::runtime(0).map_err(Failure::unavailable)?;
                    runtime.block_on(pkcs11::conformance(&options, *count as usize, runtime.handle()))
                }
            };
            Ok(report(&found, *json))
        }
    }
}

fn token_options(settings: &Settings) -> Result<pkcs11::Options, Failure> {
    worker::token_options(settings).map_err(|faults| Failure::from(Faults(faults)))
}

/// The module, and the token to work on: the one asked for, or the first that the settings name.
fn manager(settings: &Settings, token: Option<&str>) -> Result<(Manager, String), Failure> {
    let options = token_options(settings)?;
    let token = token.map_or_else(|| options.tokens[0].clone(), str::to_owned);
    Ok((Manager::new(options)?, token))
}

fn passphrase(settings: &Settings) -> Result<Zeroizing<String>, Failure> {
    let fetched = settings.signing.passphrase.fetch();
    fetched.map_err(|error| Failure::new(Exit::Usage, format!("signing.passphrase: {error}")))
}

fn key_in_file(settings: &Settings) -> Result<PrivateKey, Failure> {
    let key = worker::service_key_in_memory(settings)?;
    Ok(key.expect("asked only where the key is not on a token"))
}

/// Why there is no making of keys in key stores.
const IN_KEY_STORES: &str = "signing.kind is keystore: key stores are only read. Make a key with `notary network register`, with \
                             signing.kind = \"file\" or \"pkcs11\", or with keytool";

fn name(key: &PublicKey) -> String {
    format!("{} {}", key.scheme().name(), key.name_hash())
}

fn generate_in_file(settings: &Settings, scheme: SignatureScheme) -> Result<Exit, Failure> {
    let path = &settings.signing.key;
    let key = FileKey::generate(path, scheme, &passphrase(settings)?)?;
    println!("made {} in {}", name(&key), path.display());
    println!("whoever copies the file and its passphrase has the key; on a token it could not be copied");
    Ok(Exit::Done)
}

fn generate_on_token(settings: &Settings, scheme: SignatureScheme, token: Option<&str>) -> Result<Exit, Failure> {
    let (manager, token) = manager(settings, token)?;
    let (key, place) = manager.session(&token)?.generate(scheme)?;
    println!("made {} on token {token:?} with {place}; it does not leave the token and only signs", name(&key));
    println!("for a second token clone it by the vendor's means; then: notary keys test, notary keys csr");
    Ok(Exit::Done)
}

fn list_file(settings: &Settings, json: bool) -> Result<Exit, Failure> {
    let key = key_in_file(settings)?;
    let signing = &settings.signing;
    let path = if signing.kind == SignerKind::KeyStore { &signing.keystore } else { &signing.key };
    let (path, key) = (path.display(), key.public_key());
    match json {
        true => println!("{}", json!({ "file": path.to_string(), "key": key_json(key) })),
        false => println!("{path}: {}", name(key)),
    }
    Ok(Exit::Done)
}

fn key_json(key: &PublicKey) -> Value {
    json!({ "scheme": key.scheme().name(), "nameHash": key.name_hash(), "spki": hex::encode(key.as_spki()) })
}

fn list_tokens(settings: &Settings, json: bool) -> Result<Exit, Failure> {
    let options = token_options(settings)?;
    let wanted = options.key.clone();
    let (tokens, manager) = (options.tokens.clone(), Manager::new(options)?);
    let present = manager.tokens()?;
    let (mut rows, mut lines, mut problem) = (Vec::new(), Vec::new(), false);
    for token in &present {
        // The PIN is for the tokens that the settings name: on any other it could count as a wrong try.
        if !token.named {
            rows.push(vec![
                token.label.clone(),
                "".into(),
                "".into(),
                format!("not named in the settings; {}", token.device),
            ]);
            lines.push(json!({ "token": token.label, "device": token.device, "named": false }));
            continue;
        }
        let keys = manager.session(&token.label).and_then(|session| session.keys());
        match keys {
            Err(error) => {
                problem = true;
                rows.push(vec![token.label.clone(), "".into(), "".into(), error.to_string()]);
                lines.push(json!({ "token": token.label, "device": token.device, "error": error.to_string() }));
            }
            Ok(keys) if keys.is_empty() => {
                rows.push(vec![token.label.clone(), "".into(), "".into(), "no private key".into()]);
                lines.push(json!({ "token": token.label, "device": token.device, "keys": [] }));
            }
            Ok(keys) => {
                let mut told = Vec::new();
                for key in &keys {
                    let ours = (wanted.label.is_empty() || wanted.label == key.place.label)
                        && (wanted.id.is_empty() || wanted.id == key.place.id);
                    let what = key.public_key.as_ref().map_or_else(Clone::clone, name);
                    let mark = if ours { "service key" } else { "" };
                    rows.push(vec![token.label.clone(), key.place.to_string(), mark.into(), what]);
                    told.push(json!({
                        "label": key.place.label,
                        "id": hex::encode(&key.place.id),
                        "serviceKey": ours,
                        "key": key.public_key.as_ref().map_or_else(|why| json!({ "error": why }), key_json),
                        "attributes": key.attributes.iter().map(|(name, value)| (name.clone(), json!(value))).collect::<serde_json::Map<_, _>>(),
                    }));
                }
                lines.push(json!({ "token": token.label, "device": token.device, "keys": told }));
            }
        }
    }
    for absent in tokens.iter().filter(|label| present.iter().all(|token| token.label != **label)) {
        problem = true;
        rows.push(vec![absent.clone(), "".into(), "".into(), "not there".into()]);
        lines.push(json!({ "token": absent, "error": "not there" }));
    }
    match json {
        true => lines.iter().for_each(|line| println!("{line}")),
        false => print!("{}", table::render(&["token", "key", "", "what"], &rows)),
    }
    Ok(if problem { Exit::Negative } else { Exit::Done })
}

fn request(settings: &Settings, subject: &X500Name, token: Option<&str>) -> Result<CertificationRequest, Failure> {
    Ok(match settings.signing.kind {
        SignerKind::File | SignerKind::KeyStore => {
            let key = key_in_file(settings)?;
            CertificationRequest::new(subject, key.public_key(), |bytes| Ok(key.sign(bytes)))?
        }
        SignerKind::Pkcs11 => {
            let (manager, token) = manager(settings, token)?;
            let session = manager.session(&token)?;
            let public_key = session.public_key()?;
            let sign = |bytes: &[u8]| session.sign(bytes).map_err(|error| error.to_string());
            CertificationRequest::new(subject, &public_key, sign)?
        }
    })
}

fn import(
    settings: &Settings,
    path: &std::path::Path,
    passphrase: Option<&str>,
    token: Option<&str>,
) -> Result<Exit, Failure> {
    let key = match passphrase {
        None => file::load_plain(path)?,
        Some(reference) => {
            // Not repeated, as it may be the secret itself.
            let wrong = |error| Failure::new(Exit::Usage, format!("--passphrase: {error}"));
            let passphrase = SecretRef::parse(reference).and_then(|reference| reference.fetch()).map_err(wrong)?;
            file::load_encrypted(path, &passphrase)?
        }
    };
    let options = token_options(settings)?;
    let tokens = token.map_or_else(|| options.tokens.clone(), |token| vec![token.to_owned()]);
    let place: KeyPlace = options.key.clone();
    let manager = Manager::new(options)?;
    for token in tokens {
        let how = match manager.session(&token)?.import(&key)? {
            Imported::Wrapped => "wrapped under a key of the token's own",
            Imported::InClear => "in clear, since the token cannot unwrap it",
        };
        println!("copied {} to token {token:?} with {place}, {how}", name(key.public_key()));
    }
    println!(
        "WARNING: this key existed outside the token, and still does in {}. Whoever has that file, or a copy or backup of it, can \
         sign as the notary. Destroy every copy, or better: make a new key on the token (notary keys generate).",
        path.display()
    );
    Ok(Exit::Done)
}

/// What a signature with the key in the file costs; its form cannot be wrong.
fn test_file(settings: &Settings, count: usize) -> Result<Conformance, Failure> {
    let key = key_in_file(settings)?;
    let since = Instant::now();
    for n in 0..count {
        let message = format!("notary-worker: test of a key file, message {n}").into_bytes();
        let signature = key.sign(&message);
        key.public_key()
            .verify(&message, &signature)
            .map_err(|error| Failure::new(Exit::Negative, format!("message {n}: {error}")))?;
    }
    let each = since.elapsed() / u32::try_from(count).unwrap_or(u32::MAX).max(1);
    let found = format!("{}; {count} signatures made and verified, {each:.1?} each", name(key.public_key()));
    Ok(Conformance {
        findings: vec![
            Finding::good("key file", found),
            Finding::warning(
                "key file",
                "whoever copies the file and its passphrase has the key",
                "for production keep the service key on a token (signing.kind = \"pkcs11\")",
            ),
        ],
        latencies: Vec::new(),
    })
}

fn report(found: &Conformance, json: bool) -> Exit {
    let passed = found.findings.iter().all(|finding| finding.severity < Severity::Fault);
    if json {
        let findings: Vec<Value> = found.findings.iter().map(finding_json).collect();
        let latencies: Vec<Value> = found
            .latencies
            .iter()
            .map(|latency| {
                json!({
                    "token": latency.token,
                    "sessions": latency.sessions,
                    "signatures": latency.signatures,
                    "p50Micros": latency.p50.as_micros() as u64,
                    "p99Micros": latency.p99.as_micros() as u64,
                    "perSecond": latency.per_second.round(),
                    "batch": latency.batch,
                })
            })
            .collect();
        println!("{}", json!({ "passed": passed, "findings": findings, "latencies": latencies }));
    } else {
        found.findings.iter().for_each(|finding| println!("{finding}"));
        for latency in &found.latencies {
            println!(
                "token {:?}: {} transactions under one signature reach 1000 a second; with signing.batch_transactions_max = 0 the \
                 worker finds such a number by itself",
                latency.token, latency.batch
            );
        }
        println!("{}", if passed { "passed" } else { "NOT passed" });
    }
    if passed { Exit::Done } else { Exit::Negative }
}

fn finding_json(finding: &Finding) -> Value {
    let severity = match finding.severity {
        Severity::Good => "good",
        Severity::Warning => "warning",
        Severity::Fault => "fault",
    };
    json!({ "subject": finding.subject, "severity": severity, "found": finding.found, "advice": finding.advice })
}
