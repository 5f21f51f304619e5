//! A run in a folder: its data, vocabulary, tokenizer, model and training, as `pretrain`, `finetune` and `demo` share them.
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

use anyhow::{Context, Result, anyhow, bail};
use simla::dvae::Dvae;
use simla::dvae::training::Training;
use simla::model::Simla;
use simla::objectives::psl;
use simla::tasks::pretrain::{Pretraining, Saved, special_ids};
use simla_data::{Batch, Dataset, Format, Loader, LoaderPlan, Options, Pair, Pairs, TallyReport, Vocabulary};
use simla_files::write_atomically;
use simla_image::Recipe;
use simla_train::checkpoint::Checkpoint;
use simla_train::optim::AdamWConfig;
use simla_train::torch::device::use_tf32;
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::torch::threads::share_of_cores;
use simla_train::{Ending, Plan, Team, TrainError, Trainer};
use tch::{Device, Tensor};

use crate::compute::Compute;
use crate::held_out::HeldOut;
use crate::init;
use crate::inputs::{Inputs, Kind};
use crate::lock::Lock;
use crate::memory::Room;
use crate::settings::{Settings, Tokenizer};
use crate::sources::{learn, open_sources};
use crate::tokenizer::Reconstructing;
use crate::watch::{Evaluating, Looking, Watch};
use crate::{console, say};

/// Captions that a tokenizer alone has a vocabulary of: batches have words, which it does not read.
const UNREAD: usize = 1000;
/// What is trained on of data that say which part a record belongs to: Karpathy's `restval` is COCO's validation set but for what is
/// measured on.
const TRAINING_SPLITS: [&str; 2] = ["train", "restval"];
/// And what is measured on while a run goes on: `test` is for the end.
const HELD_OUT_SPLIT: &str = "val";

/// A run that is set up, on records of a format `F` with what is held out, `H`: everything but the models.
pub struct Run<F: Format = Pairs, H = HeldOut> {
    /// Where it is kept.
    pub folder: PathBuf,
    /// Resolved.
    pub settings: Settings,
    /// Where data, tokenizer and starting weights are.
    pub inputs: Inputs,
    /// What it computes on.
    pub compute: Compute,
    /// The records that it trains on.
    pub dataset: Arc<Dataset<F>>,
    /// The word pieces.
    pub vocabulary: Arc<Vocabulary>,
    /// What it is measured on meanwhile.
    pub held_out: Option<H>,
    /// Before the models.
    room: Room,
    /// None until something is written, on processes but the first, and where several runs share the folder.
    lock: Option<Lock>,
}

impl Run {
    /// Opens everything that is given, learns the vocabulary where none is, and only then writes down what the run is made of:
    /// what is wrong is found before anything is computed or left behind. All processes of a run call this, and all that follows, alike.
    pub fn prepare(folder: &Path, settings: Settings, inputs: Inputs, compute: &Compute) -> Result<Self> {
        compute.team.first(|| Lock::check(folder))?;
        let run = Self::prepare_with(folder, settings, inputs, compute, true, locked)?;
        let (s, records) = (&run.settings, run.dataset.epoch_len());
        if run.inputs.fine_tuned.is_none() && s.model.queue_size as u64 >= records {
            say!(
                "warning: queue_size = {} with {records} records: the queue holds every picture as a negative of itself; \
                 --set queue_size={} learns better",
                s.model.queue_size,
                s.train.batch_size.min(records / 3)
            );
        }
        Ok(run)
    }

    /// As [`Run::prepare`], for what several runs share: the folder is not locked.
    pub fn prepare_shared(folder: &Path, settings: Settings, inputs: Inputs, compute: &Compute) -> Result<Self> {
        Self::prepare_with(folder, settings, inputs, compute, true, |_| Ok(None))
    }

    fn prepare_with(
        folder: &Path,
        settings: Settings,
        inputs: Inputs,
        compute: &Compute,
        has_model: bool,
        lock: impl FnOnce(&Path) -> Result<Option<Lock>>,
    ) -> Result<Self> {
        let mut run = Self::open(folder, settings, inputs, compute, has_model, HeldOut::open)?;
        if let Some(held_out) = &run.held_out {
            let known = run.inputs.know_held_out(&held_out.dataset);
            compute.team.all(known)?;
        }
        run.begin(lock)?;
        Ok(run)
    }

    /// As [`Run::prepare`], for a tokenizer alone.
    pub fn prepare_tokenizer(folder: &Path, settings: Settings, inputs: Inputs, compute: &Compute) -> Result<Self> {
        compute.team.first(|| Lock::check(folder))?;
        Self::prepare_with(folder, settings, inputs, compute, false, locked)
    }

    /// How pairs become rows.
    pub(crate) fn pairs(&self) -> Pairs {
        let s = &self.settings;
        Pairs {
            vocabulary: Arc::clone(&self.vocabulary),
            max_tokens: s.data.max_tokens as usize,
            patch_grid: (s.model.image_size / s.model.patch_size) as usize,
            masked_patches: s.masked_patches(),
        }
    }

    fn load(&self, plan: LoaderPlan) -> Result<Loader<Pairs>> {
        Ok(Loader::start(Arc::clone(&self.dataset), self.pairs(), self.recipe(), plan)?)
    }

    /// The tokenizer that MIM needs: what was given, or the run's own, trained first where it is not there yet. None where MIM takes no
    /// part, and where it was asked to stop meanwhile.
    pub fn tokenizer(&self, stop: &AtomicBool) -> Result<(Option<Dvae>, Ending)> {
        if !self.settings.recipe.objectives.mim {
            return Ok((None, Ending::Finished));
        }
        let folder = match &self.inputs.dvae {
            Some(folder) => folder.clone(),
            None => {
                let folder = self.folder.join("dvae");
                if self.train_tokenizer(&folder, stop)? == Ending::Stopped {
                    return Ok((None, Ending::Stopped));
                }
                folder
            }
        };
        let dvae = self.open_tokenizer(&folder)?;
        let codes = dvae.vocab();
        let s = &self.settings;
        if codes != s.model.visual_vocab {
            bail!(
                "{}: a tokenizer of {codes} codes, but visual_vocab = {} (--set visual_vocab={codes})",
                folder.display(),
                s.model.visual_vocab
            );
        }
        Ok((Some(dvae), Ending::Finished))
    }

    /// The tokenizer in a folder that the first process reads.
    fn open_tokenizer(&self, folder: &Path) -> Result<Dvae> {
        let (kind, Compute { device, team }) = (self.settings.train.dtype.kind(), &self.compute);
        let mut opened = None;
        let config = team.first(|| {
            let dvae = Dvae::open(folder, kind, *device)?;
            Ok::<_, anyhow::Error>(opened.insert(dvae).config)
        })?;
        let fresh = || Dvae::new(config, kind, *device, false, 0);
        let mut dvae = opened.map_or_else(|| guarded(fresh), Ok)?;
        let tensors = team.tensors_of_first(dvae.named())?;
        dvae.weights.load(&tensors, str::to_owned)?;
        Ok(dvae)
    }

    /// Trains a tokenizer in `folder`, from where it is.
    pub fn train_tokenizer(&self, folder: &Path, stop: &AtomicBool) -> Result<Ending> {
        let (s, Compute { device, team }) = (&self.settings, &self.compute);
        let Tokenizer { dvae_steps: steps, dvae_batch_size, dvae_accumulate: accumulate, dvae_lr: lr, .. } =
            s.tokenizer;
        let (mut resume, mut lock) = (None, None);
        let first = team.first(|| {
            resume = match Checkpoint::open(folder).and_then(|last| last.verify().map(|()| last)) {
                Ok(last) => Some(last),
                Err(_) => Checkpoint::newest(folder, |_| true).ok(),
            };
            let first = resume.as_ref().map_or(0, |checkpoint| checkpoint.state.step);
            if first < steps {
                lock = Some(Lock::take(folder)?);
            }
            Ok::<_, anyhow::Error>(first)
        })?;
        if first >= steps {
            return Ok(Ending::Finished);
        }
        team.share("dvae_accumulate", accumulate)?;
        let loading = self.loading(dvae_batch_size, first * accumulate, steps * accumulate);
        let mut loader = team.all(self.load(loading))?;
        let per_epoch = loader.steps_per_epoch() / accumulate;
        let fresh = || Dvae::new(s.tokenizer(), s.train.dtype.kind(), *device, true, s.train.seed as i64);
        let dvae = guarded(fresh).map_err(TrainError::from)?;
        let mut task = Training::new(dvae, steps);
        let plan = Plan {
            accumulate,
            schedule: simla_train::optim::Schedule {
                lr,
                warmup_lr: lr / 10.0,
                min_lr: lr / 20.0,
                warmup_steps: steps / 20,
                steps,
            },
            clip_norm: 1.0,
            ..self.plan(steps, per_epoch)
        };
        let config = AdamWConfig { weight_decay: 0.0, ..s.train.optimizer() };
        let mut trainer = Trainer::new(&mut task, config, plan, folder, resume.as_ref(), team)?;
        let shown = &["loss/reconstruction", "batch/codes_used"];
        let mut watch = Reconstructing {
            watch: team.all(Watch::start("tokenizer", folder, first, steps, shown, team))?,
            held_out: self.held_out.as_ref().map(|held_out| &*held_out.dataset),
            every: s.saving.eval_every_steps,
            folder,
            team,
        };
        let ending = trainer.run(&mut task, &mut loader, &mut watch, stop);
        ended(watch.watch, ending, &loader, team)
    }

    /// A model for the run's vocabulary, with what it is to start from.
    pub fn model(&self) -> Result<Simla> {
        let s = &self.settings;
        let config = s.model(self.vocabulary.len() as i64, special_ids(&self.vocabulary));
        config.validate()?;
        let fresh = || Simla::new(config, s.train.dtype.kind(), self.compute.device, s.train.seed as i64);
        let mut simla = guarded(fresh).map_err(|error| self.advised(error.into()))?;
        let team = &self.compute.team;
        let begun = team.first(|| Ok::<_, anyhow::Error>(Checkpoint::open(&self.folder).is_ok()))?;
        if s.recipe.objectives.psl {
            let known = guarded(|| self.concepts(&mut simla, begun)).map_err(|error| self.advised(error.into()));
            team.all(known.and_then(|known| known))?;
        }
        // The others get theirs of it, when they train.
        team.first(|| match &self.inputs.fine_tuned {
            // A run that has saved something needs the model that it began with no more.
            Some(model) if !begun => {
                let model = Saved::open(model)?;
                model.checkpoint.verify()?;
                Ok::<_, anyhow::Error>(model.load(&mut simla)?)
            }
            _ => init::weights(&mut simla, &self.inputs.init),
        })?;
        if s.train.recompute {
            simla.online.recompute_layers();
        }
        Ok(simla)
    }

    /// Says what a keyword is, and lets the concept head of a new model start at how frequent each is.
    fn concepts(&self, simla: &mut Simla, begun: bool) -> Result<()> {
        /// Captions that tell how frequent words are.
        const COUNTED: usize = 100_000;
        let (recipe, model) = (&self.settings.recipe, &simla.config);
        let mut never = vec![recipe.content_keywords; model.vocab_size as usize];
        if recipe.content_keywords {
            self.vocabulary.content_words().iter().for_each(|&word| never[word as usize] = false);
        }
        simla.psl = psl::Rule {
            never: recipe.content_keywords.then(|| Tensor::from_slice(&never).to(self.compute.device)),
            per_keyword: recipe.psl_per_keyword,
        };
        if begun {
            return Ok(());
        }
        let special = self.vocabulary.special();
        for id in [special.pad, special.cls, special.sep] {
            never[id as usize] = true;
        }
        let max_tokens = self.settings.data.max_tokens as usize;
        let candidates = |text: String| {
            let mut ids = self.vocabulary.encode(&text, max_tokens);
            ids.retain(|&id| !never[id as usize]);
            ids
        };
        let captions = self.dataset.texts(|_| {}).take(COUNTED).map(candidates);
        let prior = psl::prior(captions, model.keywords, model.vocab_size);
        Ok(simla.expect_concepts(&prior)?)
    }

    /// What does not fit, with what would.
    fn advised(&self, error: TrainError) -> anyhow::Error {
        match &error {
            TrainError::Torch(TorchError::OutOfMemory(_)) => {
                let advice = self.room.advice(&self.settings, self.vocabulary.len() as i64);
                anyhow!("{error}. As far as can be reckoned, {advice}")
            }
            _ => error.into(),
        }
    }

    /// A few held-out pairs, always the same, whole and with the same masks.
    fn fixed_pairs(&self, held_out: &HeldOut) -> Result<Batch<Pair>> {
        const PAIRS: u64 = 6;
        let size = PAIRS.min(held_out.dataset.len());
        let recipe = Recipe { scale: (1.0, 1.0), flip: false, augment: false, ..self.recipe() };
        let plan = LoaderPlan { preflight: 0, ..self.loading(size, 0, 1) };
        let mut loader = Loader::start(Arc::clone(&held_out.dataset), self.pairs(), recipe, plan)?;
        Ok(loader.next().expect("a plan of one batch")?)
    }

    /// Pre-trains or fine-tunes `model`, from `resume` where there is one; with the tokenizer that MIM needs.
    pub fn train(
        &self,
        model: Simla,
        dvae: Option<Dvae>,
        resume: Option<&Checkpoint>,
        stop: &AtomicBool,
    ) -> Result<(Simla, Ending)> {
        let s = &self.settings;
        let (per_epoch, steps) = self.steps();
        say_changed(resume, per_epoch);
        let vocabulary = self.vocabulary.to_json().into_bytes();
        let (what, mut task) = match self.inputs.fine_tuned {
            None => ("pre-training", Pretraining::new(model, dvae, s.recipe.objectives, s.recipe.alpha, vocabulary)),
            Some(_) => {
                ("fine-tuning", Pretraining::fine_tuning(model, s.recipe.objectives, s.recipe.alpha, vocabulary))
            }
        };
        say!("{}", self.room.told(s, self.vocabulary.len() as i64));
        let (plan, team) = (self.plan(steps, per_epoch), &self.compute.team);
        let trainer = Trainer::new(&mut task, s.train.optimizer(), plan, &self.folder, resume, team);
        let mut trainer = trainer.map_err(|error| self.advised(error))?;
        let first = trainer.step();
        let shown = &["loss/itc", "loss/itm", "loss/mlm", "loss/mim", "loss/psl"];
        let looking = |held_out| {
            let fixed = match self.inputs.fine_tuned {
                None if team.is_first() => Some(self.fixed_pairs(held_out)?),
                _ => None,
            };
            let every = (s.saving.eval_every_steps, s.saving.samples_every_steps);
            Looking::at(&self.folder, first, held_out, fixed, &self.vocabulary, every, team)
        };
        let start = || -> Result<_> {
            let watch = Watch::start(what, &self.folder, first, steps, shown, team)?;
            let watch = Evaluating { watch, looking: self.held_out.as_ref().map(looking).transpose()? };
            Ok((self.load(self.batches_from(first, steps))?, watch))
        };
        let (mut loader, mut watch) = team.all(start())?;
        let ending = trainer.run(&mut task, &mut loader, &mut watch, stop);
        let ending = ended(watch.watch, ending, &loader, team).map_err(|error| {
            self.with_last_checkpoint(match error.downcast() {
                Ok(error) => self.advised(error),
                Err(error) => error,
            })
        })?;
        Ok((task.simla, ending))
    }
}

impl<F: Format, H> Run<F, H> {
    /// Opens everything that is given, what is held out by `held_out`, and writes nothing; see [`Run::prepare`].
    pub(crate) fn open(
        folder: &Path,
        mut settings: Settings,
        inputs: Inputs,
        compute: &Compute,
        has_model: bool,
        held_out: impl FnOnce(&Path, &Options, &Vocabulary, &Settings) -> Result<H>,
    ) -> Result<Self> {
        let team = &compute.team;
        team.share("accumulate", settings.train.accumulate)?;
        team.agree(&format!("version = {}\n{}", env!("CARGO_PKG_VERSION"), settings.to_toml()))?;
        simla_image::set_max_pixels(settings.data.max_pixels);
        use_tf32(compute.device, settings.train.tf32);
        if settings.train.tf32 {
            match compute.device {
                Device::Cpu => say!("tf32 = true: of no effect on a CPU"),
                _ => say!("products in f32 are in TF32 (--set tf32=false for whole ones)"),
            }
        }
        let mut inputs = inputs.absolute()?;
        let options = Options {
            image_root: inputs.image_root.clone(),
            annotations: inputs.annotations.clone(),
            image_column: settings.data.image_column.clone(),
            caption_column: settings.data.caption_column.clone(),
            max_bad_share: settings.data.max_bad_share,
            each_caption: matches!(inputs.kind(), Kind::Retrieval | Kind::Grounding),
            splits: TRAINING_SPLITS.map(String::from).into(),
            expressions: inputs.kind() == Kind::Grounding,
            ..Options::default()
        };
        let mut opened = || {
            let dataset = open_sources(&inputs.data, &options)?;
            if has_model && inputs.kind() == Kind::Pretraining {
                settings.suit(dataset.len())?.inspect(|taken| say!("{taken}"));
            }
            check_batches(&settings, &inputs, dataset.epoch_len(), has_model)?;
            inputs.know(&dataset)?;
            Ok::<_, anyhow::Error>(dataset)
        };
        let dataset = team.all(opened())?;
        let names = inputs.known_by.data.as_ref().map_or("", |known| &known.names);
        team.agree(&format!("data of {} records\ndata with the checksum {names}", dataset.epoch_len()))?;
        let mut known = None;
        let text = team.first(|| {
            if let Some(dvae) = &inputs.dvae {
                Checkpoint::open(dvae)?;
            }
            let start = init::vocabulary(&inputs.init, inputs.vocabulary.as_deref())?;
            inputs.know_weights()?;
            let saved = folder.join("vocabulary.json");
            let vocabulary = if saved.exists() {
                Vocabulary::open(&saved)?
            } else {
                match inputs.vocabulary.as_ref().or(start.as_ref()) {
                    Some(path) => Vocabulary::open(path)?,
                    None => {
                        let captions = if has_model { usize::MAX } else { UNREAD };
                        learn(&dataset, captions, settings.model.vocab_size as usize)?
                    }
                }
            };
            Ok::<_, anyhow::Error>(known.insert(vocabulary).to_json())
        })?;
        let vocabulary = known.map_or_else(|| Vocabulary::of_json(&text, Path::new("vocabulary.json")), Ok)?;
        let vocabulary = vocabulary.closing(settings.model.closing_sep);
        let held_out = inputs.held_out.as_deref().map(|path| {
            let options = Options { splits: vec![HELD_OUT_SPLIT.into()], ..options };
            held_out(path, &options, &vocabulary, &settings)
        });
        let held_out = team.all(held_out.transpose())?;
        let counted = match inputs.kind() {
            Kind::Pretraining => "records",
            Kind::Retrieval | Kind::TextAssignment => "pairs",
            Kind::Vqa => "questions",
            Kind::Nlvr2 => "statements",
            Kind::Grounding => "expressions",
            Kind::Entailment => "sentences",
        };
        match has_model {
            true => say!("{} {counted}, {} word pieces", dataset.len(), vocabulary.len()),
            false => say!("{} records", dataset.len()),
        }
        Ok(Self {
            folder: folder.into(),
            settings,
            inputs,
            compute: compute.clone(),
            dataset: Arc::new(dataset),
            vocabulary: Arc::new(vocabulary),
            held_out,
            room: Room::of(compute.device),
            lock: None,
        })
    }

    /// Takes the folder's lock, for as long as the run is there, and writes down what the run is made of.
    pub(crate) fn begin(&mut self, lock: impl FnOnce(&Path) -> Result<Option<Lock>>) -> Result<()> {
        let team = Arc::clone(&self.compute.team);
        team.first(|| {
            self.lock = lock(&self.folder)?;
            self.write_down()
        })
    }

    fn write_down(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("{}: cannot be made", self.folder.display()))?;
        console::keep_in(&self.folder);
        self.vocabulary.save(&self.folder.join("vocabulary.json"))?;
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            write_atomically(&path, text.as_bytes()).with_context(|| format!("{}", path.display()))
        };
        write("config.toml", &self.settings.to_toml())?;
        // Last: what makes the folder a run that can be resumed.
        write("run.json", &serde_json::to_string_pretty(&self.inputs)?)
    }

    pub(crate) fn recipe(&self) -> Recipe {
        let s = &self.settings;
        Recipe {
            side: s.model.image_size as u32,
            // "The left one" is not told of a part of the picture.
            whole: self.inputs.kind() == Kind::Grounding,
            scale: (s.data.min_scale, 1.0),
            flip: s.data.flip,
            augment: s.data.augment,
            ..Recipe::default()
        }
    }

    /// The batches of training after `first` optimiser steps of `steps`.
    pub(crate) fn batches_from(&self, first: u64, steps: u64) -> LoaderPlan {
        let train = &self.settings.train;
        self.loading(train.batch_size, first * train.accumulate, steps * train.accumulate)
    }

    /// How batches are made, this process's share of them; `steps` counts batches, not optimiser steps.
    pub(crate) fn loading(&self, batch: u64, first_step: u64, steps: u64) -> LoaderPlan {
        let (s, team) = (&self.settings, &self.compute.team);
        LoaderPlan {
            batch: batch as usize,
            seed: s.train.seed,
            first_step,
            steps,
            workers: self.workers(),
            rank: team.rank(),
            world: team.world(),
            halves: self.inputs.kind() == Kind::Pretraining,
            ..LoaderPlan::default()
        }
    }

    pub(crate) fn plan(&self, steps: u64, steps_per_epoch: u64) -> Plan {
        let s = &self.settings;
        Plan {
            seed: s.train.seed,
            steps,
            steps_per_epoch,
            accumulate: s.train.accumulate,
            wire: s.train.wire.kind(),
            schedule: s.train.schedule(steps),
            clip_norm: s.train.clip_norm,
            max_bad_steps: s.train.max_bad_steps,
            save_every_steps: s.saving.save_every_steps,
            save_every: Duration::from_secs_f64(60.0 * s.saving.save_every_minutes),
            keep: s.saving.keep as usize,
            threads: s.train.threads as usize,
        }
    }

    /// Threads that prepare batches; 0 for one a core.
    pub(crate) fn workers(&self) -> usize {
        match (self.settings.data.workers as usize, self.compute.team.sharers()) {
            (0, sharers) if sharers > 1 => share_of_cores(sharers),
            (workers, _) => workers,
        }
    }

    /// An error of training, and from where it goes on.
    pub(crate) fn with_last_checkpoint(&self, error: anyhow::Error) -> anyhow::Error {
        match Checkpoint::open(&self.folder) {
            // Of processes that have lost each other it is said already.
            Ok(last) if !matches!(error.downcast_ref(), Some(TrainError::Team(_))) => {
                anyhow!("{error}; the last checkpoint is whole: {}", last.path.display())
            }
            _ => error,
        }
    }

    /// Optimiser steps of an epoch, and of the run.
    pub fn steps(&self) -> (u64, u64) {
        let s = &self.settings;
        let batches = self.loading(s.train.batch_size, 0, 0);
        let per_epoch = batches.steps_per_epoch(self.dataset.epoch_len()) / s.train.accumulate;
        (per_epoch, s.train.total_steps(per_epoch))
    }
}

/// Shows how training ended, and what was wrong with the data of all processes.
pub(crate) fn ended<F: Format>(
    watch: Watch,
    ending: Result<Ending, TrainError>,
    loader: &Loader<F>,
    team: &Team,
) -> Result<Ending> {
    let seen = match &ending {
        Ok(_) => TallyReport::of_all(team.values(loader.seen())?),
        Err(_) => loader.report(),
    };
    watch.end(&ending, &seen)?;
    Ok(ending?)
}

pub(crate) fn locked(folder: &Path) -> Result<Option<Lock>> {
    Lock::take(folder).map(Some)
}

/// Says where the data are others than before.
pub(crate) fn say_changed(resume: Option<&Checkpoint>, per_epoch: u64) {
    if let Some(before) = resume.map(|checkpoint| checkpoint.state.steps_per_epoch)
        && before != per_epoch
    {
        say!(
            "the data have changed: an epoch has {per_epoch} steps, not {before}; records come in another order from here on"
        );
    }
}

/// Refuses batches that the data set cannot fill.
fn check_batches(settings: &Settings, inputs: &Inputs, records: u64, has_model: bool) -> Result<()> {
    let (batch, accumulate) = (settings.train.batch_size, settings.train.accumulate);
    if has_model && batch * accumulate > records {
        bail!(
            "batch_size = {batch} x accumulate = {accumulate}: expected at most the {records} records of the data set"
        );
    }
    let batch = settings.tokenizer.dvae_batch_size;
    let trains_tokenizer = inputs.dvae.is_none() && (settings.recipe.objectives.mim || !has_model);
    if trains_tokenizer && batch > records {
        bail!("dvae_batch_size = {batch}: expected at most the {records} records of the data set");
    }
    Ok(())
}
