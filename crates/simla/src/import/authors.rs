//! The authors' own checkpoints.

use std::path::Path;

use simla_weights::Node;
use tch::Tensor;

use super::{ImportError, Tensors, bert, is_index, load, open, renamed, require, state_dict};
use crate::config::{ModelConfig, Preset, SpecialIds};
use crate::model::Simla;

const KIND: &str = "a checkpoint of the authors' SIMLA";
/// Features of an attention head in every published model.
const HEAD_WIDTH: i64 = 64;

/// What a checkpoint of the authors holds.
#[derive(Debug)]
pub struct Authors {
    /// Model, momentum model (`_m`), queues and whatever heads a fine-tuned model has, under our names.
    pub weights: Tensors,
    /// The last epoch that was finished, counted from 0.
    pub epoch: Option<i64>,
}

/// Reads a SIMLA checkpoint of the authors: pre-trained, or fine-tuned without `bert.` in its names. The optimiser's state,
/// and schedule and configuration, objects of classes that we do not know, are ignored.
///
/// # Errors
/// A file that cannot be read or is not SIMLA's.
pub fn authors(path: &Path) -> Result<Authors, ImportError> {
    let archive = open(path)?;
    let tensors = renamed(path, state_dict(&archive).tensors()?, our_name)?;
    require(path, &tensors, KIND, "visual_encoder.pos_embed")?;
    require(path, &tensors, KIND, "text_encoder.bert.embeddings.word_embeddings.weight")?;

    let mut weights = Tensors::new();
    for top in ["text_encoder.", "text_encoder_m."] {
        let part = tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(top)?.to_owned(), *tensor)));
        weights.extend(bert::encoder(path, &part.collect(), top)?);
    }
    for (name, tensor) in &tensors {
        let is_text = name.starts_with("text_encoder.") || name.starts_with("text_encoder_m.");
        let is_weight = name == "queue_ptr" || !is_index(tensor);
        if is_weight && !is_text {
            weights.insert(name.clone(), load(tensor)?);
        }
    }

    let epoch = archive.root().get("epoch").and_then(Node::as_i64);
    Ok(Authors { weights, epoch })
}

impl Authors {
    /// The sizes of the model, from the shapes of its tensors. What shapes do not tell is as published: [`HEAD_WIDTH`]
    /// features a head where `heads` is not given, and the settings of pre-training.
    ///
    /// # Errors
    /// When this is not a whole pre-trained model (a fine-tuned one lacks heads): with the first tensor that is missing.
    pub fn config(&self, special: SpecialIds, heads: Option<i64>) -> Result<ModelConfig, String> {
        let size = |name: &str, dim: usize| -> Result<i64, String> {
            let tensor = self.weights.get(name);
            let tensor = tensor.ok_or_else(|| format!("tensor {name} is missing"))?;
            let shape = tensor.size();
            let found = shape.get(dim).copied();
            found.ok_or_else(|| format!("tensor {name} has shape {shape:?}"))
        };
        let layers = |name: fn(i64) -> String| {
            let present = |i: &i64| self.weights.contains_key(&name(*i));
            (0..).take_while(present).count() as i64
        };
        let vision_width = size("visual_encoder.pos_embed", 2)?;
        let patch_size = size("visual_encoder.patch_embed.proj.weight", 2)?;
        let patches = size("visual_encoder.pos_embed", 1)? - 1;
        let words = "text_encoder.bert.embeddings.word_embeddings.weight";
        let text_width = size(words, 1)?;
        let config = ModelConfig {
            image_size: (patches.max(0) as f64).sqrt() as i64 * patch_size,
            patch_size,
            vision_width,
            vision_depth: layers(|i| format!("visual_encoder.blocks.{i}.norm1.weight")),
            vision_heads: heads.unwrap_or(vision_width / HEAD_WIDTH),
            text_width,
            text_depth: layers(|i| format!("text_encoder.bert.encoder.layer.{i}.attention.self.query.weight")),
            text_heads: heads.unwrap_or(text_width / HEAD_WIDTH),
            text_mlp: size("text_encoder.bert.encoder.layer.0.intermediate.dense.weight", 0)?,
            vocab_size: size(words, 0)?,
            max_positions: size("text_encoder.bert.embeddings.position_embeddings.weight", 0)?,
            embed_dim: size("vision_proj.weight", 0)?,
            visual_vocab: size("mim_head.weight", 0)?,
            queue_size: size("image_queue", 1)?,
            ..ModelConfig::preset(Preset::Base, 1, special)
        };
        config.validate().map_err(|e| e.to_string())?;
        // A file whose shapes contradict each other would cost memory that it does not hold.
        let (expected, found) =
            (Simla::layout(&config).parameters(), self.weights.values().map(Tensor::numel).sum::<usize>());
        if expected as usize > found {
            return Err(format!("{found} values, but a model of its sizes has {expected} or more"));
        }
        Ok(config)
    }
}

/// `text_encoder.encoder.layer...` of fine-tuned models to `text_encoder.bert.encoder.layer...`, the wrapper of a distributed
/// run removed.
fn our_name(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    for top in ["text_encoder.", "text_encoder_m."] {
        if let Some(rest) = name.strip_prefix(top)
            && bert::is_bare(rest)
        {
            return format!("{top}bert.{rest}");
        }
    }
    name.to_owned()
}
