//! What the actors do, one step at a time: feed an event to a machine and see to its effects. Each effect becomes a task of its
//! own, so a worker can die between any two.

use std::collections::BTreeSet;
use std::time::Duration;

use notary_worker::domain::notary_error::StateUsage;
use notary_worker::domain::verdict::Rejection;
use notary_worker::domain::{CheckedRequest, CommittedTx, NotaryError, Timestamp, TxId, Verdict};
use notary_worker::ports::request_queue::{DeliveryId, QueueError, Settlement};
use notary_worker::ports::signer::SignError;
use notary_worker::ports::uniqueness::CommitError;
use notary_worker::stages::session::{Answer, Inspection};
use notary_worker::stages::{flow, signing, uniqueness};

use crate::bugs::Bug;
use crate::clients::{inspect, parts};
use crate::history::Event;
use crate::scenario::Scenario;
use crate::signer;
use crate::worker::{Replying, Task, Then};
use crate::world::{Happening, World};

impl World {
    /// One step of a worker.
    pub(crate) fn perform(&mut self, worker: usize, task: Task) {
        let (what, number) = describe(&task);
        self.trace.note(self.now_ms, what, &[worker as u64, self.workers[worker].life, number], || {
            format!("w{worker} {number}{}", detail(&task, &self.scenario))
        });
        let process = &mut self.workers[worker].process;
        match task {
            Task::Flow(event) => match process.flow.handle(event) {
                Some(effect) => self.perform_flow(worker, effect),
                None => self.unexpected(format!("the flow stage of worker {worker} had no use for an event: {what}")),
            },
            Task::Uniqueness(event) => {
                let answered = match &event {
                    uniqueness::Event::Committed(batch, _) => Some(*batch),
                    _ => None,
                };
                let effects = process.uniqueness.handle(event);
                let pauses = |effect: &_| matches!(effect, uniqueness::Effect::Pause(id, _) if Some(*id) == answered);
                if let Some(batch) = answered
                    && !effects.iter().any(pauses)
                {
                    process.commits_in_flight.remove(&batch);
                }
                effects.into_iter().for_each(|effect| self.perform_uniqueness(worker, effect));
            }
            Task::Signing(event) => {
                let effects = process.signing.handle(event);
                effects.into_iter().for_each(|effect| self.perform_signing(worker, effect));
            }
            Task::Inspect(delivery) => {
                let not_now = self.rng.chance(self.scenario.faults.not_now);
                let inspection = inspect(&delivery.body, &self.scenario.transactions, not_now);
                if let Inspection::Request { session, .. } = &inspection {
                    process.sessions.insert(delivery.id, *session);
                }
                self.step_later(worker, Task::Flow(flow::Event::Inspected(delivery.id, inspection)));
            }
            Task::AskVerdict(id, request) => {
                process.uniqueness_door.queue(id, request);
                self.admit_to_uniqueness(worker);
            }
            Task::AskSignature(id, tx) => {
                process.signing_door.queue(id, tx);
                self.admit_to_signing(worker);
            }
            Task::SendCommit(batch, requests) => {
                self.check_commit(worker, batch, &requests);
                self.coverage.hit(if requests.len() > 1 { "batch: several requests" } else { "batch: one request" });
                let moment = self.workers[worker].clock(self.now_ms, self.scenario.clock_tick_ms);
                let asker = Some((worker, self.workers[worker].life, batch));
                let delay_ms = self.store_delay();
                self.later(delay_ms, Happening::StoreTakes { asker, requests, moment });
            }
            Task::SendSign(batch, transactions) => {
                self.check_signature(worker, &transactions);
                self.sign(worker, batch, transactions);
            }
            Task::SendReply(replying) => self.send_reply(worker, replying),
            Task::Settle(id, settlement) => {
                process.sessions.remove(&id);
                if !process.deliveries.remove(&id) {
                    return self.unexpected(format!("worker {worker} settled delivery {} twice", id.0));
                }
                self.settle(worker, id, settlement);
                self.slot_free();
            }
        }
    }

    fn perform_flow(&mut self, worker: usize, effect: flow::Effect) {
        match effect {
            flow::Effect::Inspect(delivery) => self.step_later(worker, Task::Inspect(delivery)),
            flow::Effect::Commit(id, request) => {
                if self.bug == Some(Bug::SignBeforeCommit) {
                    self.reply_unasked(worker, id, request.tx_id, None, Then::Nothing);
                }
                self.step_later(worker, Task::AskVerdict(id, request));
            }
            flow::Effect::Sign(id, tx) => self.step_later(worker, Task::AskSignature(id, tx)),
            flow::Effect::Reply(id, mut answer) => {
                if self.bug == Some(Bug::AnswerFirstSession) {
                    self.answer_first_session(&mut answer);
                }
                let (exchange, mut parts) = parts(&answer);
                if self.bug == Some(Bug::DropLastReply) && parts.len() > 1 {
                    parts.pop();
                }
                let replying = Replying { delivery: id, exchange, parts, next: 0, then: Then::Report };
                self.step_later(worker, Task::SendReply(replying));
                if self.bug == Some(Bug::SettleBeforeSafe) {
                    self.step_later(worker, Task::Settle(id, Settlement::Accept));
                }
            }
            flow::Effect::Settle(id, settlement) => match self.bug {
                Some(Bug::SwallowRelease) if settlement == Settlement::Release => {}
                Some(Bug::SettleBeforeSafe) if settlement == Settlement::Accept => {}
                Some(Bug::GiveUpAsRefusal) if settlement == Settlement::Release => self.refuse_unasked(worker, id),
                _ => self.step_later(worker, Task::Settle(id, settlement)),
            },
        }
    }

    fn perform_uniqueness(&mut self, worker: usize, effect: uniqueness::Effect) {
        match effect {
            uniqueness::Effect::Commit(batch, requests) => self.step_later(worker, Task::SendCommit(batch, requests)),
            uniqueness::Effect::Pause(batch, pause_ms) => {
                self.coverage.hit("uniqueness: batch tried again");
                let pause_ms = pause_ms + self.rng.below(pause_ms / 2 + 1);
                self.task_after(worker, pause_ms, Task::Uniqueness(uniqueness::Event::PauseOver(batch)));
            }
            uniqueness::Effect::Answer(ticket, verdict) => {
                if verdict.is_err() {
                    self.coverage.hit("uniqueness: gave up");
                }
                match self.workers[worker].process.uniqueness_door.leave(ticket) {
                    Some(id) => self.step_later(worker, Task::Flow(flow::Event::Decided(id, verdict))),
                    None => self.unexpected(format!("worker {worker}: {ticket:?} got a second verdict")),
                }
                self.admit_to_uniqueness(worker);
            }
        }
    }

    fn perform_signing(&mut self, worker: usize, effect: signing::Effect) {
        match effect {
            signing::Effect::Sign(batch, transactions) => self.step_later(worker, Task::SendSign(batch, transactions)),
            signing::Effect::Pause(batch, pause_ms) => {
                self.coverage.hit("signing: signature tried again");
                let pause_ms = pause_ms + self.rng.below(pause_ms / 2 + 1);
                self.task_after(worker, pause_ms, Task::Signing(signing::Event::PauseOver(batch)));
            }
            signing::Effect::Answer(ticket, signature) => {
                if signature.is_err() {
                    self.coverage.hit("signing: gave up");
                }
                match self.workers[worker].process.signing_door.leave(ticket) {
                    Some(id) => self.step_later(worker, Task::Flow(flow::Event::Signed(id, signature))),
                    None => self.unexpected(format!("worker {worker}: {ticket:?} got a second signature")),
                }
                self.admit_to_signing(worker);
            }
        }
    }

    fn admit_to_uniqueness(&mut self, worker: usize) {
        while let Some((ticket, request)) = self.workers[worker].process.uniqueness_door.admit() {
            self.step_later(worker, Task::Uniqueness(uniqueness::Event::Requested(ticket, request)));
        }
    }

    fn admit_to_signing(&mut self, worker: usize) {
        while let Some((ticket, tx)) = self.workers[worker].process.signing_door.admit() {
            self.step_later(worker, Task::Signing(signing::Event::Requested(ticket, tx)));
        }
    }

    /// The uniqueness stage keeps its limits, and repeats a batch as it was.
    fn check_commit(&mut self, worker: usize, batch: uniqueness::BatchId, requests: &[CheckedRequest]) {
        let limits = self.scenario.uniqueness;
        let states: usize = requests.iter().map(|request| request.inputs.len() + request.references.len()).sum();
        let fits = requests.len() <= limits.batch_requests_max && states <= limits.batch_states_max;
        let members: Vec<TxId> = requests.iter().map(|request| request.tx_id).collect();
        let in_flight = &mut self.workers[worker].process.commits_in_flight;
        let unchanged = in_flight.entry(batch).or_insert_with(|| members.clone()) == &members;
        let few = in_flight.len() <= limits.commits_in_flight_max;
        if !(fits || requests.len() == 1) || !few || !unchanged {
            self.unexpected(format!("worker {worker}: {batch:?} of {members:?} breaks a limit or was changed"));
        }
    }

    /// The signing stage keeps its limit; what it wants signed together can be.
    fn check_signature(&mut self, worker: usize, transactions: &[CommittedTx]) {
        let distinct: BTreeSet<TxId> = transactions.iter().map(CommittedTx::tx_id).collect();
        let algorithms: BTreeSet<_> = distinct.iter().map(|tx| tx.0.algorithm()).collect();
        let few = match self.scenario.signing.batch_transactions_max {
            0 => transactions.len() <= signing::AUTOMATIC_BATCH_MAX,
            limit => transactions.len() <= limit,
        };
        if !few || distinct.len() != transactions.len() || algorithms.len() != 1 {
            self.unexpected(format!("worker {worker}: {transactions:?} cannot be signed together"));
        }
    }

    /// A batch reaches the store, on behalf of a worker that waits for the answer, or of nobody any more.
    pub(crate) fn store_takes(
        &mut self,
        asker: Option<(usize, u64, uniqueness::BatchId)>,
        requests: &[CheckedRequest],
        moment: Timestamp,
    ) {
        let faults = self.scenario.faults;
        let unavailable = || Err(CommitError::Unavailable("simulated".into()));
        let unknown = || Err(CommitError::OutcomeUnknown("simulated".into()));
        let (fate, answer) = if asker.is_none() {
            ("store: late batch took effect", Ok(self.store_applies(requests, moment)))
        } else if self.scenario.store_outages.iter().any(|outage| outage.lasts(self.now_ms)) {
            ("store: out of order", if self.rng.chance(500) { unavailable() } else { unknown() })
        } else if self.has_indigestible(requests) {
            ("store: indigestible batch", Err(CommitError::Refused("simulated".into())))
        } else if self.rng.chance(faults.store_unavailable) {
            ("store: unavailable", unavailable())
        } else if self.rng.chance(faults.store_unknown_lost) {
            ("store: unknown, batch lost", unknown())
        } else if self.rng.chance(faults.store_unknown_applied) {
            self.store_applies(requests, moment);
            ("store: unknown, batch applied", unknown())
        } else if self.rng.chance(faults.store_unknown_late) {
            let delay_ms = self.rng.between(1, 3_000);
            self.later(delay_ms, Happening::StoreTakes { asker: None, requests: requests.to_vec(), moment });
            ("store: unknown, batch late", unknown())
        } else {
            ("store: committed", Ok(self.store_applies(requests, moment)))
        };
        self.coverage.hit(fate);
        self.trace.note(self.now_ms, "store", &[fate.len() as u64, requests.len() as u64], || {
            let txs: Vec<_> = requests.iter().map(|request| self.scenario.tx_name(&request.tx_id)).collect();
            format!("{fate}: {}", txs.join(", "))
        });
        let Some((worker, life, batch)) = asker else { return };
        if answer.is_err() && requests.len() > 1 {
            self.coverage.hit("store: a batch of several failed");
        }
        let answer = match self.bug {
            Some(bug) => bug.misread(requests.len(), answer),
            None => answer,
        };
        let mut delay_ms = self.store_delay();
        if self.rng.chance(faults.store_slow) {
            self.coverage.hit("store: slow");
            delay_ms += self.rng.between(100, 2_000);
        }
        let task = Box::new(Task::Uniqueness(uniqueness::Event::Committed(batch, answer)));
        self.later(delay_ms, Happening::Step { worker, life, task });
    }

    fn store_applies(&mut self, requests: &[CheckedRequest], moment: Timestamp) -> Vec<Verdict> {
        for request in requests {
            let committed_before = self.store.committed(&request.tx_id);
            if committed_before && request.time_window.is_some_and(|window| !window.contains(moment)) {
                self.coverage.hit("repeat: the window is over");
            }
            if committed_before && self.store.consumed_reference(request).is_some() {
                self.coverage.hit("repeat: a reference was consumed since");
            }
        }
        let batch = self.store.commit(requests, moment);
        if batch.repeats > 0 {
            self.coverage.hit("repeat: on record");
        }
        let new: BTreeSet<_> = batch.stored.iter().flat_map(|entry| entry.spent.iter().copied()).collect();
        for verdict in &batch.verdicts {
            self.coverage.hit(match verdict {
                Verdict::Committed(_) => "verdict: committed",
                Verdict::Rejected(Rejection::Conflict(consumed)) => {
                    match consumed.first().map(|consumption| consumption.usage) {
                        _ if consumed.iter().any(|consumption| new.contains(&consumption.state)) => {
                            "verdict: conflict within the batch"
                        }
                        Some(StateUsage::Reference) => "verdict: conflict on references only",
                        _ => "verdict: conflict",
                    }
                }
                Verdict::Rejected(Rejection::TimeWindowInvalid { .. }) => "verdict: outside the window",
            });
        }
        for entry in batch.stored {
            self.record(Event::Stored(entry));
        }
        batch.verdicts
    }

    fn has_indigestible(&self, requests: &[CheckedRequest]) -> bool {
        let Some(tx) = self.scenario.indigestible else { return false };
        let tx_id = self.scenario.transactions[tx].request.tx_id;
        requests.iter().any(|request| request.tx_id == tx_id)
    }

    fn sign(&mut self, worker: usize, batch: signing::BatchId, transactions: Vec<CommittedTx>) {
        let faults = self.scenario.faults;
        self.coverage.hit(if transactions.len() > 1 { "signature: over several" } else { "signature: over one" });
        let mut delay_ms = self.delay(self.scenario.key_ms_max);
        if self.rng.chance(faults.signer_slow) {
            self.coverage.hit("key: slow");
            delay_ms += self.rng.between(100, 2_000);
        }
        let out_of_order = self.scenario.signer_outages.iter().any(|outage| outage.lasts(self.now_ms));
        let mut result = if out_of_order || self.rng.chance(faults.signer_unavailable) {
            self.coverage.hit("key: unavailable");
            Err(SignError::Unavailable("simulated".into()))
        } else {
            let wrong = self.rng.chance(faults.signer_wrong);
            if wrong {
                self.coverage.hit("key: wrong signature");
            }
            signer::sign(transactions, wrong)
        };
        if let (Some(Bug::MixUpSignatures), Ok(signatures)) = (self.bug, &mut result) {
            signatures.rotate_left(1);
        }
        let took = Duration::from_millis(delay_ms);
        self.task_after(worker, delay_ms, Task::Signing(signing::Event::Signed(batch, result, took)));
    }

    /// The next part of an answer goes out, or the answer breaks off; after the last part, its confirmation may be lost.
    fn send_reply(&mut self, worker: usize, mut replying: Replying) {
        let faults = self.scenario.faults;
        let failed = if replying.next == replying.parts.len() {
            self.rng.chance(faults.reply_unconfirmed).then_some("reply: unconfirmed")
        } else {
            self.rng.chance(faults.reply_broken).then_some("reply: broken off")
        };
        if let Some(how) = failed {
            self.coverage.hit(how);
        } else if let Some(part) = replying.parts.get(replying.next).cloned() {
            self.receive(replying.exchange, &part);
            replying.next += 1;
            return self.step_later(worker, Task::SendReply(replying));
        }
        let safe = match failed {
            Some(how) => Err(QueueError::Unsafe(how.into())),
            None => Ok(()),
        };
        match replying.then {
            Then::Report => self.step_later(worker, Task::Flow(flow::Event::Replied(replying.delivery, safe))),
            Then::Accept => self.step_later(worker, Task::Settle(replying.delivery, Settlement::Accept)),
            Then::Nothing => {}
        }
    }

    /// Only planted bugs reply without the flow machine's word: with a signature, or with an error.
    fn reply_unasked(&mut self, worker: usize, id: DeliveryId, tx_id: TxId, error: Option<NotaryError>, then: Then) {
        let Some(&session) = self.workers[worker].process.sessions.get(&id) else { return };
        let answer = match error {
            Some(error) => Answer::Refused { session, tx_id: Some(tx_id), error },
            None => {
                let signed = signer::sign(vec![CommittedTx::after_durable_commit(tx_id)], false);
                let signature = signed.expect("one transaction can be signed").remove(0);
                Answer::Notarised { session, tx_id, signature }
            }
        };
        let (exchange, parts) = parts(&answer);
        self.step_later(worker, Task::SendReply(Replying { delivery: id, exchange, parts, next: 0, then }));
    }

    fn refuse_unasked(&mut self, worker: usize, id: DeliveryId) {
        let Some(session) = self.workers[worker].process.sessions.get(&id) else { return };
        let tx = self.clients.exchange(session.peer_id as u64).tx;
        let tx_id = self.scenario.transactions[tx].request.tx_id;
        self.reply_unasked(worker, id, tx_id, Some(NotaryError::invalid("could not be notarised")), Then::Accept);
    }

    fn answer_first_session(&self, answer: &mut Answer) {
        let (Answer::Notarised { session, .. } | Answer::Refused { session, .. }) = answer else { return };
        let tx = self.clients.exchange(session.peer_id as u64).tx;
        session.peer_id = self.clients.first_about(tx) as i64;
    }
}

/// What a person wants to know of a task beyond its kind.
fn detail(task: &Task, scenario: &Scenario) -> String {
    let names =
        |txs: &mut dyn Iterator<Item = TxId>| txs.map(|tx| scenario.tx_name(&tx)).collect::<Vec<_>>().join(", ");
    match task {
        Task::Uniqueness(uniqueness::Event::Requested(_, request)) => format!(": {}", scenario.tx_name(&request.tx_id)),
        Task::Signing(signing::Event::Requested(_, tx)) => format!(": {}", scenario.tx_name(&tx.tx_id())),
        Task::SendCommit(_, requests) => format!(": {}", names(&mut requests.iter().map(|request| request.tx_id))),
        Task::SendSign(_, transactions) => format!(": {}", names(&mut transactions.iter().map(CommittedTx::tx_id))),
        Task::SendReply(replying) => {
            format!(": exchange {}, part {} of {}", replying.exchange, replying.next + 1, replying.parts.len())
        }
        _ => String::new(),
    }
}

/// What a task is, and the number that tells it from others of its kind.
fn describe(task: &Task) -> (&'static str, u64) {
    match task {
        Task::Flow(flow::Event::Delivered(delivery, _)) => ("flow: delivered", delivery.id.0),
        Task::Flow(flow::Event::Inspected(id, inspection)) => match inspection {
            Inspection::Request { .. } => ("flow: request", id.0),
            Inspection::Answer(_) => ("flow: answer", id.0),
            Inspection::Nothing => ("flow: nothing", id.0),
            Inspection::Unreadable { .. } => ("flow: unreadable", id.0),
        },
        Task::Flow(flow::Event::Decided(id, Ok(Verdict::Committed(_)))) => ("flow: committed", id.0),
        Task::Flow(flow::Event::Decided(id, Ok(Verdict::Rejected(_)))) => ("flow: rejected", id.0),
        Task::Flow(flow::Event::Decided(id, Err(_))) => ("flow: no verdict", id.0),
        Task::Flow(flow::Event::Signed(id, Ok(_))) => ("flow: signed", id.0),
        Task::Flow(flow::Event::Signed(id, Err(_))) => ("flow: not signed", id.0),
        Task::Flow(flow::Event::Replied(id, Ok(()))) => ("flow: reply safe", id.0),
        Task::Flow(flow::Event::Replied(id, Err(_))) => ("flow: reply unsafe", id.0),
        Task::Uniqueness(uniqueness::Event::Requested(ticket, _)) => ("verdict wanted", ticket.0),
        Task::Uniqueness(uniqueness::Event::Committed(batch, Ok(_))) => ("commit answered", batch.0),
        Task::Uniqueness(uniqueness::Event::Committed(batch, Err(CommitError::Unavailable(_)))) => {
            ("commit unavailable", batch.0)
        }
        Task::Uniqueness(uniqueness::Event::Committed(batch, Err(CommitError::Refused(_)))) => {
            ("commit refused", batch.0)
        }
        Task::Uniqueness(uniqueness::Event::Committed(batch, Err(_))) => ("commit unknown", batch.0),
        Task::Uniqueness(uniqueness::Event::PauseOver(batch)) => ("commit pause over", batch.0),
        Task::Signing(signing::Event::Requested(ticket, _)) => ("signature wanted", ticket.0),
        Task::Signing(signing::Event::Signed(batch, Ok(_), _)) => ("key answered", batch.0),
        Task::Signing(signing::Event::Signed(batch, Err(_), _)) => ("key failed", batch.0),
        Task::Signing(signing::Event::PauseOver(batch)) => ("key pause over", batch.0),
        Task::Inspect(delivery) => ("inspect", delivery.id.0),
        Task::AskVerdict(id, _) => ("ask for verdict", id.0),
        Task::AskSignature(id, _) => ("ask for signature", id.0),
        Task::SendCommit(batch, _) => ("send commit", batch.0),
        Task::SendSign(batch, _) => ("send to key", batch.0),
        Task::SendReply(replying) => ("send reply", replying.delivery.0),
        Task::Settle(id, Settlement::Accept) => ("accept", id.0),
        Task::Settle(id, Settlement::Release) => ("release", id.0),
        Task::Settle(id, Settlement::Reject { .. }) => ("park", id.0),
    }
}
