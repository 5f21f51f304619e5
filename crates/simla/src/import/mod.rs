//! Starting weights from elsewhere, under our parameter names (docs/paper.md, 'Checkpoint layout').
//!
//! - [`vit`]: DeiT, timm's and DINOv2's ViTs for the vision encoder.
//! - [`bert`]: BERT for the text encoder.
//! - [`authors`]: the authors' SIMLA checkpoints; [`export`] writes them.
//! - [`dalle`]: DALL-E's encoder for the visual tokens.
//!
//! [`start`] puts what they give into a model, positions and patches resampled to its own; [`sizes`] says which model that is.
//!
//! All read PyTorch files and safetensors alike, whole or in shards, through `simla_weights`, which runs nothing of what is in
//! them. Half a model is refused: what an architecture has, its weights must have, and numbers in it. The results are f32 on
//! the CPU (integers stay integers).

mod authors;
mod bert;
mod dalle;
mod export;
mod files;
mod patches;
mod positions;
mod sizes;
mod start;
mod vit;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simla_weights::{DType, ReadError, TensorRef};
use tch::Tensor;
use thiserror::Error;

pub use authors::{Authors, authors};
pub use bert::bert;
pub use dalle::{Dalle, dalle};
pub use export::{EXPORT_ENDINGS, ExportError, export, scale_concepts};
pub use files::published_heads;
use files::{listed, shard_hint};
pub use patches::{fit_patches, resample_kernels};
pub use positions::{PositionsError, fit_positions, resample_positions};
pub use sizes::{HEAD_WIDTH, Sizes, sizes};
pub use start::{StartError, start};
pub use vit::vit;

/// What a checkpoint of imported weights calls its task: parts of a model, to start from.
pub const TASK: &str = "import";

/// Tensors by name.
pub type Tensors = BTreeMap<String, Tensor>;

/// Why weights could not be imported.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum ImportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{path}: {reason}")]
    Index { path: PathBuf, reason: String },
    #[error("{path}: not {expected}: tensor {missing} is missing; found {found}")]
    Kind {
        path: PathBuf,
        expected: &'static str,
        missing: String,
        /// The first names of the file.
        found: String,
    },
    #[error("{path}: {missing} of the {all} tensors of {expected} are missing: {names}{hint}")]
    Missing { path: PathBuf, expected: &'static str, missing: usize, all: usize, names: String, hint: String },
    #[error("{path}: not all of {expected}: {reason}{hint}")]
    Half { path: PathBuf, expected: &'static str, reason: String, hint: String },
    #[error("{path}: tensor {name} does not belong to {expected}{hint}")]
    Unknown { path: PathBuf, expected: &'static str, name: String, hint: &'static str },
    #[error("{path}: tensor {name} has shape {found:?}, expected {expected}")]
    Shape { path: PathBuf, name: String, found: Vec<i64>, expected: String },
    #[error("{path}: tensor {name} holds values that are not finite")]
    NotFinite { path: PathBuf, name: String },
    #[error("{path}: {found} values, but an encoder of its width and depth has {expected}")]
    Size { path: PathBuf, expected: i64, found: i64 },
    #[error("{path}: the decoder of the words is not tied to the word embeddings, as SIMLA's is")]
    Untied { path: PathBuf },
    #[error("{path}: {first} and {second} would both become {name}")]
    Twice { path: PathBuf, first: String, second: String, name: String },
}

/// Reads a tensor's data, which must be numbers.
fn load(path: &Path, name: &str, tensor: &TensorRef) -> Result<Tensor, ImportError> {
    let tensor = tensor.load()?;
    let shape: Vec<i64> = tensor.shape.iter().map(|&size| size as i64).collect();
    if let Some(ints) = tensor.to_i64() {
        return Ok(Tensor::from_slice(&ints).view(&shape[..]));
    }
    let values = tensor.to_f32();
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(Tensor::from_slice(&values).view(&shape[..])),
        false => Err(ImportError::NotFinite { path: path.into(), name: name.into() }),
    }
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
    let found = listed(tensors.keys().cloned().collect());
    Err(ImportError::Kind { path: path.into(), expected, missing: name.into(), found })
}

/// Refuses weights that are not all that an architecture `wanted`, by name and shape, or one shard of several.
fn require_whole(
    path: &Path,
    expected: &'static str,
    weights: &Tensors,
    wanted: &BTreeMap<String, Vec<i64>>,
) -> Result<(), ImportError> {
    let missing: Vec<String> = wanted.keys().filter(|name| !weights.contains_key(*name)).cloned().collect();
    if !missing.is_empty() {
        return Err(ImportError::Missing {
            path: path.into(),
            expected,
            missing: missing.len(),
            all: wanted.len(),
            names: listed(missing),
            hint: shard_hint(path),
        });
    }
    match wanted.iter().find(|(name, shape)| weights[*name].size() != **shape) {
        Some((name, shape)) => Err(ImportError::Shape {
            path: path.into(),
            name: name.clone(),
            found: weights[name].size(),
            expected: format!("{shape:?}, as the other tensors have it"),
        }),
        // Its layers may be whole, and not all of them.
        None if !shard_hint(path).is_empty() => Err(ImportError::Half {
            path: path.into(),
            expected,
            reason: "one of several shards, what the others hold is missing".into(),
            hint: shard_hint(path),
        }),
        None => Ok(()),
    }
}

/// Whether two tensors of a file mean the same values: the same bytes, or equal ones.
fn are_tied(a: &TensorRef, b: &TensorRef) -> Result<bool, ReadError> {
    Ok(a.is_same(b) || (a.shape() == b.shape() && a.load()? == b.load()?))
}

/// Whether a tensor counts or indexes rather than weighs.
fn is_index(tensor: &TensorRef) -> bool {
    matches!(tensor.dtype(), DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool)
}
