//! `simla ground`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simla_pictures::canvas::save_png;
use simla_pictures::heat::{BoxKind, Overlay, word_by_word};

use crate::model::ModelArguments;
use simla_run::output::check_picture;
use simla_run::photo::{Seen, heat, layer, marked};
use simla_run::queries::Phrase;
use simla_run::queries::ground::ground;
use simla_run::{answer, console, say};

/// Finds in a picture what a phrase names
///
/// Grad-CAM of the matching score on the cross-attention of a layer: which patches, read by which words, speak for phrase and picture
/// belonging together? The box is the rectangle that holds the heat best: largest sum over the root of the area, in steps of half
/// patches.
#[derive(Args)]
pub struct Arguments {
    /// The picture: JPEG, PNG or WebP
    image: PathBuf,
    /// What to look for
    phrase: String,
    #[command(flatten)]
    model: ModelArguments,
    /// Layer of the cross-attention, from 0 [default: two thirds of the way up, 8 of 12 in the paper]
    #[arg(long)]
    layer: Option<usize>,
    /// PNG of the picture under the phrase's heat with the box, and the heat of every word
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file that --output names
    #[arg(long)]
    force: bool,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    check_picture(arguments.output.as_deref(), arguments.force, || vec![arguments.image.clone()])?;
    let model = arguments.model.open()?;
    let layer = layer(arguments.layer, &model.simla)?;
    let phrase = Phrase::new(&arguments.phrase, &model.vocabulary, model.simla.config.max_positions as usize)?;
    if let Some(note) = phrase.note() {
        say!("{note}");
    }
    let seen = Seen::open(&arguments.image, &model.simla)?;
    let (width, height) = seen.picture.dimensions();
    let found = ground(&model, &seen.embeds(&model.simla)?, (width, height), &phrase, layer)?;
    if let Some(path) = &arguments.output {
        let overlay = Overlay {
            picture: &seen.picture,
            heat: &heat(&found.map, &model.simla),
            peak: None,
            boxes: found.bounds.map(|b| marked(b, BoxKind::Chosen)).into_iter().collect(),
            caption: format!("“{}”: matches with probability {:.2}", arguments.phrase, found.probability),
        };
        let words = found.words.iter().map(|word| (word.word.clone(), heat(&word.map, &model.simla))).collect();
        save_png(&word_by_word(&overlay, words, layer), path)?;
    }
    if arguments.json {
        let mut told = serde_json::to_value(&found)?;
        told["image"] = json!(arguments.image);
        console::answer_json(&told)?;
        return Ok(ExitCode::SUCCESS);
    }
    answer!("{:?} matches {} with probability {:.2}", arguments.phrase, arguments.image.display(), found.probability);
    match (found.bounds, found.point) {
        (Some(b), Some((x, y))) => answer!(
            "best box: left {:.0}, top {:.0}, width {:.0}, height {:.0}; hottest point: {x:.0}, {y:.0} (pixels of {width} x {height}; layer {layer})",
            b.x,
            b.y,
            b.width,
            b.height
        ),
        _ => answer!("nothing in the picture speaks for it in layer {layer}"),
    }
    if let Some(path) = &arguments.output {
        answer!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}
