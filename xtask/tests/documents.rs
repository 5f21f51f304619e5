//! What the documents about the code name is there: every file and folder, every type, function and field.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the names of folders and files in a document may begin, beside the document's own folder.
const ROOTS: [&str; 7] =
    ["", "crates", "crates/cli", "crates/simla/src", "crates/data/src", "crates/train/src", "crates/run/src"];
/// What files of the source are called.
const SOURCE: [&str; 8] = ["rs", "toml", "cpp", "h", "py", "js", "sh", "md"];

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn documents() -> Vec<PathBuf> {
    let crates = fs::read_dir(checkout().join("crates")).unwrap();
    let mut all: Vec<PathBuf> = crates.map(|entry| entry.unwrap().path().join("README.md")).collect();
    let others =
        ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/paper.md", "fuzz/README.md", "examples/README.md"];
    all.extend(others.map(|name| checkout().join(name)));
    all
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

/// Every word of the source below a folder, build outputs and fixtures aside.
fn words_below(folder: &Path, words: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let name = path.file_name().unwrap().to_str().unwrap();
            if !["target", "fixtures"].contains(&name) && !name.starts_with('.') {
                words_below(&path, words);
            }
        } else if ["rs", "toml", "cpp"].contains(&ending(&path)) {
            let text = fs::read_to_string(&path).unwrap();
            words.extend(text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_owned));
        }
    }
}

/// What stands in backquotes in a document, blocks of code aside.
fn quoted(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with("    "));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (middle, after) = rest.split_once('}').unwrap_or((rest, ""));
    middle.split(',').flat_map(|one| expanded(&format!("{before}{}{after}", one.trim()))).collect()
}

/// Whether this is meant as a file or folder of the source: it has a slash, and ends with one or as such files do.
fn is_place(quoted: &str) -> bool {
    let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "_.-/{},".contains(c));
    plain && quoted.contains('/') && (quoted.ends_with('/') || SOURCE.contains(&ending(Path::new(quoted))))
}

/// The parts of a name in code (`Task::records`, `objectives::{itm, negatives}`), none of anything else.
fn names(quoted: &str) -> Vec<&str> {
    let plain = quoted.chars().all(|c| c.is_ascii_alphanumeric() || "_:{}, ".contains(c));
    let is_name = plain && (quoted.contains("::") || quoted.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    let parts = quoted.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|part| !part.is_empty());
    parts.filter(|_| is_name).collect()
}

#[test]
fn what_the_documents_name_is_there() {
    let mut words = HashSet::new();
    for folder in ["crates", "examples", "fuzz", "xtask"] {
        words_below(&checkout().join(folder), &mut words);
    }
    let mut missing = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap_or_else(|e| panic!("{}: {e}", document.display()));
        let own = document.parent().unwrap();
        for quoted in quoted(&text) {
            let there = |path: &String| {
                own.join(path).exists() || ROOTS.iter().any(|root| checkout().join(root).join(path).exists())
            };
            let found = match is_place(quoted) {
                true => expanded(quoted).iter().all(there),
                false => names(quoted).iter().all(|name| words.contains(*name)),
            };
            if !found {
                missing.push(format!("{}: `{quoted}`", document.strip_prefix(checkout()).unwrap().display()));
            }
        }
    }
    assert!(missing.is_empty(), "named, and not there:\n{}", missing.join("\n"));
}

#[test]
fn places_and_names_are_told_from_other_words() {
    assert!(is_place("crates/cli/") && is_place("data/src/formats/{a,b}.rs") && !is_place("loss/itc"));
    assert_eq!(expanded("a/{b,c}/{d,e}.rs"), ["a/b/d.rs", "a/b/e.rs", "a/c/d.rs", "a/c/e.rs"]);
    assert_eq!(names("objectives::{itm, negatives}"), ["objectives", "itm", "negatives"]);
    assert!(names("two words").is_empty() && names("--flag").is_empty());
    assert_eq!(quoted("a `b` c\n    `code`\n`d`"), ["b", "d"]);
}
