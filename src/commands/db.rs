//! `notary db`: the tables and rights of a PostgreSQL store, and whether a worker may serve from it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use zeroize::Zeroizing;

use super::{ConfigSource, Exit, Failure};
use crate::config::SecretRef;
use crate::ports::Finding;
use crate::ports::finding::Severity;
use crate::sql::postgres::{self, Owner, Place, WorkerRole};
use crate::tls::TlsFiles;
use crate::worker;

#[derive(Args, Debug)]
pub(crate) struct DbArguments {
    #[command(subcommand)]
    verb: DbVerb,
}

#[derive(Subcommand, Debug)]
enum DbVerb {
    /// Print the SQL that `apply` would run, for psql: what a database lacks, or everything.
    Plan {
        /// The database, as its owner; without it, everything is printed and nobody is asked.
        #[arg(long, value_name = "OWNER_URL")]
        url: Option<String>,
        #[command(flatten)]
        entry: Entry,
        /// The role that workers use.
        #[arg(long, value_name = "NAME", default_value = "notary_worker")]
        worker_role: String,
    },
    /// Make or migrate the tables, the workers' role and its rights. May be killed and run again at any time.
    Apply {
        /// The database, as its owner: postgresql://USER@HOST:PORT/DATABASE.
        #[arg(long, value_name = "OWNER_URL")]
        url: String,
        #[command(flatten)]
        entry: Entry,
        /// The role that workers use; made if it is missing. It may read and add, nothing else.
        #[arg(long, value_name = "NAME")]
        worker_role: String,
        /// The role's password, by reference; without it, an existing one stays.
        #[arg(long, value_name = "REF")]
        worker_password_ref: Option<String>,
        /// Most connections of all workers together.
        #[arg(long, value_name = "COUNT", default_value_t = WorkerRole::CONNECTIONS_DEFAULT)]
        worker_connections: u32,
    },
    /// Look the configured database over as a worker would: settings, standbys, versions, tables, rights.
    Check {
        #[command(flatten)]
        source: ConfigSource,
        /// Print findings as one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// How the owner gets in.
#[derive(Args, Debug)]
struct Entry {
    /// The owner's password, by reference: file:PATH, env:NAME, exec:COMMAND or credential:NAME.
    #[arg(long, value_name = "REF")]
    password_ref: Option<String>,
    /// Certificates of the authorities that may vouch for the database (PEM); not needed for loopback addresses.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// The owner's certificate chain for mutual TLS (PEM).
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<PathBuf>,
    /// The private key of the certificate (PEM, PKCS#8).
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

pub(crate) fn run(arguments: &DbArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        DbVerb::Plan { url, entry, worker_role } => {
            let owner = url.as_ref().map(|url| entry.owner(url)).transpose()?;
            print!("{}", postgres::plan(owner.as_ref(), worker_role).map_err(Failure::unavailable)?);
            Ok(Exit::Done)
        }
        DbVerb::Apply { url, entry, worker_role, worker_password_ref, worker_connections } => {
            let role = WorkerRole {
                name: worker_role.clone(),
                password: fetch("--worker-password-ref", worker_password_ref.as_deref())?,
                connections_max: *worker_connections,
            };
            postgres::apply(&entry.owner(url)?, &role, |step| println!("{step}")).map_err(Failure::unavailable)?;
            Ok(Exit::Done)
        }
        DbVerb::Check { source, json } => {
            let settings = source.load()?.settings;
            let not_a_database = || Failure::new(Exit::Usage, "store.kind is not `postgres`");
            let findings = worker::examine_database(&settings).ok_or_else(not_a_database)?;
            Ok(report(&findings, *json))
        }
    }
}

impl Entry {
    fn owner(&self, url: &str) -> Result<Owner, Failure> {
        let path = |path: &Option<PathBuf>| path.clone().unwrap_or_default();
        let tls = TlsFiles::configured(&path(&self.tls_ca), &path(&self.tls_certificate), &path(&self.tls_key));
        let place =
            Place::parse(url, tls.as_ref()).map_err(|error| Failure::new(Exit::Usage, format!("--url: {error}")))?;
        Ok(Owner { place, password: fetch("--password-ref", self.password_ref.as_deref())? })
    }
}

/// What an option refers to. Read here and not by the parser of arguments, which repeats what it does not understand, and that may
/// be the secret itself.
fn fetch(option: &str, reference: Option<&str>) -> Result<Option<Zeroizing<String>>, Failure> {
    let Some(reference) = reference else { return Ok(None) };
    let secret =
        SecretRef::parse(reference).map_err(|error| Failure::new(Exit::Usage, format!("{option}: {error}")))?;
    secret.fetch().map(Some).map_err(|error| Failure::unavailable(format!("{option}: {error}")))
}

/// Prints findings; any fault is a negative result.
fn report(findings: &[Finding], as_json: bool) -> Exit {
    let sound = findings.iter().all(|finding| finding.severity != Severity::Fault);
    if as_json {
        let finding = |finding: &Finding| {
            json!({
                "subject": finding.subject,
                "severity": format!("{:?}", finding.severity).to_lowercase(),
                "found": finding.found,
                "advice": finding.advice,
            })
        };
        println!("{}", json!({ "ok": sound, "findings": findings.iter().map(finding).collect::<Vec<_>>() }));
    } else {
        findings.iter().for_each(|finding| println!("{finding}"));
    }
    if sound { Exit::Done } else { Exit::Negative }
}
