//! DALL-E's encoder (docs/paper.md, 'Visual tokenizer'): images to logits over the visual vocabulary, at any width and depth.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::blocks::{Block, Conv};
use simla_train::weights::{Layout, Weights};

/// Sides of the four convolutions of a block.
const KERNELS: [i64; 4] = [3, 3, 3, 1];

/// More channels, groups, blocks or codes than any encoder has.
pub(crate) const WIDEST: i64 = 1 << 14;
pub(crate) const MOST_GROUPS: i64 = 8;
pub(crate) const MOST_BLOCKS: i64 = 64;
pub(crate) const MOST_CODES: i64 = 1 << 20;

/// The shape of an encoder. DALL-E's: width 256, 4 groups of 2 blocks, 8,192 codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Channels after the first convolution; each group doubles them.
    pub width: i64,
    /// Groups of residual blocks, with a pooling between each two: `log2(factor) + 1`.
    pub groups: i64,
    /// Residual blocks of a group.
    pub blocks_per_group: i64,
    /// Size of the visual vocabulary.
    pub vocab: i64,
}

impl EncoderConfig {
    /// DALL-E's own.
    pub const DALLE: Self = Self { width: 256, groups: 4, blocks_per_group: 2, vocab: 8192 };

    /// Pixels along one side of a token.
    pub fn factor(&self) -> i64 {
        1 << (self.groups - 1)
    }
}

/// Images to logits. The weights lie in a [`Weights`], under the published names.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    input: Conv,
    groups: Vec<Vec<Block>>,
    output: Conv,
}

impl Encoder {
    /// Adds the encoder's parameters to a layout: `{prefix}blocks.input.w` and so on.
    pub fn new(layout: &mut Layout, prefix: &str, config: EncoderConfig) -> Self {
        let EncoderConfig { width, groups, blocks_per_group, vocab } = config;
        let gain = ((groups * blocks_per_group) as f64).powi(-2);
        let blocks = format!("{prefix}blocks");
        let input = Conv::new(layout, &format!("{blocks}.input"), 3, width, 7);
        let mut channels = width;
        let groups = (1..=groups)
            .map(|g| {
                let outputs = width << (g - 1);
                (1..=blocks_per_group)
                    .map(|b| {
                        let inputs = std::mem::replace(&mut channels, outputs);
                        Block::new(layout, &format!("{blocks}.group_{g}.block_{b}"), inputs, outputs, KERNELS, gain)
                    })
                    .collect()
            })
            .collect();
        let output = Conv::new(layout, &format!("{blocks}.output.conv"), channels, vocab, 1);
        Self { config, input, groups, output }
    }

    /// Its shape.
    pub fn config(&self) -> EncoderConfig {
        self.config
    }

    /// Logits `[B, V, H / factor, W / factor]` in the compute type, from pixels `[B, 3, H, W]` mapped to 0.8 p + 0.1. The
    /// sides are multiples of the factor.
    pub fn forward(&self, w: &Weights, pixels: &Tensor) -> Tensor {
        let mut x = self.input.forward(w, &pixels.to_kind(w.kind()));
        for (i, group) in self.groups.iter().enumerate() {
            if i > 0 {
                x = x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
            }
            x = group.iter().fold(x, |x, block| block.forward(w, &x));
        }
        self.output.forward(w, &x.relu())
    }

    /// The token of each patch, row by row: `[B, (H / factor) * (W / factor)]`, i64.
    pub fn tokens(&self, w: &Weights, pixels: &Tensor) -> Tensor {
        self.forward(w, pixels).to_kind(Kind::Float).argmax(1, false).flatten(1, -1)
    }
}
