//! `simla settings`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simla::config::{ModelConfig, SpecialIds};
use simla_run::answer;
use simla_run::inputs::Kind;
use simla_run::settings::{Settings, help, schema};

/// Explains the settings of training: what each is, its default, what it may be
///
/// Settings are given as `--set NAME=VALUE`, or one a line in the file of `--config`. A run's own are in its `config.toml`.
#[derive(Args)]
pub struct Arguments {
    /// A section, or a setting; all of them without
    #[arg(value_name = "SECTION")]
    name: Option<String>,
    /// Those of fine-tuning on a task, as `simla finetune` calls it, with its defaults for a model of each preset
    #[arg(long, value_name = "TASK", value_parser = task)]
    finetune: Option<Kind>,
    /// A JSON schema of the file, for editors
    #[arg(long, conflicts_with_all = ["name", "finetune"])]
    schema: bool,
}

fn task(name: &str) -> Result<Kind, String> {
    let expected = "expected retrieval, text-assignment, vqa, nlvr2 or entailment";
    let kind = serde_json::from_value(json!(name)).map_err(|_| expected)?;
    if kind == Kind::Pretraining { Err(expected.into()) } else { Ok(kind) }
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let name = arguments.name.as_deref();
    let text = if arguments.schema {
        serde_json::to_string_pretty(&schema())? + "\n"
    } else {
        let kind = arguments.finetune.unwrap_or(Kind::Pretraining);
        let defaults = |preset| match kind {
            Kind::Pretraining => Settings::preset(preset),
            _ => Settings::fine_tuning(kind, &ModelConfig::preset(preset, 1, SpecialIds::default()), false),
        };
        help(name, defaults, |name| Settings::is_read(kind, name))?
    };
    answer!("{text}");
    Ok(ExitCode::SUCCESS)
}
