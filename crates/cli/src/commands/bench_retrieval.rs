//! `simla bench retrieval`.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use simla::config::Preset;
use simla::model::Simla;
use simla::tasks::retrieval::{BATCH, embed_pixels, match_odds, text_features};
use simla_run::settings::Dtype;
use simla_train::torch::device::use_tf32;
use simla_train::torch::guard::guarded;
use simla_train::torch::memory::Peak;
use tch::{Device, no_grad};

use super::bench::{TOKENS, model_config, preset, random_captions, synchronize};
use crate::model::dtype;
use simla_run::console;

/// Standard deviation of the weights; what they are does not matter.
const INITIAL_STD: f64 = 0.02;

/// Times what `simla eval retrieval` computes, on random pictures and captions
#[derive(Args)]
pub struct Arguments {
    /// Sizes of the model
    #[arg(long, default_value = "base", value_parser = preset)]
    preset: Preset,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Type of the matrix products: f32 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: Dtype,
    /// Products in f32 in TF32, on a GPU
    #[arg(long)]
    tf32: bool,
    /// Images that are encoded, and re-ranked captions for
    #[arg(long, default_value_t = 32)]
    images: usize,
    /// Captions that are encoded
    #[arg(long, default_value_t = 128)]
    captions: usize,
    /// Captions that are matched with each image
    #[arg(long, default_value_t = 16)]
    top_k: usize,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let (images, captions, top_k) = (arguments.images, arguments.captions, arguments.top_k);
    if images == 0 || top_k == 0 || captions < top_k {
        bail!(
            "--images {images}, --captions {captions}, --top-k {top_k}: expected at least 1 image and 1 candidate, and no more \
             candidates than captions"
        );
    }
    let device = simla_train::torch::device::open(&arguments.device)?;
    use_tf32(device, arguments.tf32);
    console::answer_json(&guarded(|| no_grad(|| measure(&arguments, device)))?)?;
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments, device: Device) -> Value {
    let memory = Peak::of(device);
    let config = model_config(arguments.preset);
    let mut model = Simla::for_use(config.clone(), arguments.dtype.kind(), device);
    for buffer in model.online.master().buffers() {
        let _ = buffer.normal_(0.0, INITIAL_STD);
    }
    model.online.refresh();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let ids = random_captions(&config, arguments.captions, &mut rng);
    let captions: Vec<&[i64]> = ids.chunks(TOKENS as usize).collect();
    let bytes = (3 * config.image_size * config.image_size) as usize;
    let mut pixels = vec![0; arguments.images * bytes];
    rng.fill_bytes(&mut pixels);
    let embed = |pixels: &[u8]| {
        let embeds = embed_pixels(&model, pixels, pixels.len() / bytes);
        (model.towers.image_feat(&model.online, &embeds), embeds)
    };
    // Once before anything counts.
    let _ = text_features(&model, &captions[..1]);
    let warm = embed(&pixels[..bytes]).1;
    let _ = match_odds(&model, &warm, &captions[..1]);

    let per_s = |count: usize, f: &mut dyn FnMut()| {
        synchronize(device);
        let start = Instant::now();
        f();
        synchronize(device);
        count as f64 / start.elapsed().as_secs_f64()
    };
    let captions_per_s = per_s(captions.len(), &mut || {
        for chunk in captions.chunks(BATCH) {
            let _ = text_features(&model, chunk);
        }
    });
    let images_per_s = per_s(arguments.images, &mut || {
        for chunk in pixels.chunks(BATCH * bytes) {
            let _ = embed(chunk);
        }
    });
    // Every image's own candidates, as after a ranking.
    let candidates = captions.iter().cycle();
    let pairs_per_s = per_s(arguments.images * arguments.top_k, &mut || {
        for image in 0..arguments.images {
            let first = image * arguments.top_k % captions.len();
            let texts: Vec<&[i64]> = candidates.clone().skip(first).take(arguments.top_k).copied().collect();
            let _ = match_odds(&model, &warm, &texts);
        }
    });
    json!({
        "what": format!("retrieval, simla {}", env!("CARGO_PKG_VERSION")),
        "device": arguments.device,
        "dtype": arguments.dtype,
        "tf32": arguments.tf32,
        "images": arguments.images,
        "captions": arguments.captions,
        "top_k": arguments.top_k,
        "images_per_s": images_per_s,
        "captions_per_s": captions_per_s,
        "pairs_per_s": pairs_per_s,
        "peak_gib": memory.gib(),
    })
}
