//! Images in the order of the files with all their captions, for retrieval (section 3.1): streamed, a few batches in
//! memory.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rayon::ThreadPool;
use rayon::prelude::*;
use simla_image::{Limits, evaluation_view_with};

use crate::dataset::Dataset;
use crate::loader::LoadError;
use crate::plan::SettingError;
use crate::record::{Entry, RecordError};
use crate::tally::{Report, Tally};
use crate::vocabulary::{MAX_TOKENS, Vocabulary};
use crate::workers::{self, Workbench};

/// Batches that are ready before they are asked for.
const PREFETCH: usize = 2;

/// How an evaluation set is read.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationPlan {
    /// Images in a batch.
    pub batch: usize,
    /// Pixels along a side of a view.
    pub side: u32,
    /// Pieces of a caption at most, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// Threads that decode; 0 takes one for each core.
    pub workers: usize,
}

impl Default for EvaluationPlan {
    fn default() -> Self {
        EvaluationPlan { batch: 32, side: 256, max_tokens: MAX_TOKENS, workers: 0 }
    }
}

/// Some images and all their captions.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluationBatch {
    /// Number of this batch's first image among all that are delivered.
    pub first: usize,
    /// B, images; the last batch and those with bad records are smaller.
    pub size: usize,
    /// S, pixels along a side of a view.
    pub side: usize,
    /// The whole pictures as squares, RGB, `[B, S, S, 3]`.
    pub images: Vec<u8>,
    /// Word pieces of each caption, of all images in turn.
    pub ids: Vec<Vec<i64>>,
    /// For each caption, the number of its image among all that are delivered.
    pub image_of: Vec<usize>,
    /// The captions as they are in the data.
    pub captions: Vec<String>,
    /// Equal for records that show the same image, `[B]`.
    pub image_ids: Vec<i64>,
    /// File and position of each image's record, `[B]`.
    pub records: Vec<String>,
}

/// An iterator over the images of a data set. Bad records are left out and counted; too many are an error.
pub struct EvaluationSet {
    shared: Arc<Shared>,
    /// None once the set is being dropped.
    batches: Option<Receiver<Result<EvaluationBatch, LoadError>>>,
    builder: Option<JoinHandle<()>>,
}

struct Shared {
    dataset: Arc<Dataset>,
    vocabulary: Arc<Vocabulary>,
    plan: EvaluationPlan,
    tally: Tally,
    stop: AtomicBool,
    pool: ThreadPool,
    workbenches: Vec<Mutex<Workbench>>,
}

impl EvaluationSet {
    /// Starts reading.
    pub fn start(dataset: Arc<Dataset>, vocabulary: Arc<Vocabulary>, plan: EvaluationPlan) -> Result<Self, LoadError> {
        let refuse =
            |field, value, expected: &str| Err(SettingError { field, value, expected: expected.into() }.into());
        if plan.batch == 0 {
            return refuse("batch", 0, "at least 1 image");
        }
        if plan.max_tokens < 3 {
            return refuse("max_tokens", plan.max_tokens as u64, "at least 3: [CLS], a word and [SEP]");
        }
        if plan.side == 0 {
            return refuse("side", 0, "at least 1 pixel");
        }
        let pool = workers::pool(plan.workers)?;
        let workbenches = workers::workbenches(&pool);
        let tally = Tally::new(dataset.len(), dataset.max_bad_share());
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { dataset, vocabulary, plan, tally, stop, pool, workbenches });
        let (sender, receiver) = sync_channel(PREFETCH);
        let run = {
            let shared = Arc::clone(&shared);
            move || shared.build_batches(&sender)
        };
        let thread = std::thread::Builder::new().name("simla-evaluation".into()).spawn(run);
        let builder = thread.map_err(|e| LoadError::Threads(e.to_string()))?;
        Ok(EvaluationSet { shared, batches: Some(receiver), builder: Some(builder) })
    }

    /// Number of records, bad ones included.
    pub fn len(&self) -> u64 {
        self.shared.dataset.len()
    }

    /// Never: an empty data set is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was seen of the data set so far, the bad records among it.
    pub fn report(&self) -> Report {
        self.shared.tally.report()
    }
}

impl Iterator for EvaluationSet {
    type Item = Result<EvaluationBatch, LoadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.batches.as_ref()?.recv().ok()
    }
}

impl Drop for EvaluationSet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
        self.batches = None; // a builder that waits to deliver wakes up
        if let Some(builder) = self.builder.take() {
            let _ = builder.join(); // its panics were caught and delivered
        }
    }
}

impl Shared {
    fn build_batches(&self, sender: &SyncSender<Result<EvaluationBatch, LoadError>>) {
        let (mut first, size) = (0, self.plan.batch as u64);
        for start in (0..self.dataset.len()).step_by(self.plan.batch) {
            let records = start..(start + size).min(self.dataset.len());
            let build = AssertUnwindSafe(|| self.build(records, first));
            let batch = catch_unwind(build).unwrap_or_else(|panic| Err(LoadError::panic(start / size, panic)));
            let done = match &batch {
                Ok(batch) if batch.size == 0 => continue,
                Ok(batch) => {
                    first += batch.size;
                    false
                }
                Err(_) => true,
            };
            if sender.send(batch).is_err() || done {
                return;
            }
        }
    }

    fn build(&self, records: Range<u64>, first: usize) -> Result<EvaluationBatch, LoadError> {
        let side = self.plan.side as usize;
        let area = side * side * 3;
        let count = (records.end - records.start) as usize;
        let mut images = vec![0; count * area];
        let views = images.par_chunks_exact_mut(area).enumerate().with_max_len(1);
        let entries: Vec<Option<Entry>> = self.pool.install(|| {
            views
                .map(|(nth, view)| {
                    if self.stop.load(Relaxed) {
                        return None;
                    }
                    let record = records.start + nth as u64;
                    let entry = self.read(record, view);
                    self.tally.note(record, entry.as_ref().err());
                    entry.ok()
                })
                .collect()
        });
        if self.stop.load(Relaxed) {
            return Err(LoadError::Stopped);
        }
        if self.tally.too_many_bad() {
            return Err(LoadError::TooManyBad {
                max_bad_share: self.dataset.max_bad_share(),
                report: self.tally.report(),
            });
        }

        let mut batch = EvaluationBatch {
            first,
            size: 0,
            side,
            images: Vec::new(),
            ids: Vec::new(),
            image_of: Vec::new(),
            captions: Vec::new(),
            image_ids: Vec::new(),
            records: Vec::new(),
        };
        for (nth, entry) in entries.into_iter().enumerate() {
            let Some(Entry { captions, name, image_id, .. }) = entry else {
                continue;
            };
            images.copy_within(nth * area..(nth + 1) * area, batch.size * area); // close the gaps of bad ones
            batch.image_of.extend(std::iter::repeat_n(first + batch.size, captions.len()));
            batch.ids.extend(captions.iter().map(|c| self.vocabulary.encode(c, self.plan.max_tokens)));
            batch.captions.extend(captions);
            batch.image_ids.push(image_id);
            batch.records.push(name);
            batch.size += 1;
        }
        images.truncate(batch.size * area);
        batch.images = images;
        Ok(batch)
    }

    fn read(&self, record: u64, view: &mut [u8]) -> Result<Entry, RecordError> {
        let entry = self.dataset.entry(record)?;
        let mut workbench = workers::bench(&self.workbenches);
        let Workbench { bytes, scratch } = &mut *workbench;
        entry.read_image(bytes)?;
        match evaluation_view_with(bytes, self.plan.side, &Limits::default(), scratch, view) {
            Ok(()) => Ok(entry),
            Err(error) => Err(entry.unreadable(error)),
        }
    }
}
