//! Held-out pairs: retrieval on them, and the keywords that are recommended for them, say how good a model is; and where they are expressions
//! with boxes, how many of those it finds.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use simla::model::Simla;
use simla::tasks::gradcam::default_layer;
use simla::tasks::grounding::Grounding;
use simla::tasks::keywords::{Precision, concepts_of, said};
use simla::tasks::retrieval::{Gallery, Retrieval, evaluate};
use simla_data::{BoxedPicture, Dataset, Options, ReferFiles, Vocabulary, read_refer};
use simla_train::Team;

use crate::grounding::Asked;
use crate::progress::{Count, Progress};
use crate::settings::Settings;
use crate::sources::open_sources;

/// The gallery of a data set.
pub fn gallery(dataset: &Dataset, vocabulary: &Vocabulary, max_tokens: usize) -> Gallery {
    let count = Count::new(Progress::patient("pictures tried", dataset.len()));
    Gallery::read(dataset, vocabulary, max_tokens, || count.one_more())
}

/// Words that are recommended for each picture.
const KEYWORDS: usize = 5;

/// Held-out pairs with what is needed to rank them, and the words said of each picture.
pub struct HeldOut {
    pub(crate) dataset: Arc<Dataset>,
    gallery: Gallery,
    said: Vec<HashSet<String>>,
    vocabulary: Vocabulary,
    /// Expressions with true boxes, where these are REFER's and the run learns to find them.
    boxes: Vec<BoxedPicture>,
}

impl HeldOut {
    /// Reads what a run with these settings is measured on.
    ///
    /// # Errors
    /// Data that cannot be used.
    pub fn open(path: &Path, options: &Options, vocabulary: &Vocabulary, settings: &Settings) -> Result<Self> {
        let dataset = open_sources(&[path.display().to_string()], options)?;
        let gallery = gallery(&dataset, vocabulary, settings.data.max_tokens as usize);
        dataset.reached()?;
        let usable = gallery.images.len();
        if usable < 2 {
            bail!("{}: {usable} usable records for evaluation, expected at least 2", path.display());
        }
        let refer = ReferFiles::beside(path).filter(|_| options.expressions);
        let boxes = refer.map(|refer| read_refer(&refer, options.image_root.as_deref(), &options.splits));
        let dataset = Arc::new(dataset);
        let mut captions = vec![Vec::new(); gallery.images.len()];
        for (ids, &image) in gallery.captions.iter().zip(&gallery.image_of) {
            captions[image].push(vocabulary.decode(ids));
        }
        let said = captions.iter().map(|captions| said(captions)).collect();
        let boxes = boxes.transpose()?.unwrap_or_default();
        Ok(Self { dataset, gallery, said, vocabulary: vocabulary.clone(), boxes })
    }

    /// How many of the boxes a model finds; none where there are no boxes.
    ///
    /// # Errors
    /// What libtorch could not do.
    pub fn grounding(&self, model: &Simla) -> Result<Option<Grounding>> {
        let layer = default_layer(model.config.text_depth);
        Ok(Asked::new(model, &self.vocabulary, &self.boxes, layer)?.grounding(None))
    }

    /// Retrieval on them, which the processes of `team` share out among themselves, and how many of the words that the concept head recommends
    /// are said.
    ///
    /// # Errors
    /// What libtorch could not do, or another process that is gone.
    pub fn evaluate(&self, model: &Simla, top_k: usize, team: &Team, what: &str) -> Result<(Retrieval, Precision)> {
        let mut progress: Option<Progress> = None;
        let mut show = |done: usize, all: usize| {
            progress.get_or_insert_with(|| Progress::new(what, 0, all as u64)).set(done as u64, String::new);
        };
        let (found, image_feat) = evaluate(model, &self.dataset, &self.gallery, top_k, team, &mut show)?;
        self.dataset.reached()?;
        let concepts = concepts_of(model, &self.vocabulary, &image_feat, KEYWORDS)?;
        let words: Vec<Vec<&str>> =
            concepts.iter().map(|words| words.iter().map(|guess| guess.word.as_str()).collect()).collect();
        Ok((found, Precision::new(&words, self.said.iter())))
    }
}
