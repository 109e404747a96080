//! The service key on one or several PKCS#11 tokens.
//!
//! A request goes to the first token, in the order given, that works. One that errs or passes its deadline is put aside and the
//! next one signs, within the same request; meanwhile it is opened anew in the background until it works again. That all tokens
//! hold one key is proven by a signature of each, at the start and whenever one comes back.
//!
//! No call of a vendor's module is made in this process: each token has a keeper process (`keeper`), told what to do over a
//! socket (`frames`) by a task that looks after it (`link`). So nothing here blocks, whatever a module does.

mod examine;
mod forms;
mod frames;
mod keeper;
mod link;
mod manage;
mod pin;
mod profile;
mod token;
mod transport;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use self::link::{Link, State};
use self::pin::PinNotes;
use crate::domain::PublicKey;
use crate::domain::announcement::Announcement;
use crate::domain::merkle_batch::Signable;
use crate::observe::metrics;
use crate::ports::signer::SignError;
use crate::ports::{BoxFuture, Probe, Signer};

pub use self::examine::{Conformance, Latency, conformance, examine};
pub use self::frames::KeyPlace;
pub use self::keeper::serve as serve_keeper;
pub use self::manage::{Imported, ListedKey, ListedToken, ManageError, Manager, Session};
pub use self::pin::{FetchPin, PinSource, StampPin};
pub use self::profile::Profile;
pub use self::transport::TransportKey;

/// Everything the adapter needs to know.
#[derive(Clone)]
pub struct Options {
    /// The vendor's module: a shared library.
    pub module: PathBuf,
    /// The tokens' labels, in the order in which they are asked.
    pub tokens: Vec<String>,
    /// Where on each token the key lies.
    pub key: KeyPlace,
    /// The user PIN of the tokens.
    pub pin: PinSource,
    /// The vendor's quirks.
    pub profile: Profile,
    /// Sessions with each token, each with a thread of its keeper.
    pub sessions: usize,
    /// How long one token may take for a signature.
    pub deadline: Duration,
    /// The program that keeps a token when called with the verb `token-keeper`; see [`this_program`].
    pub program: PathBuf,
    /// Variables added to the keepers' environment, in which vendors' modules look for their configuration. They inherit this
    /// process's as well.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// What is wrong with the PIN, as far as that can be known without trying it: it cannot be fetched, or every token refused it.
    /// Blocks as long as fetching takes.
    pub fn pin_problem(&self) -> Option<String> {
        if self.profile.login != profile::Login::Pin {
            return None;
        }
        let notes = PinNotes::read(self.pin.clone());
        let problem = |token: &String| notes.pin_for(token).err().map(|problem| format!("token {token:?}: {problem}"));
        // One token that may be opened is enough to serve.
        let problems: Option<Vec<String>> = self.tokens.iter().map(problem).collect();
        problems.map(|problems| problems.join("; "))
    }
}

/// The path under which this very program starts again, even after its file was replaced by a newer release.
pub fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Why the key cannot be served.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// No token works now; a later start may find one.
    #[error("no token works: {0}")]
    Unavailable(String),
    /// No token works, and at least one because of its PIN: starting again does not help.
    #[error("no token works: {0}")]
    Pin(String),
    /// Two tokens hold different keys under one name.
    #[error("the tokens hold different keys: {0}")]
    DifferentKeys(String),
}

/// The service key on its tokens. Dropping it closes their sessions.
pub struct TokenKey {
    public_key: PublicKey,
    tokens: Vec<Link>,
    tasks: Vec<JoinHandle<()>>,
    patience: Duration,
}

/// How often a token's deadline one request may wait for that token: as long for a free session as for the signature.
const PATIENCE_DEADLINES: u32 = 2;

impl TokenKey {
    /// Opens every token, on `runtime`, and waits until it is known how each is: seconds, if one does not answer. A token that
    /// does not work is a warning in the log as long as another does.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(options: Options, runtime: &Handle) -> Result<Self, OpenError> {
        let (options, expected) = (Arc::new(options), Arc::new(OnceLock::new()));
        let notes = PinNotes::read(options.pin.clone());
        let (tokens, tasks): (Vec<_>, Vec<_>) =
            options.tokens.iter().map(|label| Link::start(label, &options, &notes, &expected, runtime)).unzip();
        // From here on, whatever happens ends the tasks.
        let opening = Tasks(tasks);
        let mut states = Vec::new();
        for token in &tokens {
            states.push(token.settled().await);
        }
        let told = || describe(&tokens);
        if states.iter().any(|state| matches!(state, State::OtherKey(_))) {
            return Err(OpenError::DifferentKeys(told()));
        }
        match expected.get() {
            Some(public_key) if states.contains(&State::Up) => Ok(Self {
                public_key: public_key.clone(),
                patience: options.deadline * PATIENCE_DEADLINES,
                tokens,
                tasks: opening.keep(),
            }),
            _ if states.iter().any(|state| matches!(state, State::PinRefused(_))) => Err(OpenError::Pin(told())),
            _ => Err(OpenError::Unavailable(told())),
        }
    }

    async fn sign_bytes(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut failed: Vec<&Link> = Vec::new();
        for token in self.tokens.iter().filter(|token| token.is_up()) {
            let Ok(signature) = token.sign(message, self.patience).await else {
                failed.push(token);
                continue;
            };
            // Whoever asked verifies it, too; here it decides whether the next token is asked.
            if let Err(error) = self.public_key.verify(message, &signature) {
                token.spoilt(format!("it made a signature that does not hold: {error}"));
                failed.push(token);
                continue;
            }
            for from in failed {
                metrics::token_failed_over(&from.label);
                tracing::warn!(from = &*from.label, to = &*token.label, "another token signed instead");
            }
            return Ok(signature);
        }
        Err(SignError::Unavailable(describe(&self.tokens)))
    }

    /// Every token by its label, and what is wrong with it if it does not sign now.
    pub fn health(&self) -> Vec<(String, Option<String>)> {
        let problem = |token: &Link| (!token.is_up()).then(|| describe(std::slice::from_ref(token)));
        self.tokens.iter().map(|token| (token.label.to_string(), problem(token))).collect()
    }
}

/// Every token and how it is, in one line.
fn describe(tokens: &[Link]) -> String {
    let one = |token: &Link| match token.state() {
        State::Starting => format!("token {:?}: being opened", token.label),
        State::Up => format!("token {:?}: works", token.label),
        State::Aside(why) => format!("token {:?}: {why}", token.label),
        State::PinRefused(why) => format!("token {:?}: PIN: {why}", token.label),
        State::OtherKey(why) => format!("token {:?}: {why}", token.label),
    };
    tokens.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Tasks that end with their owner.
struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    fn keep(mut self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for TokenKey {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Signer for TokenKey {
    fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    fn sign<'a>(&'a self, what: &'a Signable) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        Box::pin(self.sign_bytes(what.bytes()))
    }

    fn announce<'a>(&'a self, what: &'a Announcement) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        Box::pin(self.sign_bytes(what.bytes()))
    }
}

impl Probe for TokenKey {
    fn part(&self) -> &'static str {
        "key"
    }

    /// Looks at what the tasks know: an idle token signs a constant every two seconds.
    fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        let works = self.tokens.iter().any(Link::is_up);
        Box::pin(std::future::ready(if works { Ok(()) } else { Err(describe(&self.tokens)) }))
    }
}

/// The public half only.
impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey(of {:?})", self.public_key)
    }
}
