//! The embedded endpoint and AMQP 1.0 clients that are not ours: Apache Qpid Proton (`tests/python_client/`), fe2o3-amqp, and
//! the recorded words of a Corda node's bridge.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::types::definitions::ReceiverSettleMode;
use fe2o3_amqp::types::messaging::{ApplicationProperties, Data, Message};
use fe2o3_amqp::types::primitives::Binary;
use fe2o3_amqp::{Connection, Receiver, Sender, Session};
use notary_worker::broker::embedded::{Caller, Credentials, Endpoint, Limits, SecretDigest};
use notary_worker::ports::request_queue::{Reply, RequestQueue, Settlement};
use serde_json::{Value, json};

mod peers;

use peers::*;

/// A Python that has Proton, or `None` after saying why not; in CI that is a failure.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let installed = PYTHON.get_or_init(|| {
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python-client");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_client/install");
        let output = Command::new(script).arg(&venv).output();
        let problem = match output {
            Ok(output) if output.status.success() => return Some(venv.join("bin/python")),
            Ok(output) => String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("it failed").to_owned(),
            Err(error) => error.to_string(),
        };
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "python-qpid-proton must install in CI: {problem}");
        eprintln!("SKIPPED: python3 with python-qpid-proton cannot be installed here: {problem}");
        None
    });
    installed.as_deref()
}

/// Runs the script as `party`; what it saw.
async fn run(
    endpoint: &Endpoint,
    python: &Path,
    party: &str,
    password: &str,
    addresses: [&str; 2],
    bodies: &str,
) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python_client/client.py");
    let mut command = Command::new(python);
    command.arg(script).arg(format!("amqp://{}", endpoint.local_addr())).arg(name(party).to_string()).arg(password);
    command.args(addresses).arg(bodies);
    let running = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = tokio::time::timeout(LONG, running).await.expect("the script should have ended").unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A worker that answers each request with its length, in three messages.
fn answer_all(endpoint: &Arc<Endpoint>) {
    let endpoint = Arc::clone(endpoint);
    tokio::spawn(async move {
        while let Ok(delivery) = endpoint.receive().await {
            assert_eq!(delivery.platform_version, Some(12));
            let dedup_id = delivery.dedup_id.unwrap();
            let reply = |part: &str| Reply {
                dedup_id: format!("{dedup_id}-{part}"),
                headers: vec![("outcome", "measured".to_owned())],
                body: format!("{part} {}", delivery.body.len()).into_bytes(),
            };
            let replies = ["confirm", "data", "end"].map(reply).to_vec();
            endpoint.reply(delivery.id, replies).await.unwrap();
            endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
        }
    });
}

#[tokio::test]
async fn proton_sends_requests_and_takes_answers_at_its_inbox_or_a_dynamic_address() {
    let Some(python) = python() else { return };
    let endpoint = endpoint(Limits::default());
    answer_all(&endpoint);
    for inbox in [inbox("Alice"), String::new()] {
        let seen = run(&endpoint, python, "Alice", "Alice", [SERVICE, &inbox], "good").await;
        assert_eq!((&seen["outcomes"], &seen["errors"]), (&json!(["accepted", "accepted", "accepted"]), &json!([])));
        let answers = seen["answers"].as_array().unwrap();
        let bodies: Vec<_> = answers.iter().map(|answer| answer["body"].as_str().unwrap()).collect();
        let expected = ["confirm 3", "data 3", "end 3", "confirm 3", "data 3", "end 3"];
        assert_eq!(bodies[..6], expected);
        assert_eq!(bodies[6..], ["confirm 1048576", "data 1048576", "end 1048576"]);
        let properties = json!({
            "platform-topic": "platform.session",
            "platform-version": 12,
            "_AMQ_DUPL_ID": "dup-2-data",
            "_AMQ_VALIDATED_USER": "O=Worker, L=Zurich, C=CH",
            "outcome": "measured",
        });
        let answer = json!({ "body": "data 3", "durable": true, "correlation": "request-2", "properties": properties });
        assert_eq!(answers[4], answer);
    }
}

#[tokio::test]
async fn proton_learns_what_is_refused_and_why() {
    let Some(python) = python() else { return };
    let endpoint = endpoint(Limits::default());
    answer_all(&endpoint);
    let own = inbox("Alice");
    let seen = run(&endpoint, python, "Alice", "Alice", [SERVICE, &own], "mixed").await;
    assert_eq!(seen["outcomes"], json!(["rejected: the body is not binary", "accepted"]));

    let seen = run(&endpoint, python, "Alice", "wrong", [SERVICE, &own], "good").await;
    assert_eq!((&seen["outcomes"], &seen["errors"]), (&json!([]), &json!(["amqp:unauthorized-access"])));
    let seen = run(&endpoint, python, "Alice", "Alice", ["p2p.inbound.other", &own], "good").await;
    assert_eq!((&seen["outcomes"], &seen["errors"]), (&json!([]), &json!(["amqp:not-found"])));
    let seen = run(&endpoint, python, "Alice", "Alice", [SERVICE, &inbox("Bob")], "good").await;
    assert_eq!(seen["errors"], json!(["amqp:unauthorized-access"]));
}

#[tokio::test]
async fn fe2o3_sends_requests_and_takes_answers_in_either_settlement_mode() {
    let endpoint = endpoint(Limits::default());
    answer_all(&endpoint);
    for mode in [ReceiverSettleMode::First, ReceiverSettleMode::Second] {
        let mut connection = Connection::builder()
            .container_id("fe2o3")
            .idle_time_out(1_000u32)
            .sasl_profile(SaslProfile::Plain { username: name("Bob").to_string(), password: "Bob".to_owned() })
            .open(format!("amqp://{}", endpoint.local_addr()).as_str())
            .await
            .unwrap();
        let mut session = Session::begin(&mut connection).await.unwrap();
        let receiver = Receiver::builder().name("answers").source(inbox("Bob")).receiver_settle_mode(mode.clone());
        let receiver = receiver.credit_mode(CreditMode::Auto(2)).auto_accept(true);
        let mut receiver = receiver.attach(&mut session).await.unwrap();
        let mut sender = Sender::attach(&mut session, "requests", SERVICE).await.unwrap();
        for round in 0..10 {
            let properties = ApplicationProperties::builder()
                .insert("platform-version", 12)
                .insert("_AMQ_DUPL_ID", format!("dup-{round}"))
                .build();
            let body = Data(Binary::from(vec![7; 100_000 * round]));
            let message = Message::builder().application_properties(properties).data(body).build();
            let sent = sender.send_batchable(message).await.unwrap();
            for part in ["confirm", "data", "end"] {
                let delivery = receiver.recv::<Data>().await.unwrap();
                assert_eq!(delivery.body().0, format!("{part} {}", 100_000 * round).into_bytes());
            }
            sent.await.unwrap().accepted_or("not accepted").unwrap();
        }
        sender.close().await.unwrap();
        receiver.close().await.unwrap();
        session.end().await.unwrap();
        connection.close().await.unwrap();
    }
    assert_eq!(endpoint.figures().undisposed, 0);
    assert!(endpoint.figures().refused.iter().all(|(_, count)| *count == 0), "{:?}", endpoint.figures());
}

/// What the bridge of a Corda 4.10 node said, word for word (`vectors/amqp_transcript.json`), all at once. Only its answer to a
/// session that Corda's own server had begun is left out: this endpoint begins none.
#[tokio::test]
async fn the_words_of_a_corda_bridge_are_served() {
    let transcript: Value = serde_json::from_str(include_str!("vectors/amqp_transcript.json")).unwrap();
    let steps = transcript["steps"].as_array().unwrap().iter();
    let said = steps.filter(|step| step["from"].as_str().unwrap().starts_with("bridge"));
    let said: Vec<u8> = said.flat_map(|step| hex::decode(step["hex"].as_str().unwrap()).unwrap()).collect();
    let answer_to_begin = hex::decode("0000002202000001005311").unwrap();
    let at = said.windows(answer_to_begin.len()).position(|window| window == answer_to_begin).unwrap();
    let (before, after) = (&said[..at], &said[at + 0x22..]);

    let mut credentials = Credentials::default();
    let secret = SecretDigest::of(b"SystemUsers/Peer").unwrap();
    let caller = Caller { name: name("Alice Corp"), reply_address: inbox("Alice Corp") };
    credentials.add("SystemUsers/Peer", secret, caller).unwrap();
    let mut settings = settings("127.0.0.1:0", Limits::default());
    settings.addresses = vec![transcript["linkAddress"].as_str().unwrap().to_owned()];
    let endpoint = Endpoint::listen(settings, Arc::new(credentials), &tokio::runtime::Handle::current()).unwrap();

    let mut bridge = RawPeer::connect(&endpoint).await;
    bridge.say(before).await;
    // A flow gives it credit, as it waited for then.
    bridge.hear(b"\x00\x53\x13").await;
    bridge.say(after).await;
    let delivery = endpoint.receive().await.unwrap();
    assert!(delivery.body == include_bytes!("vectors/session_initial.bin"));
    assert_eq!((delivery.caller, delivery.platform_version), (name("Alice Corp"), Some(12)));
    assert_eq!(delivery.dedup_id.as_deref(), Some("N-R-1234605616436508552--77-0-0"));
    endpoint.settle(delivery.id, Settlement::Accept).await.unwrap();
    // A disposition that accepts.
    let heard = bridge.hear(b"\x00\x53\x24").await;
    assert!(contains(&heard, b"\x00\x53\x15"));
}
