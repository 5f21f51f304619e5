//! `simla dvae`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use simla::dvae::Dvae;
use simla::dvae::evaluation::{Evaluation, evaluate};
use simla::settings::{Dtype, Settings};
use simla::train::Ending;

use crate::console::{Progress, say_broken};
use crate::reconstructions::{self, PICTURES};
use crate::run::{Inputs, Run, open_data};
use crate::stop;

/// The visual tokenizer: a discrete VAE that turns patches into codes
#[derive(Subcommand)]
pub enum Command {
    Train(TrainArguments),
    Eval(EvalArguments),
}

/// Trains a tokenizer, or goes on with one
#[derive(Args)]
#[command(after_long_help = super::pretrain::settings_help())]
pub struct TrainArguments {
    /// Files of image-caption pairs; the captions are not used
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Folder for the tokenizer; one that is there already goes on from its last checkpoint
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Settings in a TOML file, as name = value
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, over the file's: dvae_steps, dvae_width, visual_vocab, image_size, ... (--help lists all)
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Folder that image paths of all data are relative to, in place of each file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Held-out pictures: reconstruction and use of the codes are measured on them (eval_every_steps, and at the end)
    #[arg(long, value_name = "FILE")]
    eval_data: Option<PathBuf>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
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
    /// Pictures to draw
    #[arg(long, default_value_t = PICTURES, value_name = "N")]
    samples: usize,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
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
    let device = simla::device::open(&arguments.device)?;
    let dvae = Dvae::open(&arguments.dvae, Dtype::F32.kind(), device)?;
    let dataset = open_data(&arguments.data, arguments.image_root.as_deref(), 1.0)?;
    if arguments.sheet.is_some() && !dvae.config.decoder {
        bail!(
            "--sheet: {} is an encoder without a decoder: nothing comes back",
            arguments.dvae.display()
        );
    }
    let mut progress = Progress::new("pictures", 0, dataset.len());
    let found = evaluate(&dvae, &dataset, arguments.samples, &mut |done, _| {
        progress.set(done as u64, String::new);
    })?;
    drop(progress);
    say_broken(&found.broken, format_args!("of {} records", dataset.len()));
    if found.evaluation.images == 0 {
        bail!("{}: no usable record", arguments.data.join(", "));
    }
    if let Some(path) = &arguments.sheet {
        reconstructions::save(&found, path)?;
    }
    match arguments.json {
        true => println!("{}", serde_json::to_string(&found.evaluation)?),
        false => print!("{}", table(&found.evaluation)),
    }
    Ok(ExitCode::SUCCESS)
}

fn table(found: &Evaluation) -> String {
    let error = found.error.map_or("no decoder".into(), |error| {
        format!("{error:.4} of the pixels' variance")
    });
    format!(
        "{} pictures\nreconstruction error  {error}\ncodes used            {:.1} % of {}\nperplexity            {:.1}\n",
        found.images,
        100.0 * found.codes_used,
        found.codes,
        found.perplexity
    )
}

fn train(arguments: TrainArguments) -> Result<ExitCode> {
    let device = simla::device::open(&arguments.device)?;
    let file = arguments
        .config
        .as_deref()
        .map(|path| fs::read_to_string(path).with_context(|| path.display().to_string()));
    let settings = Settings::resolve(file.transpose()?.as_deref(), &arguments.set)?;
    let inputs = Inputs {
        data: arguments.data,
        image_root: arguments.image_root,
        held_out: arguments.eval_data,
        ..Inputs::default()
    };
    let stop = stop::on_signal()?;
    let run = Run::prepare_tokenizer(&arguments.output, settings, inputs, device)?;
    let ending = run.train_tokenizer(&arguments.output, &stop)?;
    if ending == Ending::Finished {
        eprintln!(
            "done: use it with simla pretrain --dvae {}",
            arguments.output.display()
        );
    }
    Ok(stop::code(ending))
}
