//! The ten operations of RandAugment without colour changes, at the method's strength, as Pillow computes them.
//!
//! Pictures are square, RGB in rows. Point operations and sharpening give Pillow's bytes; geometric ones do up to a last-bit rounding.

use multiversion::multiversion;

use crate::affine;

/// Brightness and sharpness: 1 leaves a picture as it is.
const FACTOR: f32 = 1.36;
/// Shear, in pixels sideways for each pixel along.
const SHEAR: f64 = 0.21;
/// Translation in pixels.
const TRANSLATION: i32 = 7;
/// Rotation in degrees.
const ROTATION: f64 = 21.0;

/// One operation of RandAugment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Nothing.
    Identity,
    /// Each channel stretched to the full range.
    AutoContrast,
    /// Each channel's histogram flattened.
    Equalize,
    /// Brighter.
    Brightness,
    /// Sharper: away from the smoothed picture.
    Sharpness,
    /// Sheared horizontally.
    ShearX,
    /// Sheared vertically.
    ShearY,
    /// Moved horizontally.
    TranslateX,
    /// Moved vertically.
    TranslateY,
    /// Rotated about the centre.
    Rotate,
}

/// The direction of a geometric operation; the others ignore it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    /// Left, up, or anticlockwise: positive coefficients in Pillow's terms.
    Plus,
    /// The other way.
    Minus,
}

impl Sign {
    pub(crate) fn times(self, magnitude: f64) -> f64 {
        match self {
            Sign::Plus => magnitude,
            Sign::Minus => -magnitude,
        }
    }
}

impl Operation {
    /// All ten, in the order in which they are drawn.
    pub const ALL: [Operation; 10] = [
        Operation::Identity,
        Operation::AutoContrast,
        Operation::Equalize,
        Operation::Brightness,
        Operation::Sharpness,
        Operation::ShearX,
        Operation::ShearY,
        Operation::TranslateX,
        Operation::TranslateY,
        Operation::Rotate,
    ];

    /// Applies the operation to `image`, `side` x `side` RGB pixels. `spare` is working memory.
    ///
    /// # Panics
    /// When `image` does not hold `side` x `side` x 3 bytes.
    pub fn apply(self, sign: Sign, image: &mut [u8], side: u32, spare: &mut Vec<u8>) {
        let side = side as usize;
        assert_eq!(image.len(), side * side * 3, "an image of {side} x {side} pixels");
        match self {
            Operation::Identity => {}
            Operation::AutoContrast => map(image, &histograms(image).map(|h| contrast(&h))),
            Operation::Equalize => map(image, &histograms(image).map(|h| flatten(&h))),
            Operation::Brightness => map(image, &[brighter(); 3]),
            Operation::Sharpness => {
                copy(image, spare);
                sharpen(spare, side, image);
            }
            Operation::TranslateX => affine::move_x(image, side, sign.times(f64::from(TRANSLATION)) as i32),
            Operation::TranslateY => affine::move_y(image, side, sign.times(f64::from(TRANSLATION)) as i32),
            Operation::ShearX => affine::transform(image, side, affine::shear_x(sign.times(SHEAR)), spare),
            Operation::ShearY => affine::transform(image, side, affine::shear_y(sign.times(SHEAR)), spare),
            Operation::Rotate => affine::transform(image, side, affine::rotation(sign.times(ROTATION), side), spare),
        }
    }
}

/// `spare` becomes a copy of `image`.
pub(crate) fn copy(image: &[u8], spare: &mut Vec<u8>) {
    spare.clear();
    spare.extend_from_slice(image);
}

/// How often each value occurs, by channel.
fn histograms(image: &[u8]) -> [[u32; 256]; 3] {
    // Two counts in turn: neighbours are often equal, and adding to a count twice in a row waits for the first.
    let mut counts = [[[0_u32; 256]; 3]; 2];
    for (i, pixel) in image.as_chunks::<3>().0.iter().enumerate() {
        for (counts, &value) in counts[i % 2].iter_mut().zip(pixel) {
            counts[usize::from(value)] += 1;
        }
    }
    let [even, odd] = counts;
    std::array::from_fn(|c| std::array::from_fn(|value| even[c][value] + odd[c][value]))
}

/// Replaces each value by its channel's table.
fn map(image: &mut [u8], tables: &[[u8; 256]; 3]) {
    for pixel in image.as_chunks_mut::<3>().0 {
        for (value, table) in pixel.iter_mut().zip(tables) {
            *value = table[usize::from(*value)];
        }
    }
}

fn identity() -> [u8; 256] {
    std::array::from_fn(|value| value as u8)
}

/// The lowest value to 0, the highest to 255, linear between.
fn contrast(histogram: &[u32; 256]) -> [u8; 256] {
    let low = histogram.iter().position(|&n| n > 0).unwrap_or(0);
    let high = histogram.iter().rposition(|&n| n > 0).unwrap_or(0);
    if high <= low {
        return identity();
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
}

/// The values spread so that each range of them is as frequent as any other of its length.
fn flatten(histogram: &[u32; 256]) -> [u8; 256] {
    let mut used = histogram.iter().filter(|&&n| n > 0);
    used.next_back(); // the highest value does not count
    let others: u32 = used.sum();
    let step = others / 255;
    if step == 0 {
        return identity();
    }
    let mut below = step / 2;
    histogram.map(|count| {
        let value = (below / step).min(255) as u8;
        below += count;
        value
    })
}

/// Each value times [`FACTOR`].
fn brighter() -> [u8; 256] {
    std::array::from_fn(|value| (FACTOR * value as f32) as u8)
}

/// Writes to `to` the picture `from`, moved away from its smoothed form (3 x 3, the centre five times) by [`FACTOR`]; the outermost
/// pixels, which the smoothing leaves, stay as they are.
#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
fn sharpen(from: &[u8], side: usize, to: &mut [u8]) {
    let stride = side * 3;
    if side < 3 {
        return;
    }
    for y in 1..side - 1 {
        let inner = stride - 6;
        let [above, here, below] = [y - 1, y, y + 1].map(|y| &from[y * stride..(y + 1) * stride]);
        let out = &mut to[y * stride + 3..][..inner];
        for i in 0..inner {
            let mut sum = 4 * u16::from(here[i + 3]);
            for row in [above, here, below] {
                sum += u16::from(row[i]) + u16::from(row[i + 3]) + u16::from(row[i + 6]);
            }
            // Rounded division by 13 (a half cannot occur), exact for sums up to 13 x 255.
            let smooth = ((u32::from(sum + 6) * 5042) >> 16) as f32;
            let value = smooth + FACTOR * (f32::from(here[i + 3]) - smooth);
            out[i] = value.clamp(0.0, 255.0) as i32 as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_by_thirteen_is_exact() {
        for sum in 0..=13 * 255_u32 {
            assert_eq!(((sum + 6) * 5042) >> 16, (2 * sum + 13) / 26, "{sum}");
        }
    }

    #[test]
    fn contrast_stretches_and_leaves_flat_channels() {
        let mut histogram = [0; 256];
        histogram[64] = 3;
        assert_eq!(contrast(&histogram), identity());
        histogram[128] = 1;
        let table = contrast(&histogram);
        assert_eq!((table[64], table[96], table[128]), (0, 127, 255));
    }

    #[test]
    fn equalize_by_hand() {
        // 510 pixels at 10, 510 at 20, 7 at 30: the last value does not count, so a step is 1020 / 255 = 4.
        let mut histogram = [0; 256];
        (histogram[10], histogram[20], histogram[30]) = (510, 510, 7);
        let table = flatten(&histogram);
        // (2 + 0) / 4, (2 + 510) / 4, (2 + 1020) / 4.
        assert_eq!((table[10], table[20], table[30]), (0, 128, 255));
        // Fewer than 255 pixels: no step, no change.
        (histogram[10], histogram[20]) = (100, 100);
        assert_eq!(flatten(&histogram), identity());
    }
}
