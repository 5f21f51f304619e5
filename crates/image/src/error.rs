//! Why a picture was refused. The caller, who knows the file's name, adds it.

use crate::format::Format;

/// A picture that cannot be used, or a recipe that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file is none of the formats that are read.
    #[error("this is {found}, not a JPEG, PNG or WebP picture: {todo}")]
    NoPicture {
        /// What it is instead, as far as its first bytes tell.
        found: String,
        /// What can be done about it.
        todo: &'static str,
    },
    /// The header declares a picture larger than the limits allow. Found before memory is taken.
    #[error(
        "the {format} picture declares {width} x {height} pixels, more than {setting}={limit} allows{}",
        raised(setting)
    )]
    TooLarge {
        /// The file's format.
        format: Format,
        /// Declared width in pixels.
        width: u64,
        /// Declared height in pixels.
        height: u64,
        /// The field of [`Limits`](crate::Limits) that it exceeds.
        setting: &'static str,
        /// Its value.
        limit: u64,
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

pub(crate) fn broken(format: Format, reason: impl ToString) -> ImageError {
    ImageError::Broken { format, reason: reason.to_string() }
}

pub(crate) fn truncated(format: Format, bytes: &[u8], inside: &'static str) -> ImageError {
    ImageError::Truncated { format, bytes: bytes.len(), inside }
}

/// How a limit is raised, where it can be.
fn raised(setting: &str) -> &'static str {
    match setting {
        "max_pixels" => ": if the picture is wanted, --max-pixels N raises it, and in training --set max_pixels=N",
        _ => "",
    }
}
