//! `notary network`: getting into a Corda network, and making one for development.

mod dev;
mod publish;
mod register;
mod show;

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
    Register(Box<register::RegisterArguments>),
    /// Development networks: throw-away keys and names, for trying things out with real nodes.
    Dev(dev::DevArguments),
    /// Show who takes part and under which parameters, as this worker knows it. Exits with 1 if a file is not used.
    Show(show::ShowArguments),
    /// Sign and publish this worker's node info, as a running worker does by itself. Signs only if something changed.
    Publish(publish::PublishArguments),
}

pub(crate) fn run(arguments: &NetworkArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        NetworkVerb::Register(arguments) => register::run(arguments),
        NetworkVerb::Dev(arguments) => dev::run(arguments),
        NetworkVerb::Show(arguments) => show::run(arguments),
        NetworkVerb::Publish(arguments) => publish::run(arguments),
    }
}
