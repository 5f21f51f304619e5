//! `simla pretrain`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use simla::config::Preset;
use simla::model::Simla;
use simla::settings::{HELP, Settings};
use simla::train::Ending;
use simla::train::checkpoint::{Checkpoint, CheckpointError};

use crate::run::{Inputs, Run};
use crate::stop;

/// Pre-trains a model on image-caption pairs
///
/// The data are JSON files in the layout `[{"image": "path", "caption": "text" or ["text", ...]}]`, paths relative to the file; CSV or
/// TSV files with such columns; tar shards as img2dataset writes them, as files, patterns like `{000..041}.tar` or folders; folders of
/// photographs with a .txt or .json beside each. Several are mixed; FILE@2 shows its records twice an epoch, FILE@0.5 half of them.
/// Everything that the run makes goes into the output folder. Interrupted (Ctrl-C), it finishes its step, saves, and exits with
/// status 75; `--resume` goes on from there.
#[derive(Args)]
#[command(after_long_help = settings_help())]
pub struct Arguments {
    /// Image-caption pairs: files, patterns or folders
    #[arg(long, required_unless_present = "resume", num_args = 1.., value_name = "FILE")]
    data: Vec<String>,
    /// Folder for the run
    #[arg(long, required_unless_present = "resume", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Go on with the run in this folder, from its last checkpoint
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "output", "config"])]
    resume: Option<PathBuf>,
    /// With --resume: take the newest checkpoint that is whole and fits, where the last one does not
    #[arg(long, requires = "resume")]
    allow_older: bool,
    /// Settings in a TOML file, as name = value
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, over the file's; all are listed below (--help)
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Folder that image paths of all data are relative to, in place of each file's own
    #[arg(long, value_name = "DIR")]
    image_root: Option<PathBuf>,
    /// A vocab.txt or tokenizer.json to use; without, word pieces are learned from the captions
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// A visual tokenizer to use; without, one is trained on the same images first
    #[arg(long, value_name = "DIR")]
    dvae: Option<PathBuf>,
    /// Weights to start from, in place of random ones: folders of `simla import` or of another run. Positions are resampled to
    /// image_size; all other sizes must be those of the weights
    #[arg(long, num_args = 1.., value_name = "DIR", conflicts_with = "resume")]
    init: Vec<PathBuf>,
    /// Held-out pairs: retrieval is measured on them while the run goes on (eval_every_steps)
    #[arg(long, value_name = "FILE")]
    eval_data: Option<PathBuf>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

/// Every setting with its default and meaning, for `--help`.
pub fn settings_help() -> String {
    help_of("defaults of preset", Settings::preset, |_| true)
}

/// The settings that `shows` tells by name, each with its default of every preset and its meaning.
pub fn help_of(
    whose: &str,
    defaults: impl Fn(Preset) -> Settings,
    shows: impl Fn(&str) -> bool,
) -> String {
    let [tiny, small, base] = [Preset::Tiny, Preset::Small, Preset::Base].map(|preset| {
        let file = defaults(preset).to_toml();
        file.lines().map(value_of).collect::<Vec<_>>()
    });
    let mut help = format!(
        "Settings (--set NAME=VALUE, or a line of --config); [{whose} tiny, small, base]:\n"
    );
    let shown = HELP.iter().enumerate();
    for (i, (name, what)) in shown.filter(|(_, (name, _))| shows(name)) {
        let defaults = if tiny[i] == small[i] && small[i] == base[i] {
            tiny[i].clone()
        } else {
            format!("{}, {}, {}", tiny[i], small[i], base[i])
        };
        help.push_str(&format!("  {name:<22} {what} [{defaults}]\n"));
    }
    help
}

/// `a` of `name = a # help`.
fn value_of(line: &str) -> String {
    let value = line.split_once(" = ").map_or(line, |(_, rest)| rest);
    value.split(" # ").next().unwrap_or(value).to_owned()
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let device = simla::device::open(&arguments.device)?;
    let (folder, settings, inputs) = match &arguments.resume {
        Some(folder) => {
            let (settings, inputs) = resumed(folder, &arguments.set)?;
            if inputs.fine_tuned.is_some() {
                bail!(
                    "{0}: a fine-tuning; go on with simla finetune retrieval --resume {0}",
                    folder.display()
                );
            }
            let inputs = Inputs {
                held_out: arguments.eval_data.or(inputs.held_out),
                image_root: arguments.image_root.or(inputs.image_root),
                dvae: arguments.dvae.or(inputs.dvae),
                ..inputs
            };
            (folder.clone(), settings, inputs)
        }
        None => {
            let file = arguments.config.as_deref().map(read).transpose()?;
            let settings = Settings::resolve(file.as_deref(), &arguments.set)?;
            let folder = arguments.output.expect("clap asks for it");
            refuse_run(&folder)?;
            let inputs = Inputs {
                data: arguments.data,
                image_root: arguments.image_root,
                vocabulary: arguments.vocabulary,
                dvae: arguments.dvae,
                init: arguments.init,
                held_out: arguments.eval_data,
                ..Inputs::default()
            };
            (folder, settings, inputs)
        }
    };
    let stop = stop::on_signal()?;
    let run = Run::prepare(&folder, settings, inputs, device)?;
    if !run.inputs.init.is_empty() {
        run.model()?; // what does not fit is said before a tokenizer is trained
    }
    let (dvae, ending) = run.tokenizer(&stop)?;
    let ending = match ending {
        Ending::Finished => {
            let mut model = run.model()?;
            let resume = match arguments.resume.is_some() {
                true => last_checkpoint(&folder, &mut model, arguments.allow_older)?,
                false => None,
            };
            run.train(model, dvae, resume.as_ref(), &stop)?.1
        }
        Ending::Stopped => ending,
    };
    Ok(conclude(ending, "simla pretrain", &folder))
}

/// Says what to do after a run of `command` in `folder`, and gives the code to exit with.
pub fn conclude(ending: Ending, command: &str, folder: &Path) -> ExitCode {
    let folder = folder.display();
    match ending {
        Ending::Finished => {
            eprintln!("done: the model is in {folder}");
            eprintln!("next: simla eval retrieval --checkpoint {folder} --data HELD_OUT.json");
        }
        Ending::Stopped => eprintln!("stopped: go on with {command} --resume {folder}"),
    }
    stop::code(ending)
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{}", path.display()))
}

/// Refuses a folder for a new run that has one already.
pub fn refuse_run(folder: &Path) -> Result<()> {
    if folder.join("run.json").exists() {
        bail!(
            "{0}: there is a run in here; go on with --resume {0}, or choose another --output",
            folder.display()
        );
    }
    Ok(())
}

/// What the run in `folder` is made of, with these settings over its own.
pub fn resumed(folder: &Path, set: &[String]) -> Result<(Settings, Inputs)> {
    let saved = read(&folder.join("config.toml")).context("--resume: not the folder of a run")?;
    let inputs: Inputs =
        serde_json::from_str(&read(&folder.join("run.json"))?).context("run.json")?;
    let before = Settings::resolve(Some(&saved), &[])?;
    let settings = match inputs.fine_tuned {
        None => Settings::resolve(Some(&saved), set)?,
        Some(_) => Settings::resolve_fine_tuning(&before, None, set)?,
    };
    settings.check_resumed(&before)?;
    Ok((settings, inputs))
}

/// Where a run goes on: its last checkpoint, or with `allow_older` the newest that fits `model`, which takes its tensors. None
/// where the run was killed before it saved one.
pub fn last_checkpoint(
    run: &Path,
    model: &mut Simla,
    allow_older: bool,
) -> Result<Option<Checkpoint>, CheckpointError> {
    let last = match Checkpoint::open(run) {
        Err(CheckpointError::None(_)) => return Ok(None),
        last if !allow_older => return last.map(Some),
        last => last,
    };
    let mut usable = |checkpoint: &Checkpoint| {
        checkpoint.verify()?;
        let loaded = model.load(&checkpoint.model()?);
        loaded.map_err(|e| checkpoint.blame(e))
    };
    match last.and_then(|last| usable(&last).map(|()| last)) {
        Ok(last) => Ok(Some(last)),
        Err(error) => {
            eprintln!("{error}");
            let older = Checkpoint::newest(run, |checkpoint| usable(checkpoint).is_ok())?;
            eprintln!("going on from {}", older.path.display());
            Ok(Some(older))
        }
    }
}
