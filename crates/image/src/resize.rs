//! Bicubic resizing of a box to a square, with antialiasing as Pillow's `resize(box=...)`.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::error::ImageError;
use crate::source::Region;
use crate::turn::Rect;

/// Pixels on either side that the bicubic kernel reaches, for each pixel of the result, at the result's scale.
const SUPPORT: f64 = 2.0;
/// A picture may be decoded at a reduced size that is still this many times the wanted one.
///
/// Measured on photographs of 12 megapixels: see `benchmarks/loader`.
const REDUCED_AT_LEAST: u32 = 2;

/// How far a picture may be reduced while decoding, if the box `crop` of it is wanted at `side` x `side`.
pub(crate) fn reduction(crop: Rect, side: u32) -> u32 {
    let times = crop.width.min(crop.height) / (side * REDUCED_AT_LEAST).max(1);
    match times {
        0..=1 => 1,
        2..=3 => 2,
        4..=7 => 4,
        _ => 8,
    }
}

/// The pixels that resizing the box `crop` of a `width` x `height` picture to `side` x `side` reads.
pub(crate) fn reach(crop: Rect, side: u32, reduction: u32, width: u32, height: u32) -> Rect {
    let widen = |start: u32, length: u32, whole: u32| {
        let scale = (f64::from(length) / f64::from(side)).max(f64::from(reduction));
        let margin = (SUPPORT * scale).ceil() as u32 + reduction;
        let first = start.saturating_sub(margin);
        (first, (start + length).saturating_add(margin).min(whole) - first)
    };
    let (left, wide) = widen(crop.left, crop.width, width);
    let (top, high) = widen(crop.top, crop.height, height);
    Rect { left, top, width: wide, height: high }
}

/// Resizes the box `crop` (in pixels of the stored picture) of `pixels`, which show `region`, to `side` x `side` RGB pixels in `out`.
pub(crate) fn resize(
    resizer: &mut Resizer,
    pixels: &[u8],
    region: Region,
    crop: Rect,
    side: u32,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let reduction = f64::from(region.reduction);
    let (width, height) = (region.part.width, region.part.height);
    let left = f64::from(crop.left) / reduction - f64::from(region.part.left);
    let top = f64::from(crop.top) / reduction - f64::from(region.part.top);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .use_alpha(false)
        .crop(left, top, f64::from(crop.width) / reduction, f64::from(crop.height) / reduction);
    let wrong = |e: &dyn std::fmt::Display| ImageError::Setting {
        field: "crop",
        value: format!("{crop:?} of {width} x {height} pixels ({e})"),
        expected: "a box inside the picture",
    };
    let from = ImageRef::new(width, height, pixels, PixelType::U8x3).map_err(|e| wrong(&e))?;
    let mut to = Image::from_slice_u8(side, side, out, PixelType::U8x3).map_err(|e| wrong(&e))?;
    resizer.resize(&from, &mut to, &options).map_err(|e| wrong(&e))
}
