//! `notary db`: plan, apply, check (DB6, DB7, DB8), as an operator runs them; and a worker on what they made.

use std::process::{Child, Output, Stdio};

use serde_json::Value;

use super::*;

fn text(output: &Output) -> String {
    [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat()
}

/// `notary db apply` for a database, as its owner.
fn apply(database: &Database) -> std::process::Command {
    let mut command = worker::notary();
    command.args(["db", "apply", "--url", &database.url("keeper"), "--worker-role", &database.worker]);
    command.args(["--password-ref", "env:OWNER_PASSWORD", "--worker-password-ref", "env:OWNER_PASSWORD"]);
    command.env("OWNER_PASSWORD", "test");
    command
}

fn settings(database: &Database) -> [String; 3] {
    [
        "store.kind=postgres".into(),
        format!("store.url={}", database.url(&database.worker)),
        "store.password=env:WORKER_PASSWORD".into(),
    ]
}

fn check(database: &Database) -> (Option<i32>, Value) {
    let mut command = worker::notary();
    command.args(["db", "check", "--json"]).env("WORKER_PASSWORD", "test");
    for setting in settings(database) {
        command.args(["--set", &setting]);
    }
    let output = command.output().expect("the program starts");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output))))
}

#[test]
fn apply_makes_a_database_that_check_finds_sound_and_running_it_again_changes_nothing() {
    let database = server!().empty_database();
    let (code, report) = check(&database);
    assert_eq!((code, &report["ok"]), (Some(1), &Value::Bool(false)), "there is no such role yet: {report}");

    for _ in 0..2 {
        let output = apply(&database).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let (code, report) = check(&database);
        assert_eq!((code, &report["ok"]), (Some(0), &Value::Bool(true)), "{report:#}");
    }
    assert_eq!(database.sql("SELECT count(*) FROM notary.schema_versions"), "1");
    let logged = server!().log();
    assert!(!logged.contains("PASSWORD 'test'"));

    database.sql(&format!("GRANT DELETE ON notary.states TO {}", database.worker));
    let (code, report) = check(&database);
    assert_eq!(code, Some(1));
    assert!(report.to_string().contains("DELETE on notary.states"), "{report:#}");
    // Rights too many are taken back.
    assert!(apply(&database).status().expect("the program starts").success());
    assert_eq!(check(&database).0, Some(0));
}

/// What is printed is what is run: psql makes the same database of it.
#[test]
fn a_plan_run_by_psql_makes_a_sound_database() {
    let server = server!();
    let database = server.empty_database();
    let planned = worker::run(&["db", "plan", "--worker-role", &database.worker]);
    assert!(planned.status.success(), "{}", text(&planned));
    let sql = String::from_utf8(planned.stdout).expect("text");
    assert!(sql.contains("CREATE TABLE notary.states") && sql.contains("-- CREATE ROLE"), "{sql}");

    database.sql(&format!("CREATE ROLE {} LOGIN PASSWORD 'test'", database.worker));
    database.run_as("keeper", &sql).expect("psql takes it");
    assert_eq!(check(&database).0, Some(0));

    let mut again = worker::notary();
    again.args(["db", "plan", "--url", &database.url("keeper"), "--password-ref", "env:OWNER_PASSWORD"]);
    let rest = again.env("OWNER_PASSWORD", "test").output().expect("the program starts");
    assert!(rest.status.success() && !text(&rest).contains("CREATE TABLE"), "nothing is left to do: {}", text(&rest));
}

#[test]
fn mistakes_are_told_before_anything_is_done_and_no_secret_is_repeated() {
    let database = server!().empty_database();
    let url = database.url("keeper");
    let with_password = url.replace("keeper@", "keeper:geheim@");
    for (arguments, code, why) in [
        (vec!["--url", &with_password, "--worker-role", "w"], 2, "password"),
        (vec!["--url", &url, "--worker-role", "w", "--password-ref", "geheim"], 2, "reference"),
        (vec!["--url", "postgresql://keeper@db.example.net/x", "--worker-role", "w"], 2, "TLS"),
        (vec!["--url", &url, "--worker-role", "w"], 3, "password"),
        (
            vec!["--url", &url, "--worker-role", "keeper", "--password-ref", "env:OWNER_PASSWORD"],
            3,
            "the owner cannot be",
        ),
    ] {
        let mut command = worker::notary();
        command.args(["db", "apply"]).args(&arguments).env("OWNER_PASSWORD", "test");
        let output = command.output().expect("the program starts");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(why) && !text(&output).contains("geheim"), "{arguments:?}: {}", text(&output));
    }
}

/// A proxy without a database behind it, or a frozen server, accepts connections and says nothing.
#[test]
fn check_gives_up_a_silent_host_at_the_deadline_and_asks_the_next() {
    let database = server!().empty_database();
    assert!(apply(&database).status().expect("the program starts").success());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let before = format!("@{},", silent.local_addr().expect("it is bound"));
    let examine = |url: String| {
        let mut command = worker::notary();
        command.args(["db", "check", "--set", "store.kind=postgres", "--set", "store.deadline_ms=1000"]);
        command.args(["--set", &format!("store.url={url}"), "--set", "store.password=env:WORKER_PASSWORD"]);
        command.env("WORKER_PASSWORD", "test").output().expect("the program starts")
    };
    let url = database.url(&database.worker);
    let output = examine(url.replace('@', &before));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));

    let alone = url.replace(&url[url.find('@').expect("a user")..], &before.replace(',', "/ledger"));
    let output = examine(alone);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("no answer within 1s"), "{}", text(&output));
}

/// DB7: a run that is killed while it waits for the lock, or in the middle of a migration, leaves nothing locked and nothing half
/// done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_may_be_killed_at_any_moment_and_run_again() {
    let database = server!().empty_database();
    let other = database.connect_as_superuser().await;
    let waiting = |pattern: &str| {
        format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'notary db'
                 AND wait_event_type = 'Lock' AND query LIKE '{pattern}'")
    };
    // First it waits for the lock of another run; then, with the lock, for a schema of the same name that is not committed.
    for (obstacle, waits_in) in [
        ("BEGIN; SELECT pg_advisory_xact_lock(1852798049, 2)", "%advisory%"),
        ("BEGIN; CREATE SCHEMA notary", "BEGIN;%"),
    ] {
        other.batch_execute(obstacle).await.expect("an obstacle");
        let mut run: Child = apply(&database).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let is_waiting = async || (database.sql(&waiting(waits_in)) == "1").then_some(());
        until("it waits", Duration::from_secs(20), is_waiting).await;
        run.kill().expect("it runs");
        run.wait().expect("it was killed");
        other.batch_execute("ROLLBACK").await.expect("the obstacle goes");
    }
    // The server does not notice the death of who waits for a lock: it may go on with what it was told, and finish.
    let runs =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'notary db'";
    until("both have ended", Duration::from_secs(60), async || (database.sql(runs) == "0").then_some(())).await;
    let whole = "SELECT (to_regclass('notary.states') IS NULL) = (to_regclass('notary.transactions') IS NULL)";
    assert_eq!(database.sql(whole), "t", "nothing is half done");

    let output = apply(&database).output().expect("it starts");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(check(&database).0, Some(0));
}

/// The whole way: a worker process on a database that several share.
#[test]
fn a_worker_process_notarises_on_a_shared_database_and_a_second_of_its_name_does_not_start() {
    let database = server!().database();
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "test").expect("it can be written");
    let url = format!("store.url={}", database.url(&database.worker));
    let password = format!("store.password=file:{}", secret.path().display());
    let network = worker::Network::init(&["store.kind=postgres", &url, &password]);
    let config = network.config();
    let config = config.to_str().expect("UTF-8");
    let running = network.start();

    let submitted = worker::run(&["submit", "--config", config, "--count", "20"]);
    assert!(submitted.status.success(), "{}", text(&submitted));
    assert_ne!(database.sql("SELECT count(*) FROM notary.transactions WHERE outcome = 0"), "0");

    let second = worker::run(&["run", "--config", config, "--set", "broker.listen=127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(3), "{}", text(&second));
    assert!(text(&second).contains("in use by notary"), "{}", text(&second));
    drop(running);
}
