//! Curves: losses against steps, retrieval against time with its spread over seeds (figure 4).
//!
//! `draw` gives a picture with heading and legend; `svg` the plot alone for a page, whose heading
//! and legend are text of the page.

use crate::canvas::{Area, SERIES, blank, fill, stack};
use crate::numbers::{extent, short_number};
use crate::series::Series;
use crate::text::{Block, Style};
use image::RgbImage;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::register_font;
use std::ops::Range;
use std::sync::LazyLock;

/// Most curves in one chart; more would not be told apart.
pub const MAX_SERIES: usize = 16;

/// Largest side of a chart in pixels.
const MAX_SIDE: u32 = 4096;

/// Size of the labels as the plot library counts it: 12 px em square.
pub(crate) const LABEL_SIZE: f64 = 15.0;

/// Share of a raw curve's colour behind its smoothed one.
const RAW_OPACITY: f64 = 0.25;

const BAND_OPACITY: f64 = 0.18;

const GRID_OPACITY: f64 = 0.12;

const SWATCH: u32 = 12;

/// Pixels of a dash and of the gap after it.
const DASH: (i32, i32) = (6, 4);

const GREY: image::Rgb<u8> = SERIES[7];

/// The plot library finds its font by name; a missing one would be an error on a fresh machine.
pub(crate) static FONT: LazyLock<()> = LazyLock::new(|| {
    let registered = register_font("sans-serif", FontStyle::Normal, dejavu::sans::regular());
    assert!(registered.is_ok(), "an embedded font is whole");
});

/// A chart of curves.
#[derive(Debug, Clone)]
pub struct Chart {
    /// Heading. Empty: none.
    pub title: String,
    /// Explanation under the heading. Empty: none.
    pub note: String,
    /// What goes to the right, with its unit.
    pub x_label: String,
    /// What goes up, with its unit. Empty: none.
    pub y_label: String,
    /// The curves.
    pub series: Vec<Series>,
    /// What they are to be compared with, chance say: grey, dashed; those of one name have one swatch.
    pub baselines: Vec<Series>,
    /// Logarithmic height; points at or below zero are gaps then.
    pub log_y: bool,
    /// Weight of the past in smoothed curves, in [0, 1); 0: none. The raw curve stays visible behind.
    pub smoothing: f64,
    /// Width and height of the plot in pixels.
    pub size: (u32, u32),
}

impl Default for Chart {
    fn default() -> Self {
        Self {
            title: String::new(),
            note: String::new(),
            x_label: "step".into(),
            y_label: String::new(),
            series: Vec::new(),
            baselines: Vec::new(),
            log_y: false,
            smoothing: 0.0,
            size: (720, 400),
        }
    }
}

/// What one series comes to on the plane: heights are logarithms where the chart is logarithmic.
struct Curve {
    raw: Vec<Vec<(f64, f64)>>,
    strong: Vec<Vec<(f64, f64)>>,
    band: Vec<(f64, f64)>,
    color: RGBColor,
    dashed: bool,
}

impl Chart {
    /// Draws heading, legend and plot.
    pub fn draw(&self) -> RgbImage {
        let (width, height) = self.plot_size();
        let mut buffer = blank(width, height).into_raw();
        {
            let backend = BitMapBackend::with_buffer(&mut buffer, (width, height));
            self.plot(&backend.into_drawing_area()).expect("drawing into memory with an embedded font");
        }
        let plot = RgbImage::from_raw(width, height, buffer).expect("the size that was drawn");
        stack(&[heading(&self.title, &self.note, self.legend(), width), plot])
    }

    /// The plot alone as SVG: no heading, no legend, no background.
    pub fn svg(&self) -> String {
        let mut svg = String::new();
        {
            let backend = SVGBackend::with_string(&mut svg, self.plot_size());
            self.plot(&backend.into_drawing_area()).expect("drawing into memory with an embedded font");
        }
        svg
    }

    /// Colour of the n-th curve.
    pub fn color(number: usize) -> image::Rgb<u8> {
        SERIES[number % SERIES.len()]
    }

    /// The curves that are shown, baselines last, each with its colour.
    fn shown(&self) -> impl Iterator<Item = (&Series, image::Rgb<u8>)> {
        let series = self.series.iter().take(MAX_SERIES).enumerate();
        let series = series.map(|(number, series)| (series, Self::color(number)));
        series.chain(self.baselines.iter().map(|series| (series, GREY)))
    }

    /// Names with their colours, each once; a curve without a name needs none.
    pub(crate) fn legend(&self) -> Vec<(&str, image::Rgb<u8>)> {
        let mut entries: Vec<(&str, image::Rgb<u8>)> = Vec::new();
        for (series, color) in self.shown().filter(|(series, _)| !series.name.is_empty()) {
            if !entries.contains(&(&series.name, color)) {
                entries.push((&series.name, color));
            }
        }
        entries
    }

    fn plot_size(&self) -> (u32, u32) {
        let side = |v: u32| v.clamp(160, MAX_SIDE);
        (side(self.size.0), side(self.size.1))
    }

    fn curves(&self) -> Vec<Curve> {
        let height = |y: f64| if self.log_y { y.log10() } else { y };
        let plane = |points: &[(f64, f64)]| -> Vec<Vec<(f64, f64)>> {
            let points: Vec<_> = points.iter().map(|&(x, y)| (x, height(y))).collect();
            let parts = points.split(|point| !drawable(point));
            let parts = parts.filter(|part| !part.is_empty());
            parts.map(<[_]>::to_vec).collect()
        };
        let smoothing = self.smoothing.clamp(0.0, 0.999);
        self.shown()
            .enumerate()
            .map(|(number, (series, color))| {
                let raw = plane(&series.points);
                let edges = series.points.iter().zip(&series.band);
                let low = edges.clone().map(|(&(x, _), &(low, _))| (x, height(low)));
                let high = edges.rev().map(|(&(x, _), &(_, high))| (x, height(high)));
                let (strong, raw) =
                    if smoothing > 0.0 { (plane(&series.smoothed(smoothing)), raw) } else { (raw, Vec::new()) };
                let dashed = number >= self.series.len().min(MAX_SERIES);
                Curve { raw, strong, band: low.chain(high).filter(drawable).collect(), color: rgb(color), dashed }
            })
            .collect()
    }

    fn plot<DB: DrawingBackend>(
        &self,
        root: &DrawingArea<DB, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
        LazyLock::force(&FONT);
        let curves = self.curves();
        let points = curves.iter().flat_map(|curve| {
            let lines = curve.raw.iter().chain(&curve.strong).flatten();
            lines.chain(&curve.band)
        });
        let x_range = span(points.clone().map(|p| p.0), 0.0);
        let y_range = span(points.map(|p| p.1), 0.05);
        let y_area = if self.y_label.is_empty() { 52 } else { 68 };
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .margin_right(24)
            .x_label_area_size(40)
            .y_label_area_size(y_area)
            .build_cartesian_2d(x_range, y_range)?;
        let power = |y: &f64| {
            if self.log_y {
                let power = 10f64.powf(*y);
                let digit = 10f64.powf(y.floor() - 1.0);
                short_number((power / digit).round() * digit) // two digits
            } else {
                short_number(*y)
            }
        };
        chart
            .configure_mesh()
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .x_labels(6)
            .y_labels(6)
            .max_light_lines(0)
            .bold_line_style(grid())
            .label_style(("sans-serif", LABEL_SIZE))
            .x_label_formatter(&|x| short_number(*x))
            .y_label_formatter(&power)
            .draw()?;
        for curve in &curves {
            let band = Polygon::new(curve.band.clone(), curve.color.mix(BAND_OPACITY));
            chart.draw_series(std::iter::once(band))?;
        }
        for curve in &curves {
            let faint = curve.color.mix(RAW_OPACITY).stroke_width(1);
            for part in &curve.raw {
                chart.draw_series(LineSeries::new(part.iter().copied(), faint))?;
            }
        }
        for curve in &curves {
            for part in &curve.strong {
                let style = curve.color.stroke_width(2);
                let points = part.iter().copied();
                if curve.dashed {
                    chart.draw_series(DashedLineSeries::new(points, DASH.0, DASH.1, style))?;
                } else {
                    chart.draw_series(LineSeries::new(points, style))?;
                }
                if let [alone] = part[..] {
                    let dot = Circle::new(alone, 3, curve.color.filled());
                    chart.draw_series(std::iter::once(dot))?;
                }
            }
        }
        root.present()
    }
}

/// Colour of the lines behind a plot.
pub(crate) fn grid() -> RGBAColor {
    BLACK.mix(GRID_OPACITY)
}

pub(crate) fn rgb(color: image::Rgb<u8>) -> RGBColor {
    let [r, g, b] = color.0;
    RGBColor(r, g, b)
}

/// What stands above a plot: its title, its note, and swatches with names, as many a row as fit.
pub(crate) fn heading<'a>(
    title: &str,
    note: &str,
    legend: impl IntoIterator<Item = (&'a str, image::Rgb<u8>)>,
    width: u32,
) -> RgbImage {
    const LEFT: u32 = 12;
    let row_height = Style::BODY.line_height() + 2;
    let title = Block::new(title, Style::TITLE, width.saturating_sub(2 * LEFT), 2);
    let note = Block::new(note, Style::NOTE, width.saturating_sub(2 * LEFT), 4);
    let mut entries = Vec::new();
    let (mut x, mut y) = (LEFT, 8 + title.height() + note.height() + 4);
    for (name, color) in legend {
        let name = Block::line(name, Style::BODY, width.saturating_sub(60));
        let wide = SWATCH + 6 + name.width() + 18;
        if x > LEFT && x + wide > width {
            (x, y) = (LEFT, y + row_height);
        }
        entries.push((color, name, x, y));
        x += wide;
    }
    let mut canvas = blank(width, if entries.is_empty() { y } else { y + row_height });
    title.draw(&mut canvas, LEFT.into(), 8);
    note.draw(&mut canvas, LEFT.into(), i64::from(8 + title.height()));
    for (color, name, x, y) in entries {
        let swatch = Area { x: x.into(), y: i64::from(y) + 3, width: SWATCH.into(), height: SWATCH.into() };
        fill(&mut canvas, swatch, color);
        name.draw(&mut canvas, i64::from(x + SWATCH + 6), y.into());
    }
    canvas
}

/// Finite, and far from where the plot library's differences overflow.
fn drawable((x, y): &(f64, f64)) -> bool {
    const LARGEST: f64 = 1e100;
    x.abs() < LARGEST && y.abs() < LARGEST
}

/// The range of some finite numbers with a margin on both sides; never empty.
fn span(values: impl Iterator<Item = f64>, margin: f64) -> Range<f64> {
    let Some((low, high)) = extent(values) else {
        return 0.0..1.0;
    };
    let width = high - low;
    if width <= low.abs().max(high.abs()).max(1e-12) * 1e-9 {
        let around = (low.abs() * 0.1).max(1e-6);
        return low - around..high + around;
    }
    low - width * margin..high + width * margin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::PAPER;

    fn line(name: &str, heights: &[f64]) -> Series {
        let points = heights.iter().enumerate().map(|(x, &y)| (x as f64, y));
        Series::new(name, points.collect())
    }

    fn chart(series: Vec<Series>) -> Chart {
        Chart { series, size: (400, 240), ..Chart::default() }
    }

    /// Mean row of the pixels of the n-th curve's colour, in a range of columns.
    fn height_of(canvas: &RgbImage, number: usize, columns: Range<u32>) -> Option<f64> {
        let color = Chart::color(number);
        let rows: Vec<f64> = canvas
            .enumerate_pixels()
            .filter(|(x, _, pixel)| columns.contains(x) && **pixel == color)
            .map(|(_, y, _)| f64::from(y))
            .collect();
        (!rows.is_empty()).then(|| rows.iter().sum::<f64>() / rows.len() as f64)
    }

    #[test]
    fn curves_fall_and_rise_as_their_numbers() {
        let canvas = chart(vec![line("", &[4.0, 3.0, 2.0, 1.0])]).draw();
        let left = height_of(&canvas, 0, 70..120).unwrap();
        let right = height_of(&canvas, 0, 320..370).unwrap();
        assert!(right > left + 80.0, "falling: {left} to {right}");
    }

    #[test]
    fn a_constant_line_lies_in_the_middle_of_the_plot() {
        let canvas = chart(vec![line("", &[2.0, 2.0])]).draw();
        let row = height_of(&canvas, 0, 100..300).unwrap();
        assert!((90.0..120.0).contains(&row), "{row}");
    }

    #[test]
    fn a_logarithmic_chart_makes_powers_straight() {
        let mut powers = chart(vec![line("", &[1.0, 10.0, 100.0])]);
        powers.log_y = true;
        let canvas = powers.draw();
        let at = |x: u32| height_of(&canvas, 0, x..x + 4).unwrap();
        let (left, middle, right) = (at(80), at(218), at(356));
        assert!((left + right - 2.0 * middle).abs() < 4.0, "{left} {middle} {right}");
    }

    #[test]
    fn names_stand_beside_swatches_of_their_colour() {
        let canvas = chart(vec![line("itc", &[1.0]), line("itm", &[2.0])]).draw();
        let swatch = |number| {
            let color = Chart::color(number);
            canvas.enumerate_pixels().find(|p| *p.2 == color).unwrap()
        };
        assert!(swatch(0).0 < swatch(1).0 && swatch(0).1 == swatch(1).1);
    }

    #[test]
    fn the_baseline_is_grey_below_the_curves_and_named_last() {
        let mut chart = chart(vec![line("model", &[4.0, 4.0])]);
        chart.baselines = vec![line("chance", &[1.0, 1.0]), line("chance", &[1.5, 1.5])];
        let canvas = chart.draw();
        let row = |color: image::Rgb<u8>, columns: Range<u32>| {
            let mut at = canvas.enumerate_pixels();
            let found = at.find(|(x, y, pixel)| columns.contains(x) && *y > 40 && **pixel == color);
            found.unwrap().1
        };
        assert_eq!(chart.legend(), [("model", Chart::color(0)), ("chance", GREY)]);
        let plot = 100..300;
        assert!(row(GREY, plot.clone()) > row(Chart::color(0), plot) + 100);
        let swatch = |color| canvas.enumerate_pixels().find(|p| *p.2 == color).unwrap().0;
        assert!(swatch(GREY) > swatch(Chart::color(0)));
    }

    #[test]
    fn extreme_input_still_draws() {
        let huge = line(&"name ".repeat(2000), &[f64::MAX, f64::MIN, 1e-320, 0.0]);
        let broken = line("שלום 😀", &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
        for log_y in [false, true] {
            for smoothing in [0.0, 0.9, f64::NAN, 7.0] {
                let odd = Chart {
                    log_y,
                    smoothing,
                    size: (1, u32::MAX),
                    ..chart(vec![huge.clone(), broken.clone(), Series::default()])
                };
                assert_eq!(odd.draw(), odd.draw());
                assert!(odd.svg().ends_with("</svg>\n"));
            }
        }
        assert!(chart(Vec::new()).draw().pixels().any(|p| *p != PAPER));
    }

    #[test]
    fn svg_is_escaped() {
        let mut hostile = chart(vec![line("a", &[1.0, 2.0])]);
        hostile.x_label = "</text><script>alert(1)</script>".into();
        let svg = hostile.svg();
        assert!(!svg.contains("<script") && svg.contains("&lt;script"));
    }
}
