//! Downloads wheels with the user's pip, which knows the user's mirrors, proxies and certificates.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::wheel::Wheel;

/// How often the size of a download is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How much of pip's messages is shown when it fails.
const LAST_LINES: usize = 12;

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

    /// Downloads `wheel` into the empty folder `folder` and returns the file; `arrived` hears how many bytes are there.
    ///
    /// # Errors
    /// If pip fails, with its last messages.
    pub fn download(&self, wheel: &Wheel, folder: &Path, arrived: impl Fn(u64)) -> Result<PathBuf> {
        let requirements = folder.join("requirements.txt");
        fs::write(&requirements, wheel.requirement())?;
        let messages = folder.join("messages");
        let files = folder.join("files");
        fs::create_dir(&files)?;
        let log = File::create(&messages)?;
        let mut pip = Command::new(&self.program);
        pip.args(self.arguments)
            .args(["download", "--no-deps", "--only-binary=:all:", "--require-hashes"])
            // One file for everyone: it does not matter which Python this machine has, nothing of Python is used.
            .args(["--implementation", "cp", "--python-version", "3.12"])
            .args(["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_25_x86_64"])
            .args(["--platform", "manylinux2014_x86_64"])
            // The wheel is used once: a second copy in pip's own cache would stay for ever.
            .args(["--no-cache-dir", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"])
            .arg("--dest")
            .arg(&files)
            .arg("--requirement")
            .arg(&requirements)
            // /tmp may be small, or memory.
            .env("TMPDIR", &files)
            // This installs nothing, so a rule that packages go into an environment only does not concern it.
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut running = pip.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let status = loop {
            if let Some(status) = running.try_wait()? {
                break status;
            }
            arrived(size(&files));
            std::thread::sleep(LOOK_EVERY);
        };
        if !status.success() {
            bail!(
                "pip could not download {} {} ({status}). Its last messages:\n{}\nCheck the network, or pip's configuration (`pip config list`), and start again.",
                wheel.name,
                wheel.version,
                last_lines(&fs::read_to_string(&messages).unwrap_or_default())
            );
        }
        arrived(wheel.bytes);
        let file = entries(&files)
            .find(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(|name| wheel.is_file(name)));
        file.with_context(|| format!("pip downloaded no file of {} {}", wheel.name, wheel.version))
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The bytes of all files in `folder`. What vanishes meanwhile counts nothing.
fn size(folder: &Path) -> u64 {
    entries(folder)
        .map(|path| match path.symlink_metadata() {
            Ok(entry) if entry.is_dir() => size(&path),
            Ok(entry) => entry.len(),
            Err(_) => 0,
        })
        .sum()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let kept = &lines[lines.len().saturating_sub(LAST_LINES)..];
    kept.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// Whether downloads fit this machine: the wheels hold machine code for Linux on x86-64.
///
/// # Errors
/// On another machine, with what to do there.
pub fn check_platform() -> Result<()> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(());
    }
    bail!(
        "libtorch is downloaded for Linux on x86-64 only, and this is {} on {}: install torch {version} in a Python environment and activate it, or set LIBTORCH to a folder with libtorch {version}",
        env::consts::OS,
        env::consts::ARCH,
        version = simla_libtorch::VERSION
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wheel::WHEELS;

    /// A pip that does what the shell script says; `$TMPDIR` is where the download should go.
    fn pip(folder: &Path, script: &str) -> Pip {
        fs::write(folder.join("script"), script).unwrap();
        // Written by another process: a file that this one has open for writing cannot be started by its other threads.
        let make = "printf '#!/bin/sh\\n. %s/script\\n' \"$PWD\" > fake-pip && chmod +x fake-pip";
        let status = Command::new("sh").args(["-c", make]).current_dir(folder).status();
        assert!(status.unwrap().success());
        Pip { program: folder.join("fake-pip"), arguments: &[] }
    }

    #[test]
    fn the_file_is_found_and_its_growth_reported() {
        let (bin, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = "nvidia_cuda_cupti-13.0.85-py3-none-any.whl";
        let script = format!(
            "mkdir $TMPDIR/part && echo 12345 > $TMPDIR/part/x && sleep 1
grep -q 'nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb0' $TMPDIR/../requirements.txt && touch $TMPDIR/{file}"
        );
        let most = std::cell::Cell::new(0);
        let found =
            pip(bin.path(), &script).download(&WHEELS[1], folder.path(), |bytes| most.set(most.get().max(bytes)));
        assert_eq!(found.unwrap(), folder.path().join("files").join(file));
        assert_eq!(most.get(), WHEELS[1].bytes);
    }

    #[test]
    fn what_pip_says_is_shown_when_it_fails() {
        let (bin, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let script = "seq 1 50; echo 'ERROR: No space left on device' >&2; exit 3";
        let error = pip(bin.path(), script).download(&WHEELS[0], folder.path(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("No space left on device") && error.contains("    50\n"), "{error}");
        assert!(!error.contains("    20\n"), "{error}");
        assert!(error.contains("nvidia-cuda-runtime 13.0.96"), "{error}");
    }
}
