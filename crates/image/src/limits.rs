//! What a picture may declare, checked before memory is taken.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::ImageError;
use crate::format::Format;

/// The most pixels a picture may declare: twice a 32 megapixel camera's. Decoding takes up to 12 bytes a pixel.
const MAX_PIXELS: u64 = 1 << 26;
/// The longest side that a picture may declare: JPEG's own limit.
const MAX_SIDE: u32 = u16::MAX as u32;

/// What a picture may declare. Checked before memory is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most pixels, width x height. Decoding takes up to 12 bytes a pixel.
    pub max_pixels: u64,
    /// Longest side in pixels.
    pub max_side: u32,
}

/// What [`Limits::default`] says in this process.
static PIXELS: AtomicU64 = AtomicU64::new(MAX_PIXELS);

/// Sets the most pixels of a picture, in all that this process reads from now on without [`Limits`] of its own.
pub fn set_max_pixels(pixels: u64) {
    PIXELS.store(pixels, Ordering::Relaxed);
}

/// [`MAX_PIXELS`], or what [`set_max_pixels`] has said, and [`MAX_SIDE`].
impl Default for Limits {
    fn default() -> Self {
        Limits { max_pixels: PIXELS.load(Ordering::Relaxed), max_side: MAX_SIDE }
    }
}

impl Limits {
    /// The size, if it is within the limits.
    pub(crate) fn check(&self, format: Format, width: u64, height: u64) -> Result<(u32, u32), ImageError> {
        let too_large = |setting, limit| ImageError::TooLarge { format, width, height, setting, limit };
        if width == 0 || height == 0 {
            return Err(ImageError::NoPixels { format, width, height });
        }
        if width.saturating_mul(height) > self.max_pixels {
            return Err(too_large("max_pixels", self.max_pixels));
        }
        let side = |side: u64| {
            let fits = u32::try_from(side).ok().filter(|&side| side <= self.max_side);
            fits.ok_or_else(|| too_large("max_side", self.max_side.into()))
        };
        Ok((side(width)?, side(height)?))
    }
}
