//! What is in a scene and where, in fractions of the picture's side.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use crate::outline::BOUND;
use crate::relation::distance;
use crate::scene::Split;
use crate::vocabulary::{Background, Colour, Shape, Size, Texture, is_unseen};

/// An object with its place. Objects never overlap; one can lie in the hole of a ring.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub shape: Shape,
    pub colour: Colour,
    pub texture: Texture,
    pub size: Size,
    /// x (to the right) and y (downwards), of the side.
    pub centre: [f32; 2],
    /// Of the side.
    pub radius: f32,
    /// Radians.
    pub angle: f32,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub objects: Vec<Placed>,
    pub background: Background,
}

/// How many of a hundred scenes have 1, 2, 3 and 4 objects.
const COUNTS: [(usize, u32); 4] = [(1, 16), (2, 42), (3, 28), (4, 14)];

/// Share of the test scenes with at least one combination that training never sees.
const COMPOSITIONAL: f64 = 0.5;

/// Share of the scenes with two or more objects that are drawn as "a small one inside a large ring".
const INSIDE: f64 = 0.06;

/// Share of the scenes with three objects that are drawn as a row, so that one is between the others.
const ROW: f64 = 0.35;

/// Least space between objects and to the border, of the side.
const GAP: f32 = 0.02;

/// Tries to find room for the objects of one draw before a new draw.
const TRIES: usize = 200;

/// Draws a plan. `Train` has only combinations that are not [`is_unseen`].
pub(crate) fn plan(rng: &mut ChaCha8Rng, split: Split) -> Plan {
    let (count, _) = *COUNTS.choose_weighted(rng, |(_, weight)| *weight).expect("the weights are positive");
    // Objects that find no room, or no background on which all of them stand out, are drawn again.
    loop {
        if let Some(plan) = attempt(rng, split, count) {
            return plan;
        }
    }
}

fn attempt(rng: &mut ChaCha8Rng, split: Split, count: usize) -> Option<Plan> {
    let compositional = split == Split::Test && rng.random_bool(COMPOSITIONAL);
    let novel = compositional.then(|| rng.random_range(0..count));
    let inside = count >= 2 && rng.random_bool(INSIDE);
    let row = count == 3 && !inside && rng.random_bool(ROW);

    let mut objects: Vec<Placed> = Vec::with_capacity(count);
    for place in 0..count {
        let allowed = |object: &Placed| {
            let unseen = is_unseen(object.shape, object.colour, object.texture);
            let fits_split = match (split, compositional) {
                (Split::Test, true) => novel != Some(place) || unseen,
                _ => !unseen,
            };
            let fits_inside = !inside
                || match place {
                    0 => object.size == Size::Small,
                    1 => object.size == Size::Large && object.shape == Shape::Ring,
                    _ => true,
                };
            fits_split && fits_inside && !objects.iter().any(|other| looks(other) == looks(object))
        };
        let object = loop {
            let object = draw_object(rng);
            if allowed(&object) {
                break object;
            }
        };
        objects.push(object);
    }
    (0..TRIES).any(|_| place(rng, &mut objects, inside, row)).then_some(())?;

    let shown: Vec<Background> = Background::ALL
        .iter()
        .copied()
        .filter(|background| objects.iter().all(|object| background.shows(object.colour)))
        .collect();
    Some(Plan { background: *shown.choose(rng)?, objects })
}

fn looks(object: &Placed) -> (Shape, Colour, Texture, Size) {
    (object.shape, object.colour, object.texture, object.size)
}

fn draw_object(rng: &mut ChaCha8Rng) -> Placed {
    let mut pick = |count: usize| rng.random_range(0..count);
    let shape = Shape::ALL[pick(Shape::ALL.len())];
    let colour = Colour::ALL[pick(Colour::ALL.len())];
    let texture = Texture::ALL[pick(Texture::ALL.len())];
    let size = Size::ALL[pick(Size::ALL.len())];
    let radius = match size {
        Size::Small => rng.random_range(0.09..0.11),
        Size::Large => rng.random_range(0.17..0.20),
    };
    Placed { shape, colour, texture, size, centre: [0.5; 2], radius, angle: rng.random_range(-0.15..0.15) }
}

/// Gives every object a place; false where two of them overlap.
fn place(rng: &mut ChaCha8Rng, objects: &mut [Placed], inside: bool, row: bool) -> bool {
    let (horizontal, level) = (rng.random_bool(0.5), rng.random_range(0.25..0.75));
    for i in 0..objects.len() {
        let edge = BOUND * objects[i].radius + GAP;
        let free = |rng: &mut ChaCha8Rng| rng.random_range(edge..1.0 - edge);
        objects[i].centre = if row {
            let along: f32 = [0.18, 0.5, 0.82][i] + rng.random_range(-0.04..0.04);
            let across: f32 = level + rng.random_range(-0.03..0.03);
            let [along, across] = [along, across].map(|x| x.clamp(edge, 1.0 - edge));
            if horizontal { [along, across] } else { [across, along] }
        } else {
            [free(rng), free(rng)]
        };
    }
    if inside {
        // The smallest of the small in the largest of the large leaves a little space around it.
        objects[0].radius = 0.09;
        objects[1].radius = 0.20;
        objects[0].centre = objects[1].centre.map(|x| x + rng.random_range(-0.008..0.008));
    }
    let apart = |i: usize, j: usize| {
        let [a, b] = [&objects[i], &objects[j]];
        (inside && (i, j) == (0, 1)) || distance(a.centre, b.centre) >= BOUND * (a.radius + b.radius) + GAP
    };
    (0..objects.len()).all(|j| {
        let edge = BOUND * objects[j].radius;
        let visible = objects[j].centre.iter().all(|&x| x >= edge && x <= 1.0 - edge);
        visible && (0..j).all(|i| apart(i, j))
    })
}
