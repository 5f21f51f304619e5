//! From a plan to pixels and boxes, anti-aliased.

use image::RgbImage;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use tiny_skia::{FillRule, Mask, Path, PathBuilder, Pixmap, Rect, Transform};

use crate::background::{draw_background, paint};
use crate::outline::{BOUND, outline};
use crate::palette::Rgb;
use crate::plan::{Placed, Plan};
use crate::vocabulary::{Size, Texture};

/// Least coverage, of 255, of a pixel that counts as part of an object.
const COVERED: u8 = 64;

/// Draws the plan at `side` x `side` pixels. The second value is the tight box `[x, y, width, height]` of every object.
pub(crate) fn draw(plan: &Plan, rng: &mut ChaCha8Rng, side: u32) -> (RgbImage, Vec<[u32; 4]>) {
    let mut canvas = Pixmap::new(side, side).expect("the side is within its limits");
    draw_background(&mut canvas, plan.background, rng);
    let boxes = plan.objects.iter().map(|object| draw_object(&mut canvas, object, rng)).collect();
    let rgb = canvas.data().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    (RgbImage::from_raw(side, side, rgb).expect("three values a pixel"), boxes)
}

/// Draws one object and returns its box.
fn draw_object(canvas: &mut Pixmap, object: &Placed, rng: &mut ChaCha8Rng) -> [u32; 4] {
    let side = canvas.width() as f32;
    let path = path_in_pixels(object, side);
    let mut mask = Mask::new(canvas.width(), canvas.height()).expect("the side is within its limits");
    mask.fill_path(&path, FillRule::EvenOdd, true, Transform::identity());

    let shift: [i16; 3] = std::array::from_fn(|_| rng.random_range(-8..=8));
    let tinted = |rgb: Rgb| std::array::from_fn(|i| (i16::from(rgb[i]) + shift[i]).clamp(0, 255) as u8);
    canvas.fill_path(&path, &paint(tinted(object.colour.rgb())), FillRule::EvenOdd, Transform::identity(), None);
    if let Some(pattern) = pattern(object, side, rng) {
        let accent = paint(tinted(object.colour.accent()));
        canvas.fill_path(&pattern, &accent, FillRule::Winding, Transform::identity(), Some(&mask));
    }
    tight_box(&mask)
}

/// The stripes, dots or checks that cover an object, to be cut to its outline.
fn pattern(object: &Placed, side: f32, rng: &mut ChaCha8Rng) -> Option<Path> {
    // Periods as small as can be told apart at 64 pixels.
    let period = side * if object.size == Size::Small { 0.075 } else { 0.1 };
    let reach = BOUND * object.radius * side;
    let steps = (reach / period).ceil() as i32;
    let mut path = PathBuilder::new();
    match object.texture {
        Texture::Plain => return None,
        Texture::Striped => {
            for step in -steps..=steps {
                let middle = step as f32 * period;
                path.push_rect(Rect::from_ltrb(-reach, middle - 0.24 * period, reach, middle + 0.24 * period)?);
            }
        }
        Texture::Dotted => {
            for (row, column) in cells(steps) {
                let shift = if row % 2 == 0 { 0.0 } else { 0.5 };
                path.push_circle((column as f32 + shift) * period, row as f32 * 0.87 * period, 0.3 * period);
            }
        }
        Texture::Checkered => {
            let cell = 0.7 * period;
            let steps = (reach / cell).ceil() as i32;
            for (row, column) in cells(steps).filter(|(row, column)| (row + column) % 2 == 0) {
                path.push_rect(Rect::from_xywh(column as f32 * cell, row as f32 * cell, cell, cell)?);
            }
        }
    }
    // Stripes run in any direction; dots and checks are a little turned.
    let degrees =
        if object.texture == Texture::Striped { rng.random_range(0.0..180.0) } else { rng.random_range(-12.0..12.0) };
    let [x, y] = object.centre.map(|x| x * side);
    path.finish()?.transform(Transform::from_rotate(degrees).post_translate(x, y))
}

fn cells(steps: i32) -> impl Iterator<Item = (i32, i32)> {
    (-steps - 1..=steps + 1).flat_map(move |row| (-steps - 1..=steps + 1).map(move |column| (row, column)))
}

fn path_in_pixels(object: &Placed, side: f32) -> Path {
    let (sin, cos) = object.angle.sin_cos();
    let to_pixels = |[x, y]: [f32; 2]| {
        let turned = [x * cos - y * sin, x * sin + y * cos];
        [0, 1].map(|axis| (object.centre[axis] + object.radius * turned[axis]) * side)
    };
    let mut path = PathBuilder::new();
    for polygon in outline(object.shape) {
        for (i, point) in polygon.into_iter().enumerate() {
            let [x, y] = to_pixels(point);
            if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
        }
        path.close();
    }
    path.finish().expect("an outline has points, all of them finite")
}

fn tight_box(mask: &Mask) -> [u32; 4] {
    let width = mask.width() as usize;
    let covered = |&index: &usize| mask.data()[index] >= COVERED;
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for index in (0..mask.data().len()).filter(covered) {
        let (x, y) = ((index % width) as u32, (index / width) as u32);
        (left, right) = (left.min(x), right.max(x + 1));
        (top, bottom) = (top.min(y), bottom.max(y + 1));
    }
    [left, top, right - left, bottom - top]
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::plan::plan;
    use crate::scene::Split;

    const SIDE: u32 = 96;

    fn plans() -> impl Iterator<Item = Plan> {
        (0..200).map(|seed| plan(&mut ChaCha8Rng::seed_from_u64(seed), Split::Test))
    }

    fn picture(plan: &Plan) -> (RgbImage, Vec<[u32; 4]>) {
        draw(plan, &mut ChaCha8Rng::seed_from_u64(1), SIDE)
    }

    /// How much the two pictures differ at every pixel: the largest difference of a channel.
    fn difference(a: &RgbImage, b: &RgbImage) -> Vec<u8> {
        a.pixels().zip(b.pixels()).map(|(a, b)| (0..3).map(|i| a[i].abs_diff(b[i])).max().unwrap_or(0)).collect()
    }

    #[test]
    fn a_box_bounds_what_the_object_alone_changes() {
        for plan in plans() {
            let (_, boxes) = picture(&plan);
            let (empty, _) = picture(&Plan { objects: vec![], background: plan.background });
            for (object, [x, y, width, height]) in plan.objects.iter().zip(boxes) {
                let alone = Plan { objects: vec![object.clone()], background: plan.background };
                let changed = difference(&picture(&alone).0, &empty);
                let most = *changed.iter().max().unwrap();
                let count = |least: u8, x: u32, y: u32, width: u32, height: u32| {
                    let within = |&(i, _): &(usize, &u8)| {
                        let (px, py) = (i as u32 % SIDE, i as u32 / SIDE);
                        (x..x + width).contains(&px) && (y..y + height).contains(&py)
                    };
                    changed.iter().enumerate().filter(within).filter(|(_, difference)| **difference > least).count()
                };
                assert_eq!(
                    count(most / 2, x, y, width, height),
                    count(most / 2, 0, 0, SIDE, SIDE),
                    "{object:?} reaches out of its box"
                );
                // A tone of the pattern can be like the background: two rows at every edge.
                let edges =
                    [(x, y, 2, height), (x + width - 2, y, 2, height), (x, y, width, 2), (x, y + height - 2, width, 2)];
                for (x, y, width, height) in edges {
                    assert!(count(most / 8, x, y, width, height) > 0, "the box of {object:?} is too large");
                }
            }
        }
    }

    #[test]
    fn no_pixel_belongs_to_two_objects() {
        for plan in plans() {
            let mut covered = vec![0_u16; (SIDE * SIDE) as usize];
            for object in &plan.objects {
                let mut mask = Mask::new(SIDE, SIDE).unwrap();
                let path = path_in_pixels(object, SIDE as f32);
                mask.fill_path(&path, FillRule::EvenOdd, true, Transform::identity());
                covered.iter_mut().zip(mask.data()).for_each(|(sum, value)| *sum += u16::from(*value));
            }
            assert!(covered.iter().all(|&sum| sum <= 255), "objects overlap: {plan:?}");
        }
    }

    #[test]
    fn objects_stand_out_and_textures_show() {
        for plan in plans() {
            let (picture, boxes) = picture(&plan);
            for (object, bbox) in plan.objects.iter().zip(boxes) {
                let mut mask = Mask::new(SIDE, SIDE).unwrap();
                let path = path_in_pixels(object, SIDE as f32);
                mask.fill_path(&path, FillRule::EvenOdd, true, Transform::identity());
                let full = |(pixel, &covered): (&image::Rgb<u8>, &u8)| (covered == 255).then_some(pixel.0);
                let tones: Vec<Rgb> = picture.pixels().zip(mask.data()).filter_map(full).collect();
                let near = |tone: Rgb| tones.iter().filter(|t| (0..3).all(|i| t[i].abs_diff(tone[i]) <= 20)).count();
                let share = |tone: Rgb| near(tone) as f32 / tones.len() as f32;
                let [base, accent] = [share(object.colour.rgb()), share(object.colour.accent())];
                if object.texture == Texture::Plain {
                    assert!(base > 0.99, "{object:?} at {bbox:?}: {base} of its tone");
                } else {
                    assert!(base > 0.1 && accent > 0.04, "{object:?} at {bbox:?}: {base} of its tone, {accent} accent");
                }
            }
        }
    }

    #[test]
    fn large_is_larger_than_small() {
        for &shape in crate::Shape::ALL {
            let extent = |size: Size| {
                let of_size = |plan: Plan| {
                    let (_, boxes) = picture(&plan);
                    plan.objects
                        .into_iter()
                        .zip(boxes)
                        .filter(move |(object, _)| (object.shape, object.size) == (shape, size))
                };
                plans().flat_map(of_size).map(|(_, [_, _, width, height])| width.max(height)).collect::<Vec<_>>()
            };
            let (small, large) = (extent(Size::Small), extent(Size::Large));
            let (small, large) = (small.iter().max().unwrap(), large.iter().min().unwrap());
            assert!(f64::from(*large) >= 1.4 * f64::from(*small), "{shape:?}: small up to {small}, large from {large}");
        }
    }
}
