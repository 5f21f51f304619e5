//! Bicubic resizing of a box, with antialiasing as Pillow's `resize(box=...)`.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::error::ImageError;
use crate::turn::Rect;

/// Resizes the box `crop` of a picture, RGB `pixels` in rows of `width`, to `to` = (width, height) RGB pixels in
/// `out`.
pub(crate) fn resize(
    resizer: &mut Resizer,
    pixels: &[u8],
    (width, height): (u32, u32),
    crop: Rect,
    to: (u32, u32),
    out: &mut [u8],
) -> Result<(), ImageError> {
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .use_alpha(false)
        .crop(crop.left.into(), crop.top.into(), crop.width.into(), crop.height.into());
    let wrong = |e: &dyn std::fmt::Display| ImageError::Setting {
        field: "crop",
        value: format!("{crop:?} of {width} x {height} pixels ({e})"),
        expected: "a box inside the picture",
    };
    let from = ImageRef::new(width, height, pixels, PixelType::U8x3).map_err(|e| wrong(&e))?;
    let mut to = Image::from_slice_u8(to.0, to.1, out, PixelType::U8x3).map_err(|e| wrong(&e))?;
    resizer.resize(&from, &mut to, &options).map_err(|e| wrong(&e))
}
