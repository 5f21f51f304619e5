//! Why a picture was refused. The caller, who knows the file's name, adds it.

use std::fmt;

/// The picture formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG, of an animated one the default picture.
    Png,
    /// WebP, of an animated one the first frame.
    WebP,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
        })
    }
}

/// A picture that cannot be used, or a recipe that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file has no bytes.
    #[error("the file is empty: expected a JPEG, PNG or WebP picture")]
    Empty,
    /// The file starts like no format that is read.
    #[error("not a JPEG, PNG or WebP picture: the file starts with {start:02x?}")]
    UnknownFormat {
        /// The first bytes, at most twelve.
        start: Vec<u8>,
    },
    /// The header declares a picture larger than the limits allow. Found before memory is taken.
    #[error(
        "the {format} picture declares {width} x {height} pixels; at most {max_pixels} pixels in all and \
         {max_side} a side are read (raise the limits if the picture is wanted)"
    )]
    TooLarge {
        /// The file's format.
        format: Format,
        /// Declared width in pixels.
        width: u64,
        /// Declared height in pixels.
        height: u64,
        /// The limit on width x height.
        max_pixels: u64,
        /// The limit on either side.
        max_side: u32,
    },
    /// The header declares a side of no pixels.
    #[error("the {format} picture declares {width} x {height} pixels: there is nothing to see")]
    NoPixels {
        /// The file's format.
        format: Format,
        /// Declared width in pixels.
        width: u64,
        /// Declared height in pixels.
        height: u64,
    },
    /// The file ends before its picture does.
    #[error("the {format} file is truncated: it ends after {bytes} bytes, inside {inside}")]
    Truncated {
        /// The file's format.
        format: Format,
        /// The length of the file.
        bytes: usize,
        /// The part that is not whole.
        inside: &'static str,
    },
    /// The bytes contradict the format, or use a part of it that no decoder here knows.
    #[error("the {format} file cannot be decoded: {reason}")]
    Broken {
        /// The file's format.
        format: Format,
        /// What the decoder found.
        reason: String,
    },
    /// The decoder gave up in an unexpected way; only this picture is lost.
    #[error("the {format} decoder failed on this file: {reason}")]
    DecoderPanicked {
        /// The file's format.
        format: Format,
        /// The decoder's last words.
        reason: String,
    },
    /// A setting of the recipe is out of its range.
    #[error("image recipe: {field} is {value}; expected {expected}")]
    Setting {
        /// The field of [`Recipe`](crate::Recipe).
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The memory for a view has the wrong size.
    #[error("the memory for the {what} holds {found} bytes; expected {expected}")]
    ViewSize {
        /// Which view.
        what: &'static str,
        /// Bytes expected.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}
