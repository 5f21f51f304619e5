//! `simla finetune text-assignment`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla_run::downstream::Assignment;
use simla_run::inputs::{Inputs, Kind};

use crate::commands::finetune::tuning::{Tuning, tune, tuning_help};

/// Pre-trains a model further for NLVR2: which of two pictures does a caption fit, if any?
///
/// The data are image-caption pairs, as for `simla pretrain`, best those that the model was pre-trained on; an epoch is enough. The model
/// learns to read two pictures at once, and `simla finetune nlvr2` starts from it. Interruption (Ctrl-C, status 75) and --resume are as
/// in `simla pretrain`.
#[derive(Args)]
#[command(after_long_help = tuning_help(Kind::TextAssignment))]
pub struct Arguments {
    #[command(flatten)]
    tuning: Tuning,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    tune::<Assignment>(arguments.tuning, Inputs::default())
}
