//! `simla entail`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simla_data::Entailment;
use simla_run::asking::{Class, Judge};
use simla_run::photo::read;
use simla_run::settings::Dtype;

use crate::model::ModelArguments;
use simla_run::{answer, console};

/// Says whether a picture entails a sentence, contradicts it, or neither
///
/// The model is one of `simla finetune entailment`.
#[derive(Args)]
pub struct Arguments {
    /// The picture: JPEG, PNG or WebP
    image: PathBuf,
    /// The sentence
    sentence: String,
    #[command(flatten)]
    model: ModelArguments,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { image, sentence, model, json } = arguments;
    let judge = Judge::<Entailment>::open(&model.checkpoint, Dtype::F32.kind(), model.device.open()?)?;
    let name = image.display().to_string();
    let classes = judge.judge(&[(&name, &read(&image)?)], &sentence)?;
    match json {
        true => console::answer_json(&json!({"image": image, "sentence": sentence, "classes": sorted(classes)}))?,
        false => answer!("{}", lines(classes)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The likeliest first.
pub fn sorted(mut classes: Vec<Class>) -> Vec<Class> {
    classes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    classes
}

/// A line a class, the likeliest first.
pub fn lines(classes: Vec<Class>) -> String {
    let line = |class: Class| format!("{:>5.1} %  {}\n", 100.0 * class.probability, class.label);
    sorted(classes).into_iter().map(line).collect()
}
