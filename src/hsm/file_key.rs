//! The service key in an encrypted file, unlocked once at the start and kept in memory.
//!
//! Signing runs on named threads of its own, fed by a bounded channel. A signature takes tens (Ed25519) to hundreds (P-256) of
//! microseconds: too long for an arbiter, where it would hold up every actor of that thread under load, and too short to start
//! a thread for. Own threads also work under any runtime, or none, and are the shape that a PKCS#11 token needs. The worker
//! signs batches, so the hop of some microseconds is paid once for many transactions.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::domain::announcement::Announcement;
use crate::domain::merkle_batch::Signable;
use crate::domain::{PublicKey, SignatureScheme};
use crate::keys::PrivateKey;
use crate::keys::file::{self, SecretFileError};
use crate::ports::finding::{Finding, Severity};
use crate::ports::signer::SignError;
use crate::ports::{BoxFuture, Probe, Signer};

/// Requests that may wait for a thread. The signing stage bounds itself; this only keeps a mistake there from growing a queue:
/// at 0.3 ms each, 64 requests wait 20 ms.
const WAITING_MAX: usize = 64;

/// The service key, ready to sign. Dropping it ends its threads and wipes the key.
pub struct FileKey {
    public_key: PublicKey,
    requests: mpsc::Sender<Request>,
}

struct Request {
    bytes: Vec<u8>,
    answer: oneshot::Sender<Vec<u8>>,
}

impl FileKey {
    /// Makes a new key in a new file, encrypted under `passphrase`; returns its public half.
    ///
    /// # Errors
    /// [`SecretFileError`]; an existing file is never overwritten.
    pub fn generate(
        path: &Path,
        scheme: SignatureScheme,
        passphrase: &Zeroizing<String>,
    ) -> Result<PublicKey, SecretFileError> {
        let key =
            PrivateKey::generate(scheme).map_err(|error| SecretFileError::Key { path: path.to_owned(), error })?;
        file::save_encrypted(path, &key, passphrase)?;
        Ok(key.public_key().clone())
    }

    /// Unlocks the key in the file and starts `threads` signing threads. Takes about 0.1 s, by design of the encryption.
    ///
    /// # Errors
    /// [`SecretFileError`]; among others if the file is open to anybody but its owner. Nothing is tried twice.
    ///
    /// # Panics
    /// If the operating system starts no thread.
    pub fn load(path: &Path, passphrase: &Zeroizing<String>, threads: NonZeroUsize) -> Result<Self, SecretFileError> {
        Ok(Self::start(file::load_encrypted(path, passphrase)?, threads))
    }

    /// Serves a key that is in memory already.
    ///
    /// # Panics
    /// If the operating system starts no thread.
    pub fn start(key: PrivateKey, threads: NonZeroUsize) -> Self {
        let public_key = key.public_key().clone();
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let (key, waiting) = (Arc::new(key), Arc::new(Mutex::new(waiting)));
        for n in 0..threads.get() {
            let (key, waiting) = (Arc::clone(&key), Arc::clone(&waiting));
            let thread = thread::Builder::new().name(format!("sign-{n}"));
            thread.spawn(move || serve(&key, &waiting)).expect("a process that cannot start a thread cannot serve");
        }
        Self { public_key, requests }
    }
}

/// Signs until the owner is gone.
fn serve(key: &PrivateKey, waiting: &Mutex<mpsc::Receiver<Request>>) {
    loop {
        // Held while this thread waits: the others wait for the lock instead, which comes to the same.
        let request = waiting.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(Request { bytes, answer }) = request else { return };
        // The asker may be gone; then nobody needs the signature.
        if !answer.is_closed() {
            let _ = answer.send(key.sign(&bytes));
        }
    }
}

impl FileKey {
    async fn sign_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, SignError> {
        let ended = || SignError::Unavailable("the signing threads have ended".into());
        let (answer, signature) = oneshot::channel();
        let request = Request { bytes: bytes.to_vec(), answer };
        self.requests.send(request).await.map_err(|_| ended())?;
        signature.await.map_err(|_| ended())
    }
}

impl Signer for FileKey {
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

/// What the examination signs. No transaction's signable bytes look like it: those begin with the AMQP header of Corda.
const TRIAL: &[u8] = b"notary doctor: a trial signature, of no other meaning";

/// The part of `notary doctor` for a key that a process holds: signs, verifies. `kept` says where it lies. Returns the public half
/// if that worked.
pub fn examine(key: &PrivateKey, kept: &str) -> (Vec<Finding>, Option<PublicKey>) {
    let subject = "key: file";
    let public_key = key.public_key().clone();
    let finding = match public_key.verify(TRIAL, &key.sign(TRIAL)) {
        Ok(()) => {
            let (scheme, hash) = (public_key.scheme().name(), public_key.name_hash());
            Finding::good(subject, format!("{kept} unlocks, signs and verifies: {scheme}, {hash}"))
        }
        Err(error) => {
            let advice = "do not serve with this key: restore the file, or test this machine's memory";
            Finding::fault(subject, format!("its signature does not verify: {error}"), advice)
        }
    };
    let usable = finding.severity == Severity::Good;
    let found = "lies in a file and in memory; a stolen copy of both file and passphrase signs anywhere";
    let advice = "for production keep the key in an HSM: signing.kind = \"pkcs11\"";
    (vec![finding, Finding::warning("key: keeper", found, advice)], usable.then_some(public_key))
}

/// In memory, the key can only be lost with its threads.
impl Probe for FileKey {
    fn part(&self) -> &'static str {
        "key"
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), String>> {
        let ended = self.requests.is_closed();
        Box::pin(std::future::ready(if ended { Err("the signing threads have ended".into()) } else { Ok(()) }))
    }
}

/// The public half only.
impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileKey(of {:?})", self.public_key)
    }
}
