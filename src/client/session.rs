//! Asks a notary over AMQP, as persistently as a Corda node's bridge: whatever breaks, the same message is sent again until it is
//! answered or patience ends.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use super::judge::{Answer, Breach, Session};
use super::line::{Connection, Line, Receiver, Sender};
use crate::broker::client::ClientError;
use crate::broker::{Outcome, Request};
use crate::domain::{PublicKey, TxId};
use crate::wire::{self, InitialSession, SessionMessage};

/// The pauses between attempts, as a bridge's but shorter: the worker is on this machine.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the answer to a stored request may take before the request is sent again. A Corda client waits 30 s; this one waits
/// less, so that a request that a broker lost would be seen as a late answer and not as none.
const STORED_WAIT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum AskError {
    /// The notary will never answer this message.
    #[error("refused: {reason}")]
    Parked {
        /// The notary's words.
        reason: String,
    },
    /// The notary broke the protocol.
    #[error("the notary broke the protocol: {0}")]
    Breach(#[from] Breach),
    /// No answer in time; the last thing that went wrong.
    #[error("no answer in time: {0}")]
    OutOfPatience(String),
    /// Nothing was sent: the credentials are wrong, or there is no randomness.
    #[error("{0}")]
    Unable(String),
}

/// A party's way to one notary.
pub struct NotaryConnection {
    line: Box<dyn Line>,
    notary: PublicKey,
    platform_version: i32,
    patience: Duration,
    live: AsyncMutex<Option<Live>>,
    pending: Arc<Mutex<HashMap<i64, Pending>>>,
}

#[derive(Clone)]
struct Live {
    sender: Arc<dyn Sender>,
    /// Told apart from later connections, so that one failure is not taken for the next connection's.
    number: u64,
}

struct Pending {
    session: Session,
    done: Option<oneshot::Sender<Result<Answer, Breach>>>,
}

impl NotaryConnection {
    /// Connects a party of `platform_version` to the notary with the key `notary`. Each request is given `patience`.
    ///
    /// # Errors
    /// [`ClientError`] if the first connection fails; later ones are repaired.
    pub async fn connect(
        line: Box<dyn Line>,
        notary: PublicKey,
        platform_version: i32,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let pending = Arc::default();
        let sender = open(&*line, &pending).await?;
        let live = AsyncMutex::new(Some(Live { sender, number: 0 }));
        Ok(Self { line, notary, platform_version, patience, live, pending })
    }

    /// Starts a session of `flow` with this first payload and waits for its complete answer.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self, flow: &str, tx_id: Option<TxId>, payload: Option<&[u8]>) -> Result<Answer, AskError> {
        let random = || getrandom::u64().map(|number| number as i64).map_err(|e| AskError::Unable(e.to_string()));
        let (session_id, entropy) = (random()?, random()?);
        let start = InitialSession {
            initiator_session_id: session_id,
            initiation_entropy: entropy,
            flow_class: flow.into(),
            flow_version: 1,
            app_name: "notary-client".into(),
            first_payload: payload.map(Cow::Borrowed),
            telemetry: None,
        };
        let dedup_id = format!("N-R-{session_id}-{entropy}-0-0");
        self.send(session_id, tx_id, dedup_id, wire::encode_session_initial(&start)).await
    }

    /// Sends a serialized session message as it is and waits for the complete answer. One that cannot be decoded, or that starts
    /// no session, gets no answer but the broker's.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn send_raw(&self, body: Vec<u8>) -> Result<Answer, AskError> {
        let (session_id, entropy, tx_id) = match wire::decode_session_message(&body, &wire::Limits::DEFAULT) {
            Ok(SessionMessage::Initial(start)) => {
                let tx_id = start.first_payload.as_deref().and_then(claimed_id);
                (start.initiator_session_id, start.initiation_entropy, tx_id)
            }
            _ => (getrandom::u64().map_err(|e| AskError::Unable(e.to_string()))? as i64, 0, None),
        };
        self.send(session_id, tx_id, format!("N-R-{session_id}-{entropy}-0-0"), body).await
    }

    /// Sends bytes as they are, once, and waits for what the broker says of them.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn post(&self, body: Vec<u8>) -> Result<Outcome, AskError> {
        let number = getrandom::u64().map_err(|error| AskError::Unable(error.to_string()))?;
        let request = Request { dedup_id: format!("post-{number:x}"), platform_version: self.platform_version, body };
        let unable = |error: ClientError| AskError::Unable(error.to_string());
        self.live().await.map_err(unable)?.sender.send(request).await.map_err(unable)
    }

    /// Whether requests are stored on the way: see [`Line::stores`].
    pub fn stores(&self) -> bool {
        self.line.stores()
    }

    async fn send(
        &self,
        session_id: i64,
        tx_id: Option<TxId>,
        dedup_id: String,
        body: Vec<u8>,
    ) -> Result<Answer, AskError> {
        let (done, mut answered) = oneshot::channel();
        let session = Session::new(tx_id, self.notary.clone());
        lock(&self.pending).insert(session_id, Pending { session, done: Some(done) });
        let _forget = Forget { pending: &self.pending, session_id };

        let deadline = Instant::now() + self.patience;
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let request =
                Request { dedup_id: dedup_id.clone(), platform_version: self.platform_version, body: body.clone() };
            let attempt = timeout_at(deadline, self.attempt(request, &mut answered)).await;
            let problem = match attempt {
                Ok(Ok(answer)) => return Ok(answer?),
                Ok(Err(Attempt::Parked(reason))) => return Err(AskError::Parked { reason }),
                Ok(Err(Attempt::Again(problem))) => problem,
                Err(_) => return Err(AskError::OutOfPatience("still waiting".into())),
            };
            if Instant::now() + pause >= deadline {
                return Err(AskError::OutOfPatience(problem));
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    async fn attempt(
        &self,
        request: Request,
        answered: &mut oneshot::Receiver<Result<Answer, Breach>>,
    ) -> Result<Result<Answer, Breach>, Attempt> {
        let live = self.live().await.map_err(|error| Attempt::Again(error.to_string()))?;
        let outcome = tokio::select! {
            // The answer is worth more than the outcome: it is accepted, so the outcome can only follow.
            answer = &mut *answered => return answer.map_err(|_| Attempt::Again("the session was forgotten".into())),
            outcome = live.sender.send(request) => outcome,
        };
        match outcome {
            Ok(Outcome::Accepted) => {
                // Straight from the worker, all of the answer was accepted by our reader before; it may still be looking at it.
                let wait = if self.line.stores() { STORED_WAIT } else { RETRY_PAUSE_MAX };
                let answer = tokio::time::timeout(wait, answered).await;
                match answer {
                    Ok(Ok(answer)) => Ok(answer),
                    _ => Err(Attempt::Again("accepted without an answer".into())),
                }
            }
            Ok(Outcome::Released) => Err(Attempt::Again("given back".into())),
            Ok(Outcome::Rejected { reason }) => Err(Attempt::Parked(reason)),
            Err(error) => {
                let mut current = self.live.lock().await;
                if current.as_ref().is_some_and(|current| current.number == live.number) {
                    *current = None;
                }
                Err(Attempt::Again(error.to_string()))
            }
        }
    }

    /// The connection in use, or a new one.
    async fn live(&self) -> Result<Live, ClientError> {
        let mut live = self.live.lock().await;
        if let Some(live) = &*live {
            return Ok(live.clone());
        }
        let sender = open(&*self.line, &self.pending).await?;
        let number = getrandom::u64().map_err(|error| ClientError::Connection(error.to_string()))?;
        let new = Live { sender, number };
        *live = Some(new.clone());
        Ok(new)
    }

    /// Says goodbye.
    pub async fn close(&self) {
        if let Some(live) = self.live.lock().await.take() {
            live.sender.close().await;
        }
    }
}

enum Attempt {
    /// Never again.
    Parked(String),
    /// What went wrong.
    Again(String),
}

struct Forget<'a> {
    pending: &'a Mutex<HashMap<i64, Pending>>,
    session_id: i64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.pending).remove(&self.session_id);
    }
}

async fn open(line: &dyn Line, pending: &Arc<Mutex<HashMap<i64, Pending>>>) -> Result<Arc<dyn Sender>, ClientError> {
    let Connection { sender, receiver } = line.open().await?;
    tokio::spawn(read(receiver, Arc::clone(pending)));
    Ok(sender.into())
}

/// Takes answers as they come and gives each to its session.
async fn read(mut answers: Box<dyn Receiver>, pending: Arc<Mutex<HashMap<i64, Pending>>>) {
    while let Some(answer) = answers.next().await {
        let Ok(message) = wire::decode_session_message(&answer.body, &wire::Limits::DEFAULT) else {
            tracing::warn!(dedup_id = answer.dedup_id, "an undecodable answer");
            continue;
        };
        let SessionMessage::Existing { recipient_session_id, .. } = &message else { continue };
        let session_id = *recipient_session_id;
        let mut sessions = lock(&pending);
        // A late answer to a session that is over does no harm.
        let Some(open) = sessions.get_mut(&session_id) else { continue };
        let result = match open.session.take(&answer.dedup_id, message) {
            Ok(None) => continue,
            Ok(Some(answer)) => Ok(answer),
            Err(breach) => Err(breach),
        };
        if let Some(done) = open.done.take() {
            // Whoever asked may have run out of patience.
            let _ = done.send(result);
        }
    }
}

/// The id that a payload claims, so that its answer can be judged.
fn claimed_id(payload: &[u8]) -> Option<TxId> {
    use crate::domain::check::{contract_upgrade_id, notary_change_id};
    use crate::domain::transaction::CoreTransaction;

    let plain = wire::unpack(payload, &wire::Limits::DEFAULT).ok()?;
    match wire::decode_notarisation_payload(&plain, &wire::Limits::DEFAULT).ok()?.transaction {
        CoreTransaction::Filtered(tx) => Some(tx.id),
        CoreTransaction::NotaryChange(tx) => notary_change_id(&tx).ok(),
        CoreTransaction::ContractUpgrade(tx) => contract_upgrade_id(&tx).ok(),
        CoreTransaction::Unsupported { .. } => None,
    }
}

fn lock(pending: &Mutex<HashMap<i64, Pending>>) -> MutexGuard<'_, HashMap<i64, Pending>> {
    // Every change to the map is a single insert or remove: a panic elsewhere leaves it whole.
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}
