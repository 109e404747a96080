//! `notary run`.

use std::io::Write;
use std::pin::pin;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigSource, Exit, Failure};
use crate::actors::suspects;
use crate::config::Settings;
use crate::worker::{self, Worker, process};

#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    source: ConfigSource,
}

pub(crate) fn run(arguments: &RunArguments) -> Result<Exit, Failure> {
    // Before any secret is read. Where the system refuses, `doctor` says so; it is no reason not to serve.
    let protected = process::protect_memory();
    let loaded = arguments.source.load()?;
    let settings = &loaded.settings;
    worker::init_logs(settings)?;
    for caution in loaded.cautions() {
        tracing::warn!("{caution}");
    }
    if let Err(error) = protected {
        tracing::warn!(%error, "core dumps could not be turned off; they would hold the service key");
    }
    let runtime = worker::runtime(settings.worker.threads).map_err(Failure::unavailable)?;
    end_on_panic();
    let ended = runtime.block_on(serve(settings, runtime.handle()));
    // A thread may hang in a command or a library; whatever it holds is not worth more than stopping in time.
    runtime.shutdown_timeout(STUCK_THREADS);
    ended
}

/// How long threads get to finish once everything has ended.
const STUCK_THREADS: Duration = Duration::from_secs(1);

/// Starts, waits for a signal, drains.
async fn serve(settings: &Settings, runtime: &Handle) -> Result<Exit, Failure> {
    // Before the worker starts, so that a signal at any later moment drains it.
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::unavailable)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::unavailable)?;
    let mut told_to_stop = pin!(async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let worker = tokio::select! {
        worker = Worker::start(settings, runtime) => worker?,
        // Servers may take long to answer; a supervisor need not wait for them.
        () = &mut told_to_stop => {
            say("stopped before it served");
            return Ok(Exit::Done);
        }
    };
    say(&format!("serving {} at {}", settings.service.name, worker.place()));
    say(&format!("figures at http://{}/metrics", worker.http_address()));
    told_to_stop.await;
    say("draining");
    let drain = Duration::from_millis(settings.worker.drain_ms_max);
    match worker.stop(drain).await {
        true => say("stopped"),
        false => {
            let limit = drain.as_millis();
            say(&format!("stopped; requests not finished within {limit} ms stay with their senders"));
        }
    }
    Ok(Exit::Done)
}

/// Tells whoever started the worker. Nobody may be listening any more; that must not keep it from serving or draining, as the
/// panic of `println!` would.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A panic anywhere ends the worker: half a worker would hold requests that others could serve. The message that was inspected is
/// noted as its cause.
fn end_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        suspects::accuse(&panic.to_string());
        let line = "notary: the worker ends because of an internal fault; its requests stay with the broker";
        // A second panic, in here, would abort with another code.
        let _ = writeln!(std::io::stderr(), "{line}");
        std::process::exit(i32::from(Exit::Fault as u8));
    }));
}
