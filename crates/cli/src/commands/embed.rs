//! `simla embed`.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::model::ModelArguments;
use simla_run::answer;
use simla_run::embed::{self, Features};
use simla_run::output::{check_file, files_of};
use simla_run::sources::open_data;

/// Writes features of pictures, captions or phrases for other programs
///
/// The contrast's features, of length one: the product of a picture's and a phrase's is their similarity. `.safetensors` has them as
/// `features` [n, E], with names (and texts) as lists of JSON in the metadata; `.npy` as an array, names beside it in `.names.json`; `.parquet` as
/// columns `name`, `text` and `feature`.
#[derive(Args)]
#[command(after_help = "\
  simla embed --images photographs --checkpoint runs/mine --output photographs.parquet
  simla embed --data captions.json --captions --checkpoint runs/mine --output captions.npy
  echo \"a dog in the snow\" | simla embed --phrases - --checkpoint runs/mine --output phrases.safetensors")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A folder of pictures, folders in it included
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "phrases"], required_unless_present_any = ["data", "phrases"])]
    images: Option<PathBuf>,
    /// Images with captions, whose pictures are embedded
    #[arg(long, value_name = "FILE", conflicts_with = "phrases")]
    data: Option<String>,
    /// With --data: the captions in place of the pictures
    #[arg(long, requires = "data")]
    captions: bool,
    /// With --data: folder that image paths are relative to, in place of the file's own
    #[arg(long, value_name = "DIR", requires = "data")]
    image_root: Option<PathBuf>,
    /// A file of phrases, one a line; - is the standard input
    #[arg(long, value_name = "FILE")]
    phrases: Option<PathBuf>,
    /// The file to write: .safetensors, .npy or .parquet
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Overwrites the file that --output names
    #[arg(long)]
    force: bool,
    /// Word pieces of a text at most
    #[arg(long, default_value_t = simla_data::vocabulary::MAX_TOKENS)]
    max_tokens: usize,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let (output, force) = (arguments.output.as_path(), arguments.force);
    let model = arguments.model.open()?;
    let check = |mut inputs: Vec<PathBuf>| {
        inputs.extend(model.checkpoint.files());
        check_file(Some(output), embed::ENDINGS, force, || inputs.clone())?;
        check_file(embed::names_beside(output).as_deref(), &["json"], force, || inputs)
    };
    let features = match (&arguments.images, &arguments.data) {
        (Some(folder), _) => {
            check(vec![])?; // pictures end otherwise
            Features::of_folder(&model, folder)?
        }
        (None, Some(data)) => {
            let image_root = arguments.image_root.as_deref();
            let dataset = open_data(std::slice::from_ref(data), image_root, 1.0)?;
            check(files_of(&dataset))?;
            let root = image_root.or(Path::new(data).parent());
            match arguments.captions {
                true => Features::of_captions(&model, &dataset, root, arguments.max_tokens, data)?,
                false => Features::of_images(&model, &dataset, root, data)?,
            }
        }
        (None, None) => {
            let path = arguments.phrases.as_ref().expect("clap asks for one of them");
            check(vec![path.clone()])?;
            Features::of_phrases(&model, phrases(path)?, arguments.max_tokens)?
        }
    };
    features.save(output)?;
    answer!("{}: {} features of {} numbers", output.display(), features.names.len(), features.width);
    Ok(ExitCode::SUCCESS)
}

/// The lines of a file that say something.
fn phrases(path: &Path) -> Result<Vec<String>> {
    let reader: Box<dyn BufRead> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => {
            let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
            Box::new(std::io::BufReader::new(file))
        }
    };
    let lines: Result<Vec<String>, _> = reader.lines().collect();
    let lines = lines.with_context(|| path.display().to_string())?;
    Ok(lines.into_iter().filter(|line| !line.trim().is_empty()).collect())
}
