//! The flow stage: owns a delivery from its arrival to its settlement.
//!
//! One rule holds it together (promise P6): a delivery is accepted only after its whole answer is safe with the peer. Whatever
//! goes wrong before that releases it, and the sender's copy comes again; every step is repeatable, so nothing else is needed.

use std::collections::HashMap;
use std::time::Duration;

use super::GaveUp;
use super::session::{Answer, Inspection, Session};
use crate::domain::merkle_batch::TransactionSignature;
use crate::domain::{CheckedRequest, CommittedTx, TxId, Verdict};
use crate::ports::request_queue::{Delivery, DeliveryId, QueueError, Settlement};

/// What happens to the flow stage.
#[derive(Debug)]
pub enum Event {
    /// A message arrived, and may expect to take so long; `None` as long as there is nothing to go by.
    Delivered(Delivery, Option<Duration>),
    /// The message was read and checked.
    Inspected(DeliveryId, Inspection),
    /// The uniqueness stage answered.
    Decided(DeliveryId, Result<Verdict, GaveUp>),
    /// The signing stage answered.
    Signed(DeliveryId, Result<TransactionSignature, GaveUp>),
    /// The answer is safe, or is not known to be.
    Replied(DeliveryId, Result<(), QueueError>),
}

/// What the flow stage wants done.
#[derive(Debug)]
pub enum Effect {
    /// Read and check the message: [`super::session::inspect`]. Costs CPU, so keep it off the arbiters.
    Inspect(Delivery),
    /// Ask the uniqueness stage for a verdict.
    Commit(DeliveryId, CheckedRequest),
    /// Ask the signing stage for a signature.
    Sign(DeliveryId, CommittedTx),
    /// Send the answer, and report when all of it is safe.
    Reply(DeliveryId, Answer),
    /// End the delivery. Nothing of it is left in the machine.
    Settle(DeliveryId, Settlement),
}

/// Where a delivery stands.
#[derive(Debug)]
enum Step {
    Inspecting(Option<Duration>),
    /// Tells the client how long it will take, before the request joins the queue for the store.
    Advising(Session, Box<CheckedRequest>),
    Committing(Session, TxId),
    Signing(Session, TxId),
    Replying,
}

/// The platform version from which on clients understand a wait-time update (BP1).
const WAIT_UPDATES_SINCE: i32 = 4;

/// The machine. Its size is bounded by the deliveries admitted to it.
#[derive(Debug)]
pub struct Flow {
    eta_message_threshold: Duration,
    open: HashMap<DeliveryId, Step>,
}

impl Flow {
    /// A machine without deliveries. Clients are told how long their requests will take if that is more than
    /// `eta_message_threshold` (BP1); Corda's clients act only on what is longer than their own time-out, 30 s (BP4).
    pub fn new(eta_message_threshold: Duration) -> Self {
        Self { eta_message_threshold, open: HashMap::new() }
    }

    /// Deliveries not settled yet.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Handles one event. Every event about one open delivery yields exactly one effect, until [`Effect::Settle`]; an event that
    /// does not fit where the delivery stands is a fault of the performer and yields none.
    pub fn handle(&mut self, event: Event) -> Option<Effect> {
        match event {
            Event::Delivered(delivery, wait) => {
                let understands = delivery.platform_version.is_some_and(|version| version >= WAIT_UPDATES_SINCE);
                let advice = wait.filter(|wait| understands && *wait > self.eta_message_threshold);
                self.open.insert(delivery.id, Step::Inspecting(advice));
                Some(Effect::Inspect(delivery))
            }
            Event::Inspected(id, inspection) => match self.open.remove(&id)? {
                Step::Inspecting(advice) => Some(self.inspected(id, inspection, advice)),
                other => self.ignore(id, other),
            },
            Event::Decided(id, decided) => match self.open.remove(&id)? {
                Step::Committing(session, tx_id) => Some(self.decided(id, session, tx_id, decided)),
                other => self.ignore(id, other),
            },
            Event::Signed(id, signed) => match self.open.remove(&id)? {
                Step::Signing(session, tx_id) => Some(match signed {
                    Ok(signature) => self.reply(id, Answer::Notarised { session, tx_id, signature }),
                    Err(_) => Effect::Settle(id, Settlement::Release),
                }),
                other => self.ignore(id, other),
            },
            Event::Replied(id, replied) => match self.open.remove(&id)? {
                Step::Advising(session, request) => Some(match replied {
                    // The client has its confirm.
                    Ok(()) => self.commit(id, Session { confirm: false, ..session }, *request),
                    Err(_) => Effect::Settle(id, Settlement::Release),
                }),
                Step::Replying => Some(Effect::Settle(
                    id,
                    match replied {
                        Ok(()) => Settlement::Accept,
                        Err(_) => Settlement::Release,
                    },
                )),
                other => self.ignore(id, other),
            },
        }
    }

    fn inspected(&mut self, id: DeliveryId, inspection: Inspection, advice: Option<Duration>) -> Effect {
        match inspection {
            Inspection::Request { session, request } => match advice {
                None => self.commit(id, session, request),
                Some(wait) => {
                    self.open.insert(id, Step::Advising(session, Box::new(request)));
                    Effect::Reply(id, Answer::Wait { session, wait })
                }
            },
            Inspection::Answer(answer) => self.reply(id, answer),
            Inspection::Nothing => Effect::Settle(id, Settlement::Accept),
            Inspection::Unreadable { reason } => Effect::Settle(id, Settlement::Reject { reason }),
        }
    }

    fn commit(&mut self, id: DeliveryId, session: Session, request: CheckedRequest) -> Effect {
        self.open.insert(id, Step::Committing(session, request.tx_id));
        Effect::Commit(id, request)
    }

    fn decided(&mut self, id: DeliveryId, session: Session, tx_id: TxId, decided: Result<Verdict, GaveUp>) -> Effect {
        match decided {
            Ok(Verdict::Committed(tx)) => {
                self.open.insert(id, Step::Signing(session, tx_id));
                Effect::Sign(id, tx)
            }
            Ok(Verdict::Rejected(rejection)) => {
                let error = rejection.into_error(tx_id);
                self.reply(id, Answer::Refused { session, tx_id: Some(tx_id), error })
            }
            Err(_) => Effect::Settle(id, Settlement::Release),
        }
    }

    fn reply(&mut self, id: DeliveryId, answer: Answer) -> Effect {
        self.open.insert(id, Step::Replying);
        Effect::Reply(id, answer)
    }

    fn ignore(&mut self, id: DeliveryId, step: Step) -> Option<Effect> {
        self.open.insert(id, step);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::NotaryError;
    use crate::domain::verdict::Rejection;
    use crate::stages::fixtures::{committed, name, request, signature, tx};

    const SESSION: Session = Session { peer_id: 17, entropy: 4, confirm: true };

    fn id(number: u64) -> DeliveryId {
        DeliveryId(number)
    }

    /// Above it, clients are told how long it takes.
    const THRESHOLD: Duration = Duration::from_secs(30);

    fn delivered(number: u64) -> Event {
        delivered_to_wait(number, None, None)
    }

    fn delivered_to_wait(number: u64, platform_version: Option<i32>, wait: Option<Duration>) -> Event {
        let delivery = Delivery {
            id: id(number),
            caller: name(),
            platform_version,
            dedup_id: None,
            sent_at: None,
            prior_deliveries: 0,
            body: vec![1],
        };
        Event::Delivered(delivery, wait)
    }

    fn late(number: u64) -> Event {
        delivered_to_wait(number, Some(4), Some(THRESHOLD * 2))
    }

    fn requested(number: u64) -> Event {
        Event::Inspected(id(number), Inspection::Request { session: SESSION, request: request(1, 1, 0) })
    }

    fn gave_up() -> GaveUp {
        GaveUp { stage: "test", reason: "not now".into() }
    }

    fn conflict() -> Verdict {
        Verdict::Rejected(Rejection::Conflict(Vec::new()))
    }

    /// A machine in which delivery 1 has come as far as these events take it.
    fn after(events: impl IntoIterator<Item = Event>) -> Flow {
        let mut flow = Flow::new(THRESHOLD);
        events.into_iter().for_each(|event| assert!(flow.handle(event).is_some()));
        flow
    }

    #[test]
    fn a_good_request_is_inspected_committed_signed_replied_and_only_then_accepted() {
        let mut flow = Flow::new(THRESHOLD);
        assert!(matches!(flow.handle(delivered(1)), Some(Effect::Inspect(delivery)) if delivery.id == id(1)));
        assert!(matches!(flow.handle(requested(1)), Some(Effect::Commit(i, r)) if (i, r.tx_id) == (id(1), tx(1))));
        let decided = Event::Decided(id(1), Ok(Verdict::Committed(committed(1))));
        assert!(matches!(flow.handle(decided), Some(Effect::Sign(i, t)) if (i, t) == (id(1), committed(1))));
        match flow.handle(Event::Signed(id(1), Ok(signature(5)))) {
            Some(Effect::Reply(i, answer)) => {
                let expected = Answer::Notarised { session: SESSION, tx_id: tx(1), signature: signature(5) };
                assert_eq!((i, answer), (id(1), expected));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(flow.open(), 1, "until the reply is safe, the delivery stays");
        assert!(matches!(
            flow.handle(Event::Replied(id(1), Ok(()))),
            Some(Effect::Settle(i, Settlement::Accept)) if i == id(1)
        ));
        assert_eq!(flow.open(), 0);
    }

    #[test]
    fn a_rejection_is_told_to_the_session_that_asked() {
        let mut flow = after([delivered(1), requested(1)]);
        let error = NotaryError::Conflict { tx_id: tx(1), consumed: Vec::new() };
        let expected = Answer::Refused { session: SESSION, tx_id: Some(tx(1)), error };
        assert!(
            matches!(flow.handle(Event::Decided(id(1), Ok(conflict()))), Some(Effect::Reply(_, a)) if a == expected)
        );
    }

    #[test]
    fn what_a_stage_gives_back_is_released_without_a_word() {
        let uniqueness = [delivered(1), requested(1)];
        let mut flow = after(uniqueness);
        assert!(matches!(
            flow.handle(Event::Decided(id(1), Err(gave_up()))),
            Some(Effect::Settle(_, Settlement::Release))
        ));
        let signing = [delivered(1), requested(1), Event::Decided(id(1), Ok(Verdict::Committed(committed(1))))];
        let mut flow = after(signing);
        assert!(matches!(
            flow.handle(Event::Signed(id(1), Err(gave_up()))),
            Some(Effect::Settle(_, Settlement::Release))
        ));
        assert_eq!(flow.open(), 0);
    }

    #[test]
    fn a_message_that_cannot_be_read_is_rejected_with_the_reason() {
        let mut flow = after([delivered(1)]);
        let unreadable = Inspection::Unreadable { reason: "not AMQP".into() };
        assert!(matches!(
            flow.handle(Event::Inspected(id(1), unreadable)),
            Some(Effect::Settle(_, Settlement::Reject { reason })) if reason == "not AMQP"
        ));
    }

    #[test]
    fn deliveries_do_not_touch_each_other() {
        let mut flow = after([delivered(1), delivered(2), requested(2)]);
        assert!(flow.handle(Event::Decided(id(1), Ok(conflict()))).is_none(), "1 is still being inspected");
        assert!(matches!(flow.handle(Event::Decided(id(2), Ok(conflict()))), Some(Effect::Reply(i, _)) if i == id(2)));
        assert!(matches!(flow.handle(requested(1)), Some(Effect::Commit(i, _)) if i == id(1)));
        assert_eq!(flow.open(), 2);
    }

    /// Every event that can be about delivery 1, after its arrival.
    fn news() -> [fn() -> Event; 13] {
        [
            || requested(1),
            || Event::Inspected(id(1), Inspection::Answer(Answer::Confirmed { session: SESSION })),
            || {
                let error = NotaryError::invalid("no notary");
                let answer = Answer::Refused { session: SESSION, tx_id: None, error };
                Event::Inspected(id(1), Inspection::Answer(answer))
            },
            || Event::Inspected(id(1), Inspection::Nothing),
            || Event::Inspected(id(1), Inspection::Unreadable { reason: "garbage".into() }),
            || Event::Decided(id(1), Ok(Verdict::Committed(committed(1)))),
            || Event::Decided(id(1), Ok(conflict())),
            || Event::Decided(id(1), Err(gave_up())),
            || Event::Signed(id(1), Ok(signature(1))),
            || Event::Signed(id(1), Err(gave_up())),
            || Event::Replied(id(1), Ok(())),
            || Event::Replied(id(1), Err(QueueError::Unsafe("cut off".into()))),
            || Event::Replied(id(1), Err(QueueError::Closed)),
        ]
    }

    /// Walks every way that a delivery can take, and tries every event at each place. Returns how many ways end from `path` on.
    fn walk(arrival: fn(u64) -> Event, path: &[fn() -> Event]) -> usize {
        let place = || after(std::iter::once(arrival(1)).chain(path.iter().map(|event| event())));
        let fitting = |mut flow: Flow, next: fn() -> Event| flow.handle(next()).as_ref().map(std::mem::discriminant);
        let mut ends = 0;
        for event in news() {
            let mut flow = place();
            match flow.handle(event()) {
                None => {
                    assert_eq!(flow.open(), 1, "{:?} does not fit and must not end the delivery", event());
                    for next in news() {
                        let mut disturbed = place();
                        disturbed.handle(event());
                        assert_eq!(fitting(disturbed, next), fitting(place(), next), "{:?} leaves no trace", event());
                    }
                }
                Some(Effect::Settle(_, settlement)) => {
                    ends += 1;
                    assert_eq!(flow.open(), 0);
                    assert!(news().iter().all(|next| flow.handle(next()).is_none()), "nothing follows a settlement");
                    let may_be_accepted =
                        matches!(event(), Event::Replied(_, Ok(())) | Event::Inspected(_, Inspection::Nothing));
                    assert_eq!(settlement == Settlement::Accept, may_be_accepted, "{settlement:?} after {:?}", event());
                }
                Some(_) => {
                    assert_eq!(flow.open(), 1);
                    ends += walk(arrival, &[path, &[event]].concat());
                }
            }
        }
        ends
    }

    #[test]
    fn on_every_way_each_fitting_event_has_one_effect_and_only_a_safe_reply_is_accepted() {
        // Nothing, unreadable; two answers known at once, the conflict, the signature: each replied in three ways; gave up twice.
        assert_eq!(walk(delivered, &[]), 2 + 4 * 3 + 2);
        // As well, where the wait is told first, two ways of not being able to.
        assert_eq!(walk(late, &[]), 2 + 4 * 3 + 2 + 2);
    }

    /// BP1, LB8: the client gets its confirm and the wait in one answer, and the result without a second confirm.
    #[test]
    fn a_long_wait_is_told_before_the_request_joins_the_queue() {
        let mut flow = after([late(1)]);
        let advice = Answer::Wait { session: SESSION, wait: THRESHOLD * 2 };
        assert!(matches!(flow.handle(requested(1)), Some(Effect::Reply(i, a)) if (i, &a) == (id(1), &advice)));
        assert!(matches!(flow.handle(Event::Replied(id(1), Ok(()))), Some(Effect::Commit(i, _)) if i == id(1)));
        match flow.handle(Event::Decided(id(1), Ok(conflict()))) {
            Some(Effect::Reply(_, Answer::Refused { session, .. })) => {
                assert_eq!(session, Session { confirm: false, ..SESSION });
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_is_told_of_a_short_wait_or_in_words_not_understood() {
        for (platform_version, wait) in
            [(Some(4), Some(THRESHOLD)), (Some(4), None), (Some(3), Some(THRESHOLD * 2)), (None, Some(THRESHOLD * 2))]
        {
            let mut flow = after([delivered_to_wait(1, platform_version, wait)]);
            assert!(matches!(flow.handle(requested(1)), Some(Effect::Commit(..))), "{platform_version:?} {wait:?}");
        }
    }

    #[test]
    fn an_answer_that_needs_no_store_is_given_at_once_however_long_the_queue() {
        let mut flow = after([late(1)]);
        let known = Event::Inspected(id(1), Inspection::Answer(Answer::Confirmed { session: SESSION }));
        assert!(matches!(flow.handle(known), Some(Effect::Reply(_, Answer::Confirmed { .. }))));
    }
}
