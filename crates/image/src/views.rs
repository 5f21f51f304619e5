//! From the view's bytes to what the encoders compute with.
//!
//! Training does this on the device, from bytes: a quarter of the memory and of the copying.

use multiversion::multiversion;

/// Mean of each channel (red, green, blue) of pixels in [0, 1].
pub const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// Standard deviation of each channel.
pub const STD: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// Writes the half-size picture of `view`, `side` x `side` RGB pixels with an even side: each pixel the mean of four, rounded up as
/// Pillow's `BOX` filter does, first along rows.
#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
pub fn halve(view: &[u8], side: u32, half: &mut [u8]) {
    let stride = side as usize * 3;
    let mean = |a: u8, b: u8| (u16::from(a) + u16::from(b)).div_ceil(2);
    for (rows, out) in view.chunks_exact(2 * stride).zip(half.chunks_exact_mut(stride / 2)) {
        let (upper, lower) = rows.split_at(stride);
        let (upper, lower) = (upper.as_chunks::<6>().0, lower.as_chunks::<6>().0);
        for ((pixel, upper), lower) in out.as_chunks_mut::<3>().0.iter_mut().zip(upper).zip(lower) {
            for (channel, value) in pixel.iter_mut().enumerate() {
                let above = mean(upper[channel], upper[channel + 3]);
                let below = mean(lower[channel], lower[channel + 3]);
                *value = (above + below).div_ceil(2) as u8;
            }
        }
    }
}

/// The image encoder's input: `(p / 255 - MEAN) / STD`, channels first, from RGB pixels in rows.
pub(crate) fn normalise(view: &[u8], out: &mut [f32]) {
    let tables: [[f32; 256]; 3] =
        std::array::from_fn(|c| std::array::from_fn(|value| (value as f32 / 255.0 - MEAN[c]) / STD[c]));
    planes(view, &tables, out);
}

/// The visual tokenizer's input: `0.8 p / 255 + 0.1`, channels first, from RGB pixels in rows.
pub(crate) fn tokenizer_pixels(half: &[u8], out: &mut [f32]) {
    let table = std::array::from_fn(|value| value as f32 * (0.8 / 255.0) + 0.1);
    planes(half, &[table; 3], out);
}

fn planes(pixels: &[u8], tables: &[[f32; 256]; 3], out: &mut [f32]) {
    let pixels = pixels.as_chunks::<3>().0;
    for (channel, (plane, table)) in out.chunks_exact_mut(pixels.len().max(1)).zip(tables).enumerate() {
        for (value, pixel) in plane.iter_mut().zip(pixels) {
            *value = table[usize::from(pixel[channel])];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_rounds_up_along_rows_first() {
        // Channels of a 2 x 2 picture: means (1, 2) -> 2, (0, 0) -> 0: 1. All 255 stays. (0, 1), (0, 0): 1, 0: 1.
        let view = [1, 255, 0, 2, 255, 1, 0, 255, 0, 0, 255, 0];
        let mut half = [0; 3];
        halve(&view, 2, &mut half);
        assert_eq!(half, [1, 255, 1]);
    }

    #[test]
    fn inputs_by_hand() {
        let mut out = [0.0; 6];
        normalise(&[0, 255, 51, 255, 0, 0], &mut out);
        let expected = [
            -MEAN[0] / STD[0],
            (1.0 - MEAN[0]) / STD[0],
            (1.0 - MEAN[1]) / STD[1],
            -MEAN[1] / STD[1],
            (0.2 - MEAN[2]) / STD[2],
            -MEAN[2] / STD[2],
        ];
        for (found, expected) in out.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{out:?}");
        }
        tokenizer_pixels(&[0, 255, 51, 255, 0, 0], &mut out);
        for (found, expected) in out.iter().zip([0.1, 0.9, 0.9, 0.1, 0.26, 0.1]) {
            assert!((found - expected).abs() < 1e-6, "{out:?}");
        }
    }
}
