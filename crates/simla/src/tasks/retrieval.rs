//! Image-text retrieval (spec section 6): everything is ranked by the contrast, the top k re-ranked by the matching score.
//!
//! Memory does not grow with images x patches: E_v runs a second time for the re-ranking, image by image, and the keys and values
//! of an image are projected once for all captions that are matched with it.

use std::collections::{BTreeSet, HashMap};

use rayon::prelude::*;
use serde::Serialize;
use simla_data::{Dataset, RecordError, Vocabulary};
use simla_image::Limits;
use tch::{Kind, Tensor, no_grad};

use crate::guard::{TorchError, guarded};
use crate::inputs::normalized;
use crate::layers::key_bias;
use crate::model::Simla;
use crate::objectives::itm;
use crate::text::{Reading, Rows};

/// Images or captions that are embedded at a time.
const BATCH: usize = 32;
/// Captions that are matched with one image at a time.
const MATCHED: usize = 64;

/// Images with all their captions, as a model reads them.
#[derive(Debug)]
pub struct Gallery {
    /// Position in the data set of each usable image.
    pub images: Vec<u64>,
    /// Token ids of every caption.
    pub captions: Vec<Vec<i64>>,
    /// Position in `images` of each caption's image.
    pub image_of: Vec<usize>,
    /// Records that cannot be used.
    pub broken: Vec<RecordError>,
}

impl Gallery {
    /// Reads the captions of a data set, and finds the records that cannot be used.
    pub fn read(dataset: &Dataset, vocabulary: &Vocabulary, max_tokens: usize) -> Self {
        let mut gallery = Self {
            images: vec![],
            captions: vec![],
            image_of: vec![],
            broken: vec![],
        };
        for i in 0..dataset.len() {
            // Its image is decoded here once more than needed, so that a broken one is known before anything is ranked.
            let usable = dataset.record(i).and_then(|record| {
                let decoded = simla_image::decode(&record.image, &Limits::default());
                decoded.map(|_| record.captions).map_err(|e| {
                    dataset
                        .entry(i)
                        .map_or_else(|e| e, |entry| entry.unreadable(e))
                })
            });
            match usable {
                Ok(captions) => {
                    let position = gallery.images.len();
                    gallery.images.push(i);
                    for caption in captions {
                        gallery
                            .captions
                            .push(vocabulary.encode(&caption, max_tokens));
                        gallery.image_of.push(position);
                    }
                }
                Err(error) => gallery.broken.push(error),
            }
        }
        gallery
    }
}

/// Shares of right answers, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recalls {
    /// Image queries that find one of their captions at the first rank, among the first 5, among the first 10.
    pub txt_r1: f64,
    pub txt_r5: f64,
    pub txt_r10: f64,
    /// Text queries that find their image.
    pub img_r1: f64,
    pub img_r5: f64,
    pub img_r10: f64,
}

impl Recalls {
    /// From the rank (0 is first) of the best right answer of every query.
    pub fn new(image_queries: &[usize], text_queries: &[usize]) -> Self {
        let share = |ranks: &[usize], within: usize| {
            100.0 * ranks.iter().filter(|&&rank| rank < within).count() as f64
                / ranks.len().max(1) as f64
        };
        Self {
            txt_r1: share(image_queries, 1),
            txt_r5: share(image_queries, 5),
            txt_r10: share(image_queries, 10),
            img_r1: share(text_queries, 1),
            img_r5: share(text_queries, 5),
            img_r10: share(text_queries, 10),
        }
    }

    /// Mean of all six: what checkpoints are compared by.
    pub fn mean(&self) -> f64 {
        (self.txt_r1 + self.txt_r5 + self.txt_r10 + self.img_r1 + self.img_r5 + self.img_r10) / 6.0
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retrieval {
    pub images: usize,
    pub captions: usize,
    /// Candidates of each query that were re-ranked.
    pub top_k: usize,
    pub itc: Recalls,
    /// After re-ranking; absent where nothing was.
    pub itm: Option<Recalls>,
}

/// How far an evaluation is: done and all, in images and captions.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize);

/// Ranks every image and caption of `gallery` against all others; `top_k` = 0 leaves the ranking by contrast.
///
/// # Errors
/// What libtorch could not do.
pub fn evaluate(
    model: &Simla,
    dataset: &Dataset,
    gallery: &Gallery,
    top_k: usize,
    progress: Progress,
) -> Result<Retrieval, TorchError> {
    guarded(|| no_grad(|| rank(model, dataset, gallery, top_k, progress)))
}

fn rank(
    model: &Simla,
    dataset: &Dataset,
    gallery: &Gallery,
    top_k: usize,
    progress: Progress,
) -> Retrieval {
    let (images, captions) = (gallery.images.len(), gallery.captions.len());
    let all = captions + images * if top_k > 0 { 2 } else { 1 };
    let mut done = 0;
    let mut advance = |by: usize| {
        done += by;
        progress(done, all);
    };
    let mut features = Vec::new();
    for chunk in gallery.captions.chunks(BATCH) {
        features.push(text_features(model, chunk));
        advance(chunk.len());
    }
    let text_feat = Tensor::cat(&features, 0);
    features.clear();
    for chunk in gallery.images.chunks(BATCH) {
        let embeds = image_embeds(model, dataset, chunk);
        features.push(model.towers.image_feat(&model.online, &embeds));
        advance(chunk.len());
    }
    let image_feat = Tensor::cat(&features, 0);

    let mut texts_of = vec![Vec::new(); images];
    gallery
        .image_of
        .iter()
        .enumerate()
        .for_each(|(text, &image)| texts_of[image].push(text));
    let image_lists = ranked(&image_feat, &text_feat, top_k, |i| &texts_of[i]);
    let text_lists = ranked(&text_feat, &image_feat, top_k, |t| &gallery.image_of[t..=t]);
    let ranks = |lists: &[List]| lists.iter().map(|list| list.rank).collect::<Vec<_>>();
    let itc = Recalls::new(&ranks(&image_lists), &ranks(&text_lists));
    if top_k == 0 {
        return Retrieval {
            images,
            captions,
            top_k,
            itc,
            itm: None,
        };
    }

    // Pairs to match, image by image: captions among the image's best, and captions that have it among theirs.
    let mut wanted: Vec<BTreeSet<usize>> = image_lists
        .iter()
        .map(|list| list.top.iter().copied().collect())
        .collect();
    for (text, list) in text_lists.iter().enumerate() {
        list.top
            .iter()
            .for_each(|&image| _ = wanted[image].insert(text));
    }
    let mut scores: HashMap<(usize, usize), f32> = HashMap::new();
    for (position, chunk) in gallery.images.chunks(BATCH).enumerate() {
        let embeds = image_embeds(model, dataset, chunk);
        for i in 0..chunk.len() {
            let image = position * BATCH + i;
            let texts: Vec<usize> = wanted[image].iter().copied().collect();
            let captions: Vec<&[i64]> = texts
                .iter()
                .map(|&text| gallery.captions[text].as_slice())
                .collect();
            let matched = match_scores(model, &embeds.narrow(0, i as i64, 1), &captions);
            scores.extend(
                texts
                    .into_iter()
                    .zip(matched)
                    .map(|(text, score)| ((image, text), score)),
            );
            advance(1);
        }
    }
    let by_image: Vec<usize> = image_lists
        .iter()
        .enumerate()
        .map(|(i, list)| {
            reranked(&list.top, |text| scores[&(i, text)], &texts_of[i]).unwrap_or(list.rank)
        })
        .collect();
    let by_text: Vec<usize> = text_lists
        .iter()
        .enumerate()
        .map(|(t, list)| {
            reranked(
                &list.top,
                |image| scores[&(image, t)],
                &gallery.image_of[t..=t],
            )
            .unwrap_or(list.rank)
        })
        .collect();
    Retrieval {
        images,
        captions,
        top_k,
        itc,
        itm: Some(Recalls::new(&by_image, &by_text)),
    }
}

/// Where a query's best right answer stands among all candidates, and the query's best candidates.
struct List {
    rank: usize,
    top: Vec<usize>,
}

fn ranked<'a>(
    queries: &Tensor,
    candidates: &Tensor,
    top_k: usize,
    right: impl Fn(usize) -> &'a [usize],
) -> Vec<List> {
    let candidates = candidates.transpose(0, 1);
    let k = (top_k as i64).min(candidates.size()[1]);
    let mut lists = Vec::with_capacity(queries.size()[0] as usize);
    for block in queries.split(BATCH as i64, 0) {
        let similarities = block.matmul(&candidates);
        let top = similarities.topk(k, 1, true, true).1;
        for row in 0..block.size()[0] {
            let similarities: Vec<f32> = Vec::try_from(similarities.get(row)).expect("floats");
            let top: Vec<i64> = Vec::try_from(top.get(row)).expect("integers");
            let rank = right(lists.len())
                .iter()
                .map(|&r| rank_of(&similarities, r))
                .min()
                .unwrap_or(usize::MAX);
            lists.push(List {
                rank,
                top: top.into_iter().map(|i| i as usize).collect(),
            });
        }
    }
    lists
}

/// Candidates that come before `right`; a tie counts against it, so that equal scores for all win nothing.
fn rank_of(scores: &[f32], right: usize) -> usize {
    scores
        .iter()
        .enumerate()
        .filter(|(i, score)| *i != right && **score >= scores[right])
        .count()
}

/// Rank of the best right answer among `top` by `score`; none where no right answer is among them.
fn reranked(top: &[usize], score: impl Fn(usize) -> f32, right: &[usize]) -> Option<usize> {
    let best = top
        .iter()
        .filter(|i| right.contains(i))
        .map(|&i| score(i))
        .max_by(f32::total_cmp)?;
    Some(
        top.iter()
            .filter(|&&i| !right.contains(&i) && score(i) >= best)
            .count(),
    )
}

/// E_v of the whole pictures at these positions of the data set: `[n, 1 + P, D]`.
fn image_embeds(model: &Simla, dataset: &Dataset, positions: &[u64]) -> Tensor {
    let side = model.config.image_size as usize;
    let mut pixels = vec![0; positions.len() * side * side * 3];
    pixels
        .par_chunks_mut(side * side * 3)
        .zip(positions)
        .for_each(|(view, &position)| {
            // They were readable when the gallery was made; one that no longer is stays black and ranks where it may.
            if let Ok(record) = dataset.record(position) {
                let _ = simla_image::evaluation_view(
                    &record.image,
                    side as u32,
                    &Limits::default(),
                    view,
                );
            }
        });
    embed_pixels(model, &pixels, positions.len())
}

/// E_v of `n` views (RGB bytes, `[n, S, S, 3]`): `[n, 1 + P, D]`.
pub fn embed_pixels(model: &Simla, pixels: &[u8], n: usize) -> Tensor {
    let w = &model.online;
    let image = normalized(pixels, n, model.config.image_size as usize, w.device());
    model
        .towers
        .vision
        .forward(w, &image.to_kind(w.kind()), None)
}

/// Captions of any lengths as ids and mask, `[n, L]` each.
pub fn pad(captions: &[impl AsRef<[i64]>], pad_id: i64, device: tch::Device) -> (Tensor, Tensor) {
    let length = captions
        .iter()
        .map(|caption| caption.as_ref().len())
        .max()
        .unwrap_or(0);
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for caption in captions {
        let caption = caption.as_ref();
        let padding = length - caption.len();
        ids.extend(
            caption
                .iter()
                .copied()
                .chain(std::iter::repeat_n(pad_id, padding)),
        );
        mask.extend(
            std::iter::repeat_n(1i64, caption.len()).chain(std::iter::repeat_n(0, padding)),
        );
    }
    let shape = [captions.len() as i64, length as i64];
    (
        Tensor::from_slice(&ids).view(shape).to(device),
        Tensor::from_slice(&mask).view(shape).to(device),
    )
}

/// Contrastive features of captions: `[n, E]`.
pub fn text_features(model: &Simla, captions: &[impl AsRef<[i64]>]) -> Tensor {
    let (towers, w) = (&model.towers, &model.online);
    let (ids, mask) = pad(captions, model.config.special.pad, w.device());
    let words = towers.text.embed_words(w, &ids, 0.0);
    towers.text_feat(
        w,
        &towers.text_embeds(w, &words, &key_bias(&mask, w.kind()), Rows::Cls, 0.0),
    )
}

/// Log-odds that each caption belongs to the one image `[1, 1 + P, D]`. Keys and values are projected once.
pub fn match_scores(model: &Simla, image_embeds: &Tensor, captions: &[&[i64]]) -> Vec<f32> {
    let (towers, w) = (&model.towers, &model.online);
    let context = towers.image_context(w, image_embeds);
    let mut scores = Vec::with_capacity(captions.len());
    for chunk in captions.chunks(MATCHED) {
        let (ids, mask) = pad(chunk, model.config.special.pad, w.device());
        let bias = key_bias(&mask, w.kind());
        let words = towers.text.embed_words(w, &ids, 0.0);
        // Captions are groups of the one image's queries.
        let cls = towers
            .text
            .encode(
                w,
                &words,
                Rows::Cls,
                Some(&bias),
                Some(Reading::own(&context)),
                0.0,
            )
            .select(1, 0);
        let logits = model.itm_head.forward(w, &cls).to_kind(Kind::Float);
        let odds = logits.select(1, itm::MATCH) - logits.select(1, 1 - itm::MATCH);
        scores.extend(Vec::<f32>::try_from(odds).expect("floats"));
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_ties_against_the_right_answer() {
        assert_eq!(rank_of(&[0.1, 0.9, 0.5], 1), 0);
        assert_eq!(rank_of(&[0.1, 0.9, 0.5], 0), 2);
        assert_eq!(rank_of(&[0.5, 0.5, 0.5], 0), 2);
        assert_eq!(rank_of(&[0.7, 0.5, 0.5], 2), 2);
    }

    #[test]
    fn re_ranking_takes_the_best_right_answer_of_the_candidates() {
        let scores = [0.0, 3.0, 2.0, 5.0, 2.0];
        let score = |i: usize| scores[i];
        assert_eq!(reranked(&[3, 1, 2], score, &[1, 2]), Some(1));
        assert_eq!(
            reranked(&[2, 4], score, &[2]),
            Some(1),
            "a tie counts against it"
        );
        assert_eq!(reranked(&[1, 4, 2], score, &[1]), Some(0));
        assert_eq!(
            reranked(&[1, 4], score, &[0]),
            None,
            "not among the candidates"
        );
    }

    #[test]
    fn recalls_are_shares_of_queries() {
        let recalls = Recalls::new(&[0, 4, 9, 10], &[0, 0, 1, 5]);
        assert_eq!(
            (recalls.txt_r1, recalls.txt_r5, recalls.txt_r10),
            (25.0, 50.0, 75.0)
        );
        assert_eq!(
            (recalls.img_r1, recalls.img_r5, recalls.img_r10),
            (50.0, 75.0, 100.0)
        );
        assert!((recalls.mean() - 375.0 / 6.0).abs() < 1e-9);
    }
}
