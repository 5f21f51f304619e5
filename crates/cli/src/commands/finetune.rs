//! `simla finetune`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use simla::config::{ModelConfig, SpecialIds};
use simla::settings::Settings;
use simla::tasks::pretrain::{FINE_TUNING, Saved, VOCABULARY};

use crate::commands::training::{
    Training, conclude, help_of, last_checkpoint, refuse_run, resumed,
};
use crate::run::{Inputs, Run};
use crate::stop;

/// Trains a pre-trained model further, for one task
#[derive(Subcommand)]
pub enum Command {
    Retrieval(RetrievalArguments),
}

/// Fine-tunes a model to find captions for images and images for captions
///
/// Contrast (ITC) and matching (ITM) alone, on larger pictures than in pre-training: positions of patches are resampled. Each caption
/// is a pair of its own, seen once an epoch; pairs of the same image, by `image_id` or else by path, are positives of each other. The
/// data are as for `simla pretrain`, and so are interruption (Ctrl-C, status 75) and `--resume`. Sizes are the model's, but for
/// image_size and queue_size.
#[derive(Args)]
#[command(after_long_help = settings_help())]
pub struct RetrievalArguments {
    /// The model to start from: the folder of a run, of `simla import authors`, or of an earlier fine-tuning
    #[arg(long, required_unless_present = "resume", value_name = "RUN")]
    checkpoint: Option<PathBuf>,
    /// Image-caption pairs: files, patterns or folders
    #[arg(long, required_unless_present = "resume", num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Folder for the run
    #[arg(long, required_unless_present = "resume", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Go on with the run in this folder, from its last checkpoint
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "data", "output", "config"])]
    resume: Option<PathBuf>,
    /// With --resume: take the newest checkpoint that is whole and fits, where the last one does not
    #[arg(long, requires = "resume")]
    allow_older: bool,
    /// Held-out pairs: retrieval is measured on them while the run goes on (eval_every_steps)
    #[arg(long, value_name = "FILE")]
    eval_data: Option<PathBuf>,
    #[command(flatten)]
    training: Training,
}

/// The settings that fine-tuning has, with their defaults for a model of each preset.
fn settings_help() -> String {
    let defaults = |preset| {
        let model = ModelConfig::preset(preset, 1, SpecialIds::default());
        Settings::fine_tuning(&model, false)
    };
    help_of(
        "defaults for a model of preset",
        defaults,
        Settings::is_of_fine_tuning,
    )
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Retrieval(arguments) => retrieval(arguments),
    }
}

fn retrieval(arguments: RetrievalArguments) -> Result<ExitCode> {
    let device = arguments.training.device()?;
    let (folder, settings, inputs) = match &arguments.resume {
        Some(folder) => {
            let (settings, inputs) = resumed(folder, &arguments.training.set)?;
            if inputs.fine_tuned.is_none() {
                bail!(
                    "{0}: a pre-training; go on with simla pretrain --resume {0}",
                    folder.display()
                );
            }
            let inputs = Inputs {
                held_out: arguments.eval_data.or(inputs.held_out),
                image_root: arguments.training.image_root.or(inputs.image_root),
                ..inputs
            };
            (folder.clone(), settings, inputs)
        }
        None => {
            let model = Saved::open(&arguments.checkpoint.expect("clap asks for it"))?;
            let again = model.checkpoint.state.task == FINE_TUNING;
            let settings = Settings::resolve_fine_tuning(
                &Settings::fine_tuning(&model.config, again),
                arguments.training.config()?.as_deref(),
                &arguments.training.set,
            )?;
            let folder = arguments.output.expect("clap asks for it");
            refuse_run(&folder)?;
            let inputs = Inputs {
                data: arguments.data,
                image_root: arguments.training.image_root,
                vocabulary: Some(model.checkpoint.extra(VOCABULARY)),
                // This one, wherever its run goes on to.
                fine_tuned: Some(model.checkpoint.path),
                held_out: arguments.eval_data,
                ..Inputs::default()
            };
            (folder, settings, inputs)
        }
    };
    let stop = stop::on_signal()?;
    let run = Run::prepare(&folder, settings, inputs, device)?;
    let mut model = run.model()?;
    let resume = match arguments.resume.is_some() {
        true => last_checkpoint(&folder, &mut model, arguments.allow_older)?,
        false => None,
    };
    let (_, ending) = run.train(model, None, resume.as_ref(), &stop)?;
    Ok(conclude(ending, "simla finetune retrieval", &folder))
}
