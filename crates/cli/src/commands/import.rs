//! `simla import`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use simla::config::ModelConfig;
use simla::dvae::DvaeConfig;
use simla::import::{self, Tensors};
use simla::tasks::pretrain::{self, VOCABULARY, special_ids};
use simla_data::Vocabulary;
use simla_train::checkpoint::{Checkpoints, Contents};

/// Published weights to start from, or to use
///
/// Files of PyTorch (.pth, .bin, .pkl) or safetensors. Nothing in them is run: only tensors and what holds them is understood.
#[derive(Subcommand)]
pub enum Command {
    /// DeiT or ViT for the vision encoder: use it with simla pretrain --init
    Deit(FileArguments),
    /// BERT for the language and multimodal encoder: use it with simla pretrain --init
    Bert(WordsArguments),
    /// A SIMLA checkpoint of the authors: use it as any model of ours, or with simla pretrain --init
    Authors(AuthorsArguments),
    /// DALL-E's encoder: use it with simla pretrain --dvae
    Dalle(FileArguments),
}

#[derive(Args)]
pub struct FileArguments {
    /// The published file
    file: PathBuf,
    /// Folder for the weights; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Args)]
pub struct WordsArguments {
    #[command(flatten)]
    file: FileArguments,
    /// The vocab.txt or tokenizer.json of these weights (bert-base-uncased's); it goes with them
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
}

#[derive(Args)]
pub struct AuthorsArguments {
    #[command(flatten)]
    words: WordsArguments,
    /// Attention heads of each encoder; without, one for every 64 features, as published
    #[arg(long, value_name = "N")]
    heads: Option<i64>,
}

/// What goes into the folder.
struct Imported {
    task: &'static str,
    config: Value,
    weights: Tensors,
    epoch: f64,
    vocabulary: Option<Vocabulary>,
    /// What it can be used for.
    next: String,
}

impl Imported {
    /// Parts of a model, with `words` where word embeddings are among them.
    fn parts(weights: Tensors, words: bool, vocabulary: Option<Vocabulary>, output: &Path) -> Self {
        Self {
            task: import::TASK,
            config: json!({"words": words}),
            weights,
            epoch: 0.0,
            vocabulary,
            next: format!("simla pretrain --init {} --set preset=base ...", output.display()),
        }
    }
}

pub fn run(command: Command) -> Result<ExitCode> {
    let FileArguments { file, output } = match &command {
        Command::Deit(arguments) | Command::Dalle(arguments) => arguments,
        Command::Bert(arguments) => &arguments.file,
        Command::Authors(arguments) => &arguments.words.file,
    };
    if let Ok(mut files) = fs::read_dir(output)
        && files.next().is_some()
    {
        bail!("{}: there is something in here already; choose another --output", output.display());
    }
    eprintln!("reading {}", file.display());
    let imported = match &command {
        Command::Deit(arguments) => Imported::parts(import::deit(&arguments.file)?, false, None, output),
        Command::Bert(arguments) => {
            let weights = import::bert(&arguments.file.file)?;
            let vocabulary = vocabulary(arguments, &weights)?;
            Imported::parts(weights, true, vocabulary, output)
        }
        Command::Authors(arguments) => authors(arguments)?,
        Command::Dalle(arguments) => {
            let found = import::dalle(&arguments.file)?;
            // Published for 16 x 16 codes a view, at half the view's side (spec of the paper, 2.5).
            const GRID: i64 = 16;
            let config =
                DvaeConfig { image_size: 2 * GRID * found.config.factor(), encoder: found.config, decoder: false };
            Imported {
                task: simla::dvae::TASK,
                config: serde_json::to_value(config)?,
                weights: found.weights,
                epoch: 0.0,
                vocabulary: None,
                next: format!(
                    "simla pretrain --dvae {} --set visual_vocab={} --set patch_size={} ...",
                    output.display(),
                    config.encoder.vocab,
                    2 * config.encoder.factor()
                ),
            }
        }
    };
    let (tensors, values) = (imported.weights.len(), imported.weights.values().map(tch::Tensor::numel).sum::<usize>());
    let next = imported.next.clone();
    eprintln!("writing {tensors} tensors, {values} values: {}", output.display());
    save(imported, output)?;
    eprintln!("next: {next}");
    Ok(ExitCode::SUCCESS)
}

/// A whole model with its vocabulary; without one, or where parts are missing, weights to start from.
fn authors(arguments: &AuthorsArguments) -> Result<Imported> {
    let AuthorsArguments { words, heads } = arguments;
    let found = import::authors(&words.file.file)?;
    let output = &words.file.output;
    let Some(vocabulary) = vocabulary(words, &found.weights)? else {
        eprintln!("without --vocabulary, these are weights to start from, and no model to use");
        return Ok(Imported::parts(found.weights, true, None, output));
    };
    let config: ModelConfig = match found.config(special_ids(&vocabulary), *heads) {
        Ok(config) => config,
        Err(reason) => {
            eprintln!("weights to start from, and no whole pre-trained model: {reason}");
            return Ok(Imported::parts(found.weights, true, Some(vocabulary), output));
        }
    };
    Ok(Imported {
        task: pretrain::TASK,
        config: serde_json::to_value(config)?,
        epoch: found.epoch.map_or(0.0, |last| last as f64 + 1.0),
        weights: found.weights,
        vocabulary: Some(vocabulary),
        next: format!(
            "simla eval retrieval --checkpoint {0} --data FILE, or simla pretrain --init {0} --set preset=base ...",
            output.display()
        ),
    })
}

/// The vocabulary that is given, if it has as many pieces as the weights have words.
fn vocabulary(arguments: &WordsArguments, weights: &Tensors) -> Result<Option<Vocabulary>> {
    let Some(path) = &arguments.vocabulary else {
        return Ok(None);
    };
    let vocabulary = Vocabulary::open(path)?;
    let words = weights.get("text_encoder.bert.embeddings.word_embeddings.weight");
    let words = words.map_or(0, |words| words.size()[0]);
    if vocabulary.len() as i64 != words {
        bail!(
            "--vocabulary {}: {} pieces, but {} has {words} words",
            path.display(),
            vocabulary.len(),
            arguments.file.file.display()
        );
    }
    Ok(Some(vocabulary))
}

fn save(imported: Imported, output: &Path) -> Result<()> {
    let mut extra = BTreeMap::new();
    if let Some(vocabulary) = &imported.vocabulary {
        extra.insert(VOCABULARY.to_owned(), vocabulary.to_json().into_bytes());
    }
    let contents = Contents {
        step: 0,
        epoch: imported.epoch,
        steps_per_epoch: 0,
        seed: 0,
        best: None,
        task: imported.task.into(),
        config: imported.config,
        model: imported.weights,
        optimizer: BTreeMap::new(),
        extra,
    };
    let checkpoints = Checkpoints::open(output, 1)?;
    checkpoints.save(contents, false).with_context(|| format!("{}", output.display()))?;
    Ok(())
}
