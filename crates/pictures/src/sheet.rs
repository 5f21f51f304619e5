//! Contact sheets: a grid of pictures with words and bars under each.
//!
//! One cell shows one thing: a sample with its caption, an original beside its reconstruction, a
//! search result with its score, a picture with its concepts.

use crate::bars::{self, Bar};
use crate::canvas::{Area, RULE, blank, fill, fit, fitted_size, frame, paste};
use crate::text::{Block, Style};
use image::{Rgb, RgbImage};

/// Most cells that are drawn; the sheet says how many it leaves out.
pub const MAX_CELLS: usize = 400;

/// Most pictures side by side in a cell.
pub const MAX_PICTURES: usize = 8;

/// Largest side of a picture in a cell, in pixels.
pub const MAX_SIDE: u32 = 1024;

const MARGIN: u32 = 16;
const GAP: u32 = 14;
const FRAME: u32 = 4;

/// Columns are chosen so that the sheet is about this wide, in pixels.
const USUAL_WIDTH: u32 = 1200;

/// One thing on a sheet.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    /// Pictures side by side, all of the same height: original and reconstruction, say.
    pub pictures: Vec<RgbImage>,
    /// Bold line above the caption: a rank and a score, say. Empty: none.
    pub heading: String,
    /// Words under the picture. Empty: none.
    pub caption: String,
    /// Bars under the caption: concepts with scores, say.
    pub bars: Vec<Bar>,
    /// Coloured frame around the pictures: right or wrong, say.
    pub frame: Option<Rgb<u8>>,
}

/// A sheet of cells.
#[derive(Debug, Clone)]
pub struct Sheet {
    /// Heading. Empty: none.
    pub title: String,
    /// Explanation under the heading. Empty: none.
    pub note: String,
    /// What to show, row by row.
    pub cells: Vec<Cell>,
    /// Cells a row; 0: as many as make a usual width.
    pub columns: usize,
    /// Longest side of a picture in pixels.
    pub side: u32,
    /// Most lines of a caption.
    pub caption_lines: usize,
}

impl Default for Sheet {
    fn default() -> Self {
        Self { title: String::new(), note: String::new(), cells: Vec::new(), columns: 0, side: 180, caption_lines: 6 }
    }
}

/// A cell with everything measured.
struct Measured<'a> {
    cell: &'a Cell,
    sizes: Vec<(u32, u32)>,
    heading: Block,
    caption: Block,
}

impl<'a> Measured<'a> {
    fn new(cell: &'a Cell, side: u32, width: u32, caption_lines: usize) -> Self {
        let shown = cell.pictures.iter().take(MAX_PICTURES);
        let sizes = shown.map(|picture| fitted_size(picture.width(), picture.height(), side));
        Self {
            cell,
            sizes: sizes.collect(),
            heading: Block::line(&cell.heading, Style::HEADING, width),
            caption: Block::new(&cell.caption, Style::BODY, width, caption_lines),
        }
    }

    fn picture_height(&self) -> u32 {
        self.sizes.iter().map(|size| size.1).max().unwrap_or(0)
    }

    fn words_height(&self) -> u32 {
        self.heading.height() + self.caption.height() + bars::height(&self.cell.bars)
    }
}

impl Sheet {
    /// Draws the sheet. An empty one has its heading and says that there is nothing to show.
    pub fn draw(&self) -> RgbImage {
        let side = self.side.clamp(16, MAX_SIDE);
        let shown = &self.cells[..self.cells.len().min(MAX_CELLS)];
        let most_pictures = shown.iter().map(|cell| cell.pictures.len()).max();
        let most_pictures = most_pictures.unwrap_or(1).clamp(1, MAX_PICTURES) as u32;
        let cell_width = most_pictures * side + (most_pictures - 1) * FRAME + 2 * FRAME;
        let columns = self.column_count(cell_width, shown.len());
        let width = 2 * MARGIN + columns as u32 * (cell_width + GAP) - GAP;

        let words_width = width - 2 * MARGIN;
        let title = Block::new(&self.title, Style::TITLE, words_width, 2);
        let note = Block::new(&self.note_with_count(), Style::NOTE, words_width, 4);
        let measured: Vec<Measured> =
            shown.iter().map(|cell| Measured::new(cell, side, cell_width - 2 * FRAME, self.caption_lines)).collect();
        let rows: Vec<&[Measured]> = measured.chunks(columns).collect();
        let row_height = |row: &[Measured]| row_picture(row) + row_words(row) + GAP;
        let head = title.height() + note.height();
        let head = if head > 0 { head + GAP } else { 0 };
        let body: u32 = rows.iter().map(|row| row_height(row)).sum();

        let mut canvas = blank(width, MARGIN + head + body + MARGIN / 2);
        let left = i64::from(MARGIN);
        title.draw(&mut canvas, left, left);
        note.draw(&mut canvas, left, left + i64::from(title.height()));
        let mut top = MARGIN + head;
        for row in rows {
            for (column, cell) in row.iter().enumerate() {
                let x = MARGIN + column as u32 * (cell_width + GAP);
                draw_cell(&mut canvas, cell, x, top, row_picture(row), cell_width);
            }
            top += row_height(row);
        }
        canvas
    }

    fn column_count(&self, cell_width: u32, cells: usize) -> usize {
        let usual = ((USUAL_WIDTH - 2 * MARGIN + GAP) / (cell_width + GAP)).max(1) as usize;
        let wanted = if self.columns == 0 { usual } else { self.columns.min(MAX_CELLS) };
        wanted.min(cells).max(1)
    }

    fn note_with_count(&self) -> String {
        let left_out = self.cells.len().saturating_sub(MAX_CELLS);
        let extra = match (self.cells.len(), left_out) {
            (0, _) => "Nothing to show.".to_string(),
            (_, 0) => return self.note.clone(),
            (all, _) => format!("The first {MAX_CELLS} of {all}."),
        };
        [self.note.as_str(), &extra].join(" ").trim().to_string()
    }
}

fn row_picture(row: &[Measured]) -> u32 {
    let tallest = row.iter().map(Measured::picture_height).max().unwrap_or(0);
    tallest + 2 * FRAME
}

fn row_words(row: &[Measured]) -> u32 {
    row.iter().map(Measured::words_height).max().unwrap_or(0)
}

/// Draws one cell at (x, top): pictures at the bottom of `picture_height`, words below.
fn draw_cell(canvas: &mut RgbImage, measured: &Measured, x: u32, top: u32, picture_height: u32, width: u32) {
    let Measured { cell, sizes, .. } = measured;
    let x = i64::from(x);
    let bottom = i64::from(top + picture_height - FRAME);
    let mut left = x + i64::from(FRAME);
    for (picture, (picture_width, height)) in cell.pictures.iter().zip(sizes) {
        let side = *picture_width.max(height);
        let (picture_width, height) = (i64::from(*picture_width), i64::from(*height));
        let area = Area { x: left, y: bottom - height, width: picture_width, height };
        if let Some(color) = cell.frame {
            let around = Area {
                x: area.x - i64::from(FRAME),
                y: area.y - i64::from(FRAME),
                width: area.width + 2 * i64::from(FRAME),
                height: area.height + 2 * i64::from(FRAME),
            };
            frame(canvas, around, FRAME.into(), color);
        }
        paste(canvas, &fit(picture, side), area.x, area.y);
        left += picture_width + i64::from(FRAME);
    }
    if cell.pictures.is_empty() {
        let area = Area { x, y: bottom - 1, width: width.into(), height: 1 };
        fill(canvas, area, RULE);
    }
    let mut y = i64::from(top + picture_height);
    let inner = x + i64::from(FRAME);
    measured.heading.draw(canvas, inner, y);
    y += i64::from(measured.heading.height());
    measured.caption.draw(canvas, inner, y);
    y += i64::from(measured.caption.height());
    bars::draw(canvas, &cell.bars, inner, y, width - 2 * FRAME);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::{BAD, GOOD, PAPER};

    const RED: Rgb<u8> = Rgb([250, 0, 0]);

    fn cell(width: u32, height: u32, caption: &str) -> Cell {
        Cell { pictures: vec![RgbImage::from_pixel(width, height, RED)], caption: caption.into(), ..Cell::default() }
    }

    fn sheet(cells: Vec<Cell>) -> Sheet {
        Sheet { cells, side: 100, ..Sheet::default() }
    }

    fn count(canvas: &RgbImage, color: Rgb<u8>) -> usize {
        canvas.pixels().filter(|pixel| **pixel == color).count()
    }

    #[test]
    fn pictures_lie_in_a_grid() {
        let four = Sheet { columns: 2, ..sheet(vec![cell(50, 50, ""); 4]) };
        let canvas = four.draw();
        assert_eq!(count(&canvas, RED), 4 * 100 * 100);
        let first = MARGIN + FRAME;
        let second = first + 100 + 2 * FRAME + GAP;
        for (x, y) in [(first, first), (second, first), (first, second)] {
            assert_eq!(*canvas.get_pixel(x, y), RED, "at {x}, {y}");
            assert_eq!(*canvas.get_pixel(x - 1, y), PAPER);
            assert_eq!(*canvas.get_pixel(x + 100, y), PAPER);
        }
    }

    #[test]
    fn pairs_stand_side_by_side_in_frames_of_their_colour() {
        let mut pair = cell(10, 10, "");
        pair.pictures.push(RgbImage::from_pixel(10, 10, Rgb([0, 0, 9])));
        pair.frame = Some(GOOD);
        let canvas = sheet(vec![pair]).draw();
        assert_eq!(count(&canvas, RED), 100 * 100);
        assert_eq!(count(&canvas, Rgb([0, 0, 9])), 100 * 100);
        assert_eq!(*canvas.get_pixel(MARGIN, MARGIN), GOOD);
        assert_eq!(count(&canvas, BAD), 0);
    }

    #[test]
    fn words_make_a_sheet_higher_and_stay_in_its_width() {
        let plain = sheet(vec![cell(50, 50, "")]).draw();
        let words = sheet(vec![cell(50, 50, "a dog sleeps in the warm snow near a house")]).draw();
        assert_eq!(plain.width(), words.width());
        assert!(words.height() >= plain.height() + 2 * Style::BODY.line_height());
        let endless = sheet(vec![cell(50, 50, &"word ".repeat(2000))]).draw();
        let lines = 6 * Style::BODY.line_height();
        assert_eq!(endless.height(), plain.height() + lines);
    }

    #[test]
    fn extreme_input_still_draws() {
        let empty = Sheet { title: "Samples".into(), ..sheet(Vec::new()) };
        let canvas = empty.draw();
        assert!(canvas.width() >= 100 && canvas.pixels().any(|p| *p != PAPER));

        let odd = vec![cell(1, 1, "שלום עולם"), cell(5000, 1, "😀😀😀"), cell(0, 0, "\u{0}\u{202e}"), Cell::default()];
        assert_eq!(sheet(odd.clone()).draw(), sheet(odd).draw());

        let many = sheet(vec![Cell::default(); MAX_CELLS + 1]).draw();
        let most = sheet(vec![Cell::default(); MAX_CELLS]).draw();
        assert!(many.height() > most.height(), "it says what it leaves out");
    }
}
