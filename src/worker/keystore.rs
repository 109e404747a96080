//! Private keys in key stores, as several sections of the settings name them.

use std::path::Path;

use super::StartError;
use crate::config::{SecretRef, Settings};
use crate::keys::PrivateKey;
use crate::keys::keystore::{KeyStore, KeyStoreError};

/// Where a key and its certificates lie in a key store, and which settings say so.
pub(super) struct Place<'a> {
    pub(super) part: &'static str,
    pub(super) store: &'a Path,
    pub(super) alias: &'a str,
    pub(super) passphrase: (&'static str, &'a SecretRef),
    /// Not configured if the key has the store's, as in every PKCS#12 and in Corda's JKS.
    pub(super) key_passphrase: (&'static str, &'a SecretRef),
}

/// A key, and its certificates in DER: its own first, each certified by the next.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) key: PrivateKey,
    pub(super) chain: Vec<Vec<u8>>,
}

impl Place<'_> {
    /// Opens the store and the key. Blocks as long as fetching the passphrases takes.
    ///
    /// # Errors
    /// [`StartError`]; a wrong passphrase or alias is for the operator to correct.
    pub(super) fn open(&self) -> Result<Opened, StartError> {
        let fetch = |(setting, secret): (&'static str, &SecretRef)| {
            secret.fetch().map_err(|error| StartError::of(setting)(&error))
        };
        let failed = |error: KeyStoreError| {
            let told = StartError::of(self.part)(&error);
            match &error {
                error if error.is_passphrase() => told.misconfigured(),
                KeyStoreError::Io { .. } => told,
                _ => told.misconfigured(),
            }
        };
        let passphrase = fetch(self.passphrase)?;
        let store = KeyStore::open(self.store, &passphrase).map_err(failed)?;
        let of_key = match self.key_passphrase.1.is_configured() {
            true => fetch(self.key_passphrase)?,
            false => passphrase,
        };
        let in_store = |error| KeyStoreError::In { path: self.store.to_owned(), error: Box::new(error) };
        let key = store.key(self.alias, &of_key).map_err(in_store).map_err(failed)?;
        let chain = store.chain(self.alias).map_err(failed)?.to_vec();
        Ok(Opened { key, chain })
    }
}

/// Where `signing.kind = "keystore"` has the service key.
pub(super) fn signing(settings: &Settings) -> Place<'_> {
    let signing = &settings.signing;
    Place {
        part: "signing.keystore",
        store: &signing.keystore,
        alias: &signing.alias,
        passphrase: ("signing.passphrase", &signing.passphrase),
        key_passphrase: ("signing.key_passphrase", &signing.key_passphrase),
    }
}
