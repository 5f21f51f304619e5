//! Boxes and heat over a picture: overlap, pointing, and the box that holds the heat best.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Overlap from which a box counts as right.
pub const RIGHT_IOU: f64 = 0.5;

/// A box in pixels of the picture: `[left, top, width, height]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 4]", into = "[f64; 4]")]
pub struct Bounds {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// To the right.
    pub width: f64,
    /// Downwards.
    pub height: f64,
}

impl From<[f64; 4]> for Bounds {
    fn from([x, y, width, height]: [f64; 4]) -> Self {
        Self { x, y, width, height }
    }
}

impl From<Bounds> for [f64; 4] {
    fn from(b: Bounds) -> Self {
        [b.x, b.y, b.width, b.height]
    }
}

impl Bounds {
    /// Square pixels.
    pub fn area(self) -> f64 {
        self.width * self.height
    }

    /// Its middle: x and y.
    pub fn centre(self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height / 2.0)
    }

    /// In a picture whose sides are multiplied by these.
    pub fn scaled(self, across: f64, down: f64) -> Self {
        Self { x: self.x * across, y: self.y * down, width: self.width * across, height: self.height * down }
    }

    /// Whether the point lies inside: the left and top edges do, the right and bottom ones do not.
    pub fn contains(self, (x, y): (f64, f64)) -> bool {
        (self.x..self.x + self.width).contains(&x) && (self.y..self.y + self.height).contains(&y)
    }

    /// Width and height of what both cover; 0 where they lie apart.
    fn common(self, other: Self) -> (f64, f64) {
        let overlap = |start: f64, length: f64, other_start: f64, other_length: f64| {
            let end = (start + length).min(other_start + other_length);
            (end - start.max(other_start)).max(0.0)
        };
        (overlap(self.x, self.width, other.x, other.width), overlap(self.y, self.height, other.y, other.height))
    }

    /// Area that both cover.
    pub fn shared(self, other: Self) -> f64 {
        let (width, height) = self.common(other);
        width * height
    }

    /// Intersection over union in pixels, from 0 to 1, as RefCOCO's evaluators count: a box ends in its last pixel, and an intersection
    /// that is no wider or no higher than one pixel is none.
    pub fn iou(self, other: Self) -> f64 {
        let (width, height) = self.common(other);
        let both = if width > 1.0 && height > 1.0 { width * height } else { 0.0 };
        let either = self.area() + other.area() - both;
        if either > 0.0 { both / either } else { 0.0 }
    }

    /// Whether this answer counts as right.
    pub fn finds(self, truth: Self) -> bool {
        self.iou(truth) >= RIGHT_IOU
    }
}

/// Heat over a picture, pixel by pixel, with the sum of any rectangle at hand.
#[derive(Debug, Clone)]
pub struct Heat {
    width: usize,
    height: usize,
    values: Vec<f32>,
    /// `(height + 1) x (width + 1)`: sum of all pixels above and to the left.
    sums: Vec<f64>,
}

impl Heat {
    /// Heat as given, row by row.
    ///
    /// # Panics
    /// Unless there are `width` x `height` values.
    pub fn new(width: usize, height: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), width * height, "a value a pixel");
        let stride = width + 1;
        let mut sums = vec![0.0; stride * (height + 1)];
        for y in 0..height {
            let mut row = 0.0;
            for x in 0..width {
                row += f64::from(values[y * width + x]);
                sums[(y + 1) * stride + x + 1] = sums[y * stride + x + 1] + row;
            }
        }
        Self { width, height, values, sums }
    }

    /// A map of one value a patch, upsampled bicubically to `width` x `height` pixels, as torch's `interpolate` does.
    pub fn spread(map: &[f32], grid: usize, width: usize, height: usize) -> Self {
        let side = grid as i64;
        let pixels = Tensor::from_slice(map)
            .view([1, 1, side, side])
            .upsample_bicubic2d([height as i64, width as i64], false, None, None)
            .flatten(0, -1);
        let values = Vec::try_from(pixels.to_kind(Kind::Float)).expect("floats");
        Self::new(width, height, values)
    }

    /// Row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The centre of the hottest pixel, the first of equals; none where nothing is hot.
    pub fn peak(&self) -> Option<(f64, f64)> {
        let (at, _) = self
            .values
            .iter()
            .enumerate()
            .filter(|(_, heat)| **heat > 0.0)
            .reduce(|best, next| if next.1 > best.1 { next } else { best })?;
        let (x, y) = (at % self.width, at / self.width);
        Some((x as f64 + 0.5, y as f64 + 0.5))
    }

    /// Sum over the pixels from the box's corner (rounded down, as the authors cut) to its end.
    fn sum(&self, b: Bounds) -> f64 {
        let cut = |at: f64, side: usize| at.max(0.0).min(side as f64) as usize;
        let (left, right) = (cut(b.x, self.width), cut(b.x + b.width, self.width));
        let (top, bottom) = (cut(b.y, self.height), cut(b.y + b.height, self.height));
        let at = |x: usize, y: usize| self.sums[y * (self.width + 1) + x];
        at(right, bottom) - at(left, bottom) - at(right, top) + at(left, top)
    }

    /// How well a box holds the heat: its sum over the root of the box's area (docs/paper.md, 'Grounding'). A box without an area, as a
    /// detector may say it, is worse than any other.
    pub fn score(&self, b: Bounds) -> f64 {
        if b.width > 0.0 && b.height > 0.0 { self.sum(b) / b.area().sqrt() } else { f64::NEG_INFINITY }
    }

    /// The proposal with the largest score, the first of equals, be it below 0; none of none.
    pub fn best_of(&self, proposals: &[Bounds]) -> Option<usize> {
        let scored = proposals.iter().map(|&b| self.score(b)).enumerate();
        scored.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(i, _)| i)
    }
}

/// The box for a map where there are no proposals: of all rectangles of half patches, the one that would win among proposals. In pixels
/// of a `width` x `height` picture; none where nothing is hot.
pub fn best_window(map: &[f32], grid: usize, width: f64, height: f64) -> Option<Bounds> {
    let side = 2 * grid;
    let heat = Heat::spread(map, grid, side, side);
    let mut best: Option<(f64, Bounds)> = None;
    for (top, left) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
        for (bottom, right) in (top + 1..=side).flat_map(|y| (left + 1..=side).map(move |x| (y, x))) {
            let window =
                Bounds { x: left as f64, y: top as f64, width: (right - left) as f64, height: (bottom - top) as f64 };
            let score = heat.score(window);
            if score > best.map_or(0.0, |(score, _)| score) {
                best = Some((score, window));
            }
        }
    }
    let side = side as f64;
    best.map(|(_, b)| b.scaled(width / side, height / side))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(b: [f64; 4]) -> Bounds {
        b.into()
    }

    #[test]
    fn overlap_by_hand_and_at_the_edge() {
        let a = bounds([0.0, 0.0, 4.0, 2.0]);
        for (b, expected) in [
            ([0.0, 0.0, 4.0, 2.0], 1.0),
            ([2.0, 0.0, 4.0, 2.0], 4.0 / 12.0),
            ([4.0, 0.0, 4.0, 2.0], 0.0),
            ([1.0, 0.0, 2.0, 2.0], 4.0 / 8.0),
            // Of one pixel in height or width: none.
            ([1.0, 0.0, 2.0, 1.0], 0.0),
            ([3.0, 0.0, 4.0, 2.0], 0.0),
            ([2.9, 0.0, 4.0, 2.0], 2.2 / 13.8),
            // Over the edge, as a detector may say it.
            ([-2.0, -2.0, 6.0, 4.0], 8.0 / 24.0),
            ([9.0, 9.0, 1.0, 1.0], 0.0),
            ([0.0, 0.0, 0.0, 0.0], 0.0),
        ] {
            assert!((a.iou(bounds(b)) - expected).abs() < 1e-12, "{b:?}");
            assert_eq!(bounds(b).iou(a), a.iou(bounds(b)), "{b:?}");
        }
        // Half is right, a little less is not.
        assert!(a.finds(bounds([0.0, 0.0, 2.0, 2.0])));
        assert!(!a.finds(bounds([0.0, 0.0, 1.999, 2.0])));
        assert_eq!(bounds([0.0; 4]).iou(bounds([0.0; 4])), 0.0);
    }

    #[test]
    fn a_point_on_the_left_edge_is_inside_and_on_the_right_is_not() {
        let b = bounds([2.0, 3.0, 4.0, 1.0]);
        for (point, inside) in [
            ((2.0, 3.0), true),
            ((5.999, 3.999), true),
            ((6.0, 3.5), false),
            ((3.0, 4.0), false),
            ((1.999, 3.5), false),
        ] {
            assert_eq!(b.contains(point), inside, "{point:?}");
        }
    }

    #[test]
    fn sums_and_peaks_by_hand() {
        let heat = Heat::new(3, 2, vec![0.0, 1.0, 2.0, 3.0, 4.0, 4.0]);
        assert_eq!(heat.sum(bounds([0.0, 0.0, 3.0, 2.0])), 14.0);
        assert_eq!(heat.sum(bounds([1.0, 0.0, 1.0, 2.0])), 5.0);
        assert_eq!(heat.sum(bounds([1.9, 1.9, 1.0, 1.0])), 4.0, "cut down");
        assert_eq!(heat.sum(bounds([-5.0, -5.0, 6.0, 6.0])), 0.0);
        assert_eq!(heat.sum(bounds([1.0, 1.0, 90.0, 90.0])), 8.0);
        assert_eq!(heat.peak(), Some((1.5, 1.5)), "the first of equals");
        assert_eq!(Heat::new(2, 1, vec![0.0, 0.0]).peak(), None);
    }

    #[test]
    fn proposals_are_ranked_by_their_sum_over_the_root_of_their_area() {
        let mut values = vec![0.0; 16];
        values[5] = 3.0;
        values[6] = 1.0;
        let heat = Heat::new(4, 4, values);
        // 3 / 1, 4 / sqrt 2 = 2.83, 4 / 4, nothing.
        let all = [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 2.0, 1.0], [0.0, 0.0, 4.0, 4.0], [0.0, 3.0, 4.0, 1.0]].map(bounds);
        assert_eq!(heat.best_of(&all), Some(0));
        assert_eq!(heat.best_of(&all[1..]), Some(0));
        assert_eq!(heat.best_of(&all[2..]), Some(0));
        assert_eq!(heat.best_of(&all[3..]), Some(0), "no heat is better than no box");
        assert_eq!(heat.best_of(&[all[3], all[2], all[2]]), Some(1), "the first of equals");
        assert_eq!(heat.best_of(&[]), None);
        // Bicubic heat dips below 0: the least cold box is the best.
        let cold = Heat::new(2, 1, vec![-3.0, -1.0]);
        assert_eq!(cold.best_of(&[[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]].map(bounds)), Some(1));
        // Without an area there is nothing to hold it, be the box the first or the only one.
        let flat = [[1.0, 1.0, 0.0, 1.0], [1.0, 1.0, -2.0, -2.0], [1.0, 1.0, 2.0, 1.0]].map(bounds);
        assert_eq!((heat.best_of(&flat), heat.best_of(&flat[..1])), (Some(2), Some(0)));
        // Beyond the edge there is no heat, but area: 4 / sqrt 36 for all of it, 3 in two of four and a half columns.
        assert_eq!(heat.score(bounds([1.0, 1.0, 9.0, 4.0])), 4.0 / 6.0);
        assert_eq!(heat.score(bounds([-2.5, 1.0, 4.5, 1.0])), 3.0 / 4.5f64.sqrt());
    }

    #[test]
    fn upsampling_is_torchs_bicubic() {
        // torch.nn.functional.interpolate(torch.eye(2)[None, None], (4, 4), mode="bicubic")[0, 0, :2]
        let heat = Heat::spread(&[1.0, 0.0, 0.0, 1.0], 2, 4, 4);
        let expected = [1.233185, 0.831116, 0.168884, -0.233185, 0.831116, 0.649536, 0.350464, 0.168884];
        for (found, expected) in heat.values.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{:?}", heat.values);
        }
    }

    #[test]
    fn the_best_window_lies_on_the_heat_of_a_picture_of_any_shape() {
        let mut map = vec![0.0; 16];
        map[6] = 1.0; // second row, third column of 4 x 4
        map[10] = 1.0; // and the one below
        let found = best_window(&map, 4, 400.0, 200.0).unwrap();
        let hot = bounds([200.0, 50.0, 100.0, 100.0]);
        assert!(found.iou(hot) > 0.6, "{found:?}");
        assert_eq!(best_window(&[0.0; 16], 4, 400.0, 200.0), None);
    }
}
