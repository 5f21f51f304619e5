//! `simla pretrain`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla_train::Ending;

use crate::commands::training::{Resumable, conclude, settings_help};
use simla_run::fit::Run;
use simla_run::inputs::{Inputs, Kind, Moved};
use simla_run::{init, stop};

/// Pre-trains a model on image-caption pairs
///
/// The data are JSON files in the layout `[{"image": "path", "caption": "text" or ["text", ...]}]`, paths relative to the file; CSV or
/// TSV files with such columns; tar shards as img2dataset writes them, as files, patterns like `{000..041}.tar` or folders; folders of
/// photographs with a .txt or .json beside each. Shards may be on a store: `s3://bucket/{000..041}.tar`, or all below
/// `s3://bucket/shards/`; gs://, az:// and https:// too. Several are mixed; FILE@2 shows its records twice an epoch, FILE@0.5 half of them.
/// Everything that the run makes goes into the output folder. Interrupted (Ctrl-C), it finishes its step, saves, and exits with
/// status 75; `--resume` goes on from there.
#[derive(Args)]
#[command(after_long_help = settings_help())]
pub struct Arguments {
    #[command(flatten)]
    run: Resumable,
    /// A vocab.txt or tokenizer.json to use; without, word pieces are learned from the captions
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// A visual tokenizer to use; without, one is trained on the same images first
    #[arg(long, value_name = "DIR")]
    dvae: Option<PathBuf>,
    /// Weights to start from, in place of random ones: folders of `simla import` or of another run. Sizes are those of the weights;
    /// positions and patch kernels are resampled where image_size or patch_size are set otherwise
    #[arg(long, num_args = 1.., value_name = "DIR")]
    init: Vec<PathBuf>,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    if let Some(code) = arguments.run.training.launched()? {
        return Ok(code);
    }
    let compute = arguments.run.training.compute()?;
    let (folder, team) = (arguments.run.folder(), &compute.team);
    let (settings, inputs) = match arguments.run.resumed(Kind::Pretraining, team)? {
        Some((settings, inputs)) => {
            let moved = Moved {
                dvae: inputs.dvae.is_some() && arguments.dvae.is_some(),
                init: !arguments.init.is_empty(),
                ..inputs.moved
            };
            let dvae = arguments.dvae.or(inputs.dvae);
            let init = if moved.init { arguments.init } else { inputs.init };
            (settings, Inputs { dvae, init, moved, ..inputs })
        }
        None => {
            let weights = team.first(|| init::decided(&arguments.init))?;
            let settings = arguments.run.training.settings_on(compute.device, weights, team)?;
            let inputs = Inputs {
                kind: Some(Kind::Pretraining),
                data: arguments.run.data.clone(),
                image_root: arguments.run.training.image_root.clone(),
                vocabulary: arguments.vocabulary,
                dvae: arguments.dvae,
                init: arguments.init,
                held_out: arguments.run.eval_data.clone(),
                ..Inputs::default()
            };
            (settings, inputs)
        }
    };
    let stop = stop::on_signal()?;
    let run = Run::prepare(folder, settings, inputs, &compute)?;
    // What does not fit is said before a tokenizer is trained.
    let begun = (!run.inputs.init.is_empty()).then(|| run.model()).transpose()?;
    let (dvae, ending) = run.tokenizer(&stop)?;
    let ending = match ending {
        Ending::Finished => {
            let mut model = begun.map_or_else(|| run.model(), Ok)?;
            let resume = arguments.run.last_checkpoint(team, |tensors| model.load(tensors))?;
            run.train(model, dvae, resume.as_ref(), &stop)?.1
        }
        Ending::Stopped => ending,
    };
    Ok(conclude(ending, Kind::Pretraining, folder))
}
