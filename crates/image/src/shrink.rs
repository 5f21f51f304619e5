//! Large photographs made small once, so that training does not decode all their pixels again every epoch.

use fast_image_resize::Resizer;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder, RgbImage};

use crate::error::ImageError;
use crate::format::Format;
use crate::limits::Limits;
use crate::recipe::decode;
use crate::resize::resize;
use crate::turn::Rect;

/// Quality of the JPEG that a shrunk photograph becomes: what is lost is not seen, and less than a training view loses anyway.
pub const JPEG_QUALITY: u8 = 92;

/// The picture file `bytes` with a shorter side of `side` pixels, resampled as views are; none where it is not larger than that, or
/// where the file would not become smaller. Pictures are turned upright and lose their metadata. PNG stays PNG, without loss; JPEG and
/// WebP become JPEG of [`JPEG_QUALITY`].
///
/// # Errors
/// What [`decode`] refuses.
pub fn shrink(bytes: &[u8], side: u32, limits: &Limits) -> Result<Option<Vec<u8>>, ImageError> {
    let picture = decode(bytes, limits)?;
    let (width, height) = picture.dimensions();
    let shorter = width.min(height);
    if shorter <= side {
        return Ok(None);
    }
    let scaled = |length: u32| (f64::from(length) * f64::from(side) / f64::from(shorter)).round() as u32;
    let (width, height) = (scaled(width), scaled(height));
    let mut small = RgbImage::new(width, height);
    let whole = Rect { left: 0, top: 0, width: picture.width(), height: picture.height() };
    resize(&mut Resizer::new(), &picture, picture.dimensions(), whole, (width, height), &mut small)?;
    let format = Format::of(bytes)?;
    let mut file = Vec::new();
    let colour = ExtendedColorType::Rgb8;
    let written = match format {
        Format::Png => PngEncoder::new(&mut file).write_image(&small, width, height, colour),
        Format::Jpeg | Format::WebP => {
            JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY).write_image(&small, width, height, colour)
        }
    };
    written.map_err(|error| ImageError::Setting {
        field: "side",
        value: format!("{side}: {width} x {height} pixels cannot be written ({error})"),
        expected: "a side of at most 65535 pixels",
    })?;
    Ok((file.len() < bytes.len()).then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture with something everywhere, as a file.
    fn file(width: u32, height: u32, format: Format) -> Vec<u8> {
        let wave = |x: u32, y: u32, c: u32| (127.0 + 90.0 * f64::from(x / 9 * (c + 1) + y / 7 * 3).sin()) as u8;
        // With grain, without which a PNG is as small as what becomes of it.
        let grain = |x: u32, y: u32| ((x * 7919 + y * 104_729) % 31) as u8;
        let picture =
            RgbImage::from_fn(width, height, |x, y| image::Rgb([0, 1, 2].map(|c| wave(x, y, c) + grain(x, y))));
        let mut file = Vec::new();
        let colour = ExtendedColorType::Rgb8;
        match format {
            Format::Jpeg => JpegEncoder::new_with_quality(&mut file, 95).write_image(&picture, width, height, colour),
            _ => PngEncoder::new(&mut file).write_image(&picture, width, height, colour),
        }
        .unwrap();
        file
    }

    #[test]
    fn the_shorter_side_is_as_asked_and_the_picture_the_same() {
        for (format, ending) in [(Format::Jpeg, [0xff, 0xd8]), (Format::Png, [0x89, b'P'])] {
            let large = file(400, 300, format);
            let small = shrink(&large, 60, &Limits::default()).unwrap().unwrap();
            assert_eq!(small[..2], ending);
            let small = decode(&small, &Limits::default()).unwrap();
            assert_eq!(small.dimensions(), (80, 60));
            // Each pixel of the small one is about the mean of those that it stands for.
            let large = decode(&large, &Limits::default()).unwrap();
            let mean = |c: usize, picture: &RgbImage| {
                picture.pixels().map(|p| f64::from(p.0[c])).sum::<f64>() / f64::from(picture.width() * picture.height())
            };
            for c in 0..3 {
                let (large, small) = (mean(c, &large), mean(c, &small));
                assert!((large - small).abs() < 1.0, "channel {c}: {large} against {small}");
            }
        }
    }

    #[test]
    fn nothing_is_enlarged_and_nothing_grows() {
        let limits = Limits::default();
        let small = file(64, 48, Format::Jpeg);
        assert_eq!(shrink(&small, 48, &limits).unwrap(), None);
        assert_eq!(shrink(&small, 500, &limits).unwrap(), None);
        // A flat PNG is a few bytes whatever its size.
        let flat = RgbImage::new(300, 300);
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&flat, 300, 300, ExtendedColorType::Rgb8).unwrap();
        if let Some(shrunk) = shrink(&bytes, 299, &limits).unwrap() {
            assert!(shrunk.len() < bytes.len());
        }
        assert!(shrink(b"no picture", 10, &limits).is_err());
    }
}
