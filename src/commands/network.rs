//! `notary network`: getting into a Corda network.

mod register;

use clap::{Args, Subcommand};

use super::{Exit, Failure};

#[derive(Args, Debug)]
pub(crate) struct NetworkArguments {
    #[command(subcommand)]
    verb: NetworkVerb,
}

#[derive(Subcommand, Debug)]
enum NetworkVerb {
    /// Register the service and its workers with a network's identity manager. Run it again to go on, or to add workers.
    Register(register::RegisterArguments),
}

pub(crate) fn run(arguments: &NetworkArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        NetworkVerb::Register(arguments) => register::run(arguments),
    }
}
