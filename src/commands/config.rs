//! `notary config`: what is in force, and where it came from.

mod import;

use clap::{Args, Subcommand};

use super::{ConfigSource, Exit, Failure};
use crate::config::Settings;

#[derive(Args, Debug)]
pub(crate) struct ConfigArguments {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Subcommand, Debug)]
enum ConfigVerb {
    /// Print every setting in force with the layer that set it. Secrets are references and stay unread.
    Show(ConfigSource),
    /// Check the configuration, and that its files and secrets can be read; connects to nothing.
    Check(ConfigSource),
    /// Print the reference of all settings as Markdown.
    Reference,
    /// Write the configuration of a worker that serves in the place of a Corda notary worker, and say what became of every key of its
    /// node.conf. Ends with 1 if there is anything that a person has to see to.
    Import(import::ImportArguments),
}

pub(crate) fn run(arguments: &ConfigArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        ConfigVerb::Show(source) => {
            let loaded = source.load()?;
            for (key, value) in loaded.settings.values() {
                println!("{key} = {value}  # {}", loaded.origin(key));
            }
            Ok(Exit::Done)
        }
        ConfigVerb::Check(source) => {
            let loaded = source.load()?;
            let faults = crate::worker::preflight(&loaded.settings);
            for fault in &faults {
                eprintln!("{fault}");
            }
            if !faults.is_empty() {
                return Err(Failure::new(Exit::Usage, format!("{} fault(s)", faults.len())));
            }
            println!("the configuration is sound");
            Ok(Exit::Done)
        }
        ConfigVerb::Import(arguments) => import::run(arguments),
        ConfigVerb::Reference => {
            print!("{}", reference_markdown());
            Ok(Exit::Done)
        }
    }
}

/// The configuration reference, generated from the settings themselves; the README holds a copy that a test compares.
pub(crate) fn reference_markdown() -> String {
    let mut out = String::new();
    for (section, meaning) in Settings::sections() {
        out += &format!("**`[{section}]`** {meaning}\n\n| key | default | allowed | meaning |\n|---|---|---|---|\n");
        let prefix = format!("{section}.");
        for setting in Settings::reference().iter().filter(|setting| setting.key.starts_with(&prefix)) {
            let bounds = setting.bounds.as_deref().unwrap_or("");
            out += &format!(
                "| `{}` | `{}` | {bounds} | {} |\n",
                &setting.key[prefix.len()..],
                setting.default,
                setting.doc
            );
        }
        out += "\n";
    }
    out
}
