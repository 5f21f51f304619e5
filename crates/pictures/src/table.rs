//! Tables as pictures, and the ablation of table 1 as table and groups of bars.

use crate::canvas::{Area, INK, RULE, SERIES, blank, fill, paste};
use crate::text::{Block, Style};
use image::RgbImage;

/// Most rows and columns that are drawn.
pub const MAX_ROWS: usize = 200;
/// See [`MAX_ROWS`].
pub const MAX_COLUMNS: usize = 24;

const PADDING: u32 = 12;
const CELL_WIDTH: u32 = 260;
const ROW_HEIGHT: u32 = 26;

/// Words and numbers in rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Heading. Empty: none.
    pub title: String,
    /// Explanation under the table. Empty: none.
    pub note: String,
    /// Names of the columns.
    pub header: Vec<String>,
    /// Cells, row by row; a short row ends in empty cells. The first column is set to the left,
    /// the others to the right, as numbers are.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// Draws the table as wide as its words need.
    pub fn draw(&self) -> RgbImage {
        let rows = &self.rows[..self.rows.len().min(MAX_ROWS)];
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let columns = columns.max(self.header.len()).min(MAX_COLUMNS);
        let cell = |words: &str, style| Block::line(words, style, CELL_WIDTH);
        let header: Vec<Block> = cells(&self.header, columns, |w| cell(w, Style::HEADING));
        let body: Vec<Vec<Block>> = rows.iter().map(|row| cells(row, columns, |w| cell(w, Style::BODY))).collect();
        let width_of = |column: usize| {
            let below = body.iter().map(|row| row[column].width());
            below.fold(header[column].width(), u32::max) + 2 * PADDING
        };
        let widths: Vec<u32> = (0..columns).map(width_of).collect();

        let width = widths.iter().sum::<u32>().max(CELL_WIDTH) + 2 * PADDING;
        let title = Block::new(&self.title, Style::TITLE, width - 2 * PADDING, 3);
        let note = Block::new(&self.note, Style::NOTE, width - 2 * PADDING, 8);
        let rows_height = ROW_HEIGHT * (rows.len() as u32 + 1);
        let height = title.height() + rows_height + note.height() + 4 * PADDING;
        let mut canvas = blank(width, height);
        title.draw(&mut canvas, PADDING.into(), PADDING.into());
        let mut top = 2 * PADDING + title.height();
        let rule = |canvas: &mut RgbImage, y: u32, thickness, color| {
            let area =
                Area { x: PADDING.into(), y: y.into(), width: i64::from(width - 2 * PADDING), height: thickness };
            fill(canvas, area, color);
        };
        rule(&mut canvas, top - 2, 2, INK);
        for (number, row) in std::iter::once(&header).chain(&body).enumerate() {
            draw_row(&mut canvas, row, &widths, top + 4);
            top += ROW_HEIGHT;
            let color = if number == 0 { INK } else { RULE };
            rule(&mut canvas, top - 1, 1, color);
        }
        note.draw(&mut canvas, PADDING.into(), i64::from(top + PADDING));
        canvas
    }
}

fn cells(words: &[String], columns: usize, set: impl Fn(&str) -> Block) -> Vec<Block> {
    let words = words.iter().map(String::as_str);
    let filled = words.chain(std::iter::repeat("")).take(columns);
    filled.map(set).collect()
}

fn draw_row(canvas: &mut RgbImage, row: &[Block], widths: &[u32], y: u32) {
    let mut left = PADDING;
    for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
        let x = if column == 0 { left } else { left + width - PADDING - cell.width() };
        cell.draw(canvas, x.into(), y.into());
        left += width;
    }
}

/// Mean of some numbers, and the standard deviation of the sample (0 for fewer than two). What is
/// not finite is left out; none: not a number.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let count = finite.len() as f64;
    let mean = finite.iter().sum::<f64>() / count;
    if finite.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = finite.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

/// One row of an ablation: an objective added, measured with several seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct AblationRow {
    /// What was trained: "ITM + ITC", say.
    pub name: String,
    /// For each measure, its value with each seed.
    pub values: Vec<Vec<f64>>,
}

/// Table 1 in small: what each objective adds.
#[derive(Debug, Clone, PartialEq)]
pub struct Ablation {
    /// Heading.
    pub title: String,
    /// How it was measured: data, budget, seeds.
    pub note: String,
    /// Names of the measures: "TR@1", "IR@1".
    pub measures: Vec<String>,
    /// The rows in the paper's order.
    pub rows: Vec<AblationRow>,
}

impl Ablation {
    /// The numbers: mean and, with several seeds, standard deviation.
    pub fn table(&self) -> Table {
        let number = |values: &Vec<f64>| match mean_and_deviation(values) {
            (mean, _) if mean.is_nan() => "-".to_string(),
            (mean, _) if values.len() < 2 => format!("{mean:.1}"),
            (mean, deviation) => format!("{mean:.1} ± {deviation:.1}"),
        };
        let row = |row: &AblationRow| {
            let numbers = row.values.iter().map(number);
            std::iter::once(row.name.clone()).chain(numbers).collect()
        };
        let header = std::iter::once("objectives").chain(self.measures.iter().map(String::as_str));
        Table {
            title: self.title.clone(),
            note: self.note.clone(),
            header: header.map(str::to_string).collect(),
            rows: self.rows.iter().map(row).collect(),
        }
    }

    /// The table, with bars of the means and a dot for each seed below.
    pub fn draw(&self) -> RgbImage {
        let (table, bars) = (self.table().draw(), self.draw_bars());
        let mut canvas = blank(table.width().max(bars.width()), table.height() + bars.height());
        paste(&mut canvas, &table, 0, 0);
        paste(&mut canvas, &bars, 0, table.height().into());
        canvas
    }

    fn draw_bars(&self) -> RgbImage {
        const NAME_WIDTH: u32 = 190;
        const BAR_WIDTH: i64 = 380;
        const BAR: i64 = 14;
        let measures = self.measures.len().min(SERIES.len());
        let rows = &self.rows[..self.rows.len().min(MAX_ROWS)];
        let all = rows.iter().flat_map(|row| row.values.iter().flatten());
        let highest = all.copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
        let length = |value: f64| {
            let share = if highest > 0.0 { value / highest } else { 0.0 };
            (share.clamp(0.0, 1.0) * BAR_WIDTH as f64).round() as i64
        };
        let group = BAR * measures as i64 + 12;
        let left = i64::from(PADDING + NAME_WIDTH);
        let height = group * rows.len() as i64 + 40;
        let names = self.measures.iter().take(measures);
        let names: Vec<Block> = names.map(|name| Block::line(name, Style::BODY, 160)).collect();
        let entry = |name: &Block| 16 + i64::from(name.width()) + 16;
        let legend: i64 = names.iter().map(entry).sum();
        let beyond = i64::from(5 * PADDING);
        let mut canvas =
            blank((left + legend.max(BAR_WIDTH + beyond)) as u32, u32::try_from(height).unwrap_or(u32::MAX));
        let mut x = left;
        for (number, name) in names.iter().enumerate() {
            fill(&mut canvas, square(x, 6, 11), SERIES[number]);
            name.draw(&mut canvas, x + 16, 2);
            x += entry(name);
        }
        for (number, row) in rows.iter().enumerate() {
            let top = 28 + group * number as i64;
            let name = Block::line(&row.name, Style::BODY, NAME_WIDTH - 10);
            name.draw(&mut canvas, PADDING.into(), top + (group - 12) / 2 - 9);
            for (measure, values) in row.values.iter().take(measures).enumerate() {
                let (mean, _) = mean_and_deviation(values);
                let y = top + BAR * measure as i64;
                let bar = Area { x: left, y, width: length(mean), height: BAR - 2 };
                fill(&mut canvas, bar, SERIES[measure]);
                let several = if values.len() > 1 { &values[..] } else { &[] };
                for value in several.iter().filter(|v| v.is_finite()) {
                    fill(&mut canvas, square(left + length(*value) - 2, y + 4, 4), INK);
                }
                let text = match mean.is_nan() {
                    true => "-".to_string(),
                    false => format!("{mean:.1}"),
                };
                let text = Block::line(&text, Style::NOTE, 60);
                let beyond = values.iter().map(|v| length(*v)).fold(length(mean), i64::max);
                text.draw(&mut canvas, left + beyond + 6, y - 2);
            }
        }
        canvas
    }
}

fn square(x: i64, y: i64, side: i64) -> Area {
    Area { x, y, width: side, height: side }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::PAPER;

    fn row(name: &str, values: &[&[f64]]) -> AblationRow {
        AblationRow { name: name.into(), values: values.iter().map(|seeds| seeds.to_vec()).collect() }
    }

    fn ablation(rows: Vec<AblationRow>) -> Ablation {
        Ablation {
            title: "Ablation".into(),
            note: "three seeds".into(),
            measures: vec!["TR@1".into(), "IR@1".into()],
            rows,
        }
    }

    #[test]
    fn deviation_is_that_of_the_sample() {
        assert_eq!(mean_and_deviation(&[2.0, 4.0, f64::NAN, 6.0]), (4.0, 2.0));
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
        assert!(mean_and_deviation(&[]).0.is_nan());
    }

    #[test]
    fn the_ablation_is_a_table_of_means() {
        let rows = vec![row("ITM", &[&[2.0, 4.0, 6.0], &[1.0]]), row("+ITC", &[&[], &[f64::NAN]])];
        let table = ablation(rows).table();
        assert_eq!(table.header, ["objectives", "TR@1", "IR@1"]);
        assert_eq!(table.rows[0], ["ITM", "4.0 ± 2.0", "1.0"]);
        assert_eq!(table.rows[1], ["+ITC", "-", "-"]);
    }

    #[test]
    fn bars_are_as_long_as_means() {
        let bars = ablation(vec![row("ITM", &[&[20.0], &[10.0]])]).draw_bars();
        let longest = |color| {
            let run = bars.enumerate_pixels().filter(|(_, y, p)| *y > 26 && **p == color);
            run.map(|(x, ..)| x).max().unwrap()
        };
        let start = PADDING + 190;
        let (first, second) = (longest(SERIES[0]) - start, longest(SERIES[1]) - start);
        assert!(first.abs_diff(380) < 4 && second.abs_diff(190) < 4, "{first} {second}");
    }

    #[test]
    fn extreme_input_still_draws() {
        let empty = Table::default().draw();
        assert!(empty.width() > 100);
        let odd = Table {
            title: "word ".repeat(2000),
            header: vec!["x".repeat(10_000)],
            rows: vec![Vec::new(), vec!["שלום".into(); 99]],
            ..Table::default()
        };
        assert_eq!(odd.draw(), odd.draw());
        let wild = vec![
            row("", &[]),
            row("nan", &[&[f64::NAN], &[f64::INFINITY, -5.0]]),
            row("three measures", &[&[1.0], &[1.0], &[1.0]]),
        ];
        let canvas = ablation(wild).draw();
        assert!(canvas.pixels().any(|p| *p != PAPER));
        ablation(Vec::new()).draw();
    }
}
