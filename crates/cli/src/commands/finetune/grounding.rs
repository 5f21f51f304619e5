//! `simla finetune grounding`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla_run::inputs::Kind;

use crate::commands::finetune::retrieval::{Aligning, align};
use crate::commands::finetune::tuning::tuning_help;

/// Fine-tunes a model to find what an expression names, without ever seeing a box
///
/// As `simla finetune retrieval`, on pictures with expressions: contrast (ITC) and matching (ITM), expressions of one image file being
/// positives of each other. Pictures are resized, not cropped. The data are the authors' `[{"image", "text"}]`, or REFER's `refs(unc).p` (a
/// pickle of which nothing is run) with `instances.json` beside it: of that the split `train`, and `val` of --eval-data, whose boxes choose
/// the best checkpoint: by the share of expressions that are found among a detector's boxes (`dets.json` beside it), or else among the
/// picture's own. `simla eval grounding` measures before and after.
#[derive(Args)]
#[command(after_long_help = tuning_help(Kind::Grounding))]
pub struct Arguments {
    #[command(flatten)]
    tuning: Aligning,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    align(arguments.tuning, Kind::Grounding)
}
