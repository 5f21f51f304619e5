//! What can go wrong; every variant names the file.

use std::path::{Path, PathBuf};

/// Errors of drawing, reading run folders and writing pages.
#[derive(Debug, thiserror::Error)]
pub enum PicturesError {
    /// A file or folder could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The folder is not one that `simla pretrain` or `simla finetune` made.
    #[error(
        "{} is not a run folder: expected metrics.jsonl or config.toml in it; give the folder that was the --output of a run",
        path.display()
    )]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// A result's name ends as another format's does.
    #[error("{} must end in {}: that is the format of what is written", path.display(), listed(endings))]
    Ending {
        /// The name.
        path: PathBuf,
        /// One of these it must end in.
        endings: &'static [&'static str],
    },
    /// A result's name is a folder's.
    #[error("{} is a folder: give the name of a file", path.display())]
    IsAFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A result would be written over what it is made from.
    #[error("{} is an input, and inputs are never overwritten: give another name", path.display())]
    IsAnInput {
        /// The name.
        path: PathBuf,
    },
    /// A result would be written over another file.
    #[error("{} exists: give another name, or --force to overwrite it", path.display())]
    Exists {
        /// The name.
        path: PathBuf,
    },
    /// The values of a heat map do not fill its grid.
    #[error("heat map of {rows} x {columns} needs {} values, got {got}", rows.saturating_mul(*columns))]
    HeatShape {
        /// Rows of the grid.
        rows: usize,
        /// Columns of the grid.
        columns: usize,
        /// Values given.
        got: usize,
    },
}

/// `.safetensors, .npy or .parquet`.
fn listed(endings: &[&str]) -> String {
    match endings {
        [] => String::new(),
        [one] => format!(".{one}"),
        [before @ .., last] => format!(".{} or .{last}", before.join(", .")),
    }
}

impl PicturesError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }
}
