//! Files of rows: each a feature (f32, little-endian) and a payload.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use memmap2::Mmap;

use crate::error::SearchError;

/// Writes rows to a new file and syncs it.
pub(crate) fn write<'a>(path: &Path, rows: impl Iterator<Item = (&'a [f32], &'a [u8])>) -> Result<(), SearchError> {
    let io = SearchError::io(path);
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        for (feature, payload) in rows {
            for value in feature {
                file.write_all(&value.to_le_bytes())?;
            }
            file.write_all(payload)?;
        }
        file.into_inner()?.sync_all()
    };
    write().map_err(io)
}

/// An open file of rows.
#[derive(Debug)]
pub(crate) struct Rows {
    map: Mmap,
    feature: usize,
    row: usize,
}

impl Rows {
    /// Opens a file that holds `count` rows of features of `features` values and payloads of `payload` bytes.
    pub(crate) fn open(path: &Path, count: u64, features: usize, payload: usize) -> Result<Self, SearchError> {
        let file = File::open(path).map_err(SearchError::io(path))?;
        let found = file.metadata().map_err(SearchError::io(path))?.len();
        let (feature, row) = (4 * features, 4 * features + payload);
        let expected = (row as u64).checked_mul(count);
        if expected != Some(found) || found == 0 {
            return Err(SearchError::Damaged {
                path: path.into(),
                reason: format!("{found} bytes, expected {count} rows of {row}"),
            });
        }
        // SAFETY: files of rows are never changed once they have their name.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(SearchError::io(path))?;
        Ok(Self { map, feature, row })
    }

    fn row(&self, number: u64) -> &[u8] {
        &self.map[number as usize * self.row..][..self.row]
    }

    /// The feature of a row that is there.
    pub(crate) fn feature(&self, number: u64) -> Vec<f32> {
        let bytes = self.row(number)[..self.feature].as_chunks::<4>().0;
        bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Product of a row's feature with another.
    pub(crate) fn product(&self, number: u64, other: &[f32]) -> f32 {
        // Sums side by side, which the processor adds at once: in one sum, it would have to keep their order.
        const LANES: usize = 8;
        let values = self.row(number)[..self.feature].as_chunks::<4>().0;
        let mut sums = [0.0f32; LANES];
        let (blocks, rest) = values.as_chunks::<LANES>();
        let (others, other_rest) = other.as_chunks::<LANES>();
        for (block, other) in blocks.iter().zip(others) {
            for lane in 0..LANES {
                sums[lane] += f32::from_le_bytes(block[lane]) * other[lane];
            }
        }
        let rest = rest.iter().zip(other_rest).map(|(a, b)| f32::from_le_bytes(*a) * b);
        sums.iter().sum::<f32>() + rest.sum::<f32>()
    }

    /// The payload of a row that is there.
    pub(crate) fn payload(&self, number: u64) -> &[u8] {
        &self.row(number)[self.feature..]
    }
}
