//! The common JPEG (8 bit, Huffman, one scan, grey or YCbCr), decoded no further than a view needs.
//!
//! Decoding is most of the cost of reading a photograph, and a random crop needs a part of it only. So this decoder
//!
//! - stops below the window's last row, and runs through blocks beside or above the window without computing their pixels,
//! - decodes at 1/2, 1/4 or 1/8 of the size when that is enough, straight from the coefficients.
//!
//! Pixels within the window are those of libjpeg (the same triangle filter for chroma, the same colour transform) up to rounding.
//! Everything else (progressive, CMYK, arithmetic coding, several scans, rare sampling) is left to a general decoder: [`Header::read`] gives `None`.

mod bits;
mod colour;
mod header;
mod idct;
mod scan;

pub(crate) use header::Header;
pub(crate) use scan::{Failure, Workspace};
