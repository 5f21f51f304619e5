//! Image-text retrieval (docs/paper.md, 'Retrieval'): everything is ranked by the contrast, the top k re-ranked by the matching score.
//!
//! Memory does not grow with images x patches: E_v runs a second time for the re-ranking, image by image, and the keys and values
//! of an image are projected once for all captions that are matched with it.

use std::collections::HashMap;
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use simla_data::record::Location;
use simla_data::{Dataset, Entry, RecordError, Vocabulary};
use simla_image::Limits;
use tch::{Kind, Tensor, no_grad};

use crate::inputs::normalized;
use crate::layers::key_bias;
use crate::model::Simla;
use crate::objectives::itm;
use crate::text::{Reading, Rows};
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};

/// Images or captions that are embedded at a time.
pub const BATCH: usize = 32;
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
    /// Reads the captions of a data set, and finds the records that cannot be used. Records of one picture, by `image_id` or by path,
    /// are one image with all their captions. `one_more` is called for every record.
    pub fn read(dataset: &Dataset, vocabulary: &Vocabulary, max_tokens: usize, one_more: impl Fn() + Sync) -> Self {
        let entries: Vec<_> = (0..dataset.len()).into_par_iter().map(|i| dataset.entry(i)).collect();
        // Images are decoded here once more than needed, so that a broken one is known before anything is ranked.
        let check = |entry: &Entry| {
            let mut bytes = Vec::new();
            entry.read_image(&mut bytes)?;
            simla_image::decode(&bytes, &Limits::default()).map(drop).map_err(|error| entry.unreadable(error))
        };
        // Of the records with the same file, the first that is asked for it answers for all.
        let mut firsts = HashMap::new();
        let first_of: Vec<usize> = (0..)
            .zip(&entries)
            .map(|(i, entry)| match entry {
                Ok(entry) => *firsts.entry((entry.image_id, path(entry))).or_insert(i),
                Err(_) => i,
            })
            .collect();
        let tried = |(i, entry): (usize, &Result<Entry, RecordError>)| {
            one_more();
            match entry {
                Ok(entry) if first_of[i] == i => check(entry),
                _ => Ok(()),
            }
        };
        let tried: Vec<Result<(), RecordError>> = entries.par_iter().enumerate().map(tried).collect();

        let mut gallery = Self { images: vec![], captions: vec![], image_of: vec![], broken: vec![] };
        let (mut by_id, mut by_path) = (HashMap::new(), HashMap::new());
        for (i, entry) in entries.into_iter().enumerate() {
            let usable = entry.and_then(|entry| match &tried[first_of[i]] {
                Ok(()) => Ok(entry),
                Err(_) => check(&entry).map(|()| entry),
            });
            let entry = match usable {
                Ok(entry) => entry,
                Err(error) => {
                    gallery.broken.push(error);
                    continue;
                }
            };
            let file = path(&entry).map(Path::to_owned);
            let known = by_id.get(&entry.image_id).or_else(|| by_path.get(file.as_ref()?)).copied();
            let image = known.unwrap_or_else(|| {
                gallery.images.push(i as u64);
                gallery.images.len() - 1
            });
            by_id.insert(entry.image_id, image);
            if let Some(file) = file {
                by_path.insert(file, image);
            }
            for caption in &entry.captions {
                gallery.captions.push(vocabulary.encode(caption, max_tokens));
                gallery.image_of.push(image);
            }
        }
        gallery
    }
}

/// The file of a picture that has one of its own.
fn path(entry: &Entry) -> Option<&Path> {
    match &entry.image {
        Location::File(path) => Some(path),
        Location::Range { .. } => None,
    }
}

/// Shares of right answers, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
            100.0 * ranks.iter().filter(|&&rank| rank < within).count() as f64 / ranks.len().max(1) as f64
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

    /// All six by the names under which they are kept and shown.
    pub fn named(&self) -> [(&'static str, f64); 6] {
        [
            ("held_out/txt_r1", self.txt_r1),
            ("held_out/txt_r5", self.txt_r5),
            ("held_out/txt_r10", self.txt_r10),
            ("held_out/img_r1", self.img_r1),
            ("held_out/img_r5", self.img_r5),
            ("held_out/img_r10", self.img_r10),
        ]
    }

    /// Mean of all six: what checkpoints are compared by.
    pub fn mean(&self) -> f64 {
        (self.txt_r1 + self.txt_r5 + self.txt_r10 + self.img_r1 + self.img_r5 + self.img_r10) / 6.0
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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

fn rank(model: &Simla, dataset: &Dataset, gallery: &Gallery, top_k: usize, progress: Progress) -> Retrieval {
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

    let mut embedded: Option<(usize, Tensor)> = None;
    let scores = |image: usize, texts: &[u32]| {
        let chunk = image / BATCH;
        let embeds = match embedded.take() {
            Some((at, embeds)) if at == chunk => embeds,
            _ => {
                let first = chunk * BATCH;
                let last = (first + BATCH).min(images);
                image_embeds(model, dataset, &gallery.images[first..last])
            }
        };
        let captions: Vec<&[i64]> = texts.iter().map(|&text| gallery.captions[text as usize].as_slice()).collect();
        let own = embeds.narrow(0, (image % BATCH) as i64, 1);
        let scores = match_scores(model, &own, &captions);
        embedded = Some((chunk, embeds));
        advance(1);
        scores
    };
    judge(&image_feat, &text_feat, &gallery.image_of, top_k, scores)
}

/// The protocol on features `[images, E]` and `[captions, E]` of length one; `image_of` says which image a caption belongs to.
/// `scores(image, captions)` gives the matching scores of an image with some captions; it is asked for the images in order, once
/// each.
///
/// A pair is scored once, though it may be among the best of its image and of its caption. What is kept of it are eight bytes, and
/// four for each time that it is among the best: 100 MB for COCO's 5,000 images and 25,000 captions at k = 256.
fn judge(
    image_feat: &Tensor,
    text_feat: &Tensor,
    image_of: &[usize],
    top_k: usize,
    mut scores: impl FnMut(usize, &[u32]) -> Vec<f32>,
) -> Retrieval {
    let (images, captions) = (image_feat.size()[0] as usize, image_of.len());
    let mut texts_of = vec![Vec::new(); images];
    for (text, &image) in image_of.iter().enumerate() {
        texts_of[image].push(text as u32);
    }
    let image_of: Vec<u32> = image_of.iter().map(|&image| image as u32).collect();
    let image_lists = ranked(image_feat, text_feat, top_k, |i| &texts_of[i]);
    let text_lists = ranked(text_feat, image_feat, top_k, |t| &image_of[t..=t]);
    let ranks = |lists: &[List]| lists.iter().map(|list| list.rank).collect::<Vec<_>>();
    let itc = Recalls::new(&ranks(&image_lists), &ranks(&text_lists));
    let mut found = Retrieval { images, captions, top_k, itc, itm: None };
    if top_k == 0 {
        return found;
    }

    // Pairs to match, image by image: captions among the image's best, and captions that have it among theirs.
    let mut matched: Vec<Vec<u32>> = image_lists.iter().map(|list| list.top.clone()).collect();
    for (text, list) in text_lists.iter().enumerate() {
        for &image in &list.top {
            matched[image as usize].push(text as u32);
        }
    }
    let mut scored = Vec::with_capacity(images);
    for (image, texts) in matched.iter_mut().enumerate() {
        texts.sort_unstable();
        texts.dedup();
        scored.push(scores(image, texts));
    }
    let score = |image: u32, text: u32| {
        let at = matched[image as usize].binary_search(&text);
        scored[image as usize][at.expect("a pair that was matched")]
    };
    let by_image: Vec<usize> = (0..)
        .zip(&image_lists)
        .map(|(i, list)| {
            let right = &texts_of[i as usize];
            reranked(&list.top, |text| score(i, text), right).unwrap_or(list.rank)
        })
        .collect();
    let by_text: Vec<usize> = (0..)
        .zip(&text_lists)
        .map(|(t, list)| {
            let right = &image_of[t as usize..=t as usize];
            reranked(&list.top, |image| score(image, t), right).unwrap_or(list.rank)
        })
        .collect();
    found.itm = Some(Recalls::new(&by_image, &by_text));
    found
}

/// Where a query's best right answer stands among all candidates, and the query's best candidates.
struct List {
    rank: usize,
    top: Vec<u32>,
}

fn ranked<'a>(queries: &Tensor, candidates: &Tensor, top_k: usize, right: impl Fn(usize) -> &'a [u32]) -> Vec<List> {
    let candidates = candidates.transpose(0, 1);
    let k = (top_k as i64).min(candidates.size()[1]);
    let mut lists = Vec::with_capacity(queries.size()[0] as usize);
    for block in queries.split(BATCH as i64, 0) {
        let similarities = block.matmul(&candidates);
        let top = similarities.topk(k, 1, true, true).1;
        for row in 0..block.size()[0] {
            let similarities: Vec<f32> = Vec::try_from(similarities.get(row)).expect("floats");
            let top: Vec<i64> = Vec::try_from(top.get(row)).expect("integers");
            let rank = rank_of(&similarities, right(lists.len()));
            lists.push(List { rank, top: top.into_iter().map(|i| i as u32).collect() });
        }
    }
    lists
}

/// Wrong candidates that come before the best of the `right` ones (at least one); a tie counts against it, so that equal scores for
/// all win nothing.
fn rank_of(scores: &[f32], right: &[u32]) -> usize {
    let best = right.iter().map(|&r| scores[r as usize]).fold(f32::NEG_INFINITY, f32::max);
    (0..).zip(scores).filter(|(i, score)| **score >= best && !right.contains(i)).count()
}

/// Rank of the best right answer among `top` by `score`; none where no right answer is among them.
fn reranked(top: &[u32], score: impl Fn(u32) -> f32, right: &[u32]) -> Option<usize> {
    let best = top.iter().filter(|i| right.contains(i)).map(|&i| score(i)).max_by(f32::total_cmp)?;
    Some(top.iter().filter(|&&i| !right.contains(&i) && score(i) >= best).count())
}

/// E_v of the whole pictures at these positions of the data set: `[n, 1 + P, D]`.
fn image_embeds(model: &Simla, dataset: &Dataset, positions: &[u64]) -> Tensor {
    let side = model.config.image_size as usize;
    let mut pixels = vec![0; positions.len() * side * side * 3];
    pixels.par_chunks_mut(side * side * 3).zip(positions).for_each(|(view, &position)| {
        // They were readable when the gallery was made; one that no longer is stays black and ranks where it may.
        if let Ok(record) = dataset.record(position) {
            let _ = simla_image::evaluation_view(&record.image, side as u32, &Limits::default(), view);
        }
    });
    embed_pixels(model, &pixels, positions.len())
}

/// E_v of `n` views (RGB bytes, `[n, S, S, 3]`): `[n, 1 + P, D]`.
pub fn embed_pixels(model: &Simla, pixels: &[u8], n: usize) -> Tensor {
    let w = &model.online;
    let image = normalized(pixels, n, model.config.image_size as usize, w.device());
    model.towers.vision.forward(w, &image.to_kind(w.kind()), None)
}

/// Captions of any lengths as ids and mask, `[n, L]` each.
pub fn pad(captions: &[impl AsRef<[i64]>], pad_id: i64, device: tch::Device) -> (Tensor, Tensor) {
    let length = captions.iter().map(|caption| caption.as_ref().len()).max().unwrap_or(0);
    let (mut ids, mut mask) = (Vec::new(), Vec::new());
    for caption in captions {
        let caption = caption.as_ref();
        let padding = length - caption.len();
        ids.extend(caption.iter().copied().chain(std::iter::repeat_n(pad_id, padding)));
        mask.extend(std::iter::repeat_n(1i64, caption.len()).chain(std::iter::repeat_n(0, padding)));
    }
    let shape = [captions.len() as i64, length as i64];
    (upload(&Tensor::from_slice(&ids).view(shape), device), upload(&Tensor::from_slice(&mask).view(shape), device))
}

/// Contrastive features of captions: `[n, E]`.
pub fn text_features(model: &Simla, captions: &[impl AsRef<[i64]>]) -> Tensor {
    let (towers, w) = (&model.towers, &model.online);
    let (ids, mask) = pad(captions, model.config.special.pad, w.device());
    let words = towers.text.embed_words(w, &ids, 0.0);
    towers.text_feat(w, &towers.text_embeds(w, &words, &key_bias(&mask, w.kind()), Rows::Cls, 0.0))
}

/// Log-odds that captions belong to images `[1, 1 + P, D]` or `[n, 1 + P, D]`: all n to the one, whose keys and values are projected
/// once, or each to its own.
pub fn match_scores(model: &Simla, image_embeds: &Tensor, captions: &[&[i64]]) -> Vec<f32> {
    let (towers, w) = (&model.towers, &model.online);
    let images = image_embeds.size()[0];
    let shared = (images == 1).then(|| towers.image_context(w, image_embeds));
    // Captions of one length together: padding is computed too.
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&i| captions[i].len());
    let mut scores = vec![0.0; captions.len()];
    for chunk in order.chunks(MATCHED) {
        let own = || {
            let rows: Vec<i64> = chunk.iter().map(|&i| i as i64).collect();
            let rows = Tensor::from_slice(&rows).to(w.device());
            towers.image_context(w, &image_embeds.index_select(0, &rows))
        };
        let own = shared.is_none().then(own);
        let context = shared.as_ref().or(own.as_ref()).expect("one of them");
        let texts: Vec<&[i64]> = chunk.iter().map(|&i| captions[i]).collect();
        let (ids, mask) = pad(&texts, model.config.special.pad, w.device());
        let bias = key_bias(&mask, w.kind());
        let words = towers.text.embed_words(w, &ids, 0.0);
        let reading = Some(Reading::own(context));
        let hidden = towers.text.encode(w, &words, Rows::Cls, Some(&bias), reading, 0.0);
        let logits = model.itm_head.forward(w, &hidden.select(1, 0));
        let logits = logits.to_kind(Kind::Float);
        let odds = logits.select(1, itm::MATCH) - logits.select(1, 1 - itm::MATCH);
        for (&i, odds) in chunk.iter().zip(Vec::<f32>::try_from(odds).expect("floats")) {
            scores[i] = odds;
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_ties_against_the_right_answer() {
        assert_eq!(rank_of(&[0.1, 0.9, 0.5], &[1]), 0);
        assert_eq!(rank_of(&[0.1, 0.9, 0.5], &[0]), 2);
        assert_eq!(rank_of(&[0.5, 0.5, 0.5], &[0]), 2);
        assert_eq!(rank_of(&[0.7, 0.5, 0.5], &[2]), 2);
        // Of several right answers the best counts, and they are no rivals of each other.
        assert_eq!(rank_of(&[0.5, 0.5, 0.9, 0.1], &[0, 1, 3]), 1);
        assert_eq!(rank_of(&[0.5, 0.5, 0.5, 0.1], &[0, 1]), 1);
    }

    #[test]
    fn re_ranking_takes_the_best_right_answer_of_the_candidates() {
        let scores = [0.0, 3.0, 2.0, 5.0, 2.0];
        let score = |i: u32| scores[i as usize];
        assert_eq!(reranked(&[3, 1, 2], score, &[1, 2]), Some(1));
        assert_eq!(reranked(&[2, 4], score, &[2]), Some(1), "a tie counts against it");
        assert_eq!(reranked(&[1, 4, 2], score, &[1]), Some(0));
        assert_eq!(reranked(&[1, 4], score, &[0]), None, "not among the candidates");
    }

    /// Three images and five captions on a plane, by their angles in degrees: captions 0 and 1 are of image 0, 2 and 3 of image 1, 4
    /// of image 2.
    fn judged(top_k: usize, score: impl Fn(usize, u32) -> f32) -> (Retrieval, Vec<Vec<u32>>) {
        let features = |degrees: &[f32]| {
            let points: Vec<f32> =
                degrees.iter().flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()]).collect();
            Tensor::from_slice(&points).view([-1, 2])
        };
        let (images, texts) = ([0.0, 40.0, 100.0], [10.0, 70.0, 30.0, 45.0, 12.0]);
        let mut asked = Vec::new();
        let scores = |image: usize, texts: &[u32]| {
            asked.push(texts.to_vec());
            texts.iter().map(|&text| score(image, text)).collect()
        };
        let image_of = [0, 0, 1, 1, 2];
        let found = judge(&features(&images), &features(&texts), &image_of, top_k, scores);
        (found, asked)
    }

    #[test]
    fn three_images_and_five_captions_by_hand() {
        let third = 100.0 / 3.0;
        // By angle: images 0 and 1 meet a caption of theirs first (0 and 3), image 2 meets captions 1, 3, 2 before its own.
        // Captions 0, 2 and 3 meet their image first, 1 and 4 meet theirs last.
        let itc =
            Recalls { txt_r1: 2.0 * third, txt_r5: 100.0, txt_r10: 100.0, img_r1: 60.0, img_r5: 100.0, img_r10: 100.0 };
        let close = |found: Recalls, expected: Recalls| {
            let pairs = [
                (found.txt_r1, expected.txt_r1),
                (found.txt_r5, expected.txt_r5),
                (found.img_r1, expected.img_r1),
                (found.img_r5, expected.img_r5),
            ];
            assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        };
        let (found, asked) = judged(0, |_, _| unreachable!("nothing is matched"));
        close(found.itc, itc);
        assert_eq!((found.images, found.captions, found.itm), (3, 5, None));
        assert!(asked.is_empty());

        // With k = 2 every image is scored with its own two best and with the captions that have it among their two best.
        let right = |image: usize, text: u32| [0, 0, 1, 1, 2][text as usize] == image;
        let (found, asked) = judged(2, |i, t| f32::from(u8::from(right(i, t))));
        close(found.itc, itc);
        assert_eq!(asked, [vec![0, 2, 3, 4], vec![0, 1, 2, 3, 4], vec![1, 3]]);
        // A perfect judge cannot bring back what is not among the two best: caption 4 for image 2, image 0 for caption 1, image 2 for
        // caption 4.
        close(found.itm.unwrap(), Recalls { img_r1: 60.0, ..itc });
        // With k = 3 the images come back, with k = 5 the caption does.
        let (found, _) = judged(3, |i, t| f32::from(u8::from(right(i, t))));
        let all = found.itm.unwrap();
        assert_eq!((all.img_r1, all.txt_r5), (100.0, 100.0));
        let (found, _) = judged(5, |i, t| f32::from(u8::from(right(i, t))));
        assert_eq!(found.itm.unwrap().txt_r1, 100.0);
        // A judge that finds all alike wins nothing: ties count against the right answer.
        let (found, _) = judged(5, |_, _| 1.0);
        let none = found.itm.unwrap();
        assert_eq!((none.txt_r1, none.img_r1), (0.0, 0.0));
        // And one that is always wrong puts the right ones last.
        let (found, _) = judged(5, |i, t| -f32::from(u8::from(right(i, t))));
        let worst = found.itm.unwrap();
        assert_eq!((worst.txt_r1, worst.txt_r5, worst.img_r5), (0.0, 100.0, 100.0));
    }

    /// Five rows of three pictures: rows 0 and 2 have one path, row 3 has the `image_id` of row 1 and a copy of its picture, row 4 is
    /// alone, row 5 is broken.
    #[test]
    fn rows_of_one_picture_are_one_image() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "copy", "c"] {
            simla_image::RgbImage::new(16, 16).save(folder.path().join(format!("{name}.png"))).unwrap();
        }
        let rows = r#"[{"image": "a.png", "caption": "red"}, {"image": "b.png", "caption": "green", "image_id": 7},
            {"image": "./a.png", "caption": "blue"}, {"image": "copy.png", "caption": ["red", "blue"], "image_id": 7},
            {"image": "c.png", "caption": "green", "image_id": "8"}, {"image": "none.png", "caption": "lost", "image_id": 9}]"#;
        let data = folder.path().join("rows.json");
        std::fs::write(&data, rows).unwrap();
        let source = data.to_str().unwrap().parse().unwrap();
        let options = simla_data::Options { max_bad_share: 1.0, ..Default::default() };
        let dataset = Dataset::open(&[source], &options).unwrap();
        let vocabulary = Vocabulary::learn(["red green blue"; 9].into_iter().map(String::from), 60).unwrap();
        let tried = std::sync::atomic::AtomicU64::new(0);
        let count = || {
            tried.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        };
        let gallery = Gallery::read(&dataset, &vocabulary, 9, count);
        assert_eq!((gallery.images, gallery.image_of), (vec![0, 1, 4], vec![0, 1, 0, 1, 1, 2]));
        let words = ["red", "green", "blue", "red", "blue", "green"].map(|word| vocabulary.encode(word, 9));
        assert_eq!(gallery.captions, words);
        assert_eq!((gallery.broken.len(), tried.into_inner()), (1, 6));
    }

    #[test]
    fn recalls_are_shares_of_queries() {
        let recalls = Recalls::new(&[0, 4, 9, 10], &[0, 0, 1, 5]);
        assert_eq!((recalls.txt_r1, recalls.txt_r5, recalls.txt_r10), (25.0, 50.0, 75.0));
        assert_eq!((recalls.img_r1, recalls.img_r5, recalls.img_r10), (50.0, 75.0, 100.0));
        assert!((recalls.mean() - 375.0 / 6.0).abs() < 1e-9);
    }
}
