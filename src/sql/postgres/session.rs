//! One connection: how it is made and looked over, its prepared statements, and what it knows.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join3, join4, poll_fn, try_join_all};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_postgres::error::Severity;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, Error, NoTls, Row, Statement};
use zeroize::Zeroizing;

use super::examine::{self, Examined, Judged};
use super::place::Place;
use super::records::{Keys, Rows, nanos};
use super::sqlstate::{Trouble, describe, is_refused_entry};
use crate::domain::{HashAlgorithm, Timestamp, X500Name};
use crate::observe;
use crate::ports::Finding;
use crate::ports::finding::Severity as Gravity;

/// Tells the database user's password, anew for each connection, so that a changed one needs no restart. May block.
pub type Password = Arc<dyn Fn() -> Result<Zeroizing<String>, String> + Send + Sync>;

/// Pauses after failed rounds of connecting: they double, and a random part keeps workers from coming back all at once. A user who
/// was not let in waits the longest at once, as many tries may lock it out.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long one host may take to let us in before the next one is tried: a machine that is gone says nothing at all.
const HOST_PATIENCE: Duration = Duration::from_secs(2);

/// How long a server may take to cancel what an abandoned connection does; then the connection is closed regardless.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);

/// Names that one session remembers the numbers of; a network has fewer parties.
const NAMES_MAX: usize = 10_000;

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// No host lets us in now.
    #[error("{0}")]
    Unreachable(String),
    /// A host did, and its database is not one to serve from.
    #[error("{}", Finding::one_line(.0))]
    Refused(Vec<Finding>),
}

/// Makes sessions, one after another, with pauses after failures.
pub(super) struct Connector {
    pub(super) place: Place,
    pub(super) password: Option<Password>,
    /// What the sessions call themselves in the server's lists.
    pub(super) application: String,
    /// For each exchange with a server.
    pub(super) deadline: Duration,
    pub(super) unsafe_for_tests: bool,
    pub(super) runtime: Handle,
    /// Whether what is wrong, but tolerated, was told: once is enough, not for every connection.
    pub(super) has_warned: AtomicBool,
    pub(super) failures: tokio::sync::Mutex<Failures>,
}

/// Rounds of connecting that failed in a row.
#[derive(Default)]
pub(super) struct Failures {
    in_a_row: u32,
    next_round: Option<Instant>,
    /// The host to begin with. It is the first, unless somebody lost patience with the one before this in the middle of a round.
    begin_with: usize,
}

impl Connector {
    /// Connects to the first host that takes writes, and looks it over. Waits for its turn and for the pause after earlier failures:
    /// give it a deadline.
    pub(super) async fn connect(&self) -> Result<Session, ConnectError> {
        let mut failures = self.failures.lock().await;
        if let Some(next_round) = failures.next_round {
            tokio::time::sleep_until(next_round).await;
        }
        let (error, let_in) = match self.round(&mut failures.begin_with).await {
            Ok(session) => {
                *failures = Failures::default();
                return Ok(session);
            }
            Err(failed) => failed,
        };
        observe::metrics::database_unreachable();
        let doubled = PAUSE_MIN.saturating_mul(1 << failures.in_a_row.min(16));
        let pause = if let_in { doubled.min(PAUSE_MAX) } else { PAUSE_MAX };
        failures.in_a_row += 1;
        failures.next_round = Some(Instant::now() + pause.mul_f64(0.5 + random_half()));
        Err(error)
    }

    /// Each host once. Tells also whether no host refused the user.
    async fn round(&self, begin_with: &mut usize) -> Result<Session, (ConnectError, bool)> {
        let password = self.fetch_password().await.map_err(|why| (ConnectError::Unreachable(why), true))?;
        let mut problems = Vec::new();
        let mut let_in = true;
        let hosts = self.place.hosts(&self.application, password.as_deref().map(String::as_str));
        let patience = self.deadline.min(HOST_PATIENCE);
        for _ in 0..hosts.len() {
            let (host, config) = &hosts[*begin_with % hosts.len()];
            *begin_with = (*begin_with + 1) % hosts.len();
            match tokio::time::timeout(patience, self.one_host(host, config)).await {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(HostError::Refused(findings))) => return Err((ConnectError::Refused(findings), true)),
                Ok(Err(HostError::Driver(error))) => {
                    let_in &= !is_refused_entry(&error);
                    problems.push(format!("{host}: {}", describe(&error)));
                }
                Err(_) => problems.push(format!("{host}: no answer within {patience:?}")),
            }
        }
        Err((ConnectError::Unreachable(problems.join("; ")), let_in))
    }

    async fn one_host(&self, host: &str, config: &tokio_postgres::Config) -> Result<Session, HostError> {
        let (client, warnings, examined) = self.enter(config).await?;
        let (fatal, tolerated): (Vec<Judged>, Vec<Judged>) =
            examined.findings().into_iter().partition(|judged| judged.is_fatal(self.unsafe_for_tests));
        if !fatal.is_empty() {
            return Err(HostError::Refused(fatal.into_iter().map(|judged| judged.finding).collect()));
        }
        let silent = self.has_warned.swap(true, Ordering::Relaxed);
        let tolerated = tolerated.iter().filter(|judged| !silent && judged.finding.severity != Gravity::Good);
        for Judged { finding, .. } in tolerated {
            tracing::warn!(host, "{}", Finding::one_line(std::slice::from_ref(finding)));
        }
        let statements = Statements::prepare(&client).await?;
        tracing::info!(
            host,
            server = examined.server_version(),
            timeline = examined.timeline(),
            "connected to the database"
        );
        Ok(Session { client, statements, warnings, names: HashMap::new(), place: self.place.clone() })
    }

    /// A connection, set up and examined, not yet judged.
    async fn enter(&self, config: &tokio_postgres::Config) -> Result<(ClientWrapper, Arc<Warnings>, Examined), Error> {
        let warnings = Arc::new(Warnings::default());
        let (client, driver) = match self.place.tls() {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, self.runtime.spawn(drive(connection, Arc::clone(&warnings))))
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                (client, self.runtime.spawn(drive(connection, Arc::clone(&warnings))))
            }
        };
        // Whatever is dropped leaves no socket behind: the driver ends with the client.
        let client = ClientWrapper::new(client, driver);
        client.batch_execute(&set_up(self.deadline)).await?;
        let examined = examine(&client).await?;
        Ok((client, warnings, examined))
    }

    async fn fetch_password(&self) -> Result<Option<Zeroizing<String>>, String> {
        let Some(fetch) = &self.password else { return Ok(None) };
        let fetch = Arc::clone(fetch);
        let fetched = self.runtime.spawn_blocking(move || fetch()).await;
        let fetched = fetched.unwrap_or_else(|_| Err("reading it failed".into()));
        fetched.map(Some).map_err(|why| format!("the password: {why}"))
    }
}

/// SQL that sets a connection up.
pub(super) fn set_up(deadline: Duration) -> String {
    let milliseconds = deadline.as_millis();
    // A worker that froze in the middle of a batch must not keep the others from theirs.
    let limits =
        format!("SET statement_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {milliseconds};");
    [include_str!("../../../sql/postgres/session.sql"), &limits].concat()
}

enum HostError {
    Driver(Error),
    Refused(Vec<Finding>),
}

impl From<Error> for HostError {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

/// A number in `0.0..0.5`, to spread workers out; no secret depends on it.
fn random_half() -> f64 {
    getrandom::u32().map_or(0.25, |number| f64::from(number) / f64::from(u32::MAX) / 2.0)
}

/// What the server warned of, unasked.
#[derive(Default)]
struct Warnings {
    any: AtomicBool,
    last: Mutex<String>,
}

/// Moves bytes until the connection ends. A warning is noted before the answer that follows it is handed over.
async fn drive<S, T>(mut connection: Connection<S, T>, warnings: Arc<Warnings>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) if notice.parsed_severity() != Some(Severity::Warning) => {
                tracing::debug!(code = notice.code().code(), "database: {}", notice.message());
            }
            Ok(AsyncMessage::Notice(notice)) => {
                let text = format!("WARNING {}: {}", notice.code().code(), notice.message());
                tracing::warn!("database: {text}");
                *warnings.last.lock().unwrap_or_else(PoisonError::into_inner) = text;
                warnings.any.store(true, Ordering::Release);
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!("database connection lost: {}", describe(&error));
                return;
            }
        }
    }
}

macro_rules! statements {
    ($($name:ident $types:expr;)+) => {
        /// Each file in `sql/postgres/queries` that is used for batches, prepared.
        struct Statements {
            $($name: Statement,)+
        }

        impl Statements {
            async fn prepare(client: &Client) -> Result<Self, Error> {
                let texts: &[(&str, &[Type])] =
                    &[$((include_str!(concat!("../../../sql/postgres/queries/", stringify!($name), ".sql")), &$types),)+];
                let prepared = try_join_all(texts.iter().map(|(text, types)| client.prepare_typed(text, types))).await?;
                let mut prepared = prepared.into_iter();
                $(let $name = prepared.next().expect("one for each text");)+
                Ok(Self { $($name,)+ })
            }
        }
    };
}

statements! {
    read_outcomes [Type::BYTEA_ARRAY];
    read_conflicts [Type::BYTEA_ARRAY];
    read_consumers [Type::BYTEA_ARRAY];
    read_names [Type::BYTEA_ARRAY];
    insert_names [Type::BYTEA_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY];
    insert_transactions [];
    insert_states [Type::BYTEA_ARRAY, Type::BYTEA_ARRAY];
    insert_conflicts [Type::BYTEA_ARRAY, Type::INT4_ARRAY, Type::BOOL_ARRAY, Type::BYTEA_ARRAY];
    confirm_reads [];
}

/// Who a name in the records stands for: a requester with its key, or a worker with none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) name: &'a X500Name,
    pub(super) key: &'a [u8],
}

impl Named<'_> {
    fn digest(&self) -> Vec<u8> {
        let name = self.name.to_string();
        let length = (name.len() as u64).to_be_bytes(); // So that no name and key read as another name and key.
        let digest = HashAlgorithm::Sha256.digest(&[&length, name.as_bytes(), self.key]);
        digest.expect("SHA-256 is always computable").as_bytes().to_vec()
    }
}

/// A connection that was looked over.
pub(super) struct Session {
    client: ClientWrapper,
    statements: Statements,
    warnings: Arc<Warnings>,
    /// Numbers of names, by digest. They hold for this connection only: after a failover they may stand for others.
    names: HashMap<Vec<u8>, i32>,
    /// For the way in which a cancellation is sent.
    place: Place,
}

impl Session {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether the connection is known to be gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// The settings in force now.
    pub(super) async fn examine_settings(&self) -> Result<Vec<Judged>, Error> {
        let row = self.client.query_typed_one(examine::READ_SETTINGS, &[]).await?;
        Ok(Examined::settings_only(&row))
    }

    /// The numbers of names, in order; new names get one. Commits by itself, as names belong to no batch.
    pub(super) async fn numbers_of(&mut self, named: &[Named<'_>]) -> Result<Vec<i32>, Error> {
        if self.names.len() > NAMES_MAX {
            self.names.clear();
        }
        let digests: Vec<Vec<u8>> = named.iter().map(Named::digest).collect();
        let unknown = |known: &HashMap<Vec<u8>, i32>| -> BTreeMap<Vec<u8>, Named<'_>> {
            let new = digests.iter().zip(named).filter(|(digest, _)| !known.contains_key(*digest));
            new.map(|(digest, named)| (digest.clone(), *named)).collect()
        };
        for attempt in 0..2 {
            let missing = unknown(&self.names);
            if missing.is_empty() {
                break;
            }
            let keys: Vec<&[u8]> = missing.keys().map(Vec::as_slice).collect();
            if attempt > 0 {
                let names: Vec<String> = missing.values().map(|named| named.name.to_string()).collect();
                let public_keys: Vec<&[u8]> = missing.values().map(|named| named.key).collect();
                self.client.execute(&self.statements.insert_names, &[&keys, &names, &public_keys]).await?;
            }
            for row in self.client.query(&self.statements.read_names, &[&keys]).await? {
                self.names.insert(row.try_get("digest")?, row.try_get("id")?);
            }
        }
        let number = |digest: &Vec<u8>| self.names.get(digest).copied();
        // Inserted or found above; a name that is neither was deleted by somebody, and number 0 is nobody's.
        Ok(digests.iter().map(|digest| number(digest).unwrap_or(0)).collect())
    }

    /// Begins a transaction: alone, or beside others that are not.
    pub(super) async fn begin(&self, alone: bool) -> Result<(), Error> {
        let begin = match alone {
            true => include_str!("../../../sql/postgres/queries/begin_exclusive.sql"),
            false => include_str!("../../../sql/postgres/queries/begin_shared.sql"),
        };
        self.warnings.any.store(false, Ordering::Release); // Earlier ones were about something else.
        self.client.batch_execute(begin).await
    }

    /// Begins a transaction and reads outcomes, conflicts and consumers in it; one round trip.
    pub(super) async fn begin_and_read(&self, alone: bool, keys: &Keys) -> Result<[Vec<Row>; 3], Error> {
        let (client, on) = (&self.client, &self.statements);
        let (begun, outcomes, conflicts, consumers) = join4(
            self.begin(alone),
            client.query(&on.read_outcomes, &[&keys.transactions]),
            client.query(&on.read_conflicts, &[&keys.transactions]),
            client.query(&on.read_consumers, &[&keys.states]),
        )
        .await;
        begun?;
        Ok([outcomes?, conflicts?, consumers?])
    }

    /// Writes rows in the open transaction and commits it; one round trip.
    ///
    /// The commit is sent without waiting for the rows: if one of them is there already its statement fails, and the server makes a
    /// roll-back of the commit. So whatever becomes of us meanwhile, all rows are kept or none.
    pub(super) async fn write_and_commit(&self, rows: &Rows, now: Timestamp, worker: i32) -> Result<(), Trouble> {
        let (seconds, nanos) = (now.seconds(), nanos(&now));
        let mut transactions: Vec<&(dyn ToSql + Sync)> = vec![&seconds, &nanos, &worker];
        transactions.extend(rows.transactions.columns());
        let (conflicts, states) = (rows.conflicts.columns(), rows.states.columns());
        let on = &self.statements;
        // Futures are first polled in order, and a statement is sent when it is first polled.
        let (transactions, conflicts, states, committed) = join4(
            self.insert(rows.transactions.id.len(), &on.insert_transactions, &transactions),
            self.insert(rows.conflicts.state.len(), &on.insert_conflicts, &conflicts),
            self.insert(rows.states.key.len(), &on.insert_states, &states),
            self.commit(),
        )
        .await;
        for inserted in [transactions, conflicts, states] {
            match inserted {
                Ok(true) => {}
                Ok(false) => return Err(Trouble::unknown("the database did not keep every row")),
                Err(error) if error.as_db_error().is_some() => {
                    let is_rolled_back = committed.is_ok();
                    return Err(Trouble { is_rolled_back, ..Trouble::before_commit(&error) });
                }
                Err(error) => return Err(Trouble::unknown(describe(&error))),
            }
        }
        committed
    }

    /// Ends an open transaction that only read, with a write that makes sure of what was read; one round trip.
    pub(super) async fn confirm_reads_and_commit(&self) -> Result<(), Trouble> {
        let confirm = self.client.execute(&self.statements.confirm_reads, &[]);
        let (confirmed, committed) = join(confirm, self.commit()).await;
        match confirmed {
            Ok(_) => committed,
            // Nothing was to be written, so nothing is unknown; and nothing was told.
            Err(error) => Err(Trouble::before_commit(&error)),
        }
    }

    /// Commits a write that no table sees.
    pub(super) async fn try_a_write(&self) -> Result<(), Trouble> {
        self.begin(false).await.map_err(|error| Trouble::before_commit(&error))?;
        self.confirm_reads_and_commit().await
    }

    /// A commit is a commit if the server says so without a warning: it warns when it stops waiting for its standbys.
    async fn commit(&self) -> Result<(), Trouble> {
        let committed = self.client.batch_execute("COMMIT").await;
        committed.map_err(|error| Trouble::unknown(describe(&error)))?;
        match self.warnings.any.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Trouble::unknown(self.warnings.last.lock().unwrap_or_else(PoisonError::into_inner).clone())),
        }
    }

    /// Inserts so many rows; tells whether as many were inserted.
    async fn insert(&self, rows: usize, statement: &Statement, columns: &[&(dyn ToSql + Sync)]) -> Result<bool, Error> {
        match rows {
            0 => Ok(true),
            _ => Ok(self.client.execute(statement, columns).await? == rows as u64),
        }
    }

    /// Ends the session whatever it does: what runs on the server is cancelled, so that it holds no lock and no standby's commit
    /// keeps it for ever, then the connection is closed.
    pub(super) async fn cut(self) {
        if self.is_closed() {
            return;
        }
        let token = self.client.cancel_token();
        let cancelled = async {
            match self.place.tls() {
                None => token.cancel_query(NoTls).await,
                Some(tls) => token.cancel_query(tls.clone()).await,
            }
        };
        // If it does not work the server finds out by itself: by its own time limits, or by the lost connection.
        let _ = tokio::time::timeout(CANCEL_PATIENCE, cancelled).await;
    }
}

/// Settings, versions, shape and rights, as this connection meets them.
async fn examine(client: &Client) -> Result<Examined, Error> {
    let settings = client.query_typed_one(examine::READ_SETTINGS, &[]);
    let rights = client.query_typed(examine::READ_RIGHTS, &[]);
    let shape = client.query_typed(examine::READ_SHAPE, &[]);
    let (settings, rights, shape) = join3(settings, rights, shape).await;
    let shape = shape?;
    // Without tables there is no version to read, and the question would be an error.
    let versions = match Examined::has_versions(&shape) {
        true => Some(client.query_typed_one(examine::READ_VERSIONS, &[]).await?),
        false => None,
    };
    Ok(Examined::of(&settings?, versions.as_ref(), &rights?, &shape))
}
