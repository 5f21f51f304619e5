//! The model that weights fit: its sizes, read off their shapes.

use std::collections::BTreeMap;
use std::path::Path;

use tch::Tensor;

use super::files::shard_hint;
use super::{ImportError, Tensors};
use crate::config::{ModelConfig, Preset, SpecialIds};

/// Features of an attention head in most published models.
pub const HEAD_WIDTH: i64 = 64;

/// Sizes by the names of the settings that they decide.
pub type Sizes = BTreeMap<String, i64>;

/// The sizes that the encoders among `weights` (under our names) decide: of the vision encoder, of the text encoder, or of both.
/// Shapes do not tell the number of heads: it is `heads`, or the width over [`HEAD_WIDTH`]. `image_size` is that of their
/// positions.
///
/// # Errors
/// The first tensor that is missing or has no such dimension.
pub fn sizes(weights: &Tensors, heads: Option<i64>) -> Result<Sizes, String> {
    let size = |name: &str, dim: usize| -> Result<i64, String> {
        let tensor: Option<&Tensor> = weights.get(name);
        let shape = tensor.ok_or_else(|| format!("tensor {name} is missing"))?.size();
        shape.get(dim).copied().ok_or_else(|| format!("tensor {name} has shape {shape:?}"))
    };
    let has = |part: &str| weights.keys().any(|name| name.starts_with(part));
    let mut sizes = Sizes::new();
    let mut decide = |name: &str, value: i64| sizes.insert(name.to_owned(), value);
    if has("visual_encoder.") {
        let width = size("visual_encoder.pos_embed", 2)?;
        let patch_size = size("visual_encoder.patch_embed.proj.weight", 2)?;
        let patches = size("visual_encoder.pos_embed", 1)? - 1;
        decide("image_size", (patches.max(0) as f64).sqrt() as i64 * patch_size);
        decide("patch_size", patch_size);
        decide("vision_width", width);
        decide("vision_depth", depth(weights, "visual_encoder.blocks."));
        decide("vision_heads", heads.unwrap_or(width / HEAD_WIDTH));
    }
    if has("text_encoder.") {
        let width = size(WORDS, 1)?;
        decide("text_width", width);
        decide("text_depth", depth(weights, "text_encoder.bert.encoder.layer."));
        decide("text_heads", heads.unwrap_or(width / HEAD_WIDTH));
        decide("text_mlp", size("text_encoder.bert.encoder.layer.0.intermediate.dense.weight", 0)?);
        decide("max_positions", size("text_encoder.bert.embeddings.position_embeddings.weight", 0)?);
    }
    for (name, head) in [("embed_dim", "vision_proj.weight"), ("visual_vocab", "mim_head.weight")] {
        if has(head) {
            decide(name, size(head, 0)?);
        }
    }
    Ok(sizes)
}

pub(super) const WORDS: &str = "text_encoder.bert.embeddings.word_embeddings.weight";

/// Layers whose names begin with `prefix` and a number: one more than the largest.
fn depth(weights: &Tensors, prefix: &str) -> i64 {
    let number = |name: &String| name.strip_prefix(prefix)?.split('.').next()?.parse::<i64>().ok();
    // A number beyond any depth would only make a longer list of what is missing.
    const DEEPEST: i64 = 1000;
    weights.keys().filter_map(number).max().map_or(0, |last| last.min(DEEPEST) + 1)
}

/// As [`model`], for the weights of a file.
///
/// # Errors
/// What is missing, or has a shape from which no size can be read.
pub(super) fn model_of(path: &Path, expected: &'static str, weights: &Tensors) -> Result<ModelConfig, ImportError> {
    let half = |reason| ImportError::Half { path: path.into(), expected, reason, hint: shard_hint(path) };
    let config = model(weights, None).map_err(half)?;
    let sides = [config.patch_size, config.image_size, config.vision_width, config.text_width];
    match sides.iter().all(|&size| size > 0) {
        true => Ok(config),
        false => Err(half("a size of 0 among its shapes".into())),
    }
}

/// A model of these sizes, the rest as published: for the names and shapes of its parts.
pub(super) fn model(weights: &Tensors, heads: Option<i64>) -> Result<ModelConfig, String> {
    let sizes = sizes(weights, heads)?;
    let base = ModelConfig::preset(Preset::Base, 1, SpecialIds::default());
    let of = |name: &str, or: i64| sizes.get(name).copied().unwrap_or(or);
    Ok(ModelConfig {
        image_size: of("image_size", base.image_size),
        patch_size: of("patch_size", base.patch_size),
        vision_width: of("vision_width", base.vision_width),
        vision_depth: of("vision_depth", base.vision_depth),
        vision_heads: of("vision_heads", base.vision_heads),
        text_width: of("text_width", base.text_width),
        text_depth: of("text_depth", base.text_depth),
        text_heads: of("text_heads", base.text_heads),
        text_mlp: of("text_mlp", base.text_mlp),
        max_positions: of("max_positions", base.max_positions),
        vocab_size: weights.get(WORDS).and_then(|words| words.size().first().copied()).unwrap_or(1),
        ..base
    })
}
