//! Geometric operations: pixel (x, y) of the result is read from an affine place in the source, bilinearly; what lies outside is grey.
//!
//! As Pillow: pixel centres lie at halves, a place outside the picture is grey, one nearer to the edge than half a pixel repeats the
//! outermost pixel, results are rounded down.

use crate::operations::copy;

/// What is put where the picture does not reach.
const GREY: u8 = 128;

/// Source place of the result's (x, y): (`a[0]` x + `a[1]` y + `a[2]`, `a[3]` x + `a[4]` y + `a[5]`).
type Matrix = [f64; 6];

pub(crate) fn shear_x(shear: f64) -> Matrix {
    [1.0, shear, 0.0, 0.0, 1.0, 0.0]
}

pub(crate) fn shear_y(shear: f64) -> Matrix {
    [1.0, 0.0, 0.0, shear, 1.0, 0.0]
}

/// Anticlockwise by `degrees` about the picture's centre.
pub(crate) fn rotation(degrees: f64, side: usize) -> Matrix {
    let (sin, cos) = (-degrees.to_radians()).sin_cos();
    let centre = side as f64 / 2.0;
    [cos, sin, centre - centre * (cos + sin), -sin, cos, centre - centre * (cos - sin)]
}

/// Moves the picture to the left by `pixels` (to the right if negative).
pub(crate) fn move_x(image: &mut [u8], side: usize, pixels: i32) {
    let by = (pixels.unsigned_abs() as usize).min(side) * 3;
    for row in image.chunks_exact_mut(side * 3) {
        shift(row, by, pixels > 0);
    }
}

/// Moves the picture up by `pixels` (down if negative).
pub(crate) fn move_y(image: &mut [u8], side: usize, pixels: i32) {
    let by = (pixels.unsigned_abs() as usize).min(side) * side * 3;
    shift(image, by, pixels > 0);
}

fn shift(bytes: &mut [u8], by: usize, forwards: bool) {
    let kept = bytes.len() - by;
    if forwards {
        bytes.copy_within(by.., 0);
        bytes[kept..].fill(GREY);
    } else {
        bytes.copy_within(..kept, by);
        bytes[..by].fill(GREY);
    }
}

/// Applies `matrix` to `image`, `side` x `side` RGB pixels.
pub(crate) fn transform(image: &mut [u8], side: usize, matrix: Matrix, spare: &mut Vec<u8>) {
    copy(image, spare);
    spare.push(0); // the last pixel, too, is read with four bytes
    bilinear(spare, side, matrix, image);
}

/// Places are whole numbers of 2^-32 pixels.
const PIXEL: f64 = (1_u64 << 32) as f64;
/// Weights are whole numbers of 2^-13: times a byte they fill a lane of 21 bits, three of which make a word.
const WEIGHT_BITS: u32 = 13;

fn bilinear(from: &[u8], side: usize, matrix: Matrix, to: &mut [u8]) {
    let stride = side * 3;
    let end = (side as i64) << 32;
    let last = side as i64 - 1;
    let [step_x, step_y] = [matrix[0], matrix[3]].map(|step| (step * PIXEL).round() as i64);
    // The two samples on either side of a place, clamped to the picture, and the weight of the second.
    let neighbours = |place: i64| {
        let place = place - (1 << 31) + (1 << (31 - WEIGHT_BITS));
        let low = place >> 32;
        let weight = (place as u32 >> (32 - WEIGHT_BITS)) as u64;
        (low.max(0) as usize, (low + 1).min(last) as usize, weight)
    };
    for (y, row) in to.chunks_exact_mut(stride).enumerate() {
        let start = |c: usize| (0.5 * matrix[c] + (y as f64 + 0.5) * matrix[c + 1] + matrix[c + 2]) * PIXEL;
        let (mut px, mut py) = (start(0).round() as i64, start(3).round() as i64);
        for pixel in row.as_chunks_mut::<3>().0 {
            *pixel = if (0..end).contains(&px) && (0..end).contains(&py) {
                let (left, right, dx) = neighbours(px);
                let (up, down, dy) = neighbours(py);
                let both = (dx * dy) >> WEIGHT_BITS;
                let sum = lanes(from, up * stride + left * 3) * ((1 << WEIGHT_BITS) + both - dx - dy)
                    + lanes(from, up * stride + right * 3) * (dx - both)
                    + lanes(from, down * stride + left * 3) * (dy - both)
                    + lanes(from, down * stride + right * 3) * both;
                [0, 21, 42].map(|lane| (sum >> (lane + WEIGHT_BITS)) as u8)
            } else {
                [GREY; 3]
            };
            px += step_x;
            py += step_y;
        }
    }
}

/// The pixel at byte `at`, each channel in a lane of 21 bits.
#[inline(always)]
fn lanes(from: &[u8], at: usize) -> u64 {
    let four = from[at..].first_chunk::<4>().copied().unwrap_or_default();
    let pixel = u64::from(u32::from_le_bytes(four));
    pixel & 0xff | (pixel & 0xff00) << 13 | (pixel & 0xff_0000) << 26
}
