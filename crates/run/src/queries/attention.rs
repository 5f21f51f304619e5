//! Where the image encoder looks: self-attention of the visual [CLS] over the patches in the last layer (figure 2).

use anyhow::Result;
use serde::Serialize;
use simla::model::Simla;
use simla::tasks::gradcam::Map;
use simla_train::torch::guard::guarded;
use tch::{Kind, Tensor, no_grad};

/// Attention over the patches of a picture, a value a patch, row by row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attention {
    /// Patches a side.
    pub grid: usize,
    /// Mean of the heads.
    pub mean: Map,
    /// Head by head.
    pub heads: Vec<Map>,
}

/// Where the encoder looks in an image `[1, 3, S, S]`.
///
/// # Errors
/// What libtorch could not do.
pub fn attention(model: &Simla, image: &Tensor) -> Result<Attention> {
    let (w, vision) = (&model.online, &model.towers.vision);
    let heads = guarded(|| no_grad(|| vision.cls_attention(w, image).squeeze_dim(0)))?;
    let map = |values: &Tensor| Vec::try_from(values.to_kind(Kind::Float).contiguous()).expect("floats");
    Ok(Attention {
        grid: model.config.grid() as usize,
        mean: map(&heads.mean_dim([0].as_slice(), false, Kind::Float)),
        heads: heads.unbind(0).iter().map(map).collect(),
    })
}
