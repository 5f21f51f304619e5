//! Pictures that a user names a file for: never over what was read, and over another file only where that is asked for.

use std::path::{Path, PathBuf};

use anyhow::Result;
use simla_data::{Dataset, Location};
use simla_pictures::output::writable;

/// Whether a PNG may be written to `path`, where one is asked for; `force` overwrites a file that is no input. The inputs are asked for
/// where there is a file alone.
///
/// # Errors
/// A name that does not end in .png, a folder, an input, or a file without `force`.
pub fn check_picture(path: Option<&Path>, force: bool, inputs: impl FnOnce() -> Vec<PathBuf>) -> Result<()> {
    let Some(path) = path else {
        return Ok(());
    };
    let inputs = if path.exists() { inputs() } else { vec![] };
    let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
    Ok(writable(path, "png", &inputs, force)?)
}

/// The files that a data set is read from: its own and those of its pictures.
pub fn files_of(dataset: &Dataset) -> Vec<PathBuf> {
    let pictures = (0..dataset.len()).filter_map(|index| match dataset.entry(index).ok()?.image {
        Location::File(path) => Some(path),
        Location::Range { .. } => None,
    });
    dataset.sources().map(|(path, _)| path.to_owned()).chain(pictures).collect()
}
