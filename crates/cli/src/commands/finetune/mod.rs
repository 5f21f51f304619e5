//! `simla finetune`.

pub mod entailment;
pub mod grounding;
pub mod nlvr2;
pub mod retrieval;
pub mod text_assignment;
mod tuning;
pub mod vqa;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Trains a pre-trained model further, for one task
#[derive(Subcommand)]
pub enum Command {
    Retrieval(retrieval::Arguments),
    Grounding(grounding::Arguments),
    Vqa(vqa::Arguments),
    TextAssignment(text_assignment::Arguments),
    Nlvr2(nlvr2::Arguments),
    Entailment(entailment::Arguments),
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Retrieval(arguments) => retrieval::run(arguments),
        Command::Grounding(arguments) => grounding::run(arguments),
        Command::Vqa(arguments) => vqa::run(arguments),
        Command::TextAssignment(arguments) => text_assignment::run(arguments),
        Command::Nlvr2(arguments) => nlvr2::run(arguments),
        Command::Entailment(arguments) => entailment::run(arguments),
    }
}
