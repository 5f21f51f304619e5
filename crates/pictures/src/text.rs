//! Words in pictures, laid out by cosmic-text: letters joined and ordered as their script wants, lines broken by Unicode's rules.
//!
//! DejaVu Sans (Latin, Greek, Cyrillic, Hebrew, Arabic and more) and Noto Emoji are in the binary: a fresh machine needs none. Only
//! for a text with a character of neither (Chinese, Devanagari) the machine's own fonts are read; what they lack shows as an
//! empty box.

use crate::canvas::{FAINT, INK, blend};
use cosmic_text::fontdb::{Database, Source};
use cosmic_text::{Attrs, Buffer, Color, Family, FontSystem, LayoutGlyph, Metrics, Shaping, SwashCache, Weight};
use image::{Rgb, RgbImage};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Longest text that is laid out, in characters; what is beyond shows as an ellipsis. Bounds the
/// time that a stranger's caption can take.
pub const MAX_CHARACTERS: usize = 4096;

/// Distance of baselines as a multiple of the size.
const LINE_HEIGHT: f32 = 1.32;

const ELLIPSIS: char = '\u{2026}';

/// Fonts with the glyphs that were drawn of them.
struct Fonts {
    system: FontSystem,
    glyphs: SwashCache,
}

impl Fonts {
    fn new(with_installed: bool) -> Mutex<Self> {
        let mut fonts = Database::new();
        for font in [dejavu::sans::regular(), dejavu::sans::bold(), epaint_default_fonts::NOTO_EMOJI_REGULAR] {
            fonts.load_font_source(Source::Binary(Arc::new(font)));
        }
        if with_installed {
            fonts.load_system_fonts();
        }
        let system = FontSystem::new_with_locale_and_db("en".into(), fonts);
        Mutex::new(Self { system, glyphs: SwashCache::new() })
    }
}

/// Two sets, so that what a text looks like never depends on the texts before it.
static EMBEDDED: LazyLock<Mutex<Fonts>> = LazyLock::new(|| Fonts::new(false));
static WITH_INSTALLED: LazyLock<Mutex<Fonts>> = LazyLock::new(|| Fonts::new(true));

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

    /// Height of a line in pixels.
    pub fn line_height(self) -> u32 {
        (self.size * LINE_HEIGHT).ceil() as u32
    }
}

/// A text broken into lines, ready to be drawn.
pub struct Block {
    style: Style,
    fonts: &'static Mutex<Fonts>,
    lines: Vec<Line>,
}

struct Line {
    glyphs: Vec<LayoutGlyph>,
    /// Where its paragraph begins in the text, in bytes: the glyphs count from there.
    paragraph: usize,
    width: f32,
    /// Below the top of the line, in pixels.
    baseline: f32,
}

impl Block {
    /// Breaks `text` into at most `max_lines` lines of at most `max_width` pixels; what does not
    /// fit ends in an ellipsis. Words longer than a line are broken inside. New lines are kept,
    /// control characters are not. An empty text has no lines.
    pub fn new(text: &str, style: Style, max_width: u32, max_lines: usize) -> Self {
        let text = cleaned(text);
        let lay_out = |fonts: &'static Mutex<Fonts>| {
            let system = &mut fonts.lock().unwrap_or_else(PoisonError::into_inner).system;
            Self { style, fonts, lines: lines(system, &text, style, max_width as f32, max_lines) }
        };
        let block = lay_out(&EMBEDDED);
        let missing = block.lines.iter().flat_map(|line| &line.glyphs).any(|glyph| glyph.glyph_id == 0);
        if missing { lay_out(&WITH_INSTALLED) } else { block }
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
        let Fonts { system, glyphs } = &mut *self.fonts.lock().unwrap_or_else(PoisonError::into_inner);
        let [r, g, b] = self.style.color.0;
        for (line, top) in self.lines.iter().zip((y..).step_by(self.style.line_height() as usize)) {
            for glyph in &line.glyphs {
                let glyph = glyph.physical((0.0, line.baseline), 1.0);
                let (left, top) = (x + i64::from(glyph.x), top + i64::from(glyph.y));
                glyphs.with_pixels(system, glyph.cache_key, Color::rgb(r, g, b), |dx, dy, color| {
                    let share = f32::from(color.a()) / 255.0;
                    let color = Rgb([color.r(), color.g(), color.b()]);
                    blend(canvas, left + i64::from(dx), top + i64::from(dy), color, share);
                });
            }
        }
    }
}

/// At most `max_lines` lines; where some are left out, the last one ends in an ellipsis. (cosmic-text's own ellipsis loses words of
/// right-to-left lines.)
fn lines(fonts: &mut FontSystem, text: &str, style: Style, max_width: f32, max_lines: usize) -> Vec<Line> {
    let mut lines = all_lines(fonts, text, style, max_width);
    if lines.len() <= max_lines {
        return lines;
    }
    lines.truncate(max_lines);
    let Some(last) = lines.last() else {
        return lines;
    };
    let mut ends: Vec<usize> = last.glyphs.iter().flat_map(|glyph| [glyph.start, glyph.end]).collect();
    ends.sort_unstable();
    ends.dedup();
    let cut = |end: &usize| format!("{}{ELLIPSIS}", text[..last.paragraph + end].trim_end());
    let shorter = ends.iter().rev().chain([&0]).map(|end| all_lines(fonts, &cut(end), style, max_width));
    let fitting = shorter.into_iter().find(|lines| lines.len() <= max_lines);
    fitting.unwrap_or(lines)
}

fn all_lines(fonts: &mut FontSystem, text: &str, style: Style, max_width: f32) -> Vec<Line> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut buffer = Buffer::new_empty(Metrics::new(style.size, style.line_height() as f32));
    buffer.set_size(Some(max_width), None);
    let weight = if style.bold { Weight::BOLD } else { Weight::NORMAL };
    buffer.set_text(text, &Attrs::new().family(Family::Name("DejaVu Sans")).weight(weight), Shaping::Advanced, None);
    buffer.shape_until_scroll(fonts, false);
    let paragraphs: Vec<usize> = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line = |run: cosmic_text::LayoutRun| Line {
        glyphs: run.glyphs.to_vec(),
        paragraph: paragraphs[run.line_i],
        width: run.line_w,
        baseline: (run.line_y - run.line_top).round(),
    };
    buffer.layout_runs().map(line).collect()
}

/// The text without what cannot be seen and without orders to turn its direction, its length bounded by an ellipsis.
fn cleaned(text: &str) -> String {
    let mut characters = text.chars();
    let kept = characters.by_ref().take(MAX_CHARACTERS);
    let cleaned: String = kept
        .filter_map(|character| match character {
            '\n' => Some('\n'),
            c if c.is_whitespace() => Some(' '),
            c if c.is_control() => None,
            // Direction marks and variation selectors; the joiners (200c, 200d) belong to words.
            '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => None,
            '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{e0000}'..='\u{e01ef}' => None,
            c => Some(c),
        })
        .collect();
    let mut cleaned = cleaned.trim_end().to_string();
    if characters.any(|c| !c.is_whitespace()) {
        cleaned.push(ELLIPSIS);
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::{PAPER, blank};
    use std::ops::Range;

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

    /// Numbers of the glyphs from left to right.
    fn glyphs(text: &str) -> Vec<u16> {
        let mut lines = Block::new(text, BODY, 1000, 1).lines;
        lines[0].glyphs.sort_by(|a, b| a.x.total_cmp(&b.x));
        lines[0].glyphs.iter().map(|glyph| glyph.glyph_id).collect()
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
        let block = Block::new(words, BODY, 60, usize::MAX);
        let line = |line: &Line| words[line.glyphs[0].start..line.glyphs.last().unwrap().end].trim_end().to_string();
        assert_eq!(block.lines.iter().map(line).collect::<Vec<_>>().join(" "), words);
        assert!(block.lines() > 4 && block.width() <= 60);
    }

    #[test]
    fn too_many_lines_end_in_an_ellipsis_that_fits() {
        let ellipsis = glyphs("\u{2026}")[0];
        let ends_in_one = |text: &str, max_width, max_lines| {
            let block = Block::new(text, BODY, max_width, max_lines);
            assert!(block.lines() <= max_lines && block.width() <= max_width, "{text:.20}");
            block.lines.last().unwrap().glyphs.last().unwrap().glyph_id == ellipsis
        };
        assert!(ends_in_one("a very long line of words", 80, 1));
        assert!(ends_in_one(&"word ".repeat(2000), 100, 3));
        assert!(ends_in_one("a dog\nin the snow", 500, 1), "a paragraph is left out");
        assert!(ends_in_one(&"a ".repeat(MAX_CHARACTERS), 500, 999), "cut by its length");
        assert!(!ends_in_one("a dog\nin the snow", 500, 2));
        assert!(ends_in_one("a\n\nb", 500, 2));
        assert_eq!(Block::new("wide", BODY, 1, 2).lines(), 2, "however narrow");
        assert_eq!(Block::new("a dog", BODY, 500, 0).lines(), 0);
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
        let mut hebrew = glyphs("אבג");
        hebrew.reverse();
        assert_eq!(hebrew, ["א", "ב", "ג"].map(|letter| glyphs(letter)[0]));
        assert_eq!(glyphs("1. שלום").last(), glyphs("1").first(), "numbers stay");
        assert_eq!(glyphs("א(").first(), glyphs("a)").last(), "brackets are mirrored");
        let alone: u32 = ["س", "ل", "ا", "م"].map(|letter| Block::new(letter, BODY, 200, 1).width()).iter().sum();
        assert!(Block::new("سلام", BODY, 200, 1).width() < alone, "isolated forms are wider");
    }

    #[test]
    fn emoji_come_from_the_second_font_and_the_unknown_is_a_box() {
        assert!(ink(&drawn("😀", 40, 1), 0..40) > 20);
        for text in ["a dog 😀, Ωмега שלום سلام", "👩\u{200d}👧 ❤\u{fe0f}"] {
            assert!(std::ptr::eq(Block::new(text, Style::TITLE, 400, 1).fonts, &*EMBEDDED), "{text}");
        }
        let unknown = drawn("\u{10fffd}", 40, 1);
        assert_eq!(unknown, drawn("\u{10fffc}", 40, 1));
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
        assert_eq!(cleaned("a\u{202e}b\u{0}\tc\r\n\u{200b}d  "), "ab c \nd");
        assert!(cleaned(&"é".repeat(MAX_CHARACTERS + 1)).ends_with('…'));
    }
}
