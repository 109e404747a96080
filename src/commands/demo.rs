//! `notary demo`: a notary at work, on a throw-away network, with every answer judged.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::bench::load::{self, Plan};
use super::{Exit, Failure, init, table};
use crate::client::cast::Cast;
use crate::client::scenes;
use crate::config;
use crate::network::development::Spec;
use crate::ports::Clock;
use crate::ports::clock::SystemClock;
use crate::worker::{self, Worker};

#[derive(Args, Debug)]
pub(crate) struct DemoArguments {
    /// How many requests the throughput part sends.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    requests: u32,
    /// Leave the worker running afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Make the network here, in a new folder that is kept; otherwise in a throw-away one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End with one JSON line.
    #[arg(long)]
    json: bool,
}

/// Requests that each party has under way: enough to fill batches, few enough to see honest latencies.
const IN_FLIGHT_PER_PARTY: usize = 64;
/// Of a hundred requests, how many spend a state again.
const CONFLICT_PERCENT: u64 = 5;
/// How long the demo's worker may take to stop: nothing is in flight by then.
const DRAIN: Duration = Duration::from_secs(2);

pub(crate) fn run(arguments: &DemoArguments) -> Result<Exit, Failure> {
    let throw_away = tempfile::tempdir().map_err(Failure::unavailable)?;
    let folder = arguments.dir.clone().unwrap_or_else(|| throw_away.path().join("notary-demo"));
    let runtime = worker::runtime(0).map_err(Failure::unavailable)?;
    runtime.block_on(play(arguments, folder, runtime.handle()))
}

async fn play(arguments: &DemoArguments, folder: PathBuf, runtime: &tokio::runtime::Handle) -> Result<Exit, Failure> {
    let overrides = ["broker.listen=127.0.0.1:0", "observe.listen=127.0.0.1:0", "observe.log=error"];
    let file = init::create(&folder, &Spec::new(SystemClock.now()), &overrides.map(String::from))?;
    let settings = config::load(Some(&file), &[])?.settings;
    worker::init_logs(&settings)?;
    let worker = Worker::start(&settings, runtime).await.map_err(Failure::unavailable)?;
    println!("A notary worker serves {} at {}", settings.service.name, worker.place());
    println!("Development network, keys and durable store: {}\n", folder.display());

    let address = worker.amqp_address().ok_or_else(|| Failure::unavailable("the demo needs the embedded endpoint"))?;
    let cast = Cast::connect(&folder, address).await.map_err(Failure::unavailable)?;
    println!("What Corda nodes send, and what comes back:\n");
    let scenes = scenes::play(&cast).await?;
    let rows: Vec<Vec<String>> = scenes.iter().map(scenes::Scene::row).collect();
    println!("{}", table::render(&["", "sent", "came back", "ms", "why"], &rows));

    let plan = Plan {
        inputs: 1,
        conflict_percent: CONFLICT_PERCENT,
        in_flight: IN_FLIGHT_PER_PARTY * cast.parties().len(),
        rate: None,
        requests_max: arguments.requests.into(),
        until: None,
    };
    let (figures, elapsed) = load::run(&cast, plan).await?;
    println!("{} parties at once: {}\n", cast.parties().len(), figures.text(elapsed));
    println!("Every signature was verified against the service key, every conflict against what was spent.");

    let wrong = scenes.iter().filter(|scene| !scene.right).count() as u64 + figures.errors;
    match wrong {
        0 => println!("All answers were right.\n"),
        _ => println!("{wrong} answers were WRONG.\n"),
    }
    println!("Next: notary init notary-dev && notary run --config notary-dev/notary.toml");
    println!("      notary submit --config notary-dev/notary.toml --count 1000");
    println!("      notary inspect FILE   decodes any message;   notary bench e2e   measures the whole path");

    if arguments.keep {
        println!(
            "\nStill serving: {}, figures at http://{}/metrics. Ctrl-C ends it.",
            worker.place(),
            worker.http_address()
        );
        tokio::signal::ctrl_c().await.map_err(Failure::unavailable)?;
    }
    cast.close().await;
    worker.stop(DRAIN).await;
    if arguments.json {
        let count = |outcome| scenes.iter().filter(|scene| scene.outcome == outcome).count() as u64;
        let committed = count("Notarised") + figures.transactions - figures.conflicts;
        let conflicts = count("Conflict") + figures.conflicts;
        let requests = scenes.len() as u64 + u64::from(arguments.requests);
        let measured = figures.json(elapsed);
        println!(
            "{}",
            json!({
                "ok": wrong == 0,
                "requests": requests,
                "committed": committed,
                "conflicts": conflicts,
                "rejected": scenes.len() as u64 - count("Notarised") - count("Conflict"),
                "tx_per_s": measured["tx_per_s"],
                "p50_ms": measured["p50_ms"],
                "p99_ms": measured["p99_ms"],
            })
        );
    }
    Ok(if wrong == 0 { Exit::Done } else { Exit::Negative })
}
