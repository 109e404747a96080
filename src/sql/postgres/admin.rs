//! `notary db`: what the database's owner does, and what anybody may ask. Each call blocks, with deadlines, and its clients live on
//! threads of their own, so that it may be made from anywhere.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use postgres::{Client, Config, Error, NoTls};
use zeroize::Zeroizing;

use super::Options;
use super::examine::{Examined, Judged, SCHEMA_VERSION};
use super::place::Place;
use super::session::set_up;
use super::sqlstate::describe;
use crate::ports::Finding;
use crate::ports::finding::Severity;

/// What was ever done to the schema, in order. A migration is never changed once released, only followed by another.
const MIGRATIONS: [(i32, &str, &str); SCHEMA_VERSION as usize] =
    [(1, "0001_records.sql", include_str!("../../../sql/postgres/0001_records.sql"))];

const GRANTS: &str = include_str!("../../../sql/postgres/grants.sql");

/// For one host to let us in, for one statement, and for another run that holds the lock; then somebody should look.
const PATIENCE: Duration = Duration::from_secs(60);
/// For one statement of a migration, which may have to read a large table.
const MIGRATION_PATIENCE: Duration = Duration::from_secs(3600);
/// For a whole run. The server keeps the limits of its statements; this one is for a server that freezes.
const RUN_PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// One run at a time; the lock ends with its connection, so a killed run leaves nothing locked. "nota" in ASCII, as for the gate.
const LOCK: &str = "SET lock_timeout = '60s'; SELECT pg_advisory_lock(1852798049, 2)";

/// The database's owner.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Where the database is, and who owns it.
    pub place: Place,
    /// The owner's password, if it has one.
    pub password: Option<Zeroizing<String>>,
}

/// The role that workers use.
#[derive(Clone, Debug)]
pub struct WorkerRole {
    /// Its name.
    pub name: String,
    /// Its password; none leaves an existing one as it is.
    pub password: Option<Zeroizing<String>>,
    /// Most connections of all workers together.
    pub connections_max: u32,
}

impl WorkerRole {
    /// Connections for ten workers: four each for commits, one for the lease, and some for those that start while others end.
    pub const CONNECTIONS_DEFAULT: u32 = 64;
}

/// Why it was not done. What was done before stays, and another run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No connection.
    #[error("{0}")]
    Unreachable(String),
    /// The server refused a step.
    #[error("{step}: {why}")]
    Refused {
        /// Which.
        step: String,
        /// What it said.
        why: String,
    },
}

/// The SQL that [`apply`] would run, as text for people and psql: after `owner`'s database was asked what it has, or from nothing.
///
/// # Errors
/// [`AdminError`] if an `owner` is given and cannot be asked.
pub fn plan(owner: Option<&Owner>, role: &str) -> Result<String, AdminError> {
    let (applied, database) = match owner {
        None => (0, None),
        Some(owner) => (enter(owner, |mut client| applied(&mut client))?, Some(owner.place.database())),
    };
    let mut text = String::new();
    for (_, name, sql) in MIGRATIONS.iter().filter(|(version, ..)| *version > applied) {
        text += &format!("-- {name}\nBEGIN;\n{sql}COMMIT;\n\n");
    }
    text += &format!("-- The role, if there is none of this name yet:\n-- {}\n\n", create_role(role, ATTRIBUTES, None));
    text += &filled_in(GRANTS, role, database);
    Ok(text)
}

/// Migrates the schema, makes the role if it is missing, and gives it its rights and no others. May be killed and run again at any
/// time. `tell` hears what is being done.
///
/// # Errors
/// [`AdminError`].
pub fn apply(owner: &Owner, role: &WorkerRole, tell: fn(&str)) -> Result<(), AdminError> {
    let (owner, role) = (owner.clone(), role.clone());
    within(RUN_PATIENCE, move || apply_all(&owner, &role, tell))
        .unwrap_or_else(|| Err(AdminError::Unreachable(format!("not done within {RUN_PATIENCE:?}"))))
}

fn apply_all(owner: &Owner, role: &WorkerRole, tell: fn(&str)) -> Result<(), AdminError> {
    let mut client = enter(owner, Ok)?;
    run(&mut client, "waiting for another run", LOCK, PATIENCE + PATIENCE)?;
    let applied = applied(&mut client).map_err(|error| refused("reading the schema's version", describe(&error)))?;
    for (version, name, sql) in MIGRATIONS.iter().filter(|(version, ..)| *version > applied) {
        tell(&format!("schema version {version}: {name}"));
        run(&mut client, name, &format!("BEGIN;\n{sql}\nCOMMIT"), MIGRATION_PATIENCE)?;
    }
    provide_role(&mut client, role, tell)?;
    let grants = filled_in(GRANTS, &role.name, Some(owner.place.database()));
    run(&mut client, "rights", &format!("BEGIN;\n{grants}\nCOMMIT"), PATIENCE)?;
    tell(&format!("schema version {SCHEMA_VERSION}; {} may read and add, nothing else", role.name));
    Ok(())
}

/// Looks a database over as a worker meets it: hosts, settings, versions, tables, rights. A fault is what a worker refuses to serve
/// from, or a host that nobody can reach.
pub fn examine(options: &Options) -> Vec<Finding> {
    let Options { place, password, deadline, unsafe_for_tests, .. } = options;
    let set_up = set_up(*deadline);
    let look = move |mut client: Client| {
        client.batch_execute(&set_up)?;
        Examined::ask(&mut client)
    };
    let password = password.as_ref().map(|fetch| fetch()).transpose().map_err(|why| format!("the password: {why}"));
    let looked = password.and_then(|password| {
        first_host(place, "notary db check", password.as_deref().map(String::as_str), *deadline, look)
    });
    let subject = format!("postgres: {place}");
    match looked {
        Ok((host, examined)) => {
            let reachable = Finding::good(subject, format!("{host} takes writes"));
            // What is only for tests is worth a warning then.
            let tolerated = |judged: Judged| match judged.is_fatal(false) && !judged.is_fatal(*unsafe_for_tests) {
                true => Finding { severity: Severity::Warning, ..judged.finding },
                false => judged.finding,
            };
            [reachable].into_iter().chain(examined.findings().into_iter().map(tolerated)).collect()
        }
        Err(why) => {
            vec![Finding::fault(subject, why, "check store.url, store.password, and that a server there takes writes")]
        }
    }
}

/// Enters as the owner, and does what is asked for at once.
fn enter<T: Send + 'static>(
    owner: &Owner,
    work: impl Fn(Client) -> Result<T, Error> + Clone + Send + 'static,
) -> Result<T, AdminError> {
    let password = owner.password.as_deref().map(String::as_str);
    let (_, done) = first_host(&owner.place, "notary db", password, PATIENCE, work).map_err(AdminError::Unreachable)?;
    Ok(done)
}

/// Connects to the first host that takes writes and works there, each host within `patience`. Tells also which it was, or what was
/// wrong with each.
fn first_host<T: Send + 'static>(
    place: &Place,
    application: &str,
    password: Option<&str>,
    patience: Duration,
    work: impl Fn(Client) -> Result<T, Error> + Clone + Send + 'static,
) -> Result<(String, T), String> {
    let mut problems = Vec::new();
    for (host, config) in place.hosts(application, password) {
        let mut config = Config::from(config);
        config.connect_timeout(patience);
        let (tls, work) = (place.tls().cloned(), work.clone());
        let visit = move || {
            let client = match tls {
                None => config.connect(NoTls),
                Some(tls) => config.connect(tls),
            };
            work(client?)
        };
        match within(patience, visit) {
            Some(Ok(done)) => return Ok((host, done)),
            Some(Err(error)) => problems.push(format!("{host}: {}", describe(&error))),
            None => problems.push(format!("{host}: no answer within {patience:?}")),
        }
    }
    Err(problems.join("; "))
}

/// What `work` comes to, unless it takes longer; then its thread is left behind. The blocking driver limits only how long a TCP
/// connection takes, and a proxy without a database behind it, or a frozen server, accepts one and says nothing.
fn within<T: Send + 'static>(patience: Duration, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (give, done) = mpsc::channel();
    thread::spawn(move || give.send(work()));
    done.recv_timeout(patience).ok()
}

fn refused(step: &str, why: impl Into<String>) -> AdminError {
    AdminError::Refused { step: step.to_owned(), why: why.into() }
}

/// Runs a step, each of its statements within `patience`: the server ends one that takes longer, so nothing goes on unseen.
fn run(client: &mut Client, step: &str, sql: &str, patience: Duration) -> Result<(), AdminError> {
    let limited = client.batch_execute(&format!("SET statement_timeout = {}", patience.as_millis()));
    limited.and_then(|()| client.batch_execute(sql)).map_err(|error| refused(step, describe(&error)))
}

/// The version of the schema; 0 for none.
fn applied(client: &mut Client) -> Result<i32, Error> {
    let exists = "SELECT to_regclass('notary.schema_versions') IS NOT NULL";
    if !client.query_typed_one(exists, &[])?.get::<_, bool>(0) {
        return Ok(0);
    }
    Ok(client.query_typed_one("SELECT coalesce(max(version), 0) FROM notary.schema_versions", &[])?.get(0))
}

/// The role as it is made here: able to log in, to nothing else.
fn provide_role(client: &mut Client, role: &WorkerRole, tell: fn(&str)) -> Result<(), AdminError> {
    let step = format!("role {}", role.name);
    let state = "SELECT rolname = current_user,
                        rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls,
                        rolcanlogin AND rolconnlimit = $2
                 FROM pg_roles WHERE rolname = $1";
    let limit = i32::try_from(role.connections_max).unwrap_or(i32::MAX);
    let found = client.query_opt(state, &[&role.name, &limit]);
    let found = found.map_err(|error| refused(&step, describe(&error)))?;
    let limit = format!("CONNECTION LIMIT {limit}");
    let alter = |attributes: &str| {
        format!("ALTER ROLE {} {attributes} {limit}{}", quoted(&role.name), password_clause(role.password.as_ref()))
    };
    let sql = match found.map(|row| (row.get(0), row.get(1), row.get(2))) {
        None => create_role(&role.name, &format!("{ATTRIBUTES} {limit}"), role.password.as_ref()),
        Some((true, ..)) => {
            return Err(refused(&step, "the owner cannot be the worker's role: it could take records back"));
        }
        // To take these away the owner has to be a superuser; to be sure that they are not there it has not.
        Some((_, true, _)) => alter(ATTRIBUTES),
        Some((.., true)) if role.password.is_none() => return Ok(()),
        Some(_) => alter("LOGIN"),
    };
    tell(&step);
    run(client, &step, &sql, PATIENCE)
}

/// What a worker's role is.
const ATTRIBUTES: &str = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS";

fn create_role(role: &str, attributes: &str, password: Option<&Zeroizing<String>>) -> String {
    format!("CREATE ROLE {} {attributes}{}", quoted(role), password_clause(password))
}

/// The server gets a verifier, never the password: what it logs of the statement is of little use to anybody.
fn password_clause(password: Option<&Zeroizing<String>>) -> String {
    let verifier = password.map(|password| postgres_protocol::password::scram_sha_256(password.as_bytes()));
    verifier.map_or_else(String::new, |verifier| format!(" PASSWORD '{verifier}'"))
}

/// An identifier in SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// psql's variables replaced; the database's, which psql knows, only if it is known here.
fn filled_in(sql: &str, role: &str, database: Option<&str>) -> String {
    let sql = sql.replace(":\"worker\"", &quoted(role));
    match database {
        Some(database) => sql.replace(":\"DBNAME\"", &quoted(database)),
        None => sql,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps_and_register_themselves() {
        for (n, (version, name, sql)) in (1..).zip(MIGRATIONS) {
            assert_eq!(version, n);
            assert!(name.starts_with(&format!("{n:04}_")), "{name}");
            assert!(sql.contains(&format!("VALUES ({n}, ")), "{name} adds its row to schema_versions");
        }
    }

    #[test]
    fn names_are_quoted_wherever_they_go() {
        let plan = plan(None, "no\"tary").expect("nobody is asked");
        assert!(plan.contains("TO \"no\"\"tary\";") && !plan.contains(":\"worker\""), "{plan}");
        assert!(plan.contains("ON DATABASE :\"DBNAME\""), "psql fills in what is not known");
        assert!(filled_in(GRANTS, "notary", Some("l\"edger")).contains("DATABASE \"l\"\"edger\""));
    }

    #[test]
    fn a_password_is_sent_as_a_verifier() {
        let clause = password_clause(Some(&Zeroizing::new("geheim".to_owned())));
        assert!(clause.starts_with(" PASSWORD 'SCRAM-SHA-256$4096:") && !clause.contains("geheim"), "{clause}");
        assert_eq!(password_clause(None), "");
    }
}
