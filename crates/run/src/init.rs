//! Weights that a run starts from (`--init`): folders of `simla import`, or of earlier runs.

use std::path::{Path, PathBuf};

use crate::say;
use crate::settings::Decided;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use simla::config::ModelConfig;
use simla::import::{self, Sizes};
use simla::model::Simla;
use simla::tasks::pretrain::VOCABULARY;
use simla_train::checkpoint::Checkpoint;

/// What `simla import` writes down about parts of a model.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Parts {
    /// Whether there are word embeddings among them.
    pub words: bool,
    /// Whether they read text that ends in [SEP], where there are.
    pub closing_sep: Option<bool>,
    /// None in folders of earlier versions.
    pub sizes: Option<Sizes>,
}

/// What the folders decide about the run.
///
/// # Errors
/// A folder that is no checkpoint of such weights, or folders that contradict each other.
pub fn decided(init: &[PathBuf]) -> Result<Decided> {
    let mut decided = Decided::default();
    for folder in init {
        let checkpoint = open(folder)?;
        let parts = parts(&checkpoint)?;
        let sizes = parts.sizes.unwrap_or_default();
        decided.add(&folder.display().to_string(), &sizes).map_err(|reason| anyhow::anyhow!("--init: {reason}"))?;
        decided.closing_sep = parts.closing_sep.or(decided.closing_sep);
    }
    Ok(decided)
}

/// What a checkpoint says about its weights: a whole model by its configuration, parts by what was read off their shapes.
fn parts(checkpoint: &Checkpoint) -> Result<Parts> {
    let config = checkpoint.state.config.clone();
    let place = || checkpoint.path.display().to_string();
    if checkpoint.state.task == import::TASK {
        let mut parts: Parts = serde_json::from_value(config).with_context(place)?;
        if parts.sizes.is_none() {
            let sizes = import::sizes(&checkpoint.model()?, None);
            parts.sizes = Some(sizes.map_err(anyhow::Error::msg).with_context(place)?);
        }
        return Ok(parts);
    }
    let c: ModelConfig = serde_json::from_value(config).with_context(place)?;
    let sizes = [
        ("image_size", c.image_size),
        ("patch_size", c.patch_size),
        ("vision_width", c.vision_width),
        ("vision_depth", c.vision_depth),
        ("vision_heads", c.vision_heads),
        ("text_width", c.text_width),
        ("text_depth", c.text_depth),
        ("text_heads", c.text_heads),
        ("text_mlp", c.text_mlp),
        ("max_positions", c.max_positions),
        ("embed_dim", c.embed_dim),
        ("visual_vocab", c.visual_vocab),
    ];
    let sizes = sizes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Ok(Parts { words: true, closing_sep: Some(c.closing_sep), sizes: Some(sizes) })
}

/// The vocabulary that belongs to the words of the last folder that has words; none where no folder has any.
///
/// # Errors
/// A folder that is no checkpoint of such weights, or has words without their vocabulary where none is `given` either: a
/// learned vocabulary would give every word the meaning of another.
pub fn vocabulary(init: &[PathBuf], given: Option<&Path>) -> Result<Option<PathBuf>> {
    let mut found = None;
    for folder in init {
        let checkpoint = open(folder)?;
        let vocabulary = checkpoint.extra(VOCABULARY);
        if vocabulary.exists() {
            found = Some(vocabulary);
        } else if given.is_none() && checkpoint.state.config["words"] == true {
            bail!(
                "--init {}: its words have no vocabulary; pass --vocabulary with the vocab.txt that they were trained with",
                folder.display()
            );
        }
    }
    Ok(found)
}

/// Puts the weights into a fresh model.
///
/// # Errors
/// Weights that do not fit the model, with the first tensor that does not.
pub fn weights(simla: &mut Simla, init: &[PathBuf]) -> Result<()> {
    for folder in init {
        let checkpoint = open(folder)?;
        checkpoint.verify()?;
        let of = simla.online.named().len();
        let mut found = checkpoint.model()?;
        let theirs = checkpoint.state.config["concept_scale"].as_f64().unwrap_or(1.0);
        import::scale_concepts(&mut found, theirs / simla.config.concept_scale);
        let taken = import::start(simla, found).with_context(|| format!("--init {}", folder.display()))?;
        say!("{taken} of {of} tensors from {}", folder.display());
    }
    Ok(())
}

fn open(folder: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::open(folder).context("--init")?;
    if checkpoint.state.task == simla::dvae::TASK {
        bail!("--init {}: a visual tokenizer; pass it as --dvae", folder.display());
    }
    Ok(checkpoint)
}
