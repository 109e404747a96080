//! `notary network dev`: a development network of complete nodes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::super::{Exit, Failure, table};
use crate::domain::{SignatureScheme, X500Name};
use crate::network::Rules;
use crate::network::corda_dev_ca::CordaDevCa;
use crate::network::development::DevelopmentError;
use crate::network::nodes::{self, MadeNode, NodeKind, NodesError, NodesSpec};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;

#[derive(Args, Debug)]
pub(crate) struct DevArguments {
    #[command(subcommand)]
    verb: DevVerb,
}

#[derive(Subcommand, Debug)]
enum DevVerb {
    /// Make a folder for each node of a new network: parties that Corda 4 nodes serve, and workers of one notary service, all in
    /// development mode. Keys and passphrases are known to everybody who can read the folder: for development only.
    Up(Box<UpArguments>),
}

#[derive(Args, Debug)]
struct UpArguments {
    /// The folder to make; it must not exist yet, or be empty.
    dir: PathBuf,
    /// How many workers share the service. More than one need a store that they share.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: u8,
    /// The service's legal name.
    #[arg(long, value_name = "X500_NAME", default_value = "O=Notary Service, L=Zurich, C=CH")]
    service: X500Name,
    /// The service key's scheme.
    #[arg(long, value_enum, default_value_t = Scheme::Ed25519)]
    scheme: Scheme,
    /// The parties' legal names.
    #[arg(
        long,
        value_name = "X500_NAME",
        num_args = 1..,
        default_values = ["O=Alice Corp, L=Madrid, C=ES", "O=Bob Plc, L=Rome, C=IT"]
    )]
    parties: Vec<X500Name>,
    /// Legal names of further notaries, each of one Corda node: to move states to.
    #[arg(long, value_name = "X500_NAME", num_args = 1..)]
    other_notaries: Vec<X500Name>,
    /// Corda's development CA, below which the network is made: corda.jar, corda-node-api-*.jar, or cordadevcakeys.jks out of it.
    /// Without it the network has a root of its own.
    #[arg(long, value_name = "FILE")]
    corda_dev_ca: Option<PathBuf>,
    /// The host under which all nodes reach each other.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// The first worker's port for peers; the other nodes follow, ten ports apart.
    #[arg(long, default_value_t = 10_002, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// The lowest platform version that the network allows. From 4 on, transactions have to name network parameters.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=100))]
    minimum_platform_version: u16,
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Scheme {
    Ed25519,
    P256,
}

pub(super) fn run(arguments: &DevArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        DevVerb::Up(arguments) => up(arguments),
    }
}

fn up(arguments: &UpArguments) -> Result<Exit, Failure> {
    let spec = NodesSpec {
        service: arguments.service.clone(),
        service_scheme: match arguments.scheme {
            Scheme::Ed25519 => SignatureScheme::Ed25519,
            Scheme::P256 => SignatureScheme::EcdsaSecp256r1Sha256,
        },
        workers: arguments.workers.into(),
        parties: arguments.parties.clone(),
        other_notaries: arguments.other_notaries.clone(),
        host: arguments.host.clone(),
        port: arguments.port,
        rules: Rules { minimum_platform_version: arguments.minimum_platform_version.into(), ..Rules::default() },
        now: SystemClock.now(),
    };
    let ca = arguments.corda_dev_ca.as_deref().map(CordaDevCa::read).transpose().map_err(Failure::unavailable)?;
    let nodes = nodes::create(&arguments.dir, &spec, ca).map_err(|error| match error {
        NodesError::Development(DevelopmentError::NotEmpty(_))
        | NodesError::Name(_)
        | NodesError::TooMany
        | NodesError::Ports(..)
        | NodesError::Host(_) => Failure::new(Exit::Usage, error),
        error => Failure::unavailable(error),
    })?;
    match arguments.json {
        true => println!("{}", document(&nodes, &spec)),
        false => print!("{}", text(&nodes, &arguments.dir.display().to_string())),
    }
    Ok(Exit::Done)
}

fn kind(node: &MadeNode) -> &'static str {
    match node.kind {
        NodeKind::Worker => "worker",
        NodeKind::Party => "party",
        NodeKind::OtherNotary => "other notary",
    }
}

fn document(nodes: &[MadeNode], spec: &NodesSpec) -> serde_json::Value {
    let nodes = nodes.iter().map(|node| {
        json!({
            "folder": node.folder, "name": node.name.to_string(), "kind": kind(node), "address": node.address.to_string(),
        })
    });
    json!({ "service": spec.service.to_string(), "nodes": nodes.collect::<Vec<_>>() })
}

fn text(nodes: &[MadeNode], dir: &str) -> String {
    let rows = nodes.iter().map(|node| {
        let folder = node.folder.display().to_string();
        vec![kind(node).to_owned(), folder, node.name.to_string(), node.address.to_string()]
    });
    let mut out = table::render(&["NODE", "FOLDER", "NAME", "ADDRESS"], &rows.collect::<Vec<_>>());
    let workers = nodes.iter().filter(|node| node.kind == NodeKind::Worker).count();
    out += &match workers {
        1 => format!(
            "\nstart the worker:      notary store create --corda-node {dir}/worker-1, once, and notary run --corda-node {dir}/worker-1\n"
        ),
        _ => format!(
            "\nstart a worker:        notary run --corda-node {dir}/worker-1, with the store that they share: --set store.kind=postgres …\n"
        ),
    };
    if let Some(party) = nodes.iter().find(|node| node.kind == NodeKind::Party) {
        let folder = party.folder.display();
        out += &format!(
            "start a party's node:  cd {folder}, and java -jar corda.jar; before its first start with\n\
             \x20                      run-migration-scripts --core-schemas --app-schemas\n"
        );
    }
    out
}
