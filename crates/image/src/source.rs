//! A picture file, opened: its size and orientation are known and within the limits, its pixels not yet decoded.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, ImageDecoder, codecs::png::PngDecoder};
use image_webp::WebPDecoder;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use crate::error::{Format, ImageError};
use crate::jpeg;
use crate::turn::{Rect, Turn};

/// The most pixels a picture may declare: twice a 32 megapixel camera's. Decoding takes up to 12 bytes a pixel.
pub const MAX_PIXELS: u64 = 1 << 26;
/// The longest side that a picture may declare: JPEG's own limit.
pub const MAX_SIDE: u32 = u16::MAX as u32;
/// Memory for metadata (profiles, EXIF) and a decoder's rows that a file may ask for beside its pixels.
const MAX_METADATA: u64 = 16 << 20;
/// What a picture may declare. Checked before memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most pixels, width x height.
    pub max_pixels: u64,
    /// Longest side in pixels.
    pub max_side: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_pixels: MAX_PIXELS, max_side: MAX_SIDE }
    }
}

impl Limits {
    fn check(&self, format: Format, width: u64, height: u64) -> Result<(u32, u32), ImageError> {
        let too_large =
            || ImageError::TooLarge { format, width, height, max_pixels: self.max_pixels, max_side: self.max_side };
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { format, width, height });
        }
        if width.max(height) > u64::from(self.max_side) || width.saturating_mul(height) > self.max_pixels {
            return Err(too_large());
        }
        let side = |side: u64| u32::try_from(side).map_err(|_| too_large());
        Ok((side(width)?, side(height)?))
    }
}

type Bytes<'b> = Cursor<&'b [u8]>;

enum Decoder<'b> {
    CommonJpeg(Box<jpeg::Header<'b>>),
    Jpeg(Box<JpegDecoder<ZCursor<&'b [u8]>>>),
    Png(Box<PngDecoder<Bytes<'b>>>),
    WebP(Box<WebPDecoder<Bytes<'b>>>),
}

/// An opened picture.
pub(crate) struct Source<'b> {
    bytes: &'b [u8],
    format: Format,
    decoder: Decoder<'b>,
    /// Size as stored, in pixels.
    pub width: u32,
    pub height: u32,
    /// How the stored picture is turned upright.
    pub turn: Turn,
}

/// Decoded pixels, RGB in rows, of a part of the stored picture.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Region {
    /// The part, in pixels of the picture reduced by `reduction`.
    pub part: Rect,
    /// 1, 2, 4 or 8.
    pub reduction: u32,
}

impl<'b> Source<'b> {
    pub fn open(bytes: &'b [u8], limits: &Limits) -> Result<Self, ImageError> {
        let format = sniff(bytes)?;
        guarded(format, || Self::open_as(bytes, format, limits))
    }

    fn open_as(bytes: &'b [u8], format: Format, limits: &Limits) -> Result<Self, ImageError> {
        let (decoder, width, height, turn) = match format {
            Format::Jpeg => {
                if let Some(header) = jpeg::Header::read(bytes) {
                    let (width, height, turn) = (header.width, header.height, header.turn);
                    (Decoder::CommonJpeg(Box::new(header)), u64::from(width), u64::from(height), turn)
                } else {
                    let least = whole_jpeg(bytes)?;
                    let options = DecoderOptions::new_fast()
                        .set_max_width(usize::MAX)
                        .set_max_height(usize::MAX)
                        .jpeg_set_out_colorspace(ColorSpace::RGB);
                    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
                    decoder.decode_headers().map_err(|e| broken(format, e))?;
                    let (width, height) = decoder.dimensions().unwrap_or_default();
                    limits.check(format, width as u64, height as u64)?;
                    if least > bytes.len() {
                        return Err(truncated(format, bytes, "the picture's data"));
                    }
                    let turn = decoder.exif().map_or(Turn::default(), |exif| Turn::from_exif(exif));
                    (Decoder::Jpeg(Box::new(decoder)), width as u64, height as u64, turn)
                }
            }
            Format::Png => {
                // The decoder takes memory for a row when it opens; so the header's numbers come first.
                if let Some(&[w0, w1, w2, w3, h0, h1, h2, h3]) = bytes.get(16..24) {
                    let side = |bytes| u64::from(u32::from_be_bytes(bytes));
                    limits.check(format, side([w0, w1, w2, w3]), side([h0, h1, h2, h3]))?;
                }
                let mut allowed = image::Limits::no_limits();
                allowed.max_alloc = Some(MAX_METADATA);
                let mut decoder =
                    PngDecoder::with_limits(Cursor::new(bytes), allowed).map_err(|e| png_error(bytes, e))?;
                let (width, height) = decoder.dimensions();
                let turn = decoder.orientation().map_or(Turn::default(), Turn::from);
                (Decoder::Png(Box::new(decoder)), u64::from(width), u64::from(height), turn)
            }
            Format::WebP => {
                let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|e| webp_error(bytes, e))?;
                decoder.set_memory_limit(MAX_METADATA as usize);
                let (width, height) = decoder.dimensions();
                let exif = decoder.exif_metadata().ok().flatten();
                let turn = exif
                    .map_or(Turn::default(), |exif| Turn::from_exif(exif.strip_prefix(b"Exif\0\0").unwrap_or(&exif)));
                (Decoder::WebP(Box::new(decoder)), u64::from(width), u64::from(height), turn)
            }
        };
        let (width, height) = limits.check(format, width, height)?;
        Ok(Source { bytes, format, decoder, width, height, turn })
    }

    /// Decodes at least the box `window` of the stored picture, reduced by at most `reduction`, into `pixels`.
    pub fn pixels(
        self,
        window: Rect,
        reduction: u32,
        workspace: &mut jpeg::Workspace,
        pixels: &mut Vec<u8>,
    ) -> Result<Region, ImageError> {
        guarded(self.format, || self.pixels_as(window, reduction, workspace, pixels))
    }

    fn pixels_as(
        self,
        window: Rect,
        reduction: u32,
        workspace: &mut jpeg::Workspace,
        pixels: &mut Vec<u8>,
    ) -> Result<Region, ImageError> {
        let format = self.format;
        let whole = Rect { left: 0, top: 0, width: self.width, height: self.height };
        let area = self.width as usize * self.height as usize;
        match self.decoder {
            Decoder::CommonJpeg(header) => {
                let (left, top) = (window.left / reduction, window.top / reduction);
                let part = Rect {
                    left,
                    top,
                    width: (window.left + window.width).div_ceil(reduction) - left,
                    height: (window.top + window.height).div_ceil(reduction) - top,
                };
                let outcome = header.decode(part, reduction, workspace, pixels);
                outcome.map_err(|failure| match failure {
                    jpeg::Failure::Truncated => truncated(format, self.bytes, "the picture's data"),
                    jpeg::Failure::Broken(reason) => broken(format, reason),
                })?;
                return Ok(Region { part, reduction });
            }
            Decoder::Jpeg(mut decoder) => {
                pixels.resize(area * 3, 0);
                decoder.decode_into(pixels).map_err(|e| broken(format, e))?;
            }
            Decoder::Png(decoder) => {
                let image = DynamicImage::from_decoder(*decoder).map_err(|e| png_error(self.bytes, e))?;
                *pixels = image.into_rgb8().into_raw();
            }
            Decoder::WebP(mut decoder) => {
                let channels = if decoder.has_alpha() { 4 } else { 3 };
                pixels.resize(area * channels, 0);
                decoder.read_image(pixels).map_err(|e| webp_error(self.bytes, e))?;
                if channels == 4 {
                    drop_alpha(pixels);
                }
            }
        }
        Ok(Region { part: whole, reduction: 1 })
    }
}

fn sniff(bytes: &[u8]) -> Result<Format, ImageError> {
    match bytes {
        [] => Err(ImageError::Empty),
        [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
        [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Format::Png),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::WebP),
        _ => Err(ImageError::UnknownFormat { start: bytes[..bytes.len().min(12)].to_vec() }),
    }
}

/// Refuses a JPEG without its end: the general decoder would fill what is missing with grey. Markers are looked for from the first scan on.
/// Gives the bytes that what it declares has at the least.
fn whole_jpeg(bytes: &[u8]) -> Result<usize, ImageError> {
    let mut at = 2;
    let (mut scans, mut least) = (false, 0);
    while let Some(found) = bytes.get(at..).and_then(|rest| rest.iter().position(|&b| b == 0xff)) {
        at += found + 1;
        let Some(&marker) = bytes.get(at) else { break };
        match marker {
            0xd9 if scans => return Ok(least),
            0x00 | 0x01 | 0xd0..=0xd9 => at += 1,
            0xff => {}
            _ => {
                if (0xc0..=0xc2).contains(&marker) {
                    least = least_bytes(&bytes[at + 1..]);
                }
                scans |= marker == 0xda;
                let Some(&[high, low]) = bytes.get(at + 1..).and_then(|rest| rest.first_chunk()) else {
                    break;
                };
                at += 1 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    let inside = if scans { "the picture's data" } else { "the header" };
    Err(truncated(Format::Jpeg, bytes, inside))
}

/// Bytes that the scans of a Huffman coded frame have at the least: a bit for the mean of each block of 8 x 8 values. `segment`
/// begins with the frame's length.
fn least_bytes(segment: &[u8]) -> usize {
    let &[_, _, _, h0, h1, w0, w1, count, ref components @ ..] = segment else {
        return 0;
    };
    let [width, height] = [[w0, w1], [h0, h1]].map(|side| usize::from(u16::from_be_bytes(side)));
    let components = components.chunks_exact(3).take(usize::from(count));
    let sampling = components.map(|c| (usize::from(c[1] >> 4), usize::from(c[1] & 15)));
    let (mut across, mut down, mut blocks) = (1, 1, 0);
    for (a, d) in sampling {
        (across, down, blocks) = (across.max(a), down.max(d), blocks + a * d);
    }
    (width / (8 * across)) * (height / (8 * down)) * blocks / 8
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

fn broken(format: Format, reason: impl ToString) -> ImageError {
    ImageError::Broken { format, reason: reason.to_string() }
}

fn truncated(format: Format, bytes: &[u8], inside: &'static str) -> ImageError {
    ImageError::Truncated { format, bytes: bytes.len(), inside }
}

fn png_error(bytes: &[u8], error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated(Format::Png, bytes, "a chunk")
        }
        other => broken(Format::Png, other),
    }
}

fn webp_error(bytes: &[u8], error: image_webp::DecodingError) -> ImageError {
    match error {
        image_webp::DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            truncated(Format::WebP, bytes, "a chunk")
        }
        other => broken(Format::WebP, other),
    }
}
