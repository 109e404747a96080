//! An identity manager for tests: HTTP on a loopback port, with a root and an identity CA of its own, and faults at will.
//! `tests/corda` lets Corda's own registration speak to it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Cursor, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};

use super::super::certificate::{Certificate, Role};
use super::super::issue::{Authority, Request};
use crate::domain::{PublicKey, SignatureScheme, Timestamp, X500Name};
use crate::keys::PrivateKey;

/// What goes wrong with one HTTP request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The connection ends before the request is looked at.
    Lost,
    /// The request is worked on, and the answer lost.
    AnswerLost,
    /// 503.
    Unavailable,
    /// 204, whatever was decided.
    NotYet,
    /// 400 to a request, 401 to the question for a certificate.
    Rejected,
    /// The answer's last bytes are missing.
    CutOff,
    /// 200 with other bytes than promised.
    Garbage,
    /// A certificate for another key.
    OtherKey,
    /// A certificate for another name.
    OtherName,
    /// A certificate with the role of a network map.
    OtherRole,
    /// The chain of another network.
    OtherRoot,
    /// A certificate that has expired.
    Expired,
    /// The certificate alone, without its issuers.
    NoIssuers,
}

impl Fault {
    pub(crate) const ALL: [Self; 13] = [
        Self::Lost,
        Self::AnswerLost,
        Self::Unavailable,
        Self::NotYet,
        Self::Rejected,
        Self::CutOff,
        Self::Garbage,
        Self::OtherKey,
        Self::OtherName,
        Self::OtherRole,
        Self::OtherRoot,
        Self::Expired,
        Self::NoIssuers,
    ];
}

/// A request for a certificate, as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Submitted {
    pub(crate) der: Vec<u8>,
    pub(crate) name: X500Name,
    pub(crate) public_key: PublicKey,
    pub(crate) role: u8,
    pub(crate) email: String,
    /// The subject's and the attributes' encodings.
    pub(crate) subject: Vec<u8>,
    pub(crate) attributes: Vec<u8>,
    pub(crate) headers: HashMap<String, String>,
}

type Hook = Box<dyn FnMut(usize) -> Fault + Send>;

struct State {
    root: Authority,
    identity_ca: Authority,
    other: (Authority, Authority),
    now: Timestamp,
    submitted: Vec<Submitted>,
    /// Answers 204 until told otherwise.
    approved: bool,
    with_root: bool,
    requests: usize,
    /// Is told the number of each HTTP request, from 0, before it is worked on.
    hook: Hook,
    closed: bool,
}

pub(crate) struct Stub {
    address: std::net::SocketAddr,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

fn authorities(organisation: &str, now: Timestamp) -> (Authority, Authority) {
    let name = |organisation: &str| X500Name::new(organisation, "London", "GB").expect("a name");
    let key = || PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key");
    let validity = (now.seconds() - 86_400, now.seconds() + 1000 * 86_400);
    let root = Authority::root(&name(organisation), key(), validity).expect("a root");
    let (subject, key) = (&name(&format!("{organisation} Identity")), key());
    let public_key = &key.public_key().clone();
    let request = Request { subject, public_key, role: Some(Role::IdentityCa), validity };
    let identity_ca = root.authority(&request, key).expect("issued");
    (root, identity_ca)
}

impl Stub {
    pub(crate) fn start(now: Timestamp) -> Self {
        let (root, identity_ca) = authorities("Stub Root", now);
        let state = Arc::new(Mutex::new(State {
            root,
            identity_ca,
            other: authorities("Other Root", now),
            now,
            submitted: Vec::new(),
            approved: true,
            with_root: true,
            requests: 0,
            hook: Box::new(|_| Fault::None),
            closed: false,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.lock().expect("no panic").closed {
                    break;
                }
                serve(stream, &shared);
            }
        });
        Self { address, state, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn root(&self) -> Certificate {
        self.state.lock().expect("no panic").root.certificate.clone()
    }

    pub(crate) fn submitted(&self) -> Vec<Submitted> {
        self.state.lock().expect("no panic").submitted.clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().expect("no panic").requests
    }

    pub(crate) fn approve(&self, approved: bool) {
        self.state.lock().expect("no panic").approved = approved;
    }

    pub(crate) fn send_root(&self, with_root: bool) {
        self.state.lock().expect("no panic").with_root = with_root;
    }

    /// From now on requests are counted from 0, and `hook` says what goes wrong with each.
    pub(crate) fn on_request(&self, hook: impl FnMut(usize) -> Fault + Send + 'static) {
        let mut state = self.state.lock().expect("no panic");
        (state.requests, state.hook) = (0, Box::new(hook));
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.closed = true;
        }
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').expect("a header");
        headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
    }
    let len = headers.get("content-length").map_or(0, |len| len.parse().expect("a number"));
    let mut body = vec![0; len];
    reader.read_exact(&mut body).expect("the body");

    let mut state = state.lock().expect("no panic");
    let number = state.requests;
    state.requests += 1;
    let fault = (state.hook)(number);
    if fault == Fault::Lost {
        return;
    }
    let (status, extra, mut answer) = state.answer(&method, &path, headers, body, fault);
    if fault == Fault::AnswerLost {
        return;
    }
    let promised = answer.len();
    if fault == Fault::CutOff && promised > 0 {
        answer.truncate(promised - 1);
    }
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {promised}\r\nConnection: close\r\n{extra}\r\n");
    // The other side may be gone.
    let _ = (&stream).write_all(&[head.as_bytes(), &answer].concat());
}

impl State {
    fn answer(
        &mut self,
        method: &str,
        path: &str,
        headers: HashMap<String, String>,
        body: Vec<u8>,
        fault: Fault,
    ) -> (&'static str, &'static str, Vec<u8>) {
        match (method, path.strip_prefix("/certificate"), fault) {
            (.., Fault::Unavailable) => ("503 Service Unavailable", "", b"busy".to_vec()),
            ("POST", Some(""), Fault::Rejected) => ("400 Bad Request", "", b"this name is taken\n".to_vec()),
            ("POST", Some(""), Fault::Garbage) => ("200 OK", "", vec![0xff; 40]),
            ("POST", Some(""), _) => {
                let submitted = read(body, headers);
                // One id for one request, however often it comes, as CENM does.
                let known = self.submitted.iter().position(|known| known.der == submitted.der);
                let id = known.unwrap_or_else(|| {
                    self.submitted.push(submitted);
                    self.submitted.len() - 1
                });
                ("200 OK", "", format!("request-{id}").into_bytes())
            }
            ("GET", Some(_), Fault::Rejected) => ("401 Unauthorized", "", b"not this\x1b[31m one\n".to_vec()),
            ("GET", Some(_), Fault::Garbage) => ("200 OK", "", b"PK\x03\x04 no zip".to_vec()),
            ("GET", Some(id), _) => {
                let id = id.trim_start_matches("/request-").parse::<usize>().ok();
                match id.and_then(|id| self.submitted.get(id).cloned()) {
                    None => ("404 Not Found", "", Vec::new()),
                    Some(_) if !self.approved || fault == Fault::NotYet => {
                        ("204 No Content", "Cache-Control: no-store, max-age=7\r\n", Vec::new())
                    }
                    Some(submitted) => ("200 OK", "Content-Type: application/zip\r\n", self.issue(&submitted, fault)),
                }
            }
            _ => ("404 Not Found", "", Vec::new()),
        }
    }

    fn issue(&self, submitted: &Submitted, fault: Fault) -> Vec<u8> {
        let (root, issuer) = match fault {
            Fault::OtherRoot => (&self.other.0, &self.other.1),
            _ => (&self.root, &self.identity_ca),
        };
        let other_key = PrivateKey::generate(SignatureScheme::EcdsaSecp256r1Sha256).expect("a key");
        let other_name = X500Name::new("Somebody Else", "Zurich", "CH").expect("a name");
        let (from, until) = (self.now.seconds() - 3600, self.now.seconds() + 300 * 86_400);
        let role = [Role::ServiceIdentity, Role::NodeCa].into_iter().find(|role| *role as u8 == submitted.role);
        let certificate = issuer.issue(&Request {
            subject: if fault == Fault::OtherName { &other_name } else { &submitted.name },
            public_key: if fault == Fault::OtherKey { other_key.public_key() } else { &submitted.public_key },
            role: if fault == Fault::OtherRole { Some(Role::NetworkMap) } else { role },
            validity: if fault == Fault::Expired { (from - 7200, from) } else { (from, until) },
        });
        let mut chain = vec![certificate.expect("issued")];
        if fault != Fault::NoIssuers {
            chain.push(issuer.certificate.clone());
            if self.with_root {
                chain.push(root.certificate.clone());
            }
        }
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (i, certificate) in chain.iter().enumerate() {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(format!("certificate-{i}.cer"), options).expect("an entry");
            zip.write_all(certificate.as_der()).expect("written");
        }
        zip.finish().expect("a zip").into_inner()
    }
}

/// Reads a request as RFC 2986 has it, and verifies its signature.
pub(crate) fn read(der: Vec<u8>, headers: HashMap<String, String>) -> Submitted {
    let request = AnyRef::from_der(&der).expect("DER");
    assert_eq!(request.tag(), Tag::Sequence);
    let mut parts = SliceReader::new(request.value()).expect("parts");
    let info: AnyRef<'_> = parts.decode().expect("info");
    let _algorithm: AnyRef<'_> = parts.decode().expect("an algorithm");
    let signature: BitStringRef<'_> = parts.decode().expect("a signature");
    parts.finish().expect("nothing else");

    let mut fields = SliceReader::new(info.value()).expect("fields");
    assert_eq!(fields.decode::<u8>().expect("a version"), 0);
    let name: AnyRef<'_> = fields.decode().expect("a name");
    let key: AnyRef<'_> = fields.decode().expect("a key");
    let attributes: AnyRef<'_> = fields.decode().expect("attributes");
    let public_key = PublicKey::from_spki(&key.to_der().expect("DER")).expect("a key");
    let signed = info.to_der().expect("DER");
    public_key.verify(&signed, signature.as_bytes().expect("whole bytes")).expect("signed by its key");

    let (mut role, mut email) = (0, String::new());
    let mut set = SliceReader::new(attributes.value()).expect("a set");
    while !set.is_finished() {
        let attribute: AnyRef<'_> = set.decode().expect("an attribute");
        let mut parts = SliceReader::new(attribute.value()).expect("parts");
        let oid: der::asn1::ObjectIdentifier = parts.decode().expect("a type");
        let values: AnyRef<'_> = parts.decode().expect("values");
        match oid.to_string().as_str() {
            "1.2.840.113549.1.9.1" => {
                email = String::from_utf8_lossy(AnyRef::from_der(values.value()).expect("text").value()).into_owned()
            }
            "1.3.6.1.4.1.50530.1.1" => role = u8::from_der(values.value()).expect("a role"),
            other => panic!("attribute {other}"),
        }
    }
    let (subject, attributes) = (name.to_der().expect("DER"), attributes.to_der().expect("DER"));
    let name = X500Name::from_der(&subject).expect("a legal name");
    Submitted { subject, attributes, name, public_key, role, email, headers, der }
}
