//! The same tensors from every layout that PyTorch writes, and the layouts that the field publishes.
//!
//! `fixtures/every.*` were written by PyTorch 2.11 from one dict of tensors of every type, views of every kind and
//! unrelated objects; `every.safetensors` has the tensors alone and is the expected result. `fixtures/module.*` are
//! whole modules (`torch.save(module)`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use simla_weights::{Archive, DType, Limits, read};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The files in the layouts of published checkpoints, which the crate that converts them keeps.
fn published(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../simla/tests/fixtures/import").join(name)
}

fn open(path: PathBuf) -> Archive {
    read(&path, &Limits::default()).unwrap()
}

const EVERY: [&str; 3] = ["every.zip.pth", "every.protocol4.pth", "every.stream.pth"];

#[test]
fn every_layout_gives_the_same_tensors() {
    let expected = open(fixture("every.safetensors"));
    let expected = expected.tensors().unwrap();
    assert_eq!(expected.len(), 19);
    for name in EVERY {
        let archive = open(fixture(name));
        let tensors = archive.tensors().unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{name}");
        for (key, tensor) in tensors {
            assert_eq!(tensor.load().unwrap(), expected[&key].load().unwrap(), "{name}: {key}");
        }
    }
}

#[test]
fn values_are_converted() {
    let archive = open(fixture("every.zip.pth"));
    let plain = archive.root().get("plain").unwrap().tensors().unwrap();
    let f32s = |name: &str| plain[name].load().unwrap().to_f32();
    assert_eq!(f32s("f64"), [1.5, -2.25, f32::INFINITY]);
    assert_eq!(f32s("f16"), [0.5, -65504.0, 5.960_464_5e-8]);
    assert_eq!(f32s("bf16")[..2], [1.0, -3.0]);
    assert!((f32s("bf16")[2] / 1e38 - 1.0).abs() < 0.004);
    assert_eq!(f32s("i8"), [-128.0, 127.0]);
    assert_eq!(f32s("bool"), [1.0, 0.0]);
    assert_eq!(f32s("scalar"), [0.07]);
    assert_eq!(f32s("i64"), [-1_099_511_627_776.0, 7.0]);
    assert_eq!(plain["i64"].load().unwrap().to_i64().unwrap(), [-(1 << 40), 7]);
    assert_eq!(plain["i16"].load().unwrap().to_i64().unwrap(), [-300]);
    assert_eq!(plain["f32"].load().unwrap().to_i64(), None);
    assert_eq!(plain["empty"].shape(), [0, 3]);
    assert!(plain["scalar"].shape().is_empty());
}

#[test]
fn views_are_made_contiguous() {
    // The base is 0, 1, ..., 23 in four rows of six.
    let archive = open(fixture("every.stream.pth"));
    let views = archive.root().get("views").unwrap().tensors().unwrap();
    let f32s = |name: &str| views[name].load().unwrap().to_f32();
    assert_eq!(f32s("column"), [2.0, 8.0, 14.0, 20.0]);
    assert_eq!(f32s("window"), [8.0, 9.0, 10.0, 14.0, 15.0, 16.0]);
    assert_eq!(f32s("step"), [1.0, 6.0, 11.0, 16.0, 21.0]);
    assert_eq!(f32s("transposed")[..5], [0.0, 6.0, 12.0, 18.0, 1.0]);
    assert_eq!(f32s("broadcast")[4..8], [4.0, 5.0, 0.0, 1.0]);
}

#[test]
fn tied_weights_are_recognised() {
    for name in EVERY {
        let archive = open(fixture(name));
        let tensors = archive.tensors().unwrap();
        assert!(tensors["views.tied"].is_same(&tensors["plain.f32"]), "{name}");
        assert!(!tensors["views.window"].is_same(&tensors["plain.f32"]), "{name}");
    }
}

#[test]
fn objects_around_the_tensors_are_described() {
    for name in EVERY {
        let archive = open(fixture(name));
        let around = archive.root().get("around").unwrap();
        let args = around.get("args").unwrap();
        assert_eq!(args.class(), Some(("argparse", "Namespace")), "{name}");
        assert_eq!(args.get("name").unwrap().as_str(), Some("run"));
        assert_eq!(args.get("lr").unwrap().as_f64(), Some(1e-4));
        let flags = args.get("flags").unwrap().elements();
        assert_eq!(flags[0].as_bool(), Some(true));
        assert_eq!(flags[1].kind(), "None");
        assert_eq!(flags[2].as_i64(), Some(-1));
        assert_eq!(around.get("size").unwrap().elements()[1].as_i64(), Some(3));
        assert_eq!(around.get("negative").unwrap().as_i64(), Some(-70_000));
        assert_eq!(around.get("long").unwrap().as_i64(), Some(1 << 40));
        assert_eq!(around.get("default").unwrap().get("k").unwrap().elements()[0].as_i64(), Some(1));
        assert_eq!(around.get("device").unwrap().class(), Some(("torch", "device")));
        assert!(around.get("no such key").is_none());
    }
}

#[test]
fn modules_give_the_names_of_their_state_dict() {
    let expected = BTreeSet::from(
        [
            "weight",
            "part.scale",
            "part.linear.weight",
            "part.linear.bias",
            "part.twin.weight",
            "part.twin.bias",
            "blocks.0.weight",
            "blocks.0.bias",
        ]
        .map(String::from),
    );
    for name in ["module.zip.pkl", "module.stream.pkl"] {
        let archive = open(fixture(name));
        assert_eq!(archive.root().class(), Some(("__main__", "Whole")), "{name}");
        let tensors = archive.tensors().unwrap();
        assert_eq!(tensors.keys().cloned().collect::<BTreeSet<_>>(), expected, "{name}");
        assert_eq!(tensors["part.twin.weight"].load().unwrap().to_f32(), [1.0, 2.0, 3.0, 4.0], "{name}");
    }
}

#[test]
fn published_layouts_are_read() {
    let dalle = open(published("dalle-encoder-mini.pkl"));
    assert_eq!(dalle.root().class(), Some(("dall_e.encoder", "Encoder")));
    assert_eq!(dalle.root().get("vocab_size").unwrap().as_i64(), Some(512));
    let tensors = dalle.tensors().unwrap();
    assert_eq!(tensors.len(), 42);
    assert_eq!(tensors["blocks.input.w"].shape(), [64, 3, 7, 7]);
    assert_eq!(tensors["blocks.group_2.block_1.id_path.w"].shape(), [128, 64, 1, 1]);
    assert_eq!(tensors["blocks.group_1.block_1.res_path.conv_4.b"].dtype(), DType::F32);

    let authors = open(published("simla-authors-mini.pth"));
    assert_eq!(authors.root().get("epoch").unwrap().as_i64(), Some(29));
    assert_eq!(authors.root().get("config").unwrap().class(), Some(("omegaconf.dictconfig", "DictConfig")));
    let model = authors.root().get("model").unwrap().tensors().unwrap();
    assert_eq!(model.len(), 732);
    assert_eq!(model["image_queue"].shape(), [16, 20]);
    assert_eq!(model["queue_ptr"].dtype(), DType::I64);
    let decoder = model["text_encoder.cls.predictions.decoder.weight"];
    assert!(decoder.is_same(&model["text_encoder.bert.embeddings.word_embeddings.weight"]));
    assert_eq!(authors.tensors().unwrap().len(), 732, "the configuration is a cycle without tensors");
}
