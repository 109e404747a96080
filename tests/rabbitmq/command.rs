//! The way of an operator: a broker with nothing on it, `notary broker`, and a worker that serves from it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use notary_worker::broker::Request;
use notary_worker::broker::rabbitmq::Access;
use notary_worker::broker::rabbitmq::client::{Client, Options, Wishes};
use serde_json::Value;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::services::or_skip;
use crate::services::rabbitmq::{ADMIN, Server};
use crate::suite::{LONG, eventually};

/// The vhost is this test's alone; users are known to the whole broker, and the network's parties are in no other test.
const VHOST: &str = "operator";

struct Operator {
    folder: tempfile::TempDir,
    settings: Vec<String>,
}

impl Operator {
    fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let secret = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            format!("file:{}", path.display())
        };
        let settings = [
            ("kind", "rabbitmq".to_owned()),
            ("hosts", format!("127.0.0.1:{}", server.amqp)),
            ("vhost", VHOST.into()),
            ("user", "operators-worker".into()),
            ("password", format!("file:{}", folder.path().join("secrets/operators-worker.password").display())),
            ("management", server.management_url()),
            ("management_user", ADMIN.0.into()),
            ("management_password", secret("admin", ADMIN.1)),
        ];
        let settings = settings.map(|(key, value)| format!("broker.{key}={value}")).to_vec();
        let operator = Self { folder, settings };
        let made = operator.notary(&["init"], &[operator.network().to_str().unwrap(), "--parties", "1"]);
        assert!(made.status.success(), "{made:?}");
        operator
    }

    fn network(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    fn notary(&self, verb: &[&str], more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notary"));
        command.args(verb).args(more).output().unwrap()
    }

    fn configured(&self, command: &mut Command) {
        command.arg("--config").arg(self.network().join("notary.toml"));
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
    }

    /// `notary broker VERB`: exit code and what was printed.
    fn broker(&self, verb: &str) -> (i32, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_notary"));
        command.args(["broker", verb, "--json", "--all-parties", "--secrets"]).arg(self.secrets());
        self.configured(&mut command);
        let output = command.output().unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let parsed = serde_json::from_str(&printed);
        (output.status.code().unwrap(), parsed.unwrap_or_else(|_| panic!("{verb}: {output:?}")))
    }
}

fn changes(printed: &Value) -> Vec<String> {
    printed["changes"].as_array().unwrap().iter().map(|change| change["what"].as_str().unwrap().to_owned()).collect()
}

fn password_of(secrets: &Path, party: &str) -> String {
    let files = std::fs::read_dir(secrets).unwrap().map(|entry| entry.unwrap());
    let file = files.into_iter().find(|entry| entry.file_name().to_str().unwrap().contains(party)).unwrap();
    std::fs::read_to_string(file.path()).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_declares_checks_and_runs() {
    let server = tokio::task::spawn_blocking(Server::shared).await.unwrap();
    let Some(server) = or_skip("RabbitMQ", server) else { return };
    let (server, operator, user) = tokio::task::spawn_blocking(move || {
        let operator = Operator::new(&server);
        let (code, planned) = operator.broker("plan");
        let planned = changes(&planned);
        assert_eq!(code, 1, "there is something to do");
        assert_eq!(planned[0], format!("create virtual host {VHOST}"));
        assert!(planned.contains(&"create queue notary.requests".to_owned()), "{planned:#?}");
        assert!(!operator.secrets().exists(), "a plan changes nothing");
        let (code, applied) = operator.broker("apply");
        assert_eq!((code, changes(&applied)), (0, planned.clone()));
        assert_eq!(operator.broker("plan").0, 0);
        let (code, checked) = operator.broker("check");
        assert_eq!(code, 0, "{checked:#}");
        let party = planned.iter().find_map(|change| change.strip_prefix("create user O=")).unwrap();
        (server, operator, format!("O={party}"))
    })
    .await
    .unwrap();

    let mut command = Command::new(env!("CARGO_BIN_EXE_notary"));
    command.args(["run", "--set", "observe.listen=127.0.0.1:0"]);
    operator.configured(&mut command);
    let mut worker = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
    let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines();
    let serving = lines.next().unwrap().unwrap();
    assert!(serving.contains("rabbitmq at 127.0.0.1") && serving.contains("notary.requests"), "{serving}");

    let organisation = user.trim_start_matches("O=").split(',').next().unwrap();
    let password = password_of(&operator.secrets(), organisation.split(' ').next().unwrap());
    let access = Access {
        hosts: vec![format!("127.0.0.1:{}", server.amqp)],
        vhost: VHOST.into(),
        user: user.clone(),
        password: Arc::new(move || Ok(Zeroizing::new(password.clone()))),
        tls: None,
        silence_max: Duration::from_secs(10),
        name: "party".into(),
    };
    let reply_queue = format!("notary.replies.{user}");
    let options = Options { access, prefix: "notary".into(), reply_queue, timeout: LONG };
    let client = Client::connect(options, &Handle::current()).await.unwrap();
    let request = Request { dedup_id: "id".into(), platform_version: 12, body: b"no session message".to_vec() };
    client.send(request, &Wishes::default()).await.unwrap();
    eventually("what is no session message is parked", || {
        let server = Arc::clone(&server);
        async move {
            let body = r#"{"count":1,"ackmode":"ack_requeue_true","encoding":"base64"}"#;
            let asked = move || server.ask("POST", &format!("queues/{VHOST}/notary.dead/get"), Some(body));
            let (status, text) = tokio::task::spawn_blocking(asked).await.unwrap().unwrap();
            assert_eq!(status, 200, "{text}");
            text.contains("x-notary-reason")
        }
    })
    .await;

    let stopped = Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().unwrap();
    assert!(stopped.success());
    assert_eq!(tokio::task::spawn_blocking(move || worker.wait()).await.unwrap().unwrap().code(), Some(0));
}
