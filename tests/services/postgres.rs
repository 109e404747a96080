//! PostgreSQL 15 (Debian package `postgresql-15`).
//!
//! All files lie in one folder of the test process, and come from one `initdb`. A shell keeps each server, and one the folder: they
//! stop it, and remove it, when the pipe from the test process closes, however that process ends.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use notary_worker::sql::postgres::{self, Owner, Place, WorkerRole};
use zeroize::Zeroizing;

use super::{Missing, free_ports};

/// The superuser's password, the owner's and the worker's.
const PASSWORD: &str = "test";
/// Owns the databases; no superuser.
const OWNER: &str = "keeper";

/// How long a server may take to start or stop; recovery under load takes seconds.
const PATIENCE: Duration = Duration::from_secs(60);

const GUARD: &str = r#"
dir=$1; shift
"$@" >>"$dir/log" 2>&1 &
server=$!
cat >/dev/null
kill -INT $server 2>/dev/null
wait $server
"#;

/// Servers stop while their files are removed, and may make some.
const KEEPER: &str = r#"
cat >/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf "$1" 2>/dev/null
    [ -e "$1" ] || exit 0
    sleep 1
done
"#;

/// A running server.
pub struct Server {
    dir: PathBuf,
    pub port: u16,
    guard: Option<Child>,
    options: Vec<String>,
}

/// A new database on a server, with tables, an owner, and a worker's role of its own.
#[derive(Clone, Debug)]
pub struct Database {
    pub port: u16,
    pub name: String,
    pub worker: String,
}

impl Server {
    /// The server that the tests of this process share.
    pub fn shared() -> Result<&'static Self, Missing> {
        static SHARED: OnceLock<Result<Server, String>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| Self::start(&[]).map_err(|Missing(why)| why));
        shared.as_ref().map_err(|why| Missing(why.clone()))
    }

    /// A server of one test, to be hurt; `options` are settings, `name=value`.
    pub fn start(options: &[&str]) -> Result<Self, Missing> {
        Self::start_with_files(options, &[])
    }

    /// The same with files in its data folder: names and contents.
    pub fn start_with_files(options: &[&str], files: &[(&str, &str)]) -> Result<Self, Missing> {
        let template = template()?;
        let dir = new_folder()?;
        run("cp", &["-a".as_ref(), template.join("data").as_os_str(), dir.as_os_str()])?;
        for (name, content) in files {
            let path = dir.join("data").join(name);
            std::fs::write(&path, content).map_err(|error| Missing(error.to_string()))?;
            run("chmod", &["600".as_ref(), path.as_os_str()])?;
            run("chown", &[format!("--reference={}", dir.display()).as_ref(), path.as_os_str()])?;
        }
        let [port] = free_ports();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Self { dir, port, guard: None, options };
        server.start_again();
        Ok(server)
    }

    /// A standby of `primary` that is called `name` in `synchronous_standby_names`.
    pub fn standby(primary: &Self, name: &str) -> Result<Self, Missing> {
        let dir = new_folder()?;
        let bin = bin()?;
        let data = dir.join("data");
        let source =
            format!("host=127.0.0.1 port={} user=postgres password={PASSWORD} application_name={name}", primary.port);
        let mut copy = as_postgres(&bin.join("pg_basebackup"));
        copy.args(["-d", &source, "-R", "-X", "stream", "-c", "fast", "--no-sync", "-D"]).arg(&data);
        finish(&mut copy)?;
        let [port] = free_ports();
        let mut server = Self { dir, port, guard: None, options: Vec::new() };
        server.start_again();
        Ok(server)
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts the server on its port, and waits until it answers.
    pub fn start_again(&mut self) {
        let begun = Instant::now();
        loop {
            self.guard = Some(self.spawn());
            // The first start after a kill may find processes of before.
            while begun.elapsed() < PATIENCE {
                if psql(self.port, "postgres", PASSWORD, "postgres", "SELECT 1").is_ok() {
                    return;
                }
                let ended =
                    self.postmaster().is_none_or(|pid| !is_alive(pid)) && begun.elapsed() > Duration::from_secs(3);
                if ended {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            assert!(begun.elapsed() < PATIENCE, "the server starts: {}", self.log());
            self.end_guard();
        }
    }

    fn spawn(&self) -> Child {
        let bin = bin().expect("there was one");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(&self.dir);
        let server = as_postgres(&bin.join("postgres"));
        guard.arg(server.get_program()).args(server.get_args());
        guard.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        guard.args(["-c", "listen_addresses=127.0.0.1", "-c"]);
        guard.arg(format!("unix_socket_directories={}", self.data().display()));
        for option in &self.options {
            guard.args(["-c", option]);
        }
        guard.stdin(Stdio::piped()).spawn().expect("a shell")
    }

    fn end_guard(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // It waits for its server, which was told to stop.
            let _ = guard.wait();
        }
    }

    /// The server's first process.
    pub fn postmaster(&self) -> Option<u32> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.parse().ok()
    }

    /// Kills the server without a chance to write anything (F12).
    pub fn kill(&mut self) {
        let pid = self.postmaster().expect("it runs");
        signal(pid, "KILL");
        self.end_guard();
    }

    /// Stops the server hard: no checkpoint, sessions cut (F13).
    pub fn stop_immediately(&mut self) {
        signal(self.postmaster().expect("it runs"), "QUIT");
        self.end_guard();
    }

    /// Stops the server in good order.
    pub fn stop(&mut self) {
        self.end_guard();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Runs SQL as the superuser; the rows as text, columns separated by `|`.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        psql(self.port, "postgres", PASSWORD, database, sql).unwrap_or_else(|why| panic!("{sql}: {why}"))
    }

    /// A new database without tables, and nobody but its owner.
    pub fn empty_database(&self) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let database = Database { port: self.port, name: format!("ledger_{n}"), worker: format!("worker_{n}") };
        self.sql("postgres", &format!("CREATE DATABASE {} OWNER {OWNER}", database.name));
        database
    }

    /// A new database as `notary db apply` makes it.
    pub fn database(&self) -> Database {
        let database = self.empty_database();
        database.apply();
        database
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end_guard();
    }
}

impl Database {
    /// Where `user` finds it.
    pub fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{}", self.port, self.name)
    }

    pub fn owner(&self) -> Owner {
        let place = Place::parse(&self.url(OWNER), None).expect("a place");
        Owner { place, password: Some(Zeroizing::new(PASSWORD.into())) }
    }

    /// The owner's name and password.
    pub fn owner_login(&self) -> (String, String) {
        (OWNER.to_owned(), PASSWORD.to_owned())
    }

    pub fn role(&self) -> WorkerRole {
        let password = Some(Zeroizing::new(PASSWORD.into()));
        WorkerRole { name: self.worker.clone(), password, connections_max: WorkerRole::CONNECTIONS_DEFAULT }
    }

    /// Makes tables, role and rights.
    pub fn apply(&self) {
        postgres::apply(&self.owner(), &self.role(), |_| {}).expect("the owner may");
    }

    /// Where the worker finds it.
    pub fn place(&self) -> Place {
        Place::parse(&self.url(&self.worker), None).expect("a place")
    }

    pub fn password(&self) -> Option<postgres::Password> {
        Some(std::sync::Arc::new(|| Ok(Zeroizing::new(PASSWORD.into()))))
    }

    /// Runs SQL as the superuser.
    pub fn sql(&self, sql: &str) -> String {
        psql(self.port, "postgres", PASSWORD, &self.name, sql).unwrap_or_else(|why| panic!("{sql}: {why}"))
    }

    /// Runs SQL as another user of the same password.
    pub fn run_as(&self, user: &str, sql: &str) -> Result<String, String> {
        psql(self.port, user, PASSWORD, &self.name, sql)
    }

    /// A superuser's connection, which ends with the client.
    pub async fn connect_as_superuser(&self) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").password(PASSWORD).dbname(&self.name);
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect("the server lets us in");
        tokio::spawn(connection);
        client
    }

    /// Runs SQL as the worker's role.
    pub fn sql_as_worker(&self, sql: &str) -> Result<String, String> {
        psql(self.port, &self.worker, PASSWORD, &self.name, sql)
    }
}

/// Sends a signal to one process.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill");
    assert!(sent.success(), "{name} to {pid}");
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Runs a script, with psql's variables.
fn psql(port: u16, user: &str, password: &str, database: &str, sql: &str) -> Result<String, String> {
    let mut psql = Command::new(bin().map_err(|Missing(why)| why)?.join("psql"));
    psql.args(["-X", "-At", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port.to_string()]);
    psql.args(["-U", user, "-d", database, "-f", "-"]).env("PGPASSWORD", password);
    psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = psql.spawn().map_err(|error| error.to_string())?;
    // Scripts fit into a pipe, and psql reads all of one before it is in the way; without a connection it reads nothing.
    let _ = child.stdin.take().expect("piped").write_all(sql.as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
    }
}

/// Where the server's programs are.
fn bin() -> Result<&'static Path, Missing> {
    static BIN: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = BIN.get_or_init(|| {
        let listed = Command::new("dpkg").args(["-L", "postgresql-15"]).stderr(Stdio::null()).output().ok()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let initdb = listed.lines().find(|line| line.ends_with("/bin/initdb"))?;
        Path::new(initdb).parent().map(Path::to_owned)
    });
    found.as_deref().ok_or_else(|| Missing("the Debian package postgresql-15 is not installed".into()))
}

/// Server processes refuse to run as root.
fn as_postgres(program: &Path) -> Command {
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"));
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

/// The folder of this process; it ends with it.
fn root() -> Result<&'static Path, Missing> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = ROOT.get_or_init(|| {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?.keep();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&dir);
        let keeper = keeper.stdin(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        std::mem::forget(keeper); // Its pipe closes with the process.
        run("chmod", &["755".as_ref(), dir.as_os_str()]).map_err(|Missing(why)| why)?;
        Ok(dir)
    });
    made.as_deref().map_err(|why| Missing(why.clone()))
}

/// A folder in which the server may write.
fn new_folder() -> Result<PathBuf, Missing> {
    let dir = tempfile::tempdir_in(root()?).map_err(|error| Missing(error.to_string()))?.keep();
    if as_postgres(&dir).get_program() == "setpriv" {
        run("chown", &["postgres".as_ref(), dir.as_os_str()])?;
    }
    Ok(dir)
}

/// The files of a new server, in `data`.
fn template() -> Result<&'static Path, Missing> {
    static TEMPLATE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = TEMPLATE.get_or_init(|| make_template().map_err(|Missing(why)| why));
    made.as_deref().map_err(|why| Missing(why.clone()))
}

fn make_template() -> Result<PathBuf, Missing> {
    let bin = bin()?;
    let dir = new_folder()?;
    let password = root()?.join("password");
    std::fs::write(&password, PASSWORD).map_err(|error| Missing(error.to_string()))?;
    let mut initdb = as_postgres(&bin.join("initdb"));
    initdb.arg("-D").arg(dir.join("data")).arg("--pwfile").arg(password);
    initdb.args([
        "-U",
        "postgres",
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "--no-locale",
        "--data-checksums",
        "--no-sync",
    ]);
    finish(&mut initdb)?;
    let rules = "host all all 127.0.0.1/32 scram-sha-256\nhost replication postgres 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(dir.join("data/pg_hba.conf"), rules).map_err(|error| Missing(error.to_string()))?;
    let [port] = free_ports();
    let mut server = Server { dir: dir.clone(), port, guard: None, options: Vec::new() };
    server.start_again();
    server.sql("postgres", &format!("CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD '{PASSWORD}'"));
    server.stop();
    Ok(dir)
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> Result<(), Missing> {
    finish(Command::new(program).args(arguments))
}

fn finish(command: &mut Command) -> Result<(), Missing> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| Missing(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(()),
        false => Err(Missing(format!("{:?}: {said}", command.get_program()))),
    }
}
