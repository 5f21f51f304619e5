//! The path on a GPU, on a simulated one: that it is right, how often the host waits, and how many operations a step is.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use simla_simulated::{Counts, on_device};

use crate::common::{Scenes, assert_done, computed, copy, metrics, pretraining, refusal, simla};

/// Of a step of the base model's depth, with all objectives.
const OPERATIONS: f64 = 3494.0;
const WAITS: f64 = 1.0;
/// Of a search among twelve pictures that are looked at for it; all but five are for reading the model.
const SEARCH_WAITS: u64 = 109;

/// Runs the command, and says what happened on the device.
#[track_caller]
fn on_gpu(scenes: &Scenes, command: &mut Command) -> (Output, Counts) {
    let log = scenes.path("log");
    let _ = fs::remove_file(&log);
    let output = on_device(command, &log).output().unwrap();
    assert_done(&output);
    (output, Counts::read(&log))
}

/// A command line of `simla` in words.
fn words(line: &str) -> Command {
    let mut command = simla();
    command.args(line.split(' '));
    command
}

fn checkpoint(run: &Path, step: u64) -> PathBuf {
    run.join(format!("checkpoints/step-{step:08}"))
}

fn waits(counts: &Counts) -> u64 {
    counts.waits.values().sum()
}

#[test]
fn a_run_goes_on_from_its_checkpoint_bit_for_bit_and_touches_one_gpu_alone() {
    let scenes = Scenes::new();
    let (whole, part) = (scenes.path("whole"), scenes.path("part"));
    let settings = ["steps=4", "save_every_steps=2", "dtype=bf16", "dropout=0.1", "accumulate=2", "alpha=0.4"];
    let settings = settings.iter().flat_map(|setting| ["--set", setting]);
    let gpu = ["--device", "cuda:1"].into_iter().chain(settings).collect::<Vec<_>>();
    let (_, counts) = on_gpu(&scenes, &mut pretraining(&scenes.train, &whole, &gpu));
    assert_eq!(counts.peak_bytes[0], 0, "{counts:?}");
    // Nothing whose sums come in another order every time; and nothing of attention that is slow or wrong on a GPU.
    let unwanted = ["index_add", "bincount", "embedding_bag", "(attention"];
    let found = counts.operations.keys().find(|name| unwanted.iter().any(|unwanted| name.starts_with(unwanted)));
    assert_eq!(found, None, "{counts:?}");

    copy(&whole, &part);
    fs::remove_dir_all(checkpoint(&part, 4)).unwrap();
    fs::write(part.join("checkpoints/latest"), "step-00000002").unwrap();
    let mut resume = words("pretrain --device cuda:1 --resume");
    on_gpu(&scenes, resume.arg(&part));
    assert_eq!(computed(&whole), computed(&part));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| fs::read(checkpoint(run, 4).join(file)).unwrap();
        assert!(read(&whole) == read(&part), "{file}");
    }
}

#[test]
fn a_step_waits_once_and_is_no_more_operations_than_it_was() {
    let scenes = Scenes::new();
    let tokenizer = scenes.path("tokenizer");
    let run = |name: &str, more: &[&str]| {
        let settings = ["vision_depth=12", "text_depth=12", "dtype=bf16", "dropout=0.1", "batch_size=4"];
        let settings = settings.iter().chain(more).flat_map(|setting| ["--set", setting]);
        let mut command = pretraining(&scenes.train, &scenes.path(name), &settings.collect::<Vec<_>>());
        if tokenizer.exists() {
            command.arg("--dvae").arg(&tokenizer);
        }
        command.args(["--device", "cuda"]);
        on_gpu(&scenes, &mut command).1
    };
    run("first", &["steps=1"]);
    fs::rename(scenes.path("first/dvae"), &tokenizer).unwrap();
    let (few, more) = (run("few", &["steps=2"]), run("more", &["steps=4"]));
    let (operations, waits_of_a_step) = more.of_a_step(&few, 2);
    let mut each: Vec<_> =
        more.operations.iter().map(|(name, n)| ((n - few.operations.get(name).unwrap_or(&0)) / 2, name)).collect();
    each.sort();
    each.iter().rev().for_each(|(n, name)| println!("{n:6}  {name}"));
    println!("{operations} operations and {waits_of_a_step} waits a step");
    assert!(operations <= OPERATIONS && waits_of_a_step <= WAITS, "{operations} and {waits_of_a_step}");

    // A checkpoint is one question, whether the weights are numbers; the copies come while training goes on.
    let saving = run("saving", &["steps=4", "save_every_steps=1"]);
    assert_eq!(waits(&saving), waits(&more) + 3, "{saving:?}");
}

#[test]
fn a_trained_model_is_measured_searched_and_looked_at_with_few_waits() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    let held_out = scenes.test.display().to_string();
    on_gpu(&scenes, &mut pretraining(&scenes.train, &run, &["--device", "cuda", "--set", "steps=2"]));
    let of = |line: &str| {
        let line = line.replace("RUN", &run.display().to_string()).replace("TEST", &held_out);
        let (output, counts) = on_gpu(&scenes, &mut words(&line));
        let counted = waits(&counts);
        println!("{counted} waits: {line}");
        (String::from_utf8(output.stdout).unwrap(), counted)
    };
    // Twelve pictures with a caption each: opening the device and reading the model wait, then what was found comes at once.
    let (found, ranked) = of("eval retrieval --checkpoint RUN --data TEST --device cuda --top-k 4 --json");
    let on_cpu = simla()
        .args(["eval", "retrieval", "--top-k", "4", "--json", "--checkpoint"])
        .arg(&run)
        .args(["--data", &held_out])
        .output();
    let [gpu, cpu] =
        [found.as_bytes(), &on_cpu.unwrap().stdout].map(|text| serde_json::from_slice::<Value>(text).unwrap());
    assert_eq!(gpu["itc"], cpu["itc"], "{found}");
    let (_, by_contrast) = of("eval retrieval --checkpoint RUN --data TEST --device cuda --top-k 0 --json");
    assert_eq!(ranked - by_contrast, 1, "for all pictures together");
    let train = scenes.train.display().to_string();
    let (_, of_more) = of(&format!("eval retrieval --checkpoint RUN --data {train} --device cuda --top-k 4 --json"));
    assert_eq!(of_more, ranked, "no more for four times the pictures");
    let (_, reconstructed) = of("dvae eval --dvae RUN/dvae --data TEST --device cuda --json");
    let (_, of_more) = of(&format!("dvae eval --dvae RUN/dvae --data {train} --device cuda --json"));
    assert_eq!(of_more, reconstructed, "no more for another batch");
    let picture = scenes.test.parent().unwrap().join("test/00000.png").display().to_string();
    let (_, short) = of(&format!("ground {picture} circle --checkpoint RUN --device cuda --json"));
    let mut long = words("ground PICTURE");
    long.args(["a red circle above a blue square", "--json", "--device", "cuda", "--checkpoint"]).arg(&run);
    let long = on_gpu(
        &scenes,
        simla().args(long.get_args().map(|word| if word == "PICTURE" { picture.as_ref() } else { word })),
    )
    .1;
    assert_eq!(waits(&long), short, "no more for more words");
    let images = scenes.test.parent().unwrap().join("test").display().to_string();
    let (_, searched) = of(&format!("search circle --images {images} --checkpoint RUN --device cuda --json"));
    assert!(searched <= SEARCH_WAITS, "{searched}");
    // A wait for each batch of 32, for what comes into pinned memory meanwhile.
    let embedded = |of_images: &str, name: &str| {
        let output = scenes.path(name).display().to_string();
        of(&format!("embed --checkpoint RUN --images {of_images} --output {output} --device cuda")).1
    };
    let many = scenes.train.parent().unwrap().join("train").display().to_string();
    assert_eq!(embedded(&many, "many.npy") - embedded(&images, "few.npy"), 1, "a batch of 32 more");
}

#[test]
fn a_full_gpu_is_an_error_with_advice_wherever_it_comes() {
    let scenes = Scenes::new();
    let run = scenes.path("run");
    let trained = on_gpu(&scenes, &mut pretraining(&scenes.train, &run, &["--device", "cuda", "--set", "steps=1"])).1;
    let tokenizer = run.join("dvae").display().to_string();
    let eval = || {
        let mut command = words("eval retrieval --device cuda --checkpoint");
        command.arg(&run).arg("--data").arg(&scenes.test);
        command
    };
    let evaluated = on_gpu(&scenes, &mut eval()).1;
    let tune = |output: &str| {
        let mut command = words("finetune text-assignment --device cuda --set steps=1 --set batch_size=8 --checkpoint");
        command.arg(&run).arg("--data").arg(&scenes.train).arg("--output").arg(scenes.path(output));
        command
    };
    let tuned = on_gpu(&scenes, &mut tune("tuned")).1;
    for share in [0.01, 0.2, 0.4, 0.6, 0.8, 0.95] {
        let output = scenes.path(&format!("full-{share}"));
        let train =
            pretraining(&scenes.train, &output, &["--device", "cuda", "--dvae", &tokenizer, "--set", "steps=1"]);
        let tune = tune(&format!("tuned-{share}"));
        for (mut command, counts, is_training) in
            [(train, &trained, true), (tune, &tuned, true), (eval(), &evaluated, false)]
        {
            let kib = (counts.peak_bytes[0] as f64 * share) as u64 / 1024;
            let output =
                on_device(&mut command, &scenes.path("log")).env("SIMULATED_KIB", kib.to_string()).output().unwrap();
            let error = refusal(&output);
            assert!(error.starts_with("error: ") && error.contains("CUDA out of memory"), "{share}: {error}");
            assert!(is_training || !error.contains("batch_size"), "{share}: {error}");
            if is_training && share > 0.9 {
                assert!(
                    error.contains("batch_size") && error.contains("accumulate") && error.contains("recompute"),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn what_a_pair_takes_is_reckoned() {
    use simla::config::{ModelConfig, Preset, SpecialIds};
    use simla::memory::{How, Memory};
    use simla::objectives::Objectives;
    use tch::{Device, Kind};

    let scenes = Scenes::new();
    let special = SpecialIds { pad: 0, cls: 101, sep: 102, mask: 103 };
    let config = ModelConfig { dropout: 0.1, ..ModelConfig::preset(Preset::Tiny, 30_522, special) };
    for (dtype, kind) in [("f32", Kind::Float), ("bf16", Kind::BFloat16)] {
        for recompute in [false, true] {
            let peak = |batch: u64| {
                let mut command =
                    words(&format!("bench step --preset tiny --device cuda --steps 1 --dtype {dtype} --batch {batch}"));
                let (output, _) = on_gpu(&scenes, command.args(recompute.then_some("--recompute")));
                let report: Value = serde_json::from_slice(&output.stdout).unwrap();
                report["peak_gib"].as_f64().unwrap() * f64::from(1 << 30)
            };
            let (few, many) = (peak(8), peak(24));
            let measured = (many - few) / 16.0;
            let how = How {
                device: Device::Cuda(0),
                kind,
                objectives: Objectives::default(),
                tokens: 25,
                masked_words: 0.3,
                masked_patches: 75.0 / 256.0,
                recompute,
            };
            let reckoned = Memory::of_step(&config, how);
            assert!(
                (reckoned.a_pair / measured - 1.0).abs() < 0.2,
                "{dtype} {recompute}: {reckoned:?}, measured {measured}"
            );
            let all = reckoned.of(24) / many;
            assert!((all - 1.0).abs() < 0.2, "{dtype} {recompute}: {all} of all");
        }
    }
}

#[test]
fn as_many_pairs_as_fit_are_taken_where_that_is_asked_for() {
    let scenes = Scenes::new();
    let run = |name: &str, batch: &str, steps: &str, kib: u64| {
        let gpu = ["--device", "cuda", "--continue", "--set", steps, "--set", batch];
        let mut command = pretraining(&scenes.train, &scenes.path(name), &gpu);
        on_gpu(&scenes, command.env("SIMULATED_KIB", kib.to_string()))
    };
    let (_, of_eight) = run("eight", "batch_size=8", "steps=1", 1 << 20);
    let twice = of_eight.peak_bytes[0] * 2 / 1024;
    let (output, _) = run("auto", "batch_size=auto", "steps=1", twice);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("as many pairs as fit") && said.contains("that are free"), "{said}");
    let batch = || -> u64 {
        let config = fs::read_to_string(scenes.path("auto/config.toml")).unwrap();
        let line = config.lines().find_map(|line| line.strip_prefix("batch_size = ")).unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    };
    let found = batch();
    assert!(found > 8 && found.is_multiple_of(8), "{found}");
    // The same command again: a run keeps its batch, whatever is free now.
    run("auto", "batch_size=auto", "steps=2", twice * 2);
    assert_eq!((batch(), metrics(&scenes.path("auto")).len()), (found, 2));
}
