//! From the bytes of a photograph to the views that the encoders see.
//!
//! - [`Recipe::draw`] makes a training view and its half-size twin: a random crop, flip and RandAugment.
//! - [`evaluation_view`] makes the view of evaluation: the whole picture as a square.
//! - [`decode`] gives the whole picture.
//! - [`shrink`] makes a smaller file of a large photograph.
//!
//! Files are hostile: sizes are checked against [`Limits`] before memory is taken, and whatever cannot be decoded is an [`ImageError`].
//! JPEG, PNG and WebP are read, of animations the first frame, turned upright as EXIF says.
//!
//! How the bytes flow: [`format`] says what a file is; [`decoder`] opens it, with [`jpeg`] and [`metadata`], and decodes it by a library;
//! [`recipe`] draws a box of the picture; [`resize`] makes it a square; [`turn`] turns it upright and flips it; [`operations`] and [`affine`]
//! augment it; [`views`] halves it. All pixels are bytes, RGB in rows; means and deviations are applied on the device.

#![warn(missing_docs, unreachable_pub)]

mod affine;
pub mod bench;
mod decoder;
mod error;
mod format;
mod jpeg;
mod limits;
mod metadata;
mod operations;
mod recipe;
mod resize;
mod shrink;
mod turn;
mod views;

pub use ::image::RgbImage;
pub use error::ImageError;
pub use format::Format;
pub use limits::{Limits, set_max_pixels};
pub use operations::{Operation, Sign};
pub use recipe::{Recipe, Scratch, decode, evaluation_view, evaluation_view_with, size};
pub use shrink::{JPEG_QUALITY, shrink};
pub use views::{MEAN, STD, halve};
