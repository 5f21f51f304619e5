//! Where objects are to each other and in the picture, from their places in fractions of the side.

use crate::outline::{BOUND, RING_HOLE};
use crate::plan::Placed;
use crate::vocabulary::Shape;

/// How one object lies to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    Left,
    Right,
    Above,
    Below,
    Inside,
    Around,
}

impl Relation {
    /// The phrases that stand between the two objects.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            Relation::Left => &["left of", "to the left of"],
            Relation::Right => &["right of", "to the right of"],
            Relation::Above => &["above", "over"],
            Relation::Below => &["below", "under", "beneath"],
            Relation::Inside => &["inside", "within"],
            Relation::Around => &["around"],
        }
    }

    /// The direction that is the other way.
    pub(crate) fn opposite(self) -> Option<Relation> {
        match self {
            Relation::Left => Some(Relation::Right),
            Relation::Right => Some(Relation::Left),
            Relation::Above => Some(Relation::Below),
            Relation::Below => Some(Relation::Above),
            Relation::Inside | Relation::Around => None,
        }
    }
}

/// Least distance along the axis of a relation, of the side.
const APART: f32 = 0.12;

/// The distance along the axis is at least this times the distance across: a cone of 51 degrees to each side, so that
/// a rotation of 21 degrees still leaves the first object on the named side.
const STEEPNESS: f32 = 0.8;

/// Every relation in which `a` lies to `b`: at least one for two objects that do not overlap.
pub(crate) fn relations(a: &Placed, b: &Placed) -> Vec<Relation> {
    let [dx, dy] = [b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]];
    if is_inside(a, b) {
        return vec![Relation::Inside];
    }
    if is_inside(b, a) {
        return vec![Relation::Around];
    }
    let along = |along: f32, across: f32| along >= APART && along >= STEEPNESS * across.abs();
    [
        (Relation::Left, along(dx, dy)),
        (Relation::Right, along(-dx, dy)),
        (Relation::Above, along(dy, dx)),
        (Relation::Below, along(-dy, dx)),
    ]
    .into_iter()
    .filter_map(|(relation, holds)| holds.then_some(relation))
    .collect()
}

/// Whether `a` lies in the hole of the ring `b`.
fn is_inside(a: &Placed, b: &Placed) -> bool {
    b.shape == Shape::Ring && distance(a.centre, b.centre) + BOUND * a.radius <= RING_HOLE * b.radius
}

/// Whether `a` lies on the line from `b` to `c`, in its middle half.
pub(crate) fn is_between(a: &Placed, b: &Placed, c: &Placed) -> bool {
    /// Most distance from the line, of the side.
    const OFF_LINE: f32 = 0.07;
    let line = [c.centre[0] - b.centre[0], c.centre[1] - b.centre[1]];
    let to_a = [a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]];
    let length = line[0].hypot(line[1]);
    let along = (line[0] * to_a[0] + line[1] * to_a[1]) / (length * length);
    let off = (line[0] * to_a[1] - line[1] * to_a[0]).abs() / length;
    (0.25..=0.75).contains(&along) && off <= OFF_LINE
}

/// The phrases for places in the picture: rows from the top down, each from left to right.
pub(crate) const PLACES: [&str; 9] = [
    "in the top left corner",
    "at the top",
    "in the top right corner",
    "on the left",
    "in the middle",
    "on the right",
    "in the bottom left corner",
    "at the bottom",
    "in the bottom right corner",
];

/// The phrase for where in the picture an object is, if that is clear.
pub(crate) fn location(object: &Placed) -> Option<&'static str> {
    // The first, middle and last part; places near a border between two have none.
    let part = |x: f32| match x {
        x if x <= 0.34 => Some(0),
        x if (0.42..=0.58).contains(&x) => Some(1),
        x if x >= 0.66 => Some(2),
        _ => None,
    };
    Some(PLACES[part(object.centre[0])? + 3 * part(object.centre[1])?])
}

pub(crate) fn distance(a: [f32; 2], b: [f32; 2]) -> f32 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}
