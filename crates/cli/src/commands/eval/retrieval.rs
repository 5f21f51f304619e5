//! `simla eval retrieval`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::pretrain::Model;
use simla::tasks::retrieval::{Recalls, Retrieval, evaluate};
use simla_run::settings::Dtype;

use crate::commands::bench::dtype;
use simla_run::held_out::gallery;
use simla_run::progress::{Progress, say_broken};
use simla_run::sources::open_data;
use simla_run::{answer, console};

/// Finds captions for images and images for captions
///
/// Everything is ranked by the contrast, the best are ranked again by the matching score. R@k is the share of queries with a right
/// answer among the first k; ties count against it.
#[derive(Args)]
pub struct Arguments {
    /// A run's folder, or a checkpoint's
    #[arg(long, value_name = "DIR")]
    checkpoint: PathBuf,
    /// A file of images with their captions
    #[arg(long, value_name = "FILE")]
    data: String,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Candidates of each query that the matching score ranks again: the paper's for Flickr30k, 256 for COCO; 0 for none
    #[arg(long, default_value_t = 128)]
    top_k: usize,
    /// Word pieces of a caption at most
    #[arg(long, default_value_t = 25)]
    max_tokens: usize,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Type of the matrix products: f32 or bf16
    #[arg(long, default_value = "f32", value_parser = dtype)]
    dtype: Dtype,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let device = simla_train::torch::device::open(&arguments.device)?;
    let model = Model::open(&arguments.checkpoint, arguments.dtype.kind(), device)?;
    let dataset = open_data(std::slice::from_ref(&arguments.data), arguments.image_root.as_deref(), 1.0)?;
    if arguments.max_tokens < 3 || arguments.max_tokens as i64 > model.simla.config.max_positions {
        bail!("--max-tokens {}: expected 3 to the model's {}", arguments.max_tokens, model.simla.config.max_positions);
    }
    let gallery = gallery(&dataset, &model.vocabulary, arguments.max_tokens);
    say_broken(&gallery.broken, format_args!("of {} records", dataset.len()));
    if gallery.images.is_empty() {
        bail!("{}: no usable record", arguments.data);
    }
    let mut progress: Option<Progress> = None;
    let mut show = |done: usize, all: usize| {
        progress.get_or_insert_with(|| Progress::new("retrieval", 0, all as u64)).set(done as u64, String::new);
    };
    let found = evaluate(&model.simla, &dataset, &gallery, arguments.top_k, &mut show)?;
    drop(progress);
    match arguments.json {
        true => console::answer_json(&as_json(&found))?,
        false => answer!("{}", table(&found)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The final ranking's shares at the top level, the contrast's own under `itc`.
fn as_json(found: &Retrieval) -> serde_json::Value {
    let mut value = json!(found.itm.unwrap_or(found.itc));
    let extra = json!({"images": found.images, "captions": found.captions, "top_k": found.top_k, "itc": found.itc, "itm": found.itm});
    value.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    value
}

/// The result as people read it.
pub fn table(found: &Retrieval) -> String {
    let row = |name: &str, r: &Recalls| {
        format!(
            "{name:<22} {:>6.1} {:>6.1} {:>6.1}   {:>6.1} {:>6.1} {:>6.1}\n",
            r.txt_r1, r.txt_r5, r.txt_r10, r.img_r1, r.img_r5, r.img_r10
        )
    };
    let mut table = format!("{} images, {} captions\n", found.images, found.captions);
    table += &format!("{:<22} {:>20}   {:>20}\n", "", "image -> text", "text -> image");
    table += &format!(
        "{:<22} {:>6} {:>6} {:>6}   {:>6} {:>6} {:>6}\n",
        "percent", "R@1", "R@5", "R@10", "R@1", "R@5", "R@10"
    );
    table += &row("contrast (ITC)", &found.itc);
    if let Some(itm) = &found.itm {
        table += &row(&format!("re-ranked top {} (ITM)", found.top_k), itm);
    }
    table + &row("chance", &chance(found))
}

/// What guessing would give.
pub fn chance(found: &Retrieval) -> Recalls {
    let within = |k: usize, all: usize| 100.0 * k as f64 / all.max(k) as f64;
    let per_image = found.captions as f64 / found.images as f64;
    // With several right captions among k guesses: the share of guesses that miss all of them, left out.
    let any = |k: usize| 100.0 * (1.0 - (1.0 - per_image / found.captions as f64).powi(k as i32));
    let (images, text) = (found.images, any);
    Recalls {
        txt_r1: text(1),
        txt_r5: text(5),
        txt_r10: text(10),
        img_r1: within(1, images),
        img_r5: within(5, images),
        img_r10: within(10, images),
    }
}
