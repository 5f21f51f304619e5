//! A run that the program made before its crates were put on their floors of today (see the fixture's README): it is resumed, ends with
//! the old program's weights, and its model is used.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use common::{metrics, said, simla};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/old-run");

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// What the kernel calls this machine's processor: another kind adds in another order.
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
    let eval = ["eval", "retrieval", "--checkpoint", "run", "--data", "scenes/test.json", "--top-k", "2", "--json"];
    let found: Value = serde_json::from_str(&inside(&eval)).unwrap();
    assert!(found["txt_r10"].as_f64().unwrap() > 0.0, "{found}");

    inside(&["pretrain", "--resume", "run"]);
    let steps: Vec<u64> = metrics(&place.path().join("run")).iter().map(|row| row["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    let weights = |path: PathBuf| fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let ours = weights(place.path().join("run/checkpoints/step-00000006/model.safetensors"));
    let theirs = weights(place.path().join("end/model.safetensors"));
    if fs::read_to_string(place.path().join("end/processor")).unwrap().trim() == processor() {
        assert!(ours == theirs, "the weights differ in some bit");
    }
    let (ours, theirs) = (SafeTensors::deserialize(&ours).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (name, theirs) in theirs.tensors() {
        let ours = ours.tensor(&name).unwrap();
        assert_eq!((ours.shape(), ours.dtype()), (theirs.shape(), theirs.dtype()), "{name}");
        if theirs.dtype() != safetensors::Dtype::F32 {
            assert_eq!(ours.data(), theirs.data(), "{name}");
            continue;
        }
        let floats = |bytes: &[u8]| -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        for (ours, theirs) in floats(ours.data()).iter().zip(floats(theirs.data())) {
            assert!((ours - theirs).abs() <= 1e-6, "{name}: {ours} against {theirs}");
        }
    }
    // Lines of both programs are one curve on the page.
    let page = inside(&["report", "run"]);
    let page = fs::read_to_string(place.path().join(page.trim())).unwrap();
    assert!(page.contains("loss") && page.contains("held out"), "{page}");
}
