//! The layers that both encoders are made of.

use std::ops::Range;

use half::bf16;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tch::{Device, Kind, Tensor};

use simla_train::seed::draw_seed;
use simla_train::torch::linear::linear;
use simla_train::torch::operations::{add_kept, keep_order, linear_beside};
use simla_train::torch::values::values;
use simla_train::weights::{Init, Layout, Leaf, Weights};

/// Standard deviation of fresh weights, as BERT and ViT start.
pub(crate) const INITIAL_STD: f64 = 0.02;

/// The same for the weights of a product of `inputs` features: BERT and ViT are 768 wide; with fewer features the weights are larger,
/// so that what comes out is not smaller. Without this a narrow model hardly moves for its first hundred steps.
fn initial_std(inputs: i64) -> f64 {
    const WIDTH: f64 = 768.0;
    INITIAL_STD * (WIDTH / WIDTH.min(inputs as f64)).sqrt()
}

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
        let named = |suffix: &str| names.iter().map(|name| format!("{name}.{suffix}")).collect();
        Self {
            weight: layout.fused(named("weight"), &[outputs, inputs], Init::Normal(initial_std(inputs))),
            bias: layout.fused(named("bias"), &[outputs], Init::Constant(0.0)),
        }
    }

    pub fn forward(self, w: &Weights, x: &Tensor) -> Tensor {
        linear(x, &w[self.weight], &w[self.bias])
    }

    /// As [`Linear::forward`], and `x` for the residual that goes past it. On a GPU the backward pass adds the gradients of both within a
    /// product.
    pub fn beside(self, w: &Weights, x: &Tensor) -> (Tensor, Tensor) {
        if x.device() == Device::Cpu || !x.requires_grad() {
            return (self.forward(w, x), x.shallow_clone());
        }
        linear_beside(x, &w[self.weight], &w[self.bias])
    }

    /// Those `rows` of the outputs alone.
    pub fn part(self, w: &Weights, x: &Tensor, rows: Range<i64>) -> Tensor {
        let (weight, bias) = (&w[self.weight], &w[self.bias]);
        let length = rows.end - rows.start;
        if length == bias.size()[0] {
            return linear(x, weight, bias);
        }
        linear(x, &weight.narrow(0, rows.start, length), &bias.narrow(0, rows.start, length))
    }

    /// The layer's outputs in parts of the given widths, each of its own input.
    pub fn split(self, w: &Weights, inputs: &[&Tensor], widths: &[i64]) -> Vec<Tensor> {
        let weights = w[self.weight].split_with_sizes(widths, 0);
        let biases = w[self.bias].split_with_sizes(widths, 0);
        let parts = inputs.iter().zip(weights.iter().zip(&biases));
        parts.map(|(x, (weight, bias))| linear(x, weight, bias)).collect()
    }
}

/// Layer normalisation over the last dimension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNorm {
    weight: Leaf,
    bias: Leaf,
    width: i64,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(layout: &mut Layout, name: &str, width: i64, eps: f64) -> Self {
        Self {
            weight: layout.leaf(format!("{name}.weight"), &[width], Init::Constant(1.0)),
            bias: layout.leaf(format!("{name}.bias"), &[width], Init::Constant(0.0)),
            width,
            eps,
        }
    }

    /// Sums run in f32 inside the kernel, whatever the type of `x`.
    pub(crate) fn forward(self, w: &Weights, x: &Tensor) -> Tensor {
        x.layer_norm([self.width], Some(&w[self.weight]), Some(&w[self.bias]), self.eps, true)
    }
}

/// `[batch, tokens, width]` to `[batch, heads, tokens, width / heads]`.
pub(crate) fn split_heads(x: &Tensor, heads: i64) -> Tensor {
    let (batch, tokens, width) = x.size3().expect("[batch, tokens, width]");
    x.view([batch, tokens, heads, width / heads]).transpose(1, 2)
}

/// `[batch, heads, tokens, width]` to `[batch, tokens, heads x width]`.
pub(crate) fn merge_heads(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(2, 3)
}

/// Attention of `q` `[batch, heads, queries, width]` over `k` and `v` `[batch, heads, keys, width]`; `bias` is added to the
/// scores (see [`key_bias`]). Scaled by the root of the width; softmax in f32 inside the kernel.
pub(crate) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, p: f64) -> Tensor {
    // libtorch's fused kernel for CPUs knows no dropout, and in bf16 its products take twice as long as plain ones.
    let fused = q.device() != Device::Cpu || p == 0.0 && q.kind() == Kind::Float;
    if fused {
        let bias = bias.map(|bias| of_keys(bias, k));
        let seen = Tensor::scaled_dot_product_attention(q, k, v, bias.as_ref(), p, false, None, false);
        keep_order(&seen);
        return seen;
    }
    // A few images at a time, whose scores (in the paper's base size, of two images) stay in the processor's caches.
    const SCORES: i64 = 1 << 21;
    let (images, heads, queries, _) = q.size4().expect("[batch, heads, queries, width]");
    let at_once = (SCORES / (heads * queries * k.size()[2])).max(1);
    if images <= at_once {
        return weigh(q, k, v, bias, p);
    }
    // In one operation each: the gradients of narrowed parts would be as large as the whole.
    let parts = |x: &Tensor| x.split(at_once, 0);
    let biases = bias.map(parts);
    let keys_values = parts(k).into_iter().zip(parts(v));
    let slices: Vec<Tensor> = parts(q)
        .iter()
        .zip(keys_values)
        .enumerate()
        .map(|(i, (q, (k, v)))| weigh(q, &k, &v, biases.as_ref().map(|biases| &biases[i]), p))
        .collect();
    Tensor::cat(&slices, 0)
}

/// [`attend`] by plain products.
fn weigh(q: &Tensor, k: &Tensor, v: &Tensor, bias: Option<&Tensor>, p: f64) -> Tensor {
    let scores = scores(q, k, bias);
    let probabilities = scores.softmax(-1, scores.kind());
    if p == 0.0 {
        return probabilities.matmul(v);
    }
    // The factor of the survivors goes to the values, which are fewer.
    (&probabilities * kept(&probabilities, p)).matmul(&(v / (1.0 - p)))
}

/// The probabilities themselves that [`attend`] weighs values with, in f32: `[batch, heads, queries, keys]`.
pub(crate) fn attention(q: &Tensor, k: &Tensor, bias: Option<&Tensor>) -> Tensor {
    scores(q, k, bias).softmax(-1, Kind::Float)
}

fn scores(q: &Tensor, k: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let width = q.size()[3] as f64;
    let scores = (q / width.sqrt()).matmul(&k.transpose(-1, -2));
    match bias {
        Some(bias) => scores + of_keys(bias, k),
        None => scores,
    }
}

/// Columns of a bias for so many keys: on a GPU a multiple of 8, into which libtorch else copies it in every call.
fn columns(keys: i64, device: Device) -> i64 {
    const ALIGNMENT: i64 = 8;
    match device {
        Device::Cpu => keys,
        _ => (keys + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT,
    }
}

/// The columns of a bias that keys `k` have.
fn of_keys(bias: &Tensor, k: &Tensor) -> Tensor {
    let keys = k.size()[2];
    if bias.size()[3] == keys { bias.shallow_clone() } else { bias.narrow(3, 0, keys) }
}

/// What [`attend`] adds to scores so that padding is not looked at: `[batch, 1, 1, keys]` from a mask `[batch, keys]` that is 1
/// where a key counts. On a GPU it has a few columns more, which nobody reads.
pub(crate) fn key_bias(mask: &Tensor, kind: Kind) -> Tensor {
    let (batch, keys) = mask.size2().expect("[batch, keys]");
    let bias = Tensor::zeros([batch, columns(keys, mask.device())], (kind, mask.device()));
    let _ = bias.narrow(1, 0, keys).masked_fill_(&mask.eq(0), f64::NEG_INFINITY);
    bias.unsqueeze(1).unsqueeze(1)
}

/// The same for a sequence of which a position sees itself and what came before: `[batch, 1, tokens, tokens]`. The first is never padding.
pub(crate) fn causal_bias(mask: &Tensor, kind: Kind) -> Tensor {
    let tokens = mask.size()[1];
    let size = [tokens, columns(tokens, mask.device())];
    let later = Tensor::full(size, f64::NEG_INFINITY, (kind, mask.device())).triu(1);
    key_bias(mask, kind) + later
}

/// Drops a share `p` of the elements and scales the others up; nothing at 0.
pub(crate) fn dropout(x: Tensor, p: f64) -> Tensor {
    if p == 0.0 || x.device() != Device::Cpu {
        return x.dropout(p, p > 0.0);
    }
    &x * kept(&x, p) / (1.0 - p)
}

/// What dropout keeps in the sub-layers of one layer, each of which it ends with a residual. On a GPU that is drawn for all of them at once.
#[derive(Debug)]
pub(crate) struct Kept {
    p: f64,
    /// `[sublayers, ...]`: true where an element is kept.
    kept: Option<Tensor>,
}

impl Kept {
    /// For so many sub-layers whose outputs are of the size of `like`.
    pub(crate) fn draw(sublayers: i64, like: &Tensor, p: f64) -> Self {
        let draw = || {
            let size = [&[sublayers][..], &like.size()].concat();
            Tensor::empty(size.as_slice(), (Kind::Bool, like.device())).bernoulli_float_(1.0 - p)
        };
        Self { p, kept: (p > 0.0 && like.device() != Device::Cpu).then(draw) }
    }

    /// Everything: no dropout.
    pub(crate) fn all() -> Self {
        Self { p: 0.0, kept: None }
    }

    /// `residual + dropout(x)` at the end of the `nth` sub-layer.
    pub(crate) fn add(&self, nth: i64, residual: &Tensor, x: Tensor) -> Tensor {
        match &self.kept {
            Some(kept) => add_kept(residual, &x, &kept.get(nth), 1.0 / (1.0 - self.p)),
            None => residual + dropout(x, self.p),
        }
    }
}

/// 0 for a share `p` of the elements of `like`, at random, 1 for the others, in its type: a product with this is several times faster
/// than filling where a mask says.
///
/// torch draws one Bernoulli variable after the other: on a CPU that takes as long as the products around it. Its generator seeds
/// a faster one here, sixteen bits of which decide.
fn kept(like: &Tensor, p: f64) -> Tensor {
    let mut kept = Tensor::empty(like.size(), (like.kind(), like.device()));
    let rng = SmallRng::seed_from_u64(draw_seed() as u64);
    match like.kind() {
        Kind::BFloat16 => draw_kept(values(&mut kept), [bf16::ZERO, bf16::ONE], p, rng),
        _ => draw_kept(values(&mut kept), [0f32, 1.0], p, rng),
    }
    kept
}

/// On one core: waking a second one next to torch's takes longer than the draws.
fn draw_kept<T: Copy>(kept: &mut [T], [dropped, survivor]: [T; 2], p: f64, mut rng: SmallRng) {
    let bound = (p * 65_536.0).round() as u16;
    let mut draws = [0u16; 1024];
    for kept in kept.chunks_mut(draws.len()) {
        rng.fill(&mut draws);
        // A loop of its own, so that it is one of vectors.
        for (kept, draw) in kept.iter_mut().zip(&draws) {
            *kept = if *draw < bound { dropped } else { survivor };
        }
    }
}

/// Rows `[batch, rows]` of tokens `[batch, tokens, width]`: `[batch, rows, width]`.
pub(crate) fn take_rows(x: &Tensor, rows: &Tensor) -> Tensor {
    let width = x.size()[2];
    x.gather(1, &rows.unsqueeze(-1).expand([-1, -1, width], true), false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: f64 = 0.1;

    #[test]
    fn dropout_drops_its_share_everywhere_and_keeps_the_mean() {
        tch::manual_seed(1);
        let share = |x: Tensor| x.double_value(&[]);
        // Five standard deviations of a mean of 999,000 draws.
        let bound = 5.0 * (P * (1.0 - P) / 999_000.0).sqrt();
        for (kind, rounding) in [(Kind::Float, 0.0), (Kind::BFloat16, 1.0 / 256.0)] {
            let found = dropout(Tensor::ones([1000, 999], (kind, Device::Cpu)), P);
            let zeros = found.eq(0.0).to_kind(Kind::Double);
            assert!((share(zeros.mean(Kind::Double)) - P).abs() < bound + 1.0 / 65_536.0);
            let mean = share(found.to_kind(Kind::Double).mean(Kind::Double));
            assert!((mean - 1.0).abs() < 2.0 * bound + rounding);
            // The four elements of a draw are independent: no column of four, and no pair of neighbours, stands out.
            let flat = zeros.flatten(0, 1);
            let every = |start: i64| share(flat.slice(0, start, None, 4).mean(Kind::Double));
            assert!((0..4).all(|start| (every(start) - P).abs() < 2.0 * bound + 1.0 / 65_536.0));
            for lag in 1..=4 {
                let both = flat.slice(0, lag, None, 1) * flat.slice(0, 0, -lag, 1);
                assert!((share(both.mean(Kind::Double)) - P * P).abs() < 3.0 * bound, "{lag}");
            }
        }
    }

    #[test]
    fn many_images_are_attended_to_like_each_alone() {
        tch::manual_seed(3);
        let random = || Tensor::randn([5, 2, 800, 4], (Kind::Float, Device::Cpu));
        let (q, k, v) = (random(), random(), random());
        let mask = Tensor::ones([5, 800], (Kind::Int64, Device::Cpu));
        let _ = mask.get(3).slice(0, 40, None, 1).fill_(0);
        let bias = key_bias(&mask, Kind::Float);
        let fused = attend(&q, &k, &v, Some(&bias), 0.0);
        // Hardly anything is dropped: plain products, of one image at a time.
        let sliced = attend(&q, &k, &v, Some(&bias), 1e-9);
        assert!(sliced.allclose(&fused, 1e-4, 1e-5, false));
    }

    #[test]
    fn nothing_later_is_seen_and_no_padding() {
        let mask = Tensor::from_slice2(&[[1i64, 1, 1], [1, 1, 0]]);
        let seen = causal_bias(&mask, Kind::Float).eq(0.0).to_kind(Kind::Int64).squeeze_dim(1);
        let expected = [[1i64, 0, 0], [1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [1, 1, 0]];
        assert_eq!(seen.view([6, 3]), Tensor::from_slice2(&expected));
    }

    #[test]
    fn attention_with_dropout_is_fused_attention_in_expectation() {
        tch::manual_seed(2);
        let random = |tokens| Tensor::randn([2, 3, tokens, 8], (Kind::Float, Device::Cpu));
        let (q, k, v) = (random(5), random(7), random(7));
        let mask = Tensor::ones([2, 7], (Kind::Int64, Device::Cpu));
        let _ = mask.get(1).slice(0, 4, None, 1).fill_(0);
        let bias = key_bias(&mask, Kind::Float);
        let fused = attend(&q, &k, &v, Some(&bias), 0.0);
        const DRAWS: i64 = 4000;
        let sum: Tensor = (0..DRAWS).map(|_| attend(&q, &k, &v, Some(&bias), P)).sum();
        let apart = (sum / DRAWS - fused).abs().max().double_value(&[]);
        assert!(apart < 0.05, "{apart}");
        // Where hardly anything is dropped, they agree.
        let exact = attend(&q, &k, &v, Some(&bias), 1e-9);
        let fused = attend(&q, &k, &v, Some(&bias), 0.0);
        assert!(exact.allclose(&fused, 1e-5, 1e-6, false));
    }
}
