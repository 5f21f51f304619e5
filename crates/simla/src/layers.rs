//! The layers that both encoders are made of.

use tch::{Kind, Tensor};

use crate::weights::{Init, Layout, Leaf, Weights};

/// Standard deviation of fresh weights, as BERT and ViT start.
pub const INITIAL_STD: f64 = 0.02;

/// `x W' + b`.
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    weight: Leaf,
    bias: Leaf,
}

impl Linear {
    pub fn new(layout: &mut Layout, name: &str, inputs: i64, outputs: i64) -> Self {
        Self::fused(layout, &[name.into()], inputs, outputs)
    }

    /// Several linear layers of one input, as one product: their outputs side by side.
    pub fn fused(layout: &mut Layout, names: &[String], inputs: i64, outputs: i64) -> Self {
        let named = |suffix: &str| {
            names
                .iter()
                .map(|name| format!("{name}.{suffix}"))
                .collect()
        };
        Self {
            weight: layout.fused(
                named("weight"),
                &[outputs, inputs],
                Init::Normal(INITIAL_STD),
            ),
            bias: layout.fused(named("bias"), &[outputs], Init::Constant(0.0)),
        }
    }

    pub fn forward(self, w: &Weights, x: &Tensor) -> Tensor {
        x.linear(&w[self.weight], Some(&w[self.bias]))
    }

    /// The layer's outputs in parts of the given widths, each of its own input.
    pub fn split(self, w: &Weights, inputs: &[&Tensor], widths: &[i64]) -> Vec<Tensor> {
        let weights = w[self.weight].split_with_sizes(widths, 0);
        let biases = w[self.bias].split_with_sizes(widths, 0);
        let parts = inputs.iter().zip(weights.iter().zip(&biases));
        parts
            .map(|(x, (weight, bias))| x.linear(weight, Some(bias)))
            .collect()
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    weight: Leaf,
    bias: Leaf,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    pub fn new(layout: &mut Layout, name: &str, width: i64, eps: f64) -> Self {
        Self {
            weight: layout.leaf(format!("{name}.weight"), &[width], Init::Constant(1.0)),
            bias: layout.leaf(format!("{name}.bias"), &[width], Init::Constant(0.0)),
            width,
            eps,
        }
    }

    /// Sums run in f32 inside the kernel, whatever the type of `x`.
    pub fn forward(self, w: &Weights, x: &Tensor) -> Tensor {
        x.layer_norm(
            [self.width],
            Some(&w[self.weight]),
            Some(&w[self.bias]),
            self.eps,
            true,
        )
    }
}

/// `[batch, tokens, width]` to `[batch, heads, tokens, width / heads]`.
pub fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (batch, tokens, width) = x.size3().expect("[batch, tokens, width]");
    x.view([batch, tokens, heads, width / heads])
        .transpose(1, 2)
}

/// `[batch, heads, tokens, width]` to `[batch, tokens, heads x width]`.
pub fn merge_heads(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}

/// Attention of `q` `[batch, heads, queries, width]` over `k` and `v` `[batch, heads, keys, width]`; `bias` is added to the
/// scores (see [`key_bias`]). Scaled by the root of the width; softmax in f32 inside the kernel.
pub fn attend(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, dropout: f64) -> Tensor {
    Tensor::scaled_dot_product_attention(q, k, v, bias, dropout, false, None, false)
}

/// The probabilities themselves that [`attend`] weighs values with, in f32: `[batch, heads, queries, keys]`.
pub fn attention(q: &Tensor, k: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let scores = q.matmul(&k.transpose(-1, -2)) / (q.size()[3] as f64).sqrt();
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    scores.softmax(-1, Kind::Float)
}

/// What [`attend`] adds to scores so that padding is not looked at: `[batch, 1, 1, keys]` from a mask `[batch, keys]` that is 1
/// where a key counts.
pub fn key_bias(mask: &Tensor, kind: Kind) -> Tensor {
    let bias = Tensor::zeros(mask.size(), (kind, mask.device()));
    bias.masked_fill(&mask.eq(0), f64::NEG_INFINITY)
        .unsqueeze(1)
        .unsqueeze(1)
}

/// Drops a share `p` of the elements and scales the others up; nothing at 0.
pub fn dropout(x: Tensor, p: f64) -> Tensor {
    if p > 0.0 { x.dropout(p, true) } else { x }
}

/// Rows `[batch, rows]` of tokens `[batch, tokens, width]`: `[batch, rows, width]`.
pub fn take_rows(x: &Tensor, rows: &Tensor) -> Tensor {
    let width = x.size()[2];
    x.gather(1, &rows.unsqueeze(-1).expand([-1, -1, width], true), false)
}
