//! Where in a picture is what a phrase names? Grad-CAM of the matching score on the cross-attention of a layer (figure 3).

use anyhow::Result;
use serde::Serialize;
use simla::tasks::boxes::{Bounds, Heat, best_window};
use simla::tasks::gradcam::{Map, of_matching};
use simla::tasks::pretrain::Model;
use tch::Tensor;

use super::Phrase;

/// Longest side of the heat in which the hottest point is looked for: in a photograph of a camera, memory for every pixel would be taken
/// to say it finer than a patch can tell.
const LONGEST: f64 = 1024.0;

/// Where a phrase is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grounded {
    /// As it was asked.
    pub phrase: String,
    /// Pixels of the picture, upright.
    pub width: u32,
    /// Pixels of the picture, upright.
    pub height: u32,
    /// Layer of cross-attention, from 0.
    pub layer: usize,
    /// Probability that phrase and picture belong together.
    pub probability: f32,
    /// The box that holds the heat best, in pixels; none where nothing is hot.
    #[serde(rename = "box")]
    pub bounds: Option<Bounds>,
    /// The hottest point, in pixels.
    pub point: Option<(f64, f64)>,
    /// Patches a side.
    pub grid: usize,
    /// A value a patch, row by row.
    pub map: Map,
    /// Each by itself.
    pub words: Vec<Word>,
}

/// Where a word of a phrase is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Word {
    /// As the phrase has it.
    pub word: String,
    /// The box that holds its heat best, in pixels.
    #[serde(rename = "box")]
    pub bounds: Option<Bounds>,
    /// A value a patch, row by row.
    pub map: Map,
}

/// Finds a phrase in the picture of `width` x `height` pixels whose patches are E_v's output `[1, 1 + P, D]`.
///
/// # Errors
/// What libtorch could not do.
pub fn ground(
    model: &Model,
    embeds: &Tensor,
    (width, height): (u32, u32),
    phrase: &Phrase,
    layer: usize,
) -> Result<Grounded> {
    let grid = model.simla.config.grid() as usize;
    let maps = of_matching(&model.simla, embeds, &[&phrase.ids], layer)?.remove(0);
    let window = |map: &[f32]| best_window(map, grid, width.into(), height.into());
    let words = maps.words(&model.vocabulary, &phrase.ids);
    let (across, down) = (f64::from(width), f64::from(height));
    let scale = (LONGEST / across.max(down)).min(1.0);
    let side = |length: f64| (length * scale).round().max(1.0);
    let point = Heat::spread(&maps.phrase, grid, side(across) as usize, side(down) as usize).peak();
    Ok(Grounded {
        phrase: phrase.text.clone(),
        width,
        height,
        layer,
        probability: maps.probability,
        bounds: window(&maps.phrase),
        point: point.map(|(x, y)| (x * across / side(across), y * down / side(down))),
        grid,
        words: words.into_iter().map(|(word, map)| Word { word, bounds: window(&map), map }).collect(),
        map: maps.phrase,
    })
}
