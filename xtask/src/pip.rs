//! Downloads, checks and unpacks packages with the user's pip, which knows the user's mirrors, proxies and certificates.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The pinned packages, with their hashes.
pub const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/requirements.txt");

/// A pip that works: a program and its first arguments.
pub struct Pip {
    program: PathBuf,
    arguments: &'static [&'static str],
}

impl Pip {
    /// Looks for pip in the active Python environment, then on the path.
    ///
    /// # Errors
    /// If there is none, with what to do about it.
    pub fn find() -> Result<Self> {
        let module: &[&str] = &["-m", "pip"];
        let pythons = simla_libtorch::pythons().into_iter().chain([PathBuf::from("python")]);
        let candidates = pythons.map(|python| (python, module)).chain([("pip3".into(), &[][..]), ("pip".into(), &[])]);
        for (program, arguments) in candidates {
            let mut command = Command::new(&program);
            command.args(arguments).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if command.status().is_ok_and(|status| status.success()) {
                return Ok(Self { program, arguments });
            }
        }
        bail!(
            "there is no libtorch {version} on this machine, and no pip to download it with. Do one of these and start again:
  - install pip (Debian, Ubuntu: `apt install python3-pip`; Fedora: `dnf install python3-pip`),
  - install torch {version} in a Python environment and activate it,
  - set LIBTORCH to a folder with libtorch {version} (with include/ and lib/).",
            version = simla_libtorch::VERSION
        )
    }

    /// Unpacks the packages of [`REQUIREMENTS`] into the folder `target`; downloads and what else is for a while go to
    /// `scratch`, on the same disk. What pip says is seen. It holds `lock` as its standard input (an empty file), so that
    /// the lock lasts as long as a pip that outlives us.
    ///
    /// # Errors
    /// If pip fails: the network, a full disk, or a file with another hash.
    pub fn unpack(&self, target: &Path, scratch: &Path, lock: &File) -> Result<()> {
        let mut pip = Command::new(&self.program);
        pip.args(self.arguments)
            .args(["install", "--no-deps", "--only-binary=:all:", "--require-hashes", "--no-compile"])
            // One file for everyone: it does not matter which Python this machine has, nothing of Python is used.
            .args(["--implementation", "cp", "--python-version", "3.12"])
            .args(["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_25_x86_64"])
            .args(["--platform", "manylinux2014_x86_64"])
            // The wheels are used once: a second copy in pip's own cache would stay for ever.
            .args(["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--root-user-action", "ignore"])
            .arg("--target")
            .arg(target)
            .args(["--requirement", REQUIREMENTS])
            // /tmp may be small, or memory.
            .env("TMPDIR", scratch)
            // Rules of the user's for what is installed into an environment do not concern a folder of ours.
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .env("PIP_USER", "0")
            .stdin(lock.try_clone()?)
            // Ours is for results.
            .stdout(std::io::stderr());
        let status = pip.status().with_context(|| format!("cannot start {}", self.program.display()))?;
        ensure!(
            status.success(),
            "pip could not download libtorch ({status}), as it says above: check the network, or pip's configuration (`pip config list`), and start again"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_has_one_version_and_one_file() {
        let text = std::fs::read_to_string(REQUIREMENTS).unwrap();
        let pins: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(pins[0].starts_with(&format!("torch=={} ", simla_libtorch::VERSION)), "{text}");
        for pin in pins {
            let (name, hash) = pin.split_once(" --hash=sha256:").unwrap();
            assert_eq!((name.matches("==").count(), hash.len()), (1, 64), "{pin}");
        }
    }
}
