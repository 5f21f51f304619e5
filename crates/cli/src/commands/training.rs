//! What the commands that train have in common: arguments, settings, folders, how they go on and end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use simla::config::ModelConfig;
use simla::import::Tensors;
use simla::tasks::pretrain::{Saved, VOCABULARY};
use simla_run::settings::{Decided, Settings, sections_help};
use simla_train::checkpoint::{Checkpoint, CheckpointError};
use simla_train::weights::WeightsError;
use simla_train::{Ending, Team};
use tch::Device;

use simla_run::compute::Compute;
use simla_run::inputs::{Inputs, Kind, Moved};
use simla_run::launch::launch;
use simla_run::memory::Room;
use simla_run::say;
use simla_run::stop::STOPPED;

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
    /// Where to compute: cpu, cuda or cuda:N; of several processes, each takes the GPU of its number
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Processes of this machine that train together, such as one for each GPU. A new run has so many micro-batches in a step (accumulate);
    /// it goes on with any number that divides them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    processes: Option<u16>,
}

impl Training {
    /// Starts the processes that are asked for, and gives the code to exit with when they have ended; none in each of them, and where none
    /// are asked for.
    pub fn launched(&self) -> Result<Option<ExitCode>> {
        match self.processes.map(usize::from) {
            Some(asked) if !Compute::is_launched(asked)? && asked > 1 => launch(asked).map(Some),
            _ => Ok(None),
        }
    }

    /// Where this process computes, and with whom.
    pub fn compute(&self) -> Result<Compute> {
        Compute::join(&self.device)
    }

    /// The text of the file of settings, where there is one.
    pub fn config(&self) -> Result<Option<String>> {
        self.config.as_deref().map(read).transpose()
    }

    /// The file's settings and those over it, as assignments.
    fn assignments(&self) -> Result<Vec<String>> {
        let file: toml::Table = self.config()?.unwrap_or_default().parse().context("--config")?;
        let file = file.iter().map(|(name, value)| format!("{name}={value}"));
        Ok(file.chain(self.set.iter().cloned()).collect())
    }

    /// The settings of pre-training, resolved, for a run that `team` begins from some weights.
    pub fn settings(&self, weights: Decided, team: &Team) -> Result<Settings> {
        let decided = decided(weights, team);
        self.resolved(&decided, &self.set)
    }

    fn resolved(&self, decided: &Decided, set: &[String]) -> Result<Settings> {
        Ok(Settings::resolve_from(decided, self.config()?.as_deref(), set)?)
    }

    /// The same for a run on `device`, whose memory a batch fills where `batch_size=auto`: that of the first process.
    pub fn settings_on(&self, device: Device, weights: Decided, team: &Team) -> Result<Settings> {
        let (auto, mut set): (Vec<String>, _) = self.set.iter().cloned().partition(|set| is_auto(set));
        let decided = decided(weights, team);
        let settings = team.all(self.resolved(&decided, &set))?;
        if auto.is_empty() {
            return Ok(settings);
        }
        let batch = team.first(|| {
            let batch = Room::of(device).largest_batch(&settings, settings.model.vocab_size);
            batch.with_context(|| format!("--set {AUTO}: no batch fits, or this system does not say what is free"))
        })?;
        say!("batch_size = {batch}: as many pairs as fit");
        set.push(format!("batch_size={batch}"));
        self.resolved(&decided, &set)
    }
}

/// In place of a number: as many pairs as fit into memory.
const AUTO: &str = "batch_size=auto";

fn is_auto(assignment: &str) -> bool {
    assignment.replace(' ', "") == AUTO
}

/// What weights and processes decide.
fn decided(weights: Decided, team: &Team) -> Decided {
    Decided { batches: (team.world() > 1).then_some(team.world() as u64), ..weights }
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
    /// Go on with the run in --output if there is one, else begin it: the same command starts a run and starts it again
    #[arg(long = "continue", requires = "output")]
    goes_on: bool,
    /// When a run goes on: take the newest checkpoint that is whole and fits, where the last one does not
    #[arg(long)]
    allow_older: bool,
    /// Held-out data of the same kind: the model is measured on them while the run goes on (eval_every_steps)
    #[arg(long, value_name = "FILE")]
    pub eval_data: Option<PathBuf>,
    #[command(flatten)]
    pub training: Training,
}

impl Resumable {
    /// The run's folder.
    pub fn folder(&self) -> &Path {
        self.resume.as_ref().or(self.output.as_ref()).expect("clap asks for one of them")
    }

    /// What the run to go on with is made of, with these arguments over its own; none for a new run, in whose folder there is none yet. It has
    /// to be of this kind. The first process of `team` reads.
    pub fn resumed(&self, kind: Kind, team: &Team) -> Result<Option<(Settings, Inputs)>> {
        let folder = self.folder();
        let found = team.first(|| {
            let is_there = folder.join("run.json").exists();
            if is_there && self.resume.is_none() && !self.goes_on {
                bail!(
                    "{0}: there is a run in here; go on with --resume {0}, or choose another --output",
                    folder.display()
                );
            }
            if !is_there && self.resume.is_none() {
                return Ok(None);
            }
            let saved = read(&folder.join("config.toml")).context("--resume: not the folder of a run")?;
            Ok(Some((saved, read(&folder.join("run.json"))?)))
        })?;
        let Some((saved, inputs)) = found else {
            return Ok(None);
        };
        let inputs: Inputs = serde_json::from_str(&inputs).context("run.json")?;
        if inputs.kind() != kind {
            let command = inputs.kind().command();
            bail!("{0}: a run of {command}; go on with {command} --resume {0}", folder.display());
        }
        let before = Settings::resumed(&saved, &[])?;
        let mut set = self.training.assignments()?;
        let settings = match kind {
            Kind::Pretraining => {
                // What fitted was found when the run began.
                if set.iter().any(|assignment| is_auto(assignment)) {
                    set.retain(|assignment| assignment.split('=').next().map(str::trim) != Some("batch_size"));
                }
                Settings::resumed(&saved, &set)?
            }
            _ => Settings::resolve_fine_tuning(kind, &before, None, &set)?,
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

    /// What a new run that fine-tunes a model is made of: the model of `open`, which also says whether it was trained on larger pictures
    /// before. `given` are the inputs that its task alone has. The first process of `team` reads the model.
    pub fn begun(
        &self,
        kind: Kind,
        team: &Team,
        given: Inputs,
        open: impl FnOnce() -> Result<(Saved, bool)>,
    ) -> Result<(Settings, Inputs)> {
        let (config, again, model, vocabulary): (ModelConfig, bool, PathBuf, PathBuf) = team.first(|| {
            let (Saved { config, checkpoint, .. }, again) = open()?;
            let vocabulary = checkpoint.extra(VOCABULARY);
            Ok::<_, Error>((config, again, checkpoint.path, vocabulary))
        })?;
        let mut defaults = Settings::fine_tuning(kind, &config, again);
        defaults.train.accumulate = team.world() as u64;
        let (file, set) = (self.training.config()?, &self.training.set);
        let settings =
            team.all(Settings::resolve_fine_tuning(kind, &defaults, file.as_deref(), set).map_err(Error::from))?;
        let inputs = Inputs {
            kind: Some(kind),
            data: self.data.clone(),
            image_root: self.training.image_root.clone(),
            vocabulary: Some(vocabulary),
            // This one, wherever its run goes on to.
            fine_tuned: Some(model),
            held_out: self.eval_data.clone(),
            ..given
        };
        Ok((settings, inputs))
    }

    /// Where a run that is resumed goes on; none for a new run, or one that was killed before it saved anything, and none on processes but the
    /// first. `fits` puts a checkpoint's tensors into the model.
    pub fn last_checkpoint(
        &self,
        team: &Team,
        fits: impl FnMut(&Tensors) -> Result<(), WeightsError>,
    ) -> Result<Option<Checkpoint>> {
        let mut last = None;
        team.first(|| {
            last = last_checkpoint(self.folder(), self.allow_older, fits)?;
            Ok::<_, Error>(())
        })?;
        Ok(last)
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
