//! `simla eval retrieval`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use simla::tasks::pretrain::Model;
use simla::tasks::retrieval::{Gallery, Recalls, Retrieval, evaluate_and_list};
use simla_data::Options;

use crate::model::MeasuredArguments;
use simla_run::held_out::gallery;
use simla_run::output::{check_file, files_of};
use simla_run::progress::{Progress, say_broken};
use simla_run::sources::{open_options, open_sources};
use simla_run::{answer, console, run_file, say};

/// Candidates of a query in a run file where the contrast ranks.
const LISTED: usize = 100;

/// Finds captions for images and images for captions
///
/// Everything is ranked by the contrast, the best are ranked again by the matching score. R@k is the share of queries with a right
/// answer among the first k; ties count against it. All captions of an image are right for it; images with one image_id (photographs of
/// a product) are one item, and every one of them is right for its captions.
#[derive(Args)]
#[command(after_help = "\
  simla eval retrieval --checkpoint runs/mine --data dataset_flickr30k.json --image-root flickr30k-images     Karpathy's test split
  simla eval retrieval --checkpoint runs/mine --data dataset_coco.json --image-root coco --top-k 256 --folds 5     COCO, 5k and 1k")]
pub struct Arguments {
    #[command(flatten)]
    model: MeasuredArguments,
    /// Images with their captions: a file, pattern or folder
    #[arg(long, value_name = "FILE")]
    data: String,
    /// Of Karpathy's dataset_*.json: the part that is measured on; may be given again
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: Vec<String>,
    /// Also measures on this many equal parts, each by itself, and gives the mean: 5 for COCO's 1k
    #[arg(long, value_name = "N")]
    folds: Option<usize>,
    /// Writes the best of every query: query,item,rank,score as .csv or .tsv, or TREC's columns as .trec
    #[arg(long, value_name = "FILE")]
    run_file: Option<PathBuf>,
    /// Overwrites the file that --run-file names
    #[arg(long)]
    force: bool,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Candidates of each query that the matching score ranks again: the paper's for Flickr30k, 256 for COCO; 0 for none
    #[arg(long, default_value_t = 128)]
    top_k: usize,
    /// Word pieces of a caption at most
    #[arg(long, default_value_t = 25)]
    max_tokens: usize,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let model = arguments.model.open()?;
    let image_root = arguments.image_root.as_deref();
    let options = Options { splits: arguments.split.clone(), ..open_options(image_root, 1.0) };
    let dataset = open_sources(std::slice::from_ref(&arguments.data), &options)?;
    check_file(arguments.run_file.as_deref(), run_file::ENDINGS, arguments.force, || files_of(&dataset))?;
    check_max_tokens(arguments.max_tokens, &model)?;
    let gallery = gallery(&dataset, &model.vocabulary, arguments.max_tokens);
    say_broken(&gallery.broken, format_args!("of {} records", dataset.len()));
    if gallery.images.is_empty() {
        bail!("{}: no usable record", arguments.data);
    }
    let folds = match arguments.folds {
        Some(folds) if folds < 2 || folds > gallery.items() => {
            bail!("--folds {folds}: expected 2 to the {} items of the data", gallery.items())
        }
        folds => folds.unwrap_or(0),
    };
    let measured = |what: &str, gallery: &Gallery, depth: usize| {
        let mut progress: Option<Progress> = None;
        let mut show = |done: usize, all: usize| {
            progress.get_or_insert_with(|| Progress::new(what, 0, all as u64)).set(done as u64, String::new);
        };
        evaluate_and_list(&model.simla, &dataset, gallery, arguments.top_k, depth, &mut show)
    };
    let depth = if arguments.run_file.is_some() { LISTED } else { 0 };
    let (found, ranking) = measured("retrieval", &gallery, depth)?;
    if let Some(path) = &arguments.run_file {
        let root = image_root.or(Path::new(&arguments.data).parent());
        run_file::write(path, &ranking, &run_file::Names::of(&dataset, &gallery, root)?)?;
        say!("{}: the best of {} queries", path.display(), found.images + found.captions);
    }
    let mut each = Vec::new();
    for (nth, fold) in gallery.folds(folds).iter().enumerate() {
        each.push(measured(&format!("fold {}", nth + 1), fold, 0)?.0);
    }
    let mean = Retrieval::mean_of(&each);
    if arguments.json {
        let mut value = as_json(&found);
        if let Some(mean) = &mean {
            let mut mean = as_json(mean);
            mean["count"] = folds.into();
            mean["each"] = each.iter().map(as_json).collect();
            value["folds"] = mean;
        }
        console::answer_json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    answer!("{}", table(&found));
    if let Some(mean) = &mean {
        answer!("\nmean of {folds} folds, each of {}", table(mean));
    }
    Ok(ExitCode::SUCCESS)
}

/// The final ranking's shares at the top level, the contrast's own under `itc`.
fn as_json(found: &Retrieval) -> serde_json::Value {
    let mut value = json!(found.itm.unwrap_or(found.itc));
    let all = json!(found);
    value.as_object_mut().expect("an object").extend(all.as_object().expect("an object").clone());
    value
}

/// Refuses fewer pieces than a word needs, and more than the model reads.
pub fn check_max_tokens(max_tokens: usize, model: &Model) -> Result<()> {
    let most = model.simla.config.max_positions;
    if max_tokens < 3 || max_tokens as i64 > most {
        bail!("--max-tokens {max_tokens}: expected 3 to the model's {most}");
    }
    Ok(())
}

/// What stands over the lines of the table.
pub fn header() -> String {
    let directions = format!("{:<24} {:>20}   {:>20}\n", "", "image -> text", "text -> image");
    directions
        + &format!(
            "{:<24} {:>6} {:>6} {:>6}   {:>6} {:>6} {:>6}\n",
            "percent", "R@1", "R@5", "R@10", "R@1", "R@5", "R@10"
        )
}

/// A line of the table.
pub fn row(name: &str, r: &Recalls) -> String {
    format!(
        "{name:<24} {:>6.1} {:>6.1} {:>6.1}   {:>6.1} {:>6.1} {:>6.1}\n",
        r.txt_r1, r.txt_r5, r.txt_r10, r.img_r1, r.img_r5, r.img_r10
    )
}

/// The result as people read it.
pub fn table(found: &Retrieval) -> String {
    let mut table = format!("{} images, {} captions", found.images, found.captions);
    if found.items != found.images {
        table += &format!(" of {} items", found.items);
    }
    table.push('\n');
    table += &header();
    table += &row("contrast (ITC)", &found.itc);
    if let Some(itm) = &found.itm {
        table += &row(&format!("re-ranked top {} (ITM)", found.top_k), itm);
    }
    table + &row("chance", &found.chance())
}
