//! Corda's development CA: the root and the identity CA that come with Corda for nodes in development mode. Everybody has their
//! private keys, so they prove nothing; but a network below them is one that every node in development mode believes, with the
//! trust store that it makes for itself.
//!
//! They are not ours to hand out. They are read from where the user has them: Corda's jar, or the key store in it.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;
use zip::ZipArchive;
use zip::result::ZipError;

use super::certificate::{Certificate, CertificateError, Role};
use super::issue::Authority;
use crate::keys::keystore::{FILE_LEN_MAX, KeyStore, KeyStoreError};

/// Corda's `KeyStoreConfigHelpers.kt` and `X509Utilities.kt` have these names and passphrases; the latter are no secrets.
const ENTRY: &str = "certificates/cordadevcakeys.jks";
const STORE_PASSPHRASE: &str = "cordacadevpass";
const KEY_PASSPHRASE: &str = "cordacadevkeypass";
const ROOT: &str = "cordarootca";
const IDENTITY_CA: &str = "cordaintermediateca";
/// Within `corda.jar` lies another jar with the key store; its name begins like this.
const INNER_JAR: &str = "corda-node-api-";
/// Bytes of that inner jar. Corda 4.10's has 1.2 MB.
const INNER_JAR_LEN_MAX: u64 = 64 << 20;
/// What a jar begins with, as a zip archive.
const ZIP: &[u8] = b"PK\x03\x04";

/// Root and identity CA.
pub struct CordaDevCa {
    pub(super) root: Authority,
    pub(super) identity: Authority,
}

/// Why they cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum CordaDevCaError {
    /// The operating system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        error: io::Error,
    },
    /// A jar that cannot be read, or without the key store.
    #[error("{}: {why}", path.display())]
    Jar {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Not the key store.
    #[error("{}: {error}", path.display())]
    KeyStore {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyStoreError,
    },
    /// A certificate in it is none that an authority has.
    #[error("{}: the certificate of {alias}: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The entry.
        alias: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl CordaDevCa {
    /// Reads them from `path`: `corda.jar`, `corda-node-api-<version>.jar`, or `cordadevcakeys.jks` out of the latter.
    ///
    /// # Errors
    /// [`CordaDevCaError`].
    pub fn read(path: &Path) -> Result<Self, CordaDevCaError> {
        let fail = |error| CordaDevCaError::Io { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(fail)?;
        let mut first = [0; ZIP.len()];
        let is_jar = file.read_exact(&mut first).is_ok() && first == ZIP;
        file.rewind().map_err(fail)?;
        let store = match is_jar {
            true => in_jar(file).map_err(|why| CordaDevCaError::Jar { path: path.to_owned(), why })?,
            false => bounded(file, FILE_LEN_MAX as u64).map_err(fail)?,
        };
        let wrong = |error| CordaDevCaError::KeyStore { path: path.to_owned(), error };
        let (store_passphrase, key_passphrase) = (passphrase(STORE_PASSPHRASE), passphrase(KEY_PASSPHRASE));
        let store = KeyStore::from_bytes(&store, &store_passphrase).map_err(wrong)?;
        let authority = |alias, role| {
            let key = store.key(alias, &key_passphrase).map_err(wrong)?;
            let der = store.chain(alias).map_err(wrong)?.first().map_or(&[][..], Vec::as_slice);
            let refused =
                |why: &str| CordaDevCaError::Certificate { path: path.to_owned(), alias, why: why.to_owned() };
            let certificate =
                Certificate::from_der(der).map_err(|error: CertificateError| refused(&error.to_string()))?;
            match () {
                () if certificate.role() != role => Err(refused("another role than expected")),
                () if certificate.public_key() != key.public_key() => Err(refused("it is that of another key")),
                () => Ok(Authority { certificate, key }),
            }
        };
        Ok(Self { root: authority(ROOT, None)?, identity: authority(IDENTITY_CA, Some(Role::IdentityCa))? })
    }
}

fn passphrase(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}

fn bounded(from: impl Read, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(len_max + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > len_max {
        true => Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any such file")),
        false => Ok(bytes),
    }
}

/// The key store in a jar, or in the jar within it.
fn in_jar(jar: File) -> Result<Vec<u8>, String> {
    let mut jar = ZipArchive::new(jar).map_err(|error| error.to_string())?;
    if let Some(store) = entry(&mut jar, ENTRY, FILE_LEN_MAX as u64)? {
        return Ok(store);
    }
    let is_inner = |name: &String| {
        let name = name.rsplit('/').next().unwrap_or_default();
        name.starts_with(INNER_JAR) && name.ends_with(".jar")
    };
    let inner = jar.file_names().flatten().map(|name| name.into_owned()).find(is_inner);
    let missing = || format!("no {ENTRY} in it, and no {INNER_JAR}*.jar with one");
    let inner = entry(&mut jar, &inner.ok_or_else(missing)?, INNER_JAR_LEN_MAX)?.ok_or_else(missing)?;
    let mut inner = ZipArchive::new(Cursor::new(inner)).map_err(|error| error.to_string())?;
    entry(&mut inner, ENTRY, FILE_LEN_MAX as u64)?.ok_or_else(missing)
}

fn entry(jar: &mut ZipArchive<impl Read + Seek>, name: &str, len_max: u64) -> Result<Option<Vec<u8>>, String> {
    match jar.by_name(name) {
        Ok(entry) => bounded(entry, len_max).map(Some).map_err(|error| format!("{name}: {error}")),
        Err(ZipError::FileNotFound) => Ok(None),
        Err(error) => Err(format!("{name}: {error}")),
    }
}
