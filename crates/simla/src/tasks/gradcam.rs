//! Where does a score come from? Grad-CAM on attention: attention x positive gradient of the score (figure 3, appendix 2).
//!
//! Fused attention never writes its map down. So the pass runs up to the attention that is asked about, which is then a tensor of its
//! own, and goes on from there: the gradient of the score reaches that map and nothing else is computed.

use simla_data::Vocabulary;
use tch::{Device, Kind, Tensor, no_grad};

use crate::layers::key_bias;
use crate::model::Simla;
use crate::objectives::itm;
use crate::tasks::retrieval::pad;
use crate::text::{KeysValues, OpenedText};
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};

/// Where in the image a score comes from: a value a patch, row by row, not below 0.
pub type Map = Vec<f32>;

/// A phrase in an image.
#[derive(Debug, Clone, PartialEq)]
pub struct PhraseMaps {
    /// The logit of "these belong together".
    pub logit: f32,
    /// Probability that phrase and image belong together.
    pub probability: f32,
    /// Mean over the phrase's tokens, [CLS] and [SEP] included, as the authors take it.
    pub phrase: Map,
    /// Of every token, [CLS] and [SEP] included. In the last layer only [CLS] is read on: all others are 0 there.
    pub tokens: Vec<Map>,
}

impl PhraseMaps {
    /// The words of the phrase whose token ids are `ids`, with their maps: the mean over a word's pieces.
    pub fn words(&self, vocabulary: &Vocabulary, ids: &[i64]) -> Vec<(String, Map)> {
        let special = vocabulary.special();
        let mut words: Vec<Vec<usize>> = Vec::new();
        for (at, &id) in ids.iter().enumerate() {
            if [special.cls, special.sep].contains(&id) {
                continue;
            }
            match words.last_mut() {
                Some(word) if vocabulary.word(id).starts_with("##") => word.push(at),
                _ => words.push(vec![at]),
            }
        }
        let mean = |at: &[usize]| {
            let sum = |patch: usize| at.iter().map(|&i| self.tokens[i][patch]).sum::<f32>();
            (0..self.phrase.len()).map(|patch| sum(patch) / at.len() as f32).collect()
        };
        words
            .iter()
            .map(|at| {
                let pieces: Vec<i64> = at.iter().map(|&i| ids[i]).collect();
                (vocabulary.decode(&pieces), mean(at))
            })
            .collect()
    }
}

/// Cross-attention layer of the paper's grounding, of 12 counted from 0; in proportion at other depths.
pub fn default_layer(text_depth: i64) -> usize {
    (8 * text_depth / 12) as usize
}

/// Attention x positive gradient, mean over heads: `[B, H, L, 1 + P]` twice to `[B, L, P]`; the image's [CLS] is left out.
pub fn relevance(attention: &Tensor, gradient: &Tensor) -> Tensor {
    (attention * gradient.clamp_min(0.0)).mean_dim([1].as_slice(), false, Kind::Float).slice(2, 1, None, 1)
}

/// Grad-CAM of the matching score on the cross-attention of `layer`, for `phrases` (token ids with [CLS] and [SEP]) in one image given
/// as E_v's output `[1, 1 + P, D]`.
///
/// # Errors
/// What libtorch could not do.
pub fn of_matching(
    model: &Simla,
    image_embeds: &Tensor,
    phrases: &[impl AsRef<[i64]>],
    layer: usize,
) -> Result<Vec<PhraseMaps>, TorchError> {
    if phrases.is_empty() {
        return Ok(vec![]);
    }
    guarded(|| {
        let Attended { logits, attention, gradient } = attended(model, image_embeds, phrases, layer);
        // To the host in two copies: what follows is little, for each phrase and token.
        let tokens = relevance(&attention, &gradient).to(Device::Cpu);
        let logits = logits.to_kind(Kind::Float).to(Device::Cpu);
        let logit = floats(&logits.select(1, itm::MATCH));
        let probability = floats(&logits.softmax(-1, Kind::Float).select(1, itm::MATCH));
        phrases
            .iter()
            .enumerate()
            .map(|(i, phrase)| {
                let tokens = tokens.get(i as i64).narrow(0, 0, phrase.as_ref().len() as i64);
                PhraseMaps {
                    logit: logit[i],
                    probability: probability[i],
                    phrase: floats(&tokens.mean_dim([0].as_slice(), false, Kind::Float)),
                    tokens: tokens.unbind(0).iter().map(floats).collect(),
                }
            })
            .collect()
    })
}

/// What a heat map is made of.
#[derive(Debug)]
pub struct Attended {
    /// Of the matching head: `[B, 2]`.
    pub logits: Tensor,
    /// Of phrases over patches, after the softmax: `[B, H, L, 1 + P]`.
    pub attention: Tensor,
    /// Of the logit of a match with respect to it.
    pub gradient: Tensor,
}

/// The cross-attention of `layer` and how the matching score depends on it; arguments as of [`of_matching`].
///
/// # Panics
/// Without phrases, or where libtorch fails.
pub fn attended(model: &Simla, image_embeds: &Tensor, phrases: &[impl AsRef<[i64]>], layer: usize) -> Attended {
    let matching = no_grad(|| Matching::open(model, image_embeds, phrases, layer));
    let map = matching.opened.map.detach().set_requires_grad(true);
    let logits = matching.logits(&map);
    let gradient = gradient_of(&logits.select(1, itm::MATCH), &map);
    Attended { logits: logits.detach(), attention: map.detach(), gradient }
}

/// Grad-CAM of concepts on the [CLS] attention of E_v's last block, one map a word of `words` (ids), for one image `[1, 3, S, S]`
/// (appendix 2).
///
/// # Errors
/// What libtorch could not do.
pub fn of_concepts(model: &Simla, image: &Tensor, words: &[i64]) -> Result<Vec<Map>, TorchError> {
    if words.is_empty() {
        return Ok(vec![]);
    }
    guarded(|| {
        let (towers, w) = (&model.towers, &model.online);
        let opened = no_grad(|| towers.vision.open(w, image));
        let count = words.len() as i64;
        let map = opened.map.detach().repeat([count, 1, 1, 1]).set_requires_grad(true);
        let cls = towers.vision.close(w, &opened, &map);
        let logits = towers.concept_logits(w, &towers.image_feat(w, &cls));
        let ids = upload(&Tensor::from_slice(words), w.device());
        let gradient = gradient_of(&logits.gather(1, &ids.unsqueeze(1), false), &map);
        let relevance = relevance(&map.detach(), &gradient).squeeze_dim(1);
        relevance.to(Device::Cpu).unbind(0).iter().map(floats).collect()
    })
}

/// Phrases in an image, with the map of one layer laid open.
struct Matching<'a> {
    model: &'a Simla,
    context: KeysValues,
    bias: Tensor,
    opened: OpenedText,
}

impl<'a> Matching<'a> {
    fn open(model: &'a Simla, image_embeds: &Tensor, phrases: &[impl AsRef<[i64]>], layer: usize) -> Self {
        let (towers, w) = (&model.towers, &model.online);
        let context = towers.image_context(w, image_embeds);
        let (ids, mask) = pad(phrases, model.config.special.pad, w.device());
        let bias = key_bias(&mask, w.kind());
        let words = towers.text.embed_words(w, &ids, 0.0);
        let opened = towers.text.open(w, &words, Some(&bias), &context, layer);
        Self { model, context, bias, opened }
    }

    /// ITM logits with `map` as the layer's attention: `[B, 2]`.
    fn logits(&self, map: &Tensor) -> Tensor {
        let (towers, w) = (&self.model.towers, &self.model.online);
        let bias = Some(&self.bias);
        let states = towers.text.close(w, &self.opened, map, bias, &self.context);
        self.model.itm_head.forward(w, &states.select(1, 0))
    }
}

/// The gradient of every score with respect to its own part of `map`.
pub(super) fn gradient_of(scores: &Tensor, map: &Tensor) -> Tensor {
    let total = scores.sum(scores.kind());
    Tensor::run_backward(&[&total], &[map], false, false).remove(0)
}

pub(super) fn floats(x: &Tensor) -> Map {
    Vec::try_from(x.to_kind(Kind::Float).contiguous().flatten(0, -1)).expect("floats")
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tch::Device;

    use super::*;
    use crate::config::{ModelConfig, Preset, SpecialIds};

    /// A model in f64, so that differences are exact, with weights large enough that something depends on something.
    fn model() -> Simla {
        let config = ModelConfig {
            image_size: 16,
            vision_width: 8,
            text_width: 8,
            text_mlp: 16,
            vision_heads: 2,
            text_heads: 2,
            vision_depth: 2,
            text_depth: 3,
            embed_dim: 8,
            queue_size: 8,
            ..ModelConfig::preset(Preset::Tiny, 20, SpecialIds::FIRST)
        };
        let mut model = Simla::new(config, Kind::Double, Device::Cpu, 5);
        let matrices = &mut model.online.master().matrices;
        let values = drawn(matrices.numel(), 5) * 0.7;
        no_grad(|| matrices.copy_(&values));
        model.online.refresh();
        model
    }

    /// Between -1 and 1; not from torch's generator, from which the tests beside this one draw too.
    fn drawn(count: usize, seed: u64) -> Tensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f64> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
        Tensor::from_slice(&values)
    }

    fn image(model: &Simla) -> Tensor {
        let side = model.config.image_size;
        drawn((3 * side * side) as usize, 2).view([1, 3, side, side])
    }

    /// Attention x positive slope of `score` in each element of `map`, by central differences; mean over heads, without [CLS].
    fn by_differences(map: &Tensor, score: impl Fn(&Tensor) -> f64) -> Vec<f32> {
        const STEP: f64 = 1e-4;
        let slopes: Vec<f64> = (0..map.numel() as i64)
            .map(|i| {
                let moved = |by: f64| {
                    let changed = map.copy();
                    _ = changed.view(-1).get(i).g_add_scalar_(by);
                    score(&changed)
                };
                (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
            })
            .collect();
        floats(&relevance(map, &Tensor::from_slice(&slopes).view_as(map)))
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        let largest = expected.iter().copied().fold(0.0, f32::max);
        assert!(largest > 0.0, "nothing to compare");
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4 * largest, "{found} against {expected}");
        }
    }

    #[test]
    fn maps_of_a_phrase_are_those_of_finite_differences() {
        let model = model();
        let image = no_grad(|| model.towers.vision.forward(&model.online, &image(&model), None));
        for layer in 0..3 {
            let phrase = [1i64, 7, 9, 2];
            // A longer phrase beside it: padding must change nothing.
            let found = of_matching(&model, &image, &[&phrase[..], &[1, 5, 6, 7, 8, 2]], layer);
            let found = found.unwrap().remove(0);
            let alone = no_grad(|| Matching::open(&model, &image, &[&phrase], layer));
            let logit = |map: &Tensor| no_grad(|| alone.logits(map)).double_value(&[0, itm::MATCH]);
            let map = alone.opened.map.to_kind(Kind::Double);
            assert!((f64::from(found.logit) - logit(&map)).abs() < 1e-5);
            let expected = by_differences(&map, logit);
            assert_close(&found.tokens.concat(), &expected);
            let mean = |i: usize| expected.iter().skip(i).step_by(4).sum::<f32>() / 4.0;
            assert_close(&found.phrase, &[mean(0), mean(1), mean(2), mean(3)]);
        }
    }

    #[test]
    fn an_opened_pass_ends_where_the_fused_one_does() {
        let model = model();
        let (w, towers) = (&model.online, &model.towers);
        no_grad(|| {
            let image = image(&model);
            let opened = towers.vision.open(w, &image);
            let cls = towers.vision.close(w, &opened, &opened.map);
            let whole = towers.vision.forward(w, &image, None);
            let apart = (cls - whole.narrow(1, 0, 1)).abs().max();
            assert!(apart.double_value(&[]) < 1e-5, "E_v");

            let phrases = [[1i64, 7, 9, 2]];
            let odds = crate::tasks::retrieval::match_scores(&model, &whole, &[&phrases[0]]);
            for layer in 0..3 {
                let matching = Matching::open(&model, &whole, &phrases, layer);
                let logits = matching.logits(&matching.opened.map);
                let found = logits.double_value(&[0, 1]) - logits.double_value(&[0, 0]);
                assert!((found - f64::from(odds[0])).abs() < 1e-5, "layer {layer}");
            }
        });
    }

    #[test]
    fn maps_of_concepts_are_those_of_finite_differences() {
        let model = model();
        let (w, towers) = (&model.online, &model.towers);
        let image = image(&model);
        let found = of_concepts(&model, &image, &[4, 11]).unwrap();
        let opened = no_grad(|| towers.vision.open(w, &image));
        for (word, found) in [4i64, 11].into_iter().zip(&found) {
            let logit = |map: &Tensor| {
                no_grad(|| {
                    let feat = towers.image_feat(w, &towers.vision.close(w, &opened, map));
                    let feat = feat.to_kind(Kind::Double) * model.config.concept_scale;
                    towers.concept_head.forward(w, &feat).double_value(&[0, word])
                })
            };
            let expected = by_differences(&opened.map.to_kind(Kind::Double), logit);
            let largest = expected.iter().copied().fold(0.0, f32::max);
            assert!(largest > 0.0, "nothing to compare");
            // The feature is normalised in f32: differences are coarse.
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 0.01 * largest, "{found} {expected}");
            }
        }
    }

    #[test]
    fn relevance_by_hand() {
        // Two heads, one token, [CLS] and two patches.
        let attention = Tensor::from_slice(&[0.5f32, 0.2, 0.3, 0.1, 0.8, 0.1]).view([1, 2, 1, 3]);
        let gradient = Tensor::from_slice(&[9.0f32, 1.0, -5.0, 9.0, 0.5, 2.0]).view([1, 2, 1, 3]);
        // Patch 1: (0.2 x 1 + 0.8 x 0.5) / 2; patch 2: (0 + 0.1 x 2) / 2: what speaks against the score is not subtracted.
        let found = floats(&relevance(&attention, &gradient));
        assert!((found[0] - 0.3).abs() < 1e-6 && (found[1] - 0.1).abs() < 1e-6);
    }

    #[test]
    fn a_words_map_is_the_mean_of_its_pieces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        std::fs::write(&path, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\nball\n##s\n").unwrap();
        let vocabulary = Vocabulary::open(&path).unwrap();
        let maps = PhraseMaps {
            logit: 0.0,
            probability: 0.5,
            phrase: vec![0.0; 2],
            tokens: vec![vec![9.0, 9.0], vec![1.0, 2.0], vec![3.0, 0.0], vec![5.0, 4.0], vec![9.0, 9.0]],
        };
        let words = maps.words(&vocabulary, &[2, 5, 6, 7, 3]);
        let expected = [("red".to_owned(), vec![1.0, 2.0]), ("balls".to_owned(), vec![4.0, 2.0])];
        assert_eq!(words, expected);
    }

    #[test]
    fn the_papers_layer_at_its_depth_and_in_proportion() {
        assert_eq!([12, 6, 4, 1].map(default_layer), [8, 4, 2, 0]);
    }
}
