//! Bars in groups, with a dot for each single measurement: the rows of an ablation (table 1).

use crate::canvas::{SERIES, blank, stack};
use crate::curves::{FONT, LABEL_SIZE, grid, heading, rgb};
use crate::numbers::{extent, mean_and_deviation, short_number};
use crate::text::{Block, Style};
use image::RgbImage;
use plotters::prelude::*;
use std::sync::LazyLock;

/// Most groups that are drawn.
pub const MAX_GROUPS: usize = 200;

/// Pixels: of the picture, of the names at the left, of a bar with the space below it.
const WIDTH: u32 = 720;
const NAMES: u32 = 190;
const BAR: u32 = 14;

/// Share of a bar's room that it fills.
const FILLED: f64 = 0.85;

/// One group of bars: what was done, and how it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// What the bars are about: "+ ITC", say.
    pub name: String,
    /// For each measure what came out, once for each repetition (seed). The bar is their mean.
    pub values: Vec<Vec<f64>>,
}

/// A text with its left end and its middle, in pixels.
type Word = (Block, i64, i64);

/// A chart of horizontal bars.
#[derive(Debug, Clone, PartialEq)]
pub struct BarChart {
    /// Heading. Empty: none.
    pub title: String,
    /// What goes to the right, with its unit.
    pub x_label: String,
    /// Names of the measures, as many as there are colours.
    pub measures: Vec<String>,
    /// The groups, from the top.
    pub groups: Vec<Group>,
}

impl BarChart {
    /// Draws heading, legend and bars.
    pub fn draw(&self) -> RgbImage {
        let measures = &self.measures[..self.measures.len().min(SERIES.len())];
        let groups = &self.groups[..self.groups.len().min(MAX_GROUPS)];
        let slots = measures.len() + 1; // one stays empty between two groups
        let height = (groups.len() * slots) as u32 * BAR + 60;
        let mut buffer = blank(WIDTH, height).into_raw();
        let words = {
            let backend = BitMapBackend::with_buffer(&mut buffer, (WIDTH, height));
            self.plot(&backend.into_drawing_area(), measures.len(), groups)
                .expect("drawing into memory with an embedded font")
        };
        let mut plot = RgbImage::from_raw(WIDTH, height, buffer).expect("the size that was drawn");
        for (text, x, y) in words {
            text.draw(&mut plot, x, y - i64::from(text.height() / 2));
        }
        let colors = measures.iter().map(String::as_str).zip(SERIES);
        stack(&[heading(&self.title, "", colors, WIDTH), plot])
    }

    /// Draws the bars; returns the words beside them.
    fn plot<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, plotters::coord::Shift>,
        measures: usize,
        groups: &[Group],
    ) -> Result<Vec<Word>, DrawingAreaErrorKind<DB::ErrorType>> {
        LazyLock::force(&FONT);
        let slots = (measures + 1) as f64;
        let all = groups.iter().flat_map(|group| group.values.iter().take(measures).flatten().copied());
        let highest = extent(all).map(|(_, high)| high).filter(|high| *high > 0.0).unwrap_or(1.0).min(1e100);
        let down = (groups.len() as f64 * slots).max(1.0);
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(NAMES)
            .build_cartesian_2d(0.0..highest * 1.12, -down..0.0)?;
        chart
            .configure_mesh()
            .x_desc(&self.x_label)
            .disable_y_mesh()
            .disable_y_axis()
            .x_labels(6)
            .max_light_lines(0)
            .bold_line_style(grid())
            .label_style(("sans-serif", LABEL_SIZE))
            .x_label_formatter(&|x| short_number(*x))
            .draw()?;
        let length = |value: f64| if value.is_finite() { value.clamp(0.0, highest) } else { 0.0 };
        let mut words = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            let top = -(number as f64) * slots;
            let (_, middle) = chart.backend_coord(&(0.0, top - (slots - 1.0) / 2.0));
            words.push((Block::line(&group.name, Style::BODY, NAMES - 20), 12, i64::from(middle)));
            for (measure, values) in group.values.iter().take(measures).enumerate() {
                let (mean, _) = mean_and_deviation(values);
                let top = top - measure as f64;
                let middle = top - FILLED / 2.0;
                let bar = Rectangle::new([(0.0, top), (length(mean), top - FILLED)], rgb(SERIES[measure]).filled());
                chart.draw_series(std::iter::once(bar))?;
                let several = if values.len() > 1 { &values[..] } else { &[] };
                let seeds = several.iter().filter(|value| value.is_finite());
                chart.draw_series(seeds.map(|value| Circle::new((length(*value), middle), 2, BLACK.filled())))?;
                let text = if mean.is_nan() { "-".to_string() } else { format!("{mean:.1}") };
                let beyond = several.iter().map(|value| length(*value)).fold(length(mean), f64::max);
                let (x, y) = chart.backend_coord(&(beyond, middle));
                words.push((Block::line(&text, Style::NOTE, 60), i64::from(x + 6), i64::from(y)));
            }
        }
        root.present()?;
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::PAPER;
    use image::Rgb;

    fn group(name: &str, values: &[&[f64]]) -> Group {
        Group { name: name.into(), values: values.iter().map(|seeds| seeds.to_vec()).collect() }
    }

    fn chart(groups: Vec<Group>) -> BarChart {
        BarChart {
            title: "Ablation".into(),
            x_label: "percent".into(),
            measures: vec!["TR@1".into(), "IR@1".into()],
            groups,
        }
    }

    #[test]
    fn bars_are_as_long_as_means() {
        let bars = chart(vec![group("ITM", &[&[20.0, 10.0, 30.0], &[10.0]])]).draw();
        let length = |color: Rgb<u8>| {
            let row = |y| (0..bars.width()).filter(|x| *bars.get_pixel(*x, y) == color).count();
            (0..bars.height()).map(row).max().unwrap()
        };
        let (first, second) = (length(SERIES[0]), length(SERIES[1]));
        assert!(first > 200 && first.abs_diff(2 * second) < 4, "{first} {second}");
    }

    #[test]
    fn extreme_input_still_draws() {
        let wild = vec![
            group("", &[]),
            group(&"שלום ".repeat(2000), &[&[f64::NAN], &[f64::INFINITY, -5.0]]),
            group("three measures", &[&[f64::MAX], &[1.0], &[1.0]]),
        ];
        assert_eq!(chart(wild.clone()).draw(), chart(wild).draw());
        assert!(chart(Vec::new()).draw().pixels().any(|p| *p != PAPER));
    }
}
