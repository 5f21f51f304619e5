//! `simla attention`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use simla::model::Simla;
use simla_pictures::canvas::save_png;
use simla_pictures::heat::HeatRow;

use crate::model::ModelArguments;
use simla_run::answer;
use simla_run::output::check_picture;
use simla_run::photo::{Seen, heat};
use simla_run::queries::attention::attention;

/// Shows where the image encoder looks
///
/// Self-attention of the visual [CLS] over the patches in the last layer, head by head (figure 2 of the paper). Each map has its own
/// scale: bright is where this head looks most.
#[derive(Args)]
pub struct Arguments {
    /// The picture: JPEG, PNG or WebP
    image: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
    /// PNG of the picture under the attention of every head
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrite the file that --output names
    #[arg(long)]
    force: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    check_picture(Some(&arguments.output), arguments.force, || vec![arguments.image.clone()])?;
    let model = arguments.model.open()?;
    let seen = Seen::open(&arguments.image, &model.simla)?;
    let title = "Where the visual [CLS] looks";
    save_png(&row(&model.simla, &seen, title)?.draw(), &arguments.output)?;
    answer!("{}", arguments.output.display());
    Ok(ExitCode::SUCCESS)
}

/// The picture under the attention of all heads together, and of each.
pub fn row<'a>(model: &Simla, seen: &'a Seen, title: &str) -> Result<HeatRow<'a>> {
    let found = attention(model, &seen.image)?;
    let each = (1..).zip(&found.heads).map(|(i, head)| (format!("head {i}"), heat(head, model)));
    Ok(HeatRow {
        title: title.into(),
        note: "Attention over the patches in the last layer, each map on its own scale".into(),
        picture: &seen.picture,
        maps: std::iter::once(("mean of the heads".into(), heat(&found.mean, model))).chain(each).collect(),
        same_scale: false,
    })
}
