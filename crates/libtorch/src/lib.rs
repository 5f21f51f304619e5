//! Finds the libtorch that a machine already has, and its version.
//!
//! Two need to know: the installer (`cargo xtask`), which links the CPU libraries, and `simla` itself, which opens the
//! CUDA library of the same version when a GPU is asked for. Nothing here links to torch or loads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The one release of libtorch that `tch` 0.24 is made for. libtorch promises no binary compatibility between releases.
pub const VERSION: &str = "2.11.0";

/// The library that every build of libtorch has.
pub const CPU_LIBRARY: &str = "libtorch_cpu.so";

const FIND_TORCH: &str = include_str!("find_torch.py");

/// A folder with libtorch of version [`VERSION`]: an unpacked libtorch archive, or the `torch` package of a Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libtorch {
    /// The folder that holds `lib/` and, if it can be built with, `include/`.
    pub root: PathBuf,
}

impl Libtorch {
    /// The folder of the shared libraries.
    pub fn lib(&self) -> PathBuf {
        self.root.join("lib")
    }
}

/// Why a folder or a Python is not the libtorch that is needed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unfit {
    /// The folder has no `lib/libtorch_cpu.so`.
    #[error("{} has no lib/{CPU_LIBRARY}", root.display())]
    NoLibrary {
        /// The folder that was looked at.
        root: PathBuf,
    },
    /// Nothing in the folder says which version it is.
    #[error(
        "the version of the libtorch in {} is unknown: it has neither build-version, nor version.py, nor include/torch/headeronly/version.h",
        root.display()
    )]
    NoVersion {
        /// The folder that was looked at.
        root: PathBuf,
    },
    /// The folder holds another version.
    #[error("{} has libtorch {found}, and {VERSION} is needed", root.display())]
    OtherVersion {
        /// The folder that was looked at.
        root: PathBuf,
        /// The version it has.
        found: String,
    },
    /// The Python cannot be started or has no package `torch`.
    #[error("{} has no torch", python.display())]
    NoTorch {
        /// The Python that was asked.
        python: PathBuf,
    },
}

/// The libtorch in `root`, the folder that holds `lib/`.
///
/// # Errors
/// If the folder has no libtorch, or not version [`VERSION`].
pub fn at(root: &Path) -> Result<Libtorch, Unfit> {
    let root = root.to_path_buf();
    if !root.join("lib").join(CPU_LIBRARY).is_file() {
        return Err(Unfit::NoLibrary { root });
    }
    match version(&root) {
        None => Err(Unfit::NoVersion { root }),
        Some(found) if found == VERSION => Ok(Libtorch { root }),
        Some(found) => Err(Unfit::OtherVersion { root, found }),
    }
}

/// The libtorch inside the `torch` package of `python`.
///
/// # Errors
/// If the Python does not start or has no torch, or not version [`VERSION`].
pub fn in_python(python: &Path) -> Result<Libtorch, Unfit> {
    let no_torch = || Unfit::NoTorch { python: python.to_path_buf() };
    let output = Command::new(python).args(["-c", FIND_TORCH]).stdin(Stdio::null()).output().map_err(|_| no_torch())?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let folder = printed.trim();
    if !output.status.success() || folder.is_empty() {
        return Err(no_torch());
    }
    at(Path::new(folder))
}

/// The Pythons to ask, the one of the active environment first.
pub fn pythons() -> Vec<PathBuf> {
    let active = std::env::var_os("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("bin/python"));
    active.into_iter().chain([PathBuf::from("python3")]).collect()
}

/// The version of the libtorch in `root`, without a build's suffix such as `+cu130`.
fn version(root: &Path) -> Option<String> {
    // An unpacked libtorch archive has the first, a Python package the second, a system's package only the headers.
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    let text = read("build-version")
        .or_else(|| python_version(&read("version.py")?))
        .or_else(|| header_version(&read("include/torch/headeronly/version.h")?))
        .or_else(|| header_version(&read("include/torch/csrc/api/include/torch/version.h")?))?;
    text.trim().split('+').next().map(str::to_owned)
}

/// The value of `__version__ = '2.11.0+cu130'`.
fn python_version(text: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix("__version__ ="))?;
    Some(value.trim().trim_matches(['\'', '"']).to_owned())
}

/// The three numbers of `#define TORCH_VERSION_MAJOR 2` and so on.
fn header_version(text: &str) -> Option<String> {
    let number = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix("#define TORCH_VERSION_")?.strip_prefix(name))?;
        value.trim().parse::<u32>().ok()
    };
    Some(format!("{}.{}.{}", number("MAJOR ")?, number("MINOR ")?, number("PATCH ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with an (empty) libtorch_cpu.so and the given files.
    fn libtorch(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files.iter().chain(&[("lib/libtorch_cpu.so", "")]) {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        folder
    }

    /// A program that prints `text`, in the place of a Python.
    fn fake_python(folder: &Path, text: &str) -> PathBuf {
        // Written by another process: a file that this one has open for writing cannot be started by its other threads.
        let script = "printf '#!/bin/sh\\necho \"%s\"\\n' \"$1\" > python && chmod +x python";
        let status = Command::new("sh").args(["-c", script, "sh", text]).current_dir(folder).status();
        assert!(status.unwrap().success());
        folder.join("python")
    }

    #[test]
    fn every_kind_of_installation_tells_its_version() {
        let header = "#define TORCH_VERSION_MAJOR 2\n\n/// comment\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n";
        for (name, text) in [
            ("build-version", "2.11.0+cpu\n"),
            ("version.py", "from typing import Optional\n__version__ = '2.11.0+cu130'\ndebug = False\n"),
            ("include/torch/headeronly/version.h", header),
            ("include/torch/csrc/api/include/torch/version.h", header),
        ] {
            let folder = libtorch(&[(name, text)]);
            assert_eq!(at(folder.path()).unwrap().lib(), folder.path().join("lib"), "{name}");
        }
    }

    #[test]
    fn another_version_is_named() {
        for found in ["2.10.0", "2.11.1", "2.1.0", "12.11.0"] {
            let folder = libtorch(&[("version.py", &format!("__version__ = '{found}+cpu'\n"))]);
            let error = at(folder.path()).unwrap_err();
            assert_eq!(error, Unfit::OtherVersion { root: folder.path().into(), found: found.into() });
            assert!(error.to_string().contains(found) && error.to_string().contains(VERSION));
        }
    }

    #[test]
    fn a_folder_without_libtorch_or_version_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(at(empty.path()), Err(Unfit::NoLibrary { root: empty.path().into() }));
        let nameless = libtorch(&[("version.py", "debug = False\n")]);
        assert_eq!(at(nameless.path()), Err(Unfit::NoVersion { root: nameless.path().into() }));
    }

    #[test]
    fn a_python_is_asked_for_its_torch() {
        let torch = libtorch(&[("version.py", "__version__ = \"2.11.0\"\n")]);
        let bin = tempfile::tempdir().unwrap();
        let python = fake_python(bin.path(), &torch.path().display().to_string());
        assert_eq!(in_python(&python), Ok(Libtorch { root: torch.path().into() }));

        let without = fake_python(bin.path(), "");
        assert_eq!(in_python(&without), Err(Unfit::NoTorch { python: without.clone() }));
        let missing = bin.path().join("no-such-python");
        assert_eq!(in_python(&missing), Err(Unfit::NoTorch { python: missing.clone() }));
    }
}
