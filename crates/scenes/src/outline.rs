//! Outlines of the shapes as polygons around the origin, y downwards, for an object of radius 1.

use std::f32::consts::{PI, TAU};

use crate::vocabulary::Shape;

/// Every outline lies within this distance of the origin.
pub(crate) const BOUND: f32 = 1.12;

/// Radius of a ring's hole.
pub(crate) const RING_HOLE: f32 = 0.58;

/// Points of a full circle: smooth at the largest picture.
const ROUND: usize = 96;

/// The closed polygons of a shape, to be filled by the even-odd rule.
pub(crate) fn outline(shape: Shape) -> Vec<Vec<[f32; 2]>> {
    match shape {
        Shape::Circle => vec![arc([0.0, 0.0], 0.95, 0.0, TAU)],
        Shape::Square => vec![vec![[-0.79, -0.79], [0.79, -0.79], [0.79, 0.79], [-0.79, 0.79]]],
        Shape::Triangle => vec![vec![[0.0, -0.75], [0.83, 0.75], [-0.83, 0.75]]],
        Shape::Star => vec![star()],
        Shape::Ring => vec![arc([0.0, 0.0], 1.0, 0.0, TAU), arc([0.0, 0.0], RING_HOLE, 0.0, TAU)],
        Shape::Cross => vec![cross()],
        Shape::Heart => vec![heart()],
        Shape::Hexagon => vec![(0..6).map(|corner| polar([0.0, 0.0], 1.03, corner as f32 * TAU / 6.0)).collect()],
        Shape::Diamond => vec![vec![[0.0, -1.08], [0.68, 0.0], [0.0, 1.08], [-0.68, 0.0]]],
        Shape::Crescent => vec![crescent()],
    }
}

fn polar(centre: [f32; 2], radius: f32, angle: f32) -> [f32; 2] {
    [centre[0] + radius * angle.cos(), centre[1] + radius * angle.sin()]
}

fn arc(centre: [f32; 2], radius: f32, from: f32, to: f32) -> Vec<[f32; 2]> {
    (0..=ROUND).map(|i| polar(centre, radius, from + (to - from) * i as f32 / ROUND as f32)).collect()
}

fn star() -> Vec<[f32; 2]> {
    // Five points, the first upwards; lowered so that the box is centred.
    (0..10).map(|i| polar([0.0, 0.1], if i % 2 == 0 { 1.02 } else { 0.46 }, i as f32 * TAU / 10.0 - PI / 2.0)).collect()
}

fn cross() -> Vec<[f32; 2]> {
    const ARM: f32 = 0.34;
    const END: f32 = 0.98;
    let quarter = [[ARM, -END], [ARM, -ARM], [END, -ARM]];
    let turned = |times: usize, [x, y]: [f32; 2]| (0..times).fold([x, y], |[x, y], _| [-y, x]);
    (0..4).flat_map(|times| quarter.map(|point| turned(times, point))).collect()
}

fn heart() -> Vec<[f32; 2]> {
    (0..ROUND)
        .map(|i| {
            let t = i as f32 * TAU / ROUND as f32;
            let x = 16.0 * t.sin().powi(3);
            let y = 13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
            // The curve spans -16..16 by -17..12.
            [x / 17.0, -(y + 2.5) / 17.0]
        })
        .collect()
}

fn crescent() -> Vec<[f32; 2]> {
    // A disc of radius 0.98 less one of radius 0.8 whose centre lies 0.47 to the right; they meet at +-angle.
    let (outer, inner, apart, shift) = (0.98_f32, 0.8_f32, 0.47_f32, 0.19_f32);
    let x = (outer * outer - inner * inner + apart * apart) / (2.0 * apart);
    let y = (outer * outer - x * x).sqrt();
    let (from, back) = (y.atan2(x), y.atan2(x - apart));
    let mut points = arc([shift, 0.0], outer, from, TAU - from);
    points.extend(arc([shift + apart, 0.0], inner, TAU - back, back));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outlines_are_centred_of_like_extent_and_within_the_bound() {
        for &shape in Shape::ALL {
            let points: Vec<[f32; 2]> = outline(shape).into_iter().flatten().collect();
            let furthest = points.iter().map(|[x, y]| x.hypot(*y)).fold(0.0, f32::max);
            assert!(furthest <= BOUND, "{shape:?} reaches to {furthest}");
            let extents = [0, 1].map(|axis| {
                let least = points.iter().map(|point| point[axis]).fold(f32::MAX, f32::min);
                let most = points.iter().map(|point| point[axis]).fold(f32::MIN, f32::max);
                assert!((least + most).abs() < 0.06, "{shape:?} lies from {least} to {most}");
                most - least
            });
            let extent = extents[0].max(extents[1]);
            assert!((1.5..2.2).contains(&extent), "{shape:?} is {extent} wide or high");
        }
    }
}
