//! A matrix of what was taken for what: a row a true class, a column a predicted one.

use image::RgbImage;

use crate::canvas::{Area, INK, PAPER, RULE, SERIES, blank, fill, frame, mix};
use crate::text::{Block, Style};

/// Most classes that are drawn; of more, the first.
pub const MAX_CLASSES: usize = 200;

/// Width of the names on the left, and height of those on top.
const NAMES: u32 = 150;
/// Around everything.
const MARGIN: u32 = 16;
/// Classes up to which cells are large enough for numbers.
const NUMBERED: usize = 30;

/// Which class was taken for which, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// Heading of the picture.
    pub title: String,
    /// Explains it.
    pub note: String,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// `counts[true][predicted]`.
    pub counts: Vec<Vec<u64>>,
}

impl Confusion {
    /// Draws it: the darker a cell, the larger its share of the true class.
    pub fn draw(&self) -> RgbImage {
        let classes = self.classes.len().min(MAX_CLASSES);
        let cell = if classes <= NUMBERED { 36 } else { 8 };
        let grid = classes as u32 * cell;
        let width = (2 * MARGIN + NAMES + grid).max(480);
        let title = Block::line(&self.title, Style::TITLE, width - 2 * MARGIN);
        let note = Block::new(&self.note, Style::NOTE, width - 2 * MARGIN, 4);
        let top = MARGIN + title.height() + note.height() + 12;
        let mut canvas = blank(width, top + NAMES + grid + MARGIN);
        title.draw(&mut canvas, i64::from(MARGIN), i64::from(MARGIN));
        note.draw(&mut canvas, i64::from(MARGIN), i64::from(MARGIN + title.height() + 4));
        let (left, top) = (i64::from(MARGIN + NAMES), i64::from(top + NAMES));
        let step = i64::from(cell);
        for (row, class) in self.classes.iter().take(classes).enumerate() {
            let at = row as i64 * step;
            if cell as usize >= 14 {
                let name = Block::line(class, Style::BODY, NAMES - 12);
                let middle = (step - i64::from(name.height())) / 2;
                name.draw(&mut canvas, left - 8 - i64::from(name.width()), top + at + middle);
                let name = upright(&name);
                let middle = (step - i64::from(name.width())) / 2;
                crate::canvas::paste(&mut canvas, &name, left + at + middle, top - 8 - i64::from(name.height()));
            }
            let counts = self.counts.get(row).map_or(&[][..], Vec::as_slice);
            let all: u64 = counts.iter().sum();
            for (column, &count) in counts.iter().take(classes).enumerate() {
                let share = count as f32 / all.max(1) as f32;
                let area = Area { x: left + column as i64 * step, y: top + at, width: step - 1, height: step - 1 };
                fill(&mut canvas, area, mix(PAPER, SERIES[0], share));
                if column == row {
                    frame(&mut canvas, area, 1, INK);
                } else if count == 0 {
                    frame(&mut canvas, area, 1, RULE);
                }
                if count > 0 && classes <= NUMBERED {
                    let color = if share > 0.6 { PAPER } else { INK };
                    let number = Block::line(&count.to_string(), Style { color, ..Style::NOTE }, cell);
                    let inside = |length: u32| (step - i64::from(length)) / 2;
                    number.draw(&mut canvas, area.x + inside(number.width()), area.y + inside(number.height()));
                }
            }
        }
        canvas
    }
}

/// A name that is read from below.
fn upright(name: &Block) -> RgbImage {
    let mut line = blank(name.width(), name.height());
    name.draw(&mut line, 0, 0);
    image::imageops::rotate270(&line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_shades_and_any_counts_draw() {
        let confusion = |classes: usize, counts: Vec<Vec<u64>>| Confusion {
            title: "What is taken for what".into(),
            note: "top-1 50 %".into(),
            classes: (0..classes).map(|i| format!("class {i}")).collect(),
            counts,
        };
        let picture = confusion(2, vec![vec![3, 1], vec![0, 4]]).draw();
        let shaded = |share| picture.pixels().filter(|p| **p == mix(PAPER, SERIES[0], share)).count();
        assert!(shaded(1.0) > 500 && shaded(0.75) > 500 && shaded(0.25) > 500, "{} {}", shaded(1.0), shaded(0.25));
        let many = confusion(1000, (0..1000).map(|i| vec![i; 1000]).collect()).draw();
        assert!(many.width() < 2000);
        for wild in [confusion(0, vec![]), confusion(3, vec![vec![u64::from(u32::MAX)]])] {
            assert_eq!(wild.draw(), wild.draw());
        }
    }
}
