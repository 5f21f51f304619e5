//! Data as a command line gives them, opened with progress.

use std::path::{Path, PathBuf};

use anyhow::Result;
use simla_data::{Dataset, Format, Options, Source, Vocabulary};

use crate::progress::{NAMED, Progress};
use crate::say;

/// Opens sources given as on the command line.
pub fn open_data(data: &[String], image_root: Option<&Path>, max_bad_share: f64) -> Result<Dataset> {
    open_sources(data, &open_options(image_root, max_bad_share))
}

/// How sources are opened where nothing else is asked for.
pub fn open_options(image_root: Option<&Path>, max_bad_share: f64) -> Options {
    Options { image_root: image_root.map(Path::to_owned), max_bad_share, ..Options::default() }
}

/// As [`open_data`], with every option. Says what is wrong with it and can be lived with.
pub fn open_sources<F: Format>(data: &[String], options: &Options) -> Result<Dataset<F>> {
    let sources: Vec<Source> = data.iter().map(|text| text.parse().expect("any text is a source")).collect();
    let mut progress: Option<(PathBuf, Progress)> = None;
    let dataset = Dataset::of(&sources, options, &mut |path, done, all| {
        if progress.as_ref().is_none_or(|(of, _)| of != path) {
            let what = format!("percent of {} read", path.display());
            progress = Some((path.into(), Progress::patient(&what, 100)));
        }
        if let Some((_, progress)) = &mut progress {
            progress.set(100 * done / all.max(1), String::new);
        }
    })?;
    drop(progress);
    let warnings = dataset.warnings();
    if !warnings.is_empty() {
        say!("warning: not all that the data hold is used ({} notes):", warnings.len());
    }
    for warning in warnings.iter().take(NAMED) {
        say!("  {}", simla_data::quoted(warning));
    }
    Ok(dataset)
}

/// The word pieces of a data set's texts, the first `most` of them.
pub fn learn<F: Format>(dataset: &Dataset<F>, most: usize, size: usize) -> Result<Vocabulary> {
    let mut progress = Progress::patient("records read", dataset.len());
    let texts = dataset.texts(|done| progress.set(done, String::new));
    let vocabulary = Vocabulary::learn(texts.take(most), size);
    dataset.reached()?;
    Ok(vocabulary?)
}
