//! `notary completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, Exit, Failure};

#[derive(Args, Debug)]
pub(crate) struct CompletionsArguments {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(arguments: &CompletionsArguments) -> Result<Exit, Failure> {
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "notary", &mut std::io::stdout());
    Ok(Exit::Done)
}
