//! What can go wrong; every variant names the folder or file, and what to do where that is not plain.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::index::Contents;

/// What helps where the index cannot be beside what it is of.
fn elsewhere(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; --index DIR keeps the index in a folder that can be written"
        }
        _ => "",
    }
}

/// Why an index could not be used or changed. It is left as it was.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The system said no.
    #[error("{path}: {source}{}", elsewhere(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was made for something else.
    #[error(
        "{path}: an index of {found}, but {expected} are asked for; choose another folder for the index (--index), or remove this one"
    )]
    Other {
        /// The index's folder.
        path: PathBuf,
        /// What it is of.
        found: Box<Contents>,
        /// What was asked for.
        expected: Box<Contents>,
    },
    /// A folder with other files is not taken for an index.
    #[error("{path}: not an index: there is `{found}` in it, but no index.json; choose an empty or a new folder")]
    NotAnIndex {
        /// The folder.
        path: PathBuf,
        /// A file in it.
        found: String,
    },
    /// Its files contradict each other.
    #[error("{path}: a damaged index: {reason}; remove the folder, and it is made anew")]
    Damaged {
        /// The index's folder or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another process has it open.
    #[error("{path}: another search is using this index; wait for it, or choose another (--index)")]
    Busy {
        /// The index's folder.
        path: PathBuf,
    },
    /// The graph's library said no.
    #[error("{path}: the graph of the index: {reason}")]
    Graph {
        /// The index's folder.
        path: PathBuf,
        /// What the library said.
        reason: String,
    },
}

impl SearchError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_written_is_told_with_the_way_round_it() {
        let said = |kind: io::ErrorKind| SearchError::Io { path: "library".into(), source: kind.into() }.to_string();
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            assert!(said(kind).contains("--index DIR"), "{}", said(kind));
        }
        assert!(!said(io::ErrorKind::StorageFull).contains("--index"));
    }
}
