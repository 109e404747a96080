//! `notary bench`: measures this machine. Figures are ratios and orders of magnitude on a noisy machine; compare what one run
//! printed side by side.

mod commit;
mod e2e;
pub(super) mod figures;
pub(super) mod load;
mod stages;

use clap::{Args, Subcommand};

use super::{Exit, Failure};

#[derive(Args, Debug)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    verb: BenchVerb,
}

#[derive(Subcommand, Debug)]
enum BenchVerb {
    /// Each step of a request alone, on one core: decode, check, verify, Merkle, sign, encode.
    Stages(stages::StagesArguments),
    /// Uniqueness and signing, without a broker.
    Commit(commit::CommitArguments),
    /// The whole path: AMQP in, answer verified by the client.
    E2e(e2e::E2eArguments),
}

pub(crate) fn run(arguments: &BenchArguments) -> Result<Exit, Failure> {
    match &arguments.verb {
        BenchVerb::Stages(arguments) => stages::run(arguments),
        BenchVerb::Commit(arguments) => commit::run(arguments),
        BenchVerb::E2e(arguments) => e2e::run(arguments),
    }
}
