//! `notary`: arguments, dispatch, exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;
use notary_worker::commands::{self, Arguments};

fn main() -> ExitCode {
    match commands::run(Arguments::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("notary: {}", failure.message());
            failure.exit().into()
        }
    }
}
