//! Secrets by reference: the configuration says where a secret is, never what it is.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use zeroize::Zeroizing;

/// Where a secret is to be found: `file:PATH` or `env:NAME`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRef(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Environment(String),
}

/// The longest secret, in bytes: pass phrases and passwords are short, and a wrong path may name anything.
const SECRET_BYTES_MAX: u64 = 4096;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not a reference. The text is not repeated, as it may be the secret itself.
    #[error("give a secret by reference: file:PATH or env:NAME")]
    NotAReference,
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Too long to be a secret.
    #[error("{0}: longer than {SECRET_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// No such variable, or not text.
    #[error("environment variable {0} is not set")]
    Environment(String),
}

impl SecretRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// [`SecretError::NotAReference`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self(Source::File(path.into()))),
            Some(("env", name)) if !name.is_empty() => Ok(Self(Source::Environment(name.into()))),
            _ => Err(SecretError::NotAReference),
        }
    }

    /// The reference, which is not secret.
    pub fn reference(&self) -> String {
        match &self.0 {
            Source::File(path) => format!("file:{}", path.display()),
            Source::Environment(name) => format!("env:{name}"),
        }
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Source::File(path) = &mut self.0 {
            *path = folder.join(&path);
        }
    }

    /// Fetches the secret; a file's trailing line break is not part of it.
    ///
    /// # Errors
    /// [`SecretError`] without the secret's text.
    pub fn fetch(&self) -> Result<Zeroizing<String>, SecretError> {
        match &self.0 {
            Source::File(path) => {
                let fault = |source| SecretError::File { path: path.clone(), source };
                if std::fs::metadata(path).map_err(fault)?.len() > SECRET_BYTES_MAX {
                    return Err(SecretError::TooLong(path.clone()));
                }
                let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fault)?);
                Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            Source::Environment(name) => {
                let value = std::env::var(name).map_err(|_| SecretError::Environment(name.clone()))?;
                Ok(Zeroizing::new(value))
            }
        }
    }
}

/// For defaults in the code, which are references.
impl From<&'static str> for SecretRef {
    fn from(text: &'static str) -> Self {
        Self::parse(text).expect("defaults are references")
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reference())
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}
