//! What the commands that train have in common: arguments, settings, folders, how they go on and end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use simla::import::Tensors;
use simla_run::settings::{Decided, Settings, sections_help};
use simla_train::Ending;
use simla_train::checkpoint::{Checkpoint, CheckpointError};
use simla_train::weights::WeightsError;
use tch::Device;

use simla_run::inputs::{Inputs, Kind, Moved};
use simla_run::memory::Room;
use simla_run::say;

/// Exit status of a run that was asked to stop and can be resumed: "try again" among the system's conventions.
const STOPPED: u8 = 75;

/// Arguments of every command that trains.
#[derive(Args)]
pub struct Training {
    /// Settings in a TOML file, as name = value
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting, over the file's; `simla settings` explains all
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Folder that image paths of all data are relative to, in place of each file's own
    #[arg(long, value_name = "DIR")]
    pub image_root: Option<PathBuf>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: String,
}

impl Training {
    /// The device, opened.
    pub fn device(&self) -> Result<Device> {
        Ok(simla_train::torch::device::open(&self.device)?)
    }

    /// The text of the file of settings, where there is one.
    pub fn config(&self) -> Result<Option<String>> {
        self.config.as_deref().map(read).transpose()
    }

    /// The settings of pre-training, resolved.
    pub fn settings(&self) -> Result<Settings> {
        self.settings_from(&Decided::default())
    }

    /// As [`Training::settings`], for a run that starts from weights.
    pub fn settings_from(&self, weights: &Decided) -> Result<Settings> {
        Ok(Settings::resolve_from(weights, self.config()?.as_deref(), &self.set)?)
    }

    /// The same for a run on `device`, whose memory a batch fills where `batch_size=auto`.
    pub fn settings_on(&self, device: Device, weights: &Decided) -> Result<Settings> {
        const AUTO: &str = "batch_size=auto";
        let (auto, mut set): (Vec<String>, _) = self.set.iter().cloned().partition(|set| set.replace(' ', "") == AUTO);
        let config = self.config()?;
        let resolved = |set: &[String]| Settings::resolve_from(weights, config.as_deref(), set);
        let settings = resolved(&set)?;
        if auto.is_empty() {
            return Ok(settings);
        }
        let batch = Room::of(device).largest_batch(&settings, settings.model.vocab_size);
        let batch =
            batch.with_context(|| format!("--set {AUTO}: no batch fits, or this system does not say what is free"))?;
        say!("batch_size = {batch}: as many pairs as fit");
        set.push(format!("batch_size={batch}"));
        Ok(resolved(&set)?)
    }
}

/// Arguments of the commands whose runs go on with `--resume`.
#[derive(Args)]
pub struct Resumable {
    /// What to learn from: files, patterns or folders
    #[arg(long, required_unless_present = "resume", num_args = 1.., value_name = "FILE")]
    pub data: Vec<String>,
    /// Folder for the run
    #[arg(long, required_unless_present = "resume", value_name = "DIR")]
    output: Option<PathBuf>,
    /// Go on with the run in this folder, from its last checkpoint. Of what has moved since, --data, --eval-data and others say where
    /// it is now: the same records are expected there
    #[arg(long, value_name = "DIR", conflicts_with_all = ["output", "config"])]
    resume: Option<PathBuf>,
    /// With --resume: take the newest checkpoint that is whole and fits, where the last one does not
    #[arg(long, requires = "resume")]
    allow_older: bool,
    /// Held-out data of the same kind: the model is measured on them while the run goes on (eval_every_steps)
    #[arg(long, value_name = "FILE")]
    pub eval_data: Option<PathBuf>,
    #[command(flatten)]
    pub training: Training,
}

impl Resumable {
    /// The run's folder: for a new run, one that has none yet.
    pub fn folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.resume {
            return Ok(folder.clone());
        }
        let folder = self.output.as_ref().expect("clap asks for it");
        if folder.join("run.json").exists() {
            bail!("{0}: there is a run in here; go on with --resume {0}, or choose another --output", folder.display());
        }
        Ok(folder.clone())
    }

    /// What the run to go on with is made of, with these arguments over its own; none for a new run. It has to be of this kind.
    pub fn resumed(&self, kind: Kind) -> Result<Option<(Settings, Inputs)>> {
        let Some(folder) = &self.resume else {
            return Ok(None);
        };
        let saved = read(&folder.join("config.toml")).context("--resume: not the folder of a run")?;
        let inputs: Inputs = serde_json::from_str(&read(&folder.join("run.json"))?).context("run.json")?;
        if inputs.kind() != kind {
            let command = inputs.kind().command();
            bail!("{0}: a run of {command}; go on with {command} --resume {0}", folder.display());
        }
        let before = Settings::resumed(&saved, &[])?;
        let set = &self.training.set;
        let settings = match kind {
            Kind::Pretraining => Settings::resumed(&saved, set)?,
            _ => Settings::resolve_fine_tuning(kind, &before, None, set)?,
        };
        settings.check_resumed(&before)?;
        let moved = Moved {
            data: !self.data.is_empty(),
            // A run may get held-out pairs that it had none of.
            held_out: self.eval_data.is_some() && inputs.held_out.is_some(),
            ..Moved::default()
        };
        let inputs = Inputs {
            data: if moved.data { self.data.clone() } else { inputs.data },
            held_out: self.eval_data.clone().or(inputs.held_out),
            image_root: self.training.image_root.clone().or(inputs.image_root),
            moved,
            ..inputs
        };
        Ok(Some((settings, inputs)))
    }

    /// Where a run that is resumed goes on; none for a new run, or one that was killed before it saved anything. `fits` puts a checkpoint's
    /// tensors into the model.
    pub fn last_checkpoint(
        &self,
        fits: impl FnMut(&Tensors) -> Result<(), WeightsError>,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        match &self.resume {
            Some(folder) => last_checkpoint(folder, self.allow_older, fits),
            None => Ok(None),
        }
    }
}

/// The names of the settings of pre-training, for `--help`.
pub fn settings_help() -> String {
    sections_help("simla settings", |name| Settings::is_read(Kind::Pretraining, name))
}

/// The code to exit with.
pub fn code(ending: Ending) -> ExitCode {
    match ending {
        Ending::Finished => ExitCode::SUCCESS,
        Ending::Stopped => ExitCode::from(STOPPED),
    }
}

/// Says what to do after a run of this kind in `folder`, and gives the code to exit with.
pub fn conclude(ending: Ending, kind: Kind, folder: &Path) -> ExitCode {
    let folder = folder.display().to_string();
    match ending {
        Ending::Finished => {
            say!("done: the model is in {folder}");
            say!("next: {}", kind.next(&folder));
        }
        Ending::Stopped => say!("stopped: go on with {} --resume {folder}", kind.command()),
    }
    code(ending)
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("{}", path.display()))
}

/// Where a run goes on: its last checkpoint, or with `allow_older` the newest whose tensors `fits` takes. None where the run was killed
/// before it saved one.
pub fn last_checkpoint(
    run: &Path,
    allow_older: bool,
    mut fits: impl FnMut(&Tensors) -> Result<(), WeightsError>,
) -> Result<Option<Checkpoint>, CheckpointError> {
    let last = match Checkpoint::open(run) {
        Err(CheckpointError::None(_)) => return Ok(None),
        last if !allow_older => return last.map(Some),
        last => last,
    };
    let mut usable = |checkpoint: &Checkpoint| {
        checkpoint.verify()?;
        fits(&checkpoint.model()?).map_err(|e| checkpoint.blame(e))
    };
    match last.and_then(|last| usable(&last).map(|()| last)) {
        Ok(last) => Ok(Some(last)),
        Err(error) => {
            say!("{error}");
            let older = Checkpoint::newest(run, |checkpoint| usable(checkpoint).is_ok())?;
            say!("going on from {}", older.path.display());
            Ok(Some(older))
        }
    }
}
