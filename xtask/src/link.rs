//! The folder `.libtorch` of the checkout: what the build sees of libtorch.
//!
//! It has the CPU libraries only, whatever the libtorch behind it has. So one binary serves CPU and GPU: `simla` opens the
//! CUDA library itself when it is asked for a GPU. `.cargo/config.toml` points every build of the checkout here.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use simla_libtorch::CPU_LIBRARY;

use crate::provision::Libtorch;

/// The folder that the build links with.
pub fn folder(checkout: &Path) -> PathBuf {
    checkout.join(".libtorch")
}

/// Makes the folder, or brings it up to date. What is right already is left alone, so that nothing is rebuilt.
///
/// # Errors
/// If the checkout cannot be written to.
pub fn make(checkout: &Path, libtorch: &Libtorch) -> Result<()> {
    let folder = folder(checkout);
    fill(&folder, libtorch).with_context(|| format!("cannot write {}", folder.display()))
}

fn fill(folder: &Path, libtorch: &Libtorch) -> Result<()> {
    let lib = folder.join("lib");
    fs::create_dir_all(&lib)?;
    place_link(&folder.join("include"), &libtorch.include)?;
    place_link(&lib.join(CPU_LIBRARY), &libtorch.lib.join(CPU_LIBRARY))?;
    place_link(&lib.join("libc10.so"), &libtorch.lib.join("libc10.so"))?;
    if let Some(openmp) = openmp(&libtorch.lib)? {
        place_link(&lib.join("libgomp.so"), &openmp)?;
    }
    // The real libtorch.so is empty but needs libtorch_cuda.so. As this linker script it stands for the CPU library alone.
    place_text(&lib.join("libtorch.so"), &format!("INPUT({CPU_LIBRARY})\n"))?;
    place_text(&folder.join("build-version"), &libtorch.version)?;
    // Where programs look for the libraries when they run: build.rs reads it. Not `lib` here, because `libtorch_cpu.so`
    // finds its own libraries from the folder through which it is opened.
    let real = libtorch.lib.to_str().context("the path of libtorch is not UTF-8")?;
    place_text(&folder.join("lib-folder"), real)
}

/// The OpenMP library that comes with libtorch: `libgomp.so.1`, or in some builds `libgomp-<hash>.so.1`. Two different
/// ones in one program would each start their own threads.
fn openmp(lib: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(lib)? {
        let name = entry?.file_name();
        let found = name.to_str().is_some_and(|name| name.starts_with("libgomp") && name.contains(".so"));
        if found {
            return Ok(Some(lib.join(name)));
        }
    }
    Ok(None)
}

/// Makes the link `at` lead to `target`, under another name first: a build that runs meanwhile sees the old or the new.
fn place_link(at: &Path, target: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|there| there == target) {
        return Ok(());
    }
    let new = at.with_file_name(format!(".new-{}", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    symlink(target, &new)?;
    Ok(fs::rename(&new, at)?)
}

/// Makes the file `at` hold `text`.
fn place_text(at: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(at).is_ok_and(|there| there == text) {
        return Ok(());
    }
    Ok(simla_files::write_atomically(at, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn libtorch(folder: &Path, openmp: &str) -> Libtorch {
        let (include, lib) = (folder.join("include"), folder.join("lib"));
        fs::create_dir_all(&include).unwrap();
        fs::create_dir_all(&lib).unwrap();
        for name in [CPU_LIBRARY, "libc10.so", "libtorch_cuda.so", openmp] {
            fs::write(lib.join(name), folder.display().to_string()).unwrap();
        }
        Libtorch { include, lib, version: "2.11.0+cu130".into() }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_build_sees_the_cpu_libraries_only() {
        let (checkout, cuda) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let libtorch = libtorch(cuda.path(), "libgomp-98b21ff3.so.1");
        make(checkout.path(), &libtorch).unwrap();
        let link = folder(checkout.path());
        assert_eq!(names(&link), ["build-version", "include", "lib", "lib-folder"]);
        assert_eq!(names(&link.join("lib")), ["libc10.so", "libgomp.so", "libtorch.so", "libtorch_cpu.so"]);
        assert_eq!(fs::read_to_string(link.join("lib/libtorch.so")).unwrap(), "INPUT(libtorch_cpu.so)\n");
        assert_eq!(fs::read_to_string(link.join("lib-folder")).unwrap(), libtorch.lib.display().to_string());
        assert_eq!(simla_libtorch::at(&link).unwrap().to_string(), libtorch.version);
    }

    #[test]
    fn another_libtorch_replaces_the_first_and_the_same_changes_nothing() {
        let checkout = tempfile::tempdir().unwrap();
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = folder(checkout.path());
        let written = |name: &str| link.join(name).symlink_metadata().unwrap().modified().unwrap();
        let files = ["build-version", "include", "lib-folder", "lib/libtorch.so", "lib/libc10.so"];

        make(checkout.path(), &libtorch(first.path(), "libgomp.so.1")).unwrap();
        let before = files.map(written);
        make(checkout.path(), &libtorch(first.path(), "libgomp.so.1")).unwrap();
        assert_eq!(files.map(written), before);

        make(checkout.path(), &libtorch(second.path(), "libgomp.so.1")).unwrap();
        let library = fs::read_to_string(link.join("lib/libtorch_cpu.so")).unwrap();
        assert_eq!(library, second.path().display().to_string());
        assert_eq!(fs::read_link(link.join("include")).unwrap(), second.path().join("include"));
    }
}
