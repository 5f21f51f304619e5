//! What the model says about a few fixed held-out pairs, as a picture and a small file beside it.
//!
//! The words it would put in for masked ones, masked patches and what it makes of them through the
//! dVAE's decoder, and the concepts it recommends (figure 5).

use crate::bars::Bar;
use crate::canvas::{save_bytes, save_png};
use crate::error::PicturesError;
use crate::sheet::{Cell, Sheet};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Side of a picture in pixels: two samples of four pictures stand side by side.
const SIDE: u32 = 140;

/// A masked word and the model's word for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WordGuess {
    /// The word of the caption.
    pub truth: String,
    /// The word that the model finds likeliest.
    pub guess: String,
    /// Its probability.
    #[serde(default)]
    pub probability: f32,
}

/// A recommended keyword.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Keyword {
    /// The word.
    pub word: String,
    /// Its score from 0 to 1.
    pub score: f32,
    /// The caption has it.
    #[serde(default)]
    pub in_caption: bool,
}

/// One pair, seen by the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prediction {
    /// The caption.
    pub caption: String,
    /// The caption with masks for words.
    pub masked: String,
    /// The masked words in order.
    pub words: Vec<WordGuess>,
    /// Recommended keywords, best first.
    pub keywords: Vec<Keyword>,
}

/// Pictures of a sample, in the order of the sheet.
#[derive(Debug, Clone)]
pub struct SamplePictures {
    /// What the model sees.
    pub original: RgbImage,
    /// The same with masked patches greyed.
    pub masked: RgbImage,
    /// Through the dVAE's decoder, where there is one.
    pub decoded: Option<Decoded>,
}

/// A picture through the dVAE's decoder.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// Masked patches filled in by the model.
    pub filled: RgbImage,
    /// No patch masked: the best that filling in could give.
    pub whole: RgbImage,
}

/// All samples of one moment; the file beside a picture in `samples/`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleSet {
    /// Heading on the page. Empty: the step.
    pub title: String,
    /// What there is to say about the picture.
    pub text: String,
    /// The step after which the samples were made; without: they stand for the run as a whole.
    pub step: Option<u64>,
    /// What the model says.
    pub samples: Vec<Prediction>,
}

impl SampleSet {
    /// Draws samples with their pictures, one cell each.
    pub fn draw(&self, pictures: &[SamplePictures]) -> RgbImage {
        let cells = self.samples.iter().zip(pictures).map(|(sample, pictures)| Cell {
            pictures: pictures.in_order(),
            caption: sample.words_as_text(),
            bars: sample.bars(),
            ..Cell::default()
        });
        let step = self.step.map(|step| format!("Samples after step {step}"));
        let title = if self.title.is_empty() { step.unwrap_or_default() } else { self.title.clone() };
        let sheet = Sheet {
            title,
            note: "Original, masked patches, what the model puts in for them, and what the visual tokens \
                   could show at best. Bars: recommended keywords, green where the caption has them."
                .into(),
            cells: cells.collect(),
            side: SIDE,
            caption_lines: 12,
            ..Sheet::default()
        };
        sheet.draw()
    }

    /// Writes `NAME.json` and the picture as `NAME.png` into `folder`, the picture last: a page
    /// made in between shows neither or both.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, name: &str, picture: &RgbImage) -> Result<(), PicturesError> {
        let text = serde_json::to_vec_pretty(self).expect("plain words and numbers are JSON");
        save_bytes(&text, &folder.join(format!("{name}.json")))?;
        save_png(picture, &folder.join(format!("{name}.png")))
    }
}

impl SamplePictures {
    fn in_order(&self) -> Vec<RgbImage> {
        let decoded = self.decoded.iter().flat_map(|d| [&d.filled, &d.whole]);
        let pictures = [&self.original, &self.masked].into_iter().chain(decoded);
        pictures.cloned().collect()
    }
}

impl Prediction {
    fn words_as_text(&self) -> String {
        let mut lines = vec![self.caption.clone()];
        if !self.masked.is_empty() {
            lines.push(format!("masked: {}", self.masked));
        }
        lines.extend(self.words.iter().map(|word| {
            let sign = if word.guess == word.truth { "✓" } else { "✗" };
            let percent = 100.0 * word.probability;
            format!("{sign} {} → {} ({percent:.0}%)", word.truth, word.guess)
        }));
        lines.join("\n")
    }

    fn bars(&self) -> Vec<Bar> {
        let bar =
            |keyword: &Keyword| Bar { label: keyword.word.clone(), value: keyword.score, marked: keyword.in_caption };
        self.keywords.iter().map(bar).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::{PAPER, SERIES};
    use image::Rgb;

    fn set() -> SampleSet {
        let keyword = |word: &str, in_caption| Keyword { word: word.into(), score: 0.5, in_caption };
        SampleSet {
            step: Some(200),
            samples: vec![Prediction {
                caption: "a dog in the snow".into(),
                masked: "a [MASK] in the snow".into(),
                words: vec![WordGuess { truth: "dog".into(), guess: "cat".into(), probability: 0.25 }],
                keywords: vec![keyword("snow", true), keyword("winter", false)],
            }],
            ..SampleSet::default()
        }
    }

    fn pictures() -> SamplePictures {
        let plain = |shade| RgbImage::from_pixel(16, 16, Rgb([shade; 3]));
        SamplePictures {
            original: plain(10),
            masked: plain(20),
            decoded: Some(Decoded { filled: plain(30), whole: plain(40) }),
        }
    }

    #[test]
    fn a_sample_shows_its_pictures_and_both_kinds_of_keywords() {
        let canvas = set().draw(&[pictures()]);
        for color in [10, 20, 30, 40].map(|shade| Rgb([shade; 3])) {
            let count = canvas.pixels().filter(|pixel| **pixel == color).count();
            assert!(count as u32 >= SIDE * SIDE, "{color:?}: {count}");
        }
        for color in [SERIES[0], SERIES[2]] {
            assert!(canvas.pixels().any(|pixel| *pixel == color));
        }
    }

    #[test]
    fn guesses_are_told_as_text() {
        let text = set().samples[0].words_as_text();
        let expected = "a dog in the snow\nmasked: a [MASK] in the snow\n✗ dog → cat (25%)";
        assert_eq!(text, expected);
    }

    #[test]
    fn files_come_in_pairs() {
        let folder = tempfile::tempdir().unwrap();
        let picture = RgbImage::from_pixel(2, 2, PAPER);
        set().save(folder.path(), "step-200", &picture).unwrap();
        let text = std::fs::read(folder.path().join("step-200.json")).unwrap();
        assert_eq!(serde_json::from_slice::<SampleSet>(&text).unwrap(), set());
        assert!(folder.path().join("step-200.png").exists());
    }

    #[test]
    fn no_samples_still_draw() {
        assert!(SampleSet::default().draw(&[]).width() > 100);
        assert!(set().draw(&[]).width() > 100);
    }
}
