//! Durable writes: files that are on the disk when they are said to be, small ones that others may read while they are replaced, and
//! what to say of a disk that takes no more.

#![warn(missing_docs, unreachable_pub)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Begins the names of files and folders that have not got their own name yet; what an interrupted process left of them may be
/// removed.
pub const UNFINISHED: &str = ".unfinished-";

/// Replaces a small file: readers see the old or the new content, never a part, and what is there is on the disk.
///
/// # Errors
/// What the system said; the old content is there then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |aside| write_synced(aside, bytes), |error| error)
}

/// Replaces a file by what `write` makes at the path that it is given, and leaves on the disk; `failed` is told what the system said of
/// the rest.
///
/// # Errors
/// Either's; the old content is there then.
pub fn replace<E>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
    failed: impl Fn(io::Error) -> E,
) -> Result<(), E> {
    // Hidden, and of this process alone: others may replace the same file.
    let name = path.file_name().unwrap_or_default();
    let aside = path.with_file_name(format!("{UNFINISHED}{}-{}", std::process::id(), name.display()));
    let replaced = write(&aside).and_then(|()| fs::rename(&aside, path).map_err(&failed));
    if replaced.is_err() {
        let _ = fs::remove_file(&aside);
    }
    replaced?;
    sync_parent(path).map_err(failed)
}

/// Writes a file, and on to the disk.
///
/// # Errors
/// What the system said.
pub fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Brings a folder's list of files on to the disk.
///
/// # Errors
/// What the system said.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Brings the name of a file or folder on to the disk: the list of the folder that it is in.
///
/// # Errors
/// What the system said.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync_folder(parent.unwrap_or(Path::new(".")))
}

/// Advice to append to a message about `error` while writing; empty where there is none.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ": free some space, or keep fewer checkpoints (--set keep=N), and go on with --resume"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_leaves_nothing_beside_it_whether_it_worked_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        let occupied = folder.path().join("folder");
        fs::create_dir_all(occupied.join("in it")).unwrap();
        assert!(write_atomically(&occupied, b"new").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_full_disk_gets_advice_and_a_missing_file_none() {
        const ENOSPC: i32 = 28;
        const ENOENT: i32 = 2;
        assert!(advice(&io::Error::from_raw_os_error(ENOSPC)).contains("keep=N"));
        assert_eq!(advice(&io::Error::from_raw_os_error(ENOENT)), "");
    }
}
