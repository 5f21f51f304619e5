//! `simla compare`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simla_data::Statement;
use simla_run::asking::Judge;
use simla_run::photo::read;
use simla_run::settings::Dtype;

use crate::commands::entail::{lines, sorted};
use crate::model::ModelArguments;
use simla_run::{answer, console};

/// Says whether a statement about two pictures is true
///
/// The model is one of `simla finetune nlvr2`.
#[derive(Args)]
pub struct Arguments {
    /// The left picture: JPEG, PNG or WebP
    left: PathBuf,
    /// The right picture
    right: PathBuf,
    /// The statement
    statement: String,
    #[command(flatten)]
    model: ModelArguments,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let Arguments { left, right, statement, model, json } = arguments;
    let judge = Judge::<Statement>::open(&model.checkpoint, Dtype::F32.kind(), model.device.open()?)?;
    let names = [&left, &right].map(|path| path.display().to_string());
    let photos = [read(&left)?, read(&right)?];
    let classes = judge.judge(&[(&names[0], &photos[0]), (&names[1], &photos[1])], &statement)?;
    match json {
        true => console::answer_json(
            &json!({"left": left, "right": right, "statement": statement, "classes": sorted(classes)}),
        )?,
        false => answer!("{}", lines(classes)),
    }
    Ok(ExitCode::SUCCESS)
}
