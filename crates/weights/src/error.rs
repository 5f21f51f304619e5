//! What can be wrong with a checkpoint file.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

/// Characters of a text from the file that a message shows: a name may have millions.
const SHOWN: usize = 300;

/// A checkpoint that cannot be read: which file, and what was found in it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What was found in a checkpoint file that should not be there, with the numbers that were wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The operating system could not read the file.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),

    /// Neither a torch file (zip or the older stream) nor safetensors.
    #[error("not a checkpoint: expected a PyTorch file (.pth, .pt, .bin, .pkl) or safetensors, found {found}")]
    UnknownFormat {
        /// A description of the first bytes.
        found: String,
    },

    /// The file ends before what it declares.
    #[error("truncated or damaged: {} needs {wanted} bytes, {found} are there", brief(what))]
    Truncated {
        /// The part that is cut off.
        what: String,
        /// Bytes that the file declares.
        wanted: u64,
        /// Bytes that are left.
        found: u64,
    },

    /// A number in the file is above what a checkpoint can need.
    #[error("refused: {} is {value}, the limit is {limit}", brief(what))]
    Limit {
        /// What is too large.
        what: String,
        /// Its value in the file.
        value: u64,
        /// The limit, see [`crate::Limits`].
        limit: u64,
    },

    /// The zip directory cannot be read.
    #[error("damaged zip archive: {}", brief(.0))]
    Zip(String),

    /// An entry of the zip archive that `torch.save` would not have written.
    #[error("zip entry {:?}: {}", brief(name), brief(problem))]
    Entry {
        /// The entry's name in the archive.
        name: String,
        /// What is wrong with it.
        problem: String,
    },

    /// The pickle holds something that it may not hold, or is damaged.
    #[error("pickle, byte {at}: {}", brief(problem))]
    Pickle {
        /// Offset in the pickle.
        at: u64,
        /// What was found there.
        problem: String,
    },

    /// The header of a safetensors file is wrong.
    #[error("safetensors header: {}", brief(.0))]
    Safetensors(String),

    /// A tensor does not fit in its storage, or two tensors disagree.
    #[error("tensor {:?}: {}", brief(name), brief(problem))]
    Tensor {
        /// The tensor's (or storage's) name in the file.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Fault {
    pub(crate) fn limit(what: impl Into<String>, value: u64, limit: u64) -> Self {
        Self::Limit { what: what.into(), value, limit }
    }

    pub(crate) fn truncated(what: impl Into<String>, wanted: u64, found: u64) -> Self {
        Self::Truncated { what: what.into(), wanted, found }
    }

    pub(crate) fn entry(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Entry { name: name.into(), problem: problem.into() }
    }

    pub(crate) fn tensor(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Tensor { name: name.into(), problem: problem.into() }
    }
}

/// The beginning of a text that is long.
fn brief(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}
