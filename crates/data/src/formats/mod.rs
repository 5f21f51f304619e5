//! What a record says, and how a row of a batch is made of it: a file for each kind of record.

pub mod answers;
#[cfg(test)]
mod check;
pub mod entailment;
pub mod expression;
pub(crate) mod karpathy;
pub mod objects;
pub mod pairs;
pub mod question;
pub mod refer;
pub mod statement;

use std::fmt::Debug;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde::de::DeserializeOwned;

use crate::loader::SettingError;
use crate::record::{Location, RecordError};
use crate::sources::{self, OpenError, Options, Pictures, Records, Watch, fields};

/// A kind of record. Its value says how rows are made (a vocabulary, a length); to read records, the type is enough.
pub trait Format: Debug + Send + Sync + Sized + 'static {
    /// A record without its pictures' bytes.
    type Entry: Send;
    /// A row of a batch without its pictures.
    type Row: Send;
    /// Pictures of a row.
    const PICTURES: usize = 1;
    /// Records as they should be, for messages.
    const EXAMPLE: &'static str;

    /// The list of the records where a file has it in an object, or else an object is a record.
    const LIST: Option<&'static str> = None;

    /// Opens and indexes a file of such records. By default it is JSON; [`read`](Self::read) is asked what its elements say.
    ///
    /// # Errors
    /// A file that cannot be read, is empty, or has too many malformed records.
    fn open(path: &Path, options: &Options, watch: Watch) -> Result<Box<dyn Records<Self::Entry>>, OpenError> {
        sources::open_json::<Self>(path, options, watch)
    }

    /// The records of one element of a JSON file: mostly one.
    ///
    /// # Errors
    /// What is wrong, with the element's place.
    fn read(json: &[u8], place: &Place) -> Result<Vec<Self::Entry>, RecordError>;

    /// File and position of a record.
    fn name(entry: &Self::Entry) -> &str;

    /// Its texts, for a vocabulary to learn from.
    fn texts(entry: Self::Entry) -> Vec<String>;

    /// Where its pictures are, [`PICTURES`](Self::PICTURES) of them.
    fn pictures(entry: &Self::Entry) -> Vec<Location>;

    /// Checks the format for views of `side` pixels.
    ///
    /// # Errors
    /// The setting that cannot be.
    fn check(&self, side: u32) -> Result<(), SettingError> {
        let _ = side;
        Ok(())
    }

    /// Makes a row; everything that is random about it comes from `rng`.
    ///
    /// # Errors
    /// Why the record cannot be used.
    fn row(&self, entry: Self::Entry, rng: &mut ChaCha8Rng) -> Result<Self::Row, RecordError>;
}

/// Where an element of a JSON file stands.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// File and position, for messages.
    pub name: String,
    /// Where the pictures are that it names.
    pub pictures: &'a Pictures,
    /// The parts of the data that are asked for; none: all.
    pub splits: &'a [String],
}

impl Place<'_> {
    /// The picture of one of these names, and a number that stands for it.
    pub(crate) fn picture(&self, names: &[String]) -> Result<(Location, i64), RecordError> {
        self.pictures.find(names, &self.name)
    }

    /// Whether records of this part of the data are asked for.
    pub(crate) fn is_asked_for(&self, split: &str) -> bool {
        is_among(self.splits, split)
    }

    /// The fields of an element of `F`'s.
    pub(crate) fn fields<F: Format, T: DeserializeOwned>(&self, json: &[u8]) -> Result<T, RecordError> {
        fields::from_json(json).map_err(|e| self.no_record::<F>(e.to_string()))
    }

    /// The error for what is no record of `F`'s.
    pub(crate) fn no_record<F: Format>(&self, problem: String) -> RecordError {
        let one = &F::EXAMPLE[1..F::EXAMPLE.len() - 1];
        self.malformed(format!("{problem}; expected a record like {one}"))
    }

    pub(crate) fn malformed(&self, problem: String) -> RecordError {
        RecordError::Malformed { name: self.name.clone(), problem }
    }
}

/// Whether a part of the data is one of `splits`, none of which means all.
pub(crate) fn is_among(splits: &[String], split: &str) -> bool {
    splits.is_empty() || splits.iter().any(|asked| asked == split)
}
