//! `simla eval products`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use simla::tasks::products::{Chosen, Lists, evaluate};
use simla::tasks::retrieval::Recalls;

use crate::model::MeasuredArguments;
use simla_run::output::{check_file, sources_of};
use simla_run::products::Products;
use simla_run::progress::Progress;
use simla_run::sources::open_data;
use simla_run::{answer, console, say};

/// Finds a product's name for its photograph, and the photograph for the name, among look-alikes
///
/// FashionGen's protocol of 101 candidates: every query is put to its partner and 100 others, drawn by the seed from other products of the
/// same sub-category, ranked by the matching score. R@k is the share of queries whose partner is among the first k; a tie counts against
/// it. The data are JSON or CSV with `image`, `caption`, `image_id` (the product, which may have several photographs) and `subcategory`.
/// With all products as candidates: simla eval retrieval.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    model: MeasuredArguments,
    /// A file of products
    #[arg(long, value_name = "FILE")]
    data: String,
    /// Folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// Queries of each direction
    #[arg(long, default_value_t = 1000)]
    queries: usize,
    /// Wrong candidates of a query
    #[arg(long, default_value_t = 100)]
    wrong: usize,
    /// Decides which are drawn
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Lists to use in place of drawn ones; the mean of several
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["queries", "wrong", "seed"])]
    lists: Vec<PathBuf>,
    /// Writes the lists that were drawn
    #[arg(long, value_name = "FILE", conflicts_with = "lists")]
    write_lists: Option<PathBuf>,
    /// Overwrites the file that --write-lists names
    #[arg(long)]
    force: bool,
    /// Word pieces of a name at most
    #[arg(long, default_value_t = 25)]
    max_tokens: usize,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.queries == 0 || arguments.wrong == 0 {
        bail!("--queries {}, --wrong {}: expected at least 1", arguments.queries, arguments.wrong);
    }
    let model = arguments.model.open()?;
    super::retrieval::check_max_tokens(arguments.max_tokens, &model)?;
    let image_root = arguments.image_root.as_deref();
    let dataset = open_data(std::slice::from_ref(&arguments.data), image_root, 1.0)?;
    check_file(arguments.write_lists.as_deref(), &["json"], arguments.force, || sources_of(&dataset))?;
    let root = image_root.or(Path::new(&arguments.data).parent());
    let products = Products::open(&dataset, &model.vocabulary, arguments.max_tokens, root)?;
    let shelf = &products.shelf;
    let all: Vec<Lists> = match arguments.lists[..] {
        [] => {
            if shelf.subcategories.iter().all(Option::is_none) {
                say!("no record has a `subcategory`: wrong candidates are drawn from all products");
            }
            let (lists, beyond) = Lists::draw(shelf, arguments.queries, arguments.wrong, arguments.seed);
            if beyond > 0 {
                let of = lists.image_to_text.len() + lists.text_to_image.len();
                say!("{beyond} of {of} lists reach beyond their sub-category, which has too few products");
            }
            if let Some(path) = &arguments.write_lists {
                products.write_lists(&lists, path)?;
                say!("{}: the lists", path.display());
            }
            vec![lists]
        }
        ref files => files.iter().map(|path| products.read_lists(path)).collect::<Result<_>>()?,
    };
    let mut found = Vec::with_capacity(all.len());
    for (nth, lists) in all.iter().enumerate() {
        let mut progress: Option<Progress> = None;
        let what = if all.len() == 1 { "products".to_owned() } else { format!("lists {}", nth + 1) };
        let mut show = |done: usize, all: usize| {
            progress.get_or_insert_with(|| Progress::new(&what, 0, all as u64)).set(done as u64, String::new);
        };
        found.push(evaluate(&model.simla, &dataset, shelf, lists, &mut show)?);
    }
    match arguments.json {
        true => console::answer_json(&as_json(&found, shelf.len()))?,
        false => answer!("{}", table(&found, shelf.len())),
    }
    Ok(ExitCode::SUCCESS)
}

/// The mean over the lists.
fn mean(found: &[Chosen]) -> Chosen {
    let mean = |of: fn(&Chosen) -> Recalls| Recalls::mean_of(&found.iter().map(of).collect::<Vec<_>>());
    Chosen { itc: mean(|chosen| chosen.itc), itm: mean(|chosen| chosen.itm), ..found[0].clone() }
}

/// The matching score's shares at the top level, the contrast's own under `itc`.
fn as_json(found: &[Chosen], records: usize) -> Value {
    let mean = mean(found);
    let mut value = json!(mean.itm);
    let more = json!({"records": records, "queries": mean.queries, "candidates": mean.candidates, "itc": mean.itc, "itm": mean.itm,
        "chance": mean.chance(), "lists": found});
    value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    value
}

fn table(found: &[Chosen], records: usize) -> String {
    let mean = mean(found);
    let [of_images, of_texts] = mean.queries;
    let mut table = format!(
        "{records} records; {of_images} images and {of_texts} texts put to {} candidates each{}\n",
        mean.candidates,
        if found.len() > 1 { format!(", mean of {} lists", found.len()) } else { String::new() }
    );
    table += &super::retrieval::header();
    let rows = [("matching (ITM)", mean.itm), ("contrast (ITC)", mean.itc), ("chance", mean.chance())];
    rows.iter().fold(table, |table, (name, recalls)| table + &super::retrieval::row(name, recalls))
}
