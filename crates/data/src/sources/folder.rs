//! A folder of photographs, and of folders of photographs, each with a caption file of the same name beside it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::beside::{self, IMAGE_ENDINGS, MAX_TEXT_BYTES};
use super::{Malformed, OpenError, Options, REPORT_EVERY, Records, Watch};
use crate::record::{Entry, Location, RecordError};

/// Most images in a folder; their names are kept in memory.
pub const MAX_IMAGES: usize = 1_000_000;

/// A folder of images.
#[derive(Debug)]
pub(crate) struct FolderRecords {
    folder: PathBuf,
    /// Their paths in the folder, sorted.
    images: Vec<PathBuf>,
}

impl FolderRecords {
    /// All images under `folder`, but for those in hidden folders.
    pub fn open(folder: &Path, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io { path: folder.into(), error };
        let mut images = Vec::new();
        let files = WalkDir::new(folder)
            .into_iter()
            .filter_entry(|file| file.depth() == 0 || !file.file_name().as_encoded_bytes().starts_with(b"."));
        for file in files {
            let file = file.map_err(|e| io(e.into()))?;
            let name = file.path().strip_prefix(folder).unwrap_or(file.path());
            let ending = name.extension().map(|e| e.to_string_lossy().to_lowercase());
            if !file.file_type().is_dir() && ending.is_some_and(|e| IMAGE_ENDINGS.contains(&e.as_str())) {
                images.push(name.to_path_buf());
            }
            if images.len() > MAX_IMAGES {
                let found = format!("a folder of more than {MAX_IMAGES} images");
                return Err(OpenError::Kind {
                    path: folder.into(),
                    found,
                    expected: "a .json or .csv file that lists them",
                });
            }
        }
        images.sort_unstable();
        let records = FolderRecords { folder: folder.into(), images };
        let mut malformed = Malformed::default();
        for index in 0..records.len() {
            malformed.note(records.entry(index));
            if index % REPORT_EVERY == 0 {
                watch(index, records.len());
            }
        }
        malformed.check(folder, records.len(), options)?;
        Ok(records)
    }
}

impl Records for FolderRecords {
    fn len(&self) -> u64 {
        self.images.len() as u64
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let image = self.folder.join(&self.images[index as usize]);
        let name = image.display().to_string();
        let read = |ending: &str| match read_text(&image.with_extension(ending)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(RecordError::Malformed { name: name.clone(), problem: format!("its .{ending} file: {e}") }),
        };
        let (text, json) = (read("txt")?, read("json")?);
        let identity = image.as_os_str().as_encoded_bytes().to_vec();
        beside::entry(Location::File(image), text, json, name, &identity)
    }
}

fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() || about.len() > MAX_TEXT_BYTES {
        return Err(io::Error::other(format!("not a file of at most {MAX_TEXT_BYTES} bytes")));
    }
    let mut text = Vec::new();
    File::open(path)?.take(MAX_TEXT_BYTES).read_to_end(&mut text)?;
    Ok(text)
}
