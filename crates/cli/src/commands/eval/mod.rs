//! `simla eval`.

pub mod grounding;
pub mod retrieval;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Measures what a model has learned
#[derive(Subcommand)]
pub enum Command {
    Retrieval(retrieval::Arguments),
    Grounding(grounding::Arguments),
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Retrieval(arguments) => retrieval::run(arguments),
        Command::Grounding(arguments) => grounding::run(arguments),
    }
}
