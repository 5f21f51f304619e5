//! `simla finetune retrieval`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla::tasks::pretrain::{FINE_TUNING, Saved, VOCABULARY};
use simla_run::settings::Settings;

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
    let device = arguments.run.training.device()?;
    let folder = arguments.run.folder()?;
    let (settings, inputs) = match arguments.run.resumed(kind)? {
        Some(resumed) => resumed,
        None => {
            let model = Saved::open(&arguments.checkpoint.expect("clap asks for it"))?;
            let again = model.checkpoint.state.task == FINE_TUNING;
            let training = &arguments.run.training;
            let settings = Settings::resolve_fine_tuning(
                kind,
                &Settings::fine_tuning(kind, &model.config, again),
                training.config()?.as_deref(),
                &training.set,
            )?;
            let inputs = Inputs {
                kind: Some(kind),
                data: arguments.run.data.clone(),
                image_root: training.image_root.clone(),
                vocabulary: Some(model.checkpoint.extra(VOCABULARY)),
                // This one, wherever its run goes on to.
                fine_tuned: Some(model.checkpoint.path),
                held_out: arguments.run.eval_data.clone(),
                ..Inputs::default()
            };
            (settings, inputs)
        }
    };
    let stop = stop::on_signal()?;
    let run = Run::prepare(&folder, settings, inputs, device)?;
    let mut model = run.model()?;
    let resume = arguments.run.last_checkpoint(|tensors| model.load(tensors))?;
    let (_, ending) = run.train(model, None, resume.as_ref(), &stop)?;
    Ok(conclude(ending, kind, &folder))
}
