//! From the bytes of a photograph to the views that the encoders see.
//!
//! - [`Recipe::draw`] makes a training view and its half-size twin: a random crop, flip and RandAugment (spec section 3).
//! - [`evaluation_view`] makes the view of evaluation: the whole picture as a square.
//! - [`decode`] gives the whole picture.
//!
//! Files are hostile: sizes are checked against [`Limits`] before memory is taken, and whatever cannot be decoded is an [`ImageError`].
//! JPEG, PNG and WebP are read, of animations the first frame, turned upright as EXIF says.
//!
//! How the bytes flow: [`source`] opens a file; [`recipe`] draws a box of the picture; [`jpeg`] (or a library's decoder) decodes what the box
//! needs; [`resize`] makes it a square; [`turn`] turns it upright and flips it; [`operations`] and [`affine`] augment it; [`views`] halves it.
//! All pixels are bytes, RGB in rows; means and deviations are applied on the device.

mod affine;
pub mod bench;
mod error;
mod jpeg;
mod operations;
mod recipe;
mod resize;
mod source;
mod turn;
mod views;

pub use ::image::RgbImage;
pub use error::{Format, ImageError};
pub use operations::{FACTOR, Operation, ROTATION, SHEAR, Sign, TRANSLATION};
pub use recipe::{Recipe, Scratch, decode, evaluation_view, evaluation_view_with};
pub use source::{Limits, MAX_PIXELS, MAX_SIDE};
pub use views::{MEAN, STD, halve, normalise, tokenizer_pixels};
