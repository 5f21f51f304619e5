//! What the program says of the machine, and what it tells shells and `man` of itself.

use std::process::Command;

use serde_json::Value;

use crate::common::printed;

#[test]
fn the_machine_is_described_for_people_in_80_columns() {
    let text = printed(&["doctor"]);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for heading in ["simla", "libtorch", "CUDA", "driver", "CPU", "cores", "memory", "disk", "locale", "terminal"] {
        assert!(text.lines().any(|line| line.starts_with(heading)), "{heading}: {text}");
    }
    assert!(text.contains(env!("CARGO_PKG_VERSION")) && text.contains("2.11.0"), "{text}");
}

#[test]
fn the_machine_is_described_for_programs() {
    let found: Value = serde_json::from_str(&printed(&["doctor", "--json"])).unwrap();
    assert_eq!(found["version"], env!("CARGO_PKG_VERSION"));
    assert!(found["libtorch"]["version"].as_str().unwrap().starts_with("2.11.0"));
    assert!(found["cores"]["usable"].as_u64().unwrap() >= 1);
    assert!(found["memory"]["total_gib"].as_f64().unwrap() > 0.0);
    assert!(found["disks"][0]["free_gib"].as_f64().unwrap() > 0.0);
    for field in ["cuda", "gpu", "cpu", "locale", "terminal", "variables"] {
        assert!(found[field].is_object(), "{field}: {found}");
    }
    assert!(found["remarks"].is_array());
}

#[test]
fn shells_and_man_pages_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("pretrain") && script.contains("doctor"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("simla.bash");
    std::fs::write(&script, printed(&["completions", "bash"])).unwrap();
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());

    let pages = printed(&["man"]);
    let pages: Vec<_> = pages.lines().collect();
    assert_eq!(pages[0], "simla");
    assert!(pages.contains(&"simla-doctor") && pages.contains(&"simla-eval-retrieval"), "{pages:?}");
    assert!(!pages.iter().any(|page| page.contains("completions") || page.contains("help")), "{pages:?}");
    let page = printed(&["man", "simla-doctor"]);
    assert!(page.contains(".TH simla-doctor 1") && page.contains("simla doctor"), "{page}");
}
