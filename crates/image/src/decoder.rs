//! A picture file, opened: its size and orientation are known and within the limits, its pixels not yet decoded.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, codecs::png::PngDecoder};
use image_webp::WebPDecoder;

use crate::error::{ImageError, broken, truncated};
use crate::format::Format;
use crate::jpeg;
use crate::limits::Limits;
use crate::metadata::Metadata;
use crate::turn::Turn;

/// Memory for metadata (profiles, EXIF) and a decoder's rows that a file may ask for beside its pixels.
const MAX_METADATA: u64 = 16 << 20;

type Bytes<'b> = Cursor<&'b [u8]>;

enum Codec<'b> {
    Jpeg(Box<jpeg::Decoder<'b>>),
    Png(Box<PngDecoder<Bytes<'b>>>),
    WebP(Box<WebPDecoder<Bytes<'b>>>),
}

/// An opened picture.
pub(crate) struct Decoder<'b> {
    bytes: &'b [u8],
    format: Format,
    codec: Codec<'b>,
    /// Size as stored, in pixels.
    pub width: u32,
    pub height: u32,
    /// How the stored picture is turned upright.
    pub turn: Turn,
}

impl<'b> Decoder<'b> {
    pub(crate) fn open(bytes: &'b [u8], limits: &Limits) -> Result<Self, ImageError> {
        let format = Format::of(bytes)?;
        guarded(format, || Self::open_as(bytes, format, limits))
    }

    fn open_as(bytes: &'b [u8], format: Format, limits: &Limits) -> Result<Self, ImageError> {
        let (codec, (width, height), metadata) = match format {
            Format::Jpeg => {
                let (decoder, metadata) = jpeg::open(bytes, limits)?;
                let (width, height) = decoder.dimensions().unwrap_or_default();
                (Codec::Jpeg(Box::new(decoder)), (width as u64, height as u64), metadata)
            }
            Format::Png => {
                // The decoder takes memory for a row when it opens; so the header's numbers come first.
                if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = bytes.get(16..24) {
                    let side = |bytes| u64::from(u32::from_be_bytes(bytes));
                    limits.check(format, side([w0, w1, w2, w3]), side([h0, h1, h2, h3]))?;
                }
                let mut allowed = image::Limits::no_limits();
                allowed.max_alloc = Some(MAX_METADATA);
                let decoder = PngDecoder::with_limits(Cursor::new(bytes), allowed).map_err(|e| png_error(bytes, e))?;
                let (width, height) = decoder.dimensions();
                (Codec::Png(Box::new(decoder)), (width.into(), height.into()), Metadata::of_png(bytes))
            }
            Format::WebP => {
                // What is cut off may be the orientation or, of lossless ones, rows: nobody would notice.
                if let Some(&length) = bytes.get(4..).and_then(|rest| rest.first_chunk())
                    && u64::from(u32::from_le_bytes(length)) + 8 > bytes.len() as u64
                {
                    return Err(truncated(format, bytes, "a chunk"));
                }
                let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| webp_error(bytes, e))?;
                decoder.set_memory_limit(MAX_METADATA as usize);
                let (width, height) = decoder.dimensions();
                check_frames(bytes.get(12..).unwrap_or_default(), limits)?;
                (Codec::WebP(Box::new(decoder)), (width.into(), height.into()), Metadata::of_webp(bytes))
            }
        };
        let (width, height) = limits.check(format, width, height)?;
        Ok(Decoder { bytes, format, codec, width, height, turn: metadata.turn() })
    }

    /// Decodes the stored picture into `pixels`, RGB in rows.
    pub(crate) fn decode(self, pixels: &mut Vec<u8>) -> Result<(), ImageError> {
        guarded(self.format, || self.decode_as(pixels))
    }

    fn decode_as(self, pixels: &mut Vec<u8>) -> Result<(), ImageError> {
        let area = self.width as usize * self.height as usize;
        match self.codec {
            Codec::Jpeg(mut decoder) => {
                pixels.resize(area * 3, 0);
                decoder.decode_into(pixels).map_err(|e| broken(Format::Jpeg, e))?;
            }
            Codec::Png(decoder) => {
                let image = DynamicImage::from_decoder(*decoder).map_err(|e| png_error(self.bytes, e))?;
                *pixels = image.into_rgb8().into_raw();
            }
            Codec::WebP(mut decoder) => {
                let channels = if decoder.has_alpha() { 4 } else { 3 };
                pixels.resize(area * channels, 0);
                decoder.read_image(pixels).map_err(|e| webp_error(self.bytes, e))?;
                if channels == 4 {
                    drop_alpha(pixels);
                }
            }
        }
        Ok(())
    }
}

/// RGBA to RGB, in place. What lies behind transparent pixels is shown, as Pillow's `convert("RGB")` does.
fn drop_alpha(pixels: &mut Vec<u8>) {
    let count = pixels.len() / 4;
    for i in 1..count {
        pixels.copy_within(i * 4..i * 4 + 3, i * 3);
    }
    pixels.truncate(count * 3);
}

/// Runs a decoder, a panic in which is this picture's error and not the end of a run of days. The decoder is not used again after it.
fn guarded<T>(format: Format, decode: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default();
        Err(ImageError::DecoderPanicked { format, reason })
    })
}

fn png_error(bytes: &[u8], error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated(Format::Png, bytes, "a chunk")
        }
        other => broken(Format::Png, other),
    }
}

/// Checks the size of each lossy frame of a WebP: the library takes memory for what a frame says before it compares that with what the file
/// says.
fn check_frames(mut chunks: &[u8], limits: &Limits) -> Result<(), ImageError> {
    while let Some((&[ref kind @ .., l0, l1, l2, l3], data)) = chunks.split_first_chunk::<8>() {
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if let (b"VP8 ", Some(&[_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1])) = (kind, data.first_chunk()) {
            let side = |bytes| u64::from(u16::from_le_bytes(bytes) & 0x3fff);
            limits.check(Format::WebP, side([w0, w1]), side([h0, h1]))?;
        }
        // The chunks of an animation's frame stand behind its 16 bytes.
        let next = if kind == b"ANMF" { 16 } else { length.saturating_add(length % 2) };
        chunks = data.get(next..).unwrap_or_default();
    }
    Ok(())
}

fn webp_error(bytes: &[u8], error: image_webp::DecodingError) -> ImageError {
    match error {
        image_webp::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated(Format::WebP, bytes, "a chunk")
        }
        other => broken(Format::WebP, other),
    }
}
