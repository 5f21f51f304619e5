//! Files that a user names for results: never over what was read, and over another file only where that is asked for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use simla_data::{Dataset, Format, Location};
use simla_pictures::output::writable;

/// Whether a result may be written to `path`, where one is asked for, under a name that ends in one of `endings`; `force` overwrites a
/// file that is no input. The inputs are asked for where there is a file alone; the folder is made.
///
/// # Errors
/// A name that ends otherwise, a folder, an input, or a file without `force`.
pub fn check_file(
    path: Option<&Path>,
    endings: &'static [&'static str],
    force: bool,
    inputs: impl FnOnce() -> Vec<PathBuf>,
) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let inputs = if path.exists() { inputs() } else { vec![] };
    writable(path, endings, &inputs, force)?;
    // Not when all is computed: a folder that is not there, and cannot be.
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())
}

/// The same for a PNG.
///
/// # Errors
/// As there.
pub fn check_picture(path: Option<&Path>, force: bool, inputs: impl FnOnce() -> Vec<PathBuf>) -> Result<()> {
    check_file(path, &["png"], force, inputs)
}

/// The files that a data set is read from: its own and those of its pictures.
pub fn files_of(dataset: &Dataset) -> Vec<PathBuf> {
    let pictures = (0..dataset.len()).filter_map(|index| match dataset.entry(index).ok()?.image {
        Location::File(path) => Some(path),
        Location::Range { .. } => None,
    });
    sources_of(dataset).into_iter().chain(pictures).collect()
}

/// The files that a data set's records are in.
pub fn sources_of<F: Format>(dataset: &Dataset<F>) -> Vec<PathBuf> {
    dataset.sources().map(|(path, _)| path.to_owned()).collect()
}
