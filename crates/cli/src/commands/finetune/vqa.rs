//! `simla finetune vqa`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla_run::downstream::Vqa;
use simla_run::inputs::{Inputs, Kind};

use crate::commands::finetune::tuning::{Blind, Tuning, tune, tuning_help};

/// Fine-tunes a model to answer questions about pictures
///
/// The data are `[{"image": "path", "question": "text", "question_id": 1, "answer": "text" or ["text", ...]}]`, VQA v2's own files of
/// questions with --annotations, or Visual Genome's; gzipped or not. Interruption (Ctrl-C, status 75) and --resume are as in `simla
/// pretrain`. Sizes are the model's, but for image_size.
#[derive(Args)]
#[command(after_long_help = tuning_help(Kind::Vqa))]
pub struct Arguments {
    #[command(flatten)]
    tuning: Tuning,
    /// VQA v2's files of answers to the questions of --data and --eval-data
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "resume")]
    annotations: Vec<PathBuf>,
    /// The answers to choose among, `["yes", "no", ...]`; without, they are made from those of the data (min_answer_count, max_answers)
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    answers: Option<PathBuf>,
    #[command(flatten)]
    blind: Blind,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { tuning, annotations, answers, blind: Blind { blind } } = arguments;
    tune::<Vqa>(tuning, Inputs { annotations, answers, blind, ..Inputs::default() })
}
