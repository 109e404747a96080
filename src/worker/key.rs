//! Which keeper of the service key serves which setting.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::{StartError, credentials, signing_threads};
use crate::config::{Fault, Settings, SignerKind};
use crate::hsm::file_key::FileKey;
use crate::hsm::pkcs11::{self, KeyPlace, OpenError, PinSource, Profile, TokenKey};
use crate::keys::PrivateKey;
use crate::keys::file::{SecretFileError, load_encrypted};
use crate::ports::{Probe, Signer};

/// The service key, ready to sign.
pub(super) struct Key {
    pub(super) signer: Arc<dyn Signer>,
    /// Tells whether it still is; a key in memory always is.
    pub(super) probe: Option<Arc<dyn Probe>>,
}

/// What can be checked without connecting.
pub(super) fn preflight(settings: &Settings) -> Vec<Fault> {
    let fault = |key: &str, problem: String| vec![Fault { key: key.into(), problem }];
    match settings.signing.kind {
        SignerKind::File => match settings.signing.passphrase.fetch() {
            Err(error) => fault("signing.passphrase", error.to_string()),
            Ok(_) => match file(settings) {
                Err(error) => fault("signing.key", error.to_string()),
                Ok(_) => Vec::new(),
            },
        },
        SignerKind::KeyStore => match credentials::signing(settings).open() {
            Err(error) => fault(error.part, error.reason),
            Ok(_) => Vec::new(),
        },
        SignerKind::Pkcs11 => match token_options(settings) {
            Err(faults) => faults,
            Ok(options) => match options.pin_problem() {
                Some(problem) => fault("signing.pin", problem),
                None => Vec::new(),
            },
        },
    }
}

/// Unlocks the key.
pub(super) async fn open(settings: &Settings, runtime: &Handle) -> Result<Key, StartError> {
    let failed = StartError::of("service key");
    match settings.signing.kind {
        SignerKind::Pkcs11 => {
            let options = token_options(settings).map_err(|faults| {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                failed(&faults.join("; ")).misconfigured()
            })?;
            let key = TokenKey::open(options, runtime).await;
            let key = Arc::new(key.map_err(|error| not_open("service key", &error))?);
            Ok(Key { signer: Arc::clone(&key) as _, probe: Some(key) })
        }
        SignerKind::File | SignerKind::KeyStore => {
            // A command may take its time to tell the passphrase, and unlocking takes 0.1 s.
            let (asked, settings) = (StartError::of("service key"), settings.clone());
            let unlocked = runtime.spawn_blocking(move || match settings.signing.kind {
                SignerKind::KeyStore => {
                    Ok(FileKey::start(credentials::signing(&settings).open()?.key, signing_threads(&settings)))
                }
                _ => file(&settings),
            });
            let unlocked = unlocked.await;
            let key = Arc::new(unlocked.map_err(|error| asked(&error))??);
            Ok(Key { probe: Some(Arc::clone(&key) as Arc<dyn Probe>), signer: key })
        }
    }
}

/// Why a worker without the key does not start.
pub(super) fn not_open(part: &'static str, error: &OpenError) -> StartError {
    let failed = StartError::of(part)(error);
    match error {
        OpenError::Unavailable(_) => failed,
        OpenError::Pin(_) | OpenError::DifferentKeys(_) => failed.misconfigured(),
    }
}

fn file(settings: &Settings) -> Result<FileKey, StartError> {
    Ok(FileKey::start(key_in_file(settings)?, signing_threads(settings)))
}

fn key_in_file(settings: &Settings) -> Result<PrivateKey, StartError> {
    let failed = StartError::of("service key");
    let passphrase = settings.signing.passphrase.fetch().map_err(|error| failed(&error))?;
    load_encrypted(&settings.signing.key, &passphrase).map_err(|error| match error {
        SecretFileError::Passphrase(_) => failed(&error).misconfigured(),
        error => failed(&error),
    })
}

/// The service key itself, where `signing.kind` is such that a process can hold it; `None` on tokens. Blocks.
///
/// # Errors
/// [`StartError`].
pub fn service_key_in_memory(settings: &Settings) -> Result<Option<PrivateKey>, StartError> {
    match settings.signing.kind {
        SignerKind::File => key_in_file(settings).map(Some),
        SignerKind::KeyStore => Ok(Some(credentials::signing(settings).open()?.key)),
        SignerKind::Pkcs11 => Ok(None),
    }
}

/// The tokens that the settings name and the service key on them, whatever `signing.kind` says. Nothing is loaded or connected.
///
/// # Errors
/// Every setting that is wrong.
pub fn token_options(settings: &Settings) -> Result<pkcs11::Options, Vec<Fault>> {
    let signing = &settings.signing;
    on_tokens(settings, ("signing.key_label", &signing.key_label), ("signing.key_id", &signing.key_id))
}

/// A key on the tokens that the settings name, by its label and its id, and the settings that say so.
///
/// # Errors
/// Every setting that is wrong.
pub(super) fn on_tokens(
    settings: &Settings,
    (label_key, label): (&str, &str),
    (id_key, id): (&str, &str),
) -> Result<pkcs11::Options, Vec<Fault>> {
    let signing = &settings.signing;
    let mut faults = Vec::new();
    let mut fault = |key: &str, problem: String| faults.push(Fault { key: key.into(), problem });
    if !signing.module.is_file() {
        fault("signing.module", format!("{}: no such file", signing.module.display()));
    }
    let tokens: Vec<String> = signing.tokens.split(',').map(|label| label.trim().to_owned()).collect();
    let mut sorted = tokens.clone();
    sorted.sort();
    if tokens.iter().any(String::is_empty) {
        fault("signing.tokens", "give the label of each token, separated by commas".into());
    } else if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        fault("signing.tokens", "a token is named twice".into());
    }
    let id = hex::decode(id).unwrap_or_else(|error| {
        fault(id_key, format!("not hex: {error}"));
        Vec::new()
    });
    if label.is_empty() && id.is_empty() {
        fault(label_key, format!("give the key's label, or its id as {id_key}"));
    }
    let profile = Profile::find(&signing.profile).map_err(|error| fault("signing.profile", error));
    let (Ok(profile), true) = (profile, faults.is_empty()) else { return Err(faults) };
    let (fetched, stamped) = (signing.pin.clone(), signing.pin.clone());
    let pin = PinSource {
        fetch: Arc::new(move || fetched.fetch().map_err(|error| error.to_string())),
        stamp: Arc::new(move || stamped.stamp()),
        notes: Some(signing.pin_refusals.clone()).filter(|path| !path.as_os_str().is_empty()),
    };
    Ok(pkcs11::Options {
        module: signing.module.clone(),
        tokens,
        key: KeyPlace { label: label.to_owned(), id },
        pin,
        profile,
        sessions: signing.sessions,
        deadline: Duration::from_millis(signing.token_deadline_ms),
        program: pkcs11::this_program(),
        environment: Vec::new(),
    })
}
