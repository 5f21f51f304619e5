//! The downloaded libtorch: one copy for each user, shared by all checkouts.
//!
//! The folder `libtorch-2.11.0` appears by one rename when all of it is written, so whoever sees it can use it. Everything
//! before that happens in `libtorch-2.11.0.partial`, which belongs to those who hold the lock: one process and its pip.
//! What a killed one left there is removed.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use simla_libtorch::VERSION;

use crate::pip::Pip;

/// The libraries, with their sizes, to notice a copy that someone damaged.
const LIBRARIES: [(&str, u64); 5] = [
    ("torch/lib/libtorch_cpu.so", 451_209_129),
    ("torch/lib/libc10.so", 1_498_969),
    ("torch/lib/libgomp.so.1", 254_009),
    ("nvidia/cu13/lib/libcudart.so.13", 704_288),
    ("nvidia/cu13/lib/libcupti.so.13", 4_152_208),
];

/// What else is kept of the packages.
const OTHERS: [&str; 2] = ["torch/include", "torch/version.py"];

/// The disk space for the wheels and all that is in them: 0.5 and 1.2 GB, and what file systems add.
const SPACE: u64 = 2_000_000_000;

/// The root of the downloaded libtorch, which is downloaded first if it is not there.
///
/// # Errors
/// If the machine is of another kind, there is no pip, too little disk space, or the download fails.
pub fn libtorch() -> Result<PathBuf> {
    let cache = folder(|name| env::var_os(name))?;
    let complete = cache.join(format!("libtorch-{VERSION}"));
    if !is_complete(&complete) {
        check_platform()?;
        fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let lock = lock(&cache)?;
        // Another process may have been faster.
        if !is_complete(&complete) {
            fill(&cache, &complete, &lock)?;
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
fn fill(cache: &Path, complete: &Path, lock: &File) -> Result<()> {
    let partial = cache.join(format!("libtorch-{VERSION}.partial"));
    remove(&partial)?;
    check_space(cache, SPACE)?;
    let pip = Pip::find()?;
    let [packages, scratch, kept] = ["packages", "scratch", "kept"].map(|name| partial.join(name));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    eprintln!(
        "There is no libtorch {VERSION} here yet. pip downloads it, once: 550 MB, of which 500 MB stay unpacked."
    );
    pip.unpack(&packages, &scratch, lock)?;
    for name in LIBRARIES.iter().map(|(name, _)| *name).chain(OTHERS) {
        keep(name, &packages, &kept)?;
    }
    ensure!(is_complete(&kept), "the unpacked libtorch is not as expected: this is a bug of `cargo xtask`");

    // The files must be on the disk before their name is: thousands of files, so the whole file system at once.
    rustix::fs::syncfs(File::open(&kept)?).context("cannot write libtorch to the disk")?;
    if complete.exists() {
        fs::rename(complete, partial.join("damaged"))?;
    }
    fs::rename(&kept, complete)?;
    File::open(cache)?.sync_all()?;
    remove(&partial)
}

/// Moves a file or folder of the packages to the same place in `kept`.
fn keep(name: &str, packages: &Path, kept: &Path) -> Result<()> {
    let to = kept.join(name);
    fs::create_dir_all(to.parent().context("a file in no folder")?)?;
    fs::rename(packages.join(name), to).with_context(|| format!("the packages have no {name} that can be moved"))
}

/// Whether downloads fit this machine: the wheels hold machine code for Linux on x86-64.
fn check_platform() -> Result<()> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(());
    }
    bail!(
        "libtorch is downloaded for Linux on x86-64 only, and this is {} on {}: install torch {VERSION} in a Python environment and activate it, or set LIBTORCH to a folder with libtorch {VERSION}",
        env::consts::OS,
        env::consts::ARCH
    )
}

fn check_space(cache: &Path, needed: u64) -> Result<()> {
    let disk =
        rustix::fs::statvfs(cache).with_context(|| format!("cannot see the disk space of {}", cache.display()))?;
    let free = disk.f_bavail * disk.f_frsize;
    ensure!(
        free >= needed,
        "libtorch needs {:.1} GB of disk space while it is set up, and {} has {:.1} GB: make room, or set SIMLA_CACHE to a folder on another disk",
        needed as f64 / 1e9,
        cache.display(),
        free as f64 / 1e9
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
    fn the_lock_lasts_as_long_as_a_pip_that_holds_it() {
        let cache = tempfile::tempdir().unwrap();
        let lock_file = lock(cache.path()).unwrap();
        let mut pip =
            std::process::Command::new("sleep").arg("60").stdin(lock_file.try_clone().unwrap()).spawn().unwrap();
        drop(lock_file); // as when its parent is killed
        let path = cache.path().join(format!("libtorch-{VERSION}.lock"));
        let free = || File::open(&path).unwrap().try_lock().is_ok();
        assert!(!free());
        pip.kill().unwrap();
        pip.wait().unwrap();
        assert!(free());
    }

    #[test]
    fn a_full_disk_is_told_before_the_download() {
        let cache = tempfile::tempdir().unwrap();
        check_space(cache.path(), 0).unwrap();
        let error = check_space(cache.path(), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("SIMLA_CACHE"), "{error}");
    }
}
