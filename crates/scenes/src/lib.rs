//! Draws and describes scenes of simple objects: data to try everything on.
//!
//! A scene is one to four objects that differ in shape, colour, texture and size, on a background. It comes with
//! captions in the authors' layout (docs/paper.md, 'Captions') and, for grounding, with a phrase and a true box for every object.
//! It is also asked (questions with one right answer), stated about (a sentence on two pictures) and entails sentences.
//!
//! The way of a scene: `plan` (what is where, in fractions of the side) -> `draw` (pixels and boxes) and
//! `describe` (captions and phrases) -> [`Scene`] -> [`write()`] (files), where `ask` compares scenes by what `claim` says
//! of them.
//!
//! Things to know when training on it:
//! - Captions say left and right: a horizontal flip makes them false. Switch flips off.
//! - Of questions, statements and sentences those marked `directional` have left or right in the question or the answer:
//!   leave them out, two by two as they stand, or switch flips off. The left and the right picture of a statement are
//!   not meant: flips leave them in their places. The others stay true of a mirrored picture.
//! - Questions count objects and ask for places, so that any crop can make an answer false: set `min_scale=1`.
//! - A random crop can cut an object away. Of one that leaves 0.6 of the area or more, most objects remain, and what
//!   is said to be at the top or on the left stays in that half.
//! - Rotations and shears of RandAugment turn directions by up to 33 degrees together; relations hold with more room
//!   than that.
//! - The colours differ in hue first, so that brighter pictures keep their names. Equalize does not: it can turn dark
//!   objects black and light ones white on plain backgrounds. A tenth of the views of RandAugment are equalized.

#![warn(missing_docs, unreachable_pub)]

mod ask;
mod background;
mod claim;
mod describe;
mod draw;
mod files;
mod outline;
mod palette;
mod plan;
mod relation;
mod scene;
mod vocabulary;

pub use files::{Error, Files, MAX_SCENES, MAX_SIDE, MIN_SIDE, write};
pub use scene::{CAPTIONS, MAX_WORDS, Object, Scene, Split, generate};
pub use vocabulary::{Background, Colour, Shape, Size, Texture, is_unseen};
