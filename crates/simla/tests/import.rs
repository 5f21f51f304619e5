//! Weights in the layouts of published checkpoints become ours, with the outputs that their own code gave.
//!
//! `fixtures/import/*-mini.*` have those layouts at a small size, with expected outputs beside them. The `authors-*` files are
//! smaller still, with real states of PyTorch's AdamW around the model.

use std::path::{Path, PathBuf};

use simla::config::{ModelConfig, SpecialIds};
use simla::dvae::encoder::{Encoder, EncoderConfig};
use simla::import::{
    Dalle, ImportError, PositionsError, StartError, Tensors, authors, bert, dalle, export, fit_positions,
    resample_kernels, resample_positions, sizes, start, vit,
};
use simla::model::Simla;
use simla::text::{Reading, Rows};
use simla_train::weights::{Layout, Weights};
use tch::{Device, Kind, Tensor, no_grad};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import").join(name)
}

fn expected(name: &str) -> Tensors {
    Tensor::read_safetensors(fixture(name)).unwrap().into_iter().collect()
}

#[track_caller]
fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size());
    let worst = (found - expected).abs().max().double_value(&[]);
    assert!(worst <= tolerance, "off by {worst}");
}

/// The size of the small BERT and of the authors' small model.
fn small() -> ModelConfig {
    ModelConfig {
        image_size: 64,
        patch_size: 16,
        vision_width: 32,
        vision_depth: 2,
        vision_heads: 4,
        text_width: 32,
        text_depth: 12,
        text_heads: 4,
        text_mlp: 64,
        vocab_size: 101,
        max_positions: 32,
        embed_dim: 16,
        visual_vocab: 48,
        queue_size: 20,
        momentum: 0.995,
        temperature: 0.07,
        keywords: 4,
        dropout: 0.0,
        closing_sep: false,
        concept_scale: 1.0,
        special: SpecialIds { pad: 0, cls: 1, sep: 2, mask: 3 },
    }
}

fn copies(tensors: &Tensors) -> Tensors {
    let copy = |(name, value): (&String, &Tensor)| (name.clone(), value.copy());
    tensors.iter().map(copy).collect()
}

fn model(config: ModelConfig) -> Simla {
    Simla::new(config, Kind::Float, Device::Cpu, 0)
}

#[test]
fn deit_becomes_the_vision_encoder() {
    let mut imported = vit(&fixture("deit-mini.pth")).unwrap();
    fit_positions(&mut imported, 16).unwrap();
    let positions = &imported["visual_encoder.pos_embed"];
    assert_close(positions, &expected("deit-mini.expected.safetensors")["pos_embed_4x4"], 1e-6);

    // Every parameter of our vision encoder but the mask token, with nothing left over.
    let ours = model(small()).online.named();
    let mut names: Vec<&String> = ours.keys().filter(|name| name.starts_with("visual_encoder.")).collect();
    names.retain(|name| *name != "visual_encoder.mask_token");
    assert_eq!(imported.keys().collect::<Vec<_>>(), names);
    for name in names {
        assert_eq!(imported[name].size(), ours[name].size(), "{name}");
    }
}

#[test]
fn positions_are_resampled() {
    let pos = Tensor::randn([1, 1 + 256, 8], (Kind::Float, Device::Cpu));
    assert_eq!(resample_positions(&pos, 256).unwrap(), pos);
    // 384 px from 256 px weights.
    let larger = resample_positions(&pos, 576).unwrap();
    assert_eq!(larger.size(), [1, 577, 8]);
    assert_eq!(larger.narrow(1, 0, 1), pos.narrow(1, 0, 1));
    // A grid that only tells its rows still does so: the columns do not leak into them, nor rows into columns.
    let rows = Tensor::arange(4, (Kind::Float, Device::Cpu)).view([4, 1]).expand([4, 4], false).reshape([1, 16, 1]);
    let rows = Tensor::cat(&[Tensor::zeros([1, 1, 1], (Kind::Float, Device::Cpu)), rows], 1);
    let grid = resample_positions(&rows, 64).unwrap().narrow(1, 1, 64).view([8, 8]);
    assert_eq!(grid.get(3), grid.get(3).mean(None).expand([8], false));
    assert!(grid.double_value(&[7, 0]) > grid.double_value(&[4, 0]));

    assert_eq!(resample_positions(&pos, 200), Err(PositionsError::NotSquare(200)));
    assert_eq!(resample_positions(&pos, 0), Err(PositionsError::NotSquare(0)));
    assert_eq!(resample_positions(&pos.narrow(1, 0, 12), 256), Err(PositionsError::NotSquare(11)));
    assert_eq!(resample_positions(&pos.get(0), 256), Err(PositionsError::Shape(vec![257, 8])));
}

/// The hidden states of the text encoder for the ids and mask of a fixture.
fn text_embeds(imported: &Tensors, expected: &Tensors) -> Tensor {
    let mut simla = model(small());
    let mut weights = simla.named();
    for (name, value) in imported {
        assert!(weights.insert(name.clone(), value.shallow_clone()).is_some(), "{name} is not ours");
    }
    let weights: Tensors = weights.into_iter().map(|(name, value)| (name, value.copy())).collect();
    simla.load(&weights).unwrap();
    no_grad(|| encode(&simla, expected, None))
}

/// Hidden states of the captions of a fixture, after E_l or, given images, E_mm: `[B, L, D]`.
fn encode(simla: &Simla, expected: &Tensors, image_embeds: Option<&Tensor>) -> Tensor {
    let (w, text) = (&simla.online, &simla.towers.text);
    let mask = expected["mask"].to_kind(Kind::Float);
    let bias = mask.log().unsqueeze(1).unsqueeze(1); // 0 where a word counts, minus infinity where none is: [B, 1, 1, L]
    let words = text.embed_words(w, &expected["ids"], 0.0);
    let context = image_embeds.map(|embeds| simla.towers.image_context(w, embeds));
    text.encode(w, &words, Rows::All, Some(&bias), context.as_ref().map(Reading::own), 0.0)
}

/// Names that only one of the two has.
fn difference<'a>(a: &'a Tensors, b: &'a Tensors) -> Vec<&'a str> {
    let only = |a: &'a Tensors, b: &'a Tensors| a.keys().filter(|name| !b.contains_key(*name)).map(String::as_str);
    only(a, b).chain(only(b, a)).collect()
}

/// Only where the mask is 1: what padding attends to is of no use to anyone.
fn words(embeds: &Tensor, mask: &Tensor) -> Tensor {
    embeds * mask.unsqueeze(-1)
}

#[test]
fn bert_becomes_the_text_encoder() {
    let expected = expected("bert-mini.expected.safetensors");
    let imported = bert(&fixture("bert-mini.bin")).unwrap();
    let mask = &expected["mask"];
    let embeds = text_embeds(&imported, &expected);
    assert_close(&words(&embeds, mask), &words(&expected["text_embeds_hf"], mask), 1e-5);
    assert_eq!(imported.len(), 4 + 12 * 16 + 5);
    assert!(imported.contains_key("text_encoder.cls.predictions.bias"));
}

/// The tensors of the small BERT, as its file names them.
fn raw_bert() -> Tensors {
    let archive = simla_weights::read(&fixture("bert-mini.bin"), &Default::default()).unwrap();
    let tensors = archive.tensors().unwrap();
    tensors
        .iter()
        .map(|(name, tensor)| {
            let shape: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
            (name.clone(), Tensor::from_slice(&tensor.load().unwrap().to_f32()).view(&shape[..]))
        })
        .collect()
}

/// Imports BERT from a safetensors file of these tensors.
fn bert_of(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Result<Tensors, ImportError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().collect();
    Tensor::write_safetensors(&tensors, &path).unwrap();
    bert(&path)
}

fn same(a: &Tensors, b: &Tensors) -> bool {
    a.keys().eq(b.keys()) && a.iter().all(|(name, value)| *value == b[name])
}

#[test]
fn bert_in_other_layouts() {
    let imported = bert(&fixture("bert-mini.bin")).unwrap();
    // The layer norms' old names, as bert-base-uncased is still published.
    let old = |name: &str| match name.split_once("LayerNorm.") {
        Some((layer, "weight")) => format!("{layer}LayerNorm.gamma"),
        Some((layer, _)) => format!("{layer}LayerNorm.beta"),
        None => name.to_owned(),
    };
    assert!(same(&bert_of(raw_bert().into_iter().map(|(name, value)| (old(&name), value))).unwrap(), &imported));
    // The encoder alone, without its outer name.
    let bare = raw_bert().into_iter().filter_map(|(name, value)| Some((name.strip_prefix("bert.")?.to_owned(), value)));
    let bare = bert_of(bare).unwrap();
    assert_eq!(bare.len(), 4 + 12 * 16);
    assert!(bare.iter().all(|(name, value)| *value == imported[name]));
    // The head's bias under its other name only.
    let mut other = raw_bert();
    other.remove("cls.predictions.bias");
    let (a, b) = (bert_of(other).unwrap(), &imported);
    assert_eq!(difference(&a, b), [""; 0]);
}

#[test]
fn bert_that_does_not_fit_is_refused() {
    let mut untied = raw_bert();
    let decoder = &untied["cls.predictions.decoder.weight"] + 1.0;
    untied.insert("cls.predictions.decoder.weight".into(), decoder);
    assert!(matches!(bert_of(untied), Err(ImportError::Untied { .. })));

    let mut both = raw_bert();
    let norm = both["bert.embeddings.LayerNorm.weight"].copy();
    both.insert("bert.embeddings.LayerNorm.gamma".into(), norm);
    assert!(matches!(bert_of(both), Err(ImportError::Twice { .. })));

    let mut types = raw_bert();
    types.insert(
        "bert.embeddings.token_type_embeddings.weight".into(),
        Tensor::from(0_f32).expand([2, 5], false).copy(),
    );
    assert!(matches!(bert_of(types), Err(ImportError::Shape { .. })));

    let message = bert(&fixture("deit-mini.pth")).unwrap_err().to_string();
    assert!(message.contains("not a BERT checkpoint"), "{message}");
    assert!(message.contains("found blocks.0.attn.proj.bias"), "{message}");
    let message = vit(&fixture("bert-mini.bin")).unwrap_err().to_string();
    assert!(message.contains("tensor cls_token is missing"), "{message}");
    let message = dalle(&fixture("deit-mini.pth")).unwrap_err().to_string();
    assert!(message.contains("not DALL-E's encoder"), "{message}");
    let message = authors(&fixture("deit-mini.pth")).unwrap_err().to_string();
    assert!(message.contains("not a checkpoint of the authors' SIMLA"), "{message}");
}

#[test]
fn the_authors_checkpoint_gives_the_authors_outputs() {
    let expected = expected("simla-authors-mini.expected.safetensors");
    let imported = authors(&fixture("simla-authors-mini.pth")).unwrap();
    assert_eq!(imported.epoch, Some(29));

    let mut simla = model(small());
    assert_eq!(difference(&imported.weights, &simla.named()), [""; 0]);
    simla.load(&imported.weights).unwrap();
    let (w, towers) = (&simla.online, &simla.towers);
    let mask = &expected["mask"];
    no_grad(|| {
        let image_embeds = towers.vision.forward(w, &expected["image"], None);
        assert_close(&image_embeds, &expected["image_embeds"], 1e-5);
        let image_feat = towers.image_feat(w, &image_embeds);
        assert_close(&image_feat, &expected["image_feat"], 1e-5);
        assert_close(&towers.concept_logits(w, &image_feat), &expected["concept_logits"], 1e-5);

        let text_embeds = encode(&simla, &expected, None);
        assert_close(&words(&text_embeds, mask), &words(&expected["text_embeds"], mask), 1e-5);
        assert_close(&towers.text_feat(w, &text_embeds), &expected["text_feat"], 1e-5);

        let multimodal = encode(&simla, &expected, Some(&image_embeds));
        assert_close(&words(&multimodal, mask), &words(&expected["multimodal_embeds"], mask), 1e-5);
        assert_close(&simla.itm_head.forward(w, &multimodal.select(1, 0)), &expected["itm_logits"], 1e-5);
    });
}

#[test]
fn a_model_of_64_px_starts_one_of_96_px() {
    let mut weights = authors(&fixture("simla-authors-mini.pth")).unwrap().weights;
    let before = weights["visual_encoder_m.pos_embed"].copy();
    fit_positions(&mut weights, 36).unwrap();
    assert_eq!(weights["visual_encoder_m.pos_embed"], resample_positions(&before, 36).unwrap());
    let config = ModelConfig { image_size: 96, ..small() };
    model(config).load(&weights).unwrap();
}

#[test]
fn what_stands_around_the_model_is_ignored() {
    for name in ["authors-two-groups", "authors-fine-tuned"] {
        let imported = authors(&fixture(&format!("{name}.pth"))).unwrap();
        assert_eq!(imported.epoch, Some(7));
        let words = "text_encoder.bert.embeddings.word_embeddings.weight";
        assert!(imported.weights.contains_key(words), "{name}");
        let foreign = ["position_ids", "decoder", "exp_avg", "param_groups"];
        for found in imported.weights.keys() {
            assert!(!foreign.iter().any(|part| found.contains(part)), "{found}");
        }
    }
    let fine_tuned = authors(&fixture("authors-fine-tuned.pth")).unwrap();
    assert!(fine_tuned.weights.contains_key("cls_head.0.weight"), "the head of the task is kept");
}

#[test]
fn the_sizes_of_the_authors_model_are_read_off_its_shapes() {
    let imported = authors(&fixture("simla-authors-mini.pth")).unwrap();
    let special = small().special;
    let config = imported.config(special, Some(4)).unwrap();
    let dropout = 0.1;
    assert_eq!(config, ModelConfig { dropout, ..small() });

    let error = imported.config(special, None).unwrap_err();
    assert!(error.contains("vision_heads = 0"), "{error}");
    let fine_tuned = authors(&fixture("authors-fine-tuned.pth")).unwrap();
    let error = fine_tuned.config(special, Some(4)).unwrap_err();
    assert!(error.contains("is missing"), "{error}");
    // A width of 16,384 in every place that is looked at would take gigabytes.
    let mut swollen = imported;
    let wide = |shape: [i64; 3]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    for (name, shape) in [
        ("visual_encoder.pos_embed", [1, 17, 1 << 14]),
        ("text_encoder.bert.embeddings.word_embeddings.weight", [101, 1 << 14, 1]),
    ] {
        swollen.weights.insert(name.into(), wide(shape));
    }
    let error = swollen.config(special, Some(4)).unwrap_err();
    assert!(error.contains("values, but a model of its sizes has"), "{error}");
}

#[test]
fn a_model_starts_from_parts() {
    let mut simla = model(small());
    let before = simla.named()["mim_head.weight"].copy();
    let deit = vit(&fixture("deit-mini.pth")).unwrap();
    let expected = resample_positions(&deit["visual_encoder.pos_embed"], 16).unwrap();
    assert_eq!(start(&mut simla, copies(&deit)).unwrap(), deit.len());
    let bert = bert(&fixture("bert-mini.bin")).unwrap();
    start(&mut simla, copies(&bert)).unwrap();
    let now = simla.named();
    assert_eq!(now["visual_encoder.pos_embed"], expected);
    assert_eq!(now["visual_encoder_m.pos_embed"], expected, "the momentum model is a copy");
    let words = "text_encoder.bert.embeddings.word_embeddings.weight";
    assert_eq!(now[words], bert[words]);
    assert_eq!(now["mim_head.weight"], before, "what is not in the parts stays");

    let shallow = ModelConfig { text_depth: 2, ..small() };
    let error = start(&mut model(shallow), copies(&bert)).unwrap_err();
    assert!(matches!(error, StartError::Unknown(_)), "{error}");
    let narrow = ModelConfig { vision_width: 16, text_width: 16, ..small() };
    let error = start(&mut model(narrow), bert).unwrap_err().to_string();
    assert!(error.contains("has shape"), "{error}");
    assert!(matches!(start(&mut simla, Tensors::new()), Err(StartError::Nothing)));
}

#[test]
fn dalles_encoder_gives_dalles_tokens() {
    let expected = expected("dalle-encoder-mini.expected.safetensors");
    let Dalle { config, weights: named } = dalle(&fixture("dalle-encoder-mini.pkl")).unwrap();
    assert_eq!(config, EncoderConfig { width: 64, groups: 4, blocks_per_group: 1, vocab: 512 });

    let mut layout = Layout::default();
    let encoder = Encoder::new(&mut layout, "encoder.", config);
    let mut weights = Weights::zeros(&layout, Kind::Float, Device::Cpu, false);
    assert_eq!(difference(&named, &weights.named()), [""; 0]);
    weights.load(&named, str::to_owned).unwrap();
    let pixels = &expected["pixels"];
    assert_close(&encoder.forward(&weights, pixels), &expected["logits"], 1e-4);
    let tokens = expected["tokens"].flatten(1, -1);
    assert_eq!(encoder.tokens(&weights, pixels), tokens);

    // In the compute type of a step: near ties may fall the other way.
    let mut weights = Weights::zeros(&layout, Kind::BFloat16, Device::Cpu, false);
    weights.load(&named, str::to_owned).unwrap();
    let logits = encoder.forward(&weights, pixels);
    assert_eq!(logits.kind(), Kind::BFloat16);
    let same = encoder.tokens(&weights, pixels).eq_tensor(&tokens);
    let share = same.to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    assert!(share > 0.9, "{share} of the tokens");
}

#[test]
fn an_encoder_that_contradicts_itself_is_refused() {
    let of = |edit: &dyn Fn(&mut Tensors)| {
        let mut named = dalle(&fixture("dalle-encoder-mini.pkl")).unwrap().weights;
        edit(&mut named);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("encoder.safetensors");
        let bare = |(name, value): (String, Tensor)| (name.trim_start_matches("encoder.").to_owned(), value);
        Tensor::write_safetensors(&named.into_iter().map(bare).collect::<Vec<_>>(), &path).unwrap();
        dalle(&path)
    };
    let with_width = |width: i64| {
        let input = Tensor::ones([width, 1, 1, 1], (Kind::Float, Device::Cpu));
        of(&move |named| drop(named.insert("encoder.blocks.input.w".into(), input.shallow_clone())))
    };
    assert!(of(&|_| ()).is_ok());
    // A width of 16,384 would take terabytes.
    assert!(matches!(with_width(1 << 14), Err(ImportError::Size { .. })));
    assert!(matches!(with_width(1 << 15), Err(ImportError::Shape { .. })));
    let group = of(&|named| named.retain(|name, _| !name.contains("group_4")));
    assert!(matches!(group, Err(ImportError::Size { .. })));
}

/// The tensors of a file, as they are named in it.
fn raw(name: &str) -> Tensors {
    let archive = simla_weights::read(&fixture(name), &Default::default()).unwrap();
    let root = archive.root();
    let tensors = root.get("model").unwrap_or(root).tensors().unwrap();
    let load = |(name, tensor): (&String, &simla_weights::TensorRef)| {
        let shape: Vec<i64> = tensor.shape().iter().map(|&n| n as i64).collect();
        let tensor = tensor.load().unwrap();
        let flat = match tensor.to_i64() {
            Some(ints) => Tensor::from_slice(&ints),
            None => Tensor::from_slice(&tensor.to_f32()),
        };
        (name.clone(), flat.view(&shape[..]))
    };
    tensors.iter().map(load).collect()
}

/// Reads a safetensors file of these tensors.
fn of_file<T>(tensors: Tensors, read: impl FnOnce(&Path) -> T) -> T {
    of_file_called("model.safetensors", tensors, read)
}

fn of_file_called<T>(name: &str, tensors: Tensors, read: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    Tensor::write_safetensors(&tensors.into_iter().collect::<Vec<_>>(), &path).unwrap();
    read(&path)
}

fn without(mut tensors: Tensors, part: &str) -> Tensors {
    tensors.retain(|name, _| !name.contains(part));
    tensors
}

#[test]
fn half_a_model_is_refused_with_what_is_missing() {
    let refused = |error: ImportError, words: &[&str]| {
        let message = error.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    let (bert_mini, deit_mini) = (raw("bert-mini.bin"), raw("deit-mini.pth"));
    let shard = |tensors| of_file_called("model-00001-of-00002.safetensors", tensors, bert).unwrap_err();
    let error = shard(without(copies(&bert_mini), "layer.3."));
    refused(error, &["16 of the 201 tensors", "layer.3.attention", "and 13 more", "shard 1 of 2", "index"]);
    // Twelve layers cut in the middle are six whole ones: only the name tells.
    let error = shard(without(copies(&bert_mini), "cls."));
    refused(error, &["not all of", "shards", "shard 1 of 2", "index"]);
    let error = of_file(without(copies(&bert_mini), "transform.dense.bias"), bert).unwrap_err();
    refused(error, &["1 of the 201", "text_encoder.cls.predictions.transform.dense.bias"]);
    let error = of_file(without(copies(&bert_mini), "position_embeddings"), bert).unwrap_err();
    refused(error, &["position_embeddings.weight is missing"]);
    let error = of_file(without(copies(&deit_mini), "blocks.0.mlp.fc2.bias"), vit).unwrap_err();
    refused(error, &["visual_encoder.blocks.0.mlp.fc2.bias"]);

    let poisoned = copies(&deit_mini);
    let _ = poisoned["blocks.1.norm1.bias"].get(3).fill_(f64::NAN);
    refused(of_file(poisoned, vit).unwrap_err(), &["blocks.1.norm1.bias", "not finite"]);
    let mut narrow = copies(&deit_mini);
    narrow.insert("blocks.1.norm1.bias".into(), Tensor::zeros([7], (Kind::Float, Device::Cpu)));
    refused(of_file(narrow, vit).unwrap_err(), &["blocks.1.norm1.bias", "[7]", "[32]"]);

    let whole = authors(&fixture("simla-authors-mini.pth")).unwrap();
    whole.check().unwrap();
    for part in
        ["visual_encoder_m.blocks.1.", "text_encoder.bert.encoder.layer.7.crossattention", "mim_head", "queue_ptr"]
    {
        let half = of_file(without(raw("simla-authors-mini.pth"), part), authors).unwrap();
        refused(half.check().unwrap_err(), &[part]);
    }
    let fine_tuned = authors(&fixture("authors-fine-tuned.pth")).unwrap();
    refused(fine_tuned.check().unwrap_err(), &["is missing"]);
}

#[test]
fn shards_wrappers_and_half_precision_are_read() {
    let imported = bert(&fixture("bert-mini.bin")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let (first, second): (Vec<_>, Vec<_>) = raw_bert()
        .into_iter()
        .map(|(name, value)| (format!("module.{name}"), value))
        .partition(|(name, _)| name.contains("layer.1"));
    let shard = |i: usize, of: &[(String, Tensor)]| {
        of.iter().map(|(name, _)| (name.clone(), names[i].into())).collect::<Vec<_>>()
    };
    let map: serde_json::Map<String, serde_json::Value> =
        [shard(0, &first), shard(1, &second)].concat().into_iter().collect();
    let index = folder.path().join("model.safetensors.index.json");
    std::fs::write(&index, serde_json::json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    Tensor::write_safetensors(&first, folder.path().join(names[0])).unwrap();
    let message = bert(&index).unwrap_err().to_string();
    assert!(message.contains(names[1]) && message.contains("not beside it") && message.contains("more"), "{message}");
    Tensor::write_safetensors(&second, folder.path().join(names[1])).unwrap();
    assert!(same(&bert(&index).unwrap(), &imported));
    assert!(same(&bert(folder.path()).unwrap(), &imported), "the folder says as much");
    Tensor::write_safetensors(&second[1..], folder.path().join(names[1])).unwrap();
    let message = bert(&index).unwrap_err().to_string();
    assert!(message.contains("lacks") && message.contains(&second[0].0), "{message}");

    for kind in [Kind::Half, Kind::BFloat16] {
        let halves = raw_bert().into_iter().map(|(name, value)| (name, value.to_kind(kind))).collect();
        let halves = of_file(halves, bert).unwrap();
        for (name, value) in &halves {
            assert_eq!(value.kind(), Kind::Float);
            let scale = imported[name].abs().max().double_value(&[]);
            assert_close(value, &imported[name], scale * 2f64.powi(-7));
        }
    }
}

/// A small ViT as DINOv2 publishes it: LayerScale, a flat mask token.
fn with_layer_scale(timm: &Tensors) -> Tensors {
    let mut scaled = copies(timm);
    scaled.retain(|name, _| !name.starts_with("head"));
    for (i, (scale, layer)) in [("ls1", "attn.proj"), ("ls2", "mlp.fc2")].iter().enumerate() {
        for block in 0..2 {
            let gamma = Tensor::arange(32, (Kind::Float, Device::Cpu)) * 0.125 + 0.5 + i as f64;
            for (part, gamma) in [("weight", gamma.unsqueeze(1)), ("bias", gamma.shallow_clone())] {
                let name = format!("blocks.{block}.{layer}.{part}");
                scaled.insert(name.clone(), &timm[&name] / gamma);
            }
            scaled.insert(format!("blocks.{block}.{scale}.gamma"), gamma);
        }
    }
    scaled
}

#[test]
fn vits_of_other_publishers_become_the_same() {
    let timm = raw("deit-mini.pth");
    let expected = vit(&fixture("deit-mini.pth")).unwrap();
    let close = |found: Tensors| {
        assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        found.iter().for_each(|(name, value)| assert_close(value, &expected[name], 1e-6));
    };
    close(of_file(with_layer_scale(&timm), vit).unwrap());
    // In chunks, and behind a wrapper, beside the head of something else.
    let chunked = |name: &str| match name.strip_prefix("blocks.") {
        Some(rest) => format!("backbone.blocks.{}.{rest}", &rest[..1]),
        None => format!("backbone.{name}"),
    };
    let mut larger: Tensors =
        with_layer_scale(&timm).into_iter().map(|(name, value)| (chunked(&name), value)).collect();
    larger.insert("decoder.weight".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    close(of_file(larger, vit).unwrap());
    // As transformers names it.
    let theirs = |name: &str| {
        let renamed = [
            ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
            ("pos_embed", "embeddings.position_embeddings"),
            ("cls_token", "embeddings.cls_token"),
            ("norm.", "layernorm."),
            ("blocks.", "encoder.layer."),
        ];
        let (start, new) = renamed.iter().find(|(start, _)| name.starts_with(start)).unwrap();
        let inner = [
            ("attn.proj", "attention.output.dense"),
            ("attn.query", "attention.attention.query"),
            ("attn.key", "attention.attention.key"),
            ("attn.value", "attention.attention.value"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
        ];
        inner.iter().fold(name.replacen(start, new, 1), |name, (a, b)| name.replace(a, b))
    };
    let mut transformers = Tensors::new();
    for (name, value) in with_layer_scale(&timm) {
        match name.contains(".qkv.") {
            true => {
                for (part, value) in ["query", "key", "value"].iter().zip(value.chunk(3, 0)) {
                    transformers.insert(theirs(&name.replace("qkv", part)), value.contiguous());
                }
            }
            false => drop(transformers.insert(theirs(&name), value)),
        }
    }
    close(of_file(transformers, vit).unwrap());

    let mut masked = with_layer_scale(&timm);
    masked.insert("mask_token".into(), Tensor::ones([1, 32], (Kind::Float, Device::Cpu)));
    assert_eq!(of_file(masked, vit).unwrap()["visual_encoder.mask_token"].size(), [1, 1, 32]);
    let mut patches_alone = copies(&timm);
    patches_alone.insert("pos_embed".into(), timm["pos_embed"].slice(1, 1, None, 1).contiguous());
    let found = of_file(patches_alone, vit).unwrap();
    assert_eq!(found["visual_encoder.pos_embed"].size(), timm["pos_embed"].size());
    assert_eq!(found["visual_encoder.pos_embed"].select(1, 0).abs().max().double_value(&[]), 0.0);

    for (extra, word) in [
        ("register_tokens", "register"),
        ("reg_token", "register"),
        ("dist_token", "distillation"),
        ("fc_norm.weight", "fc_norm"),
    ] {
        let mut other = copies(&timm);
        other.insert(extra.into(), Tensor::ones([1, 4, 32], (Kind::Float, Device::Cpu)));
        let message = of_file(other, vit).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn sizes_are_read_off_the_weights() {
    let found = sizes(&vit(&fixture("deit-mini.pth")).unwrap(), Some(4)).unwrap();
    let expected = [("patch_size", 16), ("vision_depth", 2), ("vision_heads", 4), ("vision_width", 32)];
    assert!(expected.iter().all(|(name, value)| found[*name] == *value), "{found:?}");
    assert!(!found.keys().any(|name| name.starts_with("text")));
    let found = sizes(&bert(&fixture("bert-mini.bin")).unwrap(), None).unwrap();
    let expected = [("max_positions", 32), ("text_depth", 12), ("text_mlp", 64), ("text_width", 32)];
    assert!(expected.iter().all(|(name, value)| found[*name] == *value), "{found:?}");
}

#[test]
fn resampled_kernels_say_of_resampled_patches_what_they_said() {
    let options = (Kind::Double, Device::Cpu);
    let (kernels, patches) = (Tensor::randn([5, 3, 14, 14], options), Tensor::randn([7, 3, 14, 14], options));
    let answers = |patches: &Tensor, kernels: &Tensor| {
        patches.flatten(1, -1).matmul(&kernels.to_kind(Kind::Double).flatten(1, -1).transpose(0, 1))
    };
    let larger = patches.internal_upsample_bicubic2d_aa([16, 16], false, None, None);
    let resampled = resample_kernels(&kernels, 16);
    assert_eq!((resampled.size(), resampled.kind()), (vec![5, 3, 16, 16], Kind::Float));
    assert_close(&answers(&larger, &resampled), &answers(&patches, &kernels), 1e-4);
    // Where patches shrink: exact for those that the larger ones are resampled from, nearly; a flat one at least.
    let smaller = resample_kernels(&kernels, 8);
    let sum = |kernels: &Tensor| kernels.to_kind(Kind::Double).sum_dim_intlist([2, 3].as_slice(), false, Kind::Double);
    assert_eq!(smaller.size(), [5, 3, 8, 8]);
    assert!((sum(&smaller) - sum(&kernels)).abs().max().double_value(&[]) < 6.0);
    assert_close(&resample_kernels(&kernels, 14).to_kind(Kind::Double), &kernels, 1e-6);

    let deit = vit(&fixture("deit-mini.pth")).unwrap();
    let mut simla = model(ModelConfig { image_size: 56, patch_size: 14, ..small() });
    start(&mut simla, copies(&deit)).unwrap();
    let name = "visual_encoder.patch_embed.proj.weight";
    assert_close(&simla.named()[name], &resample_kernels(&deit[name], 14), 0.0);
}

#[test]
fn what_is_exported_is_the_authors_file() {
    let theirs = raw("simla-authors-mini.pth");
    let imported = authors(&fixture("simla-authors-mini.pth")).unwrap().weights;
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.pth", "model.safetensors"] {
        let path = folder.path().join(name);
        export(copies(&imported), 1.0, &path).unwrap();
        let again = authors(&path).unwrap();
        again.check().unwrap();
        assert!(same(&again.weights, &imported), "{name}");
        let archive = simla_weights::read(&path, &Default::default()).unwrap();
        let root = archive.root();
        let names = root.get("model").unwrap_or(root).tensors().unwrap();
        let lost: Vec<_> = theirs.keys().filter(|name| !names.contains_key(*name)).collect();
        // Token types are folded into the words.
        assert!(lost.iter().all(|name| name.contains("token_type")), "{lost:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else stays");
    let message = export(copies(&imported), 1.0, &folder.path().join("model.onnx")).unwrap_err().to_string();
    assert!(message.contains(".safetensors"), "{message}");
}
