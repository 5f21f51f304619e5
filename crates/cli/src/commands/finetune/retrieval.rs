//! `simla finetune retrieval`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla::tasks::pretrain::{FINE_TUNING, Saved};

use crate::commands::finetune::tuning::tuning_help;
use crate::commands::training::{Resumable, conclude};
use simla_run::fit::Run;
use simla_run::inputs::{Inputs, Kind};
use simla_run::stop;

/// Fine-tunes a model to find captions for images and images for captions
///
/// Contrast (ITC) and matching (ITM) alone, on larger pictures than in pre-training: positions of patches are resampled. Each caption
/// is a pair of its own, seen once an epoch; pairs of the same image, by `image_id` or else by path, are positives of each other. The
/// data are as for `simla pretrain`, and so are interruption (Ctrl-C, status 75) and `--resume`. Sizes are the model's, but for
/// image_size and queue_size.
#[derive(Args)]
#[command(after_long_help = tuning_help(Kind::Retrieval))]
pub struct Arguments {
    #[command(flatten)]
    tuning: Aligning,
}

/// Arguments of the commands that train contrast and matching.
#[derive(Args)]
pub struct Aligning {
    /// The model to start from: the folder of a run, of `simla import authors`, or of an earlier fine-tuning
    #[arg(long, required_unless_present = "resume", conflicts_with = "resume", value_name = "RUN")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    run: Resumable,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    align(arguments.tuning, Kind::Retrieval)
}

/// Fine-tunes contrast and matching, on captions or on expressions as `kind` says.
pub fn align(arguments: Aligning, kind: Kind) -> Result<ExitCode> {
    let run = &arguments.run;
    if let Some(code) = run.training.launched()? {
        return Ok(code);
    }
    let compute = run.training.compute()?;
    let (folder, team) = (run.folder(), &compute.team);
    let (settings, inputs) = match run.resumed(kind, team)? {
        Some(resumed) => resumed,
        None => run.begun(kind, team, Inputs::default(), || {
            let model = Saved::open(arguments.checkpoint.as_ref().expect("clap asks for it"))?;
            let again = model.checkpoint.state.task == FINE_TUNING;
            Ok((model, again))
        })?,
    };
    let stop = stop::on_signal()?;
    let prepared = Run::prepare(folder, settings, inputs, &compute)?;
    let mut model = prepared.model()?;
    let resume = run.last_checkpoint(team, |tensors| model.load(tensors))?;
    let (_, ending) = prepared.train(model, None, resume.as_ref(), &stop)?;
    Ok(conclude(ending, kind, folder))
}
