//! From files of records to batches.
//!
//! A record walks one way: [`sources`] find it, its format (of [`formats`]) reads it, [`order`] says when it is seen, [`loader`] has its
//! pictures decoded and a row made of it (words cleaned and cut into the pieces of a vocabulary by [`text`], what is to be guessed
//! hidden by [`masks`]) and puts it into a [`Batch`].

#![warn(missing_docs, unreachable_pub)]

pub mod batch;
pub mod dataset;
pub mod formats;
pub mod inspect;
pub mod loader;
pub mod masks;
pub mod order;
pub mod pack;
mod permutation;
mod quoted;
mod random;
pub mod record;
pub mod sources;
mod table;
pub mod tally;
pub mod text;

pub use batch::Batch;
pub use dataset::{Dataset, Fingerprint, Source};
pub use formats::answers::{AnswerList, Coverage};
pub use formats::entailment::{Entailment, Entailments, Hypothesis};
pub use formats::expression::{Expression, Expressions};
pub use formats::objects::{BoxedPhrase, BoxedPicture, Objects, read_boxes};
pub use formats::pairs::{Pair, Pairs};
pub use formats::question::{Annotation, Annotations, AskedQuestion, Question, Questions};
pub use formats::refer::{ReferFiles, read_refer};
pub use formats::statement::{PairStatement, Statement, Statements};
pub use formats::{Format, Place};
pub use inspect::{InspectOptions, Inspection, inspect};
pub use loader::{LoadError, Loader, LoaderPlan, SettingError, Times};
pub use pack::{PackError, PackOptions, Packed, Shrunk, pack};
pub use quoted::{quoted, steers};
pub use record::{Entry, Location, Record, RecordError, Unreached};
pub use simla_store as store;
pub use sources::{OpenError, Options, Pictures, Records, Shard};
pub use tally::{Seen, TallyReport};
pub use text::vocabulary::{Special, Vocabulary, VocabularyError};
pub use text::{Sentences, caption, names_something, vocabulary};
