//! Secrets by reference: the configuration says where a secret is, never what it is.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use zeroize::Zeroizing;

use super::node_conf::{NodeConf, NodeConfError};

/// Where a secret is to be found: `file:PATH`, `env:NAME`, `exec:COMMAND` (a program and its arguments, separated by spaces; its
/// first line of output), `credential:NAME` (of systemd's `LoadCredential=`), `node-conf:PATH#KEY` (a key of a Corda node's
/// configuration), or empty for none.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretRef(Source);

#[derive(Clone, PartialEq, Eq)]
enum Source {
    None,
    File(PathBuf),
    Environment(String),
    Command(String),
    Credential(String),
    NodeConf { path: PathBuf, key: String },
}

/// How long a command may take to tell a secret.
const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked after meanwhile.
const COMMAND_GLANCE: Duration = Duration::from_millis(20);

/// The longest secret, in bytes: pass phrases and passwords are short, and a wrong path may name anything.
const SECRET_BYTES_MAX: u64 = 4096;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not a reference. The text is not repeated, as it may be the secret itself.
    #[error("give a secret by reference: file:PATH, env:NAME, exec:COMMAND or credential:NAME")]
    NotAReference,
    /// Nothing says where it is.
    #[error("no secret is configured: give file:PATH, env:NAME, exec:COMMAND or credential:NAME")]
    NotConfigured,
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
    /// systemd passed no credentials.
    #[error("credential:{0}: CREDENTIALS_DIRECTORY is not set; the unit needs LoadCredential=")]
    NoCredentials(String),
    /// The node's configuration does not tell it.
    #[error(transparent)]
    NodeConf(#[from] NodeConfError),
    /// The command failed. Its output is not repeated, as it may hold the secret.
    #[error("exec:{program}: {problem}")]
    Command {
        /// The program, without its arguments.
        program: String,
        /// What went wrong.
        problem: String,
    },
}

impl SecretRef {
    /// Reads a reference.
    ///
    /// # Errors
    /// [`SecretError::NotAReference`].
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        match text.split_once(':') {
            _ if text.is_empty() => Ok(Self(Source::None)),
            Some(("file", path)) if !path.is_empty() => Ok(Self(Source::File(path.into()))),
            Some(("env", name)) if !name.is_empty() => Ok(Self(Source::Environment(name.into()))),
            Some(("exec", command)) if !command.trim().is_empty() => Ok(Self(Source::Command(command.trim().into()))),
            // A name, not a path: credentials lie in one folder.
            Some(("credential", name)) if !name.is_empty() && !name.contains('/') && name != ".." => {
                Ok(Self(Source::Credential(name.into())))
            }
            Some(("node-conf", place)) => match place.rsplit_once('#') {
                Some((path, key)) if !path.is_empty() && !key.is_empty() => {
                    Ok(Self(Source::NodeConf { path: path.into(), key: key.into() }))
                }
                _ => Err(SecretError::NotAReference),
            },
            _ => Err(SecretError::NotAReference),
        }
    }

    /// The reference, which is not secret.
    pub fn reference(&self) -> String {
        match &self.0 {
            Source::None => String::new(),
            Source::File(path) => format!("file:{}", path.display()),
            Source::Environment(name) => format!("env:{name}"),
            Source::Command(command) => format!("exec:{command}"),
            Source::Credential(name) => format!("credential:{name}"),
            Source::NodeConf { path, key } => format!("node-conf:{}#{key}", path.display()),
        }
    }

    /// The file that holds the secret, if one does.
    pub fn file(&self) -> Option<PathBuf> {
        match &self.0 {
            Source::File(path) => Some(path.clone()),
            Source::Credential(name) => Some(Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?).join(name)),
            // A node.conf is Corda's, and without a secret of its own as often as not.
            Source::None | Source::Environment(_) | Source::Command(_) | Source::NodeConf { .. } => None,
        }
    }

    /// The file that the secret comes from in whatever form: what changes with it.
    pub fn source(&self) -> Option<PathBuf> {
        match &self.0 {
            Source::NodeConf { path, .. } => Some(path.clone()),
            _ => self.file(),
        }
    }

    /// The name of systemd's credential, if that is where the secret is.
    pub fn credential(&self) -> Option<&str> {
        match &self.0 {
            Source::Credential(name) => Some(name),
            _ => None,
        }
    }

    /// The environment variable that holds the secret, if one does.
    pub fn variable(&self) -> Option<&str> {
        match &self.0 {
            Source::Environment(name) => Some(name),
            _ => None,
        }
    }

    /// Whether any place is named.
    pub fn is_configured(&self) -> bool {
        self.0 != Source::None
    }

    pub(super) fn resolve(&mut self, folder: &Path) {
        if let Source::File(path) | Source::NodeConf { path, .. } = &mut self.0 {
            *path = folder.join(&path);
        }
    }

    /// What changes whenever the secret's file is written or replaced, and reveals nothing of it. `None` where a change cannot be
    /// told without reading: for commands, variables, and systemd's credentials, which are copied anew at every start.
    pub fn stamp(&self) -> Option<String> {
        let (Source::File(path) | Source::NodeConf { path, .. }) = &self.0 else { return None };
        let found = std::fs::metadata(path).ok()?;
        Some(format!("{}-{}-{}.{:09}", found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    }

    /// Fetches the secret; a trailing line break is not part of it. Blocks, for a command up to 10 s.
    ///
    /// # Errors
    /// [`SecretError`] without the secret's text.
    pub fn fetch(&self) -> Result<Zeroizing<String>, SecretError> {
        match &self.0 {
            Source::None => Err(SecretError::NotConfigured),
            Source::File(path) => read(path),
            Source::Environment(name) => {
                let value = std::env::var(name).map_err(|_| SecretError::Environment(name.clone()))?;
                Ok(Zeroizing::new(value))
            }
            Source::Command(command) => run(command),
            Source::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read(&Path::new(&folder).join(name))
            }
            Source::NodeConf { path, key } => Ok(NodeConf::read(path)?.secret(key)?),
        }
    }
}

fn read(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let fault = |source| SecretError::File { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(fault)?.len() > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(fault)?);
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The first line that a command prints. No shell is involved: what stands between spaces is one argument.
fn run(command: &str) -> Result<Zeroizing<String>, SecretError> {
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default().to_owned();
    let fault = |problem: String| SecretError::Command { program: program.clone(), problem };
    let mut started = Command::new(&program);
    started.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = started.spawn().map_err(|error| fault(error.to_string()))?;
    let output = child.stdout.take();
    // On a thread of its own, so that a command that never ends its output cannot hold us.
    let (told, line) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Zeroizing::new(String::new());
        let read = match output {
            Some(output) => BufReader::new(output.take(SECRET_BYTES_MAX)).read_line(&mut text),
            None => Ok(0),
        };
        // The asker may have given up.
        let _ = told.send(read.map(|_| text));
    });
    let deadline = Instant::now() + COMMAND_PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(COMMAND_GLANCE),
            Ok(None) => {
                // It may have ended by itself just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(fault(format!("not done within {COMMAND_PATIENCE:?}")));
            }
            Err(error) => return Err(fault(error.to_string())),
        }
    };
    if !status.success() {
        return Err(fault(status.to_string()));
    }
    let text = line.recv_timeout(COMMAND_PATIENCE).map_err(|_| fault("its output does not end".into()))?;
    let text = text.map_err(|error| fault(error.kind().to_string()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(fault("printed nothing".into())),
        secret => Ok(Zeroizing::new(secret.to_owned())),
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
