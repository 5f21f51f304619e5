//! Each caption as a record of its own: a record with five captions becomes five with one, next to each other.

use std::io;

use super::Records;
use crate::record::{Entry, RecordError};
use crate::table::{Table, TableWriter};

/// The captions of a source, each as a record.
#[derive(Debug)]
pub(crate) struct EachCaption {
    records: Box<dyn Records>,
    /// Record and caption of each pair.
    places: Table<2>,
    shards: Vec<u64>,
}

impl EachCaption {
    /// Reads every record once. One that cannot be used stays, as one pair, to be counted when it is met.
    pub(crate) fn of(records: Box<dyn Records>, index_folder: Option<&std::path::Path>) -> io::Result<Self> {
        let mut places = TableWriter::start(index_folder)?;
        let (mut pairs, mut shards) = (0, Vec::new());
        let mut starts = records.shards().into_iter().peekable();
        for record in 0..records.len() {
            while starts.next_if_eq(&record).is_some() {
                shards.push(pairs);
            }
            let captions = records.entry(record).map_or(1, |entry| entry.captions.len());
            for caption in 0..captions as u64 {
                places.push([record, caption])?;
            }
            pairs += captions as u64;
        }
        Ok(EachCaption { records, places: places.finish()?, shards })
    }
}

impl Records for EachCaption {
    fn len(&self) -> u64 {
        self.places.len()
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        let [record, caption] = self.places.row(index).map_err(|e| RecordError::Malformed {
            name: format!("pair {}", index + 1),
            problem: format!("its place cannot be read: {e}"),
        })?;
        let mut entry = self.records.entry(record)?;
        // Of a file that has changed meanwhile, a caption may be gone.
        let caption = (caption as usize).min(entry.captions.len() - 1);
        entry.captions = vec![entry.captions.swap_remove(caption)];
        Ok(entry)
    }

    fn shards(&self) -> Vec<u64> {
        self.shards.clone()
    }

    fn read_soon(&self, index: u64) {
        if let Ok([record, _]) = self.places.row(index) {
            self.records.read_soon(record);
        }
    }

    fn failure(&self) -> Option<&str> {
        self.records.failure()
    }
}
