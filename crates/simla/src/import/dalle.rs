//! DALL-E's published encoder.

use std::path::Path;

use super::files::Published;
use super::{ImportError, Tensors, load, require};
use crate::dvae::encoder::{Encoder, EncoderConfig, MOST_BLOCKS, MOST_GROUPS, WIDEST};
use simla_train::weights::Layout;

const KIND: &str = "DALL-E's encoder";

/// An encoder of DALL-E's kind.
#[derive(Debug)]
pub struct Dalle {
    /// The shape that its weights have.
    pub config: EncoderConfig,
    /// Its weights under the published names, `encoder.` before them: `encoder.blocks.input.w`,
    /// `encoder.blocks.group_1.block_1.res_path.conv_1.w`, ...
    pub weights: Tensors,
}

/// Reads DALL-E's encoder, published as a pickled module, at any size.
///
/// # Errors
/// A file that cannot be read, or that is not DALL-E's encoder.
pub fn dalle(path: &Path) -> Result<Dalle, ImportError> {
    let published = Published::open(path)?;
    let (path, tensors) = (published.path(), published.tensors()?);
    for name in ["blocks.input.w", "blocks.group_1.block_1.res_path.conv_1.w", "blocks.output.conv.w"] {
        require(path, &tensors, KIND, name)?;
    }
    let outputs = |name: &str| {
        let shape = tensors[name].shape();
        match shape[..] {
            [outputs, _, _, _] if (4..=WIDEST as usize).contains(&outputs) => Ok(outputs as i64),
            _ => Err(ImportError::Shape {
                path: path.into(),
                name: name.into(),
                found: shape.into_iter().map(|size| size as i64).collect(),
                expected: format!("[4 to {WIDEST} outputs, inputs, height, width]"),
            }),
        }
    };
    let count = |most: i64, name: fn(i64) -> String| {
        let present = |i: &i64| tensors.contains_key(&format!("blocks.{}.res_path.conv_1.w", name(*i)));
        (1..=most).take_while(present).count() as i64
    };
    let config = EncoderConfig {
        width: outputs("blocks.input.w")?,
        groups: count(MOST_GROUPS, |group| format!("group_{group}.block_1")),
        blocks_per_group: count(MOST_BLOCKS, |block| format!("group_1.block_{block}")),
        vocab: outputs("blocks.output.conv.w")?,
    };

    // A file that says one thing in these four shapes and another in the rest would cost memory that it does not hold.
    let mut layout = Layout::default();
    Encoder::new(&mut layout, "", config);
    let values = tensors.values().map(|tensor| tensor.shape().iter().product::<usize>() as i64).sum();
    if layout.parameters() != values {
        return Err(ImportError::Size { path: path.into(), expected: layout.parameters(), found: values });
    }
    let weights = tensors
        .iter()
        .map(|(name, tensor)| Ok((format!("encoder.{name}"), load(path, name, tensor)?)))
        .collect::<Result<_, ImportError>>()?;
    Ok(Dalle { config, weights })
}
