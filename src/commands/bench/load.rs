//! Load on a whole worker: all parties at once, every answer judged.
//!
//! A closed loop keeps so many requests under way and measures what the worker can do. An open loop starts requests at a fixed
//! rate, whatever the worker does, and measures from the moment each *should* have started: so a worker that falls behind shows
//! it in its latencies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::figures::Figures;
use crate::client::cast::{Actor, Cast};
use crate::client::judge::Answer;
use crate::commands::Failure;
use crate::domain::{NotaryError, StateRef};

/// What to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Inputs of each transaction.
    pub(crate) inputs: usize,
    /// Percentage of transactions that spend a state again.
    pub(crate) conflict_percent: u64,
    /// Requests under way at once, over all parties; in an open loop the most that may be.
    pub(crate) in_flight: usize,
    /// Requests a second to start; `None` for a closed loop.
    pub(crate) rate: Option<f64>,
    /// Stop after so many requests.
    pub(crate) requests_max: u64,
    /// Stop at this time at the latest.
    pub(crate) until: Option<Instant>,
}

/// Puts `plan` to the worker; returns the figures and how long it took.
pub(crate) async fn run(cast: &Cast, plan: Plan) -> Result<(Figures, Duration), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let tasks: Vec<_> = (0..plan.in_flight)
        .map(|task| {
            let actor = Arc::clone(&cast.parties()[task % cast.parties().len()]);
            tokio::spawn(keep_asking(actor, plan, Arc::clone(&next), started))
        })
        .collect();
    let mut figures = Figures::new()?;
    for task in tasks {
        figures.merge(&task.await.map_err(Failure::unavailable)??);
    }
    Ok((figures, started.elapsed()))
}

async fn keep_asking(
    actor: Arc<Actor>,
    plan: Plan,
    next: Arc<AtomicU64>,
    started: Instant,
) -> Result<Figures, Failure> {
    let mut figures = Figures::new()?;
    let mut spent: Option<StateRef> = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let due = plan.rate.map(|rate| started + Duration::from_secs_f64(number as f64 / rate));
        let over = plan.until.is_some_and(|until| due.unwrap_or_else(Instant::now) >= until);
        if number >= plan.requests_max || over {
            return Ok(figures);
        }
        let mut inputs: Vec<StateRef> =
            (0..plan.inputs).map(|_| actor.fresh_state()).collect::<Result<_, _>>().map_err(Failure::unavailable)?;
        let again = (number % 100 < plan.conflict_percent).then(|| spent.take()).flatten();
        if let (Some(state), Some(first)) = (again, inputs.first_mut()) {
            *first = state;
        }
        let transaction = actor.spend(&inputs).map_err(Failure::unavailable)?;
        if let Some(due) = due {
            tokio::time::sleep_until(due.into()).await;
        }
        let asked = due.unwrap_or_else(Instant::now);
        let answer = actor.notarise(&transaction).await;
        let right = match (&answer, again) {
            (Ok(Answer::Notarised(_)), None) => true,
            (Ok(Answer::Refused { error: NotaryError::Conflict { consumed, .. }, .. }), Some(state)) => {
                consumed.iter().map(|consumption| consumption.state).eq([state])
            }
            _ => false,
        };
        match right {
            true => figures.right(plan.inputs, again.is_some(), asked.elapsed()),
            false => {
                tracing::warn!(?answer, "a wrong answer");
                figures.errors += 1;
            }
        }
        spent = if again.is_none() { inputs.first().copied() } else { None };
    }
}
