//! Starting weights from elsewhere, under our parameter names (spec section 5).
//!
//! - [`deit`]: DeiT-B/16 for the vision encoder.
//! - [`bert`]: bert-base-uncased for the text encoder.
//! - [`authors`]: the authors' SIMLA checkpoints.
//! - [`dalle`]: DALL-E's encoder for the visual tokens.
//!
//! [`start`] puts what they give into a model, positions resampled to its patches.
//!
//! All read PyTorch files and safetensors alike, through `simla_weights`, which runs nothing of what is in them. The
//! results are f32 on the CPU (integers stay integers).

mod authors;
mod bert;
mod dalle;
mod deit;
mod positions;
mod start;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simla_weights::{Archive, DType, Limits, Node, ReadError, TensorRef};
use tch::Tensor;
use thiserror::Error;

pub use authors::{Authors, authors};
pub use bert::bert;
pub use dalle::{Dalle, dalle};
pub use deit::deit;
pub use positions::{PositionsError, fit_positions, resample_positions};
pub use start::{StartError, start};

/// What a checkpoint of imported weights calls its task: parts of a model, to start from.
pub const TASK: &str = "import";

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Why weights could not be imported.
#[derive(Debug, Error)]
pub enum ImportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{path}: not {expected}: tensor {missing} is missing; found {found}")]
    Kind {
        path: PathBuf,
        expected: &'static str,
        missing: String,
        /// The first names of the file.
        found: String,
    },
    #[error("{path}: tensor {name} does not belong to {expected}")]
    Unknown { path: PathBuf, expected: &'static str, name: String },
    #[error("{path}: tensor {name} has shape {found:?}, expected {expected}")]
    Shape { path: PathBuf, name: String, found: Vec<i64>, expected: String },
    #[error("{path}: {found} values, but an encoder of its width and depth has {expected}")]
    Size { path: PathBuf, expected: i64, found: i64 },
    #[error("{path}: the decoder of the words is not tied to the word embeddings, as SIMLA's is")]
    Untied { path: PathBuf },
    #[error("{path}: {first} and {second} would both become {name}")]
    Twice { path: PathBuf, first: String, second: String, name: String },
}

fn open(path: &Path) -> Result<Archive, ReadError> {
    simla_weights::read(path, &Limits::default())
}

/// The state dict of a file: `model` or `state_dict` of a training checkpoint, or the file itself.
fn state_dict(archive: &Archive) -> Node<'_> {
    let root = archive.root();
    ["model", "state_dict"].into_iter().find_map(|key| root.get(key)).unwrap_or(root)
}

/// Reads a tensor's data.
fn load(tensor: &TensorRef) -> Result<Tensor, ReadError> {
    let tensor = tensor.load()?;
    let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
    let flat = match tensor.to_i64() {
        Some(ints) => Tensor::from_slice(&ints),
        None => Tensor::from_slice(&tensor.to_f32()),
    };
    Ok(flat.view(&shape[..]))
}

/// The tensors under other names, which must stay distinct.
fn renamed<'a>(
    path: &Path,
    tensors: BTreeMap<String, TensorRef<'a>>,
    rename: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, TensorRef<'a>>, ImportError> {
    let mut origins: BTreeMap<String, (String, TensorRef)> = BTreeMap::new();
    for (second, tensor) in tensors {
        let name = rename(&second);
        if let Some((first, _)) = origins.get(&name) {
            return Err(ImportError::Twice { path: path.into(), first: first.clone(), second, name });
        }
        origins.insert(name, (second, tensor));
    }
    Ok(origins.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

/// Refuses a file that lacks a tensor by which its kind is known.
fn require(
    path: &Path,
    tensors: &BTreeMap<String, TensorRef>,
    expected: &'static str,
    name: &str,
) -> Result<(), ImportError> {
    if tensors.contains_key(name) {
        return Ok(());
    }
    const SHOWN: usize = 3;
    let first: Vec<&str> = tensors.keys().take(SHOWN).map(String::as_str).collect();
    let found = match tensors.len() {
        0 => "no tensors at all".into(),
        n if n <= SHOWN => first.join(", "),
        n => format!("{} and {} more", first.join(", "), n - SHOWN),
    };
    Err(ImportError::Kind { path: path.into(), expected, missing: name.into(), found })
}

/// Whether two tensors of a file mean the same values: the same bytes, or equal ones.
fn are_tied(a: &TensorRef, b: &TensorRef) -> Result<bool, ReadError> {
    Ok(a.is_same(b) || (a.shape() == b.shape() && a.load()? == b.load()?))
}

/// Whether a tensor counts or indexes rather than weighs.
fn is_index(tensor: &TensorRef) -> bool {
    matches!(tensor.dtype(), DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool)
}
