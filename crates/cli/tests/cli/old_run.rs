//! A run that the program made before its crates were put on their floors of today (see the fixture's README): it is resumed, ends with
//! the old program's weights, and its model is used.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::common::{copy, metrics, said, simla};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/old-run");

/// What the kernel calls this machine's processor: another kind adds in another order, and is held to 1e-6 in place of every bit.
fn processor() -> String {
    let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = about.lines().find_map(|line| line.strip_prefix("model name"));
    line.unwrap_or_default().trim_start_matches([' ', '\t', ':']).to_owned()
}

#[test]
fn an_older_program_s_run_goes_on_as_it_would_have_and_its_model_is_used() {
    let place = tempfile::tempdir().unwrap();
    copy(Path::new(FIXTURE), place.path());
    let inside = |arguments: &[&str]| {
        let output = simla().args(arguments).current_dir(place.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    // Its model, as it was stopped.
    let eval = [
        "eval",
        "retrieval",
        "--checkpoint",
        "run",
        "--data",
        "scenes/test.json",
        "--top-k",
        "2",
        "--max-tokens",
        "20",
        "--json",
    ];
    let found: Value = serde_json::from_str(&inside(&eval)).unwrap();
    assert!(found["txt_r10"].as_f64().unwrap() > 0.0, "{found}");

    inside(&["pretrain", "--resume", "run"]);
    let steps: Vec<u64> = metrics(&place.path().join("run")).iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    let end: Value = serde_json::from_slice(&fs::read(place.path().join("end.json")).unwrap()).unwrap();
    let last = place.path().join("run/checkpoints/step-00000006");
    let state: Value = serde_json::from_slice(&fs::read(last.join("state.json")).unwrap()).unwrap();
    if end["processor"] == processor().as_str() {
        assert_eq!(state["files"]["model.safetensors"]["blake3"], end["blake3"], "the weights differ in some bit");
    }
    let bytes = fs::read(last.join("model.safetensors")).unwrap();
    let ours = SafeTensors::deserialize(&bytes).unwrap();
    for (name, theirs) in end["tensors"].as_object().unwrap() {
        let ours = ours.tensor(name).unwrap();
        let ours = ours.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        for (ours, theirs) in ours.zip(theirs.as_array().unwrap()) {
            let theirs = theirs.as_f64().unwrap();
            assert!((f64::from(ours) - theirs).abs() <= 1e-6, "{name}: {ours} against {theirs}");
        }
    }
    // Lines of both programs are one curve on the page.
    let page = inside(&["report", "run"]);
    let page = fs::read_to_string(place.path().join(page.trim())).unwrap();
    assert!(page.contains("loss") && page.contains("held out"), "{page}");
}
