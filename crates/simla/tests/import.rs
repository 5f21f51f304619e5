//! Weights in the layouts of published checkpoints become ours, with the outputs that their own code gave.
//!
//! `fixtures/import/*-mini.*` have those layouts at a small size, with expected outputs beside them. The `authors-*` files are
//! smaller still, with real states of PyTorch's AdamW around the model.

use std::path::{Path, PathBuf};

use simla::config::{ModelConfig, SpecialIds};
use simla::dvae::encoder::{Encoder, EncoderConfig};
use simla::import::{
    Dalle, ImportError, PositionsError, StartError, Tensors, authors, bert, dalle, deit, fit_positions,
    resample_positions, start,
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
    let mut imported = deit(&fixture("deit-mini.pth")).unwrap();
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
    let message = deit(&fixture("bert-mini.bin")).unwrap_err().to_string();
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
    let deit = deit(&fixture("deit-mini.pth")).unwrap();
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
