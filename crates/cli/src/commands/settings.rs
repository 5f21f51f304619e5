//! `simla settings`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla::config::{ModelConfig, SpecialIds};
use simla_run::settings::{Settings, help, schema};

/// Explains the settings of training: what each is, its default, what it may be
///
/// Settings are given as `--set NAME=VALUE`, or one a line in the file of `--config`. A run's own are in its `config.toml`.
#[derive(Args)]
pub struct Arguments {
    /// A section, or a setting; all of them without
    #[arg(value_name = "SECTION")]
    name: Option<String>,
    /// Those of fine-tuning, with its defaults for a model of each preset
    #[arg(long)]
    finetune: bool,
    /// A JSON schema of the file, for editors
    #[arg(long, conflicts_with_all = ["name", "finetune"])]
    schema: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let name = arguments.name.as_deref();
    let text = if arguments.schema {
        serde_json::to_string_pretty(&schema())? + "\n"
    } else if arguments.finetune {
        let defaults = |preset| Settings::fine_tuning(&ModelConfig::preset(preset, 1, SpecialIds::default()), false);
        help(name, defaults, Settings::is_of_fine_tuning)?
    } else {
        help(name, Settings::preset, |_| true)?
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}
