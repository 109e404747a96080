//! Where handshakes run. A signature is made in the middle of one, and the library waits for it without giving its thread back. With
//! a key in memory that is a fraction of a millisecond; a token may take seconds, until its deadline. So such handshakes have threads
//! of their own, as many as the token has sessions: whatever it does, only other handshakes wait for it, which need it as well.
//! (`block_in_place` on the worker's own threads would take them away one by one: the worker has few, and once all wait, nobody is
//! left to hear the token answer or to notice that it is late.)

use std::future::Future;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::PeerTls;
use crate::domain::network::Route;

/// Threads for handshakes. Dropped, they end when they are done, and nobody waits for them.
pub(super) struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A task that ends with whoever waits for it.
struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl PeerTls {
    /// The same with `count` threads of their own for its handshakes: for a key whose signatures take their time.
    ///
    /// # Errors
    /// If the operating system gives no threads.
    pub fn on_own_threads(self, count: NonZeroUsize) -> io::Result<Self> {
        // Neither I/O nor time: sockets and deadlines are those of the caller's runtime.
        let runtime = Builder::new_multi_thread().worker_threads(count.get()).thread_name("tls-handshake").build()?;
        Ok(Self { threads: Some(Arc::new(Threads(Some(runtime)))), ..self })
    }

    /// The handshake with a node that has connected, by the settings of [`Self::server`]. Cancelled when dropped.
    ///
    /// # Errors
    /// As `tokio_rustls` has them: [`handshake_fault`](super::handshake_fault) tells what is wrong with the other side.
    pub async fn accept(
        &self,
        settings: &Arc<ServerConfig>,
        socket: TcpStream,
    ) -> io::Result<server::TlsStream<TcpStream>> {
        self.run(TlsAcceptor::from(Arc::clone(settings)).accept(socket)).await
    }

    /// The handshake with a node that was connected to, which `route` leads to. Cancelled when dropped.
    ///
    /// # Errors
    /// As [`Self::accept`].
    pub async fn connect(&self, route: &Route, socket: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        let (settings, name) = self.client(route).map_err(io::Error::other)?;
        self.run(TlsConnector::from(settings).connect(name, socket)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        handshake: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> io::Result<T> {
        match self.threads.as_deref() {
            Some(Threads(Some(runtime))) => {
                let mut task = Task(runtime.spawn(handshake));
                (&mut task.0).await.unwrap_or_else(|error| Err(io::Error::other(error)))
            }
            _ => handshake.await,
        }
    }
}
