//! Horizontal bars with a word and a number: the concepts of a picture (figure 5).

use crate::canvas::{Area, RULE, SERIES, fill};
use crate::text::{Block, Style};
use image::RgbImage;

/// Most bars in one place.
pub const MAX_BARS: usize = 50;

const HEIGHT: u32 = 20;
const GAP: u32 = 4;
const NUMBER_WIDTH: u32 = 40;

/// A word and its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// What the bar is about.
    pub label: String,
    /// Its length, from 0 to 1; what is not a number counts as 0.
    pub value: f32,
    /// Drawn in the colour of what is right: a concept that the caption names, say.
    pub marked: bool,
}

/// Height in pixels of some bars.
pub(crate) fn height(bars: &[Bar]) -> u32 {
    match bars.len().min(MAX_BARS) as u32 {
        0 => 0,
        shown => GAP + HEIGHT * shown,
    }
}

/// Draws bars one under the other: word, bar, number.
pub(crate) fn draw(canvas: &mut RgbImage, bars: &[Bar], x: i64, y: i64, width: u32) {
    let label_width = width * 2 / 5;
    let bar_x = x + i64::from(label_width) + 6;
    let bar_width = i64::from(width.saturating_sub(label_width + NUMBER_WIDTH + 12));
    let mut y = y + i64::from(GAP);
    for bar in bars.iter().take(MAX_BARS) {
        let value = if bar.value.is_finite() { bar.value.clamp(0.0, 1.0) } else { 0.0 };
        let area = |width| Area { x: bar_x, y: y + 5, width, height: i64::from(HEIGHT) - 9 };
        let color = SERIES[if bar.marked { 2 } else { 0 }];
        let filled = (f64::from(value) * bar_width as f64).round() as i64;
        fill(canvas, area(bar_width), RULE);
        fill(canvas, area(filled), color);
        Block::line(&bar.label, Style::BODY, label_width).draw(canvas, x, y);
        let number = Block::line(&format!("{value:.2}"), Style::NOTE, NUMBER_WIDTH);
        let number_x = x + i64::from(width.saturating_sub(number.width()));
        number.draw(canvas, number_x, y + 1);
        y += i64::from(HEIGHT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::blank;

    fn filled(value: f32) -> usize {
        let mut canvas = blank(300, GAP + HEIGHT);
        let bar = Bar { label: "dog".into(), value, marked: false };
        draw(&mut canvas, &[bar], 0, 0, 300);
        canvas.pixels().filter(|p| **p == SERIES[0]).count()
    }

    #[test]
    fn bars_are_as_long_as_their_value() {
        let full = filled(1.0);
        assert!(full > 1000);
        assert_eq!(filled(0.5) * 2, full);
        assert_eq!(filled(9.0), full);
        for nothing in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(filled(nothing), 0, "{nothing}");
        }
    }
}
