//! One BERT, two encoders (2.1): the language encoder E_l skips the cross-attention of every layer, the multimodal encoder E_mm
//! reads a context with it. E_mm takes words as queries, or image patches (appendix 1.2).
//!
//! - The keys and values of a context are projected once, for all layers in one product ([`TextEncoder::keys_values`]), and
//!   shared by every pass that reads that context ([`Reading`]).
//! - The last layer runs for the rows that are read, no others ([`Rows`]).

use std::ops::Range;

use tch::{Device, Kind, Tensor};

use crate::config::ModelConfig;
use crate::layers::{
    INITIAL_STD, Kept, LayerNorm, Linear, attend, attention, dropout, key_bias, merge_heads, split_heads, take_rows,
};
use simla_train::torch::operations::select;
use simla_train::weights::{Init, Layout, Leaf, Weights};

const EPS: f64 = 1e-12;

/// Keys and values of a context for every layer: `[B, H, M, D / H]` each, and what to add to the scores of padding.
#[derive(Debug)]
pub struct KeysValues {
    layers: Vec<(Tensor, Tensor)>,
    bias: Option<Tensor>,
    swapped: Option<Swapped>,
}

/// The same of a context that another item reads.
#[derive(Debug)]
enum Swapped {
    /// `[B]`: item i reads context `rows[i]`, which is picked in every layer: less memory, of which a CPU's products have most.
    Rows(Tensor),
    /// Picked for all layers in one operation.
    Layers(Vec<(Tensor, Tensor)>),
}

impl KeysValues {
    /// Items, B.
    pub fn items(&self) -> i64 {
        self.layers[0].0.size()[0]
    }

    /// The items `rows` `[n]`, some of them several times or never.
    pub fn gather(&self, rows: &Tensor) -> Self {
        let pick = |x: &Tensor| select(x, rows);
        Self {
            layers: self.layers.iter().map(|(k, v)| (pick(k), pick(v))).collect(),
            bias: self.bias.as_ref().map(pick),
            swapped: None,
        }
    }

    /// The context of one batch from that of one item.
    pub fn repeat(&self, batch: i64) -> Self {
        let expand = |x: &Tensor| x.expand([batch, -1, -1, -1], true);
        Self {
            layers: self.layers.iter().map(|(k, v)| (expand(k), expand(v))).collect(),
            bias: self.bias.as_ref().map(expand),
            swapped: None,
        }
    }
}

/// G groups of queries `[B, ...]` as one batch `[G x B, ...]`. On a CPU one group stands after the other. On a GPU the queries of an item
/// stand side by side: so they are more queries of one context without being copied.
pub fn join_groups(groups: &[Tensor]) -> Tensor {
    match groups[0].device() {
        Device::Cpu => Tensor::cat(groups, 0),
        _ => Tensor::stack(groups, 1).flatten(0, 1),
    }
}

/// Of such a batch of `count` groups, those from `first` on that are `wanted`, as a batch.
pub fn some_groups(x: &Tensor, count: i64, first: i64, wanted: i64) -> Tensor {
    let items = x.size()[0] / count;
    match x.device() {
        Device::Cpu => x.narrow(0, first * items, wanted * items),
        _ => {
            let size = [&[items, count][..], &x.size()[1..]].concat();
            x.view(size.as_slice()).narrow(1, first, wanted).flatten(0, 1)
        }
    }
}

/// What the queries of a pass read. Queries `[G x B, L, D]` are G groups of the context's B items (see [`join_groups`]); in each group, item i
/// reads context i.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    /// Keys and values of every layer.
    pub context: &'a KeysValues,
    /// The *last* group reads what is swapped in the context instead (the hard negative images of ITM).
    pub swapped: bool,
}

impl<'a> Reading<'a> {
    /// Every group reads the same.
    pub fn own(context: &'a KeysValues) -> Self {
        Self { context, swapped: false }
    }

    /// What `layer` reads.
    fn of(self, layer: usize) -> LayerReading {
        let both = |layers: &[(Tensor, Tensor)]| {
            let (k, v) = &layers[layer];
            (k.shallow_clone(), v.shallow_clone())
        };
        let context = self.context;
        LayerReading {
            keys_values: both(&context.layers),
            bias: context.bias.as_ref().map(Tensor::shallow_clone),
            swapped: context.swapped.as_ref().filter(|_| self.swapped).map(|swapped| match swapped {
                Swapped::Rows(rows) => LayerSwapped::Rows(rows.shallow_clone()),
                Swapped::Layers(layers) => LayerSwapped::Picked(both(layers)),
            }),
        }
    }
}

/// A [`Reading`] in one layer.
#[derive(Debug)]
struct LayerReading {
    keys_values: (Tensor, Tensor),
    bias: Option<Tensor>,
    swapped: Option<LayerSwapped>,
}

/// A [`Swapped`] in one layer.
#[derive(Debug)]
enum LayerSwapped {
    Rows(Tensor),
    Picked((Tensor, Tensor)),
}

impl LayerReading {
    /// Cross-attention of queries `[G x B, L, D]` of so many heads: what they see, `[G x B, L, D]`.
    fn attend(&self, q: &Tensor, heads: i64, p: f64) -> Tensor {
        let ((k, v), bias) = (&self.keys_values, self.bias.as_ref());
        if q.device() != Device::Cpu {
            return self.attend_side_by_side(q, heads, p);
        }
        let mut seen = match self.swapped.as_ref().map(|swapped| swapped.of(k, v)) {
            None => attend_groups(q, k, v, heads, bias, p),
            Some((k_last, v_last)) => {
                debug_assert!(bias.is_none(), "of images, all of which counts, some are swapped");
                let batch = k.size()[0];
                let groups = q.split_with_sizes([q.size()[0] - batch, batch], 0);
                // The last one first: the order in which dropout is drawn is that of runs that exist.
                let last = attend_groups(&groups[1], &k_last, &v_last, heads, None, p);
                let mut seen = attend_groups(&groups[0], k, v, heads, None, p);
                seen.extend(last);
                seen
            }
        };
        if seen.len() == 1 { seen.remove(0) } else { Tensor::cat(&seen, 0) }
    }

    /// The same where the queries of an item stand side by side.
    fn attend_side_by_side(&self, q: &Tensor, heads: i64, p: f64) -> Tensor {
        let ((k, v), bias) = (&self.keys_values, self.bias.as_ref());
        let (rows, tokens, width) = q.size3().expect("[G x B, L, D]");
        let batch = k.size()[0];
        let q = q.view([batch, rows / batch * tokens, width]);
        let seen = |q: &Tensor, k: &Tensor, v: &Tensor| merge_heads(&attend(&split_heads(q, heads), k, v, bias, p));
        let all = match &self.swapped {
            None => seen(&q, k, v),
            Some(swapped) => {
                debug_assert!(bias.is_none(), "of images, all of which counts, some are swapped");
                let groups = q.split_with_sizes([q.size()[1] - tokens, tokens], 1);
                let (k_last, v_last) = swapped.of(k, v);
                Tensor::cat(&[seen(&groups[0], k, v), seen(&groups[1], &k_last, &v_last)], 1)
            }
        };
        all.view([rows, tokens, width])
    }
}

impl LayerSwapped {
    /// The swapped ones of keys and values.
    fn of(&self, k: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
        match self {
            Self::Rows(rows) => (select(k, rows), select(v, rows)),
            Self::Picked((k, v)) => (k.shallow_clone(), v.shallow_clone()),
        }
    }
}

/// What each of G groups of queries `[G x B, L, D]` sees: `[B, L, D]`. Groups that read the same context become more queries of it, instead of
/// copies of its keys and values.
fn attend_groups(q: &Tensor, k: &Tensor, v: &Tensor, heads: i64, bias: Option<&Tensor>, p: f64) -> Vec<Tensor> {
    let (rows, tokens, width) = q.size3().expect("[G x B, L, D]");
    let batch = k.size()[0];
    let groups = rows / batch;
    let seen = |q: &Tensor| merge_heads(&attend(&split_heads(q, heads), k, v, bias, p));
    match groups {
        0 => vec![],
        1 => vec![seen(q)],
        _ => {
            let side_by_side = q.view([groups, batch, tokens, width]).transpose(0, 1).reshape([batch, -1, width]);
            seen(&side_by_side).view([batch, groups, tokens, width]).unbind(1)
        }
    }
}

/// Which rows of a sequence the last layer computes.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// Every row.
    All,
    /// The first.
    Cls,
    /// `[batch, rows]` positions.
    At(&'a Tensor),
}

impl Rows<'_> {
    fn of(self, x: &Tensor) -> Tensor {
        match self {
            Self::All => x.shallow_clone(),
            Self::Cls => x.narrow(1, 0, 1),
            Self::At(rows) => take_rows(x, rows),
        }
    }
}

/// The residual, dropout and norm that end every sub-layer of BERT.
#[derive(Debug, Clone, Copy)]
struct Output {
    dense: Linear,
    norm: LayerNorm,
}

impl Output {
    fn new(layout: &mut Layout, name: &str, inputs: i64, width: i64) -> Self {
        Self {
            dense: Linear::new(layout, &format!("{name}.dense"), inputs, width),
            norm: LayerNorm::new(layout, &format!("{name}.LayerNorm"), width, EPS),
        }
    }

    /// At the end of the `nth` sub-layer.
    fn forward(&self, w: &Weights, hidden: &Tensor, residual: &Tensor, (kept, nth): (&Kept, i64)) -> Tensor {
        self.norm.forward(w, &kept.add(nth, residual, self.dense.forward(w, hidden)))
    }
}

#[derive(Debug, Clone, Copy)]
struct Layer {
    index: usize,
    heads: i64,
    width: i64,
    qkv: Linear,
    attention: Output,
    cross_query: Linear,
    crossattention: Output,
    intermediate: Linear,
    output: Output,
}

impl Layer {
    fn new(layout: &mut Layout, name: &str, index: usize, c: &ModelConfig) -> Self {
        let width = c.text_width;
        let qkv = ["query", "key", "value"].map(|part| format!("{name}.attention.self.{part}"));
        Self {
            index,
            heads: c.text_heads,
            width,
            qkv: Linear::fused(layout, &qkv, width, width),
            attention: Output::new(layout, &format!("{name}.attention.output"), width, width),
            cross_query: Linear::new(layout, &format!("{name}.crossattention.self.query"), width, width),
            crossattention: Output::new(layout, &format!("{name}.crossattention.output"), width, width),
            intermediate: Linear::new(layout, &format!("{name}.intermediate.dense"), width, c.text_mlp),
            output: Output::new(layout, &format!("{name}.output"), c.text_mlp, width),
        }
    }

    /// Queries of `rows`, keys and values of all rows; and `rows` themselves, for the residual.
    fn heads_of(&self, w: &Weights, x: &Tensor, rows: Rows) -> ([Tensor; 3], Tensor) {
        let heads = |x: &Tensor| split_heads(x, self.heads);
        match rows {
            Rows::All => {
                let (qkv, x) = self.qkv.beside(w, x);
                let qkv = qkv.chunk(3, -1);
                ([0, 1, 2].map(|i| heads(&qkv[i])), x)
            }
            _ => {
                let read = rows.of(x);
                let parts = self.qkv.split(w, &[&read, x], &[self.width, 2 * self.width]);
                let kv = parts[1].chunk(2, -1);
                // On a CPU picked once more: so gradients add up in the order of runs that exist.
                let residual = if x.device() == Device::Cpu { rows.of(x) } else { read };
                ([&parts[0], &kv[0], &kv[1]].map(heads), residual)
            }
        }
    }

    fn forward(
        &self,
        w: &Weights,
        x: &Tensor,
        rows: Rows,
        bias: Option<&Tensor>,
        reading: Option<&LayerReading>,
        p: f64,
    ) -> Tensor {
        let ([q, k, v], x) = self.heads_of(w, x, rows);
        let sublayers = if reading.is_some() { 3 } else { 2 };
        let kept = Kept::draw(sublayers, &x, p);
        let seen = merge_heads(&attend(&q, &k, &v, bias, p));
        let mut x = self.attention.forward(w, &seen, &x, (&kept, 0));
        if let Some(reading) = reading {
            let (q, residual) = self.cross_query.beside(w, &x);
            let seen = reading.attend(&q, self.heads, p);
            x = self.crossattention.forward(w, &seen, &residual, (&kept, 1));
        }
        self.feed(w, &x, (&kept, sublayers - 1))
    }

    /// The first sub-layer, without dropout: self-attention.
    fn read_own(&self, w: &Weights, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let ([q, k, v], x) = self.heads_of(w, x, Rows::All);
        let seen = merge_heads(&attend(&q, &k, &v, bias, 0.0));
        self.attention.forward(w, &seen, &x, (&Kept::all(), 0))
    }

    /// Queries of the cross-attention: `[batch, H, L, D / H]`.
    fn queries(&self, w: &Weights, x: &Tensor) -> Tensor {
        split_heads(&self.cross_query.forward(w, x), self.heads)
    }

    /// The last sub-layer: feed-forward.
    fn feed(&self, w: &Weights, x: &Tensor, kept: (&Kept, i64)) -> Tensor {
        let (hidden, x) = self.intermediate.beside(w, x);
        self.output.forward(w, &hidden.gelu("none"), &x, kept)
    }

    /// Self-attention probabilities of `rows`, in f32: `[batch, H, rows, tokens]`.
    fn attention(&self, w: &Weights, x: &Tensor, rows: Rows, bias: Option<&Tensor>) -> Tensor {
        let ([q, k, _], _) = self.heads_of(w, x, rows);
        attention(&q, &k, bias)
    }
}

/// The cross-attention of one layer laid open, so that the map can be looked at, changed, and the rest run from there (Grad-CAM).
#[derive(Debug)]
pub struct OpenedText {
    layer: usize,
    /// After the layer's self-attention: `[B, L, D]`.
    hidden: Tensor,
    /// Attention of the words over the context, in f32: `[B, H, L, M]`.
    pub map: Tensor,
}

/// Projections of contexts to keys and values, stacked as one product for each context.
#[derive(Debug)]
struct CrossAttention {
    stacked: Linear,
    /// Which of the stacked layers read each context.
    contexts: Vec<Range<i64>>,
    /// Which context each layer reads, and its place among those that do.
    layers: Vec<(usize, usize)>,
}

impl CrossAttention {
    /// Every layer reads the one context.
    fn new(layout: &mut Layout, layer_name: impl Fn(i64) -> String, c: &ModelConfig) -> Self {
        Self {
            stacked: Self::stack(layout, &layer_name, 0..c.text_depth, c.text_width),
            contexts: std::iter::once(0..c.text_depth).collect(),
            layers: (0..c.text_depth as usize).map(|i| (0, i)).collect(),
        }
    }

    /// Layer i reads context i mod 2, of two. The two layers that stand for one ([`Depth::Doubled`]) share a projection, which is stacked
    /// once, under the first one's name: after those of the left context's single layers, before the right one's.
    fn of_pairs(layout: &mut Layout, layer_name: impl Fn(i64) -> String, c: &ModelConfig) -> Self {
        let (half, all) = (c.text_depth / 2, Depth::Doubled.layers(c));
        let single = |side| (0..half).filter(move |i| i % 2 == side);
        let pairs = (half..all).step_by(2);
        let stacked: Vec<i64> = single(0).chain(pairs.clone()).chain(single(1)).collect();
        let stack = Self::stack(layout, &layer_name, stacked.iter().copied(), c.text_width);
        for first in pairs {
            for parameter in Self::NAMES.iter().flat_map(|part| ["weight", "bias"].map(|p| format!("{part}.{p}"))) {
                let named = |layer| format!("{}.crossattention.self.{parameter}", layer_name(layer));
                layout.alias(named(first + 1), named(first));
            }
        }
        let end = stacked.len() as i64;
        let contexts = vec![0..end - single(1).count() as i64, single(0).count() as i64..end];
        let place = |layer: i64| {
            let first = if layer < half { layer } else { layer - (layer - half) % 2 };
            let at = stacked.iter().position(|&stacked| stacked == first).expect("every layer is there") as i64;
            let side = (layer % 2) as usize;
            (side, (at - contexts[side].start) as usize)
        };
        Self { stacked: stack, layers: (0..all).map(place).collect(), contexts }
    }

    const NAMES: [&str; 2] = ["key", "value"];

    fn stack(
        layout: &mut Layout,
        name: impl Fn(i64) -> String,
        layers: impl Iterator<Item = i64>,
        width: i64,
    ) -> Linear {
        let parts = layers.flat_map(|i| Self::NAMES.map(|part| format!("{}.crossattention.self.{part}", name(i))));
        Linear::fused(layout, &parts.collect::<Vec<_>>(), width, width)
    }

    /// Keys and values `[B, H, M, D / H]` of each context `[B, M, D]`, for the layers that read it; and those of the items `swapped` `[B]`
    /// in their places, of one context that all layers read.
    fn project(&self, w: &Weights, contexts: &[&Tensor], heads: i64, swapped: Option<&Tensor>) -> KeysValues {
        debug_assert_eq!(contexts.len(), self.contexts.len(), "a context for each");
        let mut starts = Vec::with_capacity(contexts.len());
        let mut parts = Vec::new();
        for (context, layers) in contexts.iter().zip(&self.contexts) {
            let (batch, tokens, width) = context.size3().expect("[B, M, D]");
            let rows = 2 * width * layers.start..2 * width * layers.end;
            let projected = self.stacked.part(w, context, rows);
            let size = [batch, tokens, 2 * (layers.end - layers.start), heads, width / heads];
            let in_heads = |projected: &Tensor| projected.view(size).permute([2, 0, 3, 1, 4]).unbind(0);
            starts.push(parts.len());
            parts.extend(in_heads(&projected));
            if let Some(rows) = swapped.filter(|_| context.device() != Device::Cpu) {
                starts.push(parts.len());
                parts.extend(in_heads(&select(&projected, rows)));
            }
        }
        let parts = w.cut(parts);
        let layer = |start: usize, at: usize| {
            let key = start + 2 * at;
            (parts[key].shallow_clone(), parts[key + 1].shallow_clone())
        };
        KeysValues {
            layers: self.layers.iter().map(|&(context, at)| layer(starts[context], at)).collect(),
            bias: None,
            swapped: swapped.map(|rows| match starts[contexts.len()..] {
                [] => Swapped::Rows(rows.shallow_clone()),
                [start, ..] => Swapped::Layers(self.layers.iter().map(|&(_, at)| layer(start, at)).collect()),
            }),
        }
    }
}

/// How many layers of BERT stand above each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// As many as were pre-trained; all read one context.
    Single,
    /// The upper half twice, n as 6 + 2 (n - 6) and the next, for two contexts: layer i reads context i mod 2 (NLVR2, 3.1).
    Doubled,
}

impl Depth {
    /// Contexts that are read.
    pub fn contexts(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Doubled => 2,
        }
    }

    fn layers(self, c: &ModelConfig) -> i64 {
        match self {
            Self::Single => c.text_depth,
            Self::Doubled => c.text_depth / 2 + 2 * (c.text_depth - c.text_depth / 2),
        }
    }

    /// The layer that `layer` starts from, of `text_depth` pre-trained ones.
    pub fn pretrained(self, layer: i64, text_depth: i64) -> i64 {
        let half = text_depth / 2;
        match self {
            Self::Doubled if layer >= half => half + (layer - half) / 2,
            _ => layer,
        }
    }
}

/// BERT with cross-attention in every layer: E_l and E_mm in one.
#[derive(Debug)]
pub struct TextEncoder {
    pad_id: i64,
    heads: i64,
    word_embeddings: Leaf,
    position_embeddings: Leaf,
    embedding_norm: LayerNorm,
    layers: Vec<Layer>,
    cross_attention: CrossAttention,
}

impl TextEncoder {
    /// Parameters begin with `name`: `text_encoder.bert` in pre-training, `text_encoder` in fine-tuned models.
    pub fn new(layout: &mut Layout, name: &str, depth: Depth, c: &ModelConfig) -> Self {
        let width = c.text_width;
        let layer_name = |i: i64| format!("{name}.encoder.layer.{i}");
        let embeddings = format!("{name}.embeddings");
        Self {
            pad_id: c.special.pad,
            heads: c.text_heads,
            word_embeddings: layout.leaf(
                format!("{embeddings}.word_embeddings.weight"),
                &[c.vocab_size, width],
                Init::Normal(INITIAL_STD),
            ),
            position_embeddings: layout.leaf(
                format!("{embeddings}.position_embeddings.weight"),
                &[c.max_positions, width],
                Init::Normal(INITIAL_STD),
            ),
            embedding_norm: LayerNorm::new(layout, &format!("{embeddings}.LayerNorm"), width, EPS),
            layers: (0..depth.layers(c)).map(|i| Layer::new(layout, &layer_name(i), i as usize, c)).collect(),
            cross_attention: match depth {
                Depth::Single => CrossAttention::new(layout, layer_name, c),
                Depth::Doubled => CrossAttention::of_pairs(layout, layer_name, c),
            },
        }
    }

    /// Raw word embeddings of ids `[B, L]`: `[B, L, D]`.
    pub fn embed_words(&self, w: &Weights, ids: &Tensor, p: f64) -> Tensor {
        let words = Tensor::embedding(&w[self.word_embeddings], ids, self.pad_id, false, false);
        self.embed(w, words, p)
    }

    /// Patch embeddings `[B, N, D]` as queries: BERT's positions, norm and dropout are applied to them (appendix 1.2).
    pub fn embed_patches(&self, w: &Weights, image_embeds: &Tensor, p: f64) -> Tensor {
        self.embed(w, image_embeds.shallow_clone(), p)
    }

    fn embed(&self, w: &Weights, x: Tensor, p: f64) -> Tensor {
        let (norm, positions) = (self.embedding_norm, self.position_embeddings);
        w.layer(x, move |w, x| {
            let positions = w[positions].narrow(0, 0, x.size()[1]);
            dropout(norm.forward(w, &(x + positions)), p)
        })
    }

    /// Keys and values of a context `[B, M, D]` for the cross-attention of every layer, in one product; `mask` `[B, M]` is 1
    /// where the context counts.
    pub fn keys_values(&self, w: &Weights, context: &Tensor, mask: Option<&Tensor>) -> KeysValues {
        let projected = self.cross_attention.project(w, &[context], self.heads, None);
        KeysValues { bias: mask.map(|mask| key_bias(mask, context.kind())), ..projected }
    }

    /// The same of a context of which everything counts; and those of its items `swapped` `[B]` in their places.
    pub fn swapped_keys_values(&self, w: &Weights, context: &Tensor, swapped: &Tensor) -> KeysValues {
        self.cross_attention.project(w, &[context], self.heads, Some(swapped))
    }

    /// The same of the images of a [`Depth`], `[B, M, D]` each, of which everything counts.
    pub fn images_keys_values(&self, w: &Weights, images: &[&Tensor]) -> KeysValues {
        self.cross_attention.project(w, images, self.heads, None)
    }

    /// All layers but the last, over embedded queries `[batch, L, D]`.
    pub fn lower(&self, w: &Weights, x: &Tensor, bias: Option<&Tensor>, reading: Option<Reading>, p: f64) -> Tensor {
        let layers = &self.layers[..self.layers.len() - 1];
        layers.iter().fold(x.shallow_clone(), |x, &layer| {
            let bias = bias.map(Tensor::shallow_clone);
            let reading = reading.map(|reading| reading.of(layer.index));
            w.layer(x, move |w, x| layer.forward(w, x, Rows::All, bias.as_ref(), reading.as_ref(), p))
        })
    }

    /// The last layer, for `rows`: `[batch, rows, D]`.
    pub fn last(
        &self,
        w: &Weights,
        x: &Tensor,
        rows: Rows,
        bias: Option<&Tensor>,
        reading: Option<Reading>,
        p: f64,
    ) -> Tensor {
        let layer = self.layers[self.layers.len() - 1];
        let reading = reading.map(|reading| reading.of(layer.index));
        layer.forward(w, x, rows, bias, reading.as_ref(), p)
    }

    /// All layers, the last for `rows`.
    pub fn encode(
        &self,
        w: &Weights,
        x: &Tensor,
        rows: Rows,
        bias: Option<&Tensor>,
        reading: Option<Reading>,
        p: f64,
    ) -> Tensor {
        self.last(w, &self.lower(w, x, bias, reading, p), rows, bias, reading, p)
    }

    /// The last layer's self-attention, given what [`TextEncoder::lower`] returned: `[batch, H, rows, L]` in f32.
    pub fn last_attention(&self, w: &Weights, x: &Tensor, rows: Rows, bias: Option<&Tensor>) -> Tensor {
        self.layers[self.layers.len() - 1].attention(w, x, rows, bias)
    }

    /// Runs embedded queries `[B, L, D]` up to the cross-attention of `layer` over the context of one item, and lays it open.
    pub fn open(
        &self,
        w: &Weights,
        x: &Tensor,
        bias: Option<&Tensor>,
        context: &KeysValues,
        layer: usize,
    ) -> OpenedText {
        let reading = Reading::own(context);
        let x = self.layers[..layer].iter().fold(x.shallow_clone(), |x, layer| {
            let reading = reading.of(layer.index);
            layer.forward(w, &x, Rows::All, bias, Some(&reading), 0.0)
        });
        let opened = &self.layers[layer];
        let hidden = opened.read_own(w, &x, bias);
        let (keys, _) = &context.layers[layer];
        let map = attention(&opened.queries(w, &hidden), keys, context.bias.as_ref());
        OpenedText { layer, hidden, map }
    }

    /// Goes on from there with `map` `[B, H, L, M]` as the attention: `[B, L, D]`.
    pub fn close(
        &self,
        w: &Weights,
        opened: &OpenedText,
        map: &Tensor,
        bias: Option<&Tensor>,
        context: &KeysValues,
    ) -> Tensor {
        let layer = &self.layers[opened.layer];
        let (_, values) = &context.layers[opened.layer];
        let seen = merge_heads(&map.to_kind(w.kind()).matmul(values));
        let all = Kept::all();
        let x = layer.crossattention.forward(w, &seen, &opened.hidden, (&all, 1));
        let reading = Reading::own(context);
        self.layers[opened.layer + 1..].iter().fold(layer.feed(w, &x, (&all, 2)), |x, layer| {
            let reading = reading.of(layer.index);
            layer.forward(w, &x, Rows::All, bias, Some(&reading), 0.0)
        })
    }
}

/// BERT's head that says which word stands at a position.
#[derive(Debug)]
pub struct WordHead {
    transform: Linear,
    norm: LayerNorm,
    /// The decoder is the word embeddings.
    word_embeddings: Leaf,
    bias: Leaf,
}

impl WordHead {
    /// Parameters begin with `name`, `text_encoder.cls.predictions` in pre-training; the words are those of `text`.
    pub fn new(layout: &mut Layout, name: &str, text: &TextEncoder, c: &ModelConfig) -> Self {
        Self {
            transform: Linear::new(layout, &format!("{name}.transform.dense"), c.text_width, c.text_width),
            norm: LayerNorm::new(layout, &format!("{name}.transform.LayerNorm"), c.text_width, EPS),
            word_embeddings: text.word_embeddings,
            bias: layout.leaf(format!("{name}.bias"), &[c.vocab_size], Init::Constant(0.0)),
        }
    }

    /// Logits over the vocabulary for hidden states `[n, D]`, in f32.
    pub fn logits(&self, w: &Weights, hidden: &Tensor) -> Tensor {
        let x = self.norm.forward(w, &self.transform.forward(w, hidden).gelu("none"));
        x.linear(&w[self.word_embeddings], Some(&w[self.bias])).to_kind(Kind::Float)
    }
}
