//! Held-out pairs: retrieval on them says how good a model is.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use simla::model::Simla;
use simla::tasks::retrieval::{Gallery, Retrieval, evaluate};
use simla_data::{Dataset, Options, Vocabulary};
use simla_train::Team;

use crate::progress::{Count, Progress};
use crate::settings::Settings;
use crate::sources::open_sources;

/// The gallery of a data set.
pub fn gallery(dataset: &Dataset, vocabulary: &Vocabulary, max_tokens: usize) -> Gallery {
    let count = Count::new(Progress::patient("pictures tried", dataset.len()));
    Gallery::read(dataset, vocabulary, max_tokens, || count.one_more())
}

/// Held-out pairs with what is needed to rank them.
pub struct HeldOut {
    pub(crate) dataset: Arc<Dataset>,
    gallery: Gallery,
}

impl HeldOut {
    pub fn open(path: &Path, options: &Options, vocabulary: &Vocabulary, settings: &Settings) -> Result<Self> {
        let dataset = open_sources(&[path.display().to_string()], options)?;
        let gallery = gallery(&dataset, vocabulary, settings.data.max_tokens as usize);
        dataset.reached()?;
        let usable = gallery.images.len();
        if usable < 2 {
            bail!("{}: {usable} usable records for evaluation, expected at least 2", path.display());
        }
        let dataset = Arc::new(dataset);
        Ok(Self { dataset, gallery })
    }

    /// Ranks all pairs, which the processes of `team` share out among themselves.
    ///
    /// # Errors
    /// What libtorch could not do, or another process that is gone.
    pub fn evaluate(&self, model: &Simla, top_k: usize, team: &Team, what: &str) -> Result<Retrieval> {
        let mut progress: Option<Progress> = None;
        let mut show = |done: usize, all: usize| {
            progress.get_or_insert_with(|| Progress::new(what, 0, all as u64)).set(done as u64, String::new);
        };
        let ranked = evaluate(model, &self.dataset, &self.gallery, top_k, team, &mut show)?;
        self.dataset.reached()?;
        Ok(ranked)
    }
}
