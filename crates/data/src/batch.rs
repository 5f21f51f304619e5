//! What a training step reads.

/// Some rows with their pictures. What a row is, its format says.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch<R> {
    /// The step (from 0, through all epochs) that this batch is for.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// S, pixels along a side of a view.
    pub side: usize,
    /// The rows, B of them.
    pub rows: Vec<R>,
    /// File and position of each row's record, `[B]`.
    pub records: Vec<String>,
    /// The views of each row's P pictures, RGB, `[B, P, S, S, 3]`.
    pub pictures: Vec<u8>,
    /// The same views at half the side, for the visual tokenizer, `[B, P, S/2, S/2, 3]`; empty where they were not asked for.
    pub halves: Vec<u8>,
}

impl<R> Batch<R> {
    /// B, the rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has no row: never one of training.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}
