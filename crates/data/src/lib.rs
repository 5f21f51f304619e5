//! From files of image-caption pairs to batches.
//!
//! A pair walks one way: `sources` find its record, `record` reads it, `order` says when it is seen, `loader` has it
//! decoded, its `caption` cleaned and cut into the pieces of a `vocabulary`, its `words` and patches (`blocks`) masked,
//! and puts it into a `batch`.

pub mod batch;
pub mod blocks;
pub mod boxes;
pub mod caption;
pub mod dataset;
pub mod evaluation;
pub mod inspect;
mod learn;
pub mod loader;
pub mod order;
pub mod pack;
mod permutation;
pub mod plan;
mod random;
pub mod record;
pub mod sources;
mod table;
pub mod tally;
pub mod vocabulary;
pub mod words;
mod workers;

pub use batch::Batch;
pub use boxes::{BoxedPhrase, BoxedPicture, BoxesError, ReferFiles, read_boxes};
pub use dataset::{Dataset, Source};
pub use evaluation::{EvaluationBatch, EvaluationPlan, EvaluationSet};
pub use inspect::{InspectOptions, Inspection, inspect};
pub use loader::{LoadError, Loader, Times};
pub use pack::{PackError, PackOptions, Packed, pack};
pub use plan::Plan;
pub use record::{Entry, Record, RecordError};
pub use sources::{OpenError, Options};
pub use tally::Report;
pub use vocabulary::{Special, Vocabulary, VocabularyError};
