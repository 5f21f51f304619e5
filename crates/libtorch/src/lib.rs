//! Finds the libtorch that a machine already has, its version and its build.
//!
//! Two need to know: the installer (`cargo xtask`), which links the CPU libraries, and `simla` itself, which opens the
//! CUDA library of the same build when a GPU is asked for. Nothing here links to torch or loads it.

#![warn(missing_docs, unreachable_pub)]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The one release of libtorch that `tch` 0.24 is made for. libtorch promises no binary compatibility between releases.
pub const VERSION: &str = "2.11.0";

/// The library that every build of libtorch has.
pub const CPU_LIBRARY: &str = "libtorch_cpu.so";

/// The library that only builds for NVIDIA's GPUs have.
pub const CUDA_LIBRARY: &str = "libtorch_cuda.so";

const FIND_TORCH: &str = include_str!("find_torch.py");

/// A folder with libtorch of version [`VERSION`]: an unpacked libtorch archive, or the `torch` package of a Python.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Libtorch {
    /// The folder that holds `lib/` and, if it can be built with, `include/`.
    pub root: PathBuf,
    /// What it was built for, such as `cpu`, `cu126` or `cu130`; nothing where the folder tells the version alone.
    pub build: Option<String>,
}

impl Libtorch {
    /// The folder of the shared libraries.
    pub fn lib(&self) -> PathBuf {
        self.root.join("lib")
    }

    /// `libtorch_cuda.so`, if this build has it.
    pub fn cuda_library(&self) -> Option<PathBuf> {
        Some(self.lib().join(CUDA_LIBRARY)).filter(|library| library.is_file())
    }

    /// The oldest NVIDIA driver that this build runs with, as in the release notes of CUDA; nothing for other builds.
    pub fn oldest_driver(&self) -> Option<u32> {
        match self.build.as_deref()?.strip_prefix("cu")?.get(..2)? {
            "13" => Some(580),
            "12" => Some(525),
            "11" => Some(450),
            _ => None,
        }
    }

    /// Whether libraries of both can be loaded into one program. A build that is not known is believed to fit.
    fn fits(&self, other: &Self) -> bool {
        self.build.is_none() || other.build.is_none() || self.build == other.build
    }
}

/// The version as the folder says it: `2.11.0+cu130`.
impl fmt::Display for Libtorch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(VERSION)?;
        self.build.as_ref().map_or(Ok(()), |build| write!(f, "+{build}"))
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
    /// The folder has no CUDA library.
    #[error("{} has libtorch {found} without lib/{CUDA_LIBRARY}", found.root.display())]
    NoCudaLibrary {
        /// What was found.
        found: Libtorch,
    },
    /// The folder holds the right version, built for another CUDA than the libtorch that the program runs with.
    #[error(
        "{} has libtorch {found}, and this program runs with libtorch {running} from {}: one program cannot use two builds; start it with LD_LIBRARY_PATH={} to run with the first alone",
        found.root.display(),
        running.root.display(),
        found.lib().display()
    )]
    OtherBuild {
        /// What was found.
        found: Libtorch,
        /// What the program runs with.
        running: Libtorch,
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
    let text = version(&root).ok_or_else(|| Unfit::NoVersion { root: root.clone() })?;
    let (found, build) = match text.split_once('+') {
        Some((version, build)) => (version, Some(build.to_owned())),
        None => (&*text, None),
    };
    if found != VERSION {
        return Err(Unfit::OtherVersion { root, found: found.into() });
    }
    Ok(Libtorch { root, build })
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

/// The libtorch that this program runs with, from the list of its loaded files; nothing if it runs with none of [`VERSION`].
pub fn running() -> Option<Libtorch> {
    // A line is `7f00-7f01 r-xp 00000000 fe:00 1234   /path/lib/libtorch_cpu.so`.
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let library = paths.find(|path| path.file_name().is_some_and(|name| name == CPU_LIBRARY))?;
    at(library.parent()?.parent()?).ok()
}

/// No CUDA library fits the libtorch that the program runs with.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no {CUDA_LIBRARY} that fits: install it with `pip install torch=={VERSION}` in a Python environment that you activate, or set LIBTORCH to a folder with a CUDA build of libtorch {VERSION}{}",
    searched.iter().map(|place| format!("\n  looked in {place}")).collect::<String>()
)]
pub struct NoCuda {
    /// The places that were looked at and what was wrong with each.
    pub searched: Vec<String>,
}

/// The first libtorch whose CUDA library fits the libtorch that runs: `LIBTORCH`, the running one itself, a Python's.
///
/// # Errors
/// If there is none, with the places that were looked at.
pub fn with_cuda() -> Result<Libtorch, NoCuda> {
    let running = running();
    let asked = std::env::var_os("LIBTORCH").map(|root| ("LIBTORCH".to_owned(), at(Path::new(&root))));
    let own = running.clone().map(|libtorch| ("the libtorch that runs".to_owned(), Ok(libtorch)));
    let pythons = pythons().into_iter().map(|python| (format!("the Python {}", python.display()), in_python(&python)));
    first_with_cuda(asked.into_iter().chain(own).chain(pythons), running.as_ref())
}

fn first_with_cuda(
    places: impl Iterator<Item = (String, Result<Libtorch, Unfit>)>,
    running: Option<&Libtorch>,
) -> Result<Libtorch, NoCuda> {
    let mut searched = Vec::new();
    for (place, found) in places {
        match found.and_then(|found| cuda_beside(found, running)) {
            Ok(found) => return Ok(found),
            Err(reason) => searched.push(format!("{place}: {reason}")),
        }
    }
    Err(NoCuda { searched })
}

/// `found`, if it has a CUDA library that can be loaded beside `running`.
fn cuda_beside(found: Libtorch, running: Option<&Libtorch>) -> Result<Libtorch, Unfit> {
    if found.cuda_library().is_none() {
        return Err(Unfit::NoCudaLibrary { found });
    }
    match running {
        Some(running) if !running.fits(&found) => Err(Unfit::OtherBuild { found, running: running.clone() }),
        _ => Ok(found),
    }
}

/// The version of the libtorch in `root`, with the suffix of a build such as `+cu130` if it is told.
fn version(root: &Path) -> Option<String> {
    // An unpacked libtorch archive has the first, a Python package the second, a system's package only the headers.
    let read = |name: &str| fs::read_to_string(root.join(name)).ok();
    let text = read("build-version")
        .or_else(|| python_version(&read("version.py")?))
        .or_else(|| header_version(&read("include/torch/headeronly/version.h")?))
        .or_else(|| header_version(&read("include/torch/csrc/api/include/torch/version.h")?))?;
    Some(text.trim().to_owned())
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
        for (name, text, version) in [
            ("build-version", "2.11.0+cpu\n", "2.11.0+cpu"),
            (
                "version.py",
                "from typing import Optional\n__version__ = '2.11.0+cu130'\ndebug = False\n",
                "2.11.0+cu130",
            ),
            ("include/torch/headeronly/version.h", header, "2.11.0"),
            ("include/torch/csrc/api/include/torch/version.h", header, "2.11.0"),
        ] {
            let folder = libtorch(&[(name, text)]);
            let found = at(folder.path()).unwrap();
            assert_eq!((found.lib(), &*found.to_string()), (folder.path().join("lib"), version), "{name}");
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
        assert_eq!(in_python(&python), Ok(Libtorch { root: torch.path().into(), build: None }));

        let without = fake_python(bin.path(), "");
        assert_eq!(in_python(&without), Err(Unfit::NoTorch { python: without.clone() }));
        let missing = bin.path().join("no-such-python");
        assert_eq!(in_python(&missing), Err(Unfit::NoTorch { python: missing.clone() }));
    }

    #[test]
    fn a_cuda_library_of_another_build_is_refused_and_both_are_named() {
        let of = |version: &str| libtorch(&[("build-version", version), ("lib/libtorch_cuda.so", "")]);
        let (cu130, cu126, unknown) = (of("2.11.0+cu130"), of("2.11.0+cu126"), of("2.11.0"));
        let cpu = libtorch(&[("build-version", "2.11.0+cpu")]);
        let search = |places: &[&tempfile::TempDir], running: Option<&tempfile::TempDir>| {
            let places = places.iter().map(|folder| (folder.path().display().to_string(), at(folder.path())));
            first_with_cuda(places, running.map(|folder| at(folder.path()).unwrap()).as_ref())
        };
        for running in [Some(&cu130), Some(&unknown), None] {
            let found = search(&[&cpu, &cu130], running).unwrap();
            assert_eq!(found.cuda_library(), Some(cu130.path().join("lib/libtorch_cuda.so")));
        }
        assert_eq!(search(&[&cu126, &cu130], Some(&cu130)).unwrap().root, cu130.path());
        assert_eq!(search(&[&unknown], Some(&cu130)).unwrap().root, unknown.path());

        for running in [&cu130, &cpu] {
            let error = search(&[&cpu, &cu126], Some(running)).unwrap_err();
            let other = at(running.path()).unwrap().to_string();
            let advice = format!("LD_LIBRARY_PATH={}", cu126.path().join("lib").display());
            assert!(error.searched[0].contains("2.11.0+cpu without lib/libtorch_cuda.so"), "{error}");
            for words in ["2.11.0+cu126", &other, &advice, "one program cannot use two builds"] {
                assert!(error.searched[1].contains(words), "{words}: {error}");
            }
        }
    }

    #[test]
    fn the_oldest_driver_follows_from_the_build() {
        let of = |build: &str| Libtorch { root: "x".into(), build: Some(build.into()) }.oldest_driver();
        let builds = ["cu130", "cu126", "cu128", "cu118", "cpu", "rocm6.4", "cu"];
        assert_eq!(builds.map(of), [Some(580), Some(525), Some(525), Some(450), None, None, None]);
    }

    #[test]
    fn a_program_without_libtorch_runs_with_none() {
        assert_eq!(running(), None);
    }
}
