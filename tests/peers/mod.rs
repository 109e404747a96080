//! An endpoint with three parties, and peers that say exactly what a test wants them to say.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::Duration;

use notary_worker::broker::Request;
use notary_worker::broker::client::{Answers, Client, ClientError, Listen, Options};
use notary_worker::broker::embedded::{Caller, Credentials, Endpoint, Limits, SecretDigest, Settings};
use notary_worker::domain::X500Name;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Where requests go.
pub const SERVICE: &str = "p2p.inbound.service";

/// Longer than anything takes that ends at all.
pub const LONG: Duration = Duration::from_secs(60);

pub fn name(party: &str) -> X500Name {
    X500Name {
        common_name: None,
        organisation_unit: None,
        organisation: party.to_owned(),
        locality: "Zurich".to_owned(),
        state: None,
        country: "CH".to_owned(),
    }
}

pub fn inbox(party: &str) -> String {
    format!("p2p.inbound.{party}")
}

pub fn request(body: &str) -> Request {
    Request { dedup_id: format!("id-{body:.20}"), platform_version: 12, body: body.as_bytes().to_vec() }
}

/// An endpoint for Alice, Bob and Mallory, whose passwords are their names.
pub fn endpoint(limits: Limits) -> Arc<Endpoint> {
    endpoint_on(&Handle::current(), limits)
}

pub fn endpoint_on(runtime: &Handle, limits: Limits) -> Arc<Endpoint> {
    let mut credentials = Credentials::default();
    for party in ["Alice", "Bob", "Mallory"] {
        let caller = Caller { name: name(party), reply_address: inbox(party) };
        let secret = SecretDigest::of(party.as_bytes()).unwrap();
        credentials.add(&name(party).to_string(), secret, caller).unwrap();
    }
    Arc::new(Endpoint::listen(settings("127.0.0.1:0", limits), Arc::new(credentials), runtime).unwrap())
}

pub fn settings(listen: &str, limits: Limits) -> Settings {
    Settings {
        listen: listen.parse().unwrap(),
        worker_name: "O=Worker, L=Zurich, C=CH".to_owned(),
        addresses: vec![SERVICE.to_owned()],
        platform_version: 12,
        limits,
    }
}

pub fn options(endpoint: &Endpoint, party: &str, listen: Listen) -> Options {
    Options::new(endpoint.local_addr(), &name(party).to_string(), party, SERVICE, listen)
}

/// Connects a party that listens at its inbox.
pub async fn connect(endpoint: &Endpoint, party: &str) -> (Client, Answers) {
    try_connect(endpoint, party).await.unwrap()
}

pub async fn try_connect(endpoint: &Endpoint, party: &str) -> Result<(Client, Answers), ClientError> {
    Client::connect(options(endpoint, party, Listen::Inbox(inbox(party)))).await
}

/// A peer on the bare socket.
pub struct RawPeer(pub TcpStream);

impl RawPeer {
    pub async fn connect(endpoint: &Endpoint) -> Self {
        Self(TcpStream::connect(endpoint.local_addr()).await.unwrap())
    }

    /// Mallory, past `open`, with a session on channel 0.
    pub async fn with_session(endpoint: &Endpoint) -> Self {
        let mut peer = Self::connect(endpoint).await;
        let response = [b"\0", name("Mallory").to_string().as_bytes(), b"\0Mallory"].concat();
        peer.say(b"AMQP\x03\x01\x00\x00").await;
        peer.say(&frame(1, 0, &list(0x41, &[&symbol("PLAIN"), &binary(&response)]))).await;
        peer.say(b"AMQP\x00\x01\x00\x00").await;
        peer.say(&frame(0, 0, &list(0x10, &[&string("raw")]))).await;
        peer.say(&begin(0)).await;
        peer
    }

    /// The same, with a link for requests at handle 0. Waits until there is credit.
    pub async fn with_link(endpoint: &Endpoint) -> Self {
        let mut peer = Self::with_session(endpoint).await;
        peer.say(&attach_sender(0, SERVICE)).await;
        // The credit comes in a flow, whose descriptor is 0x13.
        peer.hear(b"\x00\x53\x13").await;
        peer
    }

    /// Writes; a peer that is cut off may fail to, which is no matter here.
    pub async fn say(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// Reads until `part` was heard; all that was heard.
    pub async fn hear(&mut self, part: &[u8]) -> Vec<u8> {
        let mut heard = Vec::new();
        let hearing = async {
            while !contains(&heard, part) {
                assert!(
                    self.0.read_buf(&mut heard).await.unwrap() > 0,
                    "closed before it said {part:02x?}: {heard:02x?}"
                );
            }
        };
        tokio::time::timeout(LONG, hearing).await.expect("it should have said something");
        heard
    }

    /// Reads until the endpoint closes; all that was heard. Being reset is being closed as well.
    pub async fn hear_out(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let hearing = async { while matches!(self.0.read_buf(&mut heard).await, Ok(count) if count > 0) {} };
        tokio::time::timeout(LONG, hearing).await.expect("it should have closed the connection");
        heard
    }
}

pub fn contains(heard: &[u8], part: impl AsRef<[u8]>) -> bool {
    let part = part.as_ref();
    heard.windows(part.len()).any(|window| window == part)
}

// AMQP by hand: what a test says is not what the code under test writes.

pub fn frame(kind: u8, channel: u16, body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32 + 8).to_be_bytes();
    [&size[..], &[2, kind], &channel.to_be_bytes(), body].concat()
}

/// A composite value: descriptor and fields.
pub fn list(code: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    let size = (body.len() as u32 + 4).to_be_bytes();
    [&[0x00, 0x53, code, 0xd0], &size[..], &(fields.len() as u32).to_be_bytes(), &body].concat()
}

pub fn string(text: &str) -> Vec<u8> {
    [&[0xa1, text.len() as u8], text.as_bytes()].concat()
}

pub fn symbol(text: &str) -> Vec<u8> {
    [&[0xa3, text.len() as u8], text.as_bytes()].concat()
}

pub fn binary(bytes: &[u8]) -> Vec<u8> {
    [&[0xa0, bytes.len() as u8], bytes].concat()
}

pub fn uint(value: u32) -> Vec<u8> {
    [&[0x70], &value.to_be_bytes()[..]].concat()
}

/// A small number as the endpoint writes it.
pub fn uint_small(value: u8) -> Vec<u8> {
    if value == 0 { vec![0x43] } else { vec![0x52, value] }
}

pub const NULL: &[u8] = &[0x40];
pub const TRUE: &[u8] = &[0x41];
pub const FALSE: &[u8] = &[0x42];

pub fn begin(channel: u16) -> Vec<u8> {
    frame(0, channel, &list(0x11, &[NULL, &uint(0), &uint(1 << 30), &uint(1 << 30)]))
}

/// A sender to `target` at `handle` of channel 0.
pub fn attach_sender(handle: u32, target: &str) -> Vec<u8> {
    let (source, target) = (list(0x28, &[]), list(0x29, &[&string(target)]));
    let name = string(&format!("link-{handle}"));
    let fields = [&name, &uint(handle), FALSE, NULL, NULL, &source, &target, NULL, NULL, &uint(0)];
    frame(0, 0, &list(0x12, &fields))
}

/// A receiver from `source` at `handle` of channel 0.
pub fn attach_receiver(handle: u32, source: &str) -> Vec<u8> {
    let (source, target) = (list(0x28, &[&string(source)]), list(0x29, &[]));
    let name = string(&format!("link-{handle}"));
    frame(0, 0, &list(0x12, &[&name, &uint(handle), TRUE, NULL, NULL, &source, &target]))
}

/// Credit for the receiver at `handle`.
pub fn flow(handle: u32, credit: u32) -> Vec<u8> {
    let window = uint(1 << 30);
    frame(0, 0, &list(0x13, &[&uint(0), &window, &uint(0), &window, &uint(handle), &uint(0), &uint(credit)]))
}

/// A part of delivery `id` on handle 0.
pub fn transfer(id: u32, settled: bool, more: bool, payload: &[u8]) -> Vec<u8> {
    let flag = |on| if on { TRUE } else { FALSE };
    let tag = binary(&id.to_be_bytes());
    let body = list(0x14, &[&uint(0), &uint(id), &tag, &uint(0), flag(settled), flag(more)]);
    frame(0, 0, &[body, payload.to_vec()].concat())
}

/// A message of one data section.
pub fn data(body: &[u8]) -> Vec<u8> {
    [&[0x00, 0x53, 0x75, 0xb0], &(body.len() as u32).to_be_bytes()[..], body].concat()
}
