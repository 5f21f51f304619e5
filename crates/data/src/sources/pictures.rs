//! Pictures that records name: files in a folder, or members of tar shards.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tar::Archive;

use super::opened::Shards;
use super::{OpenError, walk};
use crate::record::{Location, RecordError, identity};

/// Where the pictures are.
#[derive(Debug)]
pub struct Pictures(Place);

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Members(Box<Members>),
}

#[derive(Debug)]
struct Members {
    shards: Shards,
    /// Shard, first byte and length of each picture, by its name in the shard, and by its file name alone.
    members: HashMap<String, (usize, u64, u64)>,
}

impl Pictures {
    /// At `root`: a folder of pictures, or a tar file, a brace pattern of them, or a folder with some and without pictures, the names of
    /// which are then read.
    ///
    /// # Errors
    /// A root that cannot be read.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let io = |error| OpenError::ImageRoot { path: root.into(), error };
        if super::address(root)?.is_some() {
            return Err(io(io::Error::other("an address; expected a folder or .tar files on a disk")));
        }
        let is_tar = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("tar"));
        if is_tar(root) {
            let problem = |problem| OpenError::Pattern { path: root.into(), problem };
            let paths = match root.to_str().filter(|_| !root.exists()) {
                Some(pattern) => super::pattern::expand(pattern).map_err(problem)?,
                None => return Members::open(vec![root.into()]).map(Self::of),
            };
            return Members::open(paths.into_iter().map(PathBuf::from).collect()).map(Self::of);
        }
        let mut files = std::fs::read_dir(root).map_err(io)?;
        let has_shards = files.any(|file| file.is_ok_and(|file| is_tar(&file.path())));
        if !has_shards {
            return Ok(Self(Place::Folder(root.into())));
        }
        let found = walk(root, super::MAX_IMAGES).map_err(io)?;
        match found.pictures.is_empty() {
            true => Members::open(found.shards.iter().map(|shard| root.join(shard)).collect()).map(Self::of),
            false => Ok(Self(Place::Folder(root.into()))),
        }
    }

    /// In a folder, which is not looked at.
    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        Self(Place::Folder(folder))
    }

    fn of(members: Members) -> Self {
        Self(Place::Members(Box::new(members)))
    }

    /// The picture that has one of `names`, the first that is there, and a number that stands for it; `record` asks for it. Whether a
    /// file with the only name is there is not looked at.
    pub(crate) fn find(&self, names: &[String], record: &str) -> Result<(Location, i64), RecordError> {
        match &self.0 {
            Place::Folder(folder) => {
                let mut paths = names.iter().map(|name| folder.join(name));
                let first = paths.next().unwrap_or_default();
                let path = match names.len() > 1 && !first.exists() {
                    true => paths.find(|path| path.exists()).unwrap_or(first),
                    false => first,
                };
                let identity = identity(path.as_os_str().as_encoded_bytes());
                Ok((Location::File(path), identity))
            }
            Place::Members(all) => {
                let missing = |error| {
                    let path = names.first().map(PathBuf::from).unwrap_or_default();
                    RecordError::MissingImage { name: record.into(), path, error }
                };
                let found = names.iter().find_map(|name| Some((name, all.members.get(name)?)));
                let (name, &(shard, offset, length)) = found.ok_or_else(|| {
                    let of = all.shards.len();
                    missing(io::Error::new(
                        io::ErrorKind::NotFound,
                        format!("no member of that name in the {of} shards"),
                    ))
                })?;
                let file = all.shards.open(shard).map_err(missing)?;
                Ok((Location::Range { shard: file, offset, length, name: name.clone() }, identity(name.as_bytes())))
            }
        }
    }
}

impl Members {
    fn open(paths: Vec<PathBuf>) -> Result<Self, OpenError> {
        let mut members = HashMap::new();
        for (shard, path) in paths.iter().enumerate() {
            let mut scan = || -> io::Result<()> {
                let file = File::open(path)?;
                let length = file.metadata()?.len();
                for member in Archive::new(file).entries_with_seek()? {
                    let member = member?;
                    let (offset, bytes) = (member.raw_file_position(), member.size());
                    if !member.header().entry_type().is_file() {
                        continue;
                    }
                    if offset.checked_add(bytes).is_none_or(|end| end > length) {
                        return Err(io::Error::other("the file ends within a member: is it truncated?"));
                    }
                    let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
                    let name = name.strip_prefix("./").unwrap_or(&name);
                    let alone = name.rsplit('/').next().unwrap_or(name).to_owned();
                    members.insert(name.to_owned(), (shard, offset, bytes));
                    members.entry(alone).or_insert((shard, offset, bytes));
                }
                Ok(())
            };
            scan().map_err(|error| OpenError::Io { path: path.clone(), error })?;
        }
        Ok(Self { shards: Shards::files(paths), members })
    }
}
