//! `notary systemd`: the unit for a worker, filled in for its configuration.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;

use super::{ConfigSource, Exit, Failure};
use crate::config::{Settings, StoreKind};
use crate::worker::process;

/// The template; what stands between `@` is filled in.
const UNIT: &str = include_str!("systemd/notary@.service");
/// Where an instance's configuration lies when none is named.
const CONFIG_OF_INSTANCE: &str = "/etc/notary/%i.toml";

#[derive(Args, Debug)]
pub(crate) struct SystemdArguments {
    #[command(flatten)]
    source: ConfigSource,
}

pub(crate) fn run(arguments: &SystemdArguments) -> Result<Exit, Failure> {
    let settings = arguments.source.load()?.settings;
    let config = match &arguments.source.config {
        Some(file) => escaped(&std::path::absolute(file)?)?,
        None => CONFIG_OF_INSTANCE.to_owned(),
    };
    let program = escaped(&std::env::current_exe()?)?;
    print!("{}", unit(&settings, &program, &config)?);
    Ok(Exit::Done)
}

fn unit(settings: &Settings, program: &str, config: &str) -> Result<String, Failure> {
    let mut writable = BTreeSet::from([std::path::absolute(&settings.worker.state)?]);
    if settings.store.kind == StoreKind::Embedded
        && let Some(folder) = settings.store.path.parent()
    {
        writable.insert(std::path::absolute(folder)?);
    }
    // A minus: a folder that is not there yet must not keep the unit from starting, and saying so.
    let writable: Vec<_> =
        writable.iter().map(|folder| Ok(format!("-{}", escaped(folder)?))).collect::<Result<_, Failure>>()?;
    let credentials = settings.secrets().into_iter().filter_map(|(_, secret)| secret.credential());
    let credentials: Vec<_> =
        credentials.map(|name| format!("LoadCredential={name}:/etc/notary/credentials/{name}\n")).collect();
    let credentials = match credentials.is_empty() {
        true => "# LoadCredential=passphrase:/etc/notary/credentials/passphrase\n".to_owned(),
        false => credentials.concat(),
    };
    Ok(UNIT
        .replace("@PROGRAM@", program)
        .replace("@CONFIG@", config)
        .replace("@STOP_SECONDS@", &process::stop_patience(settings).as_secs().to_string())
        .replace("@WRITABLE@", &writable.join(" "))
        .replace("@CREDENTIALS@\n", &credentials)
        .replace("@PRIVATE_DEVICES@", if settings.needs_tokens() { "no" } else { "yes" }))
}

/// A path as it stands in a unit: percent signs doubled. One with a space or a quote would need more, and is refused.
fn escaped(path: &Path) -> Result<String, Failure> {
    let usable = |text: &&str| !text.contains(|c: char| c.is_whitespace() || c.is_control() || "\"'\\$".contains(c));
    let text = path.to_str().filter(usable).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{:?} cannot stand in a unit: take a path without spaces and quotes", path))
    })?;
    Ok(text.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn everything_is_filled_in_and_stopping_outlasts_draining() {
        let overrides = ["worker.drain_ms_max=20000".into(), "signing.passphrase=credential:pass".into()];
        let settings = config::load(None, &overrides).expect("valid").settings;
        let text = unit(&settings, "/usr/bin/notary", CONFIG_OF_INSTANCE).expect("it can be written");
        for placeholder in
            ["@PROGRAM@", "@CONFIG@", "@STOP_SECONDS@", "@WRITABLE@", "@CREDENTIALS@", "@PRIVATE_DEVICES@"]
        {
            assert!(UNIT.contains(placeholder) && !text.contains(placeholder), "{placeholder} in\n{text}");
        }
        for line in [
            "ExecStart=/usr/bin/notary run --config /etc/notary/%i.toml",
            "TimeoutStopSec=27",
            "LoadCredential=pass:/etc/notary/credentials/pass",
            "PrivateDevices=yes",
            "RestartPreventExitStatus=2",
            "LimitCORE=0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn paths_that_would_break_the_unit_are_refused() {
        assert_eq!(escaped(Path::new("/a%b")).expect("fine"), "/a%%b");
        for path in ["/a b", "/a\nExecStart=/bin/sh", "/a\"b", "/a$b"] {
            assert!(escaped(Path::new(path)).is_err(), "{path:?}");
        }
    }
}
