//! `simla eval`.

pub mod classes;
pub mod entailment;
pub mod grounding;
mod judged;
pub mod nlvr2;
pub mod products;
pub mod retrieval;
pub mod vqa;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Measures what a model has learned
#[derive(Subcommand)]
pub enum Command {
    Retrieval(retrieval::Arguments),
    Grounding(grounding::Arguments),
    Vqa(vqa::Arguments),
    Nlvr2(nlvr2::Arguments),
    Entailment(entailment::Arguments),
    Classes(classes::Arguments),
    Products(products::Arguments),
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Retrieval(arguments) => retrieval::run(arguments),
        Command::Grounding(arguments) => grounding::run(arguments),
        Command::Vqa(arguments) => vqa::run(arguments),
        Command::Nlvr2(arguments) => nlvr2::run(arguments),
        Command::Entailment(arguments) => entailment::run(arguments),
        Command::Classes(arguments) => classes::run(arguments),
        Command::Products(arguments) => products::run(arguments),
    }
}
