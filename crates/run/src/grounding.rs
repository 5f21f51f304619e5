//! Phrases with true boxes: how many of them a model finds.

use std::collections::BTreeSet;

use anyhow::Result;
use simla::model::Simla;
use simla::tasks::boxes::Bounds;
use simla::tasks::gradcam::{PhraseMaps, of_matching};
use simla::tasks::grounding::{Answers, Grounding, Question, answer};
use simla_data::{BoxedPhrase, BoxedPicture, Vocabulary};

use crate::console::in_full;
use crate::photo::Seen;
use crate::progress::Progress;

/// A phrase of a picture that was asked for, with what the model found.
pub struct Found<'a> {
    /// With its phrases and true boxes.
    pub picture: &'a BoxedPicture,
    /// Which of the picture's objects.
    pub object: usize,
    /// The heat.
    pub maps: PhraseMaps,
    /// What was right.
    pub answers: Answers,
}

impl<'a> Found<'a> {
    fn split(&self) -> Option<&'a str> {
        self.picture.objects[self.object].split.as_deref()
    }
}

/// Every phrase of a file, asked and answered.
pub struct Asked<'a> {
    /// Of every picture that could be read.
    pub found: Vec<Found<'a>>,
    /// Pictures that cannot be used, and why.
    pub broken: Vec<String>,
    /// What is counted for the phrases of those.
    missed: Vec<(&'a BoxedPhrase, Answers)>,
}

impl<'a> Asked<'a> {
    /// Asks a model for every phrase of `pictures`, by the heat of a layer's cross-attention.
    ///
    /// # Errors
    /// What libtorch could not do.
    pub fn new(simla: &Simla, vocabulary: &Vocabulary, pictures: &'a [BoxedPicture], layer: usize) -> Result<Self> {
        let grid = simla.config.grid() as usize;
        let mut progress = Progress::new("grounding", 0, pictures.len() as u64);
        let mut asked = Self { found: vec![], broken: vec![], missed: vec![] };
        for (done, picture) in (1..).zip(pictures) {
            let seen = match Seen::of(picture, simla) {
                Ok(seen) => seen,
                Err(error) => {
                    asked.broken.push(in_full(&error));
                    let missed = |object| (object, Answers::missing(picture.proposals.is_some()));
                    asked.missed.extend(picture.objects.iter().map(missed));
                    continue;
                }
            };
            let limit = simla.config.max_positions as usize;
            let encode = |phrase: &str| vocabulary.encode(phrase, limit);
            let phrases: Vec<Vec<i64>> = picture.objects.iter().map(|o| encode(&o.phrase)).collect();
            let maps = of_matching(simla, &seen.embeds(simla)?, &phrases, layer)?;
            let (width, height) = seen.picture.dimensions();
            let bounds = |boxes: &[[f64; 4]]| boxes.iter().map(|&b| b.into()).collect::<Vec<Bounds>>();
            let mut others: Vec<Bounds> = Vec::new();
            for object in &picture.objects {
                let truth = object.bounds.into();
                if !others.contains(&truth) {
                    others.push(truth);
                }
            }
            let proposals = picture.proposals.as_deref().map(bounds);
            for (object, maps) in maps.into_iter().enumerate() {
                let question = Question {
                    truth: picture.objects[object].bounds.into(),
                    width: width as usize,
                    height: height as usize,
                    others: &others,
                    proposals: proposals.as_deref(),
                };
                asked.found.push(Found { picture, object, answers: answer(&maps.phrase, grid, question), maps });
            }
            progress.set(done, String::new);
        }
        Ok(asked)
    }

    /// What was found in all, or in one split; none without a phrase.
    pub fn grounding(&self, split: Option<&str>) -> Option<Grounding> {
        let found = self.answers().filter(|(of, _)| split.is_none() || split == *of);
        Grounding::of(&found.map(|(_, answers)| answers).collect::<Vec<_>>())
    }

    /// Every phrase's split and answers.
    fn answers(&self) -> impl Iterator<Item = (Option<&'a str>, Answers)> {
        let found = self.found.iter().map(|found| (found.split(), found.answers));
        found.chain(self.missed.iter().map(|(phrase, answers)| (phrase.split.as_deref(), *answers)))
    }

    /// The parts of the data that there are phrases of.
    pub fn splits(&self) -> BTreeSet<&'a str> {
        self.answers().filter_map(|(split, _)| split).collect()
    }
}
