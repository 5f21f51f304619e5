//! The inverse cosine transform, at full size or reduced.
//!
//! Written as two small matrix products: it vectorises as it stands, skips the high frequencies that most blocks do not have, and gives
//! the reduced sizes for free. A block reduced to R x C is exactly the block's mean over each of its R x C parts, which is what an
//! antialiased reduction by two, four or eight should be (libjpeg's scaled decoding does the same).

use std::f64::consts::PI;

use wide::{f32x8, i16x8, u8x16};

/// `BASIS[s][k][n]`: what frequency k adds to sample n of 2^s, the constant term included.
pub(super) struct Bases([[f32x8; 8]; 4]);

impl Bases {
    pub fn new() -> Self {
        let full = |k: usize, n: usize| {
            let scale = if k == 0 { 0.125_f64.sqrt() } else { 0.5 };
            scale * ((2 * n + 1) as f64 * k as f64 * PI / 16.0).cos()
        };
        let mut bases = [[f32x8::ZERO; 8]; 4];
        for (s, basis) in bases.iter_mut().enumerate() {
            let part = 8 >> s;
            for (k, row) in basis.iter_mut().enumerate() {
                for (n, entry) in row.as_mut_array().iter_mut().enumerate().take(1 << s) {
                    let sum: f64 = (n * part..(n + 1) * part).map(|i| full(k, i)).sum();
                    *entry = (sum / part as f64) as f32;
                }
            }
        }
        Bases(bases)
    }
}

/// Two rows rounded to bytes, values out of range to the nearest.
#[inline(always)]
fn bytes(rows: [f32x8; 2]) -> [[u8; 8]; 2] {
    let [a, b] = rows.map(|row| i16x8::from_i32x8_saturate(row.fast_round_int()));
    let both = u8x16::narrow_i16x8(a, b).to_array();
    std::array::from_fn(|row| std::array::from_fn(|i| both[8 * row + i]))
}

/// Pixels of a block whose only coefficient is the first.
#[inline(always)]
pub(super) fn flat(coefficient: f32) -> u8 {
    (coefficient * 0.125 + 128.0).round_ties_even() as u8
}

/// Pixels of a block: `coefficients` in rows of eight, zero from row and column `extent` on, to `rows` x `columns` (8, 4, 2 or 1)
/// bytes at the start of `out`, whose rows are `stride` apart.
#[inline(always)]
pub(super) fn block(
    bases: &Bases,
    coefficients: &[f32; 64],
    extent: usize,
    (rows, columns): (usize, usize),
    out: &mut [u8],
    stride: usize,
) {
    let size = |n: usize| n.trailing_zeros() as usize & 3;
    let (down, across) = (&bases.0[size(rows)], &bases.0[size(columns)]);
    let (lines, _) = coefficients.as_chunks::<8>();
    if rows < 8 {
        let mut half = [f32x8::ZERO; 4];
        for (line, weights) in lines.iter().zip(down).take(extent) {
            add(&mut half, line, weights);
        }
        // Rows beyond the reduced size, if any, are not written: the slice ends before them.
        four_rows(&half, across, extent, columns, &mut out[..(rows - 1) * stride + columns], stride);
        return;
    }
    // Even frequencies are symmetric about the middle, odd ones antisymmetric: four rows of each give all eight.
    let (mut even, mut odd) = ([f32x8::ZERO; 4], [f32x8::ZERO; 4]);
    for (lines, weights) in lines.chunks_exact(2).zip(down.chunks_exact(2)).take(extent.div_ceil(2)) {
        add(&mut even, &lines[0], &weights[0]);
        add(&mut odd, &lines[1], &weights[1]);
    }
    let upper = std::array::from_fn(|r| even[r] + odd[r]);
    let lower = std::array::from_fn(|r| even[3 - r] - odd[3 - r]);
    let (above, below) = out.split_at_mut(4 * stride);
    four_rows(&upper, across, extent, columns, above, stride);
    four_rows(&lower, across, extent, columns, below, stride);
}

/// Adds a row of coefficients, weighted for each of four rows.
#[inline(always)]
fn add(sums: &mut [f32x8; 4], line: &[f32; 8], weights: &f32x8) {
    let line = f32x8::new(*line);
    for (sum, &weight) in sums.iter_mut().zip(weights.as_array()) {
        *sum += line * f32x8::splat(weight);
    }
}

/// Transforms four rows across and writes them.
#[inline(always)]
fn four_rows(half: &[f32x8; 4], across: &[f32x8; 8], extent: usize, columns: usize, out: &mut [u8], stride: usize) {
    let mut pixels = [f32x8::splat(128.0); 4];
    for (k, &weights) in across.iter().enumerate().take(extent) {
        for (sum, line) in pixels.iter_mut().zip(half) {
            *sum += weights * f32x8::splat(line.as_array()[k]);
        }
    }
    let (pairs, _) = pixels.as_chunks::<2>();
    let rows = pairs.iter().flat_map(|pair| bytes(*pair));
    for (row, out) in rows.zip(out.chunks_mut(stride)) {
        if let (8, Some(out)) = (columns, out.first_chunk_mut()) {
            *out = row;
        } else {
            out[..columns].copy_from_slice(&row[..columns]);
        }
    }
}
