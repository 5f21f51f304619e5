//! Bicubic resizing of a box, with antialiasing as Pillow's `resize(box=...)`.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};

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
    // By the type of its pixels: the call that finds it out compiles the code of all types, for a minute.
    let from = TypedImageRef::<U8x3>::from_buffer(width, height, pixels).map_err(|e| wrong(&e))?;
    let mut to = TypedImage::<U8x3>::from_buffer(to.0, to.1, out).map_err(|e| wrong(&e))?;
    resizer.resize_typed(&from, &mut to, &options).map_err(|e| wrong(&e))
}
