//! The verbs of the command line. A verb reads arguments, calls the library and prints; rules and I/O live elsewhere.

mod bench;
mod broker;
mod completions;
mod config;
mod db;
mod demo;
mod doctor;
mod init;
mod inspect;
mod keys;
mod network;
mod run;
mod store;
mod submit;
mod systemd;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::corda_node::CordaNode;
use crate::config::{Faults, Loaded};
use crate::worker::StartError;

/// A notary for Corda-style ledgers: it signs a transaction only if none of its states has been spent before.
#[derive(Parser, Debug)]
#[command(name = "notary", version, max_term_width = 110, after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// Shown under `--help`, and stable: scripts and supervisors rely on it.
const EXIT_CODES: &str = "\
Exit codes:
  0  done; for `demo`, `bench`, `submit` and `inspect` also: every answer was right, the message is sound
  1  a negative result: malformed message, wrong answer, refused request, a fault that `doctor` found
  2  the arguments or the configuration are wrong (one line per fault), or a secret is; trying again is of no use
  3  something needed is missing or in use: a file, a port, the store, the key
  4  the worker stopped because of an internal fault

First steps:
  notary demo             see a notary at work, on a throw-away network
  notary init notary-dev  make a development network with a commented configuration
  notary run --config notary-dev/notary.toml";

#[derive(Subcommand, Debug)]
enum Verb {
    /// Show a notary at work: real Corda messages on a throw-away network, each answer judged.
    Demo(demo::DemoArguments),
    /// Run a worker until it is told to stop (SIGTERM or Ctrl-C drain it).
    Run(run::RunArguments),
    /// Make a development network and a commented configuration in a new folder.
    Init(init::InitArguments),
    /// Send requests to a running worker of a development network and judge the answers.
    Submit(submit::SubmitArguments),
    /// Decode a Corda message of this protocol to JSON, with its verdict; the tool for a dead-letter queue.
    Inspect(inspect::InspectArguments),
    /// Show or check the configuration in force.
    Config(config::ConfigArguments),
    /// Make, list, move and test the service key, on PKCS#11 tokens or in its file.
    Keys(keys::KeysArguments),
    /// Get into a Corda network, see who takes part, or make a development network for real Corda nodes.
    Network(network::NetworkArguments),
    /// Examine the whole set-up, beside a running or a stopped worker, and say what to do about each finding.
    Doctor(doctor::DoctorArguments),
    /// Print the systemd unit for a worker with this configuration.
    Systemd(systemd::SystemdArguments),
    /// Declare on a shared broker what the service needs, and say what differs.
    Broker(broker::BrokerArguments),
    /// Read the embedded store of a stopped worker.
    Store(store::StoreArguments),
    /// Set up or check the PostgreSQL database that workers share.
    Db(db::DbArguments),
    /// Measure this machine: stages alone, commit and sign, the whole path.
    Bench(bench::BenchArguments),
    /// Print a completion script for a shell.
    Completions(completions::CompletionsArguments),
    /// What the worker starts for each PKCS#11 token (`hsm::pkcs11`); of no use to people.
    #[command(hide = true)]
    TokenKeeper {
        /// The token's label, for the list of processes.
        token: Option<String>,
    },
}

/// Where the configuration comes from; the same for every verb that needs one.
#[derive(Args, Clone, Debug)]
pub(crate) struct ConfigSource {
    /// Configuration file (TOML); `notary init` writes a commented one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of a Corda notary worker in whose place to serve: names, addresses, keys and network material are taken from it. Weaker
    /// than file, environment and --set.
    #[arg(long, value_name = "DIR")]
    corda_node: Option<PathBuf>,
    /// Override one setting; may be repeated. Stronger than file and environment (NOTARY__SECTION__KEY).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigSource {
    fn load(&self) -> Result<Loaded, Failure> {
        let file = self.config.as_deref();
        Ok(match &self.corda_node {
            Some(dir) => crate::config::load_in_place_of(&CordaNode::read(dir)?, file, &self.set)?,
            None => crate::config::load(file, &self.set)?,
        })
    }
}

/// How a verb ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// 0.
    Done,
    /// 1: a negative result.
    Negative,
    /// 2: wrong arguments or configuration.
    Usage,
    /// 3: something needed is missing or in use.
    Unavailable,
    /// 4: an internal fault.
    Fault,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb did not do its work.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl core::fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }

    pub(crate) fn unavailable(message: impl core::fmt::Display) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    /// For people, possibly of several lines.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The exit code it stands for.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::new(Exit::Usage, format!("the configuration is not valid:\n{faults}"))
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(if error.is_misconfigured() { Exit::Usage } else { Exit::Unavailable }, error)
    }
}

macro_rules! unavailable {
    ($($Error:ty),+) => { $(impl From<$Error> for Failure {
        fn from(error: $Error) -> Self {
            Self::unavailable(error)
        }
    })+ };
}
unavailable!(std::io::Error, getrandom::Error, crate::domain::merkle::MerkleError, crate::client::cast::DraftError);

/// Runs a verb.
///
/// # Errors
/// [`Failure`] if it could not do its work.
pub fn run(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.verb {
        Verb::Demo(arguments) => demo::run(&arguments),
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Init(arguments) => init::run(&arguments),
        Verb::Submit(arguments) => submit::run(&arguments),
        Verb::Inspect(arguments) => inspect::run(&arguments),
        Verb::Config(arguments) => config::run(&arguments),
        Verb::Keys(arguments) => keys::run(&arguments),
        Verb::Network(arguments) => network::run(&arguments),
        Verb::Doctor(arguments) => doctor::run(&arguments),
        Verb::Systemd(arguments) => systemd::run(&arguments),
        Verb::Broker(arguments) => broker::run(&arguments),
        Verb::Store(arguments) => store::run(&arguments),
        Verb::Db(arguments) => db::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Completions(arguments) => completions::run(&arguments),
        Verb::TokenKeeper { .. } => {
            crate::hsm::pkcs11::serve_keeper().map_err(|error| Failure::new(Exit::Fault, error))?;
            Ok(Exit::Done)
        }
    }
}
