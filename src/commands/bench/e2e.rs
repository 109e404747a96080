//! `notary bench e2e`: the whole path, from a client's AMQP message to its verified answer, on embedded defaults.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::load::{self, Plan};
use crate::client::cast::Cast;
use crate::commands::{Exit, Failure, init};
use crate::config;
use crate::network::development::Spec;
use crate::ports::Clock;
use crate::ports::clock::SystemClock;
use crate::worker::{self, Worker};

#[derive(Args, Debug)]
pub(crate) struct E2eArguments {
    /// Parties, each with its own connection.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    parties: u16,
    /// Inputs of each transaction.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9999))]
    inputs: u16,
    /// Percentage of transactions that spend a state again.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    conflict: u8,
    /// Requests under way at once; in an open loop the most that may be.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// Open loop: start so many requests a second, whatever the worker does.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Override a setting of the worker; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// End with one JSON line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &E2eArguments) -> Result<Exit, Failure> {
    let throw_away = tempfile::tempdir().map_err(Failure::unavailable)?;
    let folder = throw_away.path().join("bench");
    let mut overrides = vec!["broker.listen=127.0.0.1:0".to_owned(), "observe.listen=127.0.0.1:0".into()];
    overrides.push("observe.log=warn".into());
    overrides.extend(arguments.set.iter().cloned());
    let spec = Spec { parties: arguments.parties.into(), ..Spec::new(SystemClock.now()) };
    let file = init::create(&folder, &spec, &overrides)?;
    let settings = config::load(Some(&file), &[])?.settings;
    worker::init_logs(&settings)?;
    let runtime = worker::runtime(settings.worker.threads).map_err(Failure::unavailable)?;
    runtime.block_on(async {
        let worker = Worker::start(&settings, runtime.handle()).await.map_err(Failure::unavailable)?;
        let address = worker.amqp_address();
        let address = address.ok_or_else(|| Failure::unavailable("this measurement needs the embedded endpoint"))?;
        let cast = Cast::connect(&folder, address).await.map_err(Failure::unavailable)?;
        let plan = Plan {
            inputs: arguments.inputs.into(),
            conflict_percent: arguments.conflict.into(),
            in_flight: arguments.concurrency.into(),
            rate: arguments.rate.map(f64::from),
            requests_max: u64::MAX,
            until: Some(Instant::now() + Duration::from_secs(arguments.seconds)),
        };
        let (figures, elapsed) = load::run(&cast, plan).await?;
        cast.close().await;
        worker.stop(Duration::from_secs(2)).await;
        let kind = match arguments.rate {
            Some(rate) => format!("open loop at {rate}/s"),
            None => format!("closed loop, {} in flight", arguments.concurrency),
        };
        println!("whole path ({kind}; client and worker share this machine): {}", figures.text(elapsed));
        if arguments.json {
            let mut line = figures.json(elapsed);
            line["inputs"] = json!(arguments.inputs);
            line["rate"] = json!(arguments.rate);
            println!("{line}");
        }
        Ok(if figures.errors == 0 { Exit::Done } else { Exit::Negative })
    })
}
