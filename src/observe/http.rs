//! Figures over HTTP, for a scraper on the same machine.

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::header;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::metrics::Exporter;

/// How often recent samples are folded into the histograms.
const UPKEEP_PAUSE: Duration = Duration::from_secs(5);

/// A running HTTP listener; stopped when dropped.
#[derive(Debug)]
pub struct Http {
    address: SocketAddr,
    tasks: [AbortHandle; 2],
}

impl Http {
    /// Serves `/metrics` at `listen`.
    ///
    /// # Errors
    /// Whatever binding fails with.
    pub async fn start(listen: SocketAddr, exporter: Exporter, runtime: &Handle) -> std::io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let upkeep = exporter.clone();
        let figures = move || {
            let exporter = exporter.clone();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], exporter.render()) }
        };
        let router = Router::new().route("/metrics", get(figures));
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

impl Drop for Http {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
