//! The authors' own checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simla_weights::Node;
use tch::Tensor;

use super::files::{Published, renamed};
use super::{ImportError, Tensors, bert, is_index, load, require, require_whole, sizes, vit};
use crate::config::{ModelConfig, SpecialIds};
use crate::model::{Simla, momentum_name};

const KIND: &str = "a checkpoint of the authors' SIMLA";

/// What a checkpoint of the authors holds.
#[derive(Debug)]
pub struct Authors {
    /// Model, momentum model (`_m`), queues and whatever heads a fine-tuned model has, under our names.
    pub weights: Tensors,
    /// The last epoch that was finished, counted from 0.
    pub epoch: Option<i64>,
    /// Whether it is of a task, without the heads of pre-training.
    pub fine_tuned: bool,
    path: PathBuf,
}

/// Reads a SIMLA checkpoint of the authors: pre-trained, or fine-tuned without `bert.` in its names. The optimiser's state,
/// and schedule and configuration, objects of classes that we do not know, are ignored.
///
/// Whether all of it is there is for [`Authors::check`] to say.
///
/// # Errors
/// A file that cannot be read or is not SIMLA's.
pub fn authors(path: &Path) -> Result<Authors, ImportError> {
    let published = Published::open(path)?;
    let (path, theirs) = (published.path(), published.tensors()?);
    let fine_tuned = theirs.keys().any(|name| name.strip_prefix("text_encoder.").is_some_and(bert::is_bare));
    let tensors = renamed(path, theirs, our_name)?;
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
            weights.insert(name.clone(), load(path, name, tensor)?);
        }
    }

    let epoch = published.root().get("epoch").and_then(Node::as_i64);
    Ok(Authors { path: path.into(), weights, epoch, fine_tuned })
}

impl Authors {
    /// Refuses half a model: of a pre-trained one all must be there, of a fine-tuned one both encoders.
    ///
    /// # Errors
    /// What is missing, or has a shape that contradicts the others.
    pub fn check(&self) -> Result<(), ImportError> {
        let (path, weights) = (&self.path, &self.weights);
        let wanted = if self.fine_tuned {
            let mut wanted = vit::wanted(path, weights, KIND)?;
            let text = bert::wanted(path, weights, KIND)?;
            // Models of two pictures have other cross-attentions in some layers.
            let other = |layer: &str| weights.keys().any(|name| name.starts_with(layer) && !name.contains(CROSS));
            let has_other = |name: &String| {
                name.split_once(CROSS).is_some_and(|(layer, _)| other(&format!("{layer}.crossattention")))
            };
            let part = |name: &String| !name.starts_with("text_encoder.cls.") && !has_other(name);
            wanted.extend(text.into_iter().filter(|(name, _)| part(name)));
            wanted
        } else {
            let shape = |name: &str, dim: usize, or: i64| {
                weights.get(name).and_then(|tensor| tensor.size().get(dim).copied()).unwrap_or(or)
            };
            let config = sizes::model_of(path, KIND, weights)?;
            let embed_dim = shape("vision_proj.weight", 0, config.embed_dim);
            let config = ModelConfig {
                embed_dim,
                visual_vocab: shape("mim_head.weight", 0, config.visual_vocab),
                queue_size: shape("image_queue", 1, config.queue_size),
                ..config
            };
            let online = Simla::layout(&config).shapes();
            let averaged = online.iter().filter(|(name, _)| !name.starts_with("itm_head") && *name != "temp");
            let mut wanted: BTreeMap<_, _> =
                averaged.map(|(name, shape)| (momentum_name(name), shape.clone())).collect();
            for name in ["image_queue", "text_queue"] {
                wanted.insert(name.into(), vec![embed_dim, config.queue_size]);
            }
            wanted.insert("queue_ptr".into(), vec![1]);
            wanted.extend(online);
            wanted
        };
        require_whole(path, KIND, weights, &wanted)
    }

    /// The sizes of the model, from the shapes of its tensors. What shapes do not tell is as published: [`HEAD_WIDTH`]
    /// features a head where `heads` is not given, and the settings of pre-training.
    ///
    /// # Errors
    /// When this is not a whole pre-trained model (a fine-tuned one lacks heads): with the first tensor that is missing.
    ///
    /// [`HEAD_WIDTH`]: super::HEAD_WIDTH
    pub fn config(&self, special: SpecialIds, heads: Option<i64>) -> Result<ModelConfig, String> {
        let size = |name: &str, dim: usize| -> Result<i64, String> {
            let tensor = self.weights.get(name);
            let tensor = tensor.ok_or_else(|| format!("tensor {name} is missing"))?;
            let shape = tensor.size();
            let found = shape.get(dim).copied();
            found.ok_or_else(|| format!("tensor {name} has shape {shape:?}"))
        };
        let config = ModelConfig {
            embed_dim: size("vision_proj.weight", 0)?,
            visual_vocab: size("mim_head.weight", 0)?,
            queue_size: size("image_queue", 1)?,
            special,
            closing_sep: false,
            ..sizes::model(&self.weights, heads)?
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

const CROSS: &str = ".crossattention.";

/// `text_encoder.encoder.layer...` of fine-tuned models to `text_encoder.bert.encoder.layer...`.
fn our_name(name: &str) -> String {
    for top in ["text_encoder.", "text_encoder_m."] {
        if let Some(rest) = name.strip_prefix(top)
            && bert::is_bare(rest)
        {
            return format!("{top}bert.{rest}");
        }
    }
    name.to_owned()
}
