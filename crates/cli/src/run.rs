//! A run in a folder: its data, vocabulary, tokenizer, model and training, as `pretrain` and `demo` share them.
//!
//! RUN/run.json            where the data and the tokenizer are
//! RUN/config.toml         every setting, resolved
//! RUN/vocabulary.json     the word pieces
//! RUN/dvae/               the visual tokenizer's own run, where none was given
//! RUN/checkpoints/, RUN/metrics.jsonl
//! and what `watch` leaves for people to see

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use simla::dvae::encoder::EncoderConfig;
use simla::dvae::training::Training;
use simla::dvae::{Dvae, DvaeConfig};
use simla::guard::guarded;
use simla::model::Simla;
use simla::optim::AdamWConfig;
use simla::settings::Settings;
use simla::tasks::pretrain::{Pretraining, special_ids};
use simla::tasks::retrieval::{Gallery, Retrieval, evaluate};
use simla::train::checkpoint::{Checkpoint, write_atomically};
use simla::train::{Ending, Plan, Trainer};
use simla_data::{Batch, Dataset, Loader, Options, Source, Vocabulary};
use simla_image::Recipe;
use tch::Device;

use crate::console::Progress;
use crate::watch::{Evaluating, Looking, Watch};

/// Where a run's data come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Inputs {
    pub data: Vec<String>,
    pub image_root: Option<PathBuf>,
    pub vocabulary: Option<PathBuf>,
    pub dvae: Option<PathBuf>,
    /// Held-out pairs, for retrieval while the run goes on.
    pub held_out: Option<PathBuf>,
}

/// A run that is set up: everything but the models.
pub struct Run {
    pub folder: PathBuf,
    pub settings: Settings,
    pub inputs: Inputs,
    pub device: Device,
    pub dataset: Arc<Dataset>,
    pub vocabulary: Arc<Vocabulary>,
    pub held_out: Option<HeldOut>,
}

/// Opens sources given as on the command line.
pub fn open_data(
    data: &[String],
    image_root: Option<&Path>,
    max_bad_share: f64,
) -> Result<Dataset> {
    let sources: Vec<Source> = data
        .iter()
        .map(|text| text.parse().expect("any text is a source"))
        .collect();
    let options = Options {
        image_root: image_root.map(Path::to_owned),
        max_bad_share,
        ..Options::default()
    };
    Ok(Dataset::open(&sources, &options)?)
}

impl Run {
    /// Opens everything that is given, learns the vocabulary where none is, and only then writes down what the run is made of:
    /// what is wrong is found before anything is computed or left behind.
    pub fn prepare(
        folder: &Path,
        settings: Settings,
        inputs: Inputs,
        device: Device,
    ) -> Result<Self> {
        let dataset = open_data(
            &inputs.data,
            inputs.image_root.as_deref(),
            settings.max_bad_share,
        )?;
        check_batches(&settings, &inputs, dataset.len())?;
        if let Some(dvae) = &inputs.dvae {
            Checkpoint::open(dvae)?;
        }
        let saved = folder.join("vocabulary.json");
        let vocabulary = if saved.exists() {
            Vocabulary::open(&saved)?
        } else {
            match &inputs.vocabulary {
                Some(path) => Vocabulary::open(path)?,
                None => Vocabulary::learn(dataset.captions(), settings.vocab_size as usize)?,
            }
        };
        let held_out = match &inputs.held_out {
            Some(path) => Some(HeldOut::open(path, &vocabulary, &settings)?),
            None => None,
        };
        fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be made", folder.display()))?;
        vocabulary.save(&saved)?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            write_atomically(&path, text.as_bytes()).with_context(|| format!("{}", path.display()))
        };
        write("config.toml", &settings.to_toml())?;
        // Last: what makes the folder a run that can be resumed.
        write("run.json", &serde_json::to_string_pretty(&inputs)?)?;
        eprintln!(
            "{} records, {} word pieces",
            dataset.len(),
            vocabulary.len()
        );
        Ok(Self {
            folder: folder.into(),
            settings,
            inputs,
            device,
            dataset: Arc::new(dataset),
            vocabulary: Arc::new(vocabulary),
            held_out,
        })
    }

    fn recipe(&self) -> Recipe {
        let s = &self.settings;
        Recipe {
            side: s.image_size as u32,
            scale: (s.min_scale, 1.0),
            flip: s.flip,
            augment: s.augment,
            ..Recipe::default()
        }
    }

    /// How batches are made; `steps` counts batches, not optimiser steps.
    fn loading(&self, batch: u64, first_step: u64, steps: u64) -> simla_data::Plan {
        let s = &self.settings;
        simla_data::Plan {
            batch: batch as usize,
            seed: s.seed,
            first_step,
            steps,
            workers: s.workers as usize,
            max_tokens: s.max_tokens as usize,
            patch_grid: (s.image_size / s.patch_size) as usize,
            masked_patches: s.masked_patches(),
            ..simla_data::Plan::default()
        }
    }

    fn load(&self, plan: simla_data::Plan) -> Result<Loader> {
        Ok(Loader::start(
            Arc::clone(&self.dataset),
            Arc::clone(&self.vocabulary),
            self.recipe(),
            plan,
        )?)
    }

    /// The tokenizer that was given, or the run's own, trained first where it is not there yet. None: asked to stop meanwhile.
    pub fn tokenizer(&self, stop: &AtomicBool) -> Result<Option<Dvae>> {
        let kind = self.settings.dtype.kind();
        let folder = match &self.inputs.dvae {
            Some(folder) => folder.clone(),
            None => {
                let folder = self.folder.join("dvae");
                if self.train_tokenizer(&folder, stop)? == Ending::Stopped {
                    return Ok(None);
                }
                folder
            }
        };
        let dvae = Dvae::open(&folder, kind, self.device)?;
        let (codes, factor) = (dvae.vocab(), dvae.config.encoder.factor());
        let s = &self.settings;
        if codes != s.visual_vocab {
            bail!(
                "{}: a tokenizer of {codes} codes, but visual_vocab = {} (--set visual_vocab={codes})",
                folder.display(),
                s.visual_vocab
            );
        }
        if 2 * factor != s.patch_size {
            bail!(
                "{}: a tokenizer of {factor} pixels a code, which fits patch_size = {}, not {}",
                folder.display(),
                2 * factor,
                s.patch_size
            );
        }
        Ok(Some(dvae))
    }

    /// Trains a tokenizer in `folder`, from where it is.
    pub fn train_tokenizer(&self, folder: &Path, stop: &AtomicBool) -> Result<Ending> {
        let s = &self.settings;
        let encoder = EncoderConfig {
            width: s.dvae_width,
            groups: i64::from((s.patch_size / 2).ilog2()) + 1,
            blocks_per_group: 2,
            vocab: s.visual_vocab,
        };
        let resume = match Checkpoint::open(folder).and_then(|last| last.verify().map(|()| last)) {
            Ok(last) => Some(last),
            Err(_) => Checkpoint::newest(folder, |_| true).ok(),
        };
        let first = resume
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.state.step);
        if first >= s.dvae_steps {
            return Ok(Ending::Finished);
        }
        let mut loader = self.load(self.loading(s.dvae_batch_size, first, s.dvae_steps))?;
        let config = DvaeConfig {
            encoder,
            decoder: true,
        };
        let fresh = || Dvae::new(config, s.dtype.kind(), self.device, true, s.seed as i64);
        let dvae = guarded(fresh)?;
        let mut task = Training::new(dvae, s.dvae_steps);
        let plan = Plan {
            seed: s.seed,
            steps: s.dvae_steps,
            steps_per_epoch: loader.steps_per_epoch(),
            accumulate: 1,
            schedule: simla::optim::Schedule {
                lr: s.dvae_lr,
                warmup_lr: s.dvae_lr / 10.0,
                min_lr: s.dvae_lr / 20.0,
                warmup_steps: s.dvae_steps / 20,
                steps: s.dvae_steps,
            },
            clip_norm: 1.0,
            ..self.plan(s.dvae_steps, loader.steps_per_epoch())
        };
        let config = AdamWConfig {
            weight_decay: 0.0,
            ..s.optimizer()
        };
        let mut trainer = Trainer::new(&mut task, config, plan, folder, resume.as_ref())?;
        let shown = &["reconstruction", "codes_used"];
        let mut watch = Watch::start("tokenizer", folder, first, s.dvae_steps, shown)?;
        let ending = trainer.run(&mut task, &mut loader, &mut watch, stop);
        watch.end(&ending, &loader.report())?;
        Ok(ending?)
    }

    fn plan(&self, steps: u64, steps_per_epoch: u64) -> Plan {
        let s = &self.settings;
        Plan {
            seed: s.seed,
            steps,
            steps_per_epoch,
            accumulate: s.accumulate,
            schedule: s.schedule(steps),
            clip_norm: s.clip_norm,
            max_bad_steps: s.max_bad_steps,
            save_every_steps: s.save_every_steps,
            save_every: Duration::from_secs_f64(60.0 * s.save_every_minutes),
            keep: s.keep as usize,
        }
    }

    /// A fresh model for the run's vocabulary.
    pub fn model(&self) -> Result<Simla> {
        let s = &self.settings;
        let config = s.model(self.vocabulary.len() as i64, special_ids(&self.vocabulary));
        config.validate()?;
        let fresh = || Simla::new(config, s.dtype.kind(), self.device, s.seed as i64);
        Ok(guarded(fresh)?)
    }

    /// A few held-out pairs, always the same, whole and with the same masks.
    fn fixed_pairs(&self, held_out: &HeldOut) -> Result<Batch> {
        const PAIRS: u64 = 6;
        let size = PAIRS.min(held_out.dataset.len());
        let recipe = Recipe {
            scale: (1.0, 1.0),
            flip: false,
            augment: false,
            ..self.recipe()
        };
        let plan = simla_data::Plan {
            preflight: 0,
            ..self.loading(size, 0, 1)
        };
        let (dataset, vocabulary) = (&held_out.dataset, &self.vocabulary);
        let mut loader = Loader::start(Arc::clone(dataset), Arc::clone(vocabulary), recipe, plan)?;
        Ok(loader.next().expect("a plan of one batch")?)
    }

    /// Pre-trains `model`, from `resume` where there is one.
    pub fn pretrain(
        &self,
        model: Simla,
        dvae: Dvae,
        resume: Option<&Checkpoint>,
        stop: &AtomicBool,
    ) -> Result<(Simla, Ending)> {
        let s = &self.settings;
        let per_epoch = self
            .loading(s.batch_size, 0, 0)
            .steps_per_epoch(self.dataset.len())
            / s.accumulate;
        let steps = s.total_steps(per_epoch);
        let first = resume.map_or(0, |checkpoint| checkpoint.state.step);
        if let Some(before) = resume.map(|checkpoint| checkpoint.state.steps_per_epoch)
            && before != per_epoch
        {
            eprintln!(
                "the data have changed: an epoch has {per_epoch} steps, not {before}; pairs come in another order from here on"
            );
        }
        let mut loader =
            self.load(self.loading(s.batch_size, first * s.accumulate, steps * s.accumulate))?;
        let vocabulary = fs::read(self.folder.join("vocabulary.json"))?;
        let mut task = Pretraining::new(model, dvae, s.objectives, s.alpha, vocabulary);
        let mut trainer = Trainer::new(
            &mut task,
            s.optimizer(),
            self.plan(steps, per_epoch),
            &self.folder,
            resume,
        )?;
        let first = trainer.step();
        let shown = &["itc", "itm", "mlm", "mim", "psl"];
        let watch = Watch::start("pre-training", &self.folder, first, steps, shown)?;
        let looking = match &self.held_out {
            Some(held_out) => Some(Looking::at(
                &self.folder,
                first,
                held_out,
                self.fixed_pairs(held_out)?,
                &self.vocabulary,
                (s.eval_every_steps, s.samples_every_steps),
            )?),
            None => None,
        };
        let mut watch = Evaluating { watch, looking };
        let ending = trainer.run(&mut task, &mut loader, &mut watch, stop);
        watch.watch.end(&ending, &loader.report())?;
        Ok((task.simla, ending?))
    }
}

/// Refuses batches that the data set cannot fill.
fn check_batches(settings: &Settings, inputs: &Inputs, records: u64) -> Result<()> {
    let (batch, accumulate) = (settings.batch_size, settings.accumulate);
    if batch * accumulate > records {
        bail!(
            "batch_size = {batch} x accumulate = {accumulate}: expected at most the {records} records of the data set"
        );
    }
    let batch = settings.dvae_batch_size;
    if inputs.dvae.is_none() && batch > records {
        bail!("dvae_batch_size = {batch}: expected at most the {records} records of the data set");
    }
    Ok(())
}

/// Held-out pairs with what is needed to rank them.
pub struct HeldOut {
    dataset: Arc<Dataset>,
    gallery: Gallery,
}

impl HeldOut {
    pub fn open(path: &Path, vocabulary: &Vocabulary, settings: &Settings) -> Result<Self> {
        let dataset = open_data(&[path.display().to_string()], None, settings.max_bad_share)?;
        let gallery = Gallery::read(&dataset, vocabulary, settings.max_tokens as usize);
        let usable = gallery.images.len();
        if usable < 2 {
            bail!(
                "{}: {usable} usable records for evaluation, expected at least 2",
                path.display()
            );
        }
        let dataset = Arc::new(dataset);
        Ok(Self { dataset, gallery })
    }

    pub fn evaluate(&self, model: &Simla, top_k: usize, what: &str) -> Result<Retrieval> {
        let mut progress: Option<Progress> = None;
        let mut show = |done: usize, all: usize| {
            progress
                .get_or_insert_with(|| Progress::new(what, 0, all as u64))
                .set(done as u64, String::new);
        };
        Ok(evaluate(
            model,
            &self.dataset,
            &self.gallery,
            top_k,
            &mut show,
        )?)
    }
}
