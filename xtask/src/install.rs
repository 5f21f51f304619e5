//! Puts the program where every shell finds it, with its completions and man pages, and takes exactly that away again.
//!
//! What was made is listed in `simla/installed` beside the completions, before the first of it is made: so an interrupted
//! installation can be taken away too.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Where everything goes.
#[derive(Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder of the program.
    bin: PathBuf,
    /// The folder of man pages: `man` looks beside the folders of `PATH`.
    man: PathBuf,
    /// The folder of completions and of the list.
    share: PathBuf,
}

impl Places {
    /// `bin`, `share/man` and `share` of `prefix`.
    pub fn under(prefix: &Path) -> Result<Self> {
        let prefix = std::path::absolute(prefix)?;
        Ok(Self { bin: prefix.join("bin"), man: prefix.join("share/man"), share: prefix.join("share") })
    }

    /// The user's own: the first of `~/.local/bin` and `~/.cargo/bin` that is on the `PATH`, else the first.
    ///
    /// # Errors
    /// If the variables name no home.
    pub fn of_user(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME").context("HOME is not set: say where with --prefix DIR")?;
        let share = set("XDG_DATA_HOME").filter(|folder| folder.is_absolute()).unwrap_or(home.join(".local/share"));
        let cargo = set("CARGO_HOME").unwrap_or(home.join(".cargo"));
        let candidates = [home.join(".local"), cargo];
        let reached = candidates.iter().find(|root| on_path(&root.join("bin"), variable("PATH")));
        let root = reached.unwrap_or(&candidates[0]);
        Ok(Self { bin: root.join("bin"), man: root.join("share/man"), share })
    }

    fn program(&self) -> PathBuf {
        self.bin.join("simla")
    }

    fn list(&self) -> PathBuf {
        self.share.join("simla/installed")
    }

    /// The completions: the shell's name and its file.
    fn completions(&self) -> [(&'static str, PathBuf); 3] {
        [
            ("bash", self.share.join("bash-completion/completions/simla")),
            ("zsh", self.share.join("zsh/site-functions/_simla")),
            ("fish", self.share.join("fish/vendor_completions.d/simla.fish")),
        ]
    }
}

fn on_path(folder: &Path, path: Option<OsString>) -> bool {
    path.is_some_and(|path| env::split_paths(&path).any(|entry| entry == folder))
}

/// Installs `program`, in the place of what an earlier installation made.
///
/// # Errors
/// If a file is in the way that no installation made, the program does not run, or a folder cannot be written to.
pub fn install(program: &Path, places: &Places) -> Result<()> {
    let mut contents = vec![(places.program(), fs::read(program)?)];
    for (shell, file) in places.completions() {
        contents.push((file, printed(program, &["completions", shell])?));
    }
    let pages = places.man.join("man1");
    for page in String::from_utf8(printed(program, &["man"])?)?.lines() {
        contents.push((pages.join(format!("{page}.1")), printed(program, &["man", page])?));
    }

    let before = listed(places)?;
    for (file, _) in &contents {
        ensure!(
            before.contains(file) || file.symlink_metadata().is_err(),
            "{} is there already and not from `cargo xtask install`: remove it, or install elsewhere with --prefix DIR",
            file.display()
        );
    }
    remove(&before, places)?;

    let files: Vec<_> = contents.iter().map(|(file, _)| file.clone()).chain([places.list()]).collect();
    let mut made = new_folders(&files);
    for folder in &made {
        fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    made.extend(files);
    let list: String = made.iter().map(|path| format!("{}\n", path.display())).collect();
    write(&places.list(), list.as_bytes())?;
    for (file, bytes) in &contents {
        write(file, bytes)?;
    }
    fs::set_permissions(places.program(), fs::metadata(program)?.permissions())?;
    printed(&places.program(), &["--version"]).context("the installed program does not start")?;

    eprintln!("Installed {}, completions for bash, zsh and fish, and man pages.", places.program().display());
    if !on_path(&places.bin, env::var_os("PATH")) {
        eprintln!("{} is not on your PATH: add it in your shell's start file.", places.bin.display());
    }
    if env::var_os("SHELL").is_some_and(|shell| Path::new(&shell).ends_with("zsh")) {
        let folder = places.share.join("zsh/site-functions");
        eprintln!("zsh finds its completions with `fpath+=({})` before compinit in ~/.zshrc.", folder.display());
    }
    Ok(())
}

/// Takes away what [`install`] made, and folders that it made and that are empty now.
///
/// # Errors
/// If nothing is installed there, or something cannot be removed.
pub fn uninstall(places: &Places) -> Result<()> {
    let list = listed(places)?;
    ensure!(!list.is_empty(), "nothing is installed: there is no {}", places.list().display());
    remove(&list, places)?;
    eprintln!("Removed {} and what came with it.", places.program().display());
    Ok(())
}

/// What an earlier installation made: folders before what is in them, the list itself at the end.
fn listed(places: &Places) -> Result<Vec<PathBuf>> {
    match fs::read_to_string(places.list()) {
        Ok(text) => Ok(text.lines().map(PathBuf::from).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", places.list().display())),
    }
}

/// Removes files and, if they are empty, folders; the list after the other files. What is gone already is no error.
fn remove(list: &[PathBuf], places: &Places) -> Result<()> {
    let (folders, files): (Vec<_>, Vec<_>) = list.iter().partition(|path| path.is_dir() && !path.is_symlink());
    for file in files {
        match fs::remove_file(file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| {
                    format!("cannot remove {}; what is left is listed in {}", file.display(), places.list().display())
                });
            }
            _ => {}
        }
    }
    for folder in folders.iter().rev() {
        // Somebody else's files may be in it by now.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// The folders of `files` that are not there yet, outer ones first.
fn new_folders(files: &[PathBuf]) -> Vec<PathBuf> {
    let parents = files.iter().flat_map(|file| file.ancestors().skip(1)).filter(|folder| !folder.exists());
    let mut folders: Vec<_> = parents.map(Path::to_path_buf).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    simla_files::write_atomically(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// What the program prints when it is run from another folder without libtorch in the environment.
fn printed(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").env_remove("LD_LIBRARY_PATH").env_remove("LIBTORCH");
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{} {}` failed: {}", program.display(), arguments.join(" "), words.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that says what it was asked, in the place of `simla`.
    fn program(folder: &Path, version: &str) -> PathBuf {
        // Written by another process: a file that this one has open for writing cannot be started by its other threads.
        let script =
            format!("#!/bin/sh\n# {version}\n[ \"$*\" = man ] && printf 'simla\\nsimla-demo\\n' || echo \"$*\"\n");
        let make = "printf '%s' \"$1\" > fake && chmod 755 fake";
        assert!(Command::new("sh").args(["-c", make, "sh", &script]).current_dir(folder).status().unwrap().success());
        folder.join("fake")
    }

    fn tree(root: &Path) -> Vec<String> {
        let found = Command::new("find").args([".", "-mindepth", "1"]).current_dir(root).output().unwrap().stdout;
        let mut found: Vec<_> = String::from_utf8(found).unwrap().lines().map(str::to_owned).collect();
        found.sort();
        found
    }

    #[test]
    fn what_is_installed_is_taken_away_and_nothing_else() {
        let (build, prefix) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let theirs = prefix.path().join("share/zsh/site-functions/_other");
        fs::create_dir_all(theirs.parent().unwrap()).unwrap();
        fs::write(&theirs, "theirs").unwrap();
        let before = tree(prefix.path());

        let places = Places::under(prefix.path()).unwrap();
        install(&program(build.path(), "1"), &places).unwrap();
        let read = |name: &str| fs::read_to_string(prefix.path().join(name)).unwrap();
        assert!(read("bin/simla").contains("# 1"));
        assert_eq!(read("share/bash-completion/completions/simla"), "completions bash\n");
        assert_eq!(read("share/zsh/site-functions/_simla"), "completions zsh\n");
        assert_eq!(read("share/fish/vendor_completions.d/simla.fish"), "completions fish\n");
        assert_eq!(read("share/man/man1/simla.1"), "man simla\n");
        assert_eq!(read("share/man/man1/simla-demo.1"), "man simla-demo\n");

        // A newer one replaces it; the folder of the build is not needed any more.
        install(&program(build.path(), "2"), &places).unwrap();
        drop(build);
        assert_eq!(printed(&places.program(), &["--version"]).unwrap(), b"--version\n");
        assert!(read("bin/simla").contains("# 2"));

        uninstall(&places).unwrap();
        assert_eq!(tree(prefix.path()), before);
        let error = uninstall(&places).unwrap_err().to_string();
        assert!(error.contains("nothing is installed"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_ours_is_not_replaced() {
        let (build, prefix) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(prefix.path().join("bin")).unwrap();
        fs::write(prefix.path().join("bin/simla"), "another program").unwrap();
        let before = tree(prefix.path());
        let places = Places::under(prefix.path()).unwrap();
        let error = install(&program(build.path(), "1"), &places).unwrap_err().to_string();
        assert!(error.contains("bin/simla") && error.contains("--prefix"), "{error}");
        assert_eq!(tree(prefix.path()), before);
    }

    #[test]
    fn the_user_gets_the_folder_that_is_on_the_path() {
        let places = |path: &str| {
            let variables = [("HOME", "/home/ada"), ("PATH", path)];
            Places::of_user(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
        };
        let bin = |path| places(path).unwrap().bin;
        assert_eq!(bin("/usr/bin:/home/ada/.cargo/bin:/home/ada/.local/bin"), Path::new("/home/ada/.local/bin"));
        assert_eq!(bin("/usr/bin:/home/ada/.cargo/bin"), Path::new("/home/ada/.cargo/bin"));
        assert_eq!(bin("/usr/bin"), Path::new("/home/ada/.local/bin"));
        let cargo = places("/home/ada/.cargo/bin").unwrap();
        assert_eq!(cargo.man, Path::new("/home/ada/.cargo/share/man"));
        assert_eq!(cargo.share, Path::new("/home/ada/.local/share"));
        assert!(Places::of_user(|_| None).unwrap_err().to_string().contains("--prefix"));
    }
}
