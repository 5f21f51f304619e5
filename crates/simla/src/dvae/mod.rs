//! The visual tokenizer: a discrete VAE of DALL-E's shape at any size (docs/paper.md, 'Visual tokenizer'). It maps a view to one code a patch.

mod blocks;
mod decoder;
pub mod encoder;
pub mod evaluation;
pub mod training;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

use crate::dvae::decoder::Decoder;
use crate::dvae::encoder::{Encoder, EncoderConfig};
use simla_train::checkpoint::{Checkpoint, CheckpointError};
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::weights::{Layout, Weights};

/// What a checkpoint of a tokenizer calls its task.
pub const TASK: &str = "dvae";

/// The shape of a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DvaeConfig {
    /// The encoder's; the decoder mirrors it.
    pub encoder: EncoderConfig,
    /// Twice the side in pixels of the views that it was trained for: where a code is half a patch's side, the side of the model's views.
    pub image_size: i64,
    /// Without, there are tokens but no reconstructions (an imported encoder).
    pub decoder: bool,
}

impl DvaeConfig {
    /// Refuses sizes that no tokenizer has, before memory is taken for them.
    fn check(&self) -> Result<(), String> {
        let EncoderConfig { width, groups, blocks_per_group, vocab } = self.encoder;
        for (field, value, most) in [
            ("width", width, encoder::WIDEST),
            ("groups", groups, encoder::MOST_GROUPS),
            ("blocks_per_group", blocks_per_group, encoder::MOST_BLOCKS),
            ("vocab", vocab, encoder::MOST_CODES),
            ("image_size", self.image_size, encoder::WIDEST),
        ] {
            if !(1..=most).contains(&value) {
                return Err(format!("{field} = {value}: expected 1 to {most}"));
            }
        }
        let step = 2 * self.encoder.factor();
        if self.image_size % step != 0 {
            return Err(format!("image_size = {}: expected a multiple of {step}", self.image_size));
        }
        Ok(())
    }
}

/// Why a folder is not a usable tokenizer.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum DvaeError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error("{path}: a checkpoint of task `{task}`, expected a visual tokenizer (`simla dvae train` makes one)")]
    Task { path: String, task: String },
    #[error("{path}: configuration: {reason}")]
    Config { path: String, reason: String },
    #[error(transparent)]
    Torch(#[from] TorchError),
}

/// A discrete VAE: encoder, and decoder where there is one.
#[derive(Debug)]
pub struct Dvae {
    /// Its shape.
    pub config: DvaeConfig,
    encoder: Encoder,
    decoder: Option<Decoder>,
    /// Of encoder and decoder.
    pub weights: Weights,
}

impl Dvae {
    /// A fresh one that computes in `kind`; the start is a function of `seed`.
    pub fn new(config: DvaeConfig, kind: Kind, device: Device, trainable: bool, seed: i64) -> Self {
        tch::manual_seed(seed);
        let mut layout = Layout::default();
        let encoder = Encoder::new(&mut layout, "encoder.", config.encoder);
        let decoder = config.decoder.then(|| Decoder::new(&mut layout, "decoder.", config.encoder));
        let weights = Weights::new(&layout, kind, device, trainable);
        Self { config, encoder, decoder, weights }
    }

    /// The tokenizer in a folder, to be used, not trained.
    ///
    /// # Errors
    /// If there is none, or it is damaged, or of another kind; or what libtorch could not do.
    pub fn open(folder: &Path, kind: Kind, device: Device) -> Result<Self, DvaeError> {
        let checkpoint = Checkpoint::open(folder)?;
        let path = checkpoint.path.display().to_string();
        if checkpoint.state.task != TASK {
            return Err(DvaeError::Task { path, task: checkpoint.state.task });
        }
        let config: DvaeConfig = serde_json::from_value(checkpoint.state.config.clone())
            .map_err(|e| e.to_string())
            .and_then(|config: DvaeConfig| config.check().map(|()| config))
            .map_err(|reason| DvaeError::Config { path, reason })?;
        let tensors = checkpoint.model()?;
        let mut dvae = guarded(|| Self::new(config, kind, device, false, 0))?;
        guarded(|| dvae.weights.load(&tensors, str::to_owned))?.map_err(|e| checkpoint.blame(e))?;
        Ok(dvae)
    }

    /// Codes.
    pub fn vocab(&self) -> i64 {
        self.config.encoder.vocab
    }

    /// Side in pixels of a view that has one code for each of `grid` x `grid` patches.
    pub fn side_of(&self, grid: i64) -> i64 {
        grid * self.config.encoder.factor()
    }

    /// Logits of the codes of pixels `[B, 3, H, W]` (0.8 p + 0.1): `[B, vocab, H / factor, W / factor]`, in f32.
    pub fn logits(&self, pixels: &Tensor) -> Tensor {
        self.encoder.forward(&self.weights, pixels).to_kind(Kind::Float)
    }

    /// The most likely code of each place, row by row: `[B, h w]`.
    pub fn tokens(&self, pixels: &Tensor) -> Tensor {
        no_grad(|| self.encoder.tokens(&self.weights, pixels))
    }

    /// Pixels from (soft) codes `[B, vocab, h, w]`: `[B, 3, H, W]`, in f32. None without a decoder.
    pub fn decode(&self, codes: &Tensor) -> Option<Tensor> {
        Some(self.decoder.as_ref()?.forward(&self.weights, codes))
    }

    /// Pixels from tokens `[B, h w]` of a square grid. None without a decoder.
    pub fn decode_tokens(&self, tokens: &Tensor) -> Option<Tensor> {
        let (batch, places) = tokens.size2().expect("[B, h w]");
        let side = (places as f64).sqrt() as i64;
        let codes = tokens.view([batch, side, side]).one_hot(self.vocab()).permute([0, 3, 1, 2]);
        no_grad(|| self.decode(&codes))
    }

    /// Every tensor under its name.
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        self.weights.named()
    }
}
