//! `simla export`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use simla::import;
use simla::tasks::pretrain::Saved;
use simla_run::output::check_file;
use simla_run::say;

/// A model for other programs
#[derive(Subcommand)]
pub enum Command {
    /// What the authors' PyTorch code loads: their names, as safetensors or as a file of PyTorch
    Authors(Arguments),
}

#[derive(Args)]
pub struct Arguments {
    /// The model: a run's folder, or a checkpoint's
    #[arg(value_name = "RUN")]
    checkpoint: PathBuf,
    /// The file to write: .safetensors, or .pth with the weights as `model`
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrites the file that --output names
    #[arg(long)]
    force: bool,
}

pub fn run(command: Command) -> Result<ExitCode> {
    let Command::Authors(Arguments { checkpoint, output, force }) = command;
    let saved = Saved::open(&checkpoint)?;
    check_file(Some(&output), import::EXPORT_ENDINGS, force, || saved.checkpoint.files())?;
    saved.checkpoint.verify()?;
    import::export(saved.checkpoint.model()?, saved.config.concept_scale, &output)?;
    let c = &saved.config;
    say!(
        "{}: {} layers of vision, {} of text, width {}, {} and {} heads, {} pixels in patches of {}",
        output.display(),
        c.vision_depth,
        c.text_depth,
        c.text_width,
        c.vision_heads,
        c.text_heads,
        c.image_size,
        c.patch_size
    );
    if c.closing_sep {
        say!("it reads text that ends in [SEP], which the authors' own tokenizer leaves out: put it in");
    }
    Ok(ExitCode::SUCCESS)
}
