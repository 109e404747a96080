//! `notary network show`: the network as this worker knows it.

use clap::Args;
use serde_json::{Value, json};

use super::super::{ConfigSource, Exit, Failure, table};
use crate::domain::SecureHash;
use crate::domain::network::{KnownParameters, NetworkParameters};
use crate::network::{Library, Node, Role};
use crate::worker;

#[derive(Args, Debug)]
pub(crate) struct ShowArguments {
    /// Print one JSON object instead.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: ConfigSource,
}

pub(super) fn run(arguments: &ShowArguments) -> Result<Exit, Failure> {
    let settings = arguments.source.load()?.settings;
    let library = worker::load_network(&settings)?;
    match arguments.json {
        true => println!("{}", document(&library)),
        false => print!("{}", text(&library)),
    }
    // What is left out may be a participant that is not served.
    Ok(if library.problems().is_empty() { Exit::Done } else { Exit::Negative })
}

/// All known parameters, the newest first.
fn versions(known: &KnownParameters) -> Vec<(&SecureHash, &NetworkParameters, &'static str)> {
    let in_force = known.current().map_or(0, |parameters| parameters.epoch);
    let mut versions: Vec<_> = known.by_hash.iter().map(|(hash, parameters)| (hash, &**parameters)).collect();
    versions.sort_by(|a, b| {
        (b.1.epoch, b.1.modified_time, b.0.as_bytes()).cmp(&(a.1.epoch, a.1.modified_time, a.0.as_bytes()))
    });
    let standing = |hash: &SecureHash, parameters: &NetworkParameters| match () {
        () if known.current.as_ref() == Some(hash) => "in force",
        () if parameters.epoch > in_force => "announced",
        () => "earlier",
    };
    versions.into_iter().map(|(hash, parameters)| (hash, parameters, standing(hash, parameters))).collect()
}

/// The service that a worker shares with others.
fn service(node: &Node) -> Option<String> {
    let shared = node.identities.iter().find(|identity| identity.role == Role::ServiceIdentity);
    shared.map(|identity| identity.party.name.to_string())
}

fn addresses(node: &Node) -> Vec<String> {
    node.addresses.iter().map(ToString::to_string).collect()
}

fn document(library: &Library) -> Value {
    let parameters = versions(&library.view().parameters).into_iter().map(|(hash, parameters, standing)| {
        let notaries = parameters.notaries.iter().map(|notary| {
            let identity = &notary.identity;
            json!({
                "name": identity.name.to_string(), "key": identity.owning_key.name_hash(), "validating": notary.validating
            })
        });
        json!({
            "hash": hash.to_string(),
            "standing": standing,
            "epoch": parameters.epoch,
            "modifiedTime": parameters.modified_time.to_string(),
            "minimumPlatformVersion": parameters.minimum_platform_version,
            "maxMessageSize": parameters.max_message_size,
            "maxTransactionSize": parameters.max_transaction_size,
            "notaries": notaries.collect::<Vec<_>>(),
        })
    });
    let nodes = library.nodes().iter().map(|node| {
        json!({
            "name": node.own().name.to_string(),
            "key": node.own().owning_key.name_hash(),
            "addresses": addresses(node),
            "service": service(node),
            "platformVersion": node.platform_version,
            "serial": node.serial,
            "validUntil": node.valid_until.to_string(),
            "hash": node.hash.to_string(),
        })
    });
    let problems: Vec<_> =
        library.problems().iter().map(|p| json!({ "file": p.file, "problem": p.error.to_string() })).collect();
    json!({
        "parameters": parameters.collect::<Vec<_>>(), "nodes": nodes.collect::<Vec<_>>(), "problems": problems,
    })
}

fn text(library: &Library) -> String {
    let rows = versions(&library.view().parameters).into_iter().map(|(hash, parameters, standing)| {
        let notaries: Vec<_> = parameters.notaries.iter().map(|notary| notary.identity.name.to_string()).collect();
        vec![standing.to_owned(), parameters.epoch.to_string(), hash.to_string(), notaries.join("; ")]
    });
    let mut out = table::render(&["PARAMETERS", "EPOCH", "HASH", "NOTARIES"], &rows.collect::<Vec<_>>());
    let rows = library.nodes().iter().map(|node| {
        vec![
            node.own().name.to_string(),
            addresses(node).join(", "),
            node.platform_version.to_string(),
            node.valid_until.to_string(),
            service(node).unwrap_or_default(),
        ]
    });
    out.push('\n');
    out += &table::render(&["NODE", "ADDRESSES", "VERSION", "VALID UNTIL", "WORKER OF"], &rows.collect::<Vec<_>>());
    for problem in library.problems() {
        out += &format!("\nnot used: {problem}");
    }
    if !library.problems().is_empty() {
        out.push('\n');
    }
    out
}
