//! What the commands that fine-tune have in common.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla::tasks::nlvr::TEXT_ASSIGNMENT;
use simla::tasks::pretrain::TASK;
use simla_run::downstream::{Downstream, finetune, start};
use simla_run::inputs::{Inputs, Kind};
use simla_run::settings::{Settings, sections_help};
use simla_run::stop;
use simla_train::Task;

use crate::commands::training::{Resumable, conclude};

/// Arguments of every task with a model of its own.
#[derive(Args)]
pub struct Tuning {
    /// The model to start from: the folder of a run, of `simla import authors`, or of an earlier fine-tuning on this task
    #[arg(long, required_unless_present = "resume", conflicts_with = "resume", value_name = "RUN")]
    checkpoint: Option<PathBuf>,
    #[command(flatten)]
    run: Resumable,
}

/// Whether pictures are seen.
#[derive(Args)]
pub struct Blind {
    /// Hide the pictures, to learn what can be told from the words alone
    #[arg(long, conflicts_with = "resume")]
    pub blind: bool,
}

/// The names of the settings that fine-tuning of this kind has, for `--help`.
pub fn tuning_help(kind: Kind) -> String {
    let task = kind.command().rsplit(' ').next().unwrap_or_default();
    sections_help(&format!("simla settings --finetune {task}"), |name| Settings::is_read(kind, name))
}

/// Fine-tunes on `D`; `given` are the inputs that it alone has.
pub fn tune<D: Downstream>(arguments: Tuning, given: Inputs) -> Result<ExitCode> {
    let (run, kind) = (&arguments.run, D::KIND);
    if let Some(code) = run.training.launched()? {
        return Ok(code);
    }
    let compute = run.training.compute()?;
    let team = &compute.team;
    let (settings, inputs) = match run.resumed(kind, team)? {
        Some(resumed) => resumed,
        None => run.begun(kind, team, given, || {
            let model = start::<D>(arguments.checkpoint.as_ref().expect("clap asks for it"))?;
            // Pre-training, text assignment included, sees smaller pictures.
            let again = ![TASK, TEXT_ASSIGNMENT].contains(&model.checkpoint.state.task.as_str());
            Ok((model, again))
        })?,
    };
    let stop = stop::on_signal()?;
    let last = |model: &mut D::Tuned| run.last_checkpoint(team, |tensors| model.load(tensors));
    let ending = finetune::<D>(run.folder(), settings, inputs, &compute, &stop, last)?;
    Ok(conclude(ending, kind, run.folder()))
}
