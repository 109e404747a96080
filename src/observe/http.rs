//! What an operator's tools ask over HTTP, on the same machine: `/metrics`, `/live` (the actors answer), `/ready` (every part works;
//! 503 and the reason otherwise).

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::health::Health;
use super::metrics::Exporter;
use crate::ports::BoxFuture;

/// Whether the worker's actors answer.
pub type Pulse = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// How often recent samples are folded into the histograms.
const UPKEEP_PAUSE: Duration = Duration::from_secs(5);

/// A running HTTP listener; stopped when dropped.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    tasks: [AbortHandle; 2],
}

impl Http {
    /// Serves at `listen`.
    ///
    /// # Errors
    /// Whatever binding fails with.
    pub async fn start(
        listen: SocketAddr,
        exporter: Exporter,
        health: Arc<Health>,
        pulse: Pulse,
        runtime: &Handle,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let upkeep = exporter.clone();
        let figures = move || {
            let exporter = exporter.clone();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], exporter.render()) }
        };
        let ready = move || {
            let health = Arc::clone(&health);
            async move { (status(health.readiness().ready), Json(health.report())) }
        };
        let live = move || {
            let pulse = Arc::clone(&pulse);
            async move {
                let lives = pulse().await;
                (status(lives), if lives { "live\n" } else { "the actors do not answer\n" })
            }
        };
        let router =
            Router::new().route("/metrics", get(figures)).route("/ready", get(ready)).route("/live", get(live));
        let serve = runtime.spawn(axum::serve(listener, router).into_future());
        let fold = runtime.spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_PAUSE).await;
                upkeep.upkeep();
            }
        });
        Ok(Self { address, tasks: [serve.abort_handle(), fold.abort_handle()] })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn status(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

impl Drop for Http {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
