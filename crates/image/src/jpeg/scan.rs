//! The scan: coefficients, planes of samples, and the window's pixels.

use multiversion::multiversion;

use super::bits::{Bits, Table};
use super::colour;
use super::header::{Component, Header};
use super::idct::{self, Bases};
use crate::turn::Rect;

/// Why a scan could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The file ends inside the scan.
    Truncated,
    /// The scan contradicts itself.
    Broken(&'static str),
}

/// Row x 8 + column of each coefficient in zigzag order.
const ZIGZAG: [u8; 64] = {
    let mut order = [0; 64];
    let (mut row, mut column, mut k) = (0, 0, 0);
    while k < 64 {
        order[k] = (row * 8 + column) as u8;
        match ((row + column) % 2 == 0, row, column) {
            (true, _, 7) => row += 1,
            (true, 0, _) => column += 1,
            (true, _, _) => (row, column) = (row - 1, column + 1),
            (false, 7, _) => column += 1,
            (false, _, 0) => row += 1,
            (false, _, _) => (row, column) = (row + 1, column - 1),
        }
        k += 1;
    }
    order
};

/// Rows (and columns) that hold the first k + 1 coefficients in zigzag order.
const EXTENT: [u8; 64] = {
    let mut extent = [0; 64];
    let (mut k, mut most) = (0, 0);
    while k < 64 {
        let (row, column) = (ZIGZAG[k] / 8, ZIGZAG[k] % 8);
        most = if row > most { row } else { most };
        most = if column > most { column } else { most };
        extent[k] = most + 1;
        k += 1;
    }
    extent
};

/// The most blocks that a byte can hold: a block takes at least a bit for its first coefficient and a bit to end.
const BLOCKS_PER_BYTE: usize = 4;

/// One component on its way through the scan.
struct Plane {
    /// Its blocks in a minimum coded unit.
    across: usize,
    down: usize,
    /// Samples a block is decoded to, down and across: 8, 4, 2 or 1.
    size: (usize, usize),
    steps: [f32; 64],
    tables: (usize, usize),
    /// The first coefficient of the block before.
    previous: i32,
    /// Samples of the units in the window, rows of `stride`.
    samples: Vec<u8>,
    stride: usize,
}

/// The units of the picture, and those of them that the window touches.
struct Units {
    per_row: usize,
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

/// Working memory and constants of the decoder, kept from picture to picture.
pub(crate) struct Workspace {
    bases: Bases,
    samples: [Vec<u8>; 3],
    /// One row of each chroma component at the luma's size.
    rows: [Vec<u8>; 2],
    sums: Vec<u16>,
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace { bases: Bases::new(), samples: Default::default(), rows: Default::default(), sums: Vec::new() }
    }
}

impl Workspace {
    /// Gives back buffers larger than `most` bytes.
    pub fn trim(&mut self, most: usize) {
        for samples in &mut self.samples {
            if samples.capacity() > most {
                *samples = Vec::new();
            }
        }
    }
}

impl Header<'_> {
    /// Decodes the box `window` of the picture reduced by `reduction` (1, 2, 4 or 8; the reduced picture's sides are rounded up) to
    /// `rgb`, rows of `window.width` x 3 bytes.
    pub fn decode(
        &self,
        window: Rect,
        reduction: u32,
        workspace: &mut Workspace,
        rgb: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let size = 8 / reduction as usize;
        let (across, down) = self.components.first().map_or((1, 1), |c| (c.across, c.down));
        let unit = (across * size, down * size);
        let units = self.units(window, reduction, unit);
        let blocks: usize = self.components.iter().map(|c| c.across * c.down).sum();
        if units.per_row * units.bottom * blocks > self.data.len() * BLOCKS_PER_BYTE {
            return Err(Failure::Truncated); // before memory is taken for a declared size
        }
        let mut planes: Vec<Plane> = self
            .components
            .iter()
            .zip(&mut workspace.samples)
            .map(|(component, samples)| {
                // A reduced subsampled component has the coefficients for the luma's size: it needs no enlarging.
                let size = ((size * down / component.down).min(8), (size * across / component.across).min(8));
                Plane::new(self, component, size, &units, std::mem::take(samples))
            })
            .collect();
        let tables = self.tables()?;
        let outcome = walk(self, &tables, &workspace.bases, &units, &mut planes);
        if outcome.is_ok() {
            let origin = (units.left * unit.0, units.top * unit.1);
            self.paint(window, reduction, origin, &planes, workspace, rgb);
        }
        for (kept, plane) in workspace.samples.iter_mut().zip(planes) {
            *kept = plane.samples;
        }
        outcome
    }

    /// The units that hold the window and, where chroma is enlarged, the samples beside it.
    fn units(&self, window: Rect, reduction: u32, unit: (usize, usize)) -> Units {
        let beside = 2;
        let cover = |start: u32, length: u32, unit: usize, whole: u32| {
            let whole = whole.div_ceil(reduction).div_ceil(unit as u32) as usize;
            let first = start.saturating_sub(beside) as usize / unit;
            let end = (start + length + beside) as usize;
            (first, end.div_ceil(unit).min(whole), whole)
        };
        let (left, right, per_row) = cover(window.left, window.width, unit.0, self.width);
        let (top, bottom, _) = cover(window.top, window.height, unit.1, self.height);
        Units { per_row, left, right, top, bottom }
    }

    fn tables(&self) -> Result<[Vec<Option<Box<Table>>>; 2], Failure> {
        let build = |kind: usize| {
            let used = |i: usize| self.components.iter().any(|c| [c.dc, c.ac][kind] == i);
            let tables = self.huffman[kind].iter().enumerate();
            tables
                .map(|(i, definition)| match definition {
                    Some(definition) if used(i) => Table::new(definition, kind == 1).map(|t| Some(Box::new(t))),
                    _ => Ok(None),
                })
                .collect::<Result<Vec<_>, _>>()
        };
        Ok([build(0)?, build(1)?])
    }

    /// Colours the window. `origin` is where the planes begin in the (reduced) picture.
    fn paint(
        &self,
        window: Rect,
        reduction: u32,
        origin: (usize, usize),
        planes: &[Plane],
        workspace: &mut Workspace,
        rgb: &mut Vec<u8>,
    ) {
        let (width, height) = (window.width as usize, window.height as usize);
        let (left, top) = (window.left as usize - origin.0, window.top as usize - origin.1);
        let chroma = Enlargement::of(self, reduction, origin, planes);
        rgb.resize(width * height * 3, 0);
        let [cb_row, cr_row] = &mut workspace.rows;
        for (y, out) in (top..).zip(rgb.chunks_exact_mut(width * 3)) {
            let luma = &planes[0].row(y)[left..left + width];
            let [_, cb, cr] = planes else {
                colour::grey_to_rgb(luma, out);
                continue;
            };
            let cb = cb.enlarged(y, &chroma, cb_row, &mut workspace.sums);
            let cr = cr.enlarged(y, &chroma, cr_row, &mut workspace.sums);
            colour::to_rgb(luma, &cb[left..left + width], &cr[left..left + width], out);
        }
    }
}

impl Plane {
    fn new(header: &Header, component: &Component, size: (usize, usize), units: &Units, mut samples: Vec<u8>) -> Self {
        let stride = (units.right - units.left) * component.across * size.1;
        samples.resize((units.bottom - units.top) * component.down * size.0 * stride, 0);
        Plane {
            across: component.across,
            down: component.down,
            size,
            steps: header.steps(component),
            tables: (component.dc, component.ac),
            previous: 0,
            samples,
            stride,
        }
    }

    fn row(&self, y: usize) -> &[u8] {
        &self.samples[y * self.stride..(y + 1) * self.stride]
    }

    /// Row `y` at the luma's size.
    fn enlarged<'a>(&'a self, y: usize, how: &Enlargement, out: &'a mut Vec<u8>, sums: &mut Vec<u16>) -> &'a [u8] {
        let rows = (self.samples.len() / self.stride).min(how.rows);
        let columns = self.stride.min(how.columns);
        let near = y / 2;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(rows - 1) };
        match (how.across, how.down) {
            (false, false) => return self.row(y),
            (true, down) if how.repeated => {
                let row = self.row(if down { near } else { y });
                out.clear();
                out.extend(row[..columns].iter().flat_map(|&sample| [sample; 2]));
            }
            (true, false) => {
                out.resize(columns * 2, 0);
                colour::widen(&self.row(y)[..columns], out);
            }
            (false, true) => {
                out.resize(self.stride, 0);
                colour::between(self.row(near), self.row(far), 1 + (y % 2) as u16, out);
            }
            (true, true) => {
                out.resize(columns * 2, 0);
                sums.resize(columns, 0);
                let (near, far) = (&self.row(near)[..columns], &self.row(far)[..columns]);
                colour::widen_between(near, far, sums, out);
            }
        }
        out
    }
}

/// How chroma comes to the luma's size.
struct Enlargement {
    /// Whether it has half as many columns, half as many rows.
    across: bool,
    down: bool,
    /// Its columns and rows up to the picture's edge; what a unit holds beyond is filling.
    columns: usize,
    rows: usize,
    /// Columns are repeated instead of smoothed, as libjpeg does if there are but two.
    repeated: bool,
}

impl Enlargement {
    fn of(header: &Header, reduction: u32, origin: (usize, usize), planes: &[Plane]) -> Self {
        let [luma, chroma, ..] = planes else {
            return Enlargement { across: false, down: false, columns: 0, rows: 0, repeated: false };
        };
        let (width, height) = (header.width.div_ceil(reduction), header.height.div_ceil(reduction));
        Enlargement {
            across: chroma.size.1 * chroma.across < luma.size.1 * luma.across,
            down: chroma.size.0 * chroma.down < luma.size.0 * luma.down,
            columns: (width as usize - origin.0).div_ceil(2),
            rows: (height as usize - origin.1).div_ceil(2),
            repeated: width.div_ceil(2) <= 2,
        }
    }
}

/// Runs through the units down to the window's last, decoding those in it.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+lzcnt+popcnt", "aarch64+neon"))]
fn walk(
    header: &Header,
    tables: &[Vec<Option<Box<Table>>>; 2],
    bases: &Bases,
    units: &Units,
    planes: &mut [Plane],
) -> Result<(), Failure> {
    let mut bits = Bits::new(header.data);
    let mut coefficients = [0.0; 64];
    let mut passed = 0;
    for row in 0..units.bottom {
        for column in 0..units.per_row {
            if header.restart > 0 && passed > 0 && passed % header.restart == 0 {
                bits.restart(((passed / header.restart - 1) % 8) as u8)?;
                for plane in &mut *planes {
                    plane.previous = 0;
                }
            }
            passed += 1;
            let wanted = row >= units.top && (units.left..units.right).contains(&column);
            for plane in &mut *planes {
                let (Some(dc), Some(ac)) = (&tables[0][plane.tables.0], &tables[1][plane.tables.1]) else {
                    return Err(Failure::Broken("a Huffman table is missing"));
                };
                for j in 0..plane.down {
                    for i in 0..plane.across {
                        if !wanted {
                            block::<false>(&mut bits, dc, ac, plane, &mut coefficients)?;
                            continue;
                        }
                        let last = block::<true>(&mut bits, dc, ac, plane, &mut coefficients)?;
                        let y = ((row - units.top) * plane.down + j) * plane.size.0;
                        let x = ((column - units.left) * plane.across + i) * plane.size.1;
                        let out = &mut plane.samples[y * plane.stride + x..];
                        if last == 0 {
                            let value = idct::flat(coefficients[0]);
                            for line in out.chunks_mut(plane.stride).take(plane.size.0) {
                                line[..plane.size.1].fill(value);
                            }
                        } else {
                            let extent = usize::from(EXTENT[last]);
                            idct::block(bases, &coefficients, extent, plane.size, out, plane.stride);
                            coefficients = [0.0; 64];
                        }
                    }
                }
            }
            if bits.overrun() {
                return Err(Failure::Truncated);
            }
        }
    }
    Ok(())
}

/// Decodes one block; with `KEEP` its coefficients, times their steps. Returns the zigzag place of the last one that is not zero.
#[inline(always)]
fn block<const KEEP: bool>(
    bits: &mut Bits,
    dc: &Table,
    ac: &Table,
    plane: &mut Plane,
    coefficients: &mut [f32; 64],
) -> Result<usize, Failure> {
    let (_, difference) = dc.next(bits)?;
    plane.previous = plane.previous.wrapping_add(difference);
    if KEEP {
        coefficients[0] = plane.previous as f32 * plane.steps[0];
    }
    let (mut k, mut last) = (1, 0);
    while k < 64 {
        let (zeros, number) = ac.next(bits)?;
        k += zeros as usize;
        if number != 0 {
            if k > 63 {
                return Err(Failure::Broken("a block of more than 64 coefficients"));
            }
            if KEEP {
                coefficients[usize::from(ZIGZAG[k])] = number as f32 * plane.steps[k];
                last = k;
            }
            k += 1;
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const FILES: [&[u8]; 7] = [
        include_bytes!("../../tests/fixtures/formats/ycbcr-444.jpg"),
        include_bytes!("../../tests/fixtures/formats/ycbcr-440.jpg"),
        include_bytes!("../../tests/fixtures/formats/ycbcr-422.jpg"),
        include_bytes!("../../tests/fixtures/formats/ycbcr-420.jpg"),
        include_bytes!("../../tests/fixtures/formats/grey.jpg"),
        include_bytes!("../../tests/fixtures/formats/restarts.jpg"),
        include_bytes!("../../tests/fixtures/formats/narrow.jpg"),
    ];

    fn decode(header: &Header, window: Rect, reduction: u32) -> Vec<u8> {
        let mut rgb = Vec::new();
        let outcome = header.decode(window, reduction, &mut Workspace::default(), &mut rgb);
        assert_eq!(outcome, Ok(()));
        rgb
    }

    fn whole(header: &Header, reduction: u32) -> Rect {
        Rect { left: 0, top: 0, width: header.width.div_ceil(reduction), height: header.height.div_ceil(reduction) }
    }

    #[test]
    fn a_window_shows_what_the_whole_picture_shows_there() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for bytes in FILES {
            let header = Header::read(bytes).unwrap();
            for reduction in [1, 2, 4, 8] {
                let all = whole(&header, reduction);
                let picture = decode(&header, all, reduction);
                for _ in 0..40 {
                    let left = rng.random_range(0..all.width);
                    let top = rng.random_range(0..all.height);
                    let window = Rect {
                        left,
                        top,
                        width: rng.random_range(1..=all.width - left),
                        height: rng.random_range(1..=all.height - top),
                    };
                    let part = decode(&header, window, reduction);
                    for (y, row) in part.chunks_exact(window.width as usize * 3).enumerate() {
                        let at = ((top as usize + y) * all.width as usize + left as usize) * 3;
                        assert_eq!(row, &picture[at..at + row.len()], "{window:?} of {all:?} / {reduction}, row {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_reduced_picture_is_the_mean_of_the_whole_one() {
        // Without subsampling, and away from clipping, the reduced picture is exactly the mean, up to rounding.
        let header = Header::read(FILES[0]).unwrap();
        let picture = decode(&header, whole(&header, 1), 1);
        for reduction in [2, 4, 8] {
            let all = whole(&header, reduction);
            let reduced = decode(&header, all, reduction);
            let mut apart = 0.0;
            let (width, height) = (header.width / reduction, header.height / reduction);
            for (y, x, c) in (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..3).map(move |c| (y, x, c)))) {
                let part =
                    (0..reduction * reduction).map(|i| (y * reduction + i / reduction, x * reduction + i % reduction));
                let sum: f64 = part.map(|(y, x)| f64::from(picture[((y * header.width + x) * 3 + c) as usize])).sum();
                let mean = sum / f64::from(reduction * reduction);
                apart += (mean - f64::from(reduced[((y * all.width + x) * 3 + c) as usize])).abs();
            }
            let apart = apart / f64::from(width * height * 3);
            assert!(apart < 0.6, "reduced by {reduction}: {apart}");
        }
    }

    #[test]
    fn rare_kinds_are_left_to_the_general_decoder() {
        let rare: [&[u8]; 5] = [
            include_bytes!("../../tests/fixtures/formats/progressive.jpg"),
            include_bytes!("../../tests/fixtures/formats/cmyk.jpg"),
            include_bytes!("../../tests/fixtures/formats/ycck.jpg"),
            include_bytes!("../../tests/fixtures/formats/rgb.jpg"),
            include_bytes!("../../tests/fixtures/formats/ycbcr-411.jpg"),
        ];
        assert!(rare.iter().all(|bytes| Header::read(bytes).is_none()));
    }

    #[test]
    fn zigzag_and_its_extent() {
        assert_eq!(ZIGZAG[..10], [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]);
        assert_eq!(ZIGZAG[54..], [39, 46, 53, 60, 61, 54, 47, 55, 62, 63]);
        assert_eq!((EXTENT[0], EXTENT[1], EXTENT[3], EXTENT[35], EXTENT[63]), (1, 2, 3, 8, 8));
    }
}
