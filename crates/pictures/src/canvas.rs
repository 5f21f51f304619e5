//! Rectangles, pasted pictures and PNG files: the few strokes that the other files draw with.
//!
//! Everything clips at the border of the canvas, so callers need no checks of their own.

use crate::error::PicturesError;
use crate::output::named;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage, codecs::png::PngEncoder};
use simla_files::write_atomically;
use std::path::Path;

/// Colour of text.
pub const INK: Rgb<u8> = Rgb([28, 30, 34]);
/// Colour of text that explains.
pub const FAINT: Rgb<u8> = Rgb([105, 110, 118]);
/// Colour behind everything.
pub const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
/// Colour of lines between things and of empty bars.
pub const RULE: Rgb<u8> = Rgb([222, 225, 230]);
/// Right, true, found.
pub const GOOD: Rgb<u8> = Rgb([0, 158, 115]);
/// Wrong, missed, broken.
pub const BAD: Rgb<u8> = Rgb([213, 94, 0]);

/// Colours of curves and bars, told apart by colour-blind readers too (after Okabe and Ito, 2008).
pub const SERIES: [Rgb<u8>; 8] = [
    Rgb([0, 114, 178]),
    Rgb([213, 94, 0]),
    Rgb([0, 158, 115]),
    Rgb([204, 121, 167]),
    Rgb([230, 159, 0]),
    Rgb([86, 180, 233]),
    Rgb([120, 94, 240]),
    Rgb([110, 110, 110]),
];

/// A rectangle in pixels; may reach beyond the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Area {
    /// Left edge.
    pub x: i64,
    /// Top edge.
    pub y: i64,
    /// Width.
    pub width: i64,
    /// Height.
    pub height: i64,
}

/// A white canvas. Sides of zero become one: a picture always exists.
pub fn blank(width: u32, height: u32) -> RgbImage {
    RgbImage::from_pixel(width.max(1), height.max(1), PAPER)
}

/// Fills a rectangle.
pub fn fill(canvas: &mut RgbImage, area: Area, color: Rgb<u8>) {
    let clip = |start: i64, length: i64, side: u32| {
        let end = start.saturating_add(length).clamp(0, side.into());
        (start.clamp(0, side.into()) as u32, end as u32)
    };
    let (left, right) = clip(area.x, area.width, canvas.width());
    let (top, bottom) = clip(area.y, area.height, canvas.height());
    for y in top..bottom {
        for x in left..right {
            canvas.put_pixel(x, y, color);
        }
    }
}

/// Draws the border of a rectangle, `thickness` pixels inwards from its edge.
pub fn frame(canvas: &mut RgbImage, area: Area, thickness: i64, color: Rgb<u8>) {
    let Area { x, y, width, height } = area;
    let edge = |x, y, width, height| Area { x, y, width, height };
    fill(canvas, edge(x, y, width, thickness), color);
    let bottom = y.saturating_add(height).saturating_sub(thickness);
    fill(canvas, edge(x, bottom, width, thickness), color);
    fill(canvas, edge(x, y, thickness, height), color);
    let right = x.saturating_add(width).saturating_sub(thickness);
    fill(canvas, edge(right, y, thickness, height), color);
}

/// Mixes `color` into one pixel: `share` 0 leaves it, 1 replaces it. Outside the canvas: nothing.
pub fn blend(canvas: &mut RgbImage, x: i64, y: i64, color: Rgb<u8>, share: f32) {
    let inside = |v: i64, side: u32| u32::try_from(v).ok().filter(|v| *v < side);
    let (Some(x), Some(y)) = (inside(x, canvas.width()), inside(y, canvas.height())) else {
        return;
    };
    let pixel = canvas.get_pixel_mut(x, y);
    *pixel = mix(*pixel, color, share);
}

/// `from` at share 0, `to` at share 1.
pub fn mix(from: Rgb<u8>, to: Rgb<u8>, share: f32) -> Rgb<u8> {
    let share = share.clamp(0.0, 1.0);
    let channel = |c: usize| {
        let (from, to) = (f32::from(from.0[c]), f32::from(to.0[c]));
        (from + (to - from) * share).round() as u8
    };
    Rgb([channel(0), channel(1), channel(2)])
}

/// Copies a picture onto the canvas with its top left corner at (x, y).
pub fn paste(canvas: &mut RgbImage, picture: &RgbImage, x: i64, y: i64) {
    imageops::replace(canvas, picture, x, y);
}

/// Pictures one under the other, on white.
pub fn stack(pictures: &[RgbImage]) -> RgbImage {
    let width = pictures.iter().map(RgbImage::width).max().unwrap_or(0);
    let mut canvas = blank(width, pictures.iter().map(RgbImage::height).sum());
    let mut top = 0;
    for picture in pictures {
        paste(&mut canvas, picture, 0, top);
        top += i64::from(picture.height());
    }
    canvas
}

/// Size of a `width` x `height` picture scaled to fit into a `side` x `side` square, never below 1 px.
pub fn fitted_size(width: u32, height: u32, side: u32) -> (u32, u32) {
    let scale = f64::from(side.max(1)) / f64::from(width.max(height).max(1));
    let scaled = |v: u32| ((f64::from(v) * scale).round() as u32).clamp(1, side.max(1));
    (scaled(width), scaled(height))
}

/// Scales a picture to fit into a `side` x `side` square, its proportions kept. An empty picture
/// becomes one white pixel.
pub fn fit(picture: &RgbImage, side: u32) -> RgbImage {
    if picture.width() == 0 || picture.height() == 0 {
        return blank(1, 1);
    }
    let (width, height) = fitted_size(picture.width(), picture.height(), side);
    if (width, height) == picture.dimensions() {
        return picture.clone();
    }
    imageops::resize(picture, width, height, FilterType::CatmullRom)
}

/// The picture as the bytes of a PNG file.
pub fn png_bytes(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(picture, picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .expect("a picture with at least one pixel encodes into memory");
    bytes
}

/// Writes a PNG file; a reader sees the old file or the whole new one, never a part.
///
/// # Errors
/// When the name does not end in .png, and when the file cannot be written.
pub fn save_png(picture: &RgbImage, path: &Path) -> Result<(), PicturesError> {
    named(path, &["png"])?;
    save_bytes(&png_bytes(picture), path)
}

/// Writes a file whole or not at all; its folder is made if need be.
pub(crate) fn save_bytes(bytes: &[u8], path: &Path) -> Result<(), PicturesError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let written = std::fs::create_dir_all(folder).and_then(|()| write_atomically(path, bytes));
    written.map_err(PicturesError::write(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb<u8> = Rgb([255, 0, 0]);

    #[test]
    fn fill_clips_at_every_border() {
        let mut canvas = blank(4, 3);
        let area = Area { x: -5, y: 1, width: 7, height: i64::MAX };
        fill(&mut canvas, area, RED);
        let red = |x, y| *canvas.get_pixel(x, y) == RED;
        assert!(red(0, 1) && red(1, 2));
        assert!(!red(2, 1) && !red(0, 0));
    }

    #[test]
    fn frame_leaves_the_inside() {
        let mut canvas = blank(6, 6);
        let area = Area { x: 1, y: 1, width: 4, height: 4 };
        frame(&mut canvas, area, 1, RED);
        let red = canvas.pixels().filter(|p| **p == RED).count();
        assert_eq!(red, 12);
        assert_eq!(*canvas.get_pixel(4, 4), RED);
        assert_eq!(*canvas.get_pixel(2, 2), PAPER);
    }

    #[test]
    fn stacked_pictures_keep_their_order() {
        let stacked = stack(&[RgbImage::from_pixel(2, 1, RED), blank(3, 2)]);
        assert_eq!(stacked.dimensions(), (3, 3));
        assert_eq!(*stacked.get_pixel(1, 0), RED);
        assert_eq!(*stacked.get_pixel(2, 0), PAPER);
        assert_eq!(*stacked.get_pixel(1, 1), PAPER);
        assert_eq!(stack(&[]).dimensions(), (1, 1));
    }

    #[test]
    fn mixing_is_linear_and_clamped() {
        let black = Rgb([0, 0, 0]);
        assert_eq!(mix(black, Rgb([200, 100, 50]), 0.5), Rgb([100, 50, 25]));
        assert_eq!(mix(black, RED, 7.0), RED);
        assert_eq!(mix(RED, black, -1.0), RED);
    }

    #[test]
    fn fit_keeps_proportions_and_survives_extremes() {
        assert_eq!(fit(&blank(200, 100), 50).dimensions(), (50, 25));
        assert_eq!(fit(&blank(1, 1), 50).dimensions(), (50, 50));
        assert_eq!(fit(&blank(9000, 1), 50).dimensions(), (50, 1));
        assert_eq!(fit(&RgbImage::new(0, 7), 50).dimensions(), (1, 1));
    }

    #[test]
    fn png_files_are_whole_and_errors_name_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/picture.png");
        let mut picture = blank(3, 2);
        picture.put_pixel(1, 1, RED);
        save_png(&picture, &path).unwrap();
        save_png(&picture, &path).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8(), picture);
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 1, "no temporary file is left");

        let below_a_file = path.join("x.png");
        let error = save_png(&picture, &below_a_file).unwrap_err().to_string();
        assert!(error.contains("picture.png"), "{error}");
        let error = save_png(&picture, &folder.path().join("picture.jpg")).unwrap_err().to_string();
        assert!(error.contains("must end in .png"), "{error}");
    }
}
