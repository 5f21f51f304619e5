//! `simla finetune nlvr2`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla_data::Statement;
use simla_run::inputs::{Inputs, Kind};

use crate::commands::finetune::tuning::{Blind, Tuning, tune, tuning_help};

/// Fine-tunes a model to say whether a statement about two pictures is true
///
/// The data are `[{"images": ["left", "right"], "sentence": "text", "label": "True" or "False"}]`, or NLVR2's own files, with
/// --image-root for the folder of their pictures. The model to start from has best gone through `simla finetune text-assignment`.
/// Interruption (Ctrl-C, status 75) and --resume are as in `simla pretrain`. Sizes are the model's, but for image_size.
#[derive(Args)]
#[command(after_long_help = tuning_help(Kind::Nlvr2))]
pub struct Arguments {
    #[command(flatten)]
    tuning: Tuning,
    #[command(flatten)]
    blind: Blind,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    tune::<Statement>(arguments.tuning, Inputs { blind: arguments.blind.blind, ..Inputs::default() })
}
