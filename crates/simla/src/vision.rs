//! The vision encoder E_v: ViT, pre-norm, [CLS] first (2.1).

use tch::Tensor;

use crate::config::ModelConfig;
use crate::layers::{INITIAL_STD, LayerNorm, Linear, attend, attention, merge_heads, split_heads};
use simla_train::weights::{Init, Layout, Leaf, Weights};

const EPS: f64 = 1e-6;

#[derive(Debug, Clone, Copy)]
struct Block {
    norm1: LayerNorm,
    qkv: Linear,
    proj: Linear,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl Block {
    fn new(layout: &mut Layout, name: &str, width: i64) -> Self {
        let linear = |layout: &mut Layout, part: &str, inputs, outputs| {
            Linear::new(layout, &format!("{name}.{part}"), inputs, outputs)
        };
        Self {
            norm1: LayerNorm::new(layout, &format!("{name}.norm1"), width, EPS),
            qkv: linear(layout, "attn.qkv", width, 3 * width),
            proj: linear(layout, "attn.proj", width, width),
            norm2: LayerNorm::new(layout, &format!("{name}.norm2"), width, EPS),
            fc1: linear(layout, "mlp.fc1", width, 4 * width),
            fc2: linear(layout, "mlp.fc2", 4 * width, width),
        }
    }

    /// `[B, N, 3 D]` to queries, keys and values `[B, H, N, D / H]`.
    fn heads_of(&self, w: &Weights, x: &Tensor, heads: i64) -> Vec<Tensor> {
        let qkv = self.qkv.forward(w, &self.norm1.forward(w, x));
        qkv.chunk(3, -1).iter().map(|part| split_heads(part, heads)).collect()
    }

    fn forward(&self, w: &Weights, x: &Tensor, heads: i64) -> Tensor {
        let qkv = self.heads_of(w, x, heads);
        let seen = attend(&qkv[0], &qkv[1], &qkv[2], None, 0.0);
        self.rest(w, x, &seen)
    }

    /// What comes after the attention: `x` `[B, N, D]`, what its heads have seen `[B, H, N, D / H]`.
    fn rest(&self, w: &Weights, x: &Tensor, seen: &Tensor) -> Tensor {
        let x = x + self.proj.forward(w, &merge_heads(seen));
        &x + self.fc2.forward(w, &self.fc1.forward(w, &self.norm2.forward(w, &x)).gelu("none"))
    }
}

/// The [CLS] attention of E_v's last block laid open, so that the map can be looked at, changed, and the rest run from there.
#[derive(Debug)]
pub struct OpenedVision {
    /// [CLS] before the block: `[B, 1, D]`.
    cls: Tensor,
    /// `[B, H, 1 + P, D / H]`.
    values: Tensor,
    /// Attention of [CLS] over itself and the patches, in f32: `[B, H, 1, 1 + P]`.
    pub map: Tensor,
}

/// E_v: images to one embedding a patch, with [CLS] before them.
#[derive(Debug)]
pub struct VisionEncoder {
    patch_size: i64,
    heads: i64,
    patch_weight: Leaf,
    patch_bias: Leaf,
    cls_token: Leaf,
    pos_embed: Leaf,
    /// None where nothing is ever masked.
    mask_token: Option<Leaf>,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl VisionEncoder {
    /// E_v of pre-training, which may be asked for what it does not see.
    pub fn new(layout: &mut Layout, name: &str, c: &ModelConfig) -> Self {
        Self::with(layout, name, c, true)
    }

    /// E_v that always sees the whole image.
    pub fn unmasked(layout: &mut Layout, name: &str, c: &ModelConfig) -> Self {
        Self::with(layout, name, c, false)
    }

    fn with(layout: &mut Layout, name: &str, c: &ModelConfig, masked: bool) -> Self {
        let width = c.vision_width;
        let fan_in = 3 * c.patch_size * c.patch_size;
        let bound = (fan_in as f64).sqrt().recip();
        Self {
            patch_size: c.patch_size,
            heads: c.vision_heads,
            patch_weight: layout.leaf(
                format!("{name}.patch_embed.proj.weight"),
                &[width, 3, c.patch_size, c.patch_size],
                Init::Uniform(bound),
            ),
            patch_bias: layout.leaf(format!("{name}.patch_embed.proj.bias"), &[width], Init::Uniform(bound)),
            cls_token: layout.leaf(format!("{name}.cls_token"), &[1, 1, width], Init::TruncatedNormal(INITIAL_STD)),
            pos_embed: layout.leaf(
                format!("{name}.pos_embed"),
                &[1, 1 + c.patches(), width],
                Init::TruncatedNormal(INITIAL_STD),
            ),
            mask_token: masked.then(|| layout.leaf(format!("{name}.mask_token"), &[1, 1, width], Init::Constant(0.0))),
            blocks: (0..c.vision_depth).map(|i| Block::new(layout, &format!("{name}.blocks.{i}"), width)).collect(),
            norm: LayerNorm::new(layout, &format!("{name}.norm"), width, EPS),
        }
    }

    /// Embeds images `[B, 3, S, S]`; `hidden` `[B, P]` is true where a patch is replaced by the mask token.
    /// Returns `[B, 1 + P, D]`.
    pub fn forward(&self, w: &Weights, image: &Tensor, hidden: Option<&Tensor>) -> Tensor {
        let (norm, heads) = (self.norm, self.heads);
        let x = self.embed(w, image, hidden);
        let x = self.blocks.iter().fold(x, |x, &block| w.layer(x, move |w, x| block.forward(w, x, heads)));
        w.layer(x, move |w, x| norm.forward(w, x))
    }

    /// Attention of the last block's [CLS] over the patches: `[B, H, P]` (figure 2).
    pub fn cls_attention(&self, w: &Weights, image: &Tensor) -> Tensor {
        self.open(w, image).map.squeeze_dim(2).slice(2, 1, None, 1)
    }

    /// Runs up to the last block's attention and lays its [CLS] row open.
    pub fn open(&self, w: &Weights, image: &Tensor) -> OpenedVision {
        let (last, before) = self.blocks.split_last().expect("at least one block");
        let x = before.iter().fold(self.embed(w, image, None), |x, block| block.forward(w, &x, self.heads));
        let qkv = last.heads_of(w, &x, self.heads);
        OpenedVision {
            cls: x.narrow(1, 0, 1),
            values: qkv[2].shallow_clone(),
            map: attention(&qkv[0].narrow(2, 0, 1), &qkv[1], None),
        }
    }

    /// Goes on from there with `map` `[n, H, 1, 1 + P]` as the attention: n maps of one image, or one of each. Returns E_v's
    /// [CLS]: `[n, 1, D]`.
    pub fn close(&self, w: &Weights, opened: &OpenedVision, map: &Tensor) -> Tensor {
        let last = self.blocks.last().expect("at least one block");
        let seen = map.to_kind(w.kind()).matmul(&opened.values);
        self.norm.forward(w, &last.rest(w, &opened.cls, &seen))
    }

    fn embed(&self, w: &Weights, image: &Tensor, hidden: Option<&Tensor>) -> Tensor {
        // A convolution whose stride is its kernel is one product over the pixels of each patch.
        let (batch, _, height, _) = image.size4().expect("[B, 3, S, S]");
        let (grid, side) = (height / self.patch_size, self.patch_size);
        let pixels =
            image.view([batch, 3, grid, side, grid, side]).permute([0, 2, 4, 1, 3, 5]).flatten(1, 2).flatten(2, 4);
        let mut x = pixels.linear(&w[self.patch_weight].flatten(1, 3), Some(&w[self.patch_bias]));
        if let Some(hidden) = hidden {
            let mask_token = self.mask_token.expect("an encoder with a mask token");
            x = w[mask_token].where_self(&hidden.unsqueeze(-1), &x);
        }
        let cls = w[self.cls_token].expand([batch, -1, -1], true);
        Tensor::cat(&[cls, x], 1) + &w[self.pos_embed]
    }
}
