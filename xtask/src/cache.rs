//! The downloaded libtorch: one copy for each user, shared by all checkouts.
//!
//! The folder `libtorch-2.11.0` appears by one rename when all of it is written, so whoever sees it can use it. Everything
//! before that happens in `libtorch-2.11.0.partial`, which belongs to the one process that holds the lock; what a killed
//! process left there is removed, except wheels that are whole, which are not downloaded again.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use indicatif::HumanBytes;
use simla_libtorch::VERSION;

use crate::pip::{self, Pip};
use crate::progress::Progress;
use crate::wheel::{WHEELS, Wheel};

/// Sizes of the unpacked libraries, to notice a copy that someone damaged.
const LIBRARIES: [(&str, u64); 5] = [
    ("torch/lib/libtorch_cpu.so", 451_209_129),
    ("torch/lib/libc10.so", 1_498_969),
    ("torch/lib/libgomp.so.1", 254_009),
    ("nvidia/cu13/lib/libcudart.so.13", 704_288),
    ("nvidia/cu13/lib/libcupti.so.13", 4_152_208),
];

/// The disk space for all wheels, the copy that pip makes of the one it fetched, and what file systems add.
const SPACE: u64 = 1_200_000_000;

/// The root of the downloaded libtorch, which is downloaded first if it is not there.
///
/// # Errors
/// If the machine is of another kind, there is no pip, too little disk space, or the download fails.
pub fn libtorch() -> Result<PathBuf> {
    let cache = folder(|name| env::var_os(name))?;
    let complete = cache.join(format!("libtorch-{VERSION}"));
    if !is_complete(&complete) {
        pip::check_platform()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let _lock = lock(&cache)?;
        // Another process may have been faster.
        if !is_complete(&complete) {
            fill(&cache, &complete)?;
        }
    }
    Ok(complete.join("torch"))
}

/// The folder for downloads, from the variables that say so.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = set("SIMLA_CACHE") {
        return Ok(std::path::absolute(own)?);
    }
    // A relative XDG_CACHE_HOME is to be ignored, says its specification.
    let caches = set("XDG_CACHE_HOME").filter(|folder| folder.is_absolute());
    let caches = caches.or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(caches.context("HOME is not set: set SIMLA_CACHE to a folder for downloads")?.join("simla"))
}

fn is_complete(folder: &Path) -> bool {
    LIBRARIES.iter().all(|(name, size)| folder.join(name).metadata().is_ok_and(|file| file.len() == *size))
}

/// Waits until no other process fills the cache. The lock ends with the process, however that ends.
fn lock(cache: &Path) -> Result<File> {
    let path = cache.join(format!("libtorch-{VERSION}.lock"));
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("Another `cargo xtask` is downloading libtorch: waiting for it.");
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
    .with_context(|| format!("cannot lock {}: set SIMLA_CACHE to a folder on a local disk", path.display()))?;
    Ok(file)
}

/// Downloads and unpacks everything; `complete` appears at the end or not at all.
fn fill(cache: &Path, complete: &Path) -> Result<()> {
    let partial = cache.join(format!("libtorch-{VERSION}.partial"));
    let wheels = partial.join("wheels");
    fs::create_dir_all(&wheels).with_context(|| format!("cannot create {}", wheels.display()))?;
    for entry in fs::read_dir(&partial)? {
        let path = entry?.path();
        if path != wheels {
            remove(&path)?;
        }
    }

    let missing: Vec<_> = WHEELS.iter().filter(|wheel| kept(wheel, &wheels).is_none()).collect();
    let there: u64 =
        WHEELS.iter().map(|wheel| wheel.bytes).sum::<u64>() - missing.iter().map(|wheel| wheel.bytes).sum::<u64>();
    check_space(cache, SPACE.saturating_sub(there))?;
    if !missing.is_empty() {
        download(&missing, &partial, &wheels)?;
    }

    let unpacked = partial.join("unpacked");
    let progress = Progress::start("Unpacking libtorch", WHEELS.iter().map(|wheel| wheel.kept_bytes).sum());
    let mut written = 0;
    for wheel in &WHEELS {
        let file = wheel.open(&wheels.join(wheel.name))?;
        wheel.unpack(file, &unpacked, |bytes| {
            written += bytes;
            progress.at(written);
        })?;
    }
    progress.finish();
    ensure!(is_complete(&unpacked), "the unpacked libtorch is not as expected: this is a bug of `cargo xtask`");

    // The files must be on the disk before their name is: thousands of files, so the whole file system at once.
    rustix::fs::syncfs(File::open(&unpacked)?).context("cannot write libtorch to the disk")?;
    if complete.exists() {
        fs::rename(complete, partial.join("damaged"))?;
    }
    fs::rename(&unpacked, complete)?;
    File::open(cache)?.sync_all()?;
    remove(&partial)
}

/// The whole wheel that an earlier, interrupted run left, if it did. A damaged one is removed.
fn kept(wheel: &Wheel, wheels: &Path) -> Option<File> {
    let path = wheels.join(wheel.name);
    let file = wheel.open(&path).ok();
    if file.is_none() && path.exists() {
        eprintln!("{} is damaged and is downloaded again.", path.display());
        fs::remove_file(&path).ok()?;
    }
    file
}

fn download(missing: &[&Wheel], partial: &Path, wheels: &Path) -> Result<()> {
    let pip = Pip::find()?;
    let total: u64 = missing.iter().map(|wheel| wheel.bytes).sum();
    eprintln!("There is no libtorch {VERSION} here yet. It is downloaded with pip, once, to {}.", partial.display());
    let progress = Progress::start("Downloading libtorch", total);
    let mut before = 0;
    for wheel in missing {
        // A folder of its own for each download: a pip that outlives its killed parent writes where nobody looks.
        let fetched = tempfile::tempdir_in(partial)?;
        let file = pip.download(wheel, fetched.path(), |bytes| progress.at(before + bytes.min(wheel.bytes)))?;
        wheel.open(&file)?;
        fs::rename(&file, wheels.join(wheel.name))?;
        before += wheel.bytes;
    }
    progress.finish();
    Ok(())
}

fn check_space(cache: &Path, needed: u64) -> Result<()> {
    let disk =
        rustix::fs::statvfs(cache).with_context(|| format!("cannot see the disk space of {}", cache.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    ensure!(
        free >= needed,
        "libtorch needs {} of disk space while it is set up, and {} has {}: make room, or set SIMLA_CACHE to a folder on another disk",
        HumanBytes(needed),
        cache.display(),
        HumanBytes(free)
    );
    Ok(())
}

/// Removes a file or a folder. That it is gone already is no error.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(variables: &[(&str, &str)]) -> Result<PathBuf> {
        folder(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn the_cache_is_where_the_variables_say() {
        let home = ("HOME", "/home/ada");
        assert_eq!(folder_with(&[home]).unwrap(), Path::new("/home/ada/.cache/simla"));
        assert_eq!(folder_with(&[home, ("XDG_CACHE_HOME", "/fast")]).unwrap(), Path::new("/fast/simla"));
        assert_eq!(folder_with(&[home, ("XDG_CACHE_HOME", "relative")]).unwrap(), Path::new("/home/ada/.cache/simla"));
        assert_eq!(folder_with(&[home, ("SIMLA_CACHE", "")]).unwrap(), Path::new("/home/ada/.cache/simla"));
        assert_eq!(
            folder_with(&[home, ("SIMLA_CACHE", "/own"), ("XDG_CACHE_HOME", "/fast")]).unwrap(),
            Path::new("/own")
        );
        assert!(folder_with(&[]).unwrap_err().to_string().contains("SIMLA_CACHE"));
    }

    #[test]
    fn a_copy_with_a_library_missing_or_cut_short_is_not_complete() {
        let cache = tempfile::tempdir().unwrap();
        for (name, size) in LIBRARIES {
            assert!(!is_complete(cache.path()));
            let path = cache.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().set_len(size).unwrap();
        }
        assert!(is_complete(cache.path()));
        let library = File::options().write(true).open(cache.path().join(LIBRARIES[0].0)).unwrap();
        library.set_len(LIBRARIES[0].1 - 1).unwrap();
        assert!(!is_complete(cache.path()));
    }

    #[test]
    fn the_second_process_waits_for_the_first() {
        let cache = tempfile::tempdir().unwrap();
        let first = lock(cache.path()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| lock(cache.path()).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(100));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap();
        });
    }

    #[test]
    fn a_damaged_wheel_is_removed_and_not_used() {
        let wheels = tempfile::tempdir().unwrap();
        let path = wheels.path().join(WHEELS[0].name);
        fs::write(&path, "half of a whe").unwrap();
        assert!(kept(&WHEELS[0], wheels.path()).is_none());
        assert!(!path.exists());
    }

    #[test]
    fn a_full_disk_is_told_before_the_download() {
        let cache = tempfile::tempdir().unwrap();
        check_space(cache.path(), 0).unwrap();
        let error = check_space(cache.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("SIMLA_CACHE"), "{error}");
    }
}
