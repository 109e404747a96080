//! Whether a database is one to serve from: settings that keep commits, the tables as they were made, and a role that can read and
//! add but not un-spend. Every new connection is judged, as settings may differ by role, database and host.

use tokio_postgres::Row;

use crate::ports::Finding;
use crate::ports::finding::Severity;

pub(super) const READ_SETTINGS: &str = include_str!("../../../sql/postgres/queries/read_settings.sql");
pub(super) const READ_VERSIONS: &str = include_str!("../../../sql/postgres/queries/read_versions.sql");
pub(super) const READ_RIGHTS: &str = include_str!("../../../sql/postgres/queries/read_rights.sql");
pub(super) const READ_SHAPE: &str = include_str!("../../../sql/postgres/queries/read_shape.sql");

/// The schema that this program was written for: the highest number of `sql/postgres/NNNN_*.sql`.
pub(super) const SCHEMA_VERSION: i32 = 1;

/// The oldest server: with it came `tcp_user_timeout` and what the queries use. Tests run on 15.
const SERVER_VERSION_MIN: i32 = 130_000;

/// Values of `synchronous_commit` under which a commit that was confirmed is on disk here and on the standbys.
const SYNCHRONOUS: [&str; 2] = ["on", "remote_apply"];

/// What `sql/postgres/0001_records.sql` made. More columns are fine if a worker that does not know them can leave them out.
const SHAPE: &[(&str, &str)] = &[
    ("conflicts key", "PRIMARY KEY (transaction_id, \"position\")"),
    ("conflicts.is_reference", "boolean not null"),
    ("conflicts.position", "integer not null"),
    ("conflicts.state", "bytea not null"),
    ("conflicts.transaction_id", "bytea not null"),
    ("names key", "PRIMARY KEY (id)"),
    ("names key", "UNIQUE (digest)"),
    ("names.digest", "bytea not null"),
    ("names.id", "integer not null optional"),
    ("names.name", "text not null"),
    ("names.public_key", "bytea not null"),
    ("schema_versions.usable_from", "integer not null"),
    ("schema_versions.version", "integer not null"),
    ("states key", "PRIMARY KEY (key)"),
    ("states.consumer", "bytea not null"),
    ("states.key", "bytea not null"),
    ("transactions key", "PRIMARY KEY (id)"),
    ("transactions.decided_ns", "integer not null"),
    ("transactions.decided_s", "bigint not null"),
    ("transactions.id", "bytea not null"),
    ("transactions.inputs", "integer not null"),
    ("transactions.outcome", "smallint not null"),
    ("transactions.platform_version", "integer not null"),
    ("transactions.reference_inputs", "integer not null"),
    ("transactions.requester", "integer not null"),
    ("transactions.signature", "bytea not null"),
    ("transactions.window_from_ns", "integer optional"),
    ("transactions.window_from_s", "bigint optional"),
    ("transactions.window_until_ns", "integer optional"),
    ("transactions.window_until_s", "bigint optional"),
    ("transactions.worker", "integer not null"),
];

/// Tables that workers write: nothing may be added to them that a worker would have to fill.
const WRITTEN: [&str; 4] = ["conflicts.", "names.", "states.", "transactions."];

/// What an examination saw.
#[derive(Clone, Debug)]
pub(super) struct Examined {
    settings: Settings,
    /// Newest version and oldest usable one; `None` without tables.
    versions: Option<(i32, i32)>,
    /// Rights too many (`true`) or too few.
    rights: Vec<(bool, String)>,
    shape: Vec<(String, String)>,
}

#[derive(Clone, Default, Debug)]
struct Settings {
    server_version: i32,
    synchronous_commit: String,
    synchronous_standby_names: String,
    fsync: String,
    full_page_writes: String,
    data_checksums: String,
    data_sync_retry: String,
    in_recovery: bool,
    standbys: i64,
    timeline: String,
}

/// A finding, and whether `unsafe_for_tests` lets it pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Judged {
    pub(super) finding: Finding,
    /// It endangers only what is committed from now on, by this worker.
    durability: bool,
}

impl Judged {
    /// Whether a worker must not serve.
    pub(super) fn is_fatal(&self, unsafe_for_tests: bool) -> bool {
        self.finding.severity == Severity::Fault && !(self.durability && unsafe_for_tests)
    }
}

impl Settings {
    fn read(row: &Row) -> Self {
        let text = |column: &str| row.try_get(column).unwrap_or_default();
        Self {
            server_version: row.try_get("server_version").unwrap_or_default(),
            synchronous_commit: text("synchronous_commit"),
            synchronous_standby_names: text("synchronous_standby_names"),
            fsync: text("fsync"),
            full_page_writes: text("full_page_writes"),
            data_checksums: text("data_checksums"),
            data_sync_retry: text("data_sync_retry"),
            in_recovery: row.try_get("in_recovery").unwrap_or(true),
            standbys: row.try_get("standbys").unwrap_or_default(),
            timeline: text("timeline"),
        }
    }

    /// Whether a confirmed commit stays (FAULTS section 3).
    fn findings(&self) -> Vec<Judged> {
        let mut found = Vec::new();
        let mut must = |subject: &str, value: &str, wanted: &[&str], why: &str| {
            let subject = format!("postgres: {subject}");
            found.push(match wanted.contains(&value) {
                true => Finding::good(subject, value),
                false => Finding::fault(subject, value, format!("set it to {}: {why}", wanted.join(" or "))),
            });
        };
        must("synchronous_commit", &self.synchronous_commit, &SYNCHRONOUS, "otherwise confirmed commits can be lost");
        must("fsync", &self.fsync, &["on"], "otherwise a power cut destroys the database");
        must("full_page_writes", &self.full_page_writes, &["on"], "otherwise a power cut tears pages");
        must("data_sync_retry", &self.data_sync_retry, &["off"], "a failed fsync must never be taken for a done one");
        found.push(match (self.synchronous_standby_names.as_str(), self.standbys) {
            ("", 0) => Finding::warning(
                "postgres: synchronous_standby_names",
                "empty, and no standby is connected: what is committed is lost with this server's disk",
                "run standbys, and set it to ANY 1 (...) with three servers or ANY 2 (...) with five",
            ),
            ("", standbys) => Finding::fault(
                "postgres: synchronous_standby_names",
                format!("empty, and {standbys} standby(s) follow asynchronously: a failover would lose commits"),
                "set it to ANY 1 (...) with three servers or ANY 2 (...) with five",
            ),
            (names, _) => Finding::good("postgres: synchronous_standby_names", names),
        });
        found.push(match self.data_checksums.as_str() {
            "on" => Finding::good("postgres: data_checksums", "on"),
            other => Finding::warning(
                "postgres: data_checksums",
                other,
                "stop the server and run pg_checksums --enable: otherwise a flipped bit can make a spent state look unspent",
            ),
        });
        let mut judged: Vec<Judged> = found.into_iter().map(|finding| Judged { finding, durability: true }).collect();
        let mut always = |finding| judged.push(Judged { finding, durability: false });
        always(match self.in_recovery {
            false => Finding::good("postgres: role", format!("primary, timeline {}", self.timeline)),
            true => {
                Finding::fault("postgres: role", "in recovery: it takes no writes", "name the primary in store.url too")
            }
        });
        always(match self.server_version >= SERVER_VERSION_MIN {
            true => Finding::good("postgres: server", version(self.server_version)),
            false => Finding::fault("postgres: server", version(self.server_version), "use PostgreSQL 13 or newer"),
        });
        judged
    }
}

impl Examined {
    /// From the rows of the queries of these names; `read_versions` only with tables.
    pub(super) fn of(
        read_settings: &Row,
        read_versions: Option<&Row>,
        read_rights: &[Row],
        read_shape: &[Row],
    ) -> Self {
        let versions = read_versions.map(|row| {
            // Without a row in it the aggregates are null: version 0, usable by nobody.
            (row.try_get("version").unwrap_or(0), row.try_get("usable_from").unwrap_or(i32::MAX))
        });
        let rights = read_rights.iter().map(|row| (row.get("excess"), row.get("what")));
        Self { settings: Settings::read(read_settings), versions, rights: rights.collect(), shape: pairs(read_shape) }
    }

    /// Asks for all of it, as `notary db check` does; a worker asks the same at once.
    pub(super) fn ask(client: &mut postgres::Client) -> Result<Self, postgres::Error> {
        let settings = client.query_typed_one(READ_SETTINGS, &[])?;
        let rights = client.query_typed(READ_RIGHTS, &[])?;
        let shape = client.query_typed(READ_SHAPE, &[])?;
        // Without tables there is no version to read, and the question would be an error.
        let versions = match Self::has_versions(&shape) {
            true => Some(client.query_typed_one(READ_VERSIONS, &[])?),
            false => None,
        };
        Ok(Self::of(&settings, versions.as_ref(), &rights, &shape))
    }

    /// Only whether commits stay; enough for a look every second.
    pub(super) fn settings_only(read_settings: &Row) -> Vec<Judged> {
        Settings::read(read_settings).findings()
    }

    /// Whether there is a table of versions among the rows of `read_shape`.
    pub(super) fn has_versions(read_shape: &[Row]) -> bool {
        pairs(read_shape).iter().any(|(item, _)| item == "schema_versions.version")
    }

    pub(super) fn server_version(&self) -> String {
        version(self.settings.server_version)
    }

    pub(super) fn timeline(&self) -> &str {
        &self.settings.timeline
    }

    /// Everything that was looked at, good or bad.
    pub(super) fn findings(&self) -> Vec<Judged> {
        let mut judged = self.settings.findings();
        let mut findings = vec![judge_versions(self.versions)];
        if self.versions.is_some() {
            findings.extend(judge_shape(&self.shape));
            findings.extend(judge_rights(&self.rights));
        }
        judged.extend(findings.into_iter().map(|finding| Judged { finding, durability: false }));
        judged
    }
}

fn pairs(rows: &[Row]) -> Vec<(String, String)> {
    rows.iter().map(|row| (row.get("item"), row.get("definition"))).collect()
}

fn version(number: i32) -> String {
    format!("PostgreSQL {}.{}", number / 10_000, number % 10_000)
}

fn judge_versions(versions: Option<(i32, i32)>) -> Finding {
    let subject = "postgres: schema version";
    let migrate = "run `notary db apply` as the database's owner";
    match versions {
        None => Finding::fault(subject, "the notary's tables are missing, or hidden from this user", migrate),
        Some((version, _)) if version < SCHEMA_VERSION => {
            Finding::fault(subject, format!("{version}; this program needs {SCHEMA_VERSION}"), migrate)
        }
        Some((version, usable_from)) if usable_from > SCHEMA_VERSION => Finding::fault(
            subject,
            format!(
                "{version}, which programs older than for version {usable_from} cannot use; this one is for {SCHEMA_VERSION}"
            ),
            "run a newer program",
        ),
        Some((version, _)) => Finding::good(subject, version),
    }
}

fn judge_shape(found: &[(String, String)]) -> Vec<Finding> {
    let expected: Vec<(String, String)> =
        SHAPE.iter().map(|(item, definition)| ((*item).into(), (*definition).into())).collect();
    let mut faults = Vec::new();
    for (item, definition) in expected.iter().filter(|pair| !found.contains(pair)) {
        let instead: Vec<&str> = found.iter().filter(|(other, _)| other == item).map(|(_, is)| is.as_str()).collect();
        let instead = if instead.is_empty() { "missing".into() } else { instead.join(", ") };
        faults.push(Finding::fault(
            format!("postgres: notary.{item}"),
            format!("{instead}; it was made as {definition}"),
            "somebody changed the tables: find out who and why before serving",
        ));
    }
    for (item, definition) in found.iter().filter(|pair| !expected.contains(pair)) {
        let hidden =
            ["trigger", "rule", "row security", "persistence"].iter().any(|what| item.ends_with(&format!(" {what}")));
        let unfillable = WRITTEN.iter().any(|table| item.starts_with(table)) && !definition.ends_with(" optional");
        let known = expected.iter().any(|(other, _)| other == item);
        if hidden || (unfillable && !known) {
            faults.push(Finding::fault(
                format!("postgres: notary.{item}"),
                definition,
                "it was not made by `notary db apply`, and may hide, change or refuse records: remove it",
            ));
        }
    }
    match faults.is_empty() {
        true => vec![Finding::good("postgres: tables", "as they were made")],
        false => faults,
    }
}

fn judge_rights(rights: &[(bool, String)]) -> Vec<Finding> {
    let subject = "postgres: rights of the worker's role";
    let named = |excess: bool| {
        let of_kind = rights.iter().filter(|(kind, _)| *kind == excess);
        of_kind.map(|(_, what)| what.as_str()).collect::<Vec<_>>().join(", ")
    };
    let (excess, lacking) = (named(true), named(false));
    let mut found = Vec::new();
    if !excess.is_empty() {
        let advice = "revoke them (`notary db apply` grants what is needed): a worker must be unable to un-spend";
        found.push(Finding::fault(subject, format!("too many: {excess}"), advice));
    }
    if !lacking.is_empty() {
        found.push(Finding::fault(subject, format!("too few: {lacking}"), "run `notary db apply` with this role"));
    }
    if found.is_empty() {
        found.push(Finding::good(subject, "SELECT and INSERT only"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn safe() -> Settings {
        Settings {
            server_version: 150_020,
            synchronous_commit: "on".into(),
            synchronous_standby_names: "ANY 1 (a, b)".into(),
            fsync: "on".into(),
            full_page_writes: "on".into(),
            data_checksums: "on".into(),
            data_sync_retry: "off".into(),
            in_recovery: false,
            standbys: 2,
            timeline: "00000001".into(),
        }
    }

    fn fatal(settings: &Settings, unsafe_for_tests: bool) -> Vec<String> {
        let findings = settings.findings().into_iter().filter(|judged| judged.is_fatal(unsafe_for_tests));
        findings.map(|judged| judged.finding.subject).collect()
    }

    #[test]
    fn safe_settings_are_good_without_reserve() {
        assert!(safe().findings().iter().all(|judged| judged.finding.severity == Severity::Good));
    }

    #[test]
    fn each_unsafe_setting_is_refused_unless_for_tests() {
        let mut cases: Vec<(&str, Settings)> = ["off", "local", "remote_write", ""]
            .map(|value| ("synchronous_commit", Settings { synchronous_commit: value.into(), ..safe() }))
            .into();
        cases.push(("fsync", Settings { fsync: "off".into(), ..safe() }));
        cases.push(("full_page_writes", Settings { full_page_writes: "off".into(), ..safe() }));
        cases.push(("data_sync_retry", Settings { data_sync_retry: "on".into(), ..safe() }));
        cases.push(("synchronous_standby_names", Settings { synchronous_standby_names: String::new(), ..safe() }));
        for (subject, settings) in cases {
            assert_eq!(fatal(&settings, false), [format!("postgres: {subject}")]);
            assert_eq!(fatal(&settings, true), [""; 0]);
        }
        assert_eq!(fatal(&Settings { synchronous_commit: "remote_apply".into(), ..safe() }, false), [""; 0]);
        assert_eq!(fatal(&Settings { in_recovery: true, ..safe() }, true), ["postgres: role"], "not even for tests");
    }

    #[test]
    fn older_and_newer_schemas_are_used_only_where_they_fit() {
        let is_good = |versions| judge_versions(versions).severity == Severity::Good;
        assert!(is_good(Some((SCHEMA_VERSION, 1))));
        assert!(is_good(Some((SCHEMA_VERSION + 1, SCHEMA_VERSION))), "a migration that only adds");
        assert!(!is_good(Some((SCHEMA_VERSION + 1, SCHEMA_VERSION + 1))));
        assert!(!is_good(Some((SCHEMA_VERSION - 1, 1))));
        assert!(!is_good(None));
    }

    #[test]
    fn a_changed_shape_is_named_and_an_optional_column_is_not() {
        let made: Vec<(String, String)> = SHAPE.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        assert!(judge_shape(&made).iter().all(|finding| finding.severity == Severity::Good));

        let with = |item: &str, definition: &str| [made.clone(), vec![(item.into(), definition.into())]].concat();
        let good = |shape: &[(String, String)]| judge_shape(shape)[0].severity == Severity::Good;
        assert!(good(&with("transactions.later", "integer optional")));
        assert!(good(&with("schema_versions.note", "text not null")), "workers do not write there");
        assert!(!good(&with("transactions.later", "integer not null")));
        assert!(!good(&with("states trigger", "forget")));
        assert!(!good(&with("states rule", "forget")));
        assert!(!good(&with("states row security", "enabled")));
        assert!(!good(&with("states persistence", "unlogged")));
        for gone in 0..made.len() {
            let mut shape = made.clone();
            let (item, _) = shape.remove(gone);
            let found = judge_shape(&shape);
            assert_eq!(found.len(), 1);
            assert!(found[0].subject.ends_with(&item) && found[0].severity == Severity::Fault, "{found:?}");
        }
    }
}
