//! `simla dvae`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use simla::dvae::Dvae;
use simla::dvae::evaluation::{Evaluation, evaluate};
use simla_run::settings::{Decided, Dtype};
use simla_train::{Ending, Team};

use crate::commands::training::code;
use crate::commands::training::{Training, settings_help};
use crate::model::DeviceArguments;
use simla_run::fit::Run;
use simla_run::inputs::Inputs;
use simla_run::output::{check_picture, files_of};
use simla_run::progress::{Progress, say_broken};
use simla_run::sources::open_data;
use simla_run::stop;
use simla_run::tokenizer::{self, PICTURES};
use simla_run::{answer, console, say};

/// The visual tokenizer: a discrete VAE that turns patches into codes
#[derive(Subcommand)]
pub enum Command {
    Train(TrainArguments),
    Eval(EvalArguments),
}

/// Trains a tokenizer, or goes on with one
///
/// Its sizes are visual_vocab, dvae_width, image_size and patch_size; settings of the model and its objectives do nothing here.
#[derive(Args)]
#[command(after_long_help = settings_help())]
pub struct TrainArguments {
    /// Files of image-caption pairs; the captions are not used
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Folder for the tokenizer; one that is there already goes on from its last checkpoint
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Held-out pictures: reconstruction and use of the codes are measured on them (eval_every_steps, and at the end)
    #[arg(long, value_name = "FILE")]
    eval_data: Option<PathBuf>,
    #[command(flatten)]
    training: Training,
}

/// Measures a tokenizer on pictures that it was not trained on: error of the reconstruction, use of the codes
#[derive(Args)]
pub struct EvalArguments {
    /// Folder of the tokenizer
    #[arg(long, value_name = "DIR")]
    dvae: PathBuf,
    /// Held-out pictures
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Draw originals beside their reconstructions
    #[arg(long, value_name = "FILE.png")]
    sheet: Option<PathBuf>,
    /// Overwrite the file that --sheet names
    #[arg(long)]
    force: bool,
    /// Pictures to draw
    #[arg(long, default_value_t = PICTURES, value_name = "N")]
    samples: usize,
    #[command(flatten)]
    device: DeviceArguments,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Train(arguments) => train(arguments),
        Command::Eval(arguments) => eval(&arguments),
    }
}

fn eval(arguments: &EvalArguments) -> Result<ExitCode> {
    let device = arguments.device.open()?;
    let dvae = Dvae::open(&arguments.dvae, Dtype::F32.kind(), device)?;
    let dataset = open_data(&arguments.data, arguments.image_root.as_deref(), 1.0)?;
    check_picture(arguments.sheet.as_deref(), arguments.force, || files_of(&dataset))?;
    if arguments.sheet.is_some() && !dvae.config.decoder {
        bail!("--sheet: {} is an encoder without a decoder: nothing comes back", arguments.dvae.display());
    }
    let mut progress = Progress::new("pictures", 0, dataset.len());
    let found = evaluate(&dvae, &dataset, arguments.samples, &Team::alone(), &mut |done, _| {
        progress.set(done as u64, String::new);
    })?;
    drop(progress);
    say_broken(&found.broken, format_args!("of {} records", dataset.len()));
    if found.evaluation.images == 0 {
        bail!("{}: no usable record", arguments.data.join(", "));
    }
    if let Some(path) = &arguments.sheet {
        tokenizer::save(&found, path)?;
    }
    match arguments.json {
        true => console::answer_json(&found.evaluation)?,
        false => answer!("{}", table(&found.evaluation)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(found: &Evaluation) -> String {
    let error = found.error.map_or("no decoder".into(), |error| format!("{error:.4} of the pixels' variance"));
    format!(
        "{} pictures\nreconstruction error  {error}\ncodes used            {:.1} % of {}\nperplexity            {:.1}\n",
        found.images,
        100.0 * found.codes_used,
        found.codes,
        found.perplexity
    )
}

fn train(arguments: TrainArguments) -> Result<ExitCode> {
    if let Some(code) = arguments.training.launched()? {
        return Ok(code);
    }
    let compute = arguments.training.compute()?;
    let settings = compute.team.all(arguments.training.settings(Decided::default(), &compute.team))?;
    let inputs = Inputs {
        data: arguments.data,
        image_root: arguments.training.image_root,
        held_out: arguments.eval_data,
        ..Inputs::default()
    };
    let stop = stop::on_signal()?;
    let run = Run::prepare_tokenizer(&arguments.output, settings, inputs, &compute)?;
    let ending = run.train_tokenizer(&arguments.output, &stop)?;
    if ending == Ending::Finished {
        say!("done: use it with simla pretrain --dvae {}", arguments.output.display());
    }
    Ok(code(ending))
}
