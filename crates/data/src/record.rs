//! One record of a data set, and why one may be unusable.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use simla_image::ImageError;
use unicode_normalization::UnicodeNormalization;

use crate::quoted;

/// Largest image file that is read. A photograph of 100 megapixels has about 50 MB.
pub const MAX_IMAGE_BYTES: u64 = 64 << 20;

/// A record without its image's bytes.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where the image is.
    pub image: Location,
    /// Its captions as they are in the data, at least one that says something.
    pub captions: Vec<String>,
    /// File and position, for messages.
    pub name: String,
    /// Which image it is: equal for records that show the same one. A hash of the `image_id` where the data have one,
    /// else of the image's path.
    pub image_id: i64,
    /// The kind of product that it shows, where the data say so: FashionGen's lists are drawn within one.
    pub subcategory: Option<String>,
}

/// A record: an image and its captions.
#[derive(Clone, Debug)]
pub struct Record {
    /// The image file's bytes.
    pub image: Vec<u8>,
    /// See [`Entry::captions`].
    pub captions: Vec<String>,
    /// See [`Entry::name`].
    pub name: String,
    /// See [`Entry::image_id`].
    pub image_id: i64,
}

/// Where an image's bytes are.
#[derive(Clone, Debug)]
pub enum Location {
    /// A file of its own.
    File(PathBuf),
    /// Part of a shard.
    Range {
        /// The shard.
        shard: Arc<File>,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// The member's name, for its ending and for messages; never used as a path.
        name: String,
    },
}

/// What is wrong with a record, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The image file is not there or cannot be read.
    MissingImage,
    /// The image file is there, but it is no image that can be decoded within the limits.
    UnreadableImage,
    /// No caption says anything.
    EmptyCaption,
    /// The record itself is not as it should be.
    Malformed,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RecordError {
    #[error("{}: image file {}: {error}", quoted(name), quoted(path.display()))]
    MissingImage { name: String, path: PathBuf, error: io::Error },
    #[error("{}: image file {}: {bytes} bytes, at most {MAX_IMAGE_BYTES} are read", quoted(name), quoted(image))]
    TooLarge { name: String, image: String, bytes: u64 },
    #[error("{}: image {}: {error}", quoted(name), quoted(image))]
    UnreadableImage { name: String, image: String, error: ImageError },
    #[error("{}: the caption is empty, or nothing is left of it without punctuation", quoted(name))]
    EmptyCaption { name: String },
    #[error("{}: field `{field}`: expected {expected}, found {}", quoted(name), quoted(found))]
    Field { name: String, field: String, expected: &'static str, found: String },
    #[error("{}: {}", quoted(name), quoted(problem))]
    Malformed { name: String, problem: String },
}

/// Says of a file that is not there what may be wrong with its path.
fn with_hint(error: io::Error, path: &Path) -> io::Error {
    let text = path.to_string_lossy();
    let forms = [("NFC", text.nfc().collect::<String>()), ("NFD", text.nfd().collect())];
    let hint = if error.kind() != io::ErrorKind::NotFound {
        return error;
    } else if text.contains("file:/") {
        "expected a path, not a file:// address".into()
    } else if text.contains("http:/") || text.contains("https:/") {
        "expected the path of a file, not an address: fetch it first".into()
    } else if text.contains('\\') {
        "its path has backslashes, expected / between folders".into()
    } else if let Some((form, _)) = forms.iter().find(|(_, form)| *form != text && Path::new(form).exists()) {
        format!("a file whose name only looks the same is there, its letters put together otherwise (Unicode's {form})")
    } else if let Some(other) = other_case(path) {
        format!("the file there is called {}", other.display())
    } else {
        return error;
    };
    io::Error::new(error.kind(), format!("{error}; {hint}"))
}

/// The name of a file beside `path` that is called the same but for the case of its letters, as cameras and some systems change it.
fn other_case(path: &Path) -> Option<PathBuf> {
    let (name, ending) = (path.file_name()?.to_str()?, path.extension()?.to_str()?);
    let [lower, upper] = [ending.to_lowercase(), ending.to_uppercase()].map(|ending| path.with_extension(ending));
    let all = [lower, upper, path.with_file_name(name.to_lowercase()), path.with_file_name(name.to_uppercase())];
    let found = all.into_iter().find(|other| other != path && other.exists())?;
    Some(found.file_name()?.into())
}

impl RecordError {
    /// What kind of fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            RecordError::MissingImage { .. } => Fault::MissingImage,
            RecordError::TooLarge { .. } | RecordError::UnreadableImage { .. } => Fault::UnreadableImage,
            RecordError::EmptyCaption { .. } => Fault::EmptyCaption,
            RecordError::Field { .. } | RecordError::Malformed { .. } => Fault::Malformed,
        }
    }
}

impl Entry {
    /// Reads the image's bytes into `bytes`, replacing what is there.
    pub fn read_image(&self, bytes: &mut Vec<u8>) -> Result<(), RecordError> {
        self.image.read(&self.name, bytes)
    }

    /// The error for an image that cannot be decoded.
    pub fn unreadable(&self, error: ImageError) -> RecordError {
        self.image.unreadable(&self.name, error)
    }
}

impl Location {
    /// Reads the image's bytes, which the record `name` asks for, into `bytes`, replacing what is there.
    pub fn read(&self, name: &str, bytes: &mut Vec<u8>) -> Result<(), RecordError> {
        bytes.clear();
        let too_large = |length| RecordError::TooLarge { name: name.into(), image: self.to_string(), bytes: length };
        let missing = |path: &Path, error| {
            let error = with_hint(error, path);
            RecordError::MissingImage { name: name.into(), path: path.into(), error }
        };
        match self {
            Location::File(path) => {
                // Asked before opening: opening a named pipe would wait for ever.
                let about = std::fs::metadata(path).map_err(|e| missing(path, e))?;
                if !about.is_file() {
                    return Err(missing(path, io::Error::other("not a file")));
                }
                if about.len() > MAX_IMAGE_BYTES {
                    return Err(too_large(about.len()));
                }
                let file = File::open(path).map_err(|e| missing(path, e))?;
                file.take(MAX_IMAGE_BYTES).read_to_end(bytes).map_err(|e| missing(path, e))?;
            }
            Location::Range { shard, offset, length, name } => {
                if *length > MAX_IMAGE_BYTES {
                    return Err(too_large(*length));
                }
                bytes.resize(*length as usize, 0);
                shard.read_exact_at(bytes, *offset).map_err(|e| missing(Path::new(name), e))?;
            }
        }
        Ok(())
    }

    /// The error for an image that cannot be decoded.
    pub fn unreadable(&self, name: &str, error: ImageError) -> RecordError {
        RecordError::UnreadableImage { name: name.into(), image: self.to_string(), error }
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Location::File(path) => write!(f, "{}", path.display()),
            Location::Range { name, .. } => f.write_str(name),
        }
    }
}

/// A number for a name: equal names have equal numbers, and 5 million different ones have all different numbers but for
/// a chance of about one in a million. FNV-1a (Fowler, Noll and Vo), without the sign bit.
pub(crate) fn identity(name: &[u8]) -> i64 {
    let hash = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash >> 1) as i64
}
