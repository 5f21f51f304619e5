//! Pictures of what the model sees, with what it says in words.

use super::words::{clipped, grouped};
use crate::numbers::short_number;
use crate::run::SamplePicture;
use crate::samples::{Prediction, SampleSet};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::{ImageFormat, ImageReader};
use maud::{Markup, html};
use std::io::Cursor;

/// Most samples, words and keywords told under a picture.
const MAX_SAMPLES: usize = 24;

/// A picture wider than this, in pixels, is not shrunk to a phone's width but scrolled.
const WIDE: u32 = 800;

/// One picture with its words.
pub(super) fn card(sample: &SamplePicture) -> Markup {
    let SampleSet { title, text, step, samples } = &sample.set;
    let heading = match (title.is_empty(), step) {
        (false, _) => clipped(title),
        (true, Some(step)) => format!("After step {}", grouped(*step)),
        (true, None) => clipped(&sample.name),
    };
    html! {
        div class="sample" {
            h3 { (heading) }
            @if !text.is_empty() { p { (clipped(text)) } }
            @match sample.png.as_deref().map(|png| (png, size(png))) {
                Some((png, Some((width, height)))) => div class="scroll" {
                    img width=(width) height=(height) class=[(width > WIDE).then_some("wide")] alt=(heading)
                        src={ "data:image/png;base64," (BASE64_STANDARD.encode(png)) };
                },
                Some((_, None)) => p class="bad" { (clipped(&sample.name)) ".png is no PNG file." },
                None => p class="faint" { (clipped(&sample.name)) ".png is too large for this page." },
            }
            @if !samples.is_empty() {
                details {
                    summary { "In words" }
                    @for sample in samples.iter().take(MAX_SAMPLES) { (sample_words(sample)) }
                }
            }
        }
    }
}

/// Width and height of a PNG file; None: it is none.
fn size(png: &[u8]) -> Option<(u32, u32)> {
    let reader = ImageReader::with_format(Cursor::new(png), ImageFormat::Png);
    reader.into_dimensions().ok()
}

fn sample_words(sample: &Prediction) -> Markup {
    html! {
        p {
            (clipped(&sample.caption))
            @if !sample.masked.is_empty() { br; span class="faint" { (clipped(&sample.masked)) } }
            @for word in sample.words.iter().take(MAX_SAMPLES) {
                br;
                span class=(if word.truth == word.guess { "good" } else { "bad" }) {
                    (clipped(&word.truth)) " → " (clipped(&word.guess))
                }
                span class="faint" { " (" (short_number(f64::from(100.0 * word.probability).round())) "%)" }
            }
            @if !sample.keywords.is_empty() {
                br;
                "Keywords: "
                @for (number, keyword) in sample.keywords.iter().take(MAX_SAMPLES).enumerate() {
                    @if number > 0 { ", " }
                    span class=[keyword.in_caption.then_some("good")] { (clipped(&keyword.word)) }
                    span class="faint" { " " (short_number(f64::from(keyword.score))) }
                }
            }
        }
    }
}
