//! `simla finetune`.

pub mod retrieval;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Trains a pre-trained model further, for one task
#[derive(Subcommand)]
pub enum Command {
    Retrieval(retrieval::Arguments),
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Retrieval(arguments) => retrieval::run(arguments),
    }
}
