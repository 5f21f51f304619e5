//! `simla bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use crate::model::dtype;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use simla::config::{ModelConfig, Preset, SpecialIds};
use simla::flops;
use simla::model::Simla;
use simla::objectives::Objectives;
use simla::objectives::negatives::Negatives;
use simla::step::{Inputs, Masked};
use simla_image::{Recipe, bench};
use simla_run::settings::Dtype;
use simla_run::{answer, console};
use simla_train::optim::{AdamW, AdamWConfig};
use simla_train::torch::device::use_tf32;
use simla_train::torch::guard::guarded;
use simla_train::torch::memory::Peak;
use simla_train::weights::Gradients;
use tch::{Device, Kind, Tensor, no_grad};

/// Measures speed and memory
#[derive(Subcommand)]
pub enum Command {
    Step(StepArguments),
    Loader(LoaderArguments),
    Busy(super::bench_busy::Arguments),
    Memory(super::bench_memory::Arguments),
    Retrieval(super::bench_retrieval::Arguments),
    #[command(hide = true)]
    Spin(super::bench_busy::Spin),
}

/// Times the way from a JPEG's bytes to its two views
#[derive(Args)]
pub struct LoaderArguments {
    /// Folder of pictures, 640 x 480 to compare with others
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Length of each of the two measurements
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Worker threads
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Side of the view in pixels
    #[arg(long, default_value_t = 256)]
    side: u32,
    /// One JSON object in place of the text
    #[arg(long)]
    json: bool,
}

/// Times the pre-training step on random pairs, without the visual tokenizer
#[derive(Args)]
pub struct StepArguments {
    /// Sizes of the model
    #[arg(long, default_value = "base", value_parser = preset)]
    preset: Preset,
    /// Pairs of a step
    #[arg(long, default_value_t = 4)]
    batch: i64,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Type of the matrix products: f32 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: Dtype,
    /// Products in f32 in TF32, on a GPU
    #[arg(long)]
    tf32: bool,
    /// Steps that count; the median is reported
    #[arg(long, default_value_t = 3)]
    steps: usize,
    /// Steps before them
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Computes activations again in the backward pass instead of keeping them
    #[arg(long)]
    recompute: bool,
    /// Also where the time goes
    #[arg(long)]
    profile: bool,
}

pub fn preset(text: &str) -> Result<Preset, String> {
    serde_json::from_value(json!(text)).map_err(|_| "expected tiny, small or base".into())
}

/// Word pieces of a caption, as in the peer's benchmark.
pub const TOKENS: i64 = 25;
/// Share of the words that are masked there.
const MASKED_WORDS: f64 = 0.3;
pub const ALPHA: f64 = 0.4;

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Step(arguments) => step(&arguments),
        Command::Loader(arguments) => loader(arguments),
        Command::Busy(arguments) => super::bench_busy::run(arguments),
        Command::Memory(arguments) => super::bench_memory::run(arguments),
        Command::Retrieval(arguments) => super::bench_retrieval::run(arguments),
        Command::Spin(arguments) => super::bench_busy::spin(arguments),
    }
}

fn loader(arguments: LoaderArguments) -> Result<ExitCode> {
    let found = bench::loader(&bench::Options {
        images: arguments.images,
        seconds: arguments.seconds,
        threads: arguments.threads,
        recipe: Recipe { side: arguments.side, ..Recipe::default() },
    })?;
    if arguments.json {
        console::answer_json(&found)?;
        return Ok(ExitCode::SUCCESS);
    }
    answer!(
        "{:.0} images/s a core ({:.0} with normalisation), {} threads, {} files",
        found.images_per_s_per_core,
        found.images_per_s_per_core_normalised,
        found.threads,
        found.files
    );
    let ms = found.ms;
    for (part, ms) in [
        ("decode", ms.decode),
        ("resize", ms.resize),
        ("operations", ms.operations),
        ("half", ms.half),
        ("normalise", ms.normalise),
    ] {
        answer!("  {part:<10} {ms:.3} ms");
    }
    Ok(ExitCode::SUCCESS)
}

fn step(arguments: &StepArguments) -> Result<ExitCode> {
    if arguments.batch < 2 || arguments.steps == 0 {
        bail!("--batch {}, --steps {}: expected at least 2 pairs and 1 step", arguments.batch, arguments.steps);
    }
    let device = simla_train::torch::device::open(&arguments.device)?;
    use_tf32(device, arguments.tf32);
    let config = model_config(arguments.preset);
    console::answer_json(&guarded(|| measure(arguments, config, device))?)?;
    Ok(ExitCode::SUCCESS)
}

/// A model of BERT's vocabulary.
pub fn model_config(preset: Preset) -> ModelConfig {
    let special = SpecialIds { pad: 0, cls: 101, sep: 102, mask: 103 };
    ModelConfig { dropout: 0.1, ..ModelConfig::preset(preset, 30_522, special) }
}

fn measure(arguments: &StepArguments, config: ModelConfig, device: Device) -> serde_json::Value {
    let kind = arguments.dtype.kind();
    let memory = Peak::of(device);
    let mut model = Simla::new(config.clone(), kind, device, 0);
    if arguments.recompute {
        model.online.recompute_layers();
    }
    let mut optimizer = AdamW::new(AdamWConfig::default(), &model.online);
    let mut gradients = Gradients::new(&model.online);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut times = Vec::new();
    let mut words = 0;
    for i in 0..arguments.warmup + arguments.steps {
        let (b, masked) = random_inputs(&config, arguments.batch, &mut rng, device);
        words += masked;
        synchronize(device);
        let start = Instant::now();
        gradients.clear();
        model.begin_step();
        let (_, seen) = model.step(&b, ALPHA, Objectives::default(), &mut gradients);
        optimizer.step(&mut model.online, &mut gradients, 1e-4, 1.0);
        model.queues.push(&seen.image_feat_m, &seen.text_feat_m, None);
        synchronize(device);
        if i >= arguments.warmup {
            times.push(start.elapsed().as_secs_f64());
        }
    }
    let peak_gib = memory.gib();
    let peak = matrix_peak(kind, device); // last: its memory is none of a step's
    times.sort_by(f64::total_cmp);
    let slowest_s = times[times.len() - 1];
    let step_s = times[times.len() / 2];
    let pairs = arguments.batch as f64;
    let words_a_pair = words as f64 / ((arguments.warmup + arguments.steps) as f64 * pairs);
    let masked_patches = (config.patches() as f64 * 75.0 / 256.0) as i64;
    let flop_per_s = flops::per_pair(&config, TOKENS, words_a_pair.round() as i64, masked_patches) * pairs / step_s;
    let mut report = json!({
        "what": format!("pretrain step, simla {}", env!("CARGO_PKG_VERSION")),
        "device": arguments.device,
        "dtype": arguments.dtype,
        "tf32": arguments.tf32,
        "batch": arguments.batch,
        "recompute": arguments.recompute,
        "step_s": step_s,
        "slowest_s": slowest_s,
        "pairs_per_s": pairs / step_s,
        "peak_gib": peak_gib,
        "model_gflop_per_s": flop_per_s / 1e9,
        "matrix_peak_gflop_per_s": peak / 1e9,
        "share_of_peak": flop_per_s / peak,
    });
    if arguments.profile {
        let (b, _) = random_inputs(&config, arguments.batch, &mut rng, device);
        report["profile_s"] = profile(&mut model, &mut optimizer, &mut gradients, &b, device);
    }
    report
}

/// Seconds of each part, on its own.
fn profile(
    model: &mut Simla,
    optimizer: &mut AdamW,
    gradients: &mut Gradients,
    b: &Inputs,
    device: Device,
) -> serde_json::Value {
    let mut parts = serde_json::Map::new();
    let mut timed = |name: &str, f: &mut dyn FnMut()| {
        synchronize(device);
        let start = Instant::now();
        f();
        synchronize(device);
        parts.insert(name.into(), json!(start.elapsed().as_secs_f64()));
    };
    timed("moving average", &mut || model.begin_step());
    let (towers, online) = (&model.towers, &model.online);
    let image = b.image.to_kind(online.kind());
    timed("E_v forward, no gradient", &mut || {
        let _ = no_grad(|| towers.vision.forward(online, &image, None));
    });
    let one = |objective: &str| Objectives::try_from(vec![objective.to_owned()]).expect("a known name");
    for objective in ["itc", "itm", "mlm", "psl"] {
        timed(&format!("{objective} alone, forward, with E_v and teacher"), &mut || {
            model.align(b, ALPHA, one(objective));
        });
    }
    gradients.clear();
    let aligned = Objectives { mim: false, ..Objectives::default() };
    let mut losses = None;
    timed("alignment forward (itc, itm, mlm, psl, teacher)", &mut || losses = Some(model.align(b, ALPHA, aligned).0));
    let sum = losses.take().and_then(|losses| losses.alignment()).expect("losses");
    timed("alignment backward", &mut || gradients.backward(&sum, &model.online));
    let mut mim = Tensor::new();
    timed("mim forward, with teacher", &mut || mim = model.reconstruct(b, ALPHA).0);
    timed("mim backward", &mut || gradients.backward(&mim, &model.online));
    timed("optimiser", &mut || optimizer.step(&mut model.online, gradients, 1e-4, 1.0));
    parts.into()
}

pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Operations a second of the largest square products that this device does quickly.
fn matrix_peak(kind: Kind, device: Device) -> f64 {
    let n: i64 = if device == Device::Cpu { 2048 } else { 8192 };
    let a = Tensor::randn([n, n], (Kind::Float, device)).to_kind(kind);
    let best = (0..5)
        .map(|_| {
            synchronize(device);
            let start = Instant::now();
            let _ = a.matmul(&a);
            synchronize(device);
            start.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    2.0 * (n as f64).powi(3) / best
}

/// Token ids of `n` captions of [`TOKENS`] word pieces, one after the other.
pub fn random_captions(c: &ModelConfig, n: usize, rng: &mut ChaCha8Rng) -> Vec<i64> {
    (0..n as i64 * TOKENS)
        .map(|i| match i % TOKENS {
            0 => c.special.cls,
            last if last == TOKENS - 1 => c.special.sep,
            _ => rng.random_range(c.special.mask + 1..c.vocab_size),
        })
        .collect()
}

/// Random pairs, and how many words are masked in all.
pub fn random_inputs(c: &ModelConfig, batch: i64, rng: &mut ChaCha8Rng, device: Device) -> (Inputs, i64) {
    let ids = random_captions(c, batch as usize, rng);
    let hidden: Vec<bool> = (0..ids.len())
        .map(|i| match i as i64 % TOKENS {
            0 => false,
            1 => true,
            _ => rng.random_bool(MASKED_WORDS),
        })
        .collect();
    let masked: Vec<i64> =
        ids.iter().zip(&hidden).map(|(&id, &hidden)| if hidden { c.special.mask } else { id }).collect();
    let patches = c.patches() as usize;
    let hidden_patches: Vec<bool> = (0..batch)
        .flat_map(|_| {
            let mut row = vec![false; patches];
            let count = (patches as f64 * 75.0 / 256.0) as usize;
            rand::seq::index::sample(rng, patches, count.max(1)).iter().for_each(|i| row[i] = true);
            row
        })
        .collect();
    let tensor = |values: &[i64]| Tensor::from_slice(values).view([batch, TOKENS]).to(device);
    let words = Masked::new(&hidden, TOKENS as usize, device);
    let visual = Tensor::randint(c.visual_vocab, [batch, c.patches()], (Kind::Int64, device));
    let patches = Masked::new(&hidden_patches, patches, device);
    let ids = tensor(&ids);
    let inputs = Inputs {
        image: Tensor::randn([batch, 3, c.image_size, c.image_size], (Kind::Float, device)),
        mask: ids.ones_like(),
        mlm_ids: tensor(&masked),
        word_labels: words.pick(&ids),
        patch_labels: Some(patches.pick(&visual)),
        words,
        patches,
        negatives: Negatives::noise(batch, rng, device),
        image_ids: None,
        ids,
    };
    (inputs, hidden.iter().filter(|&&hidden| hidden).count() as i64)
}
