//! `notary config import`: from Corda's configuration to ours.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::commands::{Exit, Failure};
use crate::config::corda_node::{Account, CordaNode, Fate};
use crate::config::{self, Fault, Loaded, Settings};

#[derive(Args, Debug)]
pub(crate) struct ImportArguments {
    /// The node's node.conf, or its folder.
    #[arg(value_name = "NODE_CONF")]
    node_conf: PathBuf,
    /// Write the configuration into this new file instead of printing it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Override one setting in what is written; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one JSON object instead: `keys`, `correct`, `cautions` and `configuration`.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &ImportArguments) -> Result<Exit, Failure> {
    let node = CordaNode::read(&arguments.node_conf)?;
    let (loaded, unfit) = config::draft_in_place_of(&node, &arguments.set)?;
    let text = configuration(&node, &loaded);
    if let Some(out) = &arguments.out {
        // It names where secrets are.
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
        let written = created.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::unavailable(format!("{}: {error}", out.display())))?;
    }
    let open = node.accounts().iter().filter(|account| is_open(account)).count() + unfit.0.len();
    if arguments.json {
        let keys: Vec<_> = node.accounts().iter().map(account_json).collect();
        let unfit: Vec<_> = unfit.0.iter().map(ToString::to_string).collect();
        println!("{}", json!({ "keys": keys, "correct": unfit, "cautions": node.cautions(), "configuration": text }));
    } else {
        // The report apart from the configuration, if both go to the terminal.
        let report = report(&node, &unfit.0, open);
        match &arguments.out {
            Some(out) => println!("{report}written to {}", out.display()),
            None => {
                eprint!("{report}");
                print!("{text}");
            }
        }
    }
    Ok(if open == 0 { Exit::Done } else { Exit::Negative })
}

fn is_open(account: &Account) -> bool {
    matches!(account.fate, Fate::SeeTo(_) | Fate::Unknown)
}

fn account_json(account: &Account) -> serde_json::Value {
    let (fate, settings, reason) = match &account.fate {
        Fate::Taken(settings) => ("taken", settings.clone(), None),
        Fate::NotNeeded(reason) => ("not needed", Vec::new(), Some((*reason).to_owned())),
        Fate::SeeTo(problem) => ("see to it", Vec::new(), Some(problem.clone())),
        Fate::Unknown => ("unknown", Vec::new(), None),
    };
    json!({ "key": account.key, "fate": fate, "settings": settings, "reason": reason, "remarks": account.remarks })
}

/// A line a key, and what else is to be said.
fn report(node: &CordaNode, unfit: &[Fault], open: usize) -> String {
    let mut out = format!("{}: {} keys, {open} to see to\n", node.path().display(), node.accounts().len());
    for Account { key, fate, remarks } in node.accounts() {
        out += &format!("  {key}: {fate}");
        for remark in remarks {
            out += &format!("; {remark}");
        }
        out += "\n";
    }
    for fault in unfit {
        out += &format!("  correct in what is written: {fault}\n");
    }
    for caution in node.cautions() {
        // Those of keys stand above.
        if !node.accounts().iter().any(|account| caution.starts_with(&account.key)) {
            out += &format!("  mind: {caution}\n");
        }
    }
    out
}

/// Our file: the settings that are not the defaults, each with where it comes from. Paths are absolute, so it can lie anywhere.
fn configuration(node: &CordaNode, loaded: &Loaded) -> String {
    let mut out = format!("# Made by `notary config import` from {}.\n", node.path().display());
    let values = loaded.settings.values();
    for (section, meaning) in Settings::sections() {
        let prefix = format!("{section}.");
        let set = values.iter().filter(|(key, _)| key.starts_with(&prefix) && loaded.origin(key) != "default");
        let lines: Vec<String> =
            set.map(|(key, value)| format!("{} = {value}  # {}\n", &key[prefix.len()..], loaded.origin(key))).collect();
        if !lines.is_empty() {
            out += &format!("\n# {meaning}\n[{section}]\n{}", lines.concat());
        }
    }
    out
}
