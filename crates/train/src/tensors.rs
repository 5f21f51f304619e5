//! Named tensors in safetensors files: written streamed and synced, read with every header checked before memory is taken.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, View};
use tch::{Device, Kind, Tensor};
use thiserror::Error;

use simla_files::advice;

/// Why a file of tensors could not be used.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum TensorsError {
    #[error("{path}: {source}{}", advice(.source))]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: not a whole safetensors file: {source}")]
    Format { path: PathBuf, source: SafeTensorError },
    #[error("{path}: tensor {name} is of type {dtype:?}, expected f32, f16, bf16, i64 or bool")]
    Dtype { path: PathBuf, name: String, dtype: Dtype },
}

fn kind(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}

fn dtype(kind: Kind) -> Dtype {
    match kind {
        Kind::Float => Dtype::F32,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Bool => Dtype::BOOL,
        other => unreachable!("no parameter is of kind {other:?}"),
    }
}

/// A tensor that is copied to the host when its turn to be written comes.
struct Written {
    tensor: Tensor,
    shape: Vec<usize>,
}

impl View for Written {
    fn dtype(&self) -> Dtype {
        dtype(self.tensor.kind())
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let host = self.tensor.detach().to(Device::Cpu).contiguous();
        let mut bytes = vec![0; self.data_len()];
        host.copy_data_u8(&mut bytes, host.numel());
        bytes.into()
    }

    fn data_len(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

/// Writes tensors to a new file and syncs it.
///
/// # Errors
/// The path and what the system said.
pub fn write(path: &Path, tensors: BTreeMap<String, Tensor>) -> Result<(), TensorsError> {
    let io = |source| TensorsError::Io { path: path.into(), source };
    let written = tensors.into_iter().map(|(name, tensor)| {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        (name, Written { tensor, shape })
    });
    safetensors::serialize_to_file(written, None, path).map_err(|source| match source {
        SafeTensorError::IoError(source) => io(source),
        source => TensorsError::Format { path: path.into(), source },
    })?;
    File::open(path).and_then(|file| file.sync_all()).map_err(io)
}

/// Reads the tensors of a file whose names are `wanted` into host memory.
///
/// # Errors
/// The path, and what is wrong with the file or the first of them that cannot be used.
pub fn read(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, Tensor>, TensorsError> {
    let file = File::open(path).map_err(|source| TensorsError::Io { path: path.into(), source })?;
    // SAFETY: the map is read-only and copied from before it is dropped. A file that another process shortens meanwhile is
    // outside of what any reader can defend against; our own files are replaced by renaming, never changed.
    #[allow(unsafe_code)]
    let bytes =
        unsafe { memmap2::Mmap::map(&file) }.map_err(|source| TensorsError::Io { path: path.into(), source })?;
    let tensors =
        SafeTensors::deserialize(&bytes).map_err(|source| TensorsError::Format { path: path.into(), source })?;
    tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, view)| {
            let Some(kind) = kind(view.dtype()) else {
                return Err(TensorsError::Dtype { path: path.into(), name, dtype: view.dtype() });
            };
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            Ok((name, Tensor::from_data_size(view.data(), &shape, kind)))
        })
        .collect()
}
