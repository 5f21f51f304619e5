//! `simla ground`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simla::tasks::boxes::{Heat, best_window};
use simla::tasks::gradcam::of_matching;
use simla_pictures::canvas::{save_png, stack};
use simla_pictures::heat::{BoxKind, HeatRow, Overlay};

use crate::model::ModelArguments;
use simla_run::output::check_picture;
use simla_run::photo::{Seen, heat, layer, marked, phrase_ids};
use simla_run::{answer, console};

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
    let ids = phrase_ids(&arguments.phrase, &model)?;
    let seen = Seen::open(&arguments.image, &model.simla)?;
    let maps = of_matching(&model.simla, &seen.embeds(&model.simla)?, &[&ids], layer)?.remove(0);
    let words = maps.words(&model.vocabulary, &ids);

    let grid = model.simla.config.grid() as usize;
    let (width, height) = seen.picture.dimensions();
    let window = |map: &[f32]| best_window(map, grid, width.into(), height.into());
    let found = window(&maps.phrase);
    let point = Heat::spread(&maps.phrase, grid, width as usize, height as usize).peak();
    if let Some(path) = &arguments.output {
        let overlay = Overlay {
            picture: &seen.picture,
            heat: &heat(&maps.phrase, &model.simla),
            peak: None,
            boxes: found.iter().map(|&b| marked(b, BoxKind::Chosen)).collect(),
            caption: format!("“{}”: matches with probability {:.2}", arguments.phrase, maps.probability),
        };
        let row = HeatRow {
            title: String::new(),
            note: format!("Word by word, layer {layer}, on one scale"),
            picture: &seen.picture,
            maps: words.iter().map(|(word, map)| (word.clone(), heat(map, &model.simla))).collect(),
            same_scale: true,
        };
        save_png(&stack(&[overlay.draw(), row.draw()]), path)?;
    }
    if arguments.json {
        let words: Vec<_> =
            words.iter().map(|(word, map)| json!({"word": word, "box": window(map), "map": map})).collect();
        console::answer_json(&json!({
            "image": arguments.image, "phrase": arguments.phrase, "width": width, "height": height, "layer": layer,
            "probability": maps.probability, "box": found, "point": point, "grid": grid, "map": maps.phrase, "words": words,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    answer!("{:?} matches {} with probability {:.2}", arguments.phrase, arguments.image.display(), maps.probability);
    match (found, point) {
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
