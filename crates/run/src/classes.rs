//! Zero-shot classification (as CLIP's users know it): a folder of pictures for each class, and sentences that name the class.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use simla::tasks::pretrain::Model;
use simla::tasks::score::precedes;
use simla::tasks::search::{Seen, caption_features, match_probabilities, phrase, see};
use simla_data::quoted;
use simla_data::sources::walk;

use crate::collection::picture;
use crate::progress::{Progress, say_broken};

/// Pictures that are looked at together.
const BATCH: usize = 32;
/// Where a template has the class.
const PLACE: &str = "{}";

/// A class, and where pictures of it are.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// The folder's name, its `_` and `-` as spaces.
    pub name: String,
    /// Their files.
    pub pictures: Vec<PathBuf>,
}

/// The folders in `folder`, by name, each with the pictures in it.
///
/// # Errors
/// If there are fewer than two, or one is without pictures.
pub fn classes(folder: &Path) -> Result<Vec<Class>> {
    let context = || format!("{}", quoted(folder.display()));
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !is_hidden {
            folders.push(path);
        }
    }
    folders.sort();
    if folders.len() < 2 {
        bail!("{}: {} folders in here, expected one of pictures for each of several classes", context(), folders.len());
    }
    let class = |path: PathBuf| {
        let found = walk(&path, usize::MAX).with_context(|| format!("{}", quoted(path.display())))?;
        if found.pictures.is_empty() {
            bail!("{}: no pictures in here", quoted(path.display()));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().replace(['_', '-'], " ")).unwrap_or_default();
        Ok(Class { name, pictures: found.pictures.iter().map(|picture| path.join(picture)).collect() })
    };
    folders.into_iter().map(class).collect()
}

/// Shares of pictures whose class is the first, or among the first five, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Top {
    /// The first.
    pub top1: f64,
    /// Among the first five.
    pub top5: f64,
}

/// What the model took pictures for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Classified {
    /// Usable ones.
    pub pictures: usize,
    /// Their names.
    pub classes: Vec<String>,
    /// By contrast.
    pub itc: Top,
    /// The nearest by contrast ranked again by the matching score; none where it was not asked.
    pub itm: Option<Top>,
    /// `[true][predicted]`, by the last ranking.
    pub confusion: Vec<Vec<u64>>,
}

impl Classified {
    /// By the last ranking.
    pub fn last(&self) -> Top {
        self.itm.unwrap_or(self.itc)
    }

    /// Share of each class's own pictures that were taken for it, in percent; none of a class without usable pictures.
    pub fn of_classes(&self) -> Vec<Option<f64>> {
        let share = |(class, counts): (usize, &Vec<u64>)| {
            let all: u64 = counts.iter().sum();
            (all > 0).then(|| 100.0 * counts[class] as f64 / all as f64)
        };
        self.confusion.iter().enumerate().map(share).collect()
    }

    /// What guessing would give.
    pub fn chance(&self) -> Top {
        let share = |k: usize| 100.0 * k.min(self.classes.len()) as f64 / self.classes.len() as f64;
        Top { top1: share(1), top5: share(5) }
    }
}

/// Says of every picture which class it shows. A class is the mean of its sentences' features, as CLIP's ensembles are, and its matching
/// score the mean of their probabilities; the `top_k` nearest classes are ranked again by that (0: none). A tie counts against the right
/// class.
///
/// # Errors
/// A template without a place for the class, or of words that the model does not know; pictures none of which can be read; what libtorch
/// could not do.
pub fn classify(model: &Model, classes: &[Class], templates: &[String], top_k: usize) -> Result<Classified> {
    let limit = model.simla.config.max_positions as usize;
    let mut sentences: Vec<Vec<Vec<i64>>> = Vec::with_capacity(classes.len());
    for class in classes {
        let ids = templates.iter().map(|template| {
            if !template.contains(PLACE) {
                bail!("the template {template:?}: expected {PLACE} where the class is named, as in \"a photo of a {PLACE}\"");
            }
            Ok(phrase(&model.vocabulary, &template.replace(PLACE, &class.name), limit)?)
        });
        sentences.push(ids.collect::<Result<_>>()?);
    }
    let mut prototypes = Vec::with_capacity(classes.len());
    for ids in &sentences {
        prototypes.push(mean_direction(&caption_features(&model.simla, ids)?));
    }

    let all: usize = classes.iter().map(|class| class.pictures.len()).sum();
    let mut tally = Tally::new(classes.len());
    let mut broken = Vec::new();
    let mut progress = Progress::new("pictures", 0, all as u64);
    let mut done = 0;
    for (truth, class) in classes.iter().enumerate() {
        for chunk in class.pictures.chunks(BATCH) {
            let entries: Vec<_> = chunk.iter().map(|path| picture(path)).collect();
            for seen in see(&model.simla, &entries)? {
                match seen {
                    Ok(seen) => {
                        let similarities: Vec<f32> = prototypes.iter().map(|p| product(p, &seen.feature)).collect();
                        let matched = nearest(&similarities, top_k);
                        let scores = matching(model, &seen, &matched, &sentences)?;
                        tally.count(truth, &similarities, &matched, &scores);
                    }
                    Err(error) => broken.push(error),
                }
            }
            done += chunk.len();
            progress.set(done as u64, String::new);
        }
    }
    drop(progress);
    say_broken(&broken, format_args!("of {all} pictures"));
    if tally.pictures == 0 {
        bail!("no usable picture of any class");
    }
    Ok(tally.finish(classes, top_k > 0))
}

/// The mean of features, of length one.
fn mean_direction(features: &[Vec<f32>]) -> Vec<f32> {
    let mut sum = vec![0.0; features[0].len()];
    for feature in features {
        sum.iter_mut().zip(feature).for_each(|(sum, value)| *sum += value);
    }
    let length = product(&sum, &sum).sqrt().max(f32::MIN_POSITIVE);
    sum.iter().map(|value| value / length).collect()
}

fn product(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The `k` nearest, nearest first.
fn nearest(similarities: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..similarities.len()).collect();
    order.sort_by(|&a, &b| similarities[b].total_cmp(&similarities[a]));
    order.truncate(k);
    order
}

/// The probability that the picture shows each of these classes, the mean over its sentences.
fn matching(model: &Model, seen: &Seen, classes: &[usize], sentences: &[Vec<Vec<i64>>]) -> Result<Vec<f32>> {
    let captions: Vec<&[i64]> = classes.iter().flat_map(|&class| sentences[class].iter().map(Vec::as_slice)).collect();
    let probabilities = match_probabilities(&model.simla, &[seen.patches.as_slice()], &captions)?;
    let per_class = sentences[0].len();
    Ok(probabilities.chunks(per_class).map(|of_class| of_class.iter().sum::<f32>() / per_class as f32).collect())
}

/// Counts what pictures were taken for.
struct Tally {
    pictures: usize,
    /// Right within 1 and 5, by contrast and by matching.
    right: [[u64; 2]; 2],
    confusion: Vec<Vec<u64>>,
}

impl Tally {
    fn new(classes: usize) -> Self {
        Self { pictures: 0, right: [[0; 2]; 2], confusion: vec![vec![0; classes]; classes] }
    }

    /// A picture of class `truth`; `matched` are the classes, nearest first, that have matching `scores`.
    fn count(&mut self, truth: usize, similarities: &[f32], matched: &[usize], scores: &[f32]) {
        let before = |scores: &[f32], own: usize| {
            (0..scores.len()).filter(|&other| other != own && precedes(scores[other], scores[own])).count()
        };
        let rank = before(similarities, truth);
        let again = match matched.iter().position(|&class| class == truth) {
            Some(own) => before(scores, own),
            // Left out by the contrast, it stays where that put it.
            None => rank.max(matched.len()),
        };
        for (right, rank) in self.right.iter_mut().zip([rank, again]) {
            right[0] += u64::from(rank < 1);
            right[1] += u64::from(rank < 5);
        }
        let first = match matched {
            [] => nearest(similarities, 1)[0],
            _ => matched[nearest(scores, 1)[0]],
        };
        self.confusion[truth][first] += 1;
        self.pictures += 1;
    }

    fn finish(self, classes: &[Class], is_matched: bool) -> Classified {
        let share = |count: u64| 100.0 * count as f64 / self.pictures as f64;
        let [itc, itm] = self.right.map(|[first, five]| Top { top1: share(first), top5: share(five) });
        Classified {
            pictures: self.pictures,
            classes: classes.iter().map(|class| class.name.clone()).collect(),
            itc,
            itm: is_matched.then_some(itm),
            confusion: self.confusion,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_and_fifth_ties_and_classes_that_were_left_out_by_hand() {
        let class = |name: &str| Class { name: name.into(), pictures: vec![] };
        let all = ["a", "b", "c", "d", "e", "f", "g"].map(class);
        let mut tally = Tally::new(7);
        // Right by contrast, and by matching of the two nearest.
        tally.count(0, &[0.9, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0], &[0, 1], &[0.8, 0.2]);
        // Second by contrast, first by matching.
        tally.count(1, &[0.9, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0], &[0, 1], &[0.1, 0.2]);
        // A tie is no find, though the picture is taken for the first.
        tally.count(0, &[0.9, 0.9, 0.1, 0.0, 0.0, 0.0, 0.0], &[0, 1], &[0.5, 0.5]);
        // Not among the two nearest: sixth by contrast, and so it stays.
        tally.count(6, &[0.9, 0.8, 0.7, 0.6, 0.5, 0.1, 0.4], &[0, 1], &[0.1, 0.9]);
        let found = tally.finish(&all, true);
        assert_eq!((found.itc, found.itm), (Top { top1: 25.0, top5: 75.0 }, Some(Top { top1: 50.0, top5: 75.0 })));
        assert_eq!((&found.confusion[0][..2], found.confusion[1][1], found.confusion[6][1]), (&[2, 0][..], 1, 1));
        assert_eq!(found.of_classes()[..3], [Some(100.0), Some(100.0), None]);
        assert!((found.chance().top1 - 100.0 / 7.0).abs() < 1e-9 && found.last().top1 == 50.0);
        // A model that has lost its numbers finds nothing among seven, be they right or not.
        let mut tally = Tally::new(7);
        tally.count(0, &[f32::NAN; 7], &[0, 1], &[f32::NAN; 2]);
        let found = tally.finish(&all, true);
        assert_eq!((found.itc, found.itm.unwrap().top1), (Top { top1: 0.0, top5: 0.0 }, 0.0));
        let mut tally = Tally::new(7);
        tally.count(2, &[0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0], &[], &[]);
        let found = tally.finish(&all, false);
        assert_eq!((found.last().top1, found.itm, found.confusion[2][2]), (100.0, None, 1));
    }

    #[test]
    fn a_class_is_the_mean_of_its_sentences() {
        let mean = mean_direction(&[vec![1.0, 0.0], vec![0.0, 1.0]]);
        assert!((mean[0] - 0.5f32.sqrt()).abs() < 1e-6 && (product(&mean, &mean) - 1.0).abs() < 1e-6);
        assert_eq!(nearest(&[0.1, 0.9, 0.9], 2), [1, 2], "equals in their order");
    }

    #[test]
    fn folders_are_classes() {
        let folder = tempfile::tempdir().unwrap();
        let error = classes(folder.path()).unwrap_err().to_string();
        assert!(error.contains("0 folders"), "{error}");
        for name in ["tabby_cat", ".hidden", "dog"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let error = classes(folder.path()).unwrap_err().to_string();
        assert!(error.contains("dog") && error.contains("no pictures"), "{error}");
        for name in ["tabby_cat/1.jpg", "dog/2.png", "dog/1.png", "dog/notes.txt", "3.png"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = classes(folder.path()).unwrap();
        let names: Vec<_> = found.iter().map(|class| (class.name.as_str(), class.pictures.len())).collect();
        assert_eq!(names, [("dog", 2), ("tabby cat", 1)]);
    }
}
