//! The common JPEG (8 bit, Huffman, one scan, grey or YCbCr), decoded no further than a view needs.
//!
//! Decoding is most of the cost of reading a photograph, and a random crop needs a part of it only. So this decoder
//!
//! - stops below the window's last row, and runs through blocks beside or above the window without computing their pixels,
//! - decodes at 1/2, 1/4 or 1/8 of the size when that is enough, straight from the coefficients.
//!
//! Pixels within the window are those of libjpeg (the same triangle filter for chroma, the same colour transform) up to rounding.
//! Everything else (progressive, CMYK, arithmetic coding, several scans, rare sampling) is left to a general decoder: [`Header::read`] gives `None`.
//!
//! Why this is not a library's (`benchmarks/loader/decoders.txt`): the whole recipe takes 1.3 ms at 640 x 480 and 20 ms at 4000 x 3000, where
//! zune-jpeg, which decodes whole pictures as fast or faster, takes 1.2 and 43 ms for decoding alone, with 0.5 ms or more to follow. Cutting
//! and reducing while decoding is in no library that builds with Rust alone and is as fast: zune-jpeg has neither (proposals #411, #414 and
//! #434 of zune-image), jpeg-decoder reduces and takes 1.4 and 37 ms for that, libjpeg-turbo needs CMake and NASM. When zune-jpeg can do
//! both, this folder goes.

mod bits;
mod colour;
mod header;
mod idct;
mod scan;

pub(crate) use header::Header;
pub(crate) use scan::{Failure, Workspace};
