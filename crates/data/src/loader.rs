//! Batches for training: decoded, cut, augmented, masked on worker threads, in order, ready before they are asked for.
//!
//! - Which record stands where, and every random choice, depend on seed, epoch and position alone: not on the number of
//!   workers, and not on where a run was resumed.
//! - Two builders take turns with the batches, and share a pool of workers that go through the records of both, so that
//!   the first batch is ready soon and no worker waits for the last record of a batch. Workers write straight into the
//!   batch's memory.
//! - A bad record is replaced by another one, drawn by seed, epoch and position too, so that nothing shifts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;
use simla_image::{ImageError, Recipe};

use crate::batch::Batch;
use crate::blocks;
use crate::dataset::Dataset;
use crate::order::{EpochOrder, Order};
use crate::permutation::Permutation;
use crate::plan::{Plan, SettingError};
use crate::random::{Purpose, stream};
use crate::record::RecordError;
use crate::tally::{Report, Tally};
use crate::vocabulary::Vocabulary;
use crate::words;
use crate::workers::{self, Workbench};

/// Batches that are built at the same time.
const BUILDERS: u64 = 2;
/// Records that are tried in place of a bad one.
const MAX_SUBSTITUTES: u32 = 100;

/// Why there are no (more) batches.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LoadError {
    #[error(transparent)]
    Setting(#[from] SettingError),
    #[error("the recipe of the views: {0}")]
    Recipe(ImageError),
    #[error("too many bad records, more than a share of {max_bad_share} (`max_bad_share`): {report}")]
    TooManyBad { max_bad_share: f64, report: Report },
    #[error("step {step}: none of {MAX_SUBSTITUTES} records in place of a bad one could be used: {report}")]
    NoSubstitute { step: u64, report: Report },
    #[error("step or batch {step}: a worker failed: {message}")]
    Panic { step: u64, message: String },
    #[error("worker threads could not be started: {0}")]
    Threads(String),
    #[error("the loader was stopped")]
    Stopped,
}

/// Where the workers' time went, in seconds, summed over threads.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// Finding and reading records and image files.
    pub read: f64,
    /// Decoding, cropping, augmenting, both views.
    pub image: f64,
    /// Captions to pieces, word masks, patch masks.
    pub words: f64,
}

/// An iterator over the batches of a run. Dropping it stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    channels: Vec<Receiver<Result<Batch, LoadError>>>,
    builders: Vec<JoinHandle<()>>,
    next_step: u64,
    steps_per_epoch: u64,
    failed: bool,
}

struct Shared {
    dataset: Arc<Dataset>,
    vocabulary: Arc<Vocabulary>,
    recipe: Recipe,
    plan: Plan,
    order: Order,
    tally: Tally,
    stop: AtomicBool,
    pool: ThreadPool,
    /// One for each worker, which alone locks it.
    workbenches: Vec<Mutex<Workbench>>,
    nanoseconds: [AtomicU64; 3],
}

/// One row of a batch while it is made.
struct Row<'a> {
    view: &'a mut [u8],
    half: &'a mut [u8],
    masked_patches: &'a mut [bool],
    text: &'a mut Text,
}

#[derive(Clone, Default)]
struct Text {
    ids: Vec<i64>,
    mlm_ids: Vec<i64>,
    mlm_labels: Vec<i64>,
    image_id: i64,
    record: String,
}

impl Loader {
    /// Checks the plan, tries a sample of the records, and starts the threads.
    pub fn start(
        dataset: Arc<Dataset>,
        vocabulary: Arc<Vocabulary>,
        recipe: Recipe,
        plan: Plan,
    ) -> Result<Self, LoadError> {
        let order = dataset.order(plan.seed);
        plan.check(order.len(), recipe.side)?;
        recipe.check().map_err(LoadError::Recipe)?;
        let pool = workers::pool(plan.workers)?;
        let workbenches = workers::workbenches(&pool);
        let (next_step, steps_per_epoch) = (plan.first_step, plan.steps_per_epoch(order.len()));
        let shared = Arc::new(Shared {
            tally: Tally::new(dataset.len(), dataset.max_bad_share()),
            dataset,
            vocabulary,
            recipe,
            plan,
            order,
            stop: AtomicBool::new(false),
            pool,
            workbenches,
            nanoseconds: Default::default(),
        });
        shared.preflight()?;
        let mut loader =
            Loader { shared, channels: Vec::new(), builders: Vec::new(), next_step, steps_per_epoch, failed: false };
        for builder in 0..BUILDERS {
            let capacity = loader.shared.plan.prefetch.div_ceil(BUILDERS as usize).max(1);
            let (sender, receiver) = sync_channel(capacity);
            let shared = Arc::clone(&loader.shared);
            let run = move || shared.build_batches(next_step + builder, steps_per_epoch, &sender);
            let thread = std::thread::Builder::new().name(format!("simla-batches-{builder}")).spawn(run);
            loader.builders.push(thread.map_err(|e| LoadError::Threads(e.to_string()))?);
            loader.channels.push(receiver);
        }
        Ok(loader)
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.steps_per_epoch
    }

    /// What was seen of the data set so far, the bad records among it.
    pub fn report(&self) -> Report {
        self.shared.tally.report()
    }

    /// Where the workers' time went so far.
    pub fn times(&self) -> Times {
        let [read, image, words] = self.shared.nanoseconds.each_ref().map(|n| n.load(Relaxed) as f64 * 1e-9);
        Times { read, image, words }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next_step >= self.shared.plan.steps {
            return None;
        }
        let builder = (self.next_step - self.shared.plan.first_step) % BUILDERS;
        self.next_step += 1;
        let batch = self.channels[builder as usize].recv().unwrap_or(Err(LoadError::Stopped));
        self.failed = batch.is_err();
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.channels.clear(); // a builder that waits to deliver wakes up
        for builder in self.builders.drain(..) {
            let _ = builder.join(); // its panics were caught and delivered
        }
    }
}

impl Shared {
    /// Tries some records, spread over the data set, so that a hopeless run ends before it begins.
    fn preflight(&self) -> Result<(), LoadError> {
        let records = self.dataset.len();
        let spread = Permutation::draw(records, &mut stream(Purpose::Preflight, self.plan.seed, 0, 0, 0));
        let side = self.recipe.side as usize;
        let tried = |nth: u64| {
            let (mut view, mut half) = (vec![0; side * side * 3], vec![0; side * side * 3 / 4]);
            let mut masked_patches = vec![false; self.plan.patch_grid * self.plan.patch_grid];
            let row = Row {
                view: &mut view,
                half: &mut half,
                masked_patches: &mut masked_patches,
                text: &mut Text::default(),
            };
            let rng = stream(Purpose::Preflight, self.plan.seed, nth, 0, 0);
            let _ = self.sample_record(spread.get(nth), rng, row); // the tally has noted it
        };
        let count = records.min(self.plan.preflight as u64);
        let all = AssertUnwindSafe(|| self.pool.install(|| (0..count).into_par_iter().for_each(tried)));
        catch_unwind(all).map_err(|panic| LoadError::panic(self.plan.first_step, panic))?;
        self.judge()
    }

    fn judge(&self) -> Result<(), LoadError> {
        if self.tally.too_many_bad() {
            let max_bad_share = self.dataset.max_bad_share();
            return Err(LoadError::TooManyBad { max_bad_share, report: self.tally.report() });
        }
        Ok(())
    }

    /// Delivers every [`BUILDERS`]th batch from `step` on, until the plan ends, something fails, or nobody listens.
    fn build_batches(&self, mut step: u64, steps_per_epoch: u64, sender: &SyncSender<Result<Batch, LoadError>>) {
        let mut current: Option<(u64, EpochOrder)> = None;
        while step < self.plan.steps && !self.stop.load(Relaxed) {
            let epoch = step / steps_per_epoch;
            if current.as_ref().is_none_or(|(known, _)| *known != epoch) {
                current = Some((epoch, self.order.epoch(epoch)));
            }
            let Some((_, order)) = &current else { return };
            let build = AssertUnwindSafe(|| self.build(step, epoch, step % steps_per_epoch, order));
            let batch = catch_unwind(build).unwrap_or_else(|panic| Err(LoadError::panic(step, panic)));
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
            step += BUILDERS;
        }
    }

    fn build(&self, step: u64, epoch: u64, step_of_epoch: u64, order: &EpochOrder) -> Result<Batch, LoadError> {
        let Plan { batch: size, rank, world, patch_grid, .. } = self.plan;
        let side = self.recipe.side as usize;
        let patches = patch_grid * patch_grid;
        let first = (step_of_epoch * world as u64 + rank as u64) * size as u64;
        let mut images = vec![0; size * side * side * 3];
        let mut halves = vec![0; size * side * side * 3 / 4];
        let mut masked_patches = vec![false; size * patches];
        let mut texts = vec![Text::default(); size];
        let rows = images
            .par_chunks_exact_mut(side * side * 3)
            .zip(halves.par_chunks_exact_mut(side * side * 3 / 4))
            .zip(masked_patches.par_chunks_exact_mut(patches))
            .zip(&mut texts)
            .enumerate()
            .with_max_len(1); // records take very different times
        self.pool.install(|| {
            rows.try_for_each(|(nth, (((view, half), masked_patches), text))| {
                let row = Row { view, half, masked_patches, text };
                self.sample(step, epoch, first + nth as u64, order, row)
            })
        })?;

        let length = texts.iter().map(|t| t.ids.len()).max().unwrap_or(0);
        let pad = self.vocabulary.special().pad;
        let padded = |of: fn(&Text) -> &Vec<i64>, filler: i64| -> Vec<i64> {
            let row = |text| of(text).iter().copied().chain(std::iter::repeat(filler)).take(length);
            texts.iter().flat_map(row).collect()
        };
        Ok(Batch {
            step,
            epoch,
            size,
            side,
            length,
            patches,
            ids: padded(|t| &t.ids, pad),
            mask: texts.iter().flat_map(|t| (0..length).map(|i| i64::from(i < t.ids.len()))).collect(),
            mlm_ids: padded(|t| &t.mlm_ids, pad),
            mlm_labels: padded(|t| &t.mlm_labels, words::NOT_MASKED),
            image_ids: texts.iter().map(|t| t.image_id).collect(),
            records: texts.into_iter().map(|t| t.record).collect(),
            images,
            halves,
            masked_patches,
        })
    }

    /// Makes the row for `position`, with the record that stands there or, if it is bad, another one.
    fn sample(&self, step: u64, epoch: u64, position: u64, order: &EpochOrder, row: Row) -> Result<(), LoadError> {
        let seed = self.plan.seed;
        for attempt in 0..=MAX_SUBSTITUTES {
            if self.stop.load(Relaxed) {
                return Err(LoadError::Stopped);
            }
            let record = match attempt {
                0 => order.record(position),
                _ => {
                    let mut rng = stream(Purpose::Substitute, seed, epoch, position, attempt);
                    order.record(rng.random_range(0..self.order.len()))
                }
            };
            let rng = stream(Purpose::Sample, seed, epoch, position, attempt);
            let row = Row { view: row.view, half: row.half, masked_patches: row.masked_patches, text: row.text };
            if self.sample_record(record, rng, row).is_ok() {
                return Ok(());
            }
            self.judge()?;
        }
        Err(LoadError::NoSubstitute { step, report: self.tally.report() })
    }

    fn sample_record(&self, record: u64, rng: ChaCha8Rng, row: Row) -> Result<(), RecordError> {
        let mut workbench = workers::bench(&self.workbenches);
        let result = self.try_record(record, rng, &mut workbench, row);
        self.tally.note(record, result.as_ref().err());
        result
    }

    fn try_record(
        &self,
        record: u64,
        mut rng: ChaCha8Rng,
        workbench: &mut Workbench,
        row: Row,
    ) -> Result<(), RecordError> {
        let Workbench { bytes, scratch } = workbench;
        let start = Instant::now();
        let entry = self.dataset.entry(record)?;
        entry.read_image(bytes)?;
        let start = self.clock(0, start);

        let drawn = self.recipe.draw(bytes, &mut rng, scratch, row.view, row.half);
        let start = self.clock(1, start);
        drawn.map_err(|e| entry.unreadable(e))?;

        let caption = entry.captions.choose(&mut rng).map_or("", String::as_str);
        let ids = self.vocabulary.encode(caption, self.plan.max_tokens);
        let (mlm_ids, mlm_labels) = words::mask(&ids, &self.vocabulary, &mut rng);
        blocks::mask(self.plan.patch_grid, self.plan.masked_patches, row.masked_patches, &mut rng);
        *row.text = Text { ids, mlm_ids, mlm_labels, image_id: entry.image_id, record: entry.name };
        self.clock(2, start);
        Ok(())
    }

    /// Adds the time since `start` to a stage; returns now.
    fn clock(&self, stage: usize, start: Instant) -> Instant {
        let now = Instant::now();
        self.nanoseconds[stage].fetch_add((now - start).as_nanos() as u64, Relaxed);
        now
    }
}
