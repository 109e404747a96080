//! What only RabbitMQ does, and faults of its own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldArray, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use notary_worker::broker::rabbitmq::client::Wishes;
use notary_worker::broker::rabbitmq::{Access, Options};
use notary_worker::ports::request_queue::{QueueError, Settlement};
use notary_worker::tls::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::rig::{PASSWORD, RabbitRig};
use crate::services::or_skip;
use crate::services::rabbitmq::{ADMIN, Certificates, Server};
use crate::suite::{LONG, Peer, Rig, Setup, eventually, reply, text};

/// A plain connection as a user, to do what our client would not.
async fn channel(rig: &RabbitRig, user: &str, password: &str) -> (Connection, Channel) {
    let vhost = rig.vhost.replace(' ', "%20");
    let uri = format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", rig.server.amqp);
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn parked(rig: &RabbitRig) -> (String, String) {
    let mut all = Vec::new();
    let deadline = tokio::time::Instant::now() + LONG;
    while all.is_empty() {
        all = rig.take_parked().await;
        assert!(tokio::time::Instant::now() < deadline, "nothing is parked");
    }
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_user_and_one_too_long_are_parked() {
    let Some(rig) = RabbitRig::start().await else { return };
    let options = Options { message_bytes_max: 100, ..rig.options(1, Setup::default()) };
    let worker = rig.open(options).await.unwrap();
    let alice = rig.connect("Alice").await;
    alice.send_with("nobody's", Wishes { user: Some(String::new()), ..Wishes::default() }).await.unwrap();
    let (body, reason) = parked(&rig).await;
    assert!(body == "nobody's" && reason.contains("user_id"), "{reason}");
    alice.send(&"x".repeat(101)).await;
    let (body, reason) = parked(&rig).await;
    assert!(body.len() == 101 && reason.contains("101 bytes"), "{reason}");
    alice.send(&"x".repeat(100)).await;
    let delivery = worker.receive().await;
    assert_eq!(delivery.body.len(), 100);
    worker.accept(&delivery).await;
}

/// P8, A7: RabbitMQ counts deliveries, not bytes; a caller with long requests must not fill the worker's memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_holds_enough_bytes_takes_no_more_until_half_of_them_are_settled() {
    const HELD: usize = 6;
    let Some(rig) = RabbitRig::start().await else { return };
    let setup = Setup { slots: 64, ..Setup::default() };
    let options = Options { held_bytes_max: HELD * 10_000 - 1, ..rig.options(1, setup) };
    let worker = rig.open(options).await.unwrap();
    let alice = rig.connect("Alice").await;
    let mut held = Vec::new();
    for _ in 0..HELD {
        alice.send(&"x".repeat(10_000)).await;
        held.push(worker.receive().await);
    }
    for _ in 0..HELD {
        alice.send(&"y".repeat(10_000)).await;
    }
    assert_eq!(rig.waiting().await, HELD, "it takes nothing, though it has slots");
    assert_eq!((worker.undisposed)(), HELD);

    // Two are left unsettled, which is less than half: from then on it takes again.
    for delivery in held.drain(2..) {
        worker.accept(&delivery).await;
    }
    for _ in 0..HELD {
        let delivery = worker.receive().await;
        assert!(delivery.body.starts_with(b"y"));
        worker.accept(&delivery).await;
    }
    for delivery in held {
        worker.accept(&delivery).await;
    }
    assert_eq!((worker.undisposed)(), 0);
}

/// Whoever parks a message publishes it with its own rights: a sender must not borrow them to fill others' queues.
#[tokio::test(flavor = "multi_thread")]
async fn copies_that_a_sender_asks_for_are_not_made_when_its_message_is_parked() {
    let Some(rig) = RabbitRig::start().await else { return };
    let worker = rig.worker(1, Setup::default()).await;
    let (_connection, mallory) = channel(&rig, &rig.user("Mallory"), PASSWORD).await;
    mallory.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let copies = || {
        let queue = AMQPValue::LongString(rig.reply_queue("Bob").into());
        AMQPValue::FieldArray(FieldArray::from(vec![queue]))
    };
    let mut headers = FieldTable::default();
    headers.insert("CC".into(), copies());
    headers.insert("BCC".into(), copies());
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_user_id(rig.user("Mallory").into())
        .with_reply_to(rig.reply_queue("Mallory").into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published = mallory.basic_publish("notary".into(), "".into(), options, b"spam", properties).await.unwrap();
    assert!(published.await.unwrap().is_ack());
    let delivery = worker.receive().await;
    worker.settle(&delivery, Settlement::Reject { reason: "spam".into() }).await;
    assert_eq!(parked(&rig).await.0, "spam");
    let (_connection, admin) = channel(&rig, ADMIN.0, ADMIN.1).await;
    let got = admin.basic_get(rig.reply_queue("Bob").into(), BasicGetOptions::default()).await.unwrap();
    assert!(got.is_none(), "Bob got what Mallory sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_queue_is_named_together_with_what_to_do() {
    let Some(rig) = RabbitRig::start().await else { return };
    rig.delete_requests_queue().await;
    let refusal = rig.open(rig.options(1, Setup::default())).await.map(drop).unwrap_err();
    assert!(refusal.contains("notary.requests") && refusal.contains("notary broker apply"), "{refusal}");
}

/// P6: a request leaves its queue only when it is safe in the other one.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_parked_is_not_lost() {
    let Some(rig) = RabbitRig::start().await else { return };
    let worker = rig.worker(1, Setup { hold: Duration::from_millis(300), ..Setup::default() }).await;
    let alice = rig.connect("Alice").await;
    rig.ask("DELETE", &rig.path("queues", "notary.dead"), None).await;
    alice.send("garbage").await;
    let delivery = worker.receive().await;
    let settled = worker.queue.settle(delivery.id, Settlement::Reject { reason: "garbage".into() }).await;
    assert!(matches!(settled, Err(QueueError::Unsafe(_))), "{settled:?}");
    let again = worker.receive().await;
    assert_eq!(text(&again), "garbage");
    rig.declare_requests_queue().await;
    worker.settle(&again, Settlement::Reject { reason: "garbage".into() }).await;
    assert_eq!(parked(&rig).await, ("garbage".to_owned(), "garbage".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_host_is_tried_in_turn() {
    let Some(rig) = RabbitRig::start().await else { return };
    let [nobody] = crate::services::free_ports();
    let mut options = rig.options(1, Setup::default());
    options.access.hosts.insert(0, format!("127.0.0.1:{nobody}"));
    let worker = rig.open(options.clone()).await.unwrap();
    assert_eq!(worker.probe.probe().await, Ok(()));
    options.access.hosts.truncate(1);
    let refusal = rig.open(options).await.map(drop).unwrap_err();
    assert!(refusal.contains(&nobody.to_string()), "{refusal}");
}

/// F33.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_fetched_again() {
    let Some(rig) = RabbitRig::start().await else { return };
    let password = Arc::new(Mutex::new(PASSWORD.to_owned()));
    let mut options = rig.options(1, Setup::default());
    let known = Arc::clone(&password);
    options.access.password = Arc::new(move || Ok(Zeroizing::new(known.lock().unwrap().clone())));
    let worker = rig.open(options).await.unwrap();
    let (server, user) = (Arc::clone(&rig.server), rig.user("worker1"));
    tokio::task::spawn_blocking(move || server.control(&["change_password", &user, "another"])).await.unwrap();
    assert_eq!(worker.probe.probe().await, Ok(()), "a live connection goes on");
    rig.cut_workers().await;
    eventually("the refusal is told", || async {
        worker.probe.probe().await.is_err_and(|why| why.contains("ACCESS_REFUSED"))
    })
    .await;
    *password.lock().unwrap() = "another".to_owned();
    eventually("it is let in again", || async { worker.probe.probe().await.is_ok() }).await;
}

/// F30: the broker takes no messages, so answers wait, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_disk_space_is_told_of_and_answers_wait_for_it() {
    let Some(rig) = RabbitRig::start_alone().await else { return };
    let (worker, mut alice) = (rig.worker(1, Setup::default()).await, rig.connect("Alice").await);
    alice.send("request").await;
    let delivery = worker.receive().await;
    let control = |arguments: [&'static str; 2]| {
        let server = Arc::clone(&rig.server);
        tokio::task::spawn_blocking(move || server.control(&arguments))
    };
    control(["set_disk_free_limit", "900GB"]).await.unwrap();
    let replying = tokio::spawn({
        let (queue, id) = (Arc::clone(&worker.queue), delivery.id);
        async move { queue.reply(id, vec![reply("answer")]).await }
    });
    eventually("the alarm is told", || async { worker.probe.probe().await.is_err_and(|why| why.contains("alarm")) })
        .await;
    assert!(!replying.is_finished());
    control(["set_disk_free_limit", "50MB"]).await.unwrap();
    timeout(LONG, replying).await.unwrap().unwrap().unwrap();
    worker.accept(&delivery).await;
    assert_eq!(alice.next_answer().await.body, b"answer");
    eventually("it heals", || async { worker.probe.probe().await.is_ok() }).await;
}

/// A10: nobody declares, reads or writes what is not its own.
#[tokio::test(flavor = "multi_thread")]
async fn rights_end_where_ones_own_queues_end() {
    let Some(rig) = RabbitRig::start().await else { return };
    let (worker, alice) = (rig.user("worker1"), rig.user("Alice"));
    for user in [&worker, &alice] {
        let (_connection, channel) = channel(&rig, user, PASSWORD).await;
        let declared =
            channel.queue_declare("another".into(), QueueDeclareOptions::default(), FieldTable::default()).await;
        assert!(declared.unwrap_err().to_string().contains("ACCESS_REFUSED"), "{user} declares");
    }
    let others = ["notary.requests", "notary.dead", &rig.reply_queue("Bob")].map(str::to_owned);
    for (user, queue) in
        others.iter().map(|queue| (&alice, queue)).chain([(&worker, &others[1]), (&worker, &others[2])])
    {
        let (_connection, channel) = channel(&rig, user, PASSWORD).await;
        let consumed = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        assert!(consumed.await.unwrap_err().to_string().contains("ACCESS_REFUSED"), "{user} reads {queue}");
    }
    for (user, exchange) in [(&alice, ""), (&alice, "notary.any"), (&worker, "notary"), (&worker, "notary.any")] {
        let (_connection, channel) = channel(&rig, user, PASSWORD).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let options = BasicPublishOptions::default();
        let key = rig.reply_queue("Bob");
        let published = channel
            .basic_publish(exchange.into(), key.as_str().into(), options, b"x", BasicProperties::default())
            .await;
        let refused = match published {
            Ok(confirm) => confirm.await.unwrap_err(),
            Err(error) => error,
        };
        assert!(refused.to_string().contains("ACCESS_REFUSED"), "{user} writes to {exchange:?}: {refused}");
    }
}

/// Mutual TLS, where the certificate names the user; and that a server nobody vouches for is not spoken to.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_lets_a_worker_in_without_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(place(&format!("{name}.pem")), issuer.pem()).unwrap();
        issuer
    };
    let (ours, _theirs) = (authority("ours"), authority("theirs"));
    let issue = |file: &str, common_name: &str, names: &[&str]| {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().unwrap();
        std::fs::write(place(&format!("{file}.pem")), params.signed_by(&key, &ours).unwrap().pem()).unwrap();
        std::fs::write(place(&format!("{file}.key")), key.serialize_pem()).unwrap();
    };
    issue("server", "broker", &["localhost", "127.0.0.1"]);
    let server = tokio::task::spawn_blocking({
        let [authorities, chain, key] = ["ours.pem", "server.pem", "server.key"].map(place);
        move || Server::start(Some(Certificates { authorities: &authorities, chain: &chain, key: &key }))
    });
    let Some(server) = or_skip("RabbitMQ", server.await.unwrap()) else { return };
    let rig = RabbitRig::on(Arc::new(server)).await;
    issue("worker", &rig.user("worker1"), &[]);
    issue("stranger", "nobody-known", &[]);

    let tls = |authorities: &str, identity: &str| {
        let identity = Some((place(&format!("{identity}.pem")), place(&format!("{identity}.key"))));
        Some(TlsFiles { authorities: place(authorities), identity })
    };
    let options = |authorities: &str, identity: &str, user: String| {
        let options = rig.options(1, Setup { silence_max: Duration::from_secs(5), ..Setup::default() });
        let access = Access {
            hosts: vec![format!("localhost:{}", rig.server.amqps)],
            tls: tls(authorities, identity),
            user,
            ..options.access
        };
        Options { access, ..options }
    };
    let worker = rig.open(options("ours.pem", "worker", String::new())).await.unwrap();
    let mut alice = rig.connect("Alice").await;
    alice.send("request").await;
    let delivery = worker.receive().await;
    worker.queue.reply(delivery.id, vec![reply("answer")]).await.unwrap();
    worker.accept(&delivery).await;
    assert_eq!(alice.next_answer().await.body, b"answer");
    worker.queue.close().await;

    // A password works under TLS too.
    let worker = rig.open(options("ours.pem", "stranger", rig.user("worker1"))).await.unwrap();
    worker.queue.close().await;
    let refusal = |options| async { rig.open(options).await.map(drop).unwrap_err() };
    let unknown = refusal(options("ours.pem", "stranger", String::new())).await;
    assert!(unknown.contains("ACCESS_REFUSED"), "{unknown}");
    let unvouched = refusal(options("theirs.pem", "worker", String::new())).await;
    assert!(unvouched.contains("certificate"), "{unvouched}");
}
