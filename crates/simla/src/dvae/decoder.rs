//! The encoder's mirror: codes are embedded, then groups from wide to narrow, the sides doubled between them.

use tch::{Kind, Tensor};

use super::blocks::{Block, Conv};
use super::encoder::EncoderConfig;
use simla_train::weights::{Layout, Weights};

/// Sides of the four convolutions of a block.
const KERNELS: [i64; 4] = [1, 3, 3, 3];

/// Codes to pixels. The weights lie in a [`Weights`].
#[derive(Debug)]
pub(crate) struct Decoder {
    input: Conv,
    groups: Vec<Vec<Block>>,
    output: Conv,
}

impl Decoder {
    /// Adds the parameters of the mirror of `config` to a layout.
    pub(crate) fn new(layout: &mut Layout, prefix: &str, config: EncoderConfig) -> Self {
        let EncoderConfig { width, groups, blocks_per_group, vocab } = config;
        let gain = ((groups * blocks_per_group) as f64).powi(-2);
        let blocks = format!("{prefix}blocks");
        let mut channels = width << (groups - 1);
        let input = Conv::new(layout, &format!("{blocks}.input"), vocab, channels, 1);
        let groups = (1..=groups)
            .map(|g| {
                let outputs = width << (groups - g);
                let block = |b| {
                    let inputs = std::mem::replace(&mut channels, outputs);
                    Block::new(layout, &format!("{blocks}.group_{g}.block_{b}"), inputs, outputs, KERNELS, gain)
                };
                (1..=blocks_per_group).map(block).collect()
            })
            .collect();
        Self { input, groups, output: Conv::new(layout, &format!("{blocks}.output.conv"), channels, 3, 1) }
    }

    /// Pixels `[B, 3, factor x h, factor x w]` in f32, from (soft) codes `[B, V, h, w]`.
    pub(crate) fn forward(&self, w: &Weights, codes: &Tensor) -> Tensor {
        let mut x = self.input.forward(w, &codes.to_kind(w.kind()));
        for (i, group) in self.groups.iter().enumerate() {
            if i > 0 {
                let (_, _, height, width) = x.size4().expect("[B, C, h, w]");
                x = x.upsample_nearest2d([2 * height, 2 * width], None, None);
            }
            x = group.iter().fold(x, |x, block| block.forward(w, &x));
        }
        self.output.forward(w, &x.relu()).to_kind(Kind::Float)
    }
}
