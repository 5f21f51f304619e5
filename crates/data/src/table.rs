//! A table of numbers on disk: where each record of a source lies. It is written once, in one pass over the source, into
//! an unnamed temporary file, and read row by row, so that memory does not grow with the data set.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Rows of `N` numbers.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    file: File,
    rows: u64,
}

/// A table that is being written.
#[derive(Debug)]
pub(crate) struct TableWriter<const N: usize> {
    file: BufWriter<File>,
    rows: u64,
}

impl<const N: usize> TableWriter<N> {
    /// Starts a table in `folder`, by default the system's folder for temporary files. It goes with the process.
    pub(crate) fn start(folder: Option<&Path>) -> io::Result<Self> {
        let file = match folder {
            Some(folder) => tempfile::tempfile_in(folder)?,
            None => tempfile::tempfile()?,
        };
        Ok(TableWriter { file: BufWriter::with_capacity(1 << 16, file), rows: 0 })
    }

    pub(crate) fn push(&mut self, row: [u64; N]) -> io::Result<()> {
        self.rows += 1;
        row.iter().try_for_each(|value| self.file.write_all(&value.to_le_bytes()))
    }

    pub(crate) fn finish(self) -> io::Result<Table<N>> {
        let file = self.file.into_inner().map_err(|e| e.into_error())?;
        Ok(Table { file, rows: self.rows })
    }
}

impl<const N: usize> Table<N> {
    pub(crate) fn len(&self) -> u64 {
        self.rows
    }

    /// The row `index`, which is below the length.
    pub(crate) fn row(&self, index: u64) -> io::Result<[u64; N]> {
        assert!(index < self.rows, "row {index} of {}", self.rows);
        let mut values = [[0; 8]; N];
        self.file.read_exact_at(values.as_flattened_mut(), index * 8 * N as u64)?;
        Ok(values.map(u64::from_le_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_written() {
        let mut writer = TableWriter::<3>::start(None).unwrap();
        for i in 0..10_000 {
            writer.push([i, i * i, u64::MAX - i]).unwrap();
        }
        let table = writer.finish().unwrap();
        assert_eq!(table.len(), 10_000);
        for i in [0, 1, 4_999, 9_999] {
            assert_eq!(table.row(i).unwrap(), [i, i * i, u64::MAX - i]);
        }
    }
}
