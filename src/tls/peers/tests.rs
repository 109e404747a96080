use std::sync::atomic::Ordering;

use rustls::{ClientConnection, ConnectionCommon, ServerConnection, SideData};

use super::fixtures::{NOW, Net, VALIDITY, key, name};
use super::*;
use crate::domain::SignatureScheme as Scheme;

fn route(names: &[&str]) -> Route {
    Route { addresses: Vec::new(), names: names.iter().map(|text| name(text)).collect() }
}

/// What one end wants to say, told to the other.
fn carry<A: SideData, B: SideData>(
    from: &mut ConnectionCommon<A>,
    to: &mut ConnectionCommon<B>,
) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("memory takes all");
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("memory gives all");
        to.process_new_packets()?;
    }
    Ok(())
}

/// Both ends after a handshake, or which end refused and why.
fn handshake(
    client: (Arc<ClientConfig>, ServerName<'static>),
    server: Arc<ServerConfig>,
) -> Result<(ClientConnection, ServerConnection), String> {
    let mut client = ClientConnection::new(client.0, client.1).expect("a client");
    let mut server = ServerConnection::new(server).expect("a server");
    let text = |error: Error| handshake_fault(&io::Error::other(error));
    // A handshake takes three flights at most.
    for _ in 0..4 {
        carry(&mut client, &mut server).map_err(|error| format!("server: {}", text(error)))?;
        carry(&mut server, &mut client).map_err(|error| format!("client: {}", text(error)))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

/// The refusal of a handshake.
fn refusal(client: (Arc<ClientConfig>, ServerName<'static>), server: Arc<ServerConfig>) -> String {
    handshake(client, server).map(drop).expect_err("refused")
}

fn client(tls: &PeerTls, names: &[&str]) -> (Arc<ClientConfig>, ServerName<'static>) {
    tls.client(&route(names)).expect("settings")
}

fn server(tls: &PeerTls) -> Arc<ServerConfig> {
    tls.server().expect("settings")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(seconds, 0).expect("in range")
}

/// PROTOCOL b.3.
#[test]
fn both_ends_know_each_other_by_their_certificates() {
    let net = Net::new();
    let (alice, worker) = (net.tls("Alice"), net.tls("Worker"));
    let (near, far) = handshake(client(&alice, &["Worker", "Service"]), server(&worker)).expect("they agree");
    assert_eq!(near.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(far.peer_certificates().and_then(caller_of), Some(name("Alice")));
    assert_eq!(near.peer_certificates().and_then(caller_of), Some(name("Worker")));
    assert_eq!((alice.identity().name(), alice.identity().expires()), (&name("Alice"), at(VALIDITY.1)));
}

/// PROTOCOL b.3: nodes offer TLS 1.2 with two suites; others are not even tried.
#[test]
fn tls_1_2_is_spoken_with_the_suites_of_nodes_only() {
    let net = Net::new();
    let (alice, worker) = (net.tls("Alice"), net.tls("Worker"));
    let speaking = |suite: CipherSuite| {
        let mut provider = ring::default_provider();
        provider.cipher_suites.retain(|known| known.suite() == suite);
        let builder = ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS12]).expect("it fits");
        let verifier = Arc::new(Verifier { shared: Arc::clone(&alice.shared), names: Some(vec![name("Worker")]) });
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = builder.with_client_cert_resolver(Arc::new(Resolver(Arc::clone(&alice.shared))));
        handshake((Arc::new(config), client(&alice, &["Worker"]).1), server(&worker))
    };
    let (near, _) = speaking(SUITES_TLS12[0]).expect("they agree");
    assert_eq!(near.negotiated_cipher_suite().map(|suite| suite.suite()), Some(SUITES_TLS12[0]));
    for other in [
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        speaking(other).map(drop).expect_err("no suite in common");
    }
}

/// LB, A10: another network, another role, a bare key: none of them is a peer. The refusal says who and why.
#[test]
fn strangers_are_refused_with_a_reason_that_names_them() {
    let (net, other) = (Net::new(), Net::new());
    let worker = net.tls("Worker");
    let stranger = other.tls("Alice");
    let of_stranger = stranger.client(&route(&["Worker"])).expect("settings");
    // A client that believes anything, so that the server's judgement is seen.
    let trusting = |identity: Identity| {
        let shared = Shared {
            provider: Arc::clone(&worker.shared.provider),
            root: net.root.certificate.clone(),
            clock: net.clock.clone(),
            identity: RwLock::new(certified(identity)),
        };
        PeerTls { shared: Arc::new(shared), threads: None }
    };
    assert!(refusal(of_stranger, server(&worker)).starts_with("client: "), "it does not believe us either");

    let refused = |identity: Identity| refusal(client(&trusting(identity), &["Worker"]), server(&worker));
    let foreign = refused(stranger.identity());
    assert!(foreign.contains("Identity CA"), "{foreign}");
    let mut rooted = stranger.identity();
    rooted.chain.push(other.root.certificate.as_der().to_vec());
    let foreign = refused(rooted);
    assert!(foreign.contains("another root"), "{foreign}");

    let legal = key();
    let chain = net.chain("Alice", legal.public_key(), Role::LegalIdentity, VALIDITY.1);
    let role = refused(Identity::from_private_key(chain, &legal).expect("they fit"));
    assert!(role.contains("wrong role") && role.contains("Alice"), "{role}");

    let anonymous = {
        let builder = ClientConfig::builder_with_provider(Arc::clone(&worker.shared.provider));
        let builder = builder.with_safe_default_protocol_versions().expect("it fits");
        let verifier = Arc::new(Verifier { shared: Arc::clone(&worker.shared), names: None });
        Arc::new(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    };
    let nobody = refusal((anonymous, client(&worker, &["Worker"]).1), server(&worker));
    assert!(nobody.starts_with("server: ") && nobody.contains("certificate"), "{nobody}");
}

/// F38: the end of a certificate is seen on the next connection, by the clock that was handed in.
#[test]
fn certificates_are_believed_within_their_period_only() {
    let net = Net::new();
    let worker = net.tls("Worker");
    let alice = PeerTls::new(net.root.certificate.clone(), net.identity("Alice", NOW + 10), net.clock.clone());
    let alice = alice.expect("believable");
    handshake(client(&alice, &["Worker"]), server(&worker)).expect("valid");
    net.clock.0.store(NOW + 11, Ordering::Relaxed);
    let expired = refusal(client(&alice, &["Worker"]), server(&worker));
    assert!(expired.starts_with("server: ") && expired.contains("expired") && expired.contains("Alice"), "{expired}");
    net.clock.0.store(VALIDITY.0 - 1, Ordering::Relaxed);
    let early = refusal(client(&alice, &["Worker"]), server(&worker));
    assert!(early.contains("not valid yet"), "{early}");
}

/// PROTOCOL b.3: the server's name is one of those connected for.
#[test]
fn a_server_with_another_name_is_not_spoken_to() {
    let net = Net::new();
    let (worker, mallory) = (net.tls("Worker"), net.tls("Mallory"));
    let wrong = refusal(client(&worker, &["Alice", "Bob"]), server(&mallory));
    assert!(wrong.starts_with("client: ") && wrong.contains("Mallory") && wrong.contains("Bob"), "{wrong}");
}

/// PROTOCOL b.3; the figure is `SHA-256("O=Alice, L=Zurich, C=CH")`, computed by another program.
#[test]
fn a_server_is_named_when_exactly_one_is_meant() {
    let net = Net::new();
    let (worker, alice) = (net.tls("Worker"), net.tls("Alice"));
    let indicated = |names: &[&str]| {
        let (_, far) = handshake(client(&worker, names), server(&alice)).expect("they agree");
        far.server_name().map(ToOwned::to_owned)
    };
    assert_eq!(indicated(&["Alice"]).as_deref(), Some("e93584925963d9930100ea77ac285c85.corda.net"));
    assert_eq!(indicated(&["Alice", "Service"]), None);
}

/// ID: a renewed certificate is shown to the next peer; what cannot be believed, or is somebody else's, is not taken up.
#[test]
fn a_renewed_identity_is_taken_up_by_the_next_handshake() {
    let (net, other) = (Net::new(), Net::new());
    let (worker, alice) = (net.tls("Worker"), net.tls("Alice"));
    let settings = server(&worker);
    let shown = || {
        let (near, _) = handshake(client(&alice, &["Worker"]), Arc::clone(&settings)).expect("they agree");
        near.peer_certificates().expect("it showed some")[0].to_vec()
    };
    let first = shown();
    let renewed = net.identity("Worker", NOW + 500);
    worker.renew(renewed.clone()).expect("believable");
    assert!(shown() == renewed.chain()[0] && shown() != first);

    for bad in [other.identity("Worker", VALIDITY.1), net.identity("Worker", NOW - 1), net.identity("Bob", VALIDITY.1)]
    {
        worker.renew(bad).expect_err("not taken up");
    }
    assert_eq!(shown(), renewed.chain()[0], "the one in force stays");
}

/// Each connection shows its certificate: none comes back on the strength of an earlier one.
#[test]
fn no_connection_resumes_another() {
    let net = Net::new();
    let (worker, alice) = (net.tls("Worker"), net.tls("Alice"));
    let (near, far) = (client(&alice, &["Worker"]), server(&worker));
    for _ in 0..3 {
        let (near, _) = handshake(near.clone(), Arc::clone(&far)).expect("they agree");
        assert_eq!(near.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

/// A key that cannot say which it is, as one on a token.
#[derive(Debug)]
struct Silent(Arc<dyn SigningKey>);

impl SigningKey for Silent {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn rustls::sign::Signer>> {
        self.0.choose_scheme(offered)
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[test]
fn a_key_must_be_that_of_the_certificate() {
    let net = Net::new();
    let (own, foreign) = (key(), key());
    let chain = net.chain("Worker", own.public_key(), Role::Tls, VALIDITY.1);
    let signing = |key: &PrivateKey| {
        let pkcs8 = key.to_pkcs8_der();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_bytes()));
        ring::sign::any_supported_type(&der).expect("an ECDSA key")
    };
    Identity::new(chain.clone(), Arc::new(Silent(signing(&own)))).expect("its signature verifies");
    for wrong in [signing(&foreign), Arc::new(Silent(signing(&foreign)))] {
        assert!(matches!(Identity::new(chain.clone(), wrong), Err(TlsError::Identity(_))));
    }
    assert!(matches!(Identity::new(Vec::new(), signing(&own)), Err(TlsError::Identity(_))));

    let edwards = PrivateKey::generate(Scheme::Ed25519).expect("a key");
    let chain = net.chain("Worker", edwards.public_key(), Role::Tls, VALIDITY.1);
    let refused = Identity::from_private_key(chain, &edwards).expect_err("no suite for it").to_string();
    assert!(refused.contains("ECDSA"), "{refused}");
}
