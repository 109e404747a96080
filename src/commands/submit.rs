//! `notary submit`: requests to a running worker of a development network.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::bench::figures::Figures;
use super::store::parse_state;
use super::{ConfigSource, Exit, Failure};
use crate::broker::{artemis, rabbitmq};
use crate::client::cast::{Access, Actor, Cast};
use crate::client::judge::Answer;
use crate::client::ledger::Draft;
use crate::client::session::AskError;
use crate::config::{BrokerKind, Settings};
use crate::domain::{NotaryError, StateRef, TimeWindow, Timestamp};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;
use crate::tls::TlsFiles;
use crate::worker;

#[derive(Args, Debug)]
pub(crate) struct SubmitArguments {
    #[command(flatten)]
    source: ConfigSource,
    /// Where the worker's own endpoint listens; without it, the broker of the configuration.
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<SocketAddr>,
    /// Who asks: part of the party's name, such as Alice.
    #[arg(long, default_value = "")]
    party: String,
    /// How many requests; each spends a fresh state unless --input says otherwise.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// Requests under way at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// A state to consume, TXID:INDEX; may be repeated. Submitting it again is a double spend.
    #[arg(long, value_name = "STATE")]
    input: Vec<String>,
    /// A state to refer to; may be repeated.
    #[arg(long, value_name = "STATE")]
    reference: Vec<String>,
    /// A time window that ends so many seconds from now; negative for one that is over.
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    until: Option<i64>,
    /// Send this file instead: a serialized session message, such as one from a dead-letter queue.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "reference", "until", "count"])]
    message: Option<PathBuf>,
    /// Print each answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &SubmitArguments) -> Result<Exit, Failure> {
    let Some(file) = &arguments.source.config else {
        return Err(Failure::new(
            Exit::Usage,
            "give --config FILE: its folder holds the parties' keys (see `notary init`)",
        ));
    };
    let settings = arguments.source.load()?.settings;
    let folder = file.parent().unwrap_or(Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let access = access(&settings, arguments.connect, folder);
    let runtime = worker::runtime(0).map_err(Failure::unavailable)?;
    runtime.block_on(async {
        let cast = Cast::connect_by(folder, &access, PATIENCE).await.map_err(Failure::unavailable)?;
        let wanted = arguments.party.to_lowercase();
        let actor = cast.parties().iter().find(|actor| actor.name().to_string().to_lowercase().contains(&wanted));
        let actor =
            actor.ok_or_else(|| Failure::new(Exit::Usage, format!("no party is called {}", arguments.party)))?;
        let exit = match &arguments.message {
            Some(path) => {
                let bytes =
                    std::fs::read(path).map_err(|e| Failure::unavailable(format!("{}: {e}", path.display())))?;
                let answer = actor.send_raw(bytes).await;
                println!("{}", answer_json(&answer));
                if matches!(answer, Ok(Answer::Notarised(_))) { Exit::Done } else { Exit::Negative }
            }
            None => submit(arguments, actor).await?,
        };
        cast.close().await;
        Ok(exit)
    })
}

/// How long one request may take, broken connections included: twice what a Corda client waits before it asks again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The parties' road to the notary. Their passwords at a shared broker lie in `secrets/` beside the configuration, where `notary
/// broker apply --secrets` has put them.
fn access(settings: &Settings, endpoint: Option<SocketAddr>, folder: &Path) -> Access {
    let broker = &settings.broker;
    let hosts = broker.hosts.split(',').map(|host| host.trim().to_owned()).collect();
    let (prefix, secrets) = (broker.prefix.clone(), folder.join("secrets"));
    let tls = TlsFiles::configured(&broker.tls_ca, Path::new(""), Path::new(""));
    let silence_max = Duration::from_millis(broker.silence_ms_max);
    // Each party's own user and password are put in later.
    let (user, name, password) = (String::new(), String::new(), Arc::new(|| Err("not known yet".to_owned())));
    match (broker.kind, endpoint) {
        (BrokerKind::RabbitMq, None) => {
            let vhost = broker.vhost.clone();
            let access = rabbitmq::Access { hosts, vhost, user, password, tls, silence_max, name };
            Access::RabbitMq { access, prefix, secrets }
        }
        (BrokerKind::Artemis, None) => {
            let access = artemis::Access { hosts, user, password, tls, silence_max, name };
            Access::Artemis { access, prefix, secrets }
        }
        (_, endpoint) => Access::Endpoint(endpoint.unwrap_or(broker.listen)),
    }
}

async fn submit(arguments: &SubmitArguments, actor: &Arc<Actor>) -> Result<Exit, Failure> {
    let states = |texts: &[String]| -> Result<Vec<StateRef>, Failure> {
        let parse = |text: &String| {
            parse_state(text).ok_or_else(|| Failure::new(Exit::Usage, format!("{text} is no state; give TXID:INDEX")))
        };
        texts.iter().map(parse).collect()
    };
    let (inputs, references) = (states(&arguments.input)?, states(&arguments.reference)?);
    let started = Instant::now();
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = Vec::new();
    for _ in 0..u32::from(arguments.concurrency).min(arguments.count) {
        let (actor, next) = (Arc::clone(actor), Arc::clone(&next));
        let (inputs, references) = (inputs.clone(), references.clone());
        let (count, until, json) = (arguments.count, arguments.until, arguments.json);
        tasks.push(tokio::spawn(async move {
            let mut figures = Figures::new()?;
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let inputs = match inputs.is_empty() && references.is_empty() {
                    true => vec![actor.fresh_state().map_err(Failure::unavailable)?],
                    false => inputs.clone(),
                };
                let time_window = until.map(|seconds| {
                    let end = SystemClock.now().as_millis().saturating_add(seconds.saturating_mul(1000));
                    TimeWindow::Until(Timestamp::from_millis(end))
                });
                let draft = actor.draft(inputs).map_err(Failure::unavailable)?;
                let draft = Draft { references: references.clone(), time_window, ..draft };
                let transaction = draft.build().map_err(Failure::unavailable)?;
                let asked = Instant::now();
                let answer = actor.notarise(&transaction).await;
                match &answer {
                    Ok(Answer::Notarised(_)) => figures.right(1, false, asked.elapsed()),
                    _ => figures.errors += 1,
                }
                if json || count == 1 || !matches!(answer, Ok(Answer::Notarised(_))) {
                    let mut line = answer_json(&answer);
                    line["txId"] = json!(transaction.id().to_string());
                    line["inputs"] =
                        json!(transaction.draft().inputs.iter().map(ToString::to_string).collect::<Vec<_>>());
                    println!("{line}");
                }
            }
            Ok::<_, Failure>(figures)
        }));
    }
    let mut figures = Figures::new()?;
    for task in tasks {
        figures.merge(&task.await.map_err(Failure::unavailable)??);
    }
    if arguments.count > 1 {
        println!("{}", figures.text(started.elapsed()));
    }
    Ok(if figures.errors == 0 { Exit::Done } else { Exit::Negative })
}

fn answer_json(answer: &Result<Answer, AskError>) -> Value {
    match answer {
        Ok(Answer::Notarised(signatures)) => {
            let by: Vec<_> = signatures.iter().map(|signature| signature.by.name_hash()).collect();
            json!({ "answer": "Notarised", "signedBy": by, "signatureVerified": true })
        }
        Ok(Answer::Refused { error: error @ NotaryError::Conflict { consumed, .. }, .. }) => json!({
            "answer": error.kind(),
            "reason": error.to_string(),
            "consumed": consumed.iter().map(|c| c.state.to_string()).collect::<Vec<_>>(),
        }),
        Ok(Answer::Refused { error, .. }) => json!({ "answer": error.kind(), "reason": error.to_string() }),
        Ok(Answer::Failed) => json!({ "answer": "Failed" }),
        Ok(Answer::NoSession { message }) => json!({ "answer": "NoSession", "reason": message }),
        Err(error) => json!({ "answer": null, "reason": error.to_string() }),
    }
}
