//! Floating-point operations of a pre-training step, counted from the model's sizes (a multiply-add is 2): what this implementation
//! computes, after the savings of docs/paper.md, 'Cost of a step', for the whole step divided by its pairs.

use crate::config::ModelConfig;

/// Operations for one pair, forward and backward, both models: `tokens` pieces, of which `words` are masked, and `patches` masked
/// patches; without the visual tokenizer.
pub fn per_pair(c: &ModelConfig, tokens: i64, words: i64, patches: i64) -> f64 {
    let n = (1 + c.patches()) as f64;
    let (tokens, words, patches) = (tokens as f64, words as f64, patches as f64);
    let (d, depth) = (c.text_width as f64, c.text_depth as f64);
    let linear = |rows: f64, inputs: f64, outputs: f64| 2.0 * rows * inputs * outputs;
    let attention = |queries: f64, keys: f64| 4.0 * queries * keys * d;

    let vision_mlp = 4.0 * d;
    let vision_layer = linear(n, d, 4.0 * d) + 2.0 * linear(n, d, vision_mlp) + attention(n, n);
    let embed = linear(n - 1.0, 3.0 * (c.patch_size * c.patch_size) as f64, d);
    let vision = embed + c.vision_depth as f64 * vision_layer;

    // A layer of BERT: keys and values of all rows, the rest for the rows that are read; `context` keys, 0 for E_l.
    let layer = |all: f64, rows: f64, context: f64| {
        let cross = if context > 0.0 { linear(rows, d, 2.0 * d) + attention(rows, context) } else { 0.0 };
        linear(all, d, 2.0 * d)
            + linear(rows, d, 2.0 * d)
            + attention(rows, all)
            + cross
            + 2.0 * linear(rows, d, c.text_mlp as f64)
    };
    let pass = |all: f64, rows: f64, context: f64| (depth - 1.0) * layer(all, all, context) + layer(all, rows, context);
    let keys_values = |rows: f64| depth * linear(rows, d, 2.0 * d);
    let word_head = linear(words, d, d) + linear(words, d, c.vocab_size as f64);
    let similarity = 2.0 * linear(1.0, c.embed_dim as f64, c.queue_size as f64);
    let concepts = linear(1.0, c.embed_dim as f64, c.vocab_size as f64);
    let text = pass(tokens, 1.0, 0.0);
    let matching = 3.0 * pass(tokens, 1.0, n);
    let masked_words = pass(tokens, words, n) + word_head;
    let masked_patches = pass(n, patches, tokens) + keys_values(tokens) + linear(patches, d, c.visual_vocab as f64);

    let online =
        2.0 * vision + text + keys_values(n) + matching + masked_words + masked_patches + similarity + concepts;
    let keywords = (depth - 1.0) * layer(tokens, tokens, n) + linear(tokens, d, 2.0 * d);
    let momentum =
        2.0 * vision + text + keys_values(n) + keywords + masked_words + masked_patches + similarity + concepts;
    3.0 * online + momentum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Preset, SpecialIds};

    #[test]
    fn agrees_with_the_table_of_the_specification() {
        let c = ModelConfig::preset(Preset::Base, 30_522, SpecialIds { pad: 0, cls: 101, sep: 102, mask: 103 });
        // docs/paper.md, 'Cost of a step', in GFLOP: 368 + 171 + 215 + 25, less what is not computed: keys and values of the image three more times
        // with gradient and once without (7.3 each), and most of the last layers.
        let saved = 7.3 * (3.0 * 3.0 + 1.0);
        let table = 368.0 + 171.0 + 215.0 + 25.0 - saved;
        let counted = per_pair(&c, 25, 6, 75) / 1e9;
        assert!(counted < table && counted > 0.93 * table, "{counted} against at most {table}");
    }
}
