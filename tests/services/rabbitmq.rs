//! A RabbitMQ node with its management API, on free loopback ports, in a folder of its own.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Missing, free_ports};

/// A node is ready within some ten seconds on an idle machine; tests share two cores with others.
const READY_WITHIN: Duration = Duration::from_secs(90);
/// The user that every fresh node has, on loopback only.
pub const ADMIN: (&str, &str) = ("guest", "guest");

/// A running node; killed when dropped, and when the test process ends in whatever way.
pub struct Server {
    folder: TempDir,
    program: PathBuf,
    pub amqp: u16,
    /// With TLS, if it was started with certificates.
    pub amqps: u16,
    pub management: u16,
    node: [u16; 2],
    configuration: String,
    running: Mutex<Child>,
    guardian: Mutex<Child>,
}

/// Where a node gets its certificates from, PEM each: authorities, chain, key.
pub struct Certificates<'a> {
    pub authorities: &'a Path,
    pub chain: &'a Path,
    pub key: &'a Path,
}

impl Server {
    /// The node that all tests of the process share.
    pub fn shared() -> Result<Arc<Self>, Missing> {
        static SHARED: OnceLock<Result<Arc<Server>, String>> = OnceLock::new();
        let started = SHARED.get_or_init(|| Self::start(None).map(Arc::new).map_err(|Missing(why)| why));
        started.clone().map_err(Missing)
    }

    pub fn start(certificates: Option<Certificates<'_>>) -> Result<Self, Missing> {
        let program = program()?;
        let folder = tempfile::tempdir().expect("a folder");
        let [amqp, amqps, management, distribution, epmd] = free_ports();
        let mut configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{amqp}\n\
             management.tcp.ip = 127.0.0.1\n\
             management.tcp.port = {management}\n\
             loopback_users.guest = true\n\
             log.console = false\n\
             log.file.level = info\n"
        );
        if let Some(Certificates { authorities, chain, key }) = certificates {
            configuration += &format!(
                "listeners.ssl.1 = 127.0.0.1:{amqps}\n\
                 ssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\n\
                 ssl_options.keyfile = {}\n\
                 ssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = true\n\
                 ssl_cert_login_from = common_name\n\
                 auth_mechanisms.1 = PLAIN\n\
                 auth_mechanisms.2 = EXTERNAL\n",
                authorities.display(),
                chain.display(),
                key.display()
            );
        }
        let plugins = match amqps_login(&configuration) {
            true => "[rabbitmq_management,rabbitmq_auth_mechanism_ssl].\n",
            false => "[rabbitmq_management].\n",
        };
        fs::write(folder.path().join("rabbitmq.conf"), &configuration).expect("written");
        fs::write(folder.path().join("plugins"), plugins).expect("written");
        let guardian = guardian(epmd);
        let node = [distribution, epmd];
        let running = launch(&program, folder.path(), node);
        let server = Self {
            folder,
            program,
            amqp,
            amqps,
            management,
            node,
            configuration,
            running: Mutex::new(running),
            guardian: Mutex::new(guardian),
        };
        server.guard();
        server.wait_until_ready();
        Ok(server)
    }

    /// Tells the guardian which group of processes is to die with us.
    fn guard(&self) {
        let group = self.group();
        let mut guardian = lock(&self.guardian);
        writeln!(guardian.stdin.as_mut().expect("it is piped"), "{group}").expect("the guardian reads");
    }

    fn group(&self) -> u32 {
        lock(&self.running).id()
    }

    fn signal(&self, signal: &str) {
        let sent =
            Command::new("kill").args([signal, "--", &format!("-{}", self.group())]).status().expect("kill runs");
        assert!(sent.success(), "kill {signal}");
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Kills the node without a word.
    pub fn kill(&self) {
        self.signal("-KILL");
        lock(&self.running).wait().expect("it ends");
    }

    /// Starts it again on what its disk holds.
    pub fn restart(&self) {
        *lock(&self.running) = launch(&self.program, self.folder.path(), self.node);
        self.guard();
        self.wait_until_ready();
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            // The management API answers only after the node has started, and needs its database.
            if self.ask("GET", "overview", None).is_ok_and(|(status, _)| status == 200)
                && std::net::TcpStream::connect(("127.0.0.1", self.amqp)).is_ok()
            {
                return;
            }
            let over = lock(&self.running).try_wait().expect("it can be asked");
            let log = || fs::read_to_string(self.folder.path().join("out")).unwrap_or_default();
            assert!(over.is_none(), "RabbitMQ ended: {}\n{}", log(), self.configuration);
            assert!(Instant::now() < deadline, "RabbitMQ is not ready within {READY_WITHIN:?}: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks the management API as the administrator. Blocks.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>) -> Result<(u16, String), String> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .proxy(None)
            .build()
            .new_agent();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/api/{path}", self.management_url()))
            // guest:guest.
            .header("authorization", "Basic Z3Vlc3Q6Z3Vlc3Q=")
            .header("content-type", "application/json")
            .body(body.unwrap_or_default().to_owned())
            .map_err(|error| error.to_string())?;
        let mut answer = agent.run(request).map_err(|error| error.to_string())?;
        let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
        Ok((answer.status().as_u16(), text))
    }

    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management)
    }

    /// Runs `rabbitmqctl`, and returns what it printed.
    pub fn control(&self, arguments: &[&str]) -> String {
        let control = self.program.with_file_name("rabbitmqctl");
        let output = environment(&mut Command::new(control), self.folder.path(), self.node).args(arguments).output();
        let output = output.expect("rabbitmqctl runs");
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The guardian kills the node, its port mapper and itself when nobody writes to it any more.
        let mut guardian = lock(&self.guardian);
        drop(guardian.stdin.take());
        let _ = guardian.wait();
        let _ = lock(&self.running).wait();
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn amqps_login(configuration: &str) -> bool {
    configuration.contains("ssl_cert_login_from")
}

/// The script that starts a node as whoever we are; the one in the path wants to be run as a user of its own.
fn program() -> Result<PathBuf, Missing> {
    let places = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server"];
    let found = places.iter().map(PathBuf::from).find(|place| place.exists());
    found.ok_or_else(|| Missing("install the Debian package rabbitmq-server".into()))
}

fn environment<'a>(command: &'a mut Command, folder: &Path, [distribution, epmd]: [u16; 2]) -> &'a mut Command {
    command
        .env("HOME", folder)
        .env("RABBITMQ_NODENAME", format!("notary{distribution}@localhost"))
        .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("ERL_EPMD_PORT", epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2")
}

fn launch(program: &Path, folder: &Path, node: [u16; 2]) -> Child {
    let out = fs::OpenOptions::new().create(true).append(true).open(folder.join("out")).expect("opened");
    let mut command = Command::new(program);
    environment(&mut command, folder, node)
        // A group of its own: the node is several processes, and a signal must reach all of them.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out.try_clone().expect("cloned"))
        .stderr(out);
    command.spawn().expect("RabbitMQ starts")
}

/// Waits for us to end, and then kills the last group of processes it was told of, and the port mapper that the node left behind.
fn guardian(epmd: u16) -> Child {
    let script = "while read -r group; do last=$group; done; kill -KILL -$last; \
         for _ in 1 2 3 4 5 6 7 8 9 10; do ERL_EPMD_PORT=$0 epmd -kill >/dev/null 2>&1 && break; sleep 0.2; done";
    Command::new("sh")
        .args(["-c", script, &epmd.to_string()])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}
