//! Heat maps over pictures: grounding (Grad-CAM), words one by one, attention of heads.

use crate::canvas::{Area, INK, fit, frame, mix, stack};
use crate::error::PicturesError;
use crate::sheet::{Cell, MAX_CELLS, Sheet};
use image::imageops::{self, FilterType};
use image::{ImageBuffer, Luma, Pixel, Rgb, RgbImage};

/// Longest side of a picture with a heat map, in pixels.
const OVERLAY_SIDE: u32 = 640;

/// Longest side of a picture in a row of maps, in pixels.
const ROW_SIDE: u32 = 200;

/// Thickness of a box in pixels, between two dark lines of one pixel.
const BOX_THICKNESS: i64 = 3;

/// Boxes that the model chose: no colour of the heat.
const CHOSEN: Rgb<u8> = Rgb([64, 210, 255]);

/// Boxes that are right.
const TRUE: Rgb<u8> = Rgb([90, 230, 80]);

/// Share of the colour over the picture where the heat is highest.
const STRONGEST: f32 = 0.78;

/// Share of a picture's own colours that is kept under the heat: a greyer picture lets it speak.
const SATURATION: f32 = 0.35;

/// A grid of heat over a picture, row by row, in any unit. Below zero counts as zero, as in
/// Grad-CAM, and so does what is not a number.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMap {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl HeatMap {
    /// A grid of `rows` x `columns` values.
    ///
    /// # Errors
    /// When there are not exactly that many values.
    pub fn new(rows: usize, columns: usize, values: Vec<f32>) -> Result<Self, PicturesError> {
        if rows.checked_mul(columns) != Some(values.len()) {
            let got = values.len();
            return Err(PicturesError::HeatShape { rows, columns, got });
        }
        let values = values.into_iter().map(finite_heat).collect();
        Ok(Self { rows, columns, values })
    }

    /// The largest value; 0 for a map without heat.
    pub fn peak(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// Heat from 0 to 1 (at `peak`) for each pixel of a `width` x `height` picture, bicubically
    /// upsampled; all 0 when there is no heat.
    fn spread(&self, width: u32, height: u32, peak: f32) -> ImageBuffer<Luma<f32>, Vec<f32>> {
        if self.values.is_empty() || peak <= 0.0 {
            return ImageBuffer::new(width, height);
        }
        let values = self.values.iter().map(|v| (v / peak).min(1.0)).collect();
        let grid = ImageBuffer::<Luma<f32>, Vec<f32>>::from_raw(self.columns as u32, self.rows as u32, values)
            .expect("as many values as cells: checked when made");
        imageops::resize(&grid, width, height, FilterType::CatmullRom)
    }
}

fn finite_heat(value: f32) -> f32 {
    if value.is_finite() { value.max(0.0) } else { 0.0 }
}

/// Who drew a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoxKind {
    /// The model.
    Chosen,
    /// The data.
    True,
}

/// A box on a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Marked {
    /// Left, top, width, height in the picture's own pixels.
    pub bounds: [f32; 4],
    /// Whose it is: sets the colour.
    pub kind: BoxKind,
}

/// A picture with heat and boxes on it.
#[derive(Debug, Clone)]
pub struct Overlay<'a> {
    /// The picture.
    pub picture: &'a RgbImage,
    /// Where the heat is, over the whole picture.
    pub heat: &'a HeatMap,
    /// The value drawn strongest, to compare maps; without: the map's own largest.
    pub peak: Option<f32>,
    /// Boxes on top.
    pub boxes: Vec<Marked>,
    /// The phrase, drawn under the picture. Empty: none.
    pub caption: String,
}

impl Overlay<'_> {
    /// Draws the picture, its longest side 640 px, with its caption and a legend of the boxes below.
    pub fn draw(&self) -> RgbImage {
        let words = [self.caption.as_str(), self.legend()].join("\n");
        let cell = Cell {
            pictures: vec![self.draw_picture(OVERLAY_SIDE)],
            caption: words.trim().to_string(),
            ..Cell::default()
        };
        let sheet = Sheet { side: OVERLAY_SIDE, cells: vec![cell], ..Sheet::default() };
        sheet.draw()
    }

    fn legend(&self) -> &'static str {
        let has = |kind| self.boxes.iter().any(|marked| marked.kind == kind);
        match (has(BoxKind::Chosen), has(BoxKind::True)) {
            (true, true) => "Blue: chosen box. Green: true box.",
            (true, false) => "Blue: chosen box.",
            (false, true) => "Green: true box.",
            (false, false) => "",
        }
    }

    /// The picture with heat and boxes alone, scaled to fit into a square of `side` pixels.
    pub fn draw_picture(&self, side: u32) -> RgbImage {
        let mut canvas = fit(self.picture, side);
        let (width, height) = canvas.dimensions();
        let peak = self.peak.map_or_else(|| self.heat.peak(), finite_heat);
        let heat = self.heat.spread(width, height, peak);
        for (pixel, Luma([heat])) in canvas.pixels_mut().zip(heat.pixels()) {
            let grey = Rgb([pixel.to_luma().0[0]; 3]);
            let color = colorous::INFERNO.eval_continuous(f64::from(*heat));
            let color = Rgb([color.r, color.g, color.b]);
            *pixel = mix(mix(grey, *pixel, SATURATION), color, STRONGEST * heat.sqrt());
        }
        let scale = width as f32 / self.picture.width().max(1) as f32;
        for marked in &self.boxes {
            draw_box(&mut canvas, marked, scale);
        }
        canvas
    }
}

/// A coloured frame between two dark lines: seen on any background.
fn draw_box(canvas: &mut RgbImage, marked: &Marked, scale: f32) {
    let [x, y, width, height] = marked.bounds.map(|v| (v * scale).round() as i64);
    let color = match marked.kind {
        BoxKind::Chosen => CHOSEN,
        BoxKind::True => TRUE,
    };
    let mut ring = |inset: i64, thickness, color| {
        let area = Area {
            x: x.saturating_add(inset),
            y: y.saturating_add(inset),
            width: width.saturating_sub(2 * inset).max(1),
            height: height.saturating_sub(2 * inset).max(1),
        };
        frame(canvas, area, thickness, color);
    };
    ring(-1, 1, INK);
    ring(BOX_THICKNESS, 1, INK);
    ring(0, BOX_THICKNESS, color);
}

/// Several maps over one picture, each with its name: the words of a phrase, or the heads of
/// a layer (figure 2).
#[derive(Debug, Clone)]
pub struct HeatRow<'a> {
    /// Heading. Empty: none.
    pub title: String,
    /// Explanation. Empty: none.
    pub note: String,
    /// The picture, shown first as it is.
    pub picture: &'a RgbImage,
    /// Maps with their names, in order.
    pub maps: Vec<(String, HeatMap)>,
    /// All maps on one scale, so that a weak one looks weak; else each on its own.
    pub same_scale: bool,
}

impl HeatRow<'_> {
    /// Draws the picture followed by the maps, as many a row as fit.
    pub fn draw(&self) -> RgbImage {
        let highest = self.maps.iter().map(|(_, map)| map.peak());
        let peak = self.same_scale.then(|| highest.fold(0.0, f32::max));
        let plain = Cell { pictures: vec![fit(self.picture, ROW_SIDE)], ..Cell::default() };
        let maps = self.maps.iter().take(MAX_CELLS).map(|(name, heat)| {
            let overlay = Overlay { picture: self.picture, heat, peak, boxes: Vec::new(), caption: String::new() };
            Cell { pictures: vec![overlay.draw_picture(ROW_SIDE)], heading: name.clone(), ..Cell::default() }
        });
        let sheet = Sheet {
            title: self.title.clone(),
            note: self.note.clone(),
            cells: std::iter::once(plain).chain(maps).collect(),
            side: ROW_SIDE,
            ..Sheet::default()
        };
        sheet.draw()
    }
}

/// A picture under the heat of a phrase, and below it the heat of each of its words, on one scale; `layer` is where it was read off.
pub fn word_by_word(phrase: &Overlay, words: Vec<(String, HeatMap)>, layer: usize) -> RgbImage {
    let row = HeatRow {
        title: String::new(),
        note: format!("Word by word, layer {layer}, on one scale"),
        picture: phrase.picture,
        maps: words,
        same_scale: true,
    };
    stack(&[phrase.draw(), row.draw()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: u32, height: u32) -> RgbImage {
        RgbImage::from_pixel(width, height, Rgb([90, 90, 90]))
    }

    fn overlay<'a>(picture: &'a RgbImage, heat: &'a HeatMap) -> Overlay<'a> {
        Overlay { picture, heat, peak: None, boxes: Vec::new(), caption: String::new() }
    }

    fn hot_corner() -> HeatMap {
        let mut values = vec![0.0; 16];
        values[3] = 5.0; // top right
        HeatMap::new(4, 4, values).unwrap()
    }

    #[test]
    fn heat_is_where_the_map_is_hot() {
        let picture = grey(64, 64);
        let drawn = overlay(&picture, &hot_corner()).draw_picture(64);
        let cold = *drawn.get_pixel(8, 56);
        assert_eq!(cold, Rgb([90, 90, 90]));
        let hot = *drawn.get_pixel(58, 5);
        assert!(hot.0[0] > 200 && hot.0[2] < 190, "{hot:?}");
    }

    #[test]
    fn upsampling_keeps_the_centre_values_of_a_ramp() {
        let map = HeatMap::new(1, 4, vec![0.0, 1.0, 2.0, 3.0]).unwrap();
        let wide = map.spread(40, 10, 3.0);
        for (x, expected) in [(5, 0.0), (15, 1.0 / 3.0), (25, 2.0 / 3.0), (35, 1.0)] {
            let got = (wide.get_pixel(x - 1, 5).0[0] + wide.get_pixel(x, 5).0[0]) / 2.0;
            assert!((got - expected).abs() < 0.03, "{x}: {got}");
        }
        assert!(wide.pixels().all(|p| (0.0..=1.0).contains(&p.0[0])));
    }

    #[test]
    fn nothing_hot_leaves_the_picture() {
        let picture = grey(20, 10);
        let plain = fit(&picture, 40);
        for values in [[0.0; 4], [-3.0; 4], [f32::NAN; 4], [f32::INFINITY; 4]] {
            let map = HeatMap::new(2, 2, values.to_vec()).unwrap();
            assert_eq!(overlay(&picture, &map).draw_picture(40), plain, "{values:?}");
        }
        let empty = HeatMap::new(0, 0, Vec::new()).unwrap();
        assert_eq!(overlay(&picture, &empty).draw_picture(40), plain);
    }

    #[test]
    fn the_scale_can_be_shared() {
        let picture = grey(32, 32);
        let weak = HeatMap::new(1, 1, vec![0.1]).unwrap();
        let own = overlay(&picture, &weak).draw_picture(32);
        let shared = Overlay { peak: Some(10.0), ..overlay(&picture, &weak) };
        let shared = shared.draw_picture(32);
        assert!(own.get_pixel(9, 9).0[0] > shared.get_pixel(9, 9).0[0] + 50);
    }

    #[test]
    fn boxes_stand_at_their_place_on_the_scaled_picture() {
        let picture = grey(100, 50);
        let map = HeatMap::new(1, 1, vec![0.0]).unwrap();
        let mut marked = overlay(&picture, &map);
        marked.boxes = vec![Marked { bounds: [10.0, 10.0, 40.0, 20.0], kind: BoxKind::True }];
        let drawn = marked.draw_picture(200);
        assert_eq!(*drawn.get_pixel(20, 20), TRUE);
        assert_eq!(*drawn.get_pixel(99, 59), TRUE);
        assert_eq!(*drawn.get_pixel(19, 19), INK);
        assert_eq!(*drawn.get_pixel(60, 40), Rgb([90, 90, 90]));

        marked.boxes[0].bounds = [f32::NAN, -1e30, f32::INFINITY, 5.0];
        assert_eq!(marked.draw_picture(200).dimensions(), (200, 100));
    }

    #[test]
    fn the_shape_is_checked() {
        let error = HeatMap::new(2, 3, vec![0.0; 5]).unwrap_err().to_string();
        assert_eq!(error, "heat map of 2 x 3 needs 6 values, got 5");
        assert!(HeatMap::new(usize::MAX, 2, Vec::new()).is_err());
    }

    #[test]
    fn rows_of_maps_survive_extremes() {
        let picture = grey(1, 1);
        let row = HeatRow {
            title: "words".into(),
            note: String::new(),
            picture: &picture,
            maps: vec![("x".repeat(10_000), hot_corner()); 3],
            same_scale: true,
        };
        assert_eq!(row.draw(), row.draw());
        assert!(row.draw().width() >= 4 * ROW_SIDE);
    }
}
