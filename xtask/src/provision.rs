//! Decides which libtorch to use.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use simla_libtorch::{CPU_LIBRARY, Unfit, VERSION};

use crate::{cache, link};

/// A header without which nothing compiles; a libtorch that is only there to run programs lacks it.
const HEADER: &str = "include/torch/csrc/api/include/torch/torch.h";

/// A libtorch that programs can be built with and that loads on this machine.
#[derive(Debug, PartialEq, Eq)]
pub struct Libtorch {
    /// The folder of the headers.
    pub include: PathBuf,
    /// The folder in which `libtorch_cpu.so` finds the libraries it needs.
    pub lib: PathBuf,
    /// Its version and build, as in `2.11.0+cu130`.
    pub version: String,
}

/// Finds libtorch, downloads it if there is none, and says which one it took.
///
/// # Errors
/// If `LIBTORCH` is set to something unfit, or no libtorch is found and none can be downloaded.
pub fn libtorch(checkout: &Path) -> Result<Libtorch> {
    ensure!(
        cfg!(target_os = "linux"),
        "SIMLA runs on Linux only: on other systems use a container or a virtual machine"
    );
    check_compiler()?;

    // Cargo sets LIBTORCH to our own link folder where the user did not set it (.cargo/config.toml).
    let asked = env::var_os("LIBTORCH").map(PathBuf::from).filter(|folder| *folder != link::folder(checkout));
    if let Some(folder) = asked {
        let found = simla_libtorch::at(&folder).map_err(anyhow::Error::from).and_then(|found| buildable(&found));
        let found = found.with_context(|| {
            format!(
                "LIBTORCH={} cannot be used; set it to a folder with libtorch {VERSION}, or unset it",
                folder.display()
            )
        })?;
        return Ok(take(found, "LIBTORCH"));
    }

    for python in simla_libtorch::pythons() {
        match simla_libtorch::in_python(&python) {
            Ok(torch) => match buildable(&torch) {
                Ok(found) => return Ok(take(found, &format!("the torch of {}", python.display()))),
                Err(reason) => {
                    eprintln!("The torch of {} is not used: {reason:#}.", python.display())
                }
            },
            Err(Unfit::NoTorch { .. }) => {}
            Err(reason) => eprintln!("The torch of {} is not used: {reason}.", python.display()),
        }
    }

    let root = cache::libtorch()?;
    let found = simla_libtorch::at(&root).map_err(anyhow::Error::from).and_then(|found| buildable(&found));
    let found = found.with_context(|| format!("the libtorch in {} does not work here", root.display()))?;
    Ok(take(found, "downloaded"))
}

fn take(found: Libtorch, origin: &str) -> Libtorch {
    eprintln!("libtorch {}: {} ({origin})", found.version, found.lib.display());
    found
}

/// Checks that programs can be built with `libtorch` and started afterwards.
fn buildable(libtorch: &simla_libtorch::Libtorch) -> Result<Libtorch> {
    let root = std::path::absolute(&libtorch.root)?;
    ensure!(root.join(HEADER).is_file(), "{} has no {HEADER}", root.display());
    let given = root.join("lib");
    // `libtorch_cpu.so` looks for its libraries from the folder through which it is opened. If that folder holds only
    // links, the libraries are where the links lead.
    let real = given.join(CPU_LIBRARY).canonicalize()?.parent().context("a file in no folder")?.to_path_buf();
    let missing = missing_libraries(&given.join(CPU_LIBRARY));
    let lib = if missing.is_empty() {
        given
    } else if real != given && missing_libraries(&real.join(CPU_LIBRARY)).is_empty() {
        real
    } else {
        bail!("{} does not load on this machine: {}", given.join(CPU_LIBRARY).display(), missing.join("; "));
    };
    Ok(Libtorch { include: root.join("include"), lib, version: libtorch.to_string() })
}

/// The lines in which `ldd` complains about `library`; none where `ldd` itself is missing.
fn missing_libraries(library: &Path) -> Vec<String> {
    let ldd = Command::new("ldd").arg(library).env("LC_ALL", "C").output();
    let Ok(output) = ldd else { return Vec::new() };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().filter(|line| line.contains("not found")).map(|line| line.trim().to_owned()).collect()
}

/// libtorch's interface is compiled from C++.
fn check_compiler() -> Result<()> {
    let compiler = env::var_os("CXX").filter(|value| !value.is_empty()).unwrap_or_else(|| "c++".into());
    // CXX may hold a command with arguments (`ccache g++`): only its program is looked for.
    let program = compiler.to_string_lossy().split_whitespace().next().unwrap_or("c++").to_owned();
    let found = Command::new(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ensure!(
        found.is_ok(),
        "the C++ compiler `{program}` was not found: install one (Debian, Ubuntu: `apt install g++`; Fedora: `dnf install gcc-c++`)"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn libtorch_in(root: &Path) -> simla_libtorch::Libtorch {
        simla_libtorch::Libtorch { root: root.into(), build: Some("cpu".into()) }
    }

    #[test]
    fn headers_are_required() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::write(folder.path().join("lib").join(CPU_LIBRARY), "").unwrap();
        let error = buildable(&libtorch_in(folder.path())).unwrap_err().to_string();
        assert!(error.contains(HEADER), "{error}");
    }

    #[test]
    fn headers_and_a_library_that_needs_nothing_missing_are_enough() {
        let folder = tempfile::tempdir().unwrap();
        let header = folder.path().join(HEADER);
        fs::create_dir_all(header.parent().unwrap()).unwrap();
        fs::write(header, "").unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        // Any program of this machine loads on this machine: here the test itself.
        fs::copy(env::current_exe().unwrap(), folder.path().join("lib").join(CPU_LIBRARY)).unwrap();
        let found = buildable(&libtorch_in(folder.path())).unwrap();
        assert_eq!(found.include, folder.path().join("include"));
        assert_eq!(found.lib, folder.path().join("lib"));
        assert_eq!(found.version, "2.11.0+cpu");
    }
}
