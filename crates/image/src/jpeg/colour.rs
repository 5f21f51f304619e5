//! Chroma brought to the luma's size, and YCbCr to RGB: the same arithmetic as libjpeg.

use multiversion::multiversion;

/// One row of chroma at twice the width: each pixel 3/4 the nearer and 1/4 the farther sample.
#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
pub(super) fn widen(row: &[u8], out: &mut [u8]) {
    let last = row.len() - 1;
    let mix = |near: u8, far: u8, bias: u16| ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
    for i in [0, last] {
        out[2 * i] = mix(row[i], row[i.saturating_sub(1)], 1);
        out[2 * i + 1] = mix(row[i], row[(i + 1).min(last)], 2);
    }
    if last > 1 {
        for (pair, three) in out[2..2 * last].as_chunks_mut::<2>().0.iter_mut().zip(row.windows(3)) {
            *pair = [mix(three[1], three[0], 1), mix(three[1], three[2], 2)];
        }
    }
}

/// One of the two rows that lie between chroma rows `near` and `far`; `bias` is 1 for the upper and 2 for the lower.
#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
pub(super) fn between(near: &[u8], far: &[u8], bias: u16, out: &mut [u8]) {
    for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
        *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
    }
}

/// Both at once, rounded once: a row of twice the width between `near` and `far`. `sums` is working memory of the input's length.
#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
pub(super) fn widen_between(near: &[u8], far: &[u8], sums: &mut [u16], out: &mut [u8]) {
    for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
        *sum = 3 * u16::from(near) + u16::from(far);
    }
    let last = near.len() - 1;
    let ends = |i: usize, out: &mut [u8]| {
        out[0] = ((3 * sums[i] + sums[i.saturating_sub(1)] + 8) >> 4) as u8;
        out[1] = ((3 * sums[i] + sums[(i + 1).min(last)] + 7) >> 4) as u8;
    };
    ends(0, &mut out[..2]);
    ends(last, &mut out[2 * last..2 * last + 2]);
    if last > 1 {
        for (pair, three) in out[2..2 * last].as_chunks_mut::<2>().0.iter_mut().zip(sums.windows(3)) {
            let middle = 3 * three[1];
            *pair = [((middle + three[0] + 8) >> 4) as u8, ((middle + three[2] + 7) >> 4) as u8];
        }
    }
}

/// One row of pixels. R = Y + 1.402 Cr', G = Y - 0.34414 Cb' - 0.71414 Cr', B = Y + 1.772 Cb', in 16 bit fixed point.
#[multiversion(targets("x86_64+avx2", "aarch64+neon"))]
pub(super) fn to_rgb(y: &[u8], cb: &[u8], cr: &[u8], rgb: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    for (((pixel, &y), &cb), &cr) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(y).zip(cb).zip(cr) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        let red = y + ((91_881 * cr + HALF) >> 16);
        let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
        let blue = y + ((116_130 * cb + HALF) >> 16);
        *pixel = [red.clamp(0, 255) as u8, green.clamp(0, 255) as u8, blue.clamp(0, 255) as u8];
    }
}

/// One row of a grey picture.
pub(super) fn grey_to_rgb(y: &[u8], rgb: &mut [u8]) {
    for (pixel, &y) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(y) {
        *pixel = [y; 3];
    }
}
