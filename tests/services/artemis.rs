//! An Apache Artemis broker on free loopback ports, in a folder of its own. The distribution comes by Maven into `target/tools/`,
//! once; it needs Java 17, and `jar` to unpack.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{
    AmqpValue, ApplicationProperties, Body, Message, Properties, Source, TerminusDurability,
};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use fe2o3_amqp::{Connection, Receiver, Sender, Session};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

use super::{Missing, free_ports};

const VERSION: &str = "2.40.0";
/// A broker is ready within some three seconds on an idle machine; tests share two cores with others.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// The administrator.
pub const ADMIN: (&str, &str) = ("admin", "admin");

/// A running broker; killed when dropped, and when the test process ends in whatever way.
pub struct Server {
    folder: TempDir,
    pub port: u16,
    /// With TLS, if it was started with certificates.
    pub tls_port: u16,
    running: Mutex<Child>,
    guardian: Mutex<Child>,
}

/// Where a broker gets its certificates from, PEM each, and which names in certificates are which users.
pub struct Certificates<'a> {
    pub authorities: &'a Path,
    /// Chain and key in one file.
    pub identity: &'a Path,
    /// `user = DN`, with its roles, separated by commas.
    pub users: &'a [(&'a str, &'a str, &'a str)],
    /// How clients may say who they are, separated by commas. PLAIN beside EXTERNAL is a trap: `tests/artemis_peers/login.rs`.
    pub mechanisms: &'a str,
}

impl Server {
    /// The broker that all tests of the process share.
    pub fn shared() -> Result<Arc<Self>, Missing> {
        static SHARED: OnceLock<Result<Arc<Server>, String>> = OnceLock::new();
        let started = SHARED.get_or_init(|| Self::start(None).map(Arc::new).map_err(|Missing(why)| why));
        started.clone().map_err(Missing)
    }

    pub fn start(certificates: Option<Certificates<'_>>) -> Result<Self, Missing> {
        Self::start_with(|etc, tls_port| {
            if let Some(certificates) = certificates {
                secure(etc, &certificates, tls_port);
            }
        })
    }

    /// A broker with acceptors for Corda nodes, as `broker/artemis/peers` has them.
    pub fn start_for_peers(acceptors: &[PeerAcceptor<'_>], root: &Path, login: Login) -> Result<Self, Missing> {
        Self::start_with(|etc, _| open_to_peers(etc, acceptors, root, login))
    }

    /// `configure` gets the folder with the broker's own files before it starts, and a port for TLS.
    fn start_with(configure: impl FnOnce(&Path, u16)) -> Result<Self, Missing> {
        let home = install()?;
        let folder = tempfile::tempdir().expect("a folder");
        let [port, tls_port] = free_ports();
        let instance = folder.path().join("instance");
        let created = Command::new(home.join("bin/artemis"))
            .arg("create")
            .arg(&instance)
            .args([
                "--silent",
                "--user",
                ADMIN.0,
                "--password",
                ADMIN.1,
                "--require-login",
                "--no-web",
                "--no-autotune",
            ])
            .args(["--nio", "--host", "127.0.0.1", "--default-port", &port.to_string()])
            .args(["--no-amqp-acceptor", "--no-mqtt-acceptor", "--no-stomp-acceptor", "--no-hornetq-acceptor"])
            .output()
            .expect("artemis create runs");
        assert!(created.status.success(), "{created:?}");
        configure(&instance.join("etc"), tls_port);
        let guardian = guardian();
        let running = launch(&instance);
        let server = Self { folder, port, tls_port, running: Mutex::new(running), guardian: Mutex::new(guardian) };
        server.guard();
        server.wait_until_ready(0);
        Ok(server)
    }

    fn instance(&self) -> PathBuf {
        self.folder.path().join("instance")
    }

    /// Tells the guardian which process is to die with us.
    fn guard(&self) {
        let pid = lock(&self.running).id();
        let mut guardian = lock(&self.guardian);
        writeln!(guardian.stdin.as_mut().expect("it is piped"), "{pid}").expect("the guardian reads");
    }

    fn signal(&self, signal: &str) {
        let pid = lock(&self.running).id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success(), "kill {signal}");
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Kills the broker without a word.
    pub fn kill(&self) {
        self.signal("-KILL");
        lock(&self.running).wait().expect("it ends");
    }

    /// Starts it again on what its disk holds.
    pub fn restart(&self) {
        let logged = self.log().len();
        *lock(&self.running) = launch(&self.instance());
        self.guard();
        self.wait_until_ready(logged);
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.instance().join("out")).unwrap_or_default()
    }

    fn wait_until_ready(&self, logged: usize) {
        let deadline = Instant::now() + READY_WITHIN;
        // «Server is now active», written after its ports are open.
        while !self.log()[logged..].contains("AMQ221007") {
            let over = lock(&self.running).try_wait().expect("it can be asked");
            assert!(over.is_none(), "Artemis ended: {}", self.log());
            assert!(Instant::now() < deadline, "Artemis is not ready within {READY_WITHIN:?}: {}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection of a client that is not ours.
    pub async fn foreign(&self, user: &str, password: &str) -> Foreign {
        Foreign::connect(&self.address(), user, password).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guardian kills the broker and itself when nobody writes to it any more.
        let mut guardian = lock(&self.guardian);
        drop(guardian.stdin.take());
        let _ = guardian.wait();
        let _ = lock(&self.running).wait();
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The unpacked distribution. Test binaries run at the same time: the first installs, others wait.
fn install() -> Result<PathBuf, Missing> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in target").join("tools/artemis");
    let home = tools.join(format!("apache-artemis-{VERSION}"));
    fs::create_dir_all(&tools).expect("a folder for tools");
    let lock = fs::File::create(tools.join("lock")).expect("a lock");
    lock.lock().expect("it can be locked");
    let done = tools.join(format!("{VERSION}.installed"));
    if done.exists() {
        return Ok(home);
    }
    let run = |what: &str, command: &mut Command| match command.current_dir(&tools).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Missing(format!("{what}: {}", String::from_utf8_lossy(&output.stdout)))),
        Err(error) => {
            Err(Missing(format!("{what}: {error}; install the Debian packages maven and default-jdk-headless")))
        }
    };
    let artifact = format!("-Dartifact=org.apache.activemq:apache-artemis:{VERSION}:zip:bin");
    run("mvn", Command::new("mvn").args(["-q", "dependency:copy", &artifact, "-DoutputDirectory=."]))?;
    run("jar", Command::new("jar").arg("xf").arg(format!("apache-artemis-{VERSION}-bin.zip")))?;
    run("chmod", Command::new("chmod").arg("+x").arg(home.join("bin/artemis")))?;
    fs::write(done, "").expect("written");
    Ok(home)
}

fn launch(instance: &Path) -> Child {
    let out = fs::OpenOptions::new().create(true).append(true).open(instance.join("out")).expect("opened");
    let mut command = Command::new(instance.join("bin/artemis"));
    command
        .arg("run")
        // Small, quick to start, and one thread for garbage: several brokers share two cores.
        .env("JAVA_ARGS", "-Xms64M -Xmx384M -XX:+UseSerialGC -XX:TieredStopAtLevel=1")
        // A group of its own, so that an interrupt at the terminal is for the tests alone. The script becomes the JVM.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("cloned"))
        .stderr(out);
    command.spawn().expect("Artemis starts")
}

/// Waits for us to end, and then kills the last process that it was told of.
fn guardian() -> Child {
    Command::new("sh")
        .args(["-c", "while read -r pid; do last=$pid; done; kill -KILL $last"])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}

/// Adds an acceptor with TLS on which certificates name users, besides passwords.
fn secure(etc: &Path, certificates: &Certificates<'_>, port: u16) {
    let acceptor = format!(
        "<acceptor name=\"tls\">tcp://127.0.0.1:{port}?protocols=AMQP;sslEnabled=true;keyStoreType=PEM;keyStorePath={};\
         needClientAuth=true;trustStoreType=PEMCA;trustStorePath={};saslMechanisms={}</acceptor></acceptors>",
        certificates.identity.display(),
        certificates.authorities.display(),
        certificates.mechanisms
    );
    let file = etc.join("broker.xml");
    let xml = fs::read_to_string(&file).expect("it was created").replace("</acceptors>", &acceptor);
    fs::write(file, xml).expect("written");
    let module = "org.apache.activemq.artemis.spi.core.security.jaas";
    let login = format!(
        "activemq {{\n\
         {module}.TextFileCertificateLoginModule sufficient\n\
         org.apache.activemq.jaas.textfiledn.user=\"cert-users.properties\"\n\
         org.apache.activemq.jaas.textfiledn.role=\"cert-roles.properties\";\n\
         {module}.PropertiesLoginModule sufficient reload=true\n\
         org.apache.activemq.jaas.properties.user=\"artemis-users.properties\"\n\
         org.apache.activemq.jaas.properties.role=\"artemis-roles.properties\";\n\
         }};\n"
    );
    fs::write(etc.join("login.config"), login).expect("written");
    let (mut users, mut roles) = (String::new(), String::new());
    for (user, dn, held) in certificates.users {
        users += &format!("{user}={dn}\n");
        held.split(',').for_each(|role| roles += &format!("{role}={user}\n"));
    }
    fs::write(etc.join("cert-users.properties"), users).expect("written");
    fs::write(etc.join("cert-roles.properties"), roles).expect("written");
}

/// An acceptor for Corda nodes.
pub struct PeerAcceptor<'a> {
    pub address: SocketAddr,
    /// PEM: the worker's TLS certificate with those above it, and its key.
    pub chain: &'a Path,
    pub key: &'a Path,
}

/// How an acceptor for Corda nodes decides whom it lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// As declared.
    Declared,
    /// By certificate alone, whatever name the client says: what the declaration warns of.
    ByCertificateAlone,
}

/// Merges the declaration's files into those of the broker, with certificates in place of its examples.
fn open_to_peers(etc: &Path, acceptors: &[PeerAcceptor<'_>], root: &Path, login: Login) {
    let declared = Path::new(env!("CARGO_MANIFEST_DIR")).join("broker/artemis/peers");
    let read = |path: &Path| fs::read_to_string(path).expect("it reads");
    let example = read(&declared.join("broker.xml"));
    let example = example.lines().find(|line| line.contains("<acceptor name=\"peers\">")).expect("it is there");
    let mut merged = String::new();
    for (number, PeerAcceptor { address, chain, key }) in acceptors.iter().enumerate() {
        let identity = etc.join(format!("peers-{number}.pem"));
        fs::write(&identity, read(key) + &read(chain)).expect("written");
        let mut acceptor = example.to_owned();
        for (old, new) in [
            ("\"peers\"", format!("\"peers-{number}\"")),
            ("0.0.0.0:10002", address.to_string()),
            ("keyStorePath=etc/worker-tls.p12;keyStorePassword=CHANGE-ME", pem("keyStore", "PEM", &identity)),
            ("trustStorePath=etc/network-root.p12;trustStorePassword=CHANGE-ME", pem("trustStore", "PEMCA", root)),
        ] {
            assert!(acceptor.contains(old), "{old}");
            acceptor = acceptor.replace(old, &new);
        }
        merged += &acceptor;
        merged += "\n";
    }
    let file = etc.join("broker.xml");
    let xml = read(&file).replace("</acceptors>", &format!("{merged}</acceptors>"));
    fs::write(&file, xml).expect("written");
    let mut logins = read(&declared.join("login.config"));
    if login == Login::ByCertificateAlone {
        let password = logins.find("org.apache.activemq.artemis.spi.core.security.jaas.PropertiesLoginModule");
        logins.truncate(password.expect("it is there"));
        logins += "};\n";
    }
    fs::write(etc.join("login.config"), read(&etc.join("login.config")) + &logins).expect("written");
    for name in ["peer-certificates.properties", "peer-roles.properties", "peer-users.properties"] {
        fs::copy(declared.join(name), etc.join(name)).expect("copied");
    }
}

fn pem(store: &str, kind: &str, path: &Path) -> String {
    format!("{store}Type={kind};{store}Path={}", path.display())
}

/// A connection of a client that is not ours (fe2o3-amqp): what tests do behind the back of the code under test.
pub struct Foreign {
    connection: ConnectionHandle<()>,
    session: SessionHandle<()>,
    links: usize,
}

impl Foreign {
    pub async fn connect(address: &str, user: &str, password: &str) -> Self {
        let profile = SaslProfile::Plain { username: user.to_owned(), password: password.to_owned() };
        let mut connection = Connection::builder()
            .container_id(format!("foreign-{user}"))
            .sasl_profile(profile)
            .open(format!("amqp://{address}").as_str())
            .await
            .expect("it connects");
        let session = Session::begin(&mut connection).await.expect("a session");
        Self { connection, session, links: 0 }
    }

    /// The same over a stream, such as one with TLS, that somebody has connected; or why it is not let in.
    pub async fn over<S>(stream: S, user: &str, password: &str) -> Result<Self, String>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + std::fmt::Debug + Send + Unpin + 'static,
    {
        let profile = SaslProfile::Plain { username: user.to_owned(), password: password.to_owned() };
        let mut connection = Connection::builder()
            .container_id(format!("foreign-{user}"))
            .scheme("amqp")
            .sasl_profile(profile)
            .open_with_stream(stream)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let session = Session::begin(&mut connection).await.map_err(|error| format!("{error:?}"))?;
        Ok(Self { connection, session, links: 0 })
    }

    /// A link as a bridge attaches it: no capabilities, and the target may be anything.
    pub async fn bridge_sender(&mut self, address: &str) -> Result<Sender, String> {
        let sender = Sender::builder().name(self.link()).source(address).target(address).attach(&mut self.session);
        sender.await.map_err(|error| format!("{error:?}"))
    }

    fn link(&mut self) -> String {
        self.links += 1;
        format!("link-{}", self.links)
    }

    pub async fn sender(&mut self, address: &str) -> Result<Sender, String> {
        let name = self.link();
        let target = fe2o3_amqp::types::messaging::Target::builder()
            .address(address)
            .capabilities(vec![fe2o3_amqp::types::primitives::Symbol::from("queue")])
            .build();
        let sender = Sender::builder().name(name).target(target).attach(&mut self.session).await;
        sender.map_err(|error| format!("{error:?}"))
    }

    pub async fn receiver(&mut self, address: &str) -> Result<Receiver, String> {
        let receiver = Receiver::builder()
            .name(self.link())
            .source(address)
            .credit_mode(CreditMode::Auto(100))
            .attach(&mut self.session);
        receiver.await.map_err(|error| format!("{error:?}"))
    }

    /// Takes everything that lies in a queue: bodies and text properties.
    pub async fn take_all(&mut self, queue: &str) -> Vec<(Vec<u8>, Vec<(String, String)>)> {
        let mut receiver = self.receiver(queue).await.expect("it may be received from");
        let mut taken = Vec::new();
        // The broker sends at once what lies there.
        while let Ok(delivery) = tokio::time::timeout(Duration::from_millis(300), receiver.recv::<Body<Value>>()).await
        {
            let delivery = delivery.expect("a message");
            receiver.accept(&delivery).await.expect("accepted");
            let message = delivery.into_message();
            let body = match message.body {
                Body::Data(batch) => batch.into_iter().flat_map(|data| data.0.into_vec()).collect(),
                other => panic!("a body of data, not {other:?}"),
            };
            let properties = message.application_properties.map(|properties| properties.0).unwrap_or_default();
            let texts = properties.into_iter().filter_map(|(name, value)| match value {
                SimpleValue::String(text) => Some((name, text)),
                _ => None,
            });
            taken.push((body, texts.collect()));
        }
        receiver.close().await.expect("closed");
        taken
    }

    pub async fn close(mut self) {
        let _ = self.session.end().await;
        let _ = self.connection.close().await;
    }

    /// Asks management: an operation or an attribute of a resource.
    pub async fn manage(&mut self, resource: &str, what: (&str, &str), arguments: Json) -> Result<Json, String> {
        let name = self.link();
        let source = Source::builder().dynamic(true).durable(TerminusDurability::None).build();
        let answers = Receiver::builder().name(name).source(source).attach(&mut self.session).await;
        let mut answers = answers.expect("a place for answers");
        let reply_to = answers.source().as_ref().and_then(|source| source.address.clone()).expect("it was made up");
        let name = self.link();
        let mut sender = Sender::attach(&mut self.session, name, "activemq.management").await.expect("attached");
        let properties = ApplicationProperties::builder().insert("_AMQ_ResourceName", resource).insert(what.0, what.1);
        let message = Message::builder()
            .properties(Properties::builder().reply_to(reply_to).build())
            .application_properties(properties.build())
            .value(arguments.to_string())
            .build();
        sender.send(message).await.expect("sent").accepted_or("refused").expect("accepted");
        let delivery = answers.recv::<AmqpValue<Value>>().await.expect("an answer");
        answers.accept(&delivery).await.expect("accepted");
        let message = delivery.into_message();
        let properties = message.application_properties.expect("properties").0;
        let succeeded = properties.get("_AMQ_OperationSucceeded") == Some(&SimpleValue::Bool(true));
        let body = match message.body.0 {
            Value::String(text) => serde_json::from_str::<Json>(&text).expect("JSON")[0].clone(),
            _ => Json::Null,
        };
        sender.close().await.expect("closed");
        answers.close().await.expect("closed");
        if succeeded { Ok(body) } else { Err(body.to_string()) }
    }

    pub async fn operation(&mut self, operation: &str, arguments: Json) -> Result<Json, String> {
        self.manage("broker", ("_AMQ_OperationName", operation), arguments).await
    }

    /// Messages in a queue, those that are being delivered apart; nothing if there is no such queue.
    pub async fn depth(&mut self, queue: &str) -> (usize, usize) {
        let resource = format!("queue.{queue}");
        let mut counts = [0; 2];
        for (attribute, count) in ["MessageCount", "DeliveringCount"].iter().zip(&mut counts) {
            let answer = self.manage(&resource, ("_AMQ_Attribute", attribute), json!([])).await;
            *count = answer.ok().and_then(|count| count.as_u64()).unwrap_or(0) as usize;
        }
        let [messages, delivering] = counts;
        (messages.saturating_sub(delivering), delivering)
    }
}
