//! Looking at tokens on behalf of people: `doctor`, `keys test`. Everything goes through the keepers, as when the worker signs.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;

use super::link::{Link, State};
use super::pin::PinNotes;
use super::{Options, PATIENCE_DEADLINES, Tasks};
use crate::domain::PublicKey;
use crate::ports::Finding;

/// Signatures for a first impression of what one costs.
const GLANCE: usize = 20;
/// What `keys test` reckons with when it proposes a batch size, in transactions a second: more than a store commits here.
const GOAL_PER_SECOND: f64 = 1_000.0;

/// How long signatures of one token took.
#[derive(Clone, PartialEq, Debug)]
pub struct Latency {
    /// The token.
    pub token: String,
    /// Its sessions, all of which signed at once.
    pub sessions: usize,
    /// Signatures made and verified.
    pub signatures: usize,
    /// Half of them took no longer than this.
    pub p50: Duration,
    /// 99 in 100 took no longer than this.
    pub p99: Duration,
    /// Signatures a second, over all sessions.
    pub per_second: f64,
    /// Transactions under one signature that reach 1 000 transactions a second with these sessions.
    pub batch: usize,
}

/// What a conformance run found.
#[derive(Clone, PartialEq, Debug)]
pub struct Conformance {
    /// What was looked at; the run is passed if none is a fault.
    pub findings: Vec<Finding>,
    /// What signatures cost, for each token that works.
    pub latencies: Vec<Latency>,
}

/// Opens every token and looks: module, PIN, key, what may be done with the key, what a signature costs. A wrong PIN is tried
/// once, and noted, as the worker does.
pub async fn examine(options: &Options, runtime: &Handle) -> Vec<Finding> {
    look(options, GLANCE, runtime).await.findings
}

/// Puts the module through what the worker will ask of it: opens every token twice, has `count` messages of many lengths signed on
/// all sessions at once, verifies each signature, and measures.
pub async fn conformance(options: &Options, count: usize, runtime: &Handle) -> Conformance {
    let mut first = look(options, count, runtime).await;
    // Everything was closed; the worker opens tokens again whenever they fail.
    let again = look(options, 1, runtime).await;
    let works = |found: &Conformance| found.latencies.iter().map(|latency| latency.token.clone()).collect::<Vec<_>>();
    first.findings.push(match works(&first) == works(&again) {
        true => Finding::good("tokens: opened again", "all that worked work again after their sessions were closed"),
        false => Finding::fault(
            "tokens: opened again",
            format!("at first worked {:?}, then {:?}", works(&first), works(&again)),
            "the worker depends on opening a token anew after a failure; ask the vendor, or try another profile",
        ),
    });
    first
}

async fn look(options: &Options, count: usize, runtime: &Handle) -> Conformance {
    let (shared, expected) = (Arc::new(options.clone()), Arc::new(OnceLock::new()));
    let notes = PinNotes::read(options.pin.clone());
    let (tokens, tasks): (Vec<_>, Vec<_>) =
        options.tokens.iter().map(|label| Link::start(label, &shared, &notes, &expected, runtime)).unzip();
    let _ending = Tasks(tasks);
    let (mut findings, mut latencies) = (Vec::new(), Vec::new());
    findings.push(match options.profile.tested {
        true => Finding::good("profile", &options.profile.name),
        false => Finding::warning(
            "profile",
            format!("{}: from public documents, never run by this project", options.profile.name),
            "let `notary keys test` pass before you rely on it",
        ),
    });
    for token in &tokens {
        let subject = format!("token {:?}", token.label);
        let advice = match token.settled().await {
            State::Up => None,
            State::PinRefused(why) => {
                Some((why, "correct the PIN behind signing.pin; it is not tried again until it changes"))
            }
            State::OtherKey(why) => {
                Some((why, "clone the service key to this token by the vendor's means, or leave it out"))
            }
            State::Aside(why) => Some((why, "check module, label and device; the worker goes on trying")),
            State::Starting => None,
        };
        if let Some((why, advice)) = advice {
            findings.push(Finding::fault(subject, why, advice));
            continue;
        }
        describe(token, &mut findings);
        if let Some(public_key) = expected.get() {
            match measure(token, public_key, count, options).await {
                Ok(latency) => {
                    findings.push(cost(&subject, &latency, options.deadline));
                    latencies.push(latency);
                }
                Err(why) => findings.push(Finding::fault(
                    format!("{subject}: signatures"),
                    why,
                    "compare signing.profile with the vendor's mechanisms, and signing.token_deadline_ms with its speed",
                )),
            }
        }
    }
    if tokens.len() == 1 {
        findings.push(Finding::warning(
            "tokens",
            "one only: while it is away, nothing is signed",
            "name a second token that holds the same key (signing.tokens)",
        ));
    } else if let (Some(key), true) = (expected.get(), latencies.len() == tokens.len()) {
        findings.push(Finding::good("tokens", format!("all {} hold {key:?}, proven by a signature", tokens.len())));
    }
    Conformance { findings, latencies }
}

/// What an open token says of itself and of its key.
fn describe(token: &Link, findings: &mut Vec<Finding>) {
    let Some(opened) = token.facts() else { return };
    let (subject, facts) = (format!("token {:?}", token.label), &opened.facts);
    findings.push(Finding::good(
        &subject,
        format!(
            "{}; module {}; {} sessions; public half from its {}",
            facts.token, facts.module, opened.sessions, facts.public_from
        ),
    ));
    if facts.pin_count_low {
        findings.push(Finding::warning(
            format!("{subject}: PIN"),
            "somebody entered a wrong PIN since the last right one (CKF_USER_PIN_COUNT_LOW)",
            "find out who; a few more lock the token",
        ));
    }
    let told = |name: &str| facts.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let mut wrong = Vec::new();
    for (name, right) in [
        ("CKA_SENSITIVE", true),
        ("CKA_EXTRACTABLE", false),
        ("CKA_SIGN", true),
        ("CKA_DECRYPT", false),
        ("CKA_UNWRAP", false),
        ("CKA_DERIVE", false),
    ] {
        if told(name) == Some(!right) {
            wrong.push(format!("{name} is {}", !right));
        }
    }
    let subject = format!("{subject}: key");
    if told("CKA_ALWAYS_AUTHENTICATE") == Some(true) {
        findings.push(Finding::fault(
            &subject,
            "CKA_ALWAYS_AUTHENTICATE: it wants the PIN for every signature",
            "make a service key without it",
        ));
    }
    findings.push(match wrong.as_slice() {
        [] => Finding::good(&subject, "does not leave the token, signs only"),
        wrong => Finding::warning(
            &subject,
            wrong.join(", "),
            "make the service key with `notary keys generate`: not extractable, for signatures only",
        ),
    });
    if (told("CKA_LOCAL"), told("CKA_NEVER_EXTRACTABLE")) != (Some(true), Some(true)) {
        findings.push(Finding::warning(
            &subject,
            "it was made outside the token, or could once be extracted: there may be copies",
            "make sure that every copy is gone or guarded",
        ));
    }
}

/// Messages of many lengths: real ones have some hundred bytes, and none may depend on that.
fn message(n: usize) -> Vec<u8> {
    let mut message =
        format!("notary-worker: conformance run, message {n}; this proves a key, and nothing else. ").into_bytes();
    message.resize(message.len() + n * 7 % 500, n as u8);
    message
}

async fn measure(token: &Link, key: &PublicKey, count: usize, options: &Options) -> Result<Latency, String> {
    let sessions = token.facts().map_or(1, |opened| opened.sessions);
    let patience = options.deadline * PATIENCE_DEADLINES;
    let one = async |n: usize| -> Result<Duration, String> {
        let message = message(n);
        let since = Instant::now();
        let signature = token.sign(&message, patience).await?;
        let took = since.elapsed();
        key.verify(&message, &signature).map_err(|error| format!("message {n}: {error}"))?;
        Ok(took)
    };
    let since = Instant::now();
    let (mut next, mut took, mut flying) = (0, Vec::new(), FuturesUnordered::new());
    loop {
        while next < count && flying.len() < sessions {
            flying.push(one(next));
            next += 1;
        }
        match flying.next().await {
            Some(signed) => took.push(signed?),
            None => break,
        }
    }
    let elapsed = since.elapsed();
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    if took.is_empty() {
        return Err("nothing was signed".into());
    }
    let per_second = took.len() as f64 / elapsed.as_secs_f64();
    let batch = (GOAL_PER_SECOND / per_second).ceil().max(1.0) as usize;
    Ok(Latency {
        token: token.label.to_string(),
        sessions,
        signatures: took.len(),
        p50: at(50),
        p99: at(99),
        per_second,
        batch,
    })
}

fn cost(subject: &str, latency: &Latency, deadline: Duration) -> Finding {
    let subject = format!("{subject}: signatures");
    let found = format!(
        "{} verified; p50 {:.1?}, p99 {:.1?}, {:.0} a second on {} sessions",
        latency.signatures, latency.p50, latency.p99, latency.per_second, latency.sessions
    );
    // A quarter leaves room for the device's worse days.
    if latency.p99 > deadline / 4 {
        let advice =
            "raise signing.token_deadline_ms to four times p99 at least: a token past its deadline is put aside";
        Finding::warning(subject, found, advice)
    } else {
        Finding::good(subject, found)
    }
}
