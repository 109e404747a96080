//! What becomes of requests while the database, or the way to it, fails (FAULTS section 5).

use std::sync::{Arc, Mutex};

use notary_worker::domain::verdict::Rejection;
use notary_worker::domain::{TimeWindow, X500Name};
use notary_worker::sql::postgres::Place;
use services::postgres::signal;
use suite::{Random, changed, conflict, serial_order, within};
use zeroize::Zeroizing;

use super::*;

/// Writers, each with a store of its own, batches over few states; every batch is insisted on. Returns what each transaction was
/// told, and how many attempts failed meanwhile.
struct Load(Vec<tokio::task::JoinHandle<(Told, usize)>>);

type Told = Vec<(CheckedRequest, Verdict)>;

impl Load {
    async fn start(database: &Database, writers: u64, batches: u64) -> Self {
        let mut tasks = Vec::new();
        for writer in 0..writers {
            let store = open_with(Options { worker: party(&format!("Worker {writer}")), ..options(database) }).await;
            tasks.push(tokio::spawn(async move {
                // Two writers each ask the same, so that repeats meet first attempts.
                let (mut random, mut told, mut failed) = (Random::over_states(100, writer / 2), Vec::new(), 0);
                for _ in 0..batches {
                    let batch: Vec<CheckedRequest> = (0..=random.below(5)).map(|_| random.request()).collect();
                    let (verdicts, errors) = insist(&store, &batch.iter().collect::<Vec<_>>()).await;
                    failed += errors.len();
                    told.extend(batch.into_iter().zip(verdicts));
                }
                (told, failed)
            }));
        }
        Self(tasks)
    }

    fn is_finished(&self) -> bool {
        self.0.iter().all(tokio::task::JoinHandle::is_finished)
    }

    /// Waits for all; one verdict for each transaction, an order that explains them, and the database says the same afterwards.
    /// Tells how many attempts failed.
    async fn judge(self, database: &Database) -> usize {
        let mut verdicts = std::collections::BTreeMap::new();
        let mut failed = 0;
        for task in self.0 {
            let (told, failed_here) = task.await.expect("no panic");
            failed += failed_here;
            for (request, verdict) in told {
                let first = verdicts.entry(request.tx_id).or_insert_with(|| (request, verdict.clone()));
                assert_eq!(first.1, verdict, "one transaction, one verdict, whoever asks");
            }
        }
        assert_eq!(serial_order(&verdicts).len(), verdicts.len());
        let store = open(database).await;
        for (request, verdict) in verdicts.values() {
            assert_eq!(ask(&store, &[request]).await, Ok(vec![verdict.clone()]), "it is on record");
        }
        let consumed: usize = verdicts
            .values()
            .filter(|(_, verdict)| matches!(verdict, Verdict::Committed(_)))
            .map(|(request, _)| request.inputs.len())
            .sum();
        assert_eq!(database.sql("SELECT count(*) FROM notary.states"), consumed.to_string(), "nothing else was kept");
        failed
    }
}

/// F12, F13: killed without a chance, then stopped hard, under load; started again each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_and_started_again_under_load_costs_no_verdict() {
    let mut server = own_server!();
    let database = server.database();
    let load = Load::start(&database, 4, 150).await;
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(300)).await; // Load, not synchronisation: any moment is as good.
        tokio::task::block_in_place(|| {
            if round % 2 == 0 {
                server.kill()
            } else {
                server.stop_immediately()
            }
            server.start_again();
        });
    }
    assert!(load.judge(&database).await > 0, "it was under load");
}

/// Server processes ended and statements cancelled at random in the middle of batches: between begin and look, in the insert.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_ended_in_the_middle_of_batches_cost_no_verdict() {
    let server = own_server!("commit_delay=3000", "commit_siblings=0");
    let database = server.database();
    let superuser = database.connect_as_superuser().await;
    let load = Load::start(&database, 4, 150).await;
    let mut ended = 0;
    while !load.is_finished() {
        let how = ["pg_terminate_backend", "pg_cancel_backend"][ended % 2];
        let sql = format!(
            "SELECT {how}(pid) FROM pg_stat_activity
             WHERE usename = '{}' AND (query = 'COMMIT' AND state = 'active' OR query ~ 'INSERT INTO notary|advisory_xact')
             ORDER BY random() LIMIT 1",
            database.worker
        );
        ended += superuser.query(&sql, &[]).await.expect("a superuser may").len();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    let failed = load.judge(&database).await;
    println!("{ended} statements or sessions ended, {failed} attempts failed");
    assert!(failed > 0, "batches were hit");
}

/// A connection was cut with its commit sent, and the server's process has not finished. The repeat waits for it and takes its
/// decision, or, if it comes to nothing, decides itself. So it is with and without a look at what is on record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_waits_for_the_process_of_a_lost_connection_and_takes_its_decision() {
    let database = server!().database();
    let store = Arc::new(open(&database).await);
    let window = TimeWindow::Until(at(50));
    for (n, references, end) in [
        (1, vec![], "COMMIT"),
        (2, vec![state(90)], "COMMIT"),
        (3, vec![], "ROLLBACK"),
        (4, vec![state(90)], "ROLLBACK"),
    ] {
        let request = within(spend(n, &[state(n)], &references), window);
        let old = database.connect_as_superuser().await;
        // As another worker whose clock is fast would have refused it.
        let id = hex::encode(request.tx_id.to_key());
        let refused = format!(
            "BEGIN; INSERT INTO notary.transactions
                 (decided_s, decided_ns, window_until_s, window_until_ns, requester, worker, inputs, reference_inputs,
                  platform_version, outcome, id, signature)
             VALUES ({}, 7, {}, 0, 1, 1, 1, {}, 13, 2, '\\x{id}', '')",
            at(99).seconds(),
            at(50).seconds(),
            references.len()
        );
        old.batch_execute(&refused).await.expect("the superuser may");

        let (asked, repeat) = (Arc::clone(&store), request.clone());
        let answer = tokio::spawn(async move { ask(&asked, &[&repeat]).await });
        let waiting = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event = 'transactionid'",
            database.worker
        );
        until("it waits", Duration::from_secs(4), async || (database.sql(&waiting) == "1").then_some(())).await;
        old.batch_execute(end).await.expect("it ends");

        let now = notary_worker::domain::Timestamp::new(at(99).seconds(), 7).expect("in range");
        let expected = match end {
            "COMMIT" => Verdict::Rejected(Rejection::TimeWindowInvalid { now, window }),
            _ => committed(&request),
        };
        assert_eq!(answer.await.expect("no panic"), Ok(vec![expected]), "{n}");
    }
}

/// F14, GL1, GL2, CF3: no standby, no answer, not even one that was given before; an asynchronous standby, no answer either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_that_the_synchronous_standby_does_not_have() {
    let server = own_server!();
    let database = server.database();
    let Some(mut standby) = or_skip("PostgreSQL", Server::standby(&server, "s1")) else { return };
    let set_names = |names: &str| {
        database.sql(&format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"));
        database.sql("SELECT pg_reload_conf()");
    };
    until("the standby follows", Duration::from_secs(20), async || {
        (database.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == "1").then_some(())
    })
    .await;
    let asynchronous = refusal(options(&database)).await;
    assert!(
        asynchronous.contains("synchronous_standby_names") && asynchronous.contains("asynchronously"),
        "{asynchronous}"
    );

    set_names("ANY 1 (s1)");
    // The standby stands first: the worker passes it by, as it takes no writes.
    let hosts = format!(
        "postgresql://{}@127.0.0.1:{},127.0.0.1:{}/{}",
        database.worker, standby.port, server.port, database.name
    );
    let place = Place::parse(&hosts, None).expect("a place");
    let short = Options { place, deadline: Duration::from_secs(1), ..options(&database) };
    let store = until("the setting is seen", Duration::from_secs(10), async || {
        Postgres::open(short.clone(), &Handle::current()).await.ok().map(Arc::new)
    })
    .await;
    let (before, during) = (spend(1, &[state(1)], &[]), spend(2, &[state(2)], &[]));
    assert_eq!(ask(&store, &[&before]).await, Ok(vec![committed(&before)]));

    tokio::task::block_in_place(|| standby.stop());

    let cut = ask(&store, &[&during]).await;
    assert!(matches!(cut, Err(CommitError::OutcomeUnknown(_))), "{cut:?}");
    let id = hex::encode(during.tx_id.to_key());
    let visible = format!("SELECT count(*) FROM notary.transactions WHERE id = '\\x{id}'");
    until("the cancelled commit can be seen", Duration::from_secs(10), async || {
        (database.sql(&visible) == "1").then_some(())
    })
    .await;
    for request in [&during, &before] {
        let repeated = ask(&store, &[request]).await;
        assert!(repeated.is_err(), "it is only here, or was only read: {repeated:?}");
    }
    until("the probe tells", Duration::from_secs(5), async || store.probe().await.err()).await;

    // An administrator ends the wait: the server says yes, and warns that it did not wait.
    let (asked, warned) = (Arc::clone(&store), spend(3, &[state(3)], &[]));
    let answer = tokio::spawn(async move { ask(&asked, &[&warned]).await });
    let give_in = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    until("it waits", Duration::from_secs(5), async || (database.sql(give_in) != "0").then_some(())).await;
    let answer = answer.await.expect("no panic");
    assert!(matches!(&answer, Err(CommitError::OutcomeUnknown(_))), "{answer:?}");

    tokio::task::block_in_place(|| standby.start_again());

    assert_eq!(insist(&store, &[&during, &before]).await.0, [committed(&during), committed(&before)]);
    until("the probe is content", Duration::from_secs(10), async || store.probe().await.ok()).await;
    assert_eq!(standby.sql(&database.name, &visible), "1", "what was answered is on the standby");

    // Somebody makes the standby asynchronous under load.
    set_names("");
    let probe = until("the probe tells", Duration::from_secs(5), async || store.probe().await.err()).await;
    assert!(probe.contains("synchronous_standby_names"), "{probe}");
    let stopped = ask(&store, &[&before]).await;
    assert!(matches!(&stopped, Err(CommitError::Unavailable(why)) if why.contains("asynchronously")), "{stopped:?}");
    set_names("ANY 1 (s1)");
    until("the probe is content", Duration::from_secs(10), async || store.probe().await.ok()).await;
    assert_eq!(ask(&store, &[&before]).await, Ok(vec![committed(&before)]));
}

/// F16: a server that says nothing at all. The worker knows within its deadline, the probe within 5 s, and both heal by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_given_up_at_the_deadline() {
    let server = own_server!();
    let database = server.database();
    let store = open_with(Options { deadline: Duration::from_secs(1), ..options(&database) }).await;
    let (one, two) = (spend(1, &[state(1)], &[]), spend(2, &[state(2)], &[]));
    assert_eq!(ask(&store, &[&one]).await, Ok(vec![committed(&one)]));
    let mut processes: Vec<u32> = database
        .sql("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        .lines()
        .map(|pid| pid.parse().expect("a pid"))
        .collect();
    processes.insert(0, server.postmaster().expect("it runs"));
    processes.iter().for_each(|pid| signal(*pid, "STOP"));

    let begun = Instant::now();
    let silent = ask(&store, &[&two]).await;
    assert!(silent.is_err() && begun.elapsed() < Duration::from_secs(4), "{silent:?} after {:?}", begun.elapsed());
    let told = until("the probe tells", Duration::from_secs(5), async || store.probe().await.err()).await;
    assert!(told.contains("within"), "{told}");

    processes.iter().for_each(|pid| signal(*pid, "CONT"));
    assert_eq!(insist(&store, &[&two, &one]).await.0, [committed(&two), committed(&one)]);
    until("the probe is content", Duration::from_secs(15), async || store.probe().await.ok()).await;
}

/// F18: no connection slot is left. The error says so, nothing leaks, and it heals.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_slots_used_up_are_a_clear_error_and_heal() {
    let database = server!().database();
    let store = open_with(Options { deadline: Duration::from_secs(1), ..options(&database) }).await;
    let request = spend(1, &[state(1)], &[]);
    let role = &database.worker;
    database.sql(&format!("ALTER ROLE {role} CONNECTION LIMIT 0"));
    database.sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"));

    // Until the last of its sessions has ended, an error may tell of that instead.
    let full = until("no connection is left", Duration::from_secs(60), async || {
        ask(&store, &[&request]).await.err().filter(|error| error.to_string().contains("53300"))
    });
    assert!(matches!(full.await, CommitError::Unavailable(_)));

    database.sql(&format!("ALTER ROLE {role} CONNECTION LIMIT 8"));
    assert_eq!(insist(&store, &[&request]).await.0, [committed(&request)]);
    let sessions = database.sql(&format!("SELECT count(*) <= 5 FROM pg_stat_activity WHERE usename = '{role}'"));
    assert_eq!(sessions, "t");
}

/// F22: a changed password is read anew, and the old one is not tried so often that it would lock the user out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_is_read_again_without_hammering() {
    let server = own_server!();
    let database = server.database();
    let secret = Arc::new(Mutex::new("test".to_owned()));
    let told = Arc::clone(&secret);
    let password: notary_worker::sql::postgres::Password =
        Arc::new(move || Ok(Zeroizing::new(told.lock().expect("no panic").clone())));
    let store = open_with(Options { password: Some(password), ..options(&database) }).await;
    let request = spend(1, &[state(1)], &[]);
    database.sql(&format!("ALTER ROLE {} PASSWORD 'new'", database.worker));
    database
        .sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}'", database.worker));

    let refused = until("it is refused", Duration::from_secs(20), async || {
        ask(&store, &[&request]).await.err().filter(|error| error.to_string().contains("28P01"))
    })
    .await;
    assert!(matches!(refused, CommitError::Unavailable(_)), "{refused}");
    let tries = server.log().matches("password authentication failed").count();
    assert!(tries <= 6, "{tries} tries in some seconds");

    *secret.lock().expect("no panic") = "new".into();
    assert_eq!(insist(&store, &[&request]).await.0, [committed(&request)]);
}

/// F21: the same 500 inputs in opposite orders, a hundred times: one wins, the other has one definite conflict, nobody deadlocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opposite_orders_of_inputs_never_deadlock() {
    let server = own_server!();
    let database = server.database();
    let stores = [Arc::new(open(&database).await), Arc::new(open(&database).await)];
    for pair in 0..100 {
        let inputs: Vec<StateRef> = (0..500).map(|n| StateRef { index: n, ..state(pair) }).collect();
        let reversed: Vec<StateRef> = inputs.iter().rev().copied().collect();
        let rivals = [spend(2 * pair, &inputs, &[]), spend(2 * pair + 1, &reversed, &[])];
        let answers = stores.iter().zip(&rivals).map(|(store, request)| {
            let (store, request) = (Arc::clone(store), request.clone());
            tokio::spawn(async move { ask(&store, &[&request]).await.expect("a definite answer").remove(0) })
        });
        let mut committed = 0;
        for answer in answers.collect::<Vec<_>>() {
            match answer.await.expect("no panic") {
                Verdict::Committed(_) => committed += 1,
                Verdict::Rejected(Rejection::Conflict(conflicts)) => assert_eq!(conflicts.len(), 500),
                Verdict::Rejected(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(committed, 1, "pair {pair}");
    }
    assert!(!server.log().contains("deadlock"), "{}", server.log());
}

/// What the database cannot digest costs its neighbours nothing: the batch is refused whole, its parts are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_indigestible_request_is_refused_and_its_neighbours_are_not() {
    let database = server!().database();
    let store = open(&database).await;
    let good = spend(1, &[state(1)], &[]);
    let name = X500Name { organisation: "Nul\0".into(), ..party("Nul") };
    let bad = changed(&spend(2, &[state(2)], &[]), |parts| parts.requester = name.clone());

    for batch in [vec![&good, &bad], vec![&bad]] {
        let refused = ask(&store, &batch).await;
        assert!(matches!(&refused, Err(CommitError::Refused(why)) if why.contains("22021")), "{refused:?}");
    }
    assert_eq!(database.sql("SELECT count(*) FROM notary.transactions"), "0");
    assert_eq!(ask(&store, &[&good]).await, Ok(vec![committed(&good)]));
}

/// A damaged record refuses the requests that need it, and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_never_taken_for_a_decision() {
    let database = server!().database();
    let store = open(&database).await;
    let (first, rival, other) = (spend(1, &[state(1)], &[]), spend(2, &[state(1)], &[]), spend(3, &[state(3)], &[]));
    ask(&store, &[&first, &rival]).await.expect("decided");
    database.sql("UPDATE notary.transactions SET outcome = 9 WHERE outcome = 0");
    database.sql("DELETE FROM notary.conflicts");

    for damaged in [&first, &rival] {
        let refused = ask(&store, &[damaged, &other]).await;
        assert!(matches!(&refused, Err(CommitError::Refused(why)) if why.contains("damaged")), "{refused:?}");
    }
    assert_eq!(ask(&store, &[&other]).await, Ok(vec![committed(&other)]));
}

/// What a batch was told to be unspent, because it refers to it or because a rival was told so, nobody consumes between its look and
/// its commit. A batch that was told nothing of the kind keeps nobody waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_overtakes_a_batch_that_relies_on_what_is_unspent() {
    let database = server!().database();
    // Longer than the test looks on: what waits must not be given up meanwhile.
    let patient = || Options { deadline: Duration::from_secs(120), ..options(&database) };
    let stores = [Arc::new(open_with(patient()).await), Arc::new(open_with(patient()).await)];
    let commit = |store: &Arc<Postgres>, batch: &[&CheckedRequest]| {
        let (store, batch) = (Arc::clone(store), batch.iter().copied().cloned().collect::<Vec<_>>());
        tokio::spawn(async move { ask(&store, &batch.iter().collect::<Vec<_>>()).await })
    };
    let role = &database.worker;
    let waiting = |event: &str| {
        format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}' AND wait_event = '{event}'")
    };
    for (n, relies) in [(0, true), (10, true), (20, false)] {
        let (mine, wanted) = (state(n), state(n + 1));
        let first = spend(n, &[mine], if n == 0 { std::slice::from_ref(&wanted) } else { &[] });
        let rival = spend(n + 1, &[mine, wanted], &[]);
        let batch: Vec<&CheckedRequest> = if n == 10 { vec![&first, &rival] } else { vec![&first] };
        let consumer = spend(n + 2, &[wanted], &[]);
        // Somebody's unfinished row holds the batch up when it writes.
        let obstacle = database.connect_as_superuser().await;
        let id = hex::encode(first.tx_id.to_key());
        let row = format!("INSERT INTO notary.transactions VALUES (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, '\\x{id}', '')");
        obstacle.batch_execute(&format!("BEGIN; {row}")).await.expect("the superuser may");
        let batch = commit(&stores[0], &batch);
        let limit = Duration::from_secs(60);
        until("it waits", limit, async || (database.sql(&waiting("transactionid")) == "1").then_some(())).await;

        let consumer = commit(&stores[1], &[&consumer]);

        if relies {
            // The stores' probes, which commit as well, may wait beside it.
            until("it waits too", limit, async || (database.sql(&waiting("advisory")) != "0").then_some(())).await;
            assert!(!consumer.is_finished());
        } else {
            until("it does not wait", limit, async || consumer.is_finished().then_some(())).await;
        }
        obstacle.batch_execute("ROLLBACK").await.expect("it gives up");
        let verdicts = batch.await.expect("no panic").expect("a definite answer");
        assert_eq!(verdicts[0], committed(&first));
        if let Some(verdict) = verdicts.get(1) {
            assert_eq!(*verdict, conflict(&[(mine, &first, notary_worker::domain::notary_error::StateUsage::Input)]));
        }
        assert!(matches!(consumer.await.expect("no panic").expect("a definite answer")[0], Verdict::Committed(_)));
    }
}
