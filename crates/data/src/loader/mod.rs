//! Batches: read, decoded, made rows of on worker threads, in order, ready before they are asked for.
//!
//! - Of training, which record stands where, and every random choice, depend on seed, epoch and position alone: not on the
//!   number of workers, and not on where a run was resumed. Of evaluation, records come once, in their order, whole.
//! - Two builders take turns with the batches, and share a pool of workers that go through the records of both, so that
//!   the first batch is ready soon and no worker waits for the last record of a batch. Workers write straight into the
//!   batch's memory.
//! - In training a bad record is replaced by another one, drawn by seed, epoch and position too, so that nothing shifts. In
//!   evaluation it is left out. Either way it is counted and named.

mod plan;
mod workers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rayon::ThreadPool;
use rayon::prelude::*;
use serde::Serialize;
use simla_image::{ImageError, Limits, Recipe, evaluation_view_with};

use crate::batch::Batch;
use crate::dataset::Dataset;
use crate::formats::Format;
use crate::order::{EpochOrder, Order};
use crate::permutation::Permutation;
use crate::random::{Purpose, stream};
use crate::record::RecordError;
use crate::tally::{Seen, Tally, TallyReport};
use workers::Workbench;

pub use plan::{LoaderPlan, SettingError};

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
    TooManyBad { max_bad_share: f64, report: TallyReport },
    #[error("step {step}: none of {MAX_SUBSTITUTES} records in place of a bad one could be used: {report}")]
    NoSubstitute { step: u64, report: TallyReport },
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
    /// Words to pieces, masks.
    pub words: f64,
}

/// An iterator over batches. Dropping it stops its threads.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use simla_data::{Dataset, Loader, LoaderPlan, Options, Pairs, Source, Vocabulary};
/// use simla_image::Recipe;
///
/// let dataset = Dataset::open(&["pairs.json".parse::<Source>()?], &Options::default())?;
/// let pairs = Pairs::new(Arc::new(Vocabulary::open("vocab.txt".as_ref())?));
/// let plan = LoaderPlan { batch: 64, steps: 1000, ..LoaderPlan::default() };
/// for batch in Loader::start(Arc::new(dataset), pairs, Recipe::default(), plan)? {
///     let batch = batch?;
///     println!("step {}: {} views of {} pixels", batch.step, batch.len(), batch.side);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Loader<F: Format> {
    shared: Arc<Shared<F>>,
    channels: Vec<Receiver<Result<Batch<F::Row>, LoadError>>>,
    builders: Vec<JoinHandle<()>>,
    next_step: u64,
    failed: bool,
}

struct Shared<F: Format> {
    dataset: Arc<Dataset<F>>,
    format: F,
    views: Views,
    plan: LoaderPlan,
    /// Positions of an epoch, and steps.
    positions: u64,
    steps_per_epoch: u64,
    tally: Tally,
    stop: AtomicBool,
    pool: ThreadPool,
    /// One for each worker, which alone locks it.
    workbenches: Vec<Mutex<Workbench>>,
    nanoseconds: [AtomicU64; 3],
}

/// Which records are seen, and what of their pictures.
enum Views {
    /// Of training: in random order for ever, each view drawn anew.
    Drawn { order: Order, recipe: Recipe },
    /// Of evaluation: each once, the whole picture as a square.
    Whole { side: u32 },
}

/// Which record stands at a position.
enum Positions {
    Drawn(EpochOrder),
    InOrder,
}

/// Memory for the views of one row: its pictures one after the other. `halves` is empty where they were not asked for.
struct Canvas<'a> {
    views: &'a mut [u8],
    halves: &'a mut [u8],
}

impl<F: Format> Loader<F> {
    /// Batches for training: checks the plan, tries a sample of the records, and starts the threads.
    ///
    /// # Errors
    /// A setting that cannot be, or too many bad records in the sample.
    pub fn start(dataset: Arc<Dataset<F>>, format: F, recipe: Recipe, plan: LoaderPlan) -> Result<Self, LoadError> {
        let order = dataset.order(plan.seed);
        plan.check(order.len())?;
        format.check(recipe.side)?;
        recipe.check().map_err(LoadError::Recipe)?;
        let (positions, steps_per_epoch) = (order.len(), plan.steps_per_epoch(order.len()));
        Self::run(dataset, format, Views::Drawn { order, recipe }, plan, positions, steps_per_epoch)
    }

    /// Batches for evaluation: every record once, in its order, with views of `side` pixels of the whole pictures. Bad records are left
    /// out and counted; the last batch is smaller, and so are those with bad records. `workers` as in [`LoaderPlan`].
    ///
    /// # Errors
    /// A setting that cannot be.
    pub fn once(
        dataset: Arc<Dataset<F>>,
        format: F,
        side: u32,
        batch: usize,
        workers: usize,
    ) -> Result<Self, LoadError> {
        Self::share_of_once(dataset, format, side, batch, workers, (0, 1))
    }

    /// As [`Loader::once`], the batches that are those of process `rank` of `world`.
    ///
    /// # Errors
    /// As [`Loader::once`].
    pub fn share_of_once(
        dataset: Arc<Dataset<F>>,
        format: F,
        side: u32,
        batch: usize,
        workers: usize,
        (rank, world): (usize, usize),
    ) -> Result<Self, LoadError> {
        for (field, value) in [("batch", batch as u64), ("side", side.into())] {
            if value == 0 {
                return Err(SettingError { field, value, expected: "at least 1".into() }.into());
            }
        }
        format.check(side)?;
        let positions = dataset.len();
        let steps = positions.div_ceil(batch as u64);
        let plan =
            LoaderPlan { batch, steps, workers, rank, world, halves: false, preflight: 0, ..LoaderPlan::default() };
        Self::run(dataset, format, Views::Whole { side }, plan, positions, steps)
    }

    fn run(
        dataset: Arc<Dataset<F>>,
        format: F,
        views: Views,
        plan: LoaderPlan,
        positions: u64,
        steps_per_epoch: u64,
    ) -> Result<Self, LoadError> {
        let pool = workers::pool(plan.workers)?;
        let workbenches = workers::workbenches(&pool);
        let shared = Arc::new(Shared {
            tally: Tally::new(dataset.len(), dataset.max_bad_share()),
            dataset,
            format,
            views,
            plan,
            positions,
            steps_per_epoch,
            stop: AtomicBool::new(false),
            pool,
            workbenches,
            nanoseconds: Default::default(),
        });
        shared.preflight()?;
        let LoaderPlan { first_step, rank, world, .. } = shared.plan;
        let (next_step, world) = (first_step + rank as u64, world as u64);
        let mut loader = Loader { shared, channels: Vec::new(), builders: Vec::new(), next_step, failed: false };
        for builder in 0..BUILDERS {
            let capacity = loader.shared.plan.prefetch.div_ceil(BUILDERS as usize).max(1);
            let (sender, receiver) = sync_channel(capacity);
            let shared = Arc::clone(&loader.shared);
            let run = move || shared.build_batches(next_step + builder * world, &sender);
            let thread = std::thread::Builder::new().name(format!("simla-batches-{builder}")).spawn(run);
            loader.builders.push(thread.map_err(|e| LoadError::Threads(e.to_string()))?);
            loader.channels.push(receiver);
        }
        Ok(loader)
    }

    /// Steps of an epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        self.shared.steps_per_epoch
    }

    /// What was seen of the data set so far, the bad records among it.
    pub fn report(&self) -> TallyReport {
        self.shared.tally.report()
    }

    /// As [`Loader::report`], to be put together with what other processes of the run have seen.
    pub fn seen(&self) -> Seen {
        self.shared.tally.seen()
    }

    /// Where the workers' time went so far.
    pub fn times(&self) -> Times {
        let [read, image, words] = self.shared.nanoseconds.each_ref().map(|n| n.load(Relaxed) as f64 * 1e-9);
        Times { read, image, words }
    }
}

impl<F: Format> Iterator for Loader<F> {
    type Item = Result<Batch<F::Row>, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed && self.next_step < self.shared.plan.steps {
            let world = self.shared.plan.world as u64;
            let builder = (self.next_step - self.shared.plan.first_step) / world % BUILDERS;
            self.next_step += world;
            let batch = self.channels[builder as usize].recv().unwrap_or(Err(LoadError::Stopped));
            self.failed = batch.is_err();
            // Of evaluation, all of a batch's records may be bad.
            if batch.as_ref().is_err() || batch.as_ref().is_ok_and(|batch| !batch.is_empty()) {
                return Some(batch);
            }
        }
        None
    }
}

impl<F: Format> Drop for Loader<F> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.channels.clear(); // a builder that waits to deliver wakes up
        for builder in self.builders.drain(..) {
            let _ = builder.join(); // its panics were caught and delivered
        }
    }
}

impl<F: Format> Shared<F> {
    fn side(&self) -> usize {
        match &self.views {
            Views::Drawn { recipe, .. } => recipe.side as usize,
            Views::Whole { side } => *side as usize,
        }
    }

    /// Bytes of a row's views.
    fn row_bytes(&self) -> usize {
        self.side() * self.side() * 3 * F::PICTURES
    }

    /// Tries some records, spread over the data set, so that a hopeless run ends before it begins.
    fn preflight(&self) -> Result<(), LoadError> {
        let records = self.dataset.len();
        let spread = Permutation::draw(records, &mut stream(Purpose::Preflight, self.plan.seed, 0, 0, 0));
        let tried = |nth: u64| {
            let mut views = vec![0; self.row_bytes()];
            let mut canvas = Canvas { views: &mut views, halves: &mut [] };
            let rng = stream(Purpose::Preflight, self.plan.seed, nth, 0, 0);
            let _ = self.row(spread.get(nth), rng, &mut canvas); // the tally has noted it
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

    /// Delivers every [`BUILDERS`]th of this process's batches from `step` on, until the plan ends, something fails, or nobody listens.
    fn build_batches(&self, mut step: u64, sender: &SyncSender<Result<Batch<F::Row>, LoadError>>) {
        let mut current: Option<(u64, Positions)> = None;
        while step < self.plan.steps && !self.stop.load(Relaxed) {
            let epoch = step / self.steps_per_epoch;
            if current.as_ref().is_none_or(|(known, _)| *known != epoch) {
                let positions = match &self.views {
                    Views::Drawn { order, .. } => Positions::Drawn(order.epoch(epoch)),
                    Views::Whole { .. } => Positions::InOrder,
                };
                current = Some((epoch, positions));
            }
            let Some((_, positions)) = &current else { return };
            let build = AssertUnwindSafe(|| self.build(step, epoch, positions));
            let batch = catch_unwind(build).unwrap_or_else(|panic| Err(LoadError::panic(step, panic)));
            let failed = batch.is_err();
            if sender.send(batch).is_err() || failed {
                return;
            }
            step += BUILDERS * self.plan.world as u64;
        }
    }

    fn build(&self, step: u64, epoch: u64, positions: &Positions) -> Result<Batch<F::Row>, LoadError> {
        let LoaderPlan { batch, halves, .. } = self.plan;
        let first = step % self.steps_per_epoch * batch as u64;
        let size = (self.positions - first).min(batch as u64) as usize;
        let bytes = self.row_bytes();
        let mut pictures = vec![0; size * bytes];
        let mut halves = vec![0; if halves { size * bytes / 4 } else { 0 }];
        let mut of_halves = halves.chunks_exact_mut((bytes / 4).max(1));
        let canvases: Vec<Canvas> = pictures
            .chunks_exact_mut(bytes)
            .map(|views| Canvas { views, halves: of_halves.next().unwrap_or_default() })
            .collect();
        let rows = canvases.into_par_iter().enumerate().with_max_len(1); // records take very different times
        let rows: Vec<Option<(F::Row, String)>> = self.pool.install(|| {
            let made = rows.map(|(nth, canvas)| {
                let position = first + nth as u64;
                match positions {
                    Positions::Drawn(order) => self.sample(step, epoch, position, order, canvas).map(Some),
                    Positions::InOrder => self.example(position, canvas),
                }
            });
            made.collect::<Result<_, _>>()
        })?;
        close_gaps(&mut pictures, bytes, &rows);
        let (rows, records) = rows.into_iter().flatten().unzip();
        Ok(Batch { step, epoch, side: self.side(), rows, records, pictures, halves })
    }

    /// Makes the row for `position`, with the record that stands there or, if it is bad, another one.
    fn sample(
        &self,
        step: u64,
        epoch: u64,
        position: u64,
        order: &EpochOrder,
        mut canvas: Canvas,
    ) -> Result<(F::Row, String), LoadError> {
        let seed = self.plan.seed;
        for attempt in 0..=MAX_SUBSTITUTES {
            if self.stop.load(Relaxed) {
                return Err(LoadError::Stopped);
            }
            let record = match attempt {
                0 => order.record(position),
                _ => {
                    let mut rng = stream(Purpose::Substitute, seed, epoch, position, attempt);
                    order.record(rng.random_range(0..self.positions))
                }
            };
            let rng = stream(Purpose::Sample, seed, epoch, position, attempt);
            if let Ok(row) = self.row(record, rng, &mut canvas) {
                return Ok(row);
            }
            self.judge()?;
        }
        Err(LoadError::NoSubstitute { step, report: self.tally.report() })
    }

    /// Makes the row of `record`, if it is good.
    fn example(&self, record: u64, mut canvas: Canvas) -> Result<Option<(F::Row, String)>, LoadError> {
        if self.stop.load(Relaxed) {
            return Err(LoadError::Stopped);
        }
        let row = self.row(record, stream(Purpose::Sample, self.plan.seed, 0, record, 0), &mut canvas);
        if row.is_err() {
            self.judge()?;
        }
        Ok(row.ok())
    }

    fn row(&self, record: u64, rng: ChaCha8Rng, canvas: &mut Canvas) -> Result<(F::Row, String), RecordError> {
        let mut workbench = workers::bench(&self.workbenches);
        let row = self.try_row(record, rng, &mut workbench, canvas);
        self.tally.note(record, row.as_ref().err());
        row
    }

    fn try_row(
        &self,
        record: u64,
        mut rng: ChaCha8Rng,
        workbench: &mut Workbench,
        canvas: &mut Canvas,
    ) -> Result<(F::Row, String), RecordError> {
        let Workbench { bytes, scratch, half: unasked } = workbench;
        let area = self.row_bytes() / F::PICTURES;
        let mut start = Instant::now();
        let entry = self.dataset.entry(record)?;
        let mut halves = canvas.halves.chunks_exact_mut((area / 4).max(1));
        for (image, view) in F::pictures(&entry).into_iter().zip(canvas.views.chunks_exact_mut(area)) {
            image.read(F::name(&entry), bytes)?;
            start = self.clock(0, start);
            let drawn = match &self.views {
                Views::Drawn { recipe, .. } => {
                    let half = match halves.next() {
                        Some(half) => half,
                        None => {
                            unasked.resize(area / 4, 0);
                            &mut *unasked
                        }
                    };
                    recipe.draw(bytes, &mut rng, scratch, view, half)
                }
                Views::Whole { side } => evaluation_view_with(bytes, *side, &Limits::default(), scratch, view),
            };
            start = self.clock(1, start);
            drawn.map_err(|error| image.unreadable(F::name(&entry), error))?;
        }
        let name = F::name(&entry).to_owned();
        let row = self.format.row(entry, &mut rng);
        self.clock(2, start);
        Ok((row?, name))
    }

    /// Adds the time since `start` to a stage; returns now.
    fn clock(&self, stage: usize, start: Instant) -> Instant {
        let now = Instant::now();
        self.nanoseconds[stage].fetch_add((now - start).as_nanos() as u64, Relaxed);
        now
    }
}

/// Moves the pictures of rows that are there over those of rows that are not.
fn close_gaps<T>(pictures: &mut Vec<u8>, bytes: usize, rows: &[Option<T>]) {
    let mut kept = 0;
    for (from, _) in rows.iter().enumerate().filter(|(_, row)| row.is_some()) {
        if from != kept {
            pictures.copy_within(from * bytes..(from + 1) * bytes, kept * bytes);
        }
        kept += 1;
    }
    pictures.truncate(kept * bytes);
}
