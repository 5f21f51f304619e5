//! A run in a folder: its data, vocabulary, tokenizer, model and training, as `pretrain` and `demo` share them.
//!
//! RUN/run.json            where the data and the tokenizer are
//! RUN/config.toml         every setting, resolved
//! RUN/vocabulary.json     the word pieces
//! RUN/dvae/               the visual tokenizer's own run, where none was given
//! RUN/checkpoints/, RUN/metrics.jsonl

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use simla::dvae::Dvae;
use simla::dvae::evaluation::{self, Outcome, Reconstruction};
use simla::dvae::training::Training;
use simla::model::Simla;
use simla::optim::AdamWConfig;
use simla::settings::Settings;
use simla::tasks::pretrain::{Pretraining, special_ids};
use simla::tasks::retrieval::{Gallery, Retrieval, evaluate};
use simla::train::checkpoint::{Checkpoint, write_atomically};
use simla::train::metrics::StepRecord;
use simla::train::{Ending, Observer, Plan, Task, Trainer};
use simla_data::{Dataset, Loader, Options, Source, Vocabulary};
use simla_image::Recipe;
use simla_pictures::canvas::{RgbImage, save_png};
use simla_pictures::sheet::{Cell, Sheet};
use tch::Device;

use crate::console::Progress;
use crate::start;

/// Where a run's data come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Inputs {
    pub data: Vec<String>,
    pub image_root: Option<PathBuf>,
    pub vocabulary: Option<PathBuf>,
    pub dvae: Option<PathBuf>,
    /// Folders of weights to start from, the later ones over the earlier ones.
    #[serde(default)]
    pub init: Vec<PathBuf>,
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
    let options = Options {
        image_root: image_root.map(Path::to_owned),
        max_bad_share,
        ..Options::default()
    };
    open_sources(data, &options)
}

/// As [`open_data`], with every option.
pub fn open_sources(data: &[String], options: &Options) -> Result<Dataset> {
    let sources: Vec<Source> = data
        .iter()
        .map(|text| text.parse().expect("any text is a source"))
        .collect();
    Ok(Dataset::open(&sources, options)?)
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
        Self::set_up(folder, settings, inputs, device, true)
    }

    /// As [`Run::prepare`], for a tokenizer alone.
    pub fn prepare_tokenizer(
        folder: &Path,
        settings: Settings,
        inputs: Inputs,
        device: Device,
    ) -> Result<Self> {
        Self::set_up(folder, settings, inputs, device, false)
    }

    fn set_up(
        folder: &Path,
        settings: Settings,
        inputs: Inputs,
        device: Device,
        has_model: bool,
    ) -> Result<Self> {
        let options = Options {
            image_root: inputs.image_root.clone(),
            image_column: settings.image_column.clone(),
            caption_column: settings.caption_column.clone(),
            max_bad_share: settings.max_bad_share,
            ..Options::default()
        };
        let dataset = open_sources(&inputs.data, &options)?;
        check_batches(&settings, &inputs, dataset.len(), has_model)?;
        if let Some(dvae) = &inputs.dvae {
            Checkpoint::open(dvae)?;
        }
        let start = start::vocabulary(&inputs.init, inputs.vocabulary.as_deref())?;
        let saved = folder.join("vocabulary.json");
        let vocabulary = if saved.exists() {
            Vocabulary::open(&saved)?
        } else {
            match inputs.vocabulary.as_ref().or(start.as_ref()) {
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
        write("run.json", &serde_json::to_string_pretty(&inputs)?)?;
        write("config.toml", &settings.to_toml())?;
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
        let resume = Checkpoint::newest_whole(folder).ok();
        let first = resume
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.state.step);
        if first >= s.dvae_steps {
            return Ok(Ending::Finished);
        }
        let mut loader = self.load(self.loading(s.dvae_batch_size, first, s.dvae_steps))?;
        let dvae = Dvae::new(
            s.tokenizer(),
            s.dtype.kind(),
            self.device,
            true,
            s.seed as i64,
        );
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
        let watch = Watch::new(
            "tokenizer",
            first,
            s.dvae_steps,
            &["reconstruction", "codes_used"],
        );
        let mut watch = Reconstructing {
            watch,
            held_out: self.held_out.as_ref(),
            every: s.eval_every_steps,
            steps: s.dvae_steps,
            folder,
        };
        let ending = trainer.run(&mut task, &mut loader, &mut watch, stop)?;
        watch.watch.report(&loader);
        Ok(ending)
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

    /// A fresh model for the run's vocabulary, with the weights that it is to start from.
    pub fn model(&self) -> Result<Simla> {
        let config = self
            .settings
            .model(self.vocabulary.len() as i64, special_ids(&self.vocabulary));
        config.validate()?;
        let mut simla = Simla::new(
            config,
            self.settings.dtype.kind(),
            self.device,
            self.settings.seed as i64,
        );
        start::weights(&mut simla, &self.inputs.init)?;
        Ok(simla)
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
        let watch = Watch::new(
            "pre-training",
            trainer.step(),
            steps,
            &["itc", "itm", "mlm", "mim", "psl"],
        );
        let mut watch = Evaluating {
            watch,
            held_out: self.held_out.as_ref(),
            every: s.eval_every_steps,
            steps,
        };
        let ending = trainer.run(&mut task, &mut loader, &mut watch, stop)?;
        watch.watch.report(&loader);
        Ok((task.simla, ending))
    }
}

/// Refuses batches that the data set cannot fill.
fn check_batches(
    settings: &Settings,
    inputs: &Inputs,
    records: u64,
    has_model: bool,
) -> Result<()> {
    let (batch, accumulate) = (settings.batch_size, settings.accumulate);
    if has_model && batch * accumulate > records {
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
    dataset: Dataset,
    gallery: Gallery,
}

impl HeldOut {
    pub fn open(path: &Path, vocabulary: &Vocabulary, settings: &Settings) -> Result<Self> {
        let dataset = open_data(&[path.display().to_string()], None, settings.max_bad_share)?;
        let gallery = Gallery::read(&dataset, vocabulary, settings.max_tokens as usize);
        if gallery.images.is_empty() {
            bail!("{}: no usable record for evaluation", path.display());
        }
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

/// Shows how training goes.
struct Watch {
    progress: Progress,
    /// Scores that the line shows.
    shown: &'static [&'static str],
}

impl Watch {
    fn new(what: &str, first: u64, steps: u64, shown: &'static [&'static str]) -> Self {
        Self {
            progress: Progress::new(what, first, steps),
            shown,
        }
    }

    fn line(&self, record: &StepRecord) -> String {
        let scores = self
            .shown
            .iter()
            .filter_map(|name| Some(format!("{name} {:.3}", record.scores.get(*name)?)));
        let scores: Vec<String> = scores.collect();
        format!(
            "loss {:.3} ({})  {:.1} pairs/s",
            record.loss,
            scores.join(", "),
            record.pairs_per_s
        )
    }

    /// What was wrong with the data, if anything was.
    fn report(&self, loader: &Loader) {
        let report = loader.report();
        if report.bad > 0 {
            self.progress.say(&report.to_string());
        }
    }
}

impl<T: Task> Observer<T> for Watch {
    fn stepped(&mut self, _task: &mut T, record: &mut StepRecord) -> Result<Option<f64>, String> {
        let line = self.line(record);
        self.progress.set(record.step, || line);
        Ok(None)
    }

    fn skipped(&mut self, step: u64, reason: &str, records: &[String]) {
        const NAMED: usize = 3;
        let named = records
            .iter()
            .take(NAMED)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        self.progress.say(&format!(
            "step {step} skipped: {reason}; its records: {named}, ... (all in metrics.jsonl)"
        ));
    }

    fn saved(&mut self, step: u64, path: &Path) {
        self.progress
            .say(&format!("step {step} saved in {}", path.display()));
    }
}

/// A watch over a tokenizer that also measures it on held-out pictures now and then.
struct Reconstructing<'a> {
    watch: Watch,
    held_out: Option<&'a HeldOut>,
    every: u64,
    steps: u64,
    folder: &'a Path,
}

impl Observer<Training> for Reconstructing<'_> {
    fn stepped(
        &mut self,
        task: &mut Training,
        record: &mut StepRecord,
    ) -> Result<Option<f64>, String> {
        Observer::<Training>::stepped(&mut self.watch, task, record)?;
        let due =
            record.step == self.steps || self.every > 0 && record.step.is_multiple_of(self.every);
        let Some(held_out) = self.held_out.filter(|_| due) else {
            return Ok(None);
        };
        let found = evaluation::evaluate(&task.dvae, &held_out.dataset, PICTURES, &mut |_, _| ())
            .map_err(|e| e.to_string())?;
        let path = self.folder.join("reconstructions.png");
        save_reconstructions(&found, &path).map_err(|e| format!("{e:#}"))?;
        let measured = &found.evaluation;
        let error = measured
            .error
            .expect("a tokenizer in training has a decoder");
        for (name, value) in [
            ("eval_error", error),
            ("eval_codes_used", measured.codes_used),
            ("eval_perplexity", measured.perplexity),
        ] {
            record.scores.insert(name.into(), value);
        }
        self.watch.progress.say(&format!(
            "step {}: held out: error {error:.3} of the variance, {:.0} % of the codes used, perplexity {:.0}; {}",
            record.step,
            100.0 * measured.codes_used,
            measured.perplexity,
            path.display()
        ));
        Ok(Some(-error))
    }

    fn skipped(&mut self, step: u64, reason: &str, records: &[String]) {
        Observer::<Training>::skipped(&mut self.watch, step, reason, records);
    }

    fn saved(&mut self, step: u64, path: &Path) {
        Observer::<Training>::saved(&mut self.watch, step, path);
    }
}

/// Pictures of a sheet of reconstructions.
pub const PICTURES: usize = 16;

/// A sheet of originals, as the tokenizer sees them, beside what comes back.
pub fn save_reconstructions(found: &Outcome, path: &Path) -> Result<()> {
    let measured = &found.evaluation;
    let picture = |bytes: &[u8], side: usize| {
        RgbImage::from_raw(side as u32, side as u32, bytes.to_vec())
            .expect("a square of RGB pixels")
    };
    let cell = |one: &Reconstruction| Cell {
        pictures: vec![
            picture(&one.original, one.side),
            picture(&one.restored, one.side),
        ],
        ..Cell::default()
    };
    let sheet = Sheet {
        title: "Visual tokenizer".into(),
        note: format!(
            "Original (left) and reconstruction from one code a patch (right). {} of {} codes occur in {} pictures; perplexity {:.0}; \
             error {:.3} of the variance.",
            (measured.codes_used * measured.codes as f64).round(),
            measured.codes,
            measured.images,
            measured.perplexity,
            measured.error.unwrap_or(f64::NAN),
        ),
        cells: found.reconstructions.iter().map(cell).collect(),
        side: 128,
        ..Sheet::default()
    };
    Ok(save_png(&sheet.draw(), path)?)
}

/// A watch that also ranks held-out pairs now and then.
struct Evaluating<'a> {
    watch: Watch,
    held_out: Option<&'a HeldOut>,
    every: u64,
    steps: u64,
}

impl Observer<Pretraining> for Evaluating<'_> {
    fn stepped(
        &mut self,
        task: &mut Pretraining,
        record: &mut StepRecord,
    ) -> Result<Option<f64>, String> {
        Observer::<Pretraining>::stepped(&mut self.watch, task, record)?;
        let due =
            record.step == self.steps || self.every > 0 && record.step.is_multiple_of(self.every);
        let Some(held_out) = self.held_out.filter(|_| due) else {
            return Ok(None);
        };
        let found = held_out
            .evaluate(&task.simla, 0, "evaluation")
            .map_err(|e| e.to_string())?;
        for (name, value) in [
            ("eval_txt_r1", found.itc.txt_r1),
            ("eval_img_r1", found.itc.img_r1),
            ("eval_mean", found.itc.mean()),
        ] {
            record.scores.insert(name.into(), value);
        }
        self.watch.progress.say(&format!(
            "step {}: held-out R@1 by contrast: text {:.1} %, image {:.1} %",
            record.step, found.itc.txt_r1, found.itc.img_r1
        ));
        Ok(Some(found.itc.mean()))
    }

    fn skipped(&mut self, step: u64, reason: &str, records: &[String]) {
        Observer::<Pretraining>::skipped(&mut self.watch, step, reason, records);
    }

    fn saved(&mut self, step: u64, path: &Path) {
        Observer::<Pretraining>::saved(&mut self.watch, step, path);
    }
}
