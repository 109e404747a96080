//! The way of one batch through the database. Read this first.
//!
//! ```text
//! begin ── look up ─▶ decide (in memory) ─▶ write everything, commit ─▶ verdicts
//!   └── or believe nothing is on record ──┘             │
//!        again, looking, if somebody was faster ◀── a row exists
//! ```
//!
//! - **Two round trips.** The first begins a transaction, takes the gate (below) and reads what is on record. [`decide`] decides.
//!   The second sends all rows and the commit at once. Rows are plain inserts: if any of them exists, its statement fails, the
//!   server turns the commit into a roll-back, and nothing is kept. So no client that dies, and no cancellation, leaves half a
//!   batch. Primary keys decide every race; then the loser looks again.
//! - **One order.** `transactions` before `states`, each sorted by key. Two workers wait for each other's rows, never in a circle.
//! - **No look, if all goes well.** A batch without references whose requests are all new can be written unseen: if it can be
//!   written, nothing of it was on record. After a miss the next batches look first, as a miss costs what was written.
//! - **The gate.** At READ COMMITTED two transactions that consume and refer crosswise would both see the other's state unspent. A
//!   batch whose verdicts rest on states staying unspent that it does not itself write ([`needs_to_be_alone`]) takes one advisory
//!   lock exclusively, every other batch takes it shared, before it looks and until it is committed. One lock, not one for each
//!   state: a batch of hundreds would touch most stripes of any table of locks, in an order of its own, and still be alone.
//!   Hence in the order of commits nobody refers to a state consumed before.
//! - **What was only read** is confirmed by a write that no table sees; its commit waits for disk and standbys, and they have by
//!   then everything that was seen.
//! - **Doubt.** Once the commit is sent, everything but the server's plain yes is an unknown outcome: a lost connection, a deadline,
//!   a warning that it stopped waiting for standbys. The owner of the batch repeats it, on a fresh connection. If the old server
//!   process is still about to commit, the repeat's first row waits for it; if it has not even begun, its own first row will fail.
//!   So both never count.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::pool::Pool;
use super::records::{Keys, OnRecord, Rows, needs_to_be_alone};
use super::session::{Named, Session};
use super::sqlstate::{Reaction, Trouble};
use crate::domain::verdict::{Decision, Outcome, decide};
use crate::domain::{CheckedRequest, Timestamp, Verdict, X500Name};
use crate::observe;

/// Races that one batch may lose before its owner is told to come back later. Whenever it loses one, somebody else won.
const ROUNDS_MAX: u32 = 16;

/// Batches that look first after one that should have.
const WARY_BATCHES: u32 = 16;

/// Commits batches.
pub(super) struct Committer {
    pub(super) pool: Pool,
    pub(super) worker: X500Name,
    /// For one exchange with the server.
    pub(super) deadline: Duration,
    /// Batches left that look first.
    pub(super) wary: AtomicU32,
}

impl Committer {
    /// Verdicts, durable.
    pub(super) async fn commit(&self, batch: &[CheckedRequest], now: Timestamp) -> Result<Vec<Verdict>, Trouble> {
        let alone = needs_to_be_alone(batch);
        let mut look = alone || self.is_wary();
        for _ in 0..ROUNDS_MAX {
            let mut lent = self.pool.lend(self.deadline).await.map_err(Trouble::unavailable)?;
            let trouble = match self.round(lent.session(), batch, now, look, alone).await {
                Ok(decisions) => {
                    lent.give_back();
                    observe::metrics::decided(batch, &decisions);
                    let decided = batch.iter().zip(decisions);
                    return Ok(decided
                        .map(|(request, decision)| decision.outcome.into_verdict(request.tx_id))
                        .collect());
                }
                Err(trouble) => trouble,
            };
            if trouble.is_rolled_back {
                lent.give_back();
            } else {
                drop(lent); // And so cut.
            }
            match trouble.reaction {
                Reaction::Again => {
                    observe::metrics::database_retry(trouble.code.as_deref().unwrap_or_default());
                    if !look {
                        self.wary.store(WARY_BATCHES, Ordering::Relaxed);
                    }
                    look = true;
                }
                Reaction::Unknown => {
                    self.pool.renew();
                    return Err(trouble);
                }
                Reaction::Unavailable | Reaction::Refused => return Err(trouble),
            }
        }
        Err(Trouble::unavailable(format!("others were faster {ROUNDS_MAX} times")))
    }

    /// Whether this batch is among those that look first because one should have.
    fn is_wary(&self) -> bool {
        self.wary.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// One attempt at the whole batch.
    async fn round(
        &self,
        session: &mut Session,
        batch: &[CheckedRequest],
        now: Timestamp,
        look: bool,
        alone: bool,
    ) -> Result<Vec<Decision>, Trouble> {
        let numbers = self.in_time(session.numbers_of(&names(batch, &self.worker))).await?;
        let (worker, requesters) = numbers.split_last().expect("the worker's is the last");

        let unseen = if look { None } else { all_new(batch, now) };
        let decisions = match unseen {
            Some(decisions) => {
                self.in_time(session.begin(alone)).await?;
                decisions
            }
            None => {
                let keys = Keys::of(batch);
                let [outcomes, conflicts, consumers] = self.in_time(session.begin_and_read(alone, &keys)).await?;
                let on_record = OnRecord::read(&outcomes, &conflicts, &consumers);
                let mut on_record = on_record.map_err(|damaged| Trouble::refused(damaged.to_string()))?;
                let Ok(decisions) = decide(batch, now, &mut on_record);
                decisions
            }
        };

        let rows = Rows::of(batch, &decisions, requesters);
        let end = async {
            match rows.is_empty() {
                true => session.confirm_reads_and_commit().await,
                false => session.write_and_commit(&rows, now, *worker).await,
            }
        };
        let overdue = |_| Trouble::unknown(format!("the commit is not confirmed within {:?}", self.deadline));
        tokio::time::timeout(self.deadline, end).await.map_err(overdue)??;
        Ok(decisions)
    }

    /// An exchange that commits nothing of the batch.
    async fn in_time<T>(&self, exchange: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Trouble> {
        match tokio::time::timeout(self.deadline, exchange).await {
            Ok(result) => result.map_err(|error| Trouble::before_commit(&error)),
            Err(_) => Err(Trouble::unavailable(format!("the database does not answer within {:?}", self.deadline))),
        }
    }
}

/// The decisions if nothing of the batch is on record, provided that all are commits: then the database itself refuses to write
/// them if anything is.
fn all_new(batch: &[CheckedRequest], now: Timestamp) -> Option<Vec<Decision>> {
    let Ok(decisions) = decide(batch, now, &mut OnRecord::default());
    decisions.iter().all(|decision| decision.outcome == Outcome::Committed).then_some(decisions)
}

/// Whom the records of a batch will name: the requester of each request, then the worker.
fn names<'a>(batch: &'a [CheckedRequest], worker: &'a X500Name) -> Vec<Named<'a>> {
    let requesters =
        batch.iter().map(|request| Named { name: &request.requester, key: request.request_signature.by.as_spki() });
    requesters.chain([Named { name: worker, key: &[] }]).collect()
}
