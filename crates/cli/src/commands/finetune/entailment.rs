//! `simla finetune entailment`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla_data::Entailment;
use simla_run::inputs::{Inputs, Kind};

use crate::commands::finetune::tuning::{Blind, Tuning, tune, tuning_help};

/// Fine-tunes a model to say whether a picture entails a sentence
///
/// The data are `[{"image": "path", "sentence": "text", "label": "entailment", "neutral" or "contradiction"}]`, or SNLI-VE's own files, with
/// --image-root for the folder of the photographs. Interruption (Ctrl-C, status 75) and --resume are as in `simla pretrain`. Sizes are
/// the model's, but for image_size.
#[derive(Args)]
#[command(after_long_help = tuning_help(Kind::Entailment))]
pub struct Arguments {
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    blind: Blind,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    tune::<Entailment>(arguments.tuning, Inputs { blind: arguments.blind.blind, ..Inputs::default() })
}
