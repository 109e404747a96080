//! `notary run`.

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigSource, Exit, Failure};
use crate::actors::suspects;
use crate::worker::{self, Worker};

#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    source: ConfigSource,
}

pub(crate) fn run(arguments: &RunArguments) -> Result<Exit, Failure> {
    let settings = arguments.source.load()?.settings;
    worker::init_logs(&settings)?;
    let runtime = worker::runtime(settings.worker.threads).map_err(Failure::unavailable)?;
    end_on_panic();
    let drain = Duration::from_millis(settings.worker.drain_ms_max);
    runtime.block_on(async {
        // Before the worker starts, so that a signal at any later moment drains it.
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::unavailable)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::unavailable)?;
        let worker = Worker::start(&settings, runtime.handle()).await?;
        println!("serving {} at {}", settings.service.name, worker.place());
        println!("figures at http://{}/metrics", worker.http_address());
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        println!("draining");
        match worker.stop(drain).await {
            true => println!("stopped"),
            false => println!("stopped; requests not finished within {} ms stay with their senders", drain.as_millis()),
        }
        Ok(Exit::Done)
    })
}

/// A panic anywhere ends the worker: half a worker would hold requests that others could serve. The message that was inspected is
/// noted as its cause.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        suspects::accuse(&panic.to_string());
        eprintln!("notary: the worker ends because of an internal fault; its requests stay with the broker");
        std::process::exit(i32::from(Exit::Fault as u8));
    }));
}
