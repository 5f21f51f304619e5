//! Words in pictures, with fonts that travel in the binary: a fresh machine needs none.
//!
//! DejaVu Sans (Latin, Greek, Cyrillic, Hebrew, Arabic and more), with Noto Emoji behind it.
//! Lines are broken by Unicode's rules, and right-to-left text is joined and ordered. A
//! character of neither font (Chinese, say) shows as an empty box.

use crate::canvas::{FAINT, INK, blend};
use crate::fonts::{Placed, place, scale, width};
use ab_glyph::{Font, ScaleFont, point};
use ar_reshaper::ArabicReshaper;
use image::{Rgb, RgbImage};
use std::ops::Range;
use unicode_bidi::{BidiInfo, Level};
use unicode_linebreak::linebreaks;
use unicode_segmentation::UnicodeSegmentation;

/// Longest text that is laid out, in characters; what is beyond shows as an ellipsis. Bounds the
/// time that a stranger's caption can take.
pub const MAX_CHARACTERS: usize = 4096;

/// Distance of baselines as a multiple of the size.
const LINE_HEIGHT: f32 = 1.32;

const ELLIPSIS: char = '\u{2026}';

/// How a text looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Style {
    /// Size of the em square in pixels, as in CSS.
    pub size: f32,
    /// Bold or regular.
    pub bold: bool,
    /// Colour.
    pub color: Rgb<u8>,
}

impl Style {
    /// Heading of a picture.
    pub const TITLE: Self = Self::new(19.0, true, INK);
    /// Name of a part of a picture.
    pub const HEADING: Self = Self::new(14.0, true, INK);
    /// Captions.
    pub const BODY: Self = Self::new(13.0, false, INK);
    /// Explanations.
    pub const NOTE: Self = Self::new(12.0, false, FAINT);

    const fn new(size: f32, bold: bool, color: Rgb<u8>) -> Self {
        Self { size, bold, color }
    }

    /// The same in another colour.
    pub fn colored(self, color: Rgb<u8>) -> Self {
        Self { color, ..self }
    }

    /// Height of a line in pixels.
    pub fn line_height(self) -> u32 {
        (self.size * LINE_HEIGHT).ceil() as u32
    }
}

/// A text broken into lines, ready to be drawn.
pub struct Block {
    style: Style,
    max_width: f32,
    lines: Vec<Line>,
}

struct Line {
    glyphs: Vec<Placed>,
    width: f32,
    right_to_left: bool,
}

impl Block {
    /// Breaks `text` into at most `max_lines` lines of at most `max_width` pixels; what does not
    /// fit ends in an ellipsis. Words longer than a line are broken inside. New lines are kept,
    /// control characters are not. An empty text has no lines.
    pub fn new(text: &str, style: Style, max_width: u32, max_lines: usize) -> Self {
        let max_width = max_width as f32;
        let (text, mut cut) = cleaned(text);
        let mut lines: Vec<(String, Level)> = Vec::new();
        for paragraph in text.split('\n').filter(|_| !text.is_empty()) {
            let shaped = ArabicReshaper::default().reshape(paragraph);
            let level = BidiInfo::new(&shaped, None).paragraphs.first().map_or(Level::ltr(), |first| first.level);
            let ranges = line_ranges(&shaped, style, max_width);
            lines.extend(ranges.into_iter().map(|range| (shaped[range].trim_end().to_string(), level)));
        }
        cut |= lines.len() > max_lines;
        lines.truncate(max_lines);
        if let (true, Some((last, _))) = (cut, lines.last_mut()) {
            *last = with_ellipsis(last, style, max_width);
        }
        let lines = lines
            .into_iter()
            .map(|(line, level)| {
                let (glyphs, width) = place(&line, level, style);
                Line { glyphs, width, right_to_left: level.is_rtl() }
            })
            .collect();
        Self { style, max_width, lines }
    }

    /// A text on one line, cut with an ellipsis where it is wider than `max_width` pixels.
    pub fn line(text: &str, style: Style, max_width: u32) -> Self {
        Self::new(&text.replace('\n', " "), style, max_width, 1)
    }

    /// Number of lines.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Height in pixels.
    pub fn height(&self) -> u32 {
        self.style.line_height() * u32::try_from(self.lines.len()).unwrap_or(u32::MAX)
    }

    /// Width of the widest line in pixels.
    pub fn width(&self) -> u32 {
        let widest = self.lines.iter().map(|line| line.width);
        widest.fold(0.0, f32::max).ceil() as u32
    }

    /// Draws the text with its top left corner at (x, y). Lines of right-to-left paragraphs end at
    /// the right edge of the width that was asked for.
    pub fn draw(&self, canvas: &mut RgbImage, x: i64, y: i64) {
        let line_height = self.style.line_height();
        for (number, line) in self.lines.iter().enumerate() {
            let indent = if line.right_to_left { (self.max_width - line.width).max(0.0) } else { 0.0 };
            let top = y + (number as i64) * i64::from(line_height);
            for placed in &line.glyphs {
                let font = placed.font.as_scaled(scale(placed.font, self.style.size));
                let above = (line_height as f32 - font.height()) / 2.0 + font.ascent();
                let at = point(indent + placed.x, above.round());
                let glyph = placed.glyph.with_scale_and_position(font.scale(), at);
                let Some(outline) = placed.font.outline_glyph(glyph) else {
                    continue; // a space
                };
                let corner = outline.px_bounds().min;
                let (left, top) = (x + corner.x as i64, top + corner.y as i64);
                outline.draw(|dx, dy, share| {
                    let (x, y) = (left + i64::from(dx), top + i64::from(dy));
                    blend(canvas, x, y, self.style.color, share);
                });
            }
        }
    }
}

/// The text without what cannot be seen, its length bounded, and whether something was cut off.
fn cleaned(text: &str) -> (String, bool) {
    let mut characters = text.chars();
    let kept = characters.by_ref().take(MAX_CHARACTERS);
    let cleaned: String = kept
        .filter_map(|character| match character {
            '\n' => Some('\n'),
            c if c.is_whitespace() => Some(' '),
            c if c.is_control() => None,
            // Joiners, direction marks and variation selectors: orders to a layout engine.
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => None,
            '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e01ef}' => None,
            c => Some(c),
        })
        .collect();
    (cleaned.trim_end().to_string(), characters.any(|c| !c.is_whitespace()))
}

/// Where the lines of a paragraph begin and end: as many words a line as fit.
fn line_ranges(text: &str, style: Style, max_width: f32) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let (mut start, mut fits) = (0, 0);
    for (end, _) in linebreaks(text) {
        if width(text[start..end].trim_end(), style) <= max_width {
            fits = end;
            continue;
        }
        if fits > start {
            ranges.push(start..fits);
            start = fits;
        }
        // The word alone: it may still be wider than a line.
        while width(text[start..end].trim_end(), style) > max_width {
            let split = start + split_inside(&text[start..end], style, max_width);
            if split >= end {
                break;
            }
            ranges.push(start..split);
            start = split;
        }
        fits = end;
    }
    if fits > start || ranges.is_empty() {
        ranges.push(start..fits);
    }
    ranges
}

/// Bytes of the longest beginning that fits, at least one visible character.
fn split_inside(word: &str, style: Style, max_width: f32) -> usize {
    let mut used = 0.0;
    let mut clusters = word.grapheme_indices(true);
    if let Some((_, first)) = clusters.next() {
        used = width(first, style);
    }
    for (at, cluster) in clusters {
        used += width(cluster, style);
        if used > max_width {
            return at;
        }
    }
    word.len()
}

/// The line with an ellipsis, shortened until both fit.
fn with_ellipsis(line: &str, style: Style, max_width: f32) -> String {
    let room = max_width - width(&ELLIPSIS.to_string(), style);
    let mut kept = line.to_string();
    while width(&kept, style) > room {
        let Some((last, _)) = kept.grapheme_indices(true).next_back() else {
            break;
        };
        kept.truncate(last);
    }
    kept.truncate(kept.trim_end().len());
    kept.push(ELLIPSIS);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::{PAPER, blank};

    const BODY: Style = Style::BODY;

    fn drawn(text: &str, max_width: u32, max_lines: usize) -> RgbImage {
        let block = Block::new(text, BODY, max_width, max_lines);
        let mut canvas = blank(max_width, block.height());
        block.draw(&mut canvas, 0, 0);
        canvas
    }

    fn ink(canvas: &RgbImage, columns: Range<u32>) -> usize {
        let inked = |(x, _, pixel): &(u32, u32, &Rgb<u8>)| columns.contains(x) && **pixel != PAPER;
        canvas.enumerate_pixels().filter(inked).count()
    }

    #[test]
    fn lines_break_between_words_and_keep_new_lines() {
        let block = Block::new("a dog\nsleeps in the warm snow", BODY, 90, 9);
        assert_eq!(block.lines(), 3);
        assert!(block.width() <= 90);
        assert_eq!(Block::new("", BODY, 90, 9).lines(), 0);
        assert_eq!(Block::new("a\n\nb", BODY, 90, 9).lines(), 3);
    }

    #[test]
    fn every_word_is_kept_when_lines_are_free() {
        let words = "one two three four five six seven eight nine ten";
        let ranges = line_ranges(words, BODY, 60.0);
        let joined: String = ranges.iter().map(|range| &words[range.clone()]).collect();
        assert_eq!(joined, words);
        for range in ranges {
            assert!(width(words[range].trim_end(), BODY) <= 60.0);
        }
    }

    #[test]
    fn too_many_lines_end_in_an_ellipsis_that_fits() {
        assert_eq!(with_ellipsis("a dog", BODY, 500.0), "a dog\u{2026}");
        let short = with_ellipsis("a very long line of words", BODY, 80.0);
        assert!(short.ends_with('\u{2026}') && width(&short, BODY) <= 80.0);
        let block = Block::new(&"word ".repeat(2000), BODY, 100, 3);
        assert_eq!(block.lines(), 3);
        assert!(block.width() <= 100);
    }

    #[test]
    fn words_longer_than_a_line_are_broken_inside() {
        let block = Block::new(&"x".repeat(10_000), BODY, 50, usize::MAX);
        assert!(block.lines() > MAX_CHARACTERS / 10);
        assert!(block.width() <= 50, "{}", block.width());
        // Narrower than any character: one character a line, and an end.
        assert_eq!(Block::new("wide", BODY, 1, 9).lines(), 4);
    }

    #[test]
    fn letters_leave_ink_where_they_stand() {
        let canvas = drawn("I", 60, 1);
        assert!(ink(&canvas, 0..6) > 5);
        assert_eq!(ink(&canvas, 8..60), 0);
        assert_eq!(canvas, drawn("I", 60, 1));
    }

    #[test]
    fn right_to_left_text_starts_at_the_right() {
        let canvas = drawn("שלום", 200, 1);
        assert_eq!(ink(&canvas, 0..100), 0);
        assert!(ink(&canvas, 150..200) > 20);
    }

    #[test]
    fn right_to_left_letters_are_reversed_and_arabic_letters_join() {
        let glyphs = |text: &str, level| -> Vec<u16> {
            let (placed, _) = place(text, level, BODY);
            placed.iter().map(|placed| placed.glyph.0).collect()
        };
        let mut hebrew = glyphs("אבג", Level::rtl());
        hebrew.reverse();
        let alone: Vec<u16> = ["א", "ב", "ג"].iter().flat_map(|letter| glyphs(letter, Level::ltr())).collect();
        assert_eq!(hebrew, alone);
        assert_eq!(glyphs("(", Level::rtl()), glyphs(")", Level::ltr()));
        let joined = Block::new("سلام", BODY, 200, 1).width();
        assert!((joined as f32) < width("سلام", BODY), "isolated forms are wider");
    }

    #[test]
    fn emoji_come_from_the_second_font_and_the_unknown_is_a_box() {
        assert!(ink(&drawn("😀", 40, 1), 0..40) > 20);
        let unknown = drawn("\u{4e2d}", 40, 1);
        assert_eq!(unknown, drawn("\u{6587}", 40, 1));
        assert!(ink(&unknown, 0..40) > 10);
    }

    #[test]
    fn any_character_of_unicode_can_be_drawn() {
        let all: Vec<char> = ('\0'..='\u{1ffff}').collect();
        for some in all.chunks(2048) {
            // Out of their order, so that scripts and directions mix.
            let text: String = (0..some.len()).map(|at| some[at * 977 % some.len()]).collect();
            assert!(Block::new(&text, BODY, 300, 8).height() < 200);
        }
    }

    #[test]
    fn orders_to_the_layout_are_dropped() {
        assert_eq!(cleaned("a\u{202e}b\u{0}\tc\r\n\u{200d}d  "), ("ab c \nd".into(), false));
        assert!(cleaned(&"é".repeat(MAX_CHARACTERS + 1)).1);
    }
}
