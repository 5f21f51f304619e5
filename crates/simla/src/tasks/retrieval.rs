//! Image-text retrieval (docs/paper.md, 'Retrieval'): everything is ranked by the contrast, the top k re-ranked by the matching score.
//!
//! Memory does not grow with images x patches: E_v runs a second time for the re-ranking, image by image, and the keys and values
//! of an image are projected once for all captions that are matched with it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use simla_data::record::Location;
use simla_data::{Dataset, Entry, RecordError, Vocabulary};
use simla_image::Limits;
use tch::{Device, Kind, Tensor, no_grad};

use crate::inputs::normalized;
use crate::layers::key_bias;
use crate::model::Simla;
use crate::objectives::itm;
use crate::tasks::score::precedes;
use crate::text::{Reading, Rows};
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::torch::operations::product;
use simla_train::{Team, TeamError};

/// Images or captions that are embedded at a time.
pub const BATCH: usize = 32;
/// Captions that are matched with one image at a time: on a GPU as many as keep it busy for longer than starting them takes.
fn matched_at_once(device: Device) -> usize {
    if device == Device::Cpu { 64 } else { 256 }
}

/// Images with all their captions, as a model reads them. What is looked for is an item: an image, or several of one product.
#[derive(Debug, Default)]
pub struct Gallery {
    /// Position in the data set of each usable image.
    pub images: Vec<u64>,
    /// The item that each image shows, numbered in their order.
    pub item_of: Vec<usize>,
    /// Token ids of every caption.
    pub captions: Vec<Vec<i64>>,
    /// Position in `images` of each caption's image; it is right for all images of that one's item.
    pub image_of: Vec<usize>,
    /// Records that cannot be used.
    pub broken: Vec<RecordError>,
}

impl Gallery {
    /// Reads the captions of a data set, and finds the records that cannot be used. Records of one file are one image with all their
    /// captions; images with one `image_id` show one item, whose captions are right for all of them, a caption that is there already
    /// being the same. `one_more` is called for every record.
    pub fn read(dataset: &Dataset, vocabulary: &Vocabulary, max_tokens: usize, one_more: impl Fn() + Sync) -> Self {
        let entries: Vec<_> = (0..dataset.len()).into_par_iter().map(|i| dataset.entry(i)).collect();
        // Images are decoded here once more than needed, so that a broken one is known before anything is ranked.
        let check = |entry: &Entry| {
            let mut bytes = Vec::new();
            entry.read_image(&mut bytes)?;
            simla_image::decode(&bytes, &Limits::default()).map(drop).map_err(|error| entry.unreadable(error))
        };
        // Of the records with the same image, the first that is asked for it answers for all.
        let mut firsts = HashMap::new();
        let first_of: Vec<usize> = (0..)
            .zip(&entries)
            .map(|(i, entry)| match entry {
                Ok(entry) => *firsts.entry(Place::of(entry)).or_insert(i),
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

        let mut gallery = Self::default();
        let (mut by_id, mut by_place) = (HashMap::new(), HashMap::new());
        let mut said: Vec<HashSet<Vec<i64>>> = Vec::new();
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
            let known = by_place.get(&Place::of(&entry)).copied();
            let of_another = known.is_none() && by_id.contains_key(&entry.image_id);
            let image = known.unwrap_or_else(|| {
                let item = *by_id.entry(entry.image_id).or_insert_with(|| {
                    said.push(HashSet::new());
                    said.len() - 1
                });
                gallery.images.push(i as u64);
                gallery.item_of.push(item);
                gallery.images.len() - 1
            });
            let item = gallery.item_of[image];
            by_id.entry(entry.image_id).or_insert(item);
            by_place.insert(Place::of(&entry), image);
            for caption in &entry.captions {
                let ids = vocabulary.encode(caption, max_tokens);
                let is_new = said[item].insert(ids.clone());
                if is_new || !of_another {
                    gallery.captions.push(ids);
                    gallery.image_of.push(image);
                }
            }
        }
        gallery
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.item_of.iter().max().map_or(0, |last| last + 1)
    }

    /// Its items in `count` runs of equal length, in their order, each with its images and captions.
    ///
    /// # Panics
    /// Of no runs.
    pub fn folds(&self, count: usize) -> Vec<Self> {
        let items = self.items();
        let fold = |nth: usize| {
            let range = nth * items / count..(nth + 1) * items / count;
            let mut fold = Self::default();
            let mut place = HashMap::new();
            for (image, &item) in self.item_of.iter().enumerate().filter(|(_, item)| range.contains(*item)) {
                place.insert(image, fold.images.len());
                fold.images.push(self.images[image]);
                fold.item_of.push(item - range.start);
            }
            for (caption, image) in self.image_of.iter().enumerate() {
                if let Some(&image) = place.get(image) {
                    fold.captions.push(self.captions[caption].clone());
                    fold.image_of.push(image);
                }
            }
            fold
        };
        (0..count).map(fold).collect()
    }

    /// The item of each caption.
    fn item_of_captions(&self) -> Vec<usize> {
        self.image_of.iter().map(|&image| self.item_of[image]).collect()
    }
}

/// Which image a record names: records of one file have one image, and so have those of one member of a shard.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Place {
    File(PathBuf),
    Member(String, u64, i64),
}

impl Place {
    fn of(entry: &Entry) -> Self {
        match &entry.image {
            // However it is written: `./a.png` is `a.png`.
            Location::File(path) => Self::File(path.components().collect()),
            Location::Range { offset, name, .. } => Self::Member(name.clone(), *offset, entry.image_id),
        }
    }
}

/// Shares of right answers, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recalls {
    /// Image queries that find one of their captions at the first rank, among the first 5, among the first 10.
    pub txt_r1: f64,
    /// Among the first 5.
    pub txt_r5: f64,
    /// Among the first 10.
    pub txt_r10: f64,
    /// Text queries that find their image.
    pub img_r1: f64,
    /// Among the first 5.
    pub img_r5: f64,
    /// Among the first 10.
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

    /// The mean of several, number by number; of none, no number.
    pub fn mean_of(all: &[Self]) -> Self {
        let mean = |of: fn(&Self) -> f64| all.iter().map(of).sum::<f64>() / all.len() as f64;
        Self {
            txt_r1: mean(|r| r.txt_r1),
            txt_r5: mean(|r| r.txt_r5),
            txt_r10: mean(|r| r.txt_r10),
            img_r1: mean(|r| r.img_r1),
            img_r5: mean(|r| r.img_r5),
            img_r10: mean(|r| r.img_r10),
        }
    }

    /// Mean of all six: what checkpoints are compared by.
    pub fn mean(&self) -> f64 {
        (self.txt_r1 + self.txt_r5 + self.txt_r10 + self.img_r1 + self.img_r5 + self.img_r10) / 6.0
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Usable ones.
    pub images: usize,
    /// Of all of them.
    pub captions: usize,
    /// What is looked for: as many as images, but where several show one; 0 in results of earlier versions.
    #[serde(default)]
    pub items: usize,
    /// Candidates of each query that were re-ranked.
    pub top_k: usize,
    /// Ranked by contrast alone.
    pub itc: Recalls,
    /// After re-ranking; absent where nothing was.
    pub itm: Option<Recalls>,
}

impl Retrieval {
    /// The mean of several, as of folds; counts are the first one's. None of none.
    pub fn mean_of(all: &[Self]) -> Option<Self> {
        let itm: Option<Vec<Recalls>> = all.iter().map(|found| found.itm).collect();
        let itc: Vec<Recalls> = all.iter().map(|found| found.itc).collect();
        all.first().map(|first| Self {
            itc: Recalls::mean_of(&itc),
            itm: itm.map(|itm| Recalls::mean_of(&itm)),
            ..first.clone()
        })
    }

    /// The final ranking's shares by the names under which they are kept and shown, each with chance beside it.
    pub fn named(&self) -> Vec<(String, f64)> {
        let (found, chance) = (self.itm.unwrap_or(self.itc).named(), self.chance().named());
        let beside = chance.map(|(name, share)| (format!("{name}/chance"), share));
        found.map(|(name, share)| (name.to_owned(), share)).into_iter().chain(beside).collect()
    }

    /// What guessing would give.
    pub fn chance(&self) -> Recalls {
        let items = if self.items == 0 { self.images } else { self.items };
        // The share of draws of k among all that have one of the right ones; their mean number need not be whole.
        let drawn = |k: usize, all: usize| {
            let right = all as f64 / items as f64;
            let missed = (0..k.min(all)).map(|i| ((all as f64 - right - i as f64) / (all - i) as f64).max(0.0));
            100.0 * (1.0 - missed.product::<f64>())
        };
        let (text, image) = (|k| drawn(k, self.captions), |k| drawn(k, self.images));
        Recalls {
            txt_r1: text(1),
            txt_r5: text(5),
            txt_r10: text(10),
            img_r1: image(1),
            img_r5: image(5),
            img_r10: image(10),
        }
    }
}

/// The best candidates of every query, best first, each with its score: captions of each image and images of each caption. Scores are those
/// of the matching head (log-odds) where it ranked, similarities else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranking {
    /// Captions.
    pub of_images: Vec<Vec<(u32, f32)>>,
    /// Images.
    pub of_captions: Vec<Vec<(u32, f32)>>,
}

/// How far an evaluation is: done and all, in images and captions.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize);

/// Ranks every image and caption of `gallery` against all others; `top_k` = 0 leaves the ranking by contrast. Also the features `[n, E]`
/// of its images. The processes of `team` share the work, and all of them call it.
///
/// # Errors
/// What libtorch could not do, or another process that is gone.
pub fn evaluate(
    model: &Simla,
    dataset: &Dataset,
    gallery: &Gallery,
    top_k: usize,
    team: &Team,
    progress: Progress,
) -> Result<(Retrieval, Tensor), TorchError> {
    let found = guarded(|| no_grad(|| rank(model, dataset, gallery, (top_k, 0), team, progress)))?;
    let ((found, _), image_feat) = found?;
    Ok((found, image_feat))
}

/// As [`evaluate`], by one process; also the best of every query, `depth` of them where the contrast ranks, `top_k` where the matching score does.
///
/// # Errors
/// What libtorch could not do.
pub fn evaluate_and_list(
    model: &Simla,
    dataset: &Dataset,
    gallery: &Gallery,
    top_k: usize,
    depth: usize,
    progress: Progress,
) -> Result<(Retrieval, Ranking), TorchError> {
    let ranked = guarded(|| no_grad(|| rank(model, dataset, gallery, (top_k, depth), &Team::alone(), progress)))?;
    Ok(ranked?.0)
}

fn rank(
    model: &Simla,
    dataset: &Dataset,
    gallery: &Gallery,
    (top_k, depth): (usize, usize),
    team: &Team,
    progress: Progress,
) -> Result<((Retrieval, Ranking), Tensor), TeamError> {
    let (images, captions) = (gallery.images.len(), gallery.captions.len());
    let all = captions + images * if top_k > 0 { 2 } else { 1 };
    let mut done = 0;
    let mut advance = |by: usize| {
        done = all.min(done + by * team.world());
        progress(done, all);
    };
    // Parts of a batch each are dealt out to the processes.
    let all_of = |mine: Vec<Tensor>, queries: usize, none: [i64; 2]| {
        let none = Tensor::zeros(none, (Kind::Float, model.online.device()));
        Ok::<_, TeamError>(Tensor::cat(&team.collect(mine, queries.div_ceil(BATCH), &none)?, 0))
    };
    let embed_dim = model.config.embed_dim;
    let mine = team.mine(gallery.captions.chunks(BATCH)).map(|chunk| {
        advance(chunk.len());
        text_features(model, chunk)
    });
    let text_feat = all_of(mine.collect(), captions, [0, embed_dim])?;
    let mine = team.mine(gallery.images.chunks(BATCH)).map(|chunk| {
        advance(chunk.len());
        model.towers.image_feat(&model.online, &image_embeds(model, dataset, chunk))
    });
    let image_feat = all_of(mine.collect(), images, [0, embed_dim])?;

    let mut matching = Matching::new(model, dataset, &gallery.images);
    let scores = |matched: &[Vec<u32>]| -> Result<Vec<f32>, TeamError> {
        let mut of_image = |(image, texts): (usize, &Vec<u32>)| {
            let captions: Vec<&[i64]> = texts.iter().map(|&text| gallery.captions[text as usize].as_slice()).collect();
            let odds = match_odds(model, &matching.embeds(image), &captions);
            advance(1);
            odds
        };
        let parts = (0..).step_by(BATCH).zip(matched.chunks(BATCH));
        let mine = team.mine(parts).map(|(first, part)| {
            let odds: Vec<Tensor> = (first..).zip(part).map(&mut of_image).collect();
            Tensor::cat(&odds, 0)
        });
        let none = Tensor::zeros([0], (Kind::Float, model.online.device()));
        let scores = Tensor::cat(&team.collect(mine.collect(), matched.len().div_ceil(BATCH), &none)?, 0);
        Ok(Vec::try_from(scores.to(Device::Cpu)).expect("floats"))
    };
    let of = (&gallery.item_of[..], &gallery.item_of_captions()[..]);
    Ok((judge(&image_feat, &text_feat, of, top_k, depth, scores)?, image_feat))
}

/// E_v of some images of a data set, asked for in order: a batch of them is computed at a time.
pub(super) struct Matching<'a> {
    model: &'a Simla,
    dataset: &'a Dataset,
    /// Their positions.
    images: &'a [u64],
    batch: Option<(usize, Tensor)>,
}

impl<'a> Matching<'a> {
    pub(crate) fn new(model: &'a Simla, dataset: &'a Dataset, images: &'a [u64]) -> Self {
        Self { model, dataset, images, batch: None }
    }

    /// Of the `image`th: `[1, 1 + P, D]`.
    pub(crate) fn embeds(&mut self, image: usize) -> Tensor {
        let chunk = image / BATCH;
        let embeds = match self.batch.take() {
            Some((at, embeds)) if at == chunk => embeds,
            _ => {
                let first = chunk * BATCH;
                let last = (first + BATCH).min(self.images.len());
                image_embeds(self.model, self.dataset, &self.images[first..last])
            }
        };
        let own = embeds.narrow(0, (image % BATCH) as i64, 1);
        self.batch = Some((chunk, embeds));
        own
    }
}

/// The protocol on features `[images, E]` and `[captions, E]` of length one; `item_of` says which item an image shows, and which a caption
/// is of. `scores(matched)` gives the matching scores of each image with its captions in `matched`, one after the other.
///
/// A pair is scored once, though it may be among the best of its image and of its caption. What is kept of it are eight bytes, and
/// eight for each time that it is among the best: 200 MB for COCO's 5,000 images and 25,000 captions at k = 256.
fn judge(
    image_feat: &Tensor,
    text_feat: &Tensor,
    (item_of_images, item_of_captions): (&[usize], &[usize]),
    top_k: usize,
    depth: usize,
    scores: impl FnOnce(&[Vec<u32>]) -> Result<Vec<f32>, TeamError>,
) -> Result<(Retrieval, Ranking), TeamError> {
    let (images, captions) = (item_of_images.len(), item_of_captions.len());
    let items = item_of_images.iter().max().map_or(0, |last| last + 1);
    let members = |item_of: &[usize]| {
        let mut members = vec![Vec::new(); items];
        for (i, &item) in item_of.iter().enumerate() {
            members[item].push(i as u32);
        }
        members
    };
    let (texts_of, images_of) = (members(item_of_captions), members(item_of_images));
    let right_texts = |image: usize| texts_of[item_of_images[image]].as_slice();
    let right_images = |text: usize| images_of[item_of_captions[text]].as_slice();
    let listed = top_k.max(depth);
    let image_lists = ranked(image_feat, text_feat, listed, right_texts);
    let text_lists = ranked(text_feat, image_feat, listed, right_images);
    let ranks = |lists: &[List]| lists.iter().map(|list| list.rank).collect::<Vec<_>>();
    let itc = Recalls::new(&ranks(&image_lists), &ranks(&text_lists));
    let mut found = Retrieval { images, captions, items, top_k, itc, itm: None };
    if top_k == 0 {
        let tops = |lists: Vec<List>| lists.into_iter().map(|list| list.top).collect();
        return Ok((found, Ranking { of_images: tops(image_lists), of_captions: tops(text_lists) }));
    }

    // Pairs to match, image by image: captions among the image's best, and captions that have it among theirs.
    let mut matched: Vec<Vec<u32>> = image_lists.iter().map(|list| list.best(top_k).collect()).collect();
    for (text, list) in text_lists.iter().enumerate() {
        for image in list.best(top_k) {
            matched[image as usize].push(text as u32);
        }
    }
    let (mut firsts, mut first) = (Vec::with_capacity(images), 0);
    for texts in &mut matched {
        texts.sort_unstable();
        texts.dedup();
        firsts.push(first);
        first += texts.len();
    }
    let scored = scores(&matched)?;
    let score = |image: u32, text: u32| {
        let at = matched[image as usize].binary_search(&text);
        scored[firsts[image as usize] + at.expect("a pair that was matched")]
    };
    // Where the best right answer of each query stands, and its candidates in the new order; equals stay in that of the contrast.
    let again = |lists: &[List], score: &dyn Fn(u32, u32) -> f32, right: &dyn Fn(usize) -> Vec<u32>| {
        let one = |(query, list): (usize, &List)| {
            let mut top: Vec<(u32, f32)> = list.best(top_k).map(|i| (i, score(query as u32, i))).collect();
            let rank = reranked(&top, &right(query)).unwrap_or(list.rank);
            top.sort_by(|a, b| b.1.total_cmp(&a.1));
            (rank, top)
        };
        lists.iter().enumerate().map(one).unzip::<_, _, Vec<usize>, Vec<_>>()
    };
    let (by_image, of_images) = again(&image_lists, &score, &|image| right_texts(image).to_vec());
    let (by_text, of_captions) =
        again(&text_lists, &|text, image| score(image, text), &|text| right_images(text).to_vec());
    found.itm = Some(Recalls::new(&by_image, &by_text));
    Ok((found, Ranking { of_images, of_captions }))
}

/// Where a query's best right answer stands among all candidates, and the query's best candidates.
struct List {
    rank: usize,
    /// With their similarities.
    top: Vec<(u32, f32)>,
}

impl List {
    fn best(&self, count: usize) -> impl Iterator<Item = u32> {
        self.top.iter().take(count).map(|(i, _)| *i)
    }
}

fn ranked<'a>(queries: &Tensor, candidates: &Tensor, listed: usize, right: impl Fn(usize) -> &'a [u32]) -> Vec<List> {
    let candidates = candidates.transpose(0, 1);
    let k = (listed as i64).min(candidates.size()[1]);
    let (mut ranks, mut scores, mut items) = (Vec::new(), Vec::new(), Vec::new());
    let mut first = 0;
    for block in queries.split(BATCH as i64, 0) {
        let similarities = product(&block, &candidates);
        let next = first + block.size()[0] as usize;
        ranks.push(ranks_of(&similarities, &(first..next).map(&right).collect::<Vec<_>>()));
        let (best, at) = similarities.topk(k, 1, true, true);
        scores.push(best);
        items.push(at);
        first = next;
    }
    // To the host at once: it does not wait for each block.
    let on_host = |blocks: &[Tensor]| Tensor::cat(blocks, 0).to(Device::Cpu);
    let ranks = Vec::<i64>::try_from(on_host(&ranks)).expect("integers");
    let scores = Vec::<Vec<f32>>::try_from(on_host(&scores)).expect("floats");
    let items = Vec::<Vec<i64>>::try_from(on_host(&items)).expect("integers");
    let tops = items.into_iter().zip(scores);
    let tops = tops.map(|(items, scores)| items.into_iter().map(|i| i as u32).zip(scores).collect());
    ranks.into_iter().zip(tops).map(|(rank, top)| List { rank: rank as usize, top }).collect()
}

/// Of each row of `scores` `[n, candidates]`: the wrong candidates that come before the best of its `right` ones, `[n]`. A tie counts
/// against it, so that equal scores for all win nothing, and so does what is no number.
fn ranks_of(scores: &Tensor, right: &[&[u32]]) -> Tensor {
    let most = right.iter().map(|right| right.len()).max().unwrap_or(0).max(1);
    let at = right.iter().flat_map(|right| (0..most).map(|i| i64::from(right.get(i).copied().unwrap_or(0))));
    let is_there = right.iter().flat_map(|right| (0..most).map(|i| i < right.len()));
    let [at, is_there] =
        [Tensor::from_slice(&at.collect::<Vec<_>>()), Tensor::from_slice(&is_there.collect::<Vec<_>>())]
            .map(|x| upload(&x.view([right.len() as i64, most as i64]), scores.device()));
    let of_right = scores.gather(1, &at, false);
    let nothing = is_there.logical_not().logical_or(&of_right.isnan());
    let best = of_right.masked_fill(&nothing, f64::NEG_INFINITY).amax([1].as_slice(), true);
    let before = |x: &Tensor| x.lt_tensor(&best).logical_not();
    let count = |x: Tensor| x.sum_dim_intlist([1].as_slice(), false, Kind::Int64);
    count(before(scores)) - count(before(&of_right).logical_and(&is_there))
}

/// Rank of the best right answer among `top`, candidates with their scores; none where no right answer is among them.
fn reranked(top: &[(u32, f32)], right: &[u32]) -> Option<usize> {
    let best = top.iter().filter(|(i, _)| right.contains(i)).map(|(_, score)| *score).reduce(f32::max)?;
    Some(top.iter().filter(|(i, score)| !right.contains(i) && precedes(*score, best)).count())
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

/// As [`match_odds`], on the host.
pub fn match_scores(model: &Simla, image_embeds: &Tensor, captions: &[&[i64]]) -> Vec<f32> {
    Vec::try_from(match_odds(model, image_embeds, captions).to(Device::Cpu)).expect("floats")
}

/// Log-odds that captions belong to images `[1, 1 + P, D]` or `[n, 1 + P, D]`: all n to the one, whose keys and values are projected
/// once, or each to its own. On the device: `[n]`.
pub fn match_odds(model: &Simla, image_embeds: &Tensor, captions: &[&[i64]]) -> Tensor {
    let (towers, w) = (&model.towers, &model.online);
    if captions.is_empty() {
        return Tensor::zeros([0], (Kind::Float, w.device()));
    }
    let images = image_embeds.size()[0];
    let shared = (images == 1).then(|| towers.image_context(w, image_embeds));
    // Captions of one length together: padding is computed too.
    let mut order: Vec<usize> = (0..captions.len()).collect();
    order.sort_by_key(|&i| captions[i].len());
    let mut all_odds = Vec::new();
    for chunk in order.chunks(matched_at_once(w.device())) {
        let own = || {
            let rows: Vec<i64> = chunk.iter().map(|&i| i as i64).collect();
            let rows = upload(&Tensor::from_slice(&rows), w.device());
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
        all_odds.push(logits.select(1, itm::MATCH) - logits.select(1, 1 - itm::MATCH));
    }
    let mut places = vec![0i64; captions.len()];
    for (&caption, place) in order.iter().zip(0..) {
        places[caption] = place;
    }
    Tensor::cat(&all_odds, 0).index_select(0, &upload(&Tensor::from_slice(&places), w.device()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_count_ties_against_the_right_answer() {
        let rank_of = |scores: &[f32], right: &[u32]| {
            // Beside a row with more right answers.
            let rows = Tensor::stack(
                &[Tensor::from_slice(scores), Tensor::zeros([scores.len() as i64], (Kind::Float, Device::Cpu))],
                0,
            );
            ranks_of(&rows, &[right, &[0, 1, 2]]).int64_value(&[0])
        };
        assert_eq!(rank_of(&[0.1, 0.9, 0.5], &[1]), 0);
        assert_eq!(rank_of(&[0.1, 0.9, 0.5], &[0]), 2);
        assert_eq!(rank_of(&[0.5, 0.5, 0.5], &[0]), 2);
        assert_eq!(rank_of(&[0.7, 0.5, 0.5], &[2]), 2);
        // Of several right answers the best counts, and they are no rivals of each other.
        assert_eq!(rank_of(&[0.5, 0.5, 0.9, 0.1], &[0, 1, 3]), 1);
        assert_eq!(rank_of(&[0.5, 0.5, 0.5, 0.1], &[0, 1]), 1);
        // A model whose features are no numbers finds nothing.
        assert_eq!(rank_of(&[f32::NAN; 3], &[1]), 2);
        assert_eq!(rank_of(&[0.1, f32::NAN, 0.5], &[2]), 1);
        assert_eq!(rank_of(&[0.1, 0.2, 0.3], &[]), 3);
        // What is no number comes before the right answer, and a right one that is none comes last.
        assert_eq!(rank_of(&[f32::NAN, 0.9, 0.5], &[1]), 1);
        assert_eq!(rank_of(&[0.1, 0.9, f32::NAN], &[2]), 2);
        assert_eq!(rank_of(&[0.1, 0.9, f32::NAN], &[1, 2]), 0);
    }

    #[test]
    fn re_ranking_takes_the_best_right_answer_of_the_candidates() {
        let scores = [0.0, 3.0, 2.0, 5.0, 2.0];
        let among = |top: &[u32], right: &[u32]| {
            reranked(&top.iter().map(|&i| (i, scores[i as usize])).collect::<Vec<_>>(), right)
        };
        assert_eq!(among(&[3, 1, 2], &[1, 2]), Some(1));
        assert_eq!(among(&[2, 4], &[2]), Some(1), "a tie counts against it");
        assert_eq!(among(&[1, 4, 2], &[1]), Some(0));
        assert_eq!(among(&[1, 4], &[0]), None, "not among the candidates");
        assert_eq!(reranked(&[(0, f32::NAN), (1, f32::NAN), (2, f32::NAN)], &[1]), Some(2), "no numbers find nothing");
    }

    /// Scores of all that is matched, image by image.
    fn each(
        mut scores: impl FnMut(usize, &[u32]) -> Vec<f32>,
    ) -> impl FnOnce(&[Vec<u32>]) -> Result<Vec<f32>, TeamError> {
        move |matched| Ok((0..).zip(matched).flat_map(|(image, texts)| scores(image, texts)).collect())
    }

    /// Features on a plane, by their angles in degrees.
    fn features(degrees: &[f32]) -> Tensor {
        let points: Vec<f32> = degrees.iter().flat_map(|a| [a.to_radians().cos(), a.to_radians().sin()]).collect();
        Tensor::from_slice(&points).view([-1, 2])
    }

    /// Three images and five captions on a plane: captions 0 and 1 are of image 0, 2 and 3 of image 1, 4 of image 2. Also what was asked
    /// of the judge, whose `score` it is.
    fn judged(top_k: usize, score: impl Fn(usize, u32) -> f32) -> (Retrieval, Vec<Vec<u32>>) {
        let (images, texts) = ([0.0, 40.0, 100.0], [10.0, 70.0, 30.0, 45.0, 12.0]);
        let mut asked = Vec::new();
        let scores = |image: usize, texts: &[u32]| {
            asked.push(texts.to_vec());
            texts.iter().map(|&text| score(image, text)).collect()
        };
        let of = (&[0, 1, 2][..], &[0, 0, 1, 1, 2][..]);
        let (found, _) = judge(&features(&images), &features(&texts), of, top_k, 0, each(scores)).unwrap();
        (found, asked)
    }

    /// Two items of two images each, on a plane: item 0 at 0 and 90 degrees, item 1 at 45 and 135; a caption of each at 88 and 10.
    #[test]
    fn any_image_of_an_item_is_right_for_its_captions() {
        let (images, texts) = (features(&[0.0, 90.0, 45.0, 135.0]), features(&[88.0, 10.0]));
        let of = (&[0, 0, 1, 1][..], &[0, 1][..]);
        let (found, ranking) = judge(&images, &texts, of, 0, 3, |_| unreachable!("nothing is matched")).unwrap();
        // Caption 0 meets its item's second image at once; caption 1 meets image 0 before its own at 45 degrees. Images 0 and 3 meet
        // the other item's caption first.
        assert_eq!((found.images, found.captions, found.items), (4, 2, 2));
        assert_eq!((found.itc.img_r1, found.itc.txt_r1), (50.0, 50.0));
        let order = |list: &[(u32, f32)]| list.iter().map(|(i, _)| *i).collect::<Vec<_>>();
        assert_eq!(order(&ranking.of_captions[0]), [1, 2, 3]);
        assert_eq!(order(&ranking.of_images[0]), [1, 0]);
        assert!((ranking.of_captions[0][0].1 - 2f32.to_radians().cos()).abs() < 1e-6, "the similarity");

        // Re-ranked, with equal scores of all: the right ones lose, and the order stays that of the contrast.
        let (found, ranking) = judge(&images, &texts, of, 2, 4, each(|_, texts| vec![1.0; texts.len()])).unwrap();
        let itm = found.itm.unwrap();
        assert_eq!((itm.img_r1, itm.txt_r1), (0.0, 0.0));
        assert_eq!(order(&ranking.of_captions[0]), [1, 2], "as many as were matched");
        // By a judge that knows item 1: image 3 of it is not among the two best of caption 1.
        let (_, ranking) = judge(
            &images,
            &texts,
            of,
            2,
            0,
            each(|image, texts| texts.iter().map(|&text| f32::from(u8::from((image > 1) == (text == 1)))).collect()),
        )
        .unwrap();
        assert_eq!(ranking.of_captions[1], [(2, 1.0), (0, 0.0)]);
        assert_eq!(ranking.of_images[3], [(1, 1.0), (0, 0.0)]);
        // One of two captions is right for an image, two of four images for a caption.
        let chance = found.chance();
        assert_eq!((chance.txt_r1, chance.img_r1, chance.txt_r5), (50.0, 50.0, 100.0));
        let old = Retrieval { images: 10, captions: 50, items: 0, top_k: 0, itc: itm, itm: None };
        assert!((old.chance().img_r5 - 50.0).abs() < 1e-9 && (old.chance().txt_r1 - 10.0).abs() < 1e-9);
    }

    #[test]
    fn folds_are_runs_of_items_and_their_mean_is_number_by_number() {
        let gallery = Gallery {
            images: vec![10, 11, 12, 13, 14],
            item_of: vec![0, 1, 0, 2, 3],
            captions: (0..6).map(|i| vec![i]).collect(),
            image_of: vec![0, 1, 2, 3, 3, 4],
            broken: vec![],
        };
        let folds = gallery.folds(2);
        assert_eq!((&folds[0].images, &folds[0].item_of), (&vec![10, 11, 12], &vec![0, 1, 0]));
        assert_eq!((&folds[0].captions, &folds[0].image_of), (&vec![vec![0], vec![1], vec![2]], &vec![0, 1, 2]));
        assert_eq!((&folds[1].images, &folds[1].item_of), (&vec![13, 14], &vec![0, 1]));
        assert_eq!(folds[1].image_of, [0, 0, 1]);
        // Seven items in five runs: 7/5, 14/5, ... rounded down are 1, 2, 4, 5 and 7.
        let seven = Gallery { images: (0..7).collect(), item_of: (0..7).collect(), ..Gallery::default() };
        assert_eq!(seven.folds(5).iter().map(Gallery::items).collect::<Vec<_>>(), [1, 1, 2, 1, 2]);
        let found = |recall: f64| Retrieval {
            images: 2,
            captions: 3,
            items: 2,
            top_k: 1,
            itc: Recalls::new(&[0], &[0]),
            itm: Some(Recalls { txt_r1: recall, ..Recalls::new(&[0], &[0]) }),
        };
        let mean = Retrieval::mean_of(&[found(20.0), found(40.0)]).unwrap();
        assert_eq!((mean.itm.unwrap().txt_r1, mean.itm.unwrap().img_r1, mean.images), (30.0, 100.0, 2));
        assert_eq!(Retrieval::mean_of(&[]), None);
    }

    /// Four images at 0, 40, 3 and 60 degrees, their captions at 2.9, 41, 4 and 61. Among all, image 2 is nearer to caption 0 (by 0.1) than its own
    /// image (by 2.9), and caption 0 nearer to image 2 (by 0.1) than its own caption (by 1): three of four are right. In two folds neither
    /// meets the other, and all are right.
    #[test]
    fn rivals_of_another_fold_do_not_count() {
        let four: Vec<usize> = (0..4).collect();
        let gallery = Gallery {
            images: vec![0, 1, 2, 3],
            item_of: four.clone(),
            captions: (0..4).map(|i| vec![i]).collect(),
            image_of: four,
            broken: vec![],
        };
        let measured = |gallery: &Gallery| {
            let images: Vec<f32> = gallery.images.iter().map(|&i| [0.0, 40.0, 3.0, 60.0][i as usize]).collect();
            let texts: Vec<f32> = gallery.captions.iter().map(|ids| [2.9, 41.0, 4.0, 61.0][ids[0] as usize]).collect();
            let of = (&gallery.item_of[..], &gallery.item_of_captions()[..]);
            judge(&features(&images), &features(&texts), of, 0, 0, |_| unreachable!("nothing is matched")).unwrap().0
        };
        let whole = measured(&gallery).itc;
        assert_eq!((whole.txt_r1, whole.img_r1), (75.0, 75.0));
        let folds: Vec<Retrieval> = gallery.folds(2).iter().map(measured).collect();
        let mean = Retrieval::mean_of(&folds).unwrap();
        assert_eq!((mean.itc.txt_r1, mean.itc.img_r1, mean.images), (100.0, 100.0, 2));
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

    /// Rows 0 and 2 have one path, row 3 shows the item of row 1 on another picture and says two things of it, one of them again, row 4 is
    /// alone, row 5 is broken.
    #[test]
    fn rows_of_one_picture_are_one_image_and_pictures_of_one_id_one_item() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "copy", "c"] {
            simla_image::RgbImage::new(16, 16).save(folder.path().join(format!("{name}.png"))).unwrap();
        }
        let rows = r#"[{"image": "a.png", "caption": "red"}, {"image": "b.png", "caption": "green", "image_id": 7},
            {"image": "./a.png", "caption": ["blue", "red"]}, {"image": "copy.png", "caption": ["green", "blue"], "image_id": 7},
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
        assert_eq!((&gallery.images, &gallery.item_of, gallery.items()), (&vec![0, 1, 3, 4], &vec![0, 1, 1, 2], 3));
        assert_eq!(gallery.image_of, [0, 1, 0, 0, 2, 3]);
        // Of one picture two annotators may say the same; a product's name is not said again with each photograph.
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
