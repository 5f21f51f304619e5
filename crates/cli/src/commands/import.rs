//! `simla import`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use simla::config::ModelConfig;
use simla::dvae::DvaeConfig;
use simla::import::{self, Sizes, Tensors};
use simla::tasks::pretrain::{self, VOCABULARY, special_ids};
use simla_data::Vocabulary;
use simla_train::checkpoint::{Checkpoints, Contents};

use simla_run::init::Parts;
use simla_run::say;

/// Published weights to start from, or to use
///
/// Files of PyTorch (.pth, .bin, .pkl) or safetensors. Nothing in them is run: only tensors and what holds them is understood.
#[derive(Subcommand)]
pub enum Command {
    /// A ViT (DeiT's, timm's, DINOv2's) for the vision encoder: use it with simla pretrain --init
    #[command(alias = "deit")]
    Vit(EncoderArguments),
    /// BERT for the language and multimodal encoder: use it with simla pretrain --init
    Bert(WordsArguments),
    /// A SIMLA checkpoint of the authors: use it as any model of ours, or with simla pretrain --init
    Authors(WordsArguments),
    /// DALL-E's encoder: use it with simla pretrain --dvae
    Dalle(FileArguments),
}

#[derive(Args)]
pub struct FileArguments {
    /// The published file, the index of its shards (model.safetensors.index.json), or the folder of either
    file: PathBuf,
    /// Folder for the weights; it must not be there, or be empty
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

#[derive(Args)]
pub struct EncoderArguments {
    #[command(flatten)]
    file: FileArguments,
    /// Attention heads of each encoder; without, as the config.json beside the file says, or one for every 64 features
    #[arg(long, value_name = "N")]
    heads: Option<i64>,
}

impl EncoderArguments {
    /// The heads that are known: asked for, or published.
    fn heads(&self) -> Option<i64> {
        self.heads.or_else(|| import::published_heads(&self.file.file))
    }
}

#[derive(Args)]
pub struct WordsArguments {
    #[command(flatten)]
    encoder: EncoderArguments,
    /// The vocab.txt or tokenizer.json of these weights (bert-base-uncased's); it goes with them
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
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
    fn parts(
        weights: Tensors,
        closing_sep: Option<bool>,
        vocabulary: Option<Vocabulary>,
        encoder: &EncoderArguments,
    ) -> Result<Self> {
        let sizes = import::sizes(&weights, encoder.heads()).map_err(anyhow::Error::msg)?;
        show(&sizes, encoder)?;
        let parts = Parts { words: closing_sep.is_some(), closing_sep, sizes: Some(sizes) };
        let output = encoder.file.output.display();
        let words = match (parts.words, &vocabulary) {
            (true, None) => " --vocabulary vocab.txt",
            _ => "",
        };
        Ok(Self {
            task: import::TASK,
            config: serde_json::to_value(parts)?,
            weights,
            epoch: 0.0,
            vocabulary,
            next: format!("simla pretrain --init {output}{words} --data FILE --output RUN"),
        })
    }
}

pub fn run(command: Command) -> Result<ExitCode> {
    let FileArguments { file, output } = match &command {
        Command::Dalle(arguments) => arguments,
        Command::Vit(arguments) => &arguments.file,
        Command::Bert(arguments) | Command::Authors(arguments) => &arguments.encoder.file,
    };
    if let Ok(mut files) = fs::read_dir(output)
        && files.next().is_some()
    {
        bail!("{}: there is something in here already; choose another --output", output.display());
    }
    say!("reading {}", file.display());
    let imported = match &command {
        Command::Vit(arguments) => Imported::parts(import::vit(file)?, None, None, arguments)?,
        Command::Bert(arguments) => {
            let weights = import::bert(file)?;
            let vocabulary = vocabulary(arguments, &weights)?;
            Imported::parts(weights, Some(true), vocabulary, &arguments.encoder)?
        }
        Command::Authors(arguments) => authors(arguments)?,
        Command::Dalle(arguments) => {
            let found = import::dalle(&arguments.file)?;
            // Published for 16 x 16 codes a view, at half the view's side (docs/paper.md, 'Visual tokenizer').
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
                    "simla pretrain --dvae {} --set visual_vocab={} --data FILE --output RUN",
                    output.display(),
                    config.encoder.vocab,
                ),
            }
        }
    };
    let (tensors, values) = (imported.weights.len(), imported.weights.values().map(tch::Tensor::numel).sum::<usize>());
    let next = imported.next.clone();
    say!("writing {tensors} tensors, {values} values: {}", output.display());
    save(imported, output)?;
    say!("next: {next}");
    Ok(ExitCode::SUCCESS)
}

/// Says what the weights are, and refuses heads that do not divide their width: shapes do not tell the heads, and wrong ones make
/// the weights worthless without a word.
fn show(sizes: &Sizes, encoder: &EncoderArguments) -> Result<()> {
    let by = match (encoder.heads, encoder.heads()) {
        (Some(_), _) => "--heads",
        (None, Some(_)) => "config.json",
        (None, None) => "one for every 64 features; --heads where that is wrong",
    };
    for part in ["vision", "text"] {
        let of = |name: &str| sizes.get(&format!("{part}_{name}"));
        if let (Some(width), Some(depth), Some(&heads)) = (of("width"), of("depth"), of("heads")) {
            if heads < 1 || width % heads != 0 {
                bail!("{heads} heads ({by}): expected a divisor of the width, {width}; pass --heads");
            }
            say!("{part}: width {width}, {depth} layers, {heads} heads ({by})");
        }
    }
    if let (Some(image), Some(patch)) = (sizes.get("image_size"), sizes.get("patch_size")) {
        say!("positions for {image} pixels in patches of {patch}; other sizes are resampled");
    }
    Ok(())
}

/// A whole model with its vocabulary; without one, or where parts are missing, weights to start from.
fn authors(arguments: &WordsArguments) -> Result<Imported> {
    let encoder = &arguments.encoder;
    let found = import::authors(&encoder.file.file)?;
    found.check()?;
    let output = &encoder.file.output;
    let Some(vocabulary) = vocabulary(arguments, &found.weights)? else {
        say!("without --vocabulary, these are weights to start from, and no model to use");
        return Imported::parts(found.weights, Some(false), None, encoder);
    };
    if found.fine_tuned {
        say!("of a task, without the heads of pre-training: weights to start from, and no model to use");
        return Imported::parts(found.weights, Some(false), Some(vocabulary), encoder);
    }
    let config: ModelConfig = found
        .config(special_ids(&vocabulary), encoder.heads())
        .map_err(anyhow::Error::msg)
        .with_context(|| encoder.file.file.display().to_string())?;
    Ok(Imported {
        task: pretrain::TASK,
        config: serde_json::to_value(config)?,
        epoch: found.epoch.map_or(0.0, |last| last as f64 + 1.0),
        weights: found.weights,
        vocabulary: Some(vocabulary),
        next: format!(
            "simla eval retrieval --checkpoint {0} --data FILE, or simla pretrain --init {0} --data FILE --output RUN",
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
            arguments.encoder.file.file.display()
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
