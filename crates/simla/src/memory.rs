//! Memory of a pre-training step, reckoned from the model's sizes: what is there whatever the batch, and what each pair adds. Of the two graphs
//! of a step (`step.rs`) one is there at a time, so that the larger counts. A test compares it with what a simulated device counts.

use tch::{Device, Kind};

use crate::config::ModelConfig;
use crate::model::Simla;
use crate::objectives::Objectives;

/// How a step is computed.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// On a CPU, libtorch keeps other copies than on a GPU.
    pub device: Device,
    /// The type of products.
    pub kind: Kind,
    /// Which losses take part.
    pub objectives: Objectives,
    /// Word pieces of a caption, at most.
    pub tokens: i64,
    /// Share of them that is masked.
    pub masked_words: f64,
    /// Share of patches that is.
    pub masked_patches: f64,
    /// Whether activations are computed again in the backward pass.
    pub recompute: bool,
}

/// Bytes of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Weights, momentum model, gradients, optimiser, queues.
    pub fixed: f64,
    /// Gradients on their way into their sums, when what pairs have left is gone.
    pub gathered: f64,
    /// What each pair of a batch adds.
    pub a_pair: f64,
}

impl Memory {
    /// Of a step of a model of these sizes.
    pub fn of_step(c: &ModelConfig, how: How) -> Self {
        let activations = Activations { c, how, bytes: how.kind.elt_size_in_bytes() as f64 };
        let parameters = Simla::layout(c).parameters() as f64;
        // Online and momentum weights, gradients and two moments in f32; both weights once more in a shorter type.
        let copies = if how.kind == Kind::Float { 0.0 } else { 2.0 * activations.bytes };
        let queues = 2.0 * (c.queue_size * c.embed_dim) as f64 * F32;
        let reconstruction = if how.objectives.mim { activations.reconstruction() } else { 0.0 };
        Self {
            fixed: parameters * (5.0 * F32 + copies) + queues,
            gathered: 1.5 * parameters * activations.bytes,
            a_pair: activations.alignment().max(reconstruction),
        }
    }

    /// Of so many pairs.
    pub fn of(&self, pairs: u64) -> f64 {
        self.fixed + self.gathered.max(self.a_pair * pairs as f64)
    }

    /// The most pairs that fit into `free` bytes, with something left for what is not reckoned: pieces that no tensor fits, kernels, the
    /// tokenizer. None where not even two do.
    pub fn largest_batch(&self, free: f64) -> Option<u64> {
        const USABLE: f64 = 0.9;
        let left = free * USABLE - self.fixed;
        let pairs = (left / self.a_pair).floor();
        (pairs >= 2.0 && left >= self.gathered).then_some(pairs as u64)
    }
}

const F32: f64 = 4.0;

/// What a pair leaves for the backward pass.
struct Activations<'a> {
    c: &'a ModelConfig,
    how: How,
    /// Of an element.
    bytes: f64,
}

impl Activations<'_> {
    fn patches(&self) -> f64 {
        (1 + self.c.patches()) as f64
    }

    /// Rows of `width` elements in the compute type.
    fn rows(&self, rows: f64, width: i64) -> f64 {
        rows * width as f64 * self.bytes
    }

    /// Layers that are kept, or their inputs and the largest of them.
    fn layers(&self, depth: f64, kept: f64, input: f64) -> (f64, f64) {
        if self.how.recompute { (depth * input, kept) } else { (depth * kept, 0.0) }
    }

    /// What attention by plain products keeps of each score: a CPU's, with dropout or in a short type.
    fn scores(&self, heads: i64, queries: f64, keys: f64, p: f64) -> f64 {
        if self.how.device != Device::Cpu || p == 0.0 && self.how.kind == Kind::Float {
            return 0.0;
        }
        // Probabilities; those that dropout has left, and which.
        let kept = if p > 0.0 { 3.0 } else { 1.0 };
        kept * heads as f64 * queries * keys * self.bytes
    }

    /// E_v, and what one of its blocks takes while it is computed again.
    fn vision(&self) -> (f64, f64) {
        let (c, n) = (self.c, self.patches());
        let row = self.rows(n, c.vision_width);
        // Both norms and their inputs, queries, keys, values, what is seen, and four times the width before and after the activation.
        let block = 16.0 * row + self.scores(c.vision_heads, n, n, 0.0);
        let (kept, again) = self.layers(c.vision_depth as f64, block, row);
        (kept + 4.0 * row, again)
    }

    /// A pass of BERT over `rows` queries, of which the last layer reads `read`; with `keys` it reads a context.
    fn text(&self, rows: f64, read: f64, keys: Option<f64>) -> (f64, f64) {
        let (c, p) = (self.c, self.c.dropout);
        // Of dropout: which elements it left.
        let dropped = match (p > 0.0, self.how.device) {
            (false, _) => 0.0,
            (true, Device::Cpu) => self.bytes,
            (true, _) => 1.0,
        };
        let sublayers = if keys.is_some() { 3.0 } else { 2.0 };
        let width = 8 + if keys.is_some() { 4 } else { 0 };
        let layer = |queries: f64| {
            self.rows(queries, width * c.text_width + 2 * c.text_mlp)
                + sublayers * queries * c.text_width as f64 * dropped
                + self.scores(c.text_heads, queries, rows, p)
                + keys.map_or(0.0, |keys| self.scores(c.text_heads, queries, keys, p))
        };
        let (kept, again) = self.layers(c.text_depth as f64 - 1.0, layer(rows), self.rows(rows, c.text_width));
        (kept + layer(read) + self.rows(rows, 3 * c.text_width), again)
    }

    /// Keys and values of a context for every layer.
    fn keys_values(&self, rows: f64) -> f64 {
        self.rows(rows, 2 * self.c.text_depth * self.c.text_width)
    }

    /// Logits, their logarithms, the teacher's, and gradients, in f32.
    fn logits(&self, rows: f64, classes: i64) -> f64 {
        5.0 * rows * classes as f64 * F32
    }

    /// What the parts keep, and the largest of what they take for a moment.
    fn sum(&self, parts: &[(f64, f64)], logits: f64) -> f64 {
        let kept: f64 = parts.iter().map(|(kept, _)| kept).sum();
        let again = parts.iter().map(|(_, again)| *again).fold(0.0, f64::max);
        // Layers are computed again when the logits are gone.
        kept + logits.max(again)
    }

    fn alignment(&self) -> f64 {
        let (c, how) = (self.c, &self.how);
        let (n, tokens) = (self.patches(), how.tokens as f64);
        let words = (how.masked_words * tokens).ceil();
        let (mlm, itm) = (f64::from(u8::from(how.objectives.mlm)), f64::from(u8::from(how.objectives.itm)));
        // Masked captions, and the three groups of matching, one of which reads other images.
        let groups = mlm + 3.0 * itm;
        let matching = match groups > 0.0 {
            true => self.text(groups * tokens, mlm * words + 3.0 * itm, Some(n)),
            false => (0.0, 0.0),
        };
        let contexts = (f64::from(u8::from(groups > 0.0)) + itm) * self.keys_values(n);
        let similarities = 12.0 * c.queue_size as f64 * F32;
        let logits = self.logits(mlm * words, c.vocab_size)
            + self.logits(f64::from(u8::from(how.objectives.psl)), c.vocab_size)
            + similarities;
        self.sum(&[self.vision(), self.text(tokens, 1.0, None), matching, (contexts, 0.0)], logits)
    }

    fn reconstruction(&self) -> f64 {
        let (c, n, tokens) = (self.c, self.patches(), self.how.tokens as f64);
        let masked = (self.how.masked_patches * (n - 1.0)).ceil();
        let context = self.keys_values(tokens);
        self.sum(
            &[self.vision(), self.text(n, masked, Some(tokens)), (context, 0.0)],
            self.logits(masked, c.visual_vocab),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Preset, SpecialIds};

    fn base(kind: Kind, recompute: bool, device: Device) -> Memory {
        let c = ModelConfig::preset(Preset::Base, 30_522, SpecialIds { pad: 0, cls: 101, sep: 102, mask: 103 });
        let objectives = Objectives::default();
        let how =
            How { device, kind, objectives, tokens: 25, masked_words: 0.3, masked_patches: 75.0 / 256.0, recompute };
        Memory::of_step(&c, how)
    }

    /// `benchmarks/memory`: on a CPU, with what the program itself takes and what the allocator holds.
    #[test]
    fn base_is_what_was_measured() {
        const GIB: f64 = (1u64 << 30) as f64;
        for (kind, recompute, fixed, a_pair) in [
            (Kind::Float, false, 5.63, 0.362),
            (Kind::Float, true, 5.04, 0.0737),
            (Kind::BFloat16, false, 6.29, 0.219),
            (Kind::BFloat16, true, 6.0, 0.0487),
        ] {
            let found = base(kind, recompute, Device::Cpu);
            let near = |found: f64, measured: f64| (found / GIB / measured - 1.0).abs() < 0.3;
            assert!(near(found.fixed, fixed) && near(found.a_pair, a_pair), "{kind:?} {recompute}: {found:?}");
        }
    }

    #[test]
    fn the_largest_batch_leaves_a_tenth() {
        let memory = Memory { fixed: 50.0, gathered: 7.0, a_pair: 4.0 };
        assert_eq!((memory.largest_batch(100.0), memory.of(10), memory.of(1)), (Some(10), 90.0, 57.0));
        assert_eq!((memory.largest_batch(64.4), memory.largest_batch(64.5)), (None, Some(2)));
        let gathering = Memory { gathered: 9.0, ..memory };
        assert_eq!(gathering.largest_batch(64.5), None);
    }
}
