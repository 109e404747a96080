//! A pool of two workers on real services: a broker, PostgreSQL and SoftHSM2 on free loopback ports. It is set up by the README's page
//! "Run it on your services", word by word, so that the page is true.

#![allow(dead_code, unreachable_pub, reason = "each test file is a program of its own and uses a part of this")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use notary_worker::broker::{artemis, rabbitmq};
use notary_worker::client::cast::{Access, Cast};
use zeroize::Zeroizing;

use crate::services::artemis::Foreign;
use crate::services::postgres::Server as Postgres;
use crate::services::softhsm2::{self, SoftHsm};
use crate::services::{Missing, artemis as artemis_server, rabbitmq as rabbitmq_server};
use crate::worker::{self, Worker};

/// The token with the service key.
pub const TOKEN: &str = "notary";
/// The prefix of the service's queues, as the page leaves it.
const PREFIX: &str = "notary";

/// The property of a parked message that says why it is.
const REASON: &str = "x-notary-reason";

/// A parked message.
#[derive(Debug)]
pub struct Letter {
    pub bytes: usize,
    pub reason: String,
}

/// The broker in use.
pub enum Broker {
    RabbitMq(rabbitmq_server::Server),
    Artemis(artemis_server::Server),
}

impl Broker {
    pub fn kill(&self) {
        match self {
            Self::RabbitMq(server) => server.kill(),
            Self::Artemis(server) => server.kill(),
        }
    }

    pub fn restart(&self) {
        match self {
            Self::RabbitMq(server) => server.restart(),
            Self::Artemis(server) => server.restart(),
        }
    }

    fn host(&self) -> String {
        match self {
            Self::RabbitMq(server) => format!("127.0.0.1:{}", server.amqp),
            Self::Artemis(server) => format!("127.0.0.1:{}", server.port),
        }
    }
}

/// The services, and the folder in which the page is followed.
pub struct Stack {
    folder: tempfile::TempDir,
    pub broker: Broker,
    pub database: Postgres,
    pub hsm: SoftHsm,
    environment: Vec<(String, String)>,
}

impl Stack {
    /// Starts the services and follows the page from its first word to its last, workers and requests included. Returns what it
    /// printed.
    pub fn set_up(broker: Broker) -> Result<(Self, String), Missing> {
        let database = Postgres::start(&[])?;
        let hsm = SoftHsm::with_tokens(&[TOKEN])?;
        let folder = tempfile::tempdir().expect("a folder");
        let empty = database.empty_database();
        let (owner, password) = empty.owner_login();
        let (kind, management, admin) = match &broker {
            Broker::RabbitMq(server) => ("rabbitmq", server.management_url(), rabbitmq_server::ADMIN),
            Broker::Artemis(_) => ("artemis", String::new(), artemis_server::ADMIN),
        };
        let path = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
        let programs = PathBuf::from(env!("CARGO_BIN_EXE_notary"));
        let programs = path(programs.parent().expect("a program lies in a folder"));
        let environment = [
            ("PATH", format!("{programs}:{}", std::env::var("PATH").expect("there is a PATH"))),
            ("BROKER_KIND", kind.to_owned()),
            ("BROKER_HOSTS", broker.host()),
            ("BROKER_MANAGEMENT", management),
            ("BROKER_ADMIN", admin.0.to_owned()),
            ("BROKER_ADMIN_PASSWORD", admin.1.to_owned()),
            ("DATABASE", format!("127.0.0.1:{}/{}", empty.port, empty.name)),
            ("DATABASE_OWNER", owner),
            ("DATABASE_OWNER_PASSWORD", password),
            ("PKCS11_MODULE", path(&hsm.module)),
            ("PKCS11_TOKEN", TOKEN.to_owned()),
            ("PKCS11_PIN", softhsm2::PIN.to_owned()),
            // The page's workers listen on ports that are free here.
            ("NOTARY__OBSERVE__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value));
        let environment = environment.into_iter().chain([hsm.environment()]).collect();
        let stack = Self { folder, broker, database, hsm, environment };
        let said = stack.follow(&page());
        Ok((stack, said))
    }

    /// Runs the page's commands as one script.
    fn follow(&self, script: &str) -> String {
        let mut shell = Command::new("timeout");
        shell.args(["--kill-after=10", "300", "bash", "-euo", "pipefail", "-c", script]);
        shell.current_dir(self.folder.path()).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        let output = shell.output().expect("bash runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "the README's page failed:\n{said}");
        said
    }

    pub fn network(&self) -> PathBuf {
        self.folder.path().join("pool")
    }

    pub fn config(&self, number: u8) -> PathBuf {
        let name = if number == 1 { "notary.toml".to_owned() } else { format!("notary-{number}.toml") };
        self.network().join(name)
    }

    /// A command of the product's, where the services can be found.
    pub fn notary(&self) -> Command {
        let mut command = worker::notary();
        command.envs(self.environment.iter().cloned());
        command
    }

    /// What starts worker 1 or 2.
    pub fn worker_command(&self, number: u8) -> Command {
        let mut command = self.notary();
        command.arg("run").arg("--config").arg(self.config(number));
        command
    }

    /// Starts worker 1 or 2 and waits until it serves.
    pub fn start_worker(&self, number: u8) -> Worker {
        Worker::start(self.worker_command(number))
    }

    /// Takes what is parked.
    pub async fn take_parked(&self) -> Vec<Letter> {
        match &self.broker {
            Broker::RabbitMq(server) => {
                // Bodies are cut: an oversized one is known by its length.
                let body = r#"{"count":100,"ackmode":"ack_requeue_false","encoding":"base64","truncate":1000}"#;
                let path = format!("queues/%2F/{PREFIX}.dead/get");
                let (status, text) = server.ask("POST", &path, Some(body)).expect("the administrator may");
                assert_eq!(status, 200, "{text}");
                let letters: serde_json::Value = serde_json::from_str(&text).expect("JSON");
                let letter = |message: &serde_json::Value| Letter {
                    bytes: message["payload_bytes"].as_u64().expect("a length") as usize,
                    reason: message["properties"]["headers"][REASON].as_str().expect("a reason").to_owned(),
                };
                letters.as_array().expect("a list").iter().map(letter).collect()
            }
            Broker::Artemis(server) => {
                let (user, password) = ("keeper", "keeper-of-dead-letters");
                let mut admin =
                    Foreign::connect(&server.address(), artemis_server::ADMIN.0, artemis_server::ADMIN.1).await;
                let keeper = serde_json::json!([user, password, format!("{PREFIX}.admin"), true]);
                // It may be there from an earlier look.
                let _ = admin.operation("addUser", keeper).await;
                admin.close().await;
                let mut keeper = Foreign::connect(&server.address(), user, password).await;
                let taken = keeper.take_all(&format!("{PREFIX}.dead")).await;
                keeper.close().await;
                let letter = |(body, properties): (Vec<u8>, Vec<(String, String)>)| Letter {
                    bytes: body.len(),
                    reason: properties.into_iter().find(|(name, _)| name == REASON).expect("a reason").1,
                };
                taken.into_iter().map(letter).collect()
            }
        }
    }

    /// Connects all parties.
    pub async fn cast(&self, patience: Duration) -> Cast {
        let silence_max = Duration::from_secs(10);
        // Each party's own user and password are put in.
        let nobody = || Arc::new(|| Ok(Zeroizing::new(String::new())));
        let (hosts, secrets) = (vec![self.broker.host()], self.network().join("secrets"));
        let (user, name, tls) = (String::new(), String::new(), None);
        let access = match &self.broker {
            Broker::RabbitMq(_) => {
                let vhost = "/".to_owned();
                let access = rabbitmq::Access { hosts, vhost, user, password: nobody(), tls, silence_max, name };
                Access::RabbitMq { access, prefix: PREFIX.into(), secrets }
            }
            Broker::Artemis(_) => {
                let access = artemis::Access { hosts, user, password: nobody(), tls, silence_max, name };
                Access::Artemis { access, prefix: PREFIX.into(), secrets }
            }
        };
        Cast::connect_by(&self.network(), &access, patience).await.expect("the parties connect")
    }
}

/// The commands of the README's page, in order.
fn page() -> String {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let (begin, end) = ("<!-- run it on your services -->", "<!-- end of run it on your services -->");
    let page = readme.split(begin).nth(1).and_then(|rest| rest.split(end).next()).expect("the page is marked");
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert!(blocks.len() > 4, "the page has commands");
    blocks.join("\n")
}
