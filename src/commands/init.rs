//! `notary init`: a development network with a commented configuration.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::{Exit, Failure};
use crate::config::{self, Faults, Settings, StoreKind};
use crate::domain::SignatureScheme;
use crate::network::development::{DevelopmentNetwork, Spec, worker as worker_of};
use crate::ports::Clock;
use crate::ports::clock::SystemClock;
use crate::worker;

/// The configuration's name within the folder.
pub(super) const CONFIG_FILE: &str = "notary.toml";

#[derive(Args, Debug)]
pub(crate) struct InitArguments {
    /// The folder to make; it must not exist yet, or be empty.
    dir: PathBuf,
    /// How many parties take part.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    parties: u16,
    /// How many workers serve; the first has notary.toml, the others notary-2.toml and so on. More than one need a shared broker and a
    /// shared store.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    workers: u8,
    /// The service key's scheme.
    #[arg(long, value_enum, default_value_t = Scheme::Ed25519)]
    scheme: Scheme,
    /// Override a setting in the configuration written; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Scheme {
    Ed25519,
    P256,
}

pub(crate) fn run(arguments: &InitArguments) -> Result<Exit, Failure> {
    let scheme = match arguments.scheme {
        Scheme::Ed25519 => SignatureScheme::Ed25519,
        Scheme::P256 => SignatureScheme::EcdsaSecp256r1Sha256,
    };
    let spec = Spec {
        parties: arguments.parties.into(),
        workers: arguments.workers.into(),
        service_scheme: scheme,
        ..Spec::new(SystemClock.now())
    };
    let file = create(&arguments.dir, &spec, &arguments.set)?;
    println!(
        "made a development network in {}: keys, certificates, {} parties",
        arguments.dir.display(),
        arguments.parties
    );
    println!("start a worker:  notary run --config {}", file.display());
    println!("send requests:   notary submit --config {} --count 10", file.display());
    Ok(Exit::Done)
}

/// Makes the network, its configuration with `overrides` and its empty store; returns the configuration's path.
pub(super) fn create(folder: &Path, spec: &Spec, overrides: &[String]) -> Result<PathBuf, Failure> {
    // Before anything is written: a wrong override must not leave half a network.
    let settings: Vec<_> = (1..=spec.workers).map(|n| configured(n, overrides)).collect::<Result<_, _>>()?;
    if spec.workers > 1 && settings.iter().any(|s| s.store.kind == StoreKind::Embedded) {
        let problem = "several workers need a store that they share: --set store.kind=postgres";
        return Err(Failure::new(Exit::Usage, problem));
    }
    DevelopmentNetwork::create(folder, spec).map_err(Failure::unavailable)?;
    for (settings, n) in settings.iter().zip(1..) {
        let file = folder.join(config_file(n));
        fs::write(&file, commented(settings)).map_err(|e| Failure::unavailable(format!("{}: {e}", file.display())))?;
    }
    let file = folder.join(CONFIG_FILE);
    let loaded = config::load(Some(&file), &[])?;
    if loaded.settings.store.kind == StoreKind::Embedded {
        if let Some(parent) = loaded.settings.store.path.parent() {
            fs::create_dir_all(parent).map_err(|e| Failure::unavailable(format!("{}: {e}", parent.display())))?;
        }
        worker::create_store(&loaded.settings).map_err(Failure::unavailable)?;
    }
    Ok(file)
}

fn config_file(worker: usize) -> String {
    if worker == 1 { CONFIG_FILE.to_owned() } else { format!("notary-{worker}.toml") }
}

/// The settings of worker number `n`: what tells the workers apart, what a shared broker needs, then the overrides.
fn configured(n: usize, overrides: &[String]) -> Result<Settings, Faults> {
    let mut all = Vec::new();
    if n > 1 {
        let port = Settings::defaults().observe.listen.port() + n as u16 - 1;
        all.push(format!("worker.name={}", worker_of(n).0));
        all.push(format!("worker.state=state-{n}"));
        all.push(format!("observe.listen=127.0.0.1:{port}"));
    }
    let sets = |value: &str| overrides.iter().any(|set| set.replace(' ', "") == format!("broker.kind={value}"));
    if sets("rabbitmq") || sets("artemis") {
        all.push(format!("broker.user=worker-{n}"));
        all.push(format!("broker.password=file:secrets/worker-{n}.password"));
        all.push("broker.callers=network/callers.toml".to_owned());
    }
    all.extend_from_slice(overrides);
    Ok(config::load(None, &all)?.settings)
}

/// Every setting with its meaning; those that equal their default are commented out.
fn commented(settings: &Settings) -> String {
    let mut out = String::from(
        "# Configuration of a notary worker. Every setting is shown; one that is commented out has its default.\n\
         # Stronger than this file: environment variables (NOTARY__FLOW__SLOTS=64), then --set flow.slots=64.\n\
         # Relative paths start at this file's folder. `notary config check --config FILE` checks all of it.\n",
    );
    let values = settings.values();
    for (section, meaning) in Settings::sections() {
        out += &format!("\n# {meaning}\n[{section}]\n");
        let prefix = format!("{section}.");
        for setting in Settings::reference().iter().filter(|setting| setting.key.starts_with(&prefix)) {
            let bounds = setting.bounds.as_ref().map(|bounds| format!(" Allowed: {bounds}.")).unwrap_or_default();
            for line in wrapped(&format!("{}{bounds}", setting.doc)) {
                out += &format!("# {line}\n");
            }
            let value = values.iter().find(|(key, _)| *key == setting.key).map_or(&setting.default, |(_, value)| value);
            let comment = if *value == setting.default { "#" } else { "" };
            out += &format!("{comment}{} = {value}\n", &setting.key[prefix.len()..]);
        }
    }
    out
}

/// The width of comments, in characters.
const COMMENT_CHARS_MAX: usize = 100;

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > COMMENT_CHARS_MAX {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commented_configuration_loads_to_what_was_asked() {
        let asked = config::load(None, &["flow.slots=7".into()]).expect("valid");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(CONFIG_FILE);
        let text = commented(&asked.settings);
        fs::write(&file, &text).expect("written");
        let loaded = config::load(Some(&file), &[]).expect("valid");
        assert_eq!(loaded.settings.flow.slots, 7);
        assert_eq!((loaded.origin("flow.slots").starts_with("file"), loaded.origin("store.path")), (true, "default"));
        // With every comment mark before a setting removed it still loads: what is commented out is right, too.
        let all: String = text
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
            .collect();
        fs::write(&file, all).expect("written");
        assert_eq!(config::load(Some(&file), &[]).expect("valid").settings.values(), loaded.settings.values());
    }
}
