//! Connections to RabbitMQ: TCP or TLS, log-in, heartbeat. Lapin runs on the runtime that it is given and speaks over our own TLS,
//! whose settings every server connection of a worker shares.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::broker::access::{self, ConnectError, Password};
use crate::tls::TlsFiles;

/// The port where no other is given.
const PORT: u16 = 5672;
/// The same under TLS.
const TLS_PORT: u16 = 5671;

/// How to reach a broker, and as whom.
#[derive(Clone)]
pub struct Access {
    /// `HOST` or `HOST:PORT`, each tried in turn.
    pub hosts: Vec<String>,
    /// The virtual host.
    pub vhost: String,
    /// The broker user; empty if the client certificate names it (SASL EXTERNAL).
    pub user: String,
    /// Its password; not asked for without a user.
    pub password: Password,
    /// Certificates, read at every attempt to connect (F38). Without them only loopback hosts are allowed.
    pub tls: Option<TlsFiles>,
    /// How long the broker may be silent before the connection counts as lost; also the deadline of every step of connecting.
    pub silence_max: Duration,
    /// What the broker calls the connection.
    pub name: String,
}

impl Access {
    /// What is wrong with it, if anything, without connecting.
    ///
    /// # Errors
    /// In one line.
    pub fn check(&self) -> Result<(), String> {
        access::check(&self.hosts, &self.user, self.tls.as_ref())
    }

    /// Connects to one host within the deadline, everything running on `runtime`.
    pub(super) async fn connect(&self, host: &str, runtime: &Handle) -> Result<Connection, ConnectError> {
        let failed = |problem: String| ConnectError { host: host.to_owned(), problem };
        match timeout(self.silence_max, self.open(host, runtime)).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(failed(format!("no answer within {:?}", self.silence_max))),
        }
    }

    async fn open(&self, host: &str, runtime: &Handle) -> Result<Connection, String> {
        self.check()?;
        let (name, port) = access::split(host, if self.tls.is_some() { TLS_PORT } else { PORT })?;
        let tls = match &self.tls {
            None => None,
            Some(files) => {
                let server = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
                Some((files.client().map_err(|error| error.to_string())?, server))
            }
        };
        let password = match self.user.is_empty() {
            true => Zeroizing::default(),
            false => access::fetch(&self.password, &self.user, runtime).await?,
        };
        let uri = AMQPUri {
            scheme: AMQPScheme::AMQP, // TLS is ours.
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.clone(), password: password.to_string() },
                host: name.to_owned(),
                port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(self.heartbeat_s()),
                auth_mechanism: Some(match self.user.is_empty() {
                    true => SASLMechanism::External,
                    false => SASLMechanism::Plain,
                }),
                ..AMQPQueryString::default()
            },
        };
        // A host may have several addresses; the first that answers serves. One runtime does all of it, whoever polls.
        let target = (name.to_owned(), port);
        let connecting = runtime.spawn(async move {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(match tls {
                None => Transport::Plain(stream),
                Some((config, server)) => {
                    let connector = tokio_rustls::TlsConnector::from(config);
                    Transport::Tls(Box::new(connector.connect(server, stream).await?))
                }
            })
        });
        let transport = connecting.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        // Lapin asks for the stream once, as nothing here recovers by itself.
        let transport = std::sync::Mutex::new(Some(transport));
        let kit = Runtime::new(Kit(Tokio::default().with_handle(runtime.clone())));
        let take = async move |_: AMQPUri, _: Runtime<Kit>| {
            let transport = transport.lock().ok().and_then(|mut slot| slot.take());
            transport.map(AsyncTcpStream::Plain).ok_or_else(|| io::Error::other("the stream is used up").into())
        };
        let properties = ConnectionProperties::default().with_connection_name(self.name.as_str().into());
        Connection::connector(uri, kit, take, properties).await.map_err(|error| explain(&error))
    }

    /// The heartbeat to ask for, in seconds: a connection counts as lost after two of them without a word.
    fn heartbeat_s(&self) -> u16 {
        u16::try_from(self.silence_max.as_secs() / 2).unwrap_or(u16::MAX).max(1)
    }
}

/// An error as an operator needs it.
pub(super) fn explain(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        ErrorKind::MissingHeartbeatError => "the broker fell silent".into(),
        _ => error.to_string(),
    }
}

/// Bytes to the broker and back.
enum Transport {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

macro_rules! either {
    ($self:ident.$poll:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Transport::Plain(stream) => Pin::new(stream).$poll($($argument),*),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).$poll($($argument),*),
        }
    };
}

impl futures_io::AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let polled: Poll<io::Result<()>> = either!(self.poll_read(cx, &mut buffer));
        polled.map_ok(|()| buffer.filled().len())
    }
}

impl futures_io::AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_flush(cx))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.poll_shutdown(cx))
    }
}

/// Tokio for lapin, with streams of our own.
#[derive(Clone, Debug)]
struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Transport;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        Err::<Transport, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(&self, _: SocketAddr) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        // Streams are made before lapin is asked: it cannot do our TLS.
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn access(hosts: &[&str], tls: bool) -> Access {
        let files = TlsFiles { authorities: "ca.pem".into(), identity: None };
        Access {
            hosts: hosts.iter().map(ToString::to_string).collect(),
            vhost: "/".into(),
            user: "notary".into(),
            password: Arc::new(|| Err("not asked for".into())),
            tls: tls.then_some(files),
            silence_max: Duration::from_secs(10),
            name: "test".into(),
        }
    }

    #[test]
    fn without_tls_only_this_machine_is_spoken_to() {
        for host in ["127.0.0.1:5672", "localhost", "[::1]:5672", "127.1.2.3"] {
            assert_eq!(access(&[host], false).check(), Ok(()), "{host}");
        }
        for host in ["10.0.0.1:5672", "broker.example", "[fe80::1]", "127.0.0.1.example"] {
            assert!(access(&[host], false).check().is_err(), "{host}");
            assert_eq!(access(&[host], true).check(), Ok(()), "{host}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for host in ["", ":5672", "host:", "host:x", "host:70000", "[::1", "[::1]5672"] {
            assert!(access(&[host], true).check().is_err(), "{host}");
        }
        assert!(access(&[], true).check().is_err());
        let nobody = Access { user: String::new(), ..access(&["localhost"], true) };
        assert!(nobody.check().is_err(), "neither user nor certificate");
    }

    #[test]
    fn two_heartbeats_make_the_silence() {
        let heartbeat =
            |ms| Access { silence_max: Duration::from_millis(ms), ..access(&["localhost"], true) }.heartbeat_s();
        assert_eq!((heartbeat(1_000), heartbeat(2_000), heartbeat(10_000), heartbeat(600_000)), (1, 1, 5, 300));
    }
}
