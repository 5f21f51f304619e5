//! The fonts in the binary, and the glyphs of one line of text.

use crate::text::Style;
use ab_glyph::{Font, FontRef, GlyphId, PxScale, ScaleFont};
use std::sync::LazyLock;
use unicode_bidi::{Level, ParagraphBidiInfo};
use unicode_segmentation::UnicodeSegmentation;

struct Fonts {
    regular: FontRef<'static>,
    bold: FontRef<'static>,
    emoji: FontRef<'static>,
}

static FONTS: LazyLock<Fonts> = LazyLock::new(|| {
    let font = |bytes| FontRef::try_from_slice(bytes).expect("an embedded font is whole");
    Fonts {
        regular: font(dejavu::sans::regular()),
        bold: font(dejavu::sans::bold()),
        emoji: font(epaint_default_fonts::NOTO_EMOJI_REGULAR),
    }
});

/// One glyph and where its origin lies, in pixels from the left end of its line.
pub struct Placed {
    pub font: &'static FontRef<'static>,
    pub glyph: GlyphId,
    pub x: f32,
}

/// The scale that makes the em square `size` pixels high.
pub fn scale(font: &FontRef<'static>, size: f32) -> PxScale {
    let em = font.units_per_em().unwrap_or(1000.0);
    PxScale::from(size * font.height_unscaled() / em)
}

/// The font that has the character: the text font, else the emoji font, else the text font's
/// empty box.
fn font_of(character: char, bold: bool) -> &'static FontRef<'static> {
    let text = if bold { &FONTS.bold } else { &FONTS.regular };
    let has = |font: &FontRef<'static>| font.glyph_id(character) != GlyphId(0);
    if !has(text) && has(&FONTS.emoji) { &FONTS.emoji } else { text }
}

/// Width in pixels of a piece of text on its own, kerning included.
pub fn width(text: &str, style: Style) -> f32 {
    let mut pen = Pen::new(style);
    text.chars().for_each(|character| {
        pen.step(character);
    });
    pen.x
}

/// Places the glyphs of one line in the order in which they are seen; `level` is the direction of
/// its paragraph. Returns them with the line's width in pixels.
pub fn place(line: &str, level: Level, style: Style) -> (Vec<Placed>, f32) {
    let mut pen = Pen::new(style);
    let mut placed = Vec::new();
    if line.is_empty() {
        return (placed, pen.x);
    }
    let order = ParagraphBidiInfo::new(line, Some(level));
    let (levels, runs) = order.visual_runs(0..line.len());
    for run in runs {
        let right_to_left = levels[run.start].is_rtl();
        let mut clusters: Vec<&str> = line[run].graphemes(true).collect();
        if right_to_left {
            clusters.reverse();
        }
        for character in clusters.into_iter().flat_map(str::chars) {
            let character = if right_to_left { mirrored(character) } else { character };
            placed.push(pen.step(character));
        }
    }
    (placed, pen.x)
}

/// Brackets face the other way in right-to-left text.
fn mirrored(character: char) -> char {
    const PAIRS: [(char, char); 5] = [('(', ')'), ('[', ']'), ('{', '}'), ('<', '>'), ('«', '»')];
    PAIRS
        .iter()
        .find_map(|&(open, close)| match character {
            c if c == open => Some(close),
            c if c == close => Some(open),
            _ => None,
        })
        .unwrap_or(character)
}

/// Moves along a line.
struct Pen {
    style: Style,
    x: f32,
    last: Option<(&'static FontRef<'static>, GlyphId)>,
}

impl Pen {
    fn new(style: Style) -> Self {
        Self { style, x: 0.0, last: None }
    }

    fn step(&mut self, character: char) -> Placed {
        let font = font_of(character, self.style.bold);
        let scaled = font.as_scaled(scale(font, self.style.size));
        let glyph = scaled.glyph_id(character);
        if let Some((last_font, last)) = self.last
            && std::ptr::eq(last_font, font)
        {
            self.x += scaled.kern(last, glyph);
        }
        let x = self.x;
        self.x += scaled.h_advance(glyph);
        self.last = Some((font, glyph));
        Placed { font, glyph, x }
    }
}
