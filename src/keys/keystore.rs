//! Key stores as Java's programs keep them, Corda's nodes among them: private keys with their certificate chains, and certificates
//! that are trusted. Two formats, told apart by their first bytes: JKS (`jks`), which a Corda node has, and PKCS#12 (`pkcs12`),
//! which `keytool` makes since Java 9.
//!
//! Nothing here judges a certificate; they are handed on as they lie. Private keys stay encrypted until they are asked for by name.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{PrivateKey, PrivateKeyError, jks, pkcs12};

/// Bytes of a key store read. A node's have some thousand; the trust store that comes with Java, the largest one around, has 150 KB.
pub const FILE_LEN_MAX: usize = 1 << 20;
/// Entries of a key store. Java's trust store has some 150.
pub(super) const ENTRIES_MAX: usize = 1024;
/// Certificates of one chain. A node's has 4.
pub(super) const CHAIN_LEN_MAX: usize = 16;
/// Bytes of an entry's name. Corda allows 100 characters.
pub(super) const ALIAS_LEN_MAX: usize = 1024;

/// A key store, its integrity checked with its passphrase.
pub struct KeyStore {
    pub(super) entries: Vec<Entry>,
}

/// One entry. Java ignores the case of aliases, and so do all look-ups here.
pub(super) struct Entry {
    pub(super) alias: String,
    pub(super) content: Content,
}

/// What an entry holds. Certificates are DER.
pub(super) enum Content {
    /// The certificate of the key first, each certified by the next.
    Key { key: SealedKey, chain: Vec<Vec<u8>> },
    /// One to build trust on.
    Trusted(Vec<u8>),
}

/// A private key as it lies in the store.
pub(super) enum SealedKey {
    /// EncryptedPrivateKeyInfo under Java's own key protector.
    Jks(Vec<u8>),
    /// EncryptedPrivateKeyInfo of PKCS#12.
    Pkcs12(Vec<u8>),
    /// PrivateKeyInfo.
    Open(Zeroizing<Vec<u8>>),
}

/// Why a key store, or an entry of it, cannot be used. Nothing secret is part of any.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The operating system refuses.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The refusal.
        error: io::Error,
    },
    /// In the named file.
    #[error("{}: {error}", path.display())]
    In {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<KeyStoreError>,
    },
    /// Not a key store, or a damaged one.
    #[error("not a key store that can be read: {0}")]
    Malformed(&'static str),
    /// A kind of key store, or of encryption, that is not known here.
    #[error("{0} is not supported; `keytool -importkeystore -deststoretype PKCS12` makes a key store that is")]
    Unsupported(String),
    /// It asks for more work or memory than any real one.
    #[error("{0}")]
    TooLarge(&'static str),
    /// The passphrase does not open the store. (With these formats a damaged store looks the same.)
    #[error("the passphrase does not open the key store")]
    Passphrase,
    /// The passphrase of the store is right, that of the key is not.
    #[error("the passphrase does not open the key {0:?}")]
    KeyPassphrase(String),
    /// No private key of that name.
    #[error("no private key {alias:?} in the key store; it holds {}", list(held))]
    NoKey {
        /// The name asked for.
        alias: String,
        /// The names of the private keys that there are.
        held: Vec<String>,
    },
    /// The private key cannot be used.
    #[error("the key {alias:?}: {error}")]
    Key {
        /// Its name.
        alias: String,
        /// Why not.
        error: PrivateKeyError,
    },
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.join(", "),
    }
}

impl KeyStoreError {
    /// Whether a passphrase is at fault: trying again is of no use, and a person has to look.
    pub fn is_passphrase(&self) -> bool {
        match self {
            Self::Passphrase | Self::KeyPassphrase(_) => true,
            Self::In { error, .. } => error.is_passphrase(),
            _ => false,
        }
    }

    fn within(self, path: &Path) -> Self {
        Self::In { path: path.to_owned(), error: Box::new(self) }
    }
}

/// Whether `bytes` begin like a key store: JKS, Java's other one (JCEKS), or PKCS#12.
pub fn is_key_store(bytes: &[u8]) -> bool {
    matches!(bytes, [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] | [0x30, 0x80 | 0x82..=0x84, ..])
}

impl KeyStore {
    /// Reads the key store in `path`.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn open(path: &Path, passphrase: &Zeroizing<String>) -> Result<Self, KeyStoreError> {
        let fail = |error| KeyStoreError::Io { path: path.to_owned(), error };
        let file = File::open(path).map_err(fail)?;
        if !file.metadata().map_err(fail)?.is_file() {
            return Err(KeyStoreError::Malformed("not a regular file").within(path));
        }
        let mut bytes = Vec::new();
        file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
        Self::from_bytes(&bytes, passphrase).map_err(|error| error.within(path))
    }

    /// Reads a key store of either format.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn from_bytes(bytes: &[u8], passphrase: &Zeroizing<String>) -> Result<Self, KeyStoreError> {
        if bytes.len() > FILE_LEN_MAX {
            return Err(KeyStoreError::TooLarge("larger than any key store"));
        }
        let entries = match bytes {
            [0xfe, 0xed, 0xfe, 0xed, ..] => jks::read(bytes, passphrase)?,
            [0xce, 0xce, 0xce, 0xce, ..] => return Err(KeyStoreError::Unsupported("JCEKS".into())),
            [0x30, 0x80, ..] => return Err(KeyStoreError::Unsupported("PKCS#12 in BER".into())),
            [0x30, ..] => pkcs12::read(bytes, passphrase)?,
            _ => return Err(KeyStoreError::Malformed("neither JKS nor PKCS#12")),
        };
        Ok(Self { entries })
    }

    /// Names of the private keys, in the store's order.
    pub fn key_aliases(&self) -> impl Iterator<Item = &str> {
        let keys = self.entries.iter().filter(|entry| matches!(entry.content, Content::Key { .. }));
        keys.map(|entry| entry.alias.as_str())
    }

    /// The trusted certificates (DER), with their names, in the store's order.
    pub fn trusted(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().filter_map(|entry| match &entry.content {
            Content::Trusted(der) => Some((entry.alias.as_str(), der.as_slice())),
            Content::Key { .. } => None,
        })
    }

    /// The certificates of a private key (DER): its own first, each certified by the next; possibly none.
    ///
    /// # Errors
    /// [`KeyStoreError::NoKey`].
    pub fn chain(&self, alias: &str) -> Result<&[Vec<u8>], KeyStoreError> {
        Ok(self.entry(alias)?.1)
    }

    /// Opens a private key. With PKCS#12 its passphrase is the store's.
    ///
    /// # Errors
    /// [`KeyStoreError`].
    pub fn key(&self, alias: &str, passphrase: &Zeroizing<String>) -> Result<PrivateKey, KeyStoreError> {
        let (sealed, _) = self.entry(alias)?;
        let refused = || KeyStoreError::KeyPassphrase(alias.to_owned());
        let named = |error| match error {
            KeyStoreError::Passphrase => refused(),
            error => error,
        };
        let opened;
        let pkcs8 = match sealed {
            SealedKey::Jks(sealed) => {
                opened = jks::unseal(sealed, passphrase).map_err(named)?;
                &opened
            }
            SealedKey::Pkcs12(sealed) => {
                opened = pkcs12::unseal(sealed, passphrase).map_err(named)?;
                &opened
            }
            SealedKey::Open(pkcs8) => pkcs8,
        };
        PrivateKey::from_pkcs8_der(pkcs8).map_err(|error| KeyStoreError::Key { alias: alias.to_owned(), error })
    }

    fn entry(&self, alias: &str) -> Result<(&SealedKey, &[Vec<u8>]), KeyStoreError> {
        let lower = alias.to_lowercase();
        let found = self.entries.iter().find_map(|entry| match &entry.content {
            Content::Key { key, chain } if entry.alias.to_lowercase() == lower => Some((key, chain.as_slice())),
            _ => None,
        });
        found.ok_or_else(|| KeyStoreError::NoKey {
            alias: alias.to_owned(),
            held: self.key_aliases().map(str::to_owned).collect(),
        })
    }
}

/// Names only.
impl fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|entry| &entry.alias)).finish()
    }
}

#[cfg(test)]
mod tests;
