//! What a database must be like before a worker serves from it: rights, settings, tables.

use notary_worker::sql::postgres::{Owner, Place};
use notary_worker::tls::TlsFiles;

use super::*;

/// DB6: the database itself refuses to let a worker take anything back.
#[test]
fn a_worker_can_read_and_add_and_nothing_else() {
    let database = server!().database();
    for sql in [
        "UPDATE notary.states SET consumer = '\\x00'",
        "DELETE FROM notary.states",
        "DELETE FROM notary.transactions",
        "TRUNCATE notary.states",
        "TRUNCATE notary.conflicts",
        "DROP TABLE notary.states",
        "ALTER TABLE notary.states DROP CONSTRAINT states_pkey",
        "ALTER TABLE notary.states DISABLE TRIGGER ALL",
        "CREATE TRIGGER forget BEFORE INSERT ON notary.states EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "INSERT INTO notary.states VALUES ('\\x00', '\\x00') ON CONFLICT (key) DO UPDATE SET consumer = '\\x01'",
        "SELECT * FROM notary.states FOR UPDATE",
        "INSERT INTO notary.schema_versions VALUES (2, 1, 'mine')",
        "CREATE TABLE mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "SET session_replication_role = replica",
    ] {
        let error = database.sql_as_worker(sql).expect_err(sql);
        let refused = ["permission denied", "must be owner", "no schema has been selected"];
        assert!(refused.iter().any(|why| error.contains(why)), "{sql}: {error}");
    }
    database.sql_as_worker("INSERT INTO notary.states VALUES ('\\x00', '\\x00')").expect("adding is what it is for");
    assert_eq!(database.sql_as_worker("SELECT count(*) FROM notary.states").expect("reading too"), "1");
}

/// F23, DB6: one right too many, or too few, and the worker does not start; it says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_other_rights_is_refused_and_the_right_is_named() {
    let server = server!();
    let database = server.database();
    let role = &database.worker;
    for (grant, revoke, named) in [
        ("GRANT DELETE ON notary.states TO", "REVOKE DELETE ON notary.states FROM", "DELETE on notary.states"),
        (
            "GRANT UPDATE (consumer) ON notary.states TO",
            "REVOKE UPDATE (consumer) ON notary.states FROM",
            "UPDATE on notary.states",
        ),
        (
            "GRANT TRUNCATE ON notary.transactions TO",
            "REVOKE TRUNCATE ON notary.transactions FROM",
            "TRUNCATE on notary.transactions",
        ),
        (
            "GRANT TRIGGER ON notary.conflicts TO",
            "REVOKE TRIGGER ON notary.conflicts FROM",
            "TRIGGER on notary.conflicts",
        ),
        (
            "GRANT INSERT ON notary.schema_versions TO",
            "REVOKE INSERT ON notary.schema_versions FROM",
            "INSERT on notary.schema_versions",
        ),
        ("GRANT CREATE ON SCHEMA notary TO", "REVOKE CREATE ON SCHEMA notary FROM", "CREATE on schema notary"),
        ("GRANT CREATE ON SCHEMA public TO", "REVOKE CREATE ON SCHEMA public FROM", "CREATE on schema public"),
        ("GRANT pg_signal_backend TO", "REVOKE pg_signal_backend FROM", "membership in pg_signal_backend"),
        ("GRANT pg_write_all_data TO", "REVOKE pg_write_all_data FROM", "membership in pg_write_all_data"),
        ("GRANT keeper TO", "REVOKE keeper FROM", "ownership of the table notary.states"),
        ("REVOKE INSERT ON notary.names FROM", "GRANT INSERT ON notary.names TO", "too few: INSERT on notary.names"),
        (
            "REVOKE SELECT ON notary.conflicts FROM",
            "GRANT SELECT ON notary.conflicts TO",
            "too few: SELECT on notary.conflicts",
        ),
    ] {
        database.sql(&format!("{grant} {role}"));
        let error = refusal(options(&database)).await;
        assert!(error.contains(named), "{grant}: {error}");
        let error = refusal(Options { unsafe_for_tests: true, ..options(&database) }).await;
        assert!(error.contains(named), "not even for tests: {error}");
        database.sql(&format!("{revoke} {role}"));
        open(&database).await;
    }
    for (give, take, named) in [
        ("SUPERUSER", "NOSUPERUSER", "too many: SUPERUSER"),
        ("REPLICATION", "NOREPLICATION", "REPLICATION"),
        ("CREATEROLE", "NOCREATEROLE", "CREATEROLE"),
    ] {
        database.sql(&format!("ALTER ROLE {role} {give}"));
        assert!(refusal(options(&database)).await.contains(named), "{give}");
        database.sql(&format!("ALTER ROLE {role} {take}"));
    }
    database.sql(&format!("GRANT TEMPORARY ON DATABASE {} TO {role}", database.name));
    assert!(refusal(options(&database)).await.contains("TEMPORARY on the database"));
}

/// FAULTS section 3, BG2, GL1: overrides by role or database are invisible in the server's file, and found all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn synchronous_commit_that_confirms_too_early_is_refused_however_it_was_set() {
    let database = server!().database();
    let (role, name) = (&database.worker, &database.name);
    for value in ["off", "local", "remote_write"] {
        for place in [format!("ROLE {role}"), format!("DATABASE {name}"), format!("ROLE {role} IN DATABASE {name}")] {
            database.sql(&format!("ALTER {place} SET synchronous_commit = {value}"));
            let error = refusal(options(&database)).await;
            assert!(error.contains("synchronous_commit") && error.contains(value), "{place}: {error}");
            let store =
                Postgres::open(Options { unsafe_for_tests: true, ..options(&database) }, &Handle::current()).await;
            assert!(store.is_ok(), "for tests it may");
            database.sql(&format!("ALTER {place} RESET synchronous_commit"));
        }
    }
    database.sql(&format!("ALTER ROLE {role} SET synchronous_commit = remote_apply"));
    open(&database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_loses_data_with_its_power_is_refused() {
    for (setting, named) in [
        ("fsync=off", "fsync"),
        ("full_page_writes=off", "full_page_writes"),
        ("data_sync_retry=on", "data_sync_retry"),
    ] {
        let server = own_server!(setting);
        let database = server.database();
        let error = refusal(options(&database)).await;
        assert!(error.contains(&format!("postgres: {named}")), "{setting}: {error}");
    }
}

/// DB8: whatever was changed about the tables is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_tables_are_refused() {
    let server = server!();
    for (change, named) in [
        ("ALTER TABLE notary.transactions DROP COLUMN decided_ns CASCADE", "transactions.decided_ns: missing"),
        ("ALTER TABLE notary.states DROP CONSTRAINT states_pkey", "states key"),
        (
            "ALTER TABLE notary.transactions ALTER COLUMN platform_version TYPE bigint",
            "transactions.platform_version: bigint",
        ),
        ("ALTER TABLE notary.states ADD COLUMN wish text NOT NULL", "states.wish"),
        ("ALTER TABLE notary.states ENABLE ROW LEVEL SECURITY", "row security"),
        ("ALTER TABLE notary.states SET UNLOGGED", "persistence"),
        ("CREATE RULE forget AS ON INSERT TO notary.states DO INSTEAD NOTHING", "states rule"),
        (
            "CREATE TRIGGER t BEFORE INSERT ON notary.states FOR EACH ROW EXECUTE FUNCTION tsvector_update_trigger()",
            "states trigger",
        ),
        ("DROP TABLE notary.conflicts CASCADE", "conflicts key"),
        ("INSERT INTO notary.schema_versions VALUES (2, 2, 'for newer programs only')", "schema version"),
        ("DELETE FROM notary.schema_versions", "schema version"),
    ] {
        let database = server.database();
        database.sql(change);
        let error = refusal(options(&database)).await;
        assert!(error.contains(named), "{change}: {error}");
    }
    let database = server.empty_database();
    database.sql(&format!("CREATE ROLE {} LOGIN PASSWORD 'test'", database.worker));
    assert!(refusal(options(&database)).await.contains("notary db apply"));
}

/// Workers of version N and N-1 share a schema: what a migration adds does not disturb those who do not know it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_schema_that_only_adds_is_served_from() {
    let database = server!().database();
    database.sql("ALTER TABLE notary.transactions ADD COLUMN later integer");
    database.sql("CREATE TABLE notary.later (id integer PRIMARY KEY)");
    database.sql("INSERT INTO notary.schema_versions VALUES (2, 1, 'adds')");
    let request = spend(1, &[state(1)], &[]);
    assert_eq!(ask(&open(&database).await, &[&request]).await, Ok(vec![committed(&request)]));
}

/// DB1, DB3, DB4: what Corda's tools look for, in Corda's text forms, both ways.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_shown_in_cordas_text_forms_and_found_by_them() {
    let database = server!().database();
    let store = open(&database).await;
    let indexes = [0u32, 9, 10, 255, 65_535, StateRef::INDEX_MAX];
    let mut states: Vec<StateRef> = indexes.iter().map(|index| StateRef { index: *index, ..state(1) }).collect();
    states.extend(
        HashAlgorithm::ALL.map(|algorithm| StateRef { tx_id: TxId(SecureHash::all_ones(algorithm)), index: 26 }),
    );
    let (winner, rival) = (spend(1, &states, &[]), spend(2, &states[..1], &[]));
    ask(&store, &[&winner]).await.expect("commits");
    ask(&store, &[&rival]).await.expect("is refused");

    for state in &states {
        let text = format!("{}:{:x}", state.tx_id, state.index);
        let by_text =
            format!("SELECT consuming_transaction_id FROM notary.notary_committed_states WHERE state_ref = '{text}'");
        assert_eq!(database.sql(&by_text), winner.tx_id.to_string(), "{text}");
        let key = database.sql(&format!("SELECT encode(notary.state_key('{text}'), 'hex')"));
        assert_eq!(key, hex::encode(state.to_key()), "{text}");
    }
    for nonsense in ["", "AB", "AB:", "AB:g", "AB:-1", "ABC:1", "sha-384:AB:1"] {
        assert_eq!(database.sql(&format!("SELECT notary.state_key('{nonsense}') IS NULL")), "t", "{nonsense}");
    }
    let all = |view: &str, columns: &str| database.sql(&format!("SELECT {columns} FROM notary.{view}"));
    assert_eq!(all("notary_committed_transactions", "transaction_id"), winner.tx_id.to_string());
    let attempt = format!("{}:{:x}|{}|2020-09-13 12:26:40+00", states[0].tx_id, states[0].index, rival.tx_id);
    assert_eq!(all("notary_double_spends", "state_ref, consuming_transaction_id, request_timestamp"), attempt);
    let logged = all("notary_request_log", "consuming_transaction_id, requesting_party_name, worker_node_x500_name");
    let line = |id: TxId| format!("{id}|{}|{}", party("Alice"), party("Worker"));
    assert!(logged.contains(&line(winner.tx_id)) && logged.contains(&line(rival.tx_id)), "{logged}");
}

/// With TLS the server's name and authority are verified, and nothing is said in clear.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_believed_only_with_a_certificate_of_the_configured_authority() {
    let certificate = |name: &str| rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let (server_certificate, stranger) = (certificate("127.0.0.1"), certificate("127.0.0.1"));
    let files = [
        ("server.crt", server_certificate.cert.pem()),
        ("server.key", server_certificate.signing_key.serialize_pem()),
        (
            "pg_hba.conf",
            "hostnossl all postgres 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n".into(),
        ),
    ];
    let files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (*name, content.as_str())).collect();
    let Some(server) = or_skip("PostgreSQL", Server::start_with_files(&["ssl=on"], &files)) else { return };
    let database = server.empty_database();
    let folder = tempfile::tempdir().expect("a folder");
    let place = |authority: &rcgen::Certificate, host: &str, user: &str| {
        let file = folder.path().join(format!("{user}-{host}.pem"));
        std::fs::write(&file, authority.pem()).expect("it can be written");
        let tls = TlsFiles { authorities: file, identity: None };
        let url = format!("postgresql://{user}@{host}:{}/{}", database.port, database.name);
        Place::parse(&url, Some(&tls)).expect("a place")
    };
    let good = &server_certificate.cert;
    let owner = Owner { place: place(good, "127.0.0.1", "keeper"), ..database.owner() };
    notary_worker::sql::postgres::apply(&owner, &database.role(), |_| {}).expect("the owner may, with TLS");

    let worker = |place: Place| Options { place, ..options(&database) };
    let store = open_with(worker(place(good, "127.0.0.1", &database.worker))).await;
    let request = spend(1, &[state(1)], &[]);
    assert_eq!(ask(&store, &[&request]).await, Ok(vec![committed(&request)]));
    let sessions =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename <> 'postgres'";
    assert_eq!(database.sql(sessions), "t");

    let by_stranger = refusal(worker(place(&stranger.cert, "127.0.0.1", &database.worker))).await;
    assert!(by_stranger.contains("certificate"), "{by_stranger}");
    let other_name = refusal(worker(place(good, "localhost", &database.worker))).await;
    assert!(other_name.contains("certificate"), "{other_name}");
    let in_clear = refusal(options(&database)).await;
    assert!(in_clear.contains("28000"), "{in_clear}");
}
