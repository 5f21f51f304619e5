//! `simla dvae`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use simla::settings::Settings;
use simla::train::Ending;

use crate::run::{Inputs, Run};
use crate::stop;

/// The visual tokenizer: a discrete VAE that turns patches into codes
#[derive(Subcommand)]
pub enum Command {
    Train(TrainArguments),
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
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

pub fn run(command: Command) -> Result<ExitCode> {
    let Command::Train(arguments) = command;
    let device = simla::device::open(&arguments.device)?;
    let file = arguments
        .config
        .as_deref()
        .map(|path| fs::read_to_string(path).with_context(|| path.display().to_string()));
    let settings = Settings::resolve(file.transpose()?.as_deref(), &arguments.set)?;
    let inputs = Inputs {
        data: arguments.data,
        image_root: arguments.image_root,
        vocabulary: None,
        dvae: None,
        held_out: None,
    };
    let stop = stop::on_signal()?;
    let run = Run::prepare(&arguments.output, settings, inputs, device)?;
    let ending = run.train_tokenizer(&arguments.output, &stop)?;
    if ending == Ending::Finished {
        eprintln!(
            "done: use it with simla pretrain --dvae {}",
            arguments.output.display()
        );
    }
    Ok(stop::code(ending))
}
