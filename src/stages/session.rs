//! A notary's side of a flow session, without keeping one (PROTOCOL c): everything a reply needs follows from the request, so
//! any worker answers the same request with the same messages under the same deduplication ids.

use std::time::Duration;

use crate::domain::check::{self, CheckPolicy, Refusal};
use crate::domain::hash::HashAlgorithm;
use crate::domain::merkle_batch::TransactionSignature;
use crate::domain::network::NetworkView;
use crate::domain::{CheckedRequest, NotaryError, PublicKey, TxId, X500Name};
use crate::ports::request_queue::Reply;
use crate::wire::{self, CordaSignedForm, ExistingPayload, SessionMessage};

/// The flow that asks for notarisation; nodes name it whichever subclass they run.
pub const CLIENT_FLOW: &str = "net.corda.core.flows.NotaryFlow$Client";

/// What every inspection needs to know of this notary.
#[derive(Clone, Debug)]
pub struct Notary {
    /// The checks' policy.
    pub policy: CheckPolicy,
    /// Bounds on what is decoded.
    pub limits: wire::Limits,
    /// Our own platform version, which confirms state.
    pub platform_version: i32,
    /// The worker's name, told in the clear beside answers.
    pub worker: String,
    session_mask: i64,
}

impl Notary {
    /// A notary with this policy.
    pub fn new(policy: CheckPolicy, limits: wire::Limits, platform_version: i32, worker: String) -> Self {
        let session_mask = derive(b"initiated session", &[policy.service_key.as_spki()]);
        Self { policy, limits, platform_version, worker, session_mask }
    }

    /// The session id that the confirm to `session` names. Not random but a mask over the peer's id, equal on every worker of the
    /// service: so a payload that follows a confirm can be served by a worker that never saw the session start.
    fn initiated_id(&self, peer_id: i64) -> i64 {
        peer_id ^ self.session_mask
    }
}

/// The peer's session, as far as replies need it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// The peer's session id, to which replies are addressed.
    pub peer_id: i64,
    /// Drawn by the peer at the start; 0 if the start was not seen by this worker.
    pub entropy: i64,
    /// Whether the answer begins with a confirm.
    pub confirm: bool,
}

/// What came of reading and checking one message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Inspection {
    /// A request that may be committed.
    Request {
        /// Where its answer goes.
        session: Session,
        /// The request.
        request: CheckedRequest,
    },
    /// The answer is known without the store.
    Answer(Answer),
    /// Nothing to answer, such as the peer's end of a session.
    Nothing,
    /// Not a session message, or from nobody on the network.
    Unreadable {
        /// For the sender or the dead-letter queue.
        reason: String,
    },
}

/// One complete answer, not yet encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Confirm only: the payload follows.
    Confirmed {
        /// The peer's session.
        session: Session,
    },
    /// Confirm, how long the result will take: not the last answer to the request.
    Wait {
        /// The peer's session.
        session: Session,
        /// How long.
        wait: Duration,
    },
    /// Confirm, the signature, end.
    Notarised {
        /// The peer's session.
        session: Session,
        /// The transaction signed.
        tx_id: TxId,
        /// Our signature.
        signature: TransactionSignature,
    },
    /// Confirm, an error the client's flow understands.
    Refused {
        /// The peer's session.
        session: Session,
        /// The transaction, if known.
        tx_id: Option<TxId>,
        /// Why.
        error: NotaryError,
    },
    /// Confirm, an error that reveals nothing: the payload could not be decoded (PROTOCOL g.13).
    Undecodable {
        /// The peer's session.
        session: Session,
        /// For our log only.
        reason: String,
    },
    /// No session at all: it asks for a flow we do not run.
    NoSuchFlow {
        /// The peer's session.
        session: Session,
        /// What it asked for, shortened.
        flow: String,
    },
}

impl Answer {
    /// A short stable name for tables, metrics and logs.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Confirmed { .. } => "Confirmed",
            Self::Wait { .. } => "Wait",
            Self::Notarised { .. } => "Notarised",
            Self::Refused { error, .. } => error.kind(),
            Self::Undecodable { .. } => "Undecodable",
            Self::NoSuchFlow { .. } => "NoSuchFlow",
        }
    }

    /// The transaction it is about, if known.
    pub fn tx_id(&self) -> Option<TxId> {
        match self {
            Self::Notarised { tx_id, .. } => Some(*tx_id),
            Self::Refused { tx_id, .. } => *tx_id,
            _ => None,
        }
    }
}

/// Reads and checks one message from `caller`. Pure, but worth a few signature verifications of CPU time.
pub fn inspect(notary: &Notary, network: &NetworkView, caller: &X500Name, body: &[u8]) -> Inspection {
    let message = match wire::decode_session_message(body, &notary.limits) {
        Ok(message) => message,
        Err(error) => return Inspection::Unreadable { reason: format!("not a session message: {error}") },
    };
    match message {
        SessionMessage::Initial(start) => {
            let session =
                Session { peer_id: start.initiator_session_id, entropy: start.initiation_entropy, confirm: true };
            if start.flow_class != CLIENT_FLOW {
                let flow = start.flow_class.chars().take(200).collect();
                return Inspection::Answer(Answer::NoSuchFlow { session, flow });
            }
            match start.first_payload {
                Some(payload) => inspect_payload(notary, network, caller, session, &payload),
                None => Inspection::Answer(Answer::Confirmed { session }),
            }
        }
        SessionMessage::Existing { recipient_session_id, payload: ExistingPayload::Data(payload) } => {
            let session = Session { peer_id: notary.initiated_id(recipient_session_id), entropy: 0, confirm: false };
            inspect_payload(notary, network, caller, session, &payload)
        }
        SessionMessage::Existing { .. } => Inspection::Nothing,
    }
}

fn inspect_payload(
    notary: &Notary,
    network: &NetworkView,
    caller: &X500Name,
    session: Session,
    payload: &[u8],
) -> Inspection {
    let Some(party) = network.parties.get(caller) else {
        return Inspection::Unreadable { reason: format!("the caller {caller} is not in the network map") };
    };
    let undecodable =
        |error: wire::WireError| Inspection::Answer(Answer::Undecodable { session, reason: error.to_string() });
    let payload = match wire::unpack(payload, &notary.limits) {
        Ok(plain) => plain,
        Err(error) => return undecodable(error),
    };
    let payload = match wire::decode_notarisation_payload(&payload, &notary.limits) {
        Ok(payload) => payload,
        Err(error) => return undecodable(error),
    };
    match check::check(&payload, party, &notary.policy, &network.parameters, &CordaSignedForm) {
        Ok(request) => Inspection::Request { session, request },
        Err(refusal) => {
            let Refusal { tx_id, error } = *refusal;
            Inspection::Answer(Answer::Refused { session, tx_id, error })
        }
    }
}

/// The session messages of an answer, in order, with their deduplication ids (PROTOCOL c.4).
pub fn encode(notary: &Notary, answer: &Answer) -> Vec<Reply> {
    let (Answer::Confirmed { session }
    | Answer::Wait { session, .. }
    | Answer::Notarised { session, .. }
    | Answer::Refused { session, .. }
    | Answer::Undecodable { session, .. }
    | Answer::NoSuchFlow { session, .. }) = answer;
    let to = session.peer_id;
    // Derived, not drawn, so that every worker gives one failed session the same error id.
    let error_id = derive(b"session error", &[&to.to_be_bytes(), &session.entropy.to_be_bytes()]);
    let mut headers = vec![("notary-outcome", answer.outcome().to_owned()), ("notary-worker", notary.worker.clone())];
    headers.extend(answer.tx_id().map(|tx_id| ("notary-tx-id", tx_id.to_string())));

    let mut replies = Vec::with_capacity(3);
    let mut push = |dedup_id, body| replies.push(Reply { dedup_id, headers: headers.clone(), body });
    let normal = |suspends: u8| format!("N-D-{to}-{}-{suspends}-0", session.entropy);
    let error = || format!("E-{error_id}-{to}");
    if session.confirm && !matches!(answer, Answer::NoSuchFlow { .. }) {
        push(normal(0), wire::encode_session_confirm(to, notary.initiated_id(to), notary.platform_version));
    }
    // A wait-time update must never share an id with the response: the client would take the second for a duplicate (LB8).
    match answer {
        Answer::Confirmed { .. } => {}
        Answer::Wait { wait, .. } => {
            // Clients wait whole seconds, and ask again at the end of them: never before the answer can be there.
            let wait = Duration::from_secs(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)));
            push(normal(1), wire::encode_session_data(to, &wire::encode_wait_time_update(wait)));
        }
        Answer::Notarised { signature, .. } => {
            let response = wire::encode_notarisation_response(std::slice::from_ref(signature));
            push(normal(2), wire::encode_session_data(to, &response));
            push(normal(3), wire::encode_session_end(to));
        }
        Answer::Refused { error: reason, tx_id, .. } => {
            push(error(), wire::encode_session_error(to, Some((reason, *tx_id)), error_id));
        }
        Answer::Undecodable { .. } => push(error(), wire::encode_session_error(to, None, error_id)),
        Answer::NoSuchFlow { flow, .. } => {
            push(
                format!("R-{error_id}"),
                wire::encode_session_reject(to, &format!("{flow} is not registered"), error_id),
            );
        }
    }
    replies
}

/// A stable 64-bit number from parts; the label keeps its uses apart.
fn derive(label: &[u8], parts: &[&[u8]]) -> i64 {
    let all: Vec<&[u8]> = core::iter::once(label).chain(parts.iter().copied()).collect();
    let digest = HashAlgorithm::Sha256.digest(&all).expect("SHA-256 is computable");
    let mut head = [0; 8];
    head.copy_from_slice(&digest.as_bytes()[..8]);
    i64::from_be_bytes(head)
}

/// The service key a policy insists on.
impl Notary {
    /// The service's public key.
    pub fn service_key(&self) -> &PublicKey {
        &self.policy.service_key
    }
}
