//! What a client makes of the session messages it gets: the peer's state machine (PROTOCOL c.2, c.3), strict where a Corda node is.

use std::collections::HashSet;

use crate::domain::merkle_batch::TransactionSignature;
use crate::domain::signature::SignatureError;
use crate::domain::{NotaryError, PublicKey, TxId};
use crate::wire::{self, CordaSignedForm, ExistingPayload, FlowException, NotaryReply, SessionMessage, WireError};

/// A complete answer to one session.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// Signed.
    Notarised(Vec<TransactionSignature>),
    /// Refused with an error that says why.
    Refused {
        /// The transaction, as the error names it.
        tx_id: Option<TxId>,
        /// Why.
        error: NotaryError,
    },
    /// Failed without a reason.
    Failed,
    /// No session: the flow is not known there.
    NoSession {
        /// For people.
        message: String,
    },
}

/// The notary broke the protocol; a Corda node's flow would fail.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Breach {
    /// The message cannot be decoded.
    #[error("undecodable message: {0}")]
    Undecodable(#[from] WireError),
    /// A message that may not come now.
    #[error("{0} out of order")]
    OutOfOrder(&'static str),
    /// The response has no signatures, or not those of the notary.
    #[error("the response lacks the notary's signature")]
    NotTheNotary,
    /// A signature that does not hold.
    #[error("bad signature: {0}")]
    BadSignature(#[from] SignatureError),
}

/// One session, from the client's side.
#[derive(Clone, Debug)]
pub struct Session {
    tx_id: Option<TxId>,
    notary: PublicKey,
    confirmed: bool,
    answer: Option<Answer>,
    seen: HashSet<String>,
}

impl Session {
    /// A session that asks `notary` about `tx_id`, if the request has one.
    pub fn new(tx_id: Option<TxId>, notary: PublicKey) -> Self {
        Self { tx_id, notary, confirmed: false, answer: None, seen: HashSet::new() }
    }

    /// Takes one message of this session; the answer once it is complete. A message whose deduplication id was seen before is
    /// dropped, as a node's broker does.
    ///
    /// # Errors
    /// [`Breach`].
    pub fn take(&mut self, dedup_id: &str, message: SessionMessage<'_>) -> Result<Option<Answer>, Breach> {
        if !self.seen.insert(dedup_id.to_owned()) {
            return Ok(None);
        }
        let SessionMessage::Existing { payload, .. } = message else { return Err(Breach::OutOfOrder("session start")) };
        match payload {
            ExistingPayload::Confirm { .. } if self.confirmed => Err(Breach::OutOfOrder("confirm")),
            ExistingPayload::Confirm { .. } => {
                self.confirmed = true;
                Ok(None)
            }
            ExistingPayload::Reject { .. } if self.confirmed => Err(Breach::OutOfOrder("reject")),
            ExistingPayload::Reject { message, .. } => Ok(Some(Answer::NoSession { message: message.into_owned() })),
            _ if !self.confirmed => Err(Breach::OutOfOrder("message before the confirm")),
            ExistingPayload::Data(payload) => match wire::decode_notary_reply(&payload, &wire::Limits::DEFAULT)? {
                NotaryReply::WaitTime(_) => Ok(None),
                NotaryReply::Signatures(signatures) if self.answer.is_none() => {
                    self.verify(&signatures)?;
                    self.answer = Some(Answer::Notarised(signatures));
                    Ok(None)
                }
                NotaryReply::Signatures(_) => Err(Breach::OutOfOrder("second response")),
            },
            ExistingPayload::Error { exception: Some(FlowException::Notary { error, tx_id, .. }), .. } => {
                Ok(Some(Answer::Refused { tx_id, error }))
            }
            ExistingPayload::Error { .. } => Ok(Some(Answer::Failed)),
            ExistingPayload::End => match self.answer.take() {
                Some(answer) => Ok(Some(answer)),
                None => Err(Breach::OutOfOrder("end")),
            },
        }
    }

    /// As Corda's `validateSignatures`: the notary's key must be fulfilled, and every signature must hold for the transaction.
    fn verify(&self, signatures: &[TransactionSignature]) -> Result<(), Breach> {
        let keys: Vec<PublicKey> = signatures.iter().map(|signature| signature.by.clone()).collect();
        if !self.notary.is_fulfilled_by(&keys) {
            return Err(Breach::NotTheNotary);
        }
        let Some(tx_id) = self.tx_id else { return Err(Breach::NotTheNotary) };
        for signature in signatures {
            signature.verify(&tx_id, &CordaSignedForm)?;
        }
        Ok(())
    }
}
