//! Private keys in key stores, as several sections of the settings name them.

use std::path::Path;

use zeroize::Zeroizing;

use super::StartError;
use crate::config::{SecretRef, Settings};
use crate::keys::PrivateKey;
use crate::keys::keystore::{KeyStore, KeyStoreError};
use crate::network::Certificate;

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
        let (store, passphrase) = self.store()?;
        let of_key = match self.key_passphrase.1.is_configured() {
            true => fetch(self.key_passphrase)?,
            false => passphrase,
        };
        let key = store.key(self.alias, &of_key).map_err(|error| self.refused(error))?;
        let chain = store.chain(self.alias).map_err(|error| self.refused(error))?.to_vec();
        // Whoever uses a certificate says what is wrong with it otherwise.
        let certified = chain.first().and_then(|own| Certificate::from_der(own).ok());
        if certified.is_some_and(|own| own.public_key() != key.public_key()) {
            let problem =
                format!("{}: the certificate of {:?} is that of another key", self.store.display(), self.alias);
            return Err(StartError::of(self.part)(&problem).misconfigured());
        }
        Ok(Opened { key, chain })
    }

    /// The certificates alone; the key stays closed.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn chain(&self) -> Result<Vec<Vec<u8>>, StartError> {
        Ok(self.store()?.0.chain(self.alias).map_err(|error| self.refused(error))?.to_vec())
    }

    fn store(&self) -> Result<(KeyStore, Zeroizing<String>), StartError> {
        let passphrase = fetch(self.passphrase)?;
        let store = KeyStore::open(self.store, &passphrase).map_err(|error| self.failed(&error))?;
        Ok((store, passphrase))
    }

    /// What the store says of an entry of its own.
    fn refused(&self, error: KeyStoreError) -> StartError {
        self.failed(&KeyStoreError::In { path: self.store.to_owned(), error: Box::new(error) })
    }

    fn failed(&self, error: &KeyStoreError) -> StartError {
        let failed = StartError::of(self.part)(error);
        match error {
            KeyStoreError::Io { .. } => failed,
            _ => failed.misconfigured(),
        }
    }
}

fn fetch((setting, secret): (&'static str, &SecretRef)) -> Result<Zeroizing<String>, StartError> {
    secret.fetch().map_err(|error| StartError::of(setting)(&error))
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
