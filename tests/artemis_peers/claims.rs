//! What the name that a bridge claims proves, and what it does not: see `src/broker/artemis/claims.rs`.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp::types::messaging::Outcome;
use notary_worker::broker::Request;
use notary_worker::client::judge::Answer;
use notary_worker::domain::NotaryError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rig::{Node, PATIENCE};
use super::services::artemis::Login;
use super::{PEER, Pool, runtime, send};

/// A1: Bob says that he is Alice. What he has signed himself is refused, the answer goes to Alice, and Alice's own request for the same
/// transaction is served as if nothing had been.
#[test]
fn a_claimed_name_does_not_notarise_and_the_answer_goes_to_the_claimed_party() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let (alice, bob) = (pool.network.node("alice"), pool.network.node("bob"));
        let worker = pool.worker(1);
        let inbox = pool.network.service_inbox();
        let mut bridge = pool.bridge(bob.tls(), PEER, PEER).await.expect("a node is let in");
        let (forged, tx_id) = bob.request();
        let outcome = send(&mut bridge, &inbox, &forged, Some(&alice.name().to_string())).await;
        assert!(matches!(outcome, Outcome::Accepted(_)), "the broker does not compare: {outcome:?}");
        let answer = timeout(PATIENCE, alice.answer(tx_id)).await.expect("it comes to Alice");
        assert!(
            matches!(answer, Answer::Refused { error: NotaryError::RequestSignatureInvalid { .. }, .. }),
            "the request's signature is not Alice's: {answer:?}"
        );
        // Nothing of it was committed: under his own name Bob's request is new.
        let (again, _) = (Request { dedup_id: "again".into(), ..forged.clone() }, ());
        let outcome = send(&mut bridge, &inbox, &again, Some(&bob.name().to_string())).await;
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        let answer = timeout(PATIENCE, bob.answer(tx_id)).await.expect("it comes to Bob");
        assert!(matches!(answer, Answer::Notarised(_)), "{answer:?}");

        // And what Alice has signed is Alice's, whoever carries it.
        let (carried, tx_id) = alice.request();
        let outcome = send(&mut bridge, &inbox, &carried, Some(&alice.name().to_string())).await;
        assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
        let answer = timeout(PATIENCE, alice.answer(tx_id)).await.expect("it comes to Alice");
        assert!(matches!(answer, Answer::Notarised(_)), "{answer:?}");
        bridge.close().await;
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// A message from nobody is parked with the reason; one from a party that the map does not know yet comes again before it is.
#[test]
fn a_message_from_nobody_is_parked_with_the_reason() {
    let Some(pool) = Pool::start(Login::Declared) else { return };
    runtime().block_on(async {
        let alice = pool.network.node("alice");
        let worker = pool.worker_with(1, |command| {
            command.args(["--set", "broker.deliveries_max=3"]);
        });
        let inbox = pool.network.service_inbox();
        let mut bridge = pool.bridge(alice.tls(), PEER, PEER).await.expect("a node is let in");
        let (request, _) = alice.request();
        for (number, (claimed, reason)) in [
            (None, "does not say who sent it"),
            (Some("SystemUsers/Peer"), "no legal name"),
            (Some("O=Newcomer, L=Oslo, C=NO"), "whom the network map does not know"),
        ]
        .into_iter()
        .enumerate()
        {
            let request = Request { dedup_id: format!("nobody-{number}"), ..request.clone() };
            let outcome = send(&mut bridge, &inbox, &request, claimed).await;
            assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
            pool.wait_for_depth("notary.dead", 1).await;
            pool.wait_for_depth(&inbox, 0).await;
            let mut admin = pool.admin().await;
            let keeper = serde_json::json!([format!("keeper{number}"), "keeper", "notary.admin", true]);
            admin.operation("addUser", keeper).await.expect("added");
            admin.close().await;
            let mut keeper = pool.server.foreign(&format!("keeper{number}"), "keeper").await;
            let parked = keeper.take_all("notary.dead").await;
            keeper.close().await;
            let [(body, properties)] = &parked[..] else { panic!("{parked:?}") };
            let property =
                |name: &str| properties.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str());
            assert_eq!(*body, request.body);
            assert!(property("x-notary-reason").is_some_and(|text| text.contains(reason)), "{properties:?}");
            assert_eq!(property("x-notary-queue"), Some(inbox.as_str()));
        }
        // The others are served meanwhile.
        super::ask(&pool, &alice, 1).await;
        bridge.close().await;
        assert_eq!(worker.terminate().code(), Some(0));
    });
}

/// TLS to an acceptor by a client that looks at no certificate of the server's, with that of another network's node
/// or without any.
pub(crate) async fn without_looking(
    acceptor: SocketAddr,
    node: Option<&Node>,
) -> Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Debug + Send + Unpin + use<>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").dangerous().with_custom_certificate_verifier(Arc::new(Blind));
    let config = match node {
        None => builder.with_no_client_auth(),
        Some(node) => {
            let (chain, key) = node.tls_files();
            let chain = chain.into_iter().map(CertificateDer::from).collect();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
            builder.with_client_auth_cert(chain, key).expect("they fit")
        }
    };
    let connecting = async {
        let socket = TcpStream::connect(acceptor).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await
    };
    let connected = timeout(Duration::from_secs(20), connecting).await.map_err(|_| "no end of it".to_owned())?;
    connected.map_err(|error| error.to_string())
}

#[derive(Debug)]
struct Blind;

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::RSA_PKCS1_SHA256]
    }
}
