//! Bugs planted on purpose, in what surrounds the machines. Each is one that a hurried author could write; a simulator that
//! does not catch it would not catch his either.

use std::convert::Infallible;

use notary_worker::domain::notary_error::{Consumption, StateUsage};
use notary_worker::domain::request::RequestParts;
use notary_worker::domain::verdict::{Decision, History, Outcome, Rejection, decide};
use notary_worker::domain::{CheckedRequest, StateRef, Timestamp, TxId, Verdict};
use notary_worker::ports::uniqueness::CommitError;

use crate::history::Check;
use crate::store::Store;

/// A planted bug. The first five are those that issue 3 names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    /// The worker signs and replies as soon as it asks for the commit.
    SignBeforeCommit,
    /// The worker accepts the delivery when it begins to reply.
    SettleBeforeSafe,
    /// The store does not look at references.
    SkipReferenceCheck,
    /// A commit whose outcome is unknown counts as a failed insert, and so as a conflict.
    UnknownAsFailed,
    /// The store decides each request of a batch against what was there before the batch.
    ForgetConflictsInBatch,
    /// A request that a stage gave back is refused for good instead of released.
    GiveUpAsRefusal,
    /// An unavailable store counts as a conflict.
    UnavailableAsConflict,
    /// The last message of an answer is not sent.
    DropLastReply,
    /// All who ask for a transaction are answered in the session that asked first.
    AnswerFirstSession,
    /// The store judges a notarised transaction's window again.
    JudgeWindowAgain,
    /// The store looks at a notarised transaction's references again.
    JudgeReferencesAgain,
    /// The store takes no notice of earlier outcomes: a repeat conflicts with itself.
    ConflictWithItself,
    /// A conflict names only its first state.
    NameOneConflict,
    /// The store answers for a commit that it loses.
    ForgetCommit,
    /// A batch's verdicts are handed out in the wrong order.
    MixUpVerdicts,
    /// A batch's signatures are handed out in the wrong order.
    MixUpSignatures,
    /// A released delivery is not given back to the broker.
    SwallowRelease,
}

impl Bug {
    /// Every bug, with the check that is made to find it (others may as well).
    pub(crate) const ALL: [(Self, Check); 17] = [
        (Self::SignBeforeCommit, Check::DurableFirst),
        (Self::SettleBeforeSafe, Check::SettledSafe),
        (Self::SkipReferenceCheck, Check::ReferencesUnspent),
        (Self::UnknownAsFailed, Check::OneAnswer),
        (Self::ForgetConflictsInBatch, Check::SpentOnce),
        (Self::GiveUpAsRefusal, Check::RefusedRightly),
        (Self::UnavailableAsConflict, Check::ConflictTrue),
        (Self::DropLastReply, Check::SettledSafe),
        (Self::AnswerFirstSession, Check::SettledSafe),
        (Self::JudgeWindowAgain, Check::OneAnswer),
        (Self::JudgeReferencesAgain, Check::OneAnswer),
        (Self::ConflictWithItself, Check::OneAnswer),
        (Self::NameOneConflict, Check::ConflictTrue),
        (Self::ForgetCommit, Check::NothingLost),
        (Self::MixUpVerdicts, Check::DurableFirst),
        (Self::MixUpSignatures, Check::SignatureTrue),
        (Self::SwallowRelease, Check::Closed),
    ];

    /// What a store with this bug decides.
    pub(crate) fn decide(self, batch: &[CheckedRequest], now: Timestamp, store: &mut Store) -> Vec<Decision> {
        match self {
            Self::SkipReferenceCheck => {
                let blind = batch.iter().map(|request| {
                    CheckedRequest::assume_checked(RequestParts {
                        references: Vec::new(),
                        ..RequestParts::clone(request)
                    })
                });
                store.decide(&blind.collect::<Vec<_>>(), now)
            }
            Self::ForgetConflictsInBatch => {
                batch.iter().flat_map(|request| store.decide(std::slice::from_ref(request), now)).collect()
            }
            Self::ConflictWithItself => {
                let Ok(decisions) = decide(batch, now, &mut WithoutOutcomes(store));
                decisions
            }
            _ => {
                let mut decisions = store.decide(batch, now);
                for (request, decision) in batch.iter().zip(&mut decisions) {
                    self.spoil(request, now, store, decision);
                }
                decisions
            }
        }
    }

    fn spoil(self, request: &CheckedRequest, now: Timestamp, store: &Store, decision: &mut Decision) {
        match (self, &mut decision.outcome) {
            (Self::JudgeWindowAgain, outcome @ Outcome::Committed) => {
                if let Some(window) = request.time_window.filter(|window| !window.contains(now)) {
                    *outcome = Outcome::Rejected(Rejection::TimeWindowInvalid { now, window });
                }
            }
            (Self::JudgeReferencesAgain, outcome @ Outcome::Committed) => {
                if let Some((state, consumer)) = store.consumed_reference(request) {
                    let hashed_consumer = consumer.hashed().expect("the model's ids are computable");
                    let consumption = Consumption { state, hashed_consumer, usage: StateUsage::Reference };
                    *outcome = Outcome::Rejected(Rejection::Conflict(vec![consumption]));
                }
            }
            (Self::NameOneConflict, Outcome::Rejected(Rejection::Conflict(consumed))) => consumed.truncate(1),
            _ => {}
        }
    }

    /// What a worker with this bug makes of the store's answer.
    pub(crate) fn misread(
        self,
        requests: usize,
        answer: Result<Vec<Verdict>, CommitError>,
    ) -> Result<Vec<Verdict>, CommitError> {
        let conflicts = || vec![Verdict::Rejected(Rejection::Conflict(Vec::new())); requests];
        match (self, answer) {
            (Self::UnknownAsFailed, Err(CommitError::OutcomeUnknown(_))) => Ok(conflicts()),
            (Self::UnavailableAsConflict, Err(CommitError::Unavailable(_))) => Ok(conflicts()),
            (Self::MixUpVerdicts, Ok(mut verdicts)) => {
                verdicts.rotate_left(1);
                Ok(verdicts)
            }
            (_, answer) => answer,
        }
    }
}

/// A store that knows consumed states only.
struct WithoutOutcomes<'a>(&'a mut Store);

impl History for WithoutOutcomes<'_> {
    type Error = Infallible;

    fn outcome(&mut self, _: &CheckedRequest) -> Result<Option<Outcome>, Infallible> {
        Ok(None)
    }

    fn consumer(&mut self, state: &StateRef) -> Result<Option<TxId>, Infallible> {
        self.0.consumer(state)
    }
}
