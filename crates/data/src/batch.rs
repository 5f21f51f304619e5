//! What a training step reads.

/// One batch of image-caption pairs. All arrays are in row order, the first index slowest.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The step (from 0, through all epochs) that this batch is for.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// B, pairs.
    pub size: usize,
    /// S, pixels along a side of the view.
    pub side: usize,
    /// L, pieces of the longest caption of the batch.
    pub length: usize,
    /// P, patches of a view.
    pub patches: usize,
    /// The augmented views, RGB, `[B, S, S, 3]`.
    pub images: Vec<u8>,
    /// The same views at half the side, for the visual tokenizer, `[B, S/2, S/2, 3]`.
    pub halves: Vec<u8>,
    /// Word pieces, `[B, L]`, `[CLS]` first, `[SEP]` last, then `[PAD]`.
    pub ids: Vec<i64>,
    /// 1 where there is a piece, 0 where there is padding, `[B, L]`.
    pub mask: Vec<i64>,
    /// Word pieces with BERT's masking, `[B, L]`.
    pub mlm_ids: Vec<i64>,
    /// The true piece where one is to be predicted, else -100, `[B, L]`.
    pub mlm_labels: Vec<i64>,
    /// True where a patch is hidden, `[B, P]`.
    pub masked_patches: Vec<bool>,
    /// Equal for pairs that show the same image, `[B]`.
    pub image_ids: Vec<i64>,
    /// File and position of each pair's record, `[B]`.
    pub records: Vec<String>,
}
