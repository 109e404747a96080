//! Scenes: what a notary must sign, what it must refuse, and in which words. The demo plays them for people, the end-to-end tests
//! on every combination of broker, store and key.

use std::time::{Duration, Instant};

use super::cast::{Actor, Cast, DraftError};
use super::judge::Answer;
use super::ledger::{self, Draft, WireTransaction};
use super::session::AskError;
use crate::domain::notary_error::StateUsage;
use crate::domain::transaction::ComponentGroup;
use crate::domain::{NotaryError, Party, StateRef, TimeWindow, Timestamp, TxId};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;

/// One scene, played.
#[derive(Clone, Debug)]
pub struct Scene {
    /// What was sent.
    pub sent: &'static str,
    /// What came back, in a word.
    pub outcome: &'static str,
    /// Why, in the notary's words or the judge's.
    pub why: String,
    elapsed: Duration,
    /// Whether that was right.
    pub right: bool,
}

impl Scene {
    /// Mark, what was sent, what came back, milliseconds, why.
    pub fn row(&self) -> Vec<String> {
        let mark = if self.right { "✓" } else { "✗" };
        let millis = format!("{:.1}", self.elapsed.as_secs_f64() * 1000.0);
        vec![mark.into(), self.sent.into(), self.outcome.into(), millis, self.why.clone()]
    }
}

/// What is expected of an answer.
enum Expect<'a> {
    Notarised,
    /// A conflict that names exactly these states with their consumers.
    Conflict(Vec<(StateRef, StateUsage, TxId)>),
    TimeWindowInvalid(TimeWindow),
    /// An error of this kind about this transaction.
    Refused(&'a str, TxId),
    /// An error that reveals nothing.
    Failed,
    NoSession,
    /// Refused by the broker's means: never answered.
    Parked,
}

type Played = Result<Answer, AskError>;

/// Bytes that are no message.
pub const GARBAGE: &[u8] = b"not a Corda message at all";

/// Plays all scenes in order; later ones build on earlier ones.
///
/// # Errors
/// [`DraftError`] if a transaction cannot be made.
pub async fn play(cast: &Cast) -> Result<Vec<Scene>, DraftError> {
    let (alice, bob) = (&cast.parties()[0], &cast.parties()[1]);
    let now = SystemClock.now();
    let at = |offset: i64| Timestamp::from_millis(now.as_millis() + offset * 1000);
    let mut stage = Stage { scenes: Vec::new() };

    let coin = alice.fresh_state()?;
    let pay_bob = alice.spend(&[coin])?;
    stage.ask("Alice spends a coin", alice, &pay_bob, Expect::Notarised).await?;

    let rate = bob.fresh_state()?;
    let inputs = fresh(alice, 5)?;
    let window = TimeWindow::Between { from: at(-30), until: at(30) };
    let with_reference = draft(Draft { references: vec![rate], time_window: Some(window), ..alice.draft(inputs)? })?;
    stage.ask("five coins, a reference, a time window", alice, &with_reference, Expect::Notarised).await?;

    let issuance = draft(Draft { time_window: Some(TimeWindow::Until(at(60))), ..alice.draft(Vec::new())? })?;
    stage.ask("an issuance: a window and no inputs", alice, &issuance, Expect::Notarised).await?;

    let move_inputs = fresh(bob, 1)?;
    let (id, payload) = ledger::notary_change(
        bob.key(),
        bob.platform_version(),
        &move_inputs,
        bob.notary(),
        bob.notary(),
        bob.parameters(),
    )?;
    stage.payload("a notary change", bob, Some(id), payload, Expect::Notarised).await?;

    let double = alice.spend(&[coin])?;
    let conflict = vec![(coin, StateUsage::Input, pay_bob.id())];
    stage.ask("the first coin again: a double spend", alice, &double, Expect::Conflict(conflict)).await?;

    stage.ask("the first transaction again: a retry", alice, &pay_bob, Expect::Notarised).await?;

    let new_rate = bob.spend(&[rate])?;
    stage.ask("Bob replaces the state Alice referred to", bob, &new_rate, Expect::Notarised).await?;
    stage.ask("a retry after its reference was spent", alice, &with_reference, Expect::Notarised).await?;

    let stale = draft(Draft { references: vec![rate], ..alice.draft(fresh(alice, 1)?)? })?;
    let conflict = vec![(rate, StateUsage::Reference, new_rate.id())];
    stage.ask("a reference to a spent state", alice, &stale, Expect::Conflict(conflict)).await?;

    let over = TimeWindow::Between { from: at(-120), until: at(-60) };
    let late = draft(Draft { time_window: Some(over), ..alice.draft(fresh(alice, 1)?)? })?;
    stage.ask("an expired time window", alice, &late, Expect::TimeWindowInvalid(over)).await?;

    let victim = alice.spend(&fresh(alice, 1)?)?;
    let forged = victim.payload(bob.key(), bob.platform_version())?;
    let expected = Expect::Refused("RequestSignatureInvalid", victim.id());
    stage.payload("a request signed with another's key", alice, Some(victim.id()), forged, expected).await?;

    let three = alice.spend(&fresh(alice, 3)?)?;
    let hiding = three.filtered_hiding(|group, index| group == ComponentGroup::Inputs && index == 1)?;
    let signature = ledger::sign_request(alice.key(), alice.platform_version(), &hiding.visible.inputs, &three.id());
    let hidden = ledger::payload(hiding, signature);
    let expected = Expect::Refused("TransactionInvalid", three.id());
    stage.payload("one of three inputs hidden", alice, Some(three.id()), hidden, expected).await?;

    let stranger = Party { owning_key: bob.key().public_key().clone(), ..alice.notary().clone() };
    let elsewhere = draft(Draft { notary: stranger, ..alice.draft(fresh(alice, 1)?)? })?;
    let expected = Expect::Refused("TransactionInvalid", elsewhere.id());
    stage.ask("a transaction for another notary", alice, &elsewhere, expected).await?;

    let state = alice.fresh_state()?;
    let twice = draft(Draft { references: vec![state], ..alice.draft(vec![state])? })?;
    let expected = Expect::Refused("TransactionInvalid", twice.id());
    stage.ask("a state both consumed and referred to", alice, &twice, expected).await?;

    stage.payload("a session whose payload is garbage", alice, None, b"garbage".to_vec(), Expect::Failed).await?;
    let asked = Instant::now();
    let answer = alice.open_session("com.example.UnknownFlow", None).await;
    stage.judge("a session for a flow nobody runs", asked, answer, Expect::NoSession);
    // Where requests are stored on the way, nobody tells the sender: it lies with the dead letters.
    if !alice.stores() {
        let asked = Instant::now();
        let answer = alice.send_raw(GARBAGE.to_vec()).await;
        stage.judge("garbage", asked, answer, Expect::Parked);
    }
    Ok(stage.scenes)
}

fn fresh(actor: &Actor, count: usize) -> Result<Vec<StateRef>, DraftError> {
    (0..count).map(|_| Ok(actor.fresh_state()?)).collect()
}

fn draft(draft: Draft) -> Result<WireTransaction, DraftError> {
    Ok(draft.build()?)
}

struct Stage {
    scenes: Vec<Scene>,
}

impl Stage {
    async fn ask(
        &mut self,
        sent: &'static str,
        actor: &Actor,
        transaction: &WireTransaction,
        expect: Expect<'_>,
    ) -> Result<(), DraftError> {
        let payload = transaction.payload(actor.key(), actor.platform_version())?;
        self.payload(sent, actor, Some(transaction.id()), payload, expect).await
    }

    async fn payload(
        &mut self,
        sent: &'static str,
        actor: &Actor,
        tx_id: Option<TxId>,
        payload: Vec<u8>,
        expect: Expect<'_>,
    ) -> Result<(), DraftError> {
        let asked = Instant::now();
        let answer = actor.ask(tx_id, payload).await;
        self.judge(sent, asked, answer, expect);
        Ok(())
    }

    fn judge(&mut self, sent: &'static str, asked: Instant, answer: Played, expect: Expect<'_>) {
        let elapsed = asked.elapsed();
        let right = match (&answer, &expect) {
            (Ok(Answer::Notarised(_)), Expect::Notarised)
            | (Ok(Answer::Failed), Expect::Failed)
            | (Ok(Answer::NoSession { .. }), Expect::NoSession)
            | (Err(AskError::Parked { .. }), Expect::Parked) => true,
            (Ok(Answer::Refused { error: NotaryError::Conflict { consumed, .. }, .. }), Expect::Conflict(expected)) => {
                consumed.len() == expected.len()
                    && consumed.iter().zip(expected).all(|(found, (state, usage, consumer))| {
                        found.state == *state && found.usage == *usage && consumer.hashed() == Ok(found.hashed_consumer)
                    })
            }
            (
                Ok(Answer::Refused { error: NotaryError::TimeWindowInvalid { window, .. }, .. }),
                Expect::TimeWindowInvalid(expected),
            ) => window == expected,
            (Ok(Answer::Refused { error, tx_id }), Expect::Refused(kind, id)) => {
                error.kind() == *kind && *tx_id == Some(*id)
            }
            _ => false,
        };
        let (outcome, why) = describe(&answer);
        self.scenes.push(Scene { sent, outcome, why, elapsed, right });
    }
}

/// The longest explanation in the table, in characters.
const WHY_CHARS_MAX: usize = 72;

fn describe(answer: &Played) -> (&'static str, String) {
    let (outcome, why) = match answer {
        Ok(Answer::Notarised(signatures)) => {
            let by: Vec<_> = signatures.iter().map(|s| s.by.name_hash().chars().take(12).collect::<String>()).collect();
            ("Notarised", format!("signed by {}…, verified", by.join(", ")))
        }
        Ok(Answer::Refused { error: NotaryError::Conflict { consumed, .. }, .. }) => {
            let states: Vec<_> = consumed.iter().map(|c| short(&c.state.to_string())).collect();
            ("Conflict", format!("spent before: {}", states.join(", ")))
        }
        Ok(Answer::Refused { error, .. }) => (error.kind(), error.to_string()),
        Ok(Answer::Failed) => ("Failed", "the session ends with an error that reveals nothing".into()),
        Ok(Answer::NoSession { message }) => ("NoSession", message.clone()),
        Err(AskError::Parked { reason }) => ("Parked", reason.clone()),
        Err(error) => ("Nothing", error.to_string()),
    };
    (outcome, cut(&why))
}

fn short(state: &str) -> String {
    let (head, tail) = (state.chars().take(8), state.rsplit('(').next().unwrap_or_default());
    format!("{}…({tail}", head.collect::<String>())
}

fn cut(text: &str) -> String {
    match text.chars().count() > WHY_CHARS_MAX {
        true => text.chars().take(WHY_CHARS_MAX - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
