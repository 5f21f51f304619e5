//! A folder of photographs, and of folders of photographs, each with a caption file of the same name beside it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::beside::{self, IMAGE_ENDINGS, MAX_TEXT_BYTES};
use super::unread::Unread;
use super::{Malformed, OpenError, Options, REPORT_EVERY, Records, Watch};
use crate::record::{Entry, Location, RecordError};

/// Most images in a folder; their names are kept in memory.
pub const MAX_IMAGES: usize = 1_000_000;

/// Endings of a caption file, as the images' are written on cameras and elsewhere.
const TEXT_ENDINGS: [&str; 2] = ["txt", "TXT"];
const JSON_ENDINGS: [&str; 2] = ["json", "JSON"];

/// What lies in a folder and the folders in it. Paths are relative to the folder, and sorted.
#[derive(Debug, Default)]
pub struct Walked {
    /// Picture files, by their endings.
    pub pictures: Vec<PathBuf>,
    /// Tar files.
    pub shards: Vec<PathBuf>,
    /// Text and JSON files, which may belong to a picture.
    captions: Vec<PathBuf>,
    /// All other files.
    pub unread: Unread,
}

impl Walked {
    /// All that is no shard.
    pub(super) fn but_shards(&self) -> Unread {
        let mut unread = self.unread.clone();
        self.pictures.iter().chain(&self.captions).for_each(|file| unread.note_file(file));
        unread
    }
}

/// Looks through a folder and all folders in it, until more than `most` pictures are found. Links to files are followed, and
/// links to folders, each folder once. What is hidden (its name begins with a dot) is passed over.
///
/// # Errors
/// What the system said, with the path.
pub fn walk(folder: &Path, most: usize) -> io::Result<Walked> {
    let root = folder.canonicalize()?;
    let mut linked = HashSet::new();
    let mut walked = Walked::default();
    let entries = WalkDir::new(folder).follow_links(true).into_iter();
    let entries = entries.filter_entry(|entry| {
        entry.depth() == 0
            || (!is_hidden(entry.path()) && {
                !(entry.path_is_symlink() && entry.file_type().is_dir()) || is_new(entry, &root, &mut linked)
            })
    });
    for entry in entries {
        let path = match entry {
            Ok(entry) if entry.file_type().is_dir() => continue,
            Ok(entry) => entry.into_path(),
            Err(error) if error.loop_ancestor().is_some() => continue,
            // A link to nothing: the picture that it should be is missed when it is read.
            Err(error) => match error.path() {
                Some(path) if path.is_symlink() && !is_hidden(path) => path.to_owned(),
                _ => return Err(error.into()),
            },
        };
        let name = path.strip_prefix(folder).unwrap_or(&path).to_path_buf();
        match name.extension().map(|ending| ending.to_string_lossy().to_lowercase()).as_deref() {
            Some("tar") => walked.shards.push(name),
            Some("txt" | "json") => walked.captions.push(name),
            Some(ending) if IMAGE_ENDINGS.contains(&ending) => walked.pictures.push(name),
            _ => walked.unread.note_file(&name),
        }
        if walked.pictures.len() > most {
            break;
        }
    }
    walked.pictures.sort_unstable();
    walked.shards.sort_unstable();
    Ok(walked)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Whether the folder behind a link is not met anyway: as one of those in `root`, around it, or by a link before.
fn is_new(link: &DirEntry, root: &Path, linked: &mut HashSet<PathBuf>) -> bool {
    let Ok(target) = link.path().canonicalize() else {
        return false;
    };
    let met = match target.strip_prefix(root) {
        Ok(inside) => !inside.components().any(|part| is_hidden(Path::new(part.as_os_str()))),
        Err(_) => root.starts_with(&target),
    };
    !met && linked.insert(target)
}

/// A folder of images.
#[derive(Debug)]
pub(crate) struct FolderRecords {
    folder: PathBuf,
    /// Their paths in the folder, sorted.
    images: Vec<PathBuf>,
    unread: Unread,
}

impl FolderRecords {
    /// The images that were found under `folder`.
    pub(crate) fn open(folder: &Path, walked: Walked, options: &Options, watch: Watch) -> Result<Self, OpenError> {
        let Walked { pictures: images, shards, captions, mut unread } = walked;
        if images.len() > MAX_IMAGES {
            let found = format!("a folder of more than {MAX_IMAGES} images");
            let expected = "a .json or .csv file that lists them";
            return Err(OpenError::Kind { path: folder.into(), found, expected });
        }
        let stems: HashSet<&[u8]> = images.iter().map(|image| stem(image)).collect();
        for caption in &captions {
            let ending = caption.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
            if !stems.contains(stem(caption)) || ![TEXT_ENDINGS, JSON_ENDINGS].as_flattened().contains(&ending) {
                unread.note(&format!(".{} without an image", ending.to_lowercase()), 1);
            }
        }
        if !shards.is_empty() {
            unread.note(".tar", shards.len() as u64);
        }
        if images.is_empty() && !unread.is_empty() {
            return Err(OpenError::Unread { path: folder.into(), unread });
        }
        let records = FolderRecords { folder: folder.into(), images, unread };
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

/// A path without its ending.
fn stem(path: &Path) -> &[u8] {
    let bytes = path.as_os_str().as_encoded_bytes();
    let ending = path.extension().map_or(0, |ending| ending.len() + 1);
    &bytes[..bytes.len() - ending]
}

impl Records for FolderRecords {
    fn len(&self) -> u64 {
        self.images.len() as u64
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let image = self.folder.join(&self.images[index as usize]);
        let name = image.display().to_string();
        let read = |endings: [&str; 2]| {
            for ending in endings {
                match read_text(&image.with_extension(ending)) {
                    Ok(text) => return Ok(Some(text)),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => {
                        let problem = format!("its .{ending} file: {e}");
                        return Err(RecordError::Malformed { name: name.clone(), problem });
                    }
                }
            }
            Ok(None)
        };
        let (text, json) = (read(TEXT_ENDINGS)?, read(JSON_ENDINGS)?);
        let identity = image.as_os_str().as_encoded_bytes().to_vec();
        beside::entry(Location::File(image), text, json, name, &identity)
    }

    fn warnings(&self) -> Vec<String> {
        let unread = (!self.unread.is_empty())
            .then(|| format!("{}: files that are no image or caption: {}", self.folder.display(), self.unread));
        unread.into_iter().collect()
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
