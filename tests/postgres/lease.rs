//! The lease on a worker's name (F11, A13).

use super::*;

/// F11, A13: a name is one worker's; whoever comes second is told who has it, and a successor gets it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_name_in_use_is_refused_until_its_holder_is_gone() {
    let database = server!().database();
    let leased = || Options { lease: Some(Duration::from_millis(300)), ..options(&database) };
    let first = Postgres::open(leased(), &Handle::current()).await.expect("the first");

    let error = refusal(leased()).await;
    assert!(error.contains("in use by notary O=Worker") && error.contains("127.0.0.1"), "{error}");
    let other = Options { worker: party("Another worker"), ..leased() };
    Postgres::open(other, &Handle::current()).await.expect("another name");

    drop(first);
    let patient = Options { lease: Some(Duration::from_secs(15)), ..options(&database) };
    Postgres::open(patient, &Handle::current()).await.expect("the successor");
}

/// A lost lease is taken again at once, or, if somebody else has it by then, when he is gone; until then the probe tells who.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_lease_is_told_and_taken_again() {
    let database = server!().database();
    let leased = Options { lease: Some(Duration::ZERO), ..options(&database) };
    let store = Postgres::open(leased, &Handle::current()).await.expect("the store opens");
    store.probe().await.expect("all is well");
    let holder = |what: &str| {
        database.sql(&format!(
            "SELECT {what} FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ))
    };
    let (pid, number) = (holder("pid"), holder("(classid::bigint << 32) | objid::bigint"));
    let thief = database.connect_as_superuser().await;
    let steal = format!("SELECT pg_terminate_backend({pid}); SELECT pg_advisory_lock({number})");

    thief.batch_execute(&steal).await.expect("the thief is quick");

    let limit = Duration::from_secs(10);
    if holder("pid") != pid {
        let problem = until("the probe tells", limit, async || store.probe().await.err()).await;
        assert!(problem.contains("worker's name is in use"), "{problem}");
    }
    drop(thief);
    until("the probe is content again", limit, async || store.probe().await.ok()).await;
    let again = until("the lease is back", limit, async || Some(holder("pid")).filter(|pid| !pid.is_empty())).await;
    assert_ne!(again, pid);
}

/// The server notices a lost machine within 15 s: the lease's session asks for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_session_asks_the_server_to_notice_a_dead_worker_within_15_seconds() {
    let database = server!().database();
    let text = include_str!("../../sql/postgres/session.sql");
    let number = |name: &str| -> u64 {
        let rest = text.split(&format!("SET {name} = ")).nth(1).expect(name);
        rest.split(';').next().expect(name).parse().expect(name)
    };
    let (idle, interval, count) =
        (number("tcp_keepalives_idle"), number("tcp_keepalives_interval"), number("tcp_keepalives_count"));
    assert!(idle + interval * count < 15 && number("tcp_user_timeout") < 15_000);
    database.sql_as_worker(text).expect("a worker may set all of it");
}
