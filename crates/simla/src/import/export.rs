//! Out again: a model as the authors' PyTorch code loads it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use simla_files::replace;
use simla_weights::{DType, Declared, write_torch};
use tch::{Kind, Tensor};
use thiserror::Error;

use super::Tensors;
use simla_train::tensors::{self, TensorsError};

/// Why a model could not be exported.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum ExportError {
    #[error("{path}: expected a name that ends in .safetensors, .pth, .pt or .bin")]
    Ending { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Tensors(#[from] TensorsError),
}

/// How the name of an exported file may end.
pub const EXPORT_ENDINGS: &[&str] = &["safetensors", "pth", "pt", "bin"];

/// What the authors' code keeps beside ours, in each of the two text encoders.
const TEXT_ENCODERS: [&str; 2] = ["text_encoder", "text_encoder_m"];

/// Writes `weights`, all tensors of a model under our names, under the authors': as safetensors, or as `{"model": ...}` in a file of
/// PyTorch, by the ending of `path`. An existing file is replaced once the new one is whole.
///
/// `concept_scale` is that of the model, which the authors' has not: the concept head's weights take it in.
///
/// The names are ours, and what their modules have besides: the decoder that is tied to the word embeddings, its bias, and the
/// positions' numbers.
///
/// # Errors
/// Another ending, and what the system said.
pub fn export(mut weights: Tensors, concept_scale: f64, path: &Path) -> Result<(), ExportError> {
    scale_concepts(&mut weights, concept_scale);
    for top in TEXT_ENCODERS {
        let get = |name: &str| weights.get(&format!("{top}.{name}")).map(Tensor::shallow_clone);
        let added = [
            ("cls.predictions.decoder.weight", get("bert.embeddings.word_embeddings.weight")),
            ("cls.predictions.decoder.bias", get("cls.predictions.bias")),
            (
                "bert.embeddings.position_ids",
                get("bert.embeddings.position_embeddings.weight").map(|positions| {
                    Tensor::arange(positions.size()[0], (Kind::Int64, positions.device())).unsqueeze(0)
                }),
            ),
        ];
        let added = added.map(|(name, tensor)| Some((format!("{top}.{name}"), tensor?)));
        weights.extend(added.into_iter().flatten());
    }
    let io = |source| ExportError::Io { path: path.into(), source };
    match path.extension().and_then(|ending| ending.to_str()) {
        // Tied tensors are two there: the format knows no ties.
        Some("safetensors") => replace(path, |aside| Ok(tensors::write(aside, weights)?), io),
        Some("pth" | "pt" | "bin") => replace(path, |aside| pth(aside, &weights).map_err(io), io),
        _ => Err(ExportError::Ending { path: path.into() }),
    }
}

/// Makes the concept head of `weights`, online and momentum, one for features that are `by` times smaller.
pub fn scale_concepts(weights: &mut Tensors, by: f64) {
    for name in ["concept_head.weight", "concept_head_m.weight"] {
        if let Some(head) = weights.get_mut(name).filter(|_| by != 1.0) {
            *head = &*head * by;
        }
    }
}

fn pth(path: &Path, weights: &Tensors) -> io::Result<()> {
    let declared: Vec<Declared> = weights
        .iter()
        .map(|(name, tensor)| Declared {
            name: name.clone(),
            dtype: if tensor.kind() == Kind::Int64 { DType::I64 } else { DType::F32 },
            shape: tensor.size().into_iter().map(|size| size as usize).collect(),
        })
        .collect();
    let file = File::create(path)?;
    write_torch(io::BufWriter::new(&file), "model", &declared, |Declared { name, dtype, shape }| {
        let flat = weights[name].flatten(0, -1);
        let bytes = match dtype {
            DType::I64 => bytes(&Vec::<i64>::try_from(flat).expect("a flat tensor"), |value| value.to_le_bytes()),
            _ => bytes(&Vec::<f32>::try_from(flat.to_kind(Kind::Float)).expect("a flat tensor"), |value| {
                value.to_le_bytes()
            }),
        };
        simla_weights::Tensor { dtype: *dtype, shape: shape.clone(), bytes }
    })?;
    file.sync_all()
}

fn bytes<T: Copy, const N: usize>(values: &[T], of: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| of(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_concept_head_takes_in_the_scale_of_its_features() {
        let names = ["concept_head.weight", "concept_head_m.weight", "concept_head.bias"];
        let mut weights: Tensors =
            names.iter().map(|&name| (name.to_owned(), Tensor::from_slice(&[2f32, 3.0]))).collect();
        scale_concepts(&mut weights, 4.0);
        let of = |name: &str| Vec::<f32>::try_from(&weights[name]).unwrap();
        assert_eq!(names.map(of), [[8.0, 12.0], [8.0, 12.0], [2.0, 3.0]]);
    }
}
