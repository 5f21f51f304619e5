//! Learned positions for another number of patches.

use tch::{Kind, Tensor};
use thiserror::Error;

use super::Tensors;

/// Positions that cannot be resampled.
#[derive(Debug, Error, PartialEq)]
#[allow(missing_docs)] // the messages say it
pub enum PositionsError {
    #[error("positions of shape {0:?}, expected [1, 1 + patches, width]")]
    Shape(Vec<i64>),
    #[error("{0} patches, expected a square number of them")]
    NotSquare(i64),
}

/// Learned positions `[1, 1 + P, D]`, [CLS] first, for `patches` patches: `[1, 1 + patches, D]` in f32. The grid is resampled
/// bicubically, as DeiT's 14 x 14 is for 16 x 16 patches and a pre-trained 16 x 16 for fine-tuning at 384 px (2.5, 3.1); [CLS]
/// keeps its own.
///
/// # Errors
/// When either number of patches is no square.
pub fn resample_positions(pos: &Tensor, patches: i64) -> Result<Tensor, PositionsError> {
    let size = pos.size();
    let [1, tokens, width] = size[..] else {
        return Err(PositionsError::Shape(size));
    };
    if tokens < 2 || width < 1 {
        return Err(PositionsError::Shape(size));
    }
    let (old, new) = (side(tokens - 1)?, side(patches)?);
    let pos = pos.to_kind(Kind::Float);
    if old == new {
        return Ok(pos.copy());
    }
    let cls = pos.narrow(1, 0, 1);
    let grid = pos.narrow(1, 1, tokens - 1).view([1, old, old, width]).permute([0, 3, 1, 2]);
    let grid = grid.upsample_bicubic2d([new, new], false, None, None); // [1, D, new, new]
    let grid = grid.permute([0, 2, 3, 1]).reshape([1, patches, width]);
    Ok(Tensor::cat(&[cls, grid], 1))
}

/// Resamples the positions of a whole model's `weights`, online and momentum, where they are for another number of patches:
/// 384 px from 256 px weights.
///
/// # Errors
/// When either number of patches is no square.
pub fn fit_positions(weights: &mut Tensors, patches: i64) -> Result<(), PositionsError> {
    for name in ["visual_encoder.pos_embed", "visual_encoder_m.pos_embed"] {
        if let Some(pos) = weights.get_mut(name) {
            *pos = resample_positions(pos, patches)?;
        }
    }
    Ok(())
}

fn side(patches: i64) -> Result<i64, PositionsError> {
    let side = (patches.max(0) as f64).sqrt().round() as i64;
    match side > 0 && side * side == patches {
        true => Ok(side),
        false => Err(PositionsError::NotSquare(patches)),
    }
}
