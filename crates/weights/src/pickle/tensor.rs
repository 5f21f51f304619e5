//! Where in a storage a tensor's elements lie.

use super::graph::{Graph, Id, StorageView, Value};
use crate::error::Fault;
use crate::limits::DIMENSIONS;
use crate::tensor::DType;

/// A tensor without its data: a strided window on a storage, checked to lie inside.
#[derive(Clone, Debug)]
pub(crate) struct TensorHeader {
    /// Index into [`Graph::storages`].
    pub storage: usize,
    pub dtype: DType,
    /// First element in the storage.
    pub offset: u64,
    pub shape: Vec<u64>,
    /// Elements from one index to the next, per dimension.
    pub strides: Vec<u64>,
    /// Product of `shape`.
    pub elements: u64,
    /// Elements of the storage from `offset` to the last one used, both included.
    pub span: u64,
}

impl TensorHeader {
    /// A tensor of `shape` that takes a whole storage, in order.
    pub(crate) fn whole(graph: &Graph, storage: usize, shape: Vec<u64>) -> Result<Self, Fault> {
        let mut strides = vec![1; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = shape[i].saturating_mul(strides[i]);
        }
        let elements = graph.storages()[storage].elements;
        Self::new(graph, StorageView { storage, offset: 0, elements }, 0, shape, strides)
    }

    /// Checks that every index stays in `view`. Offset and strides count elements.
    pub(crate) fn new(
        graph: &Graph,
        view: StorageView,
        offset: u64,
        shape: Vec<u64>,
        strides: Vec<u64>,
    ) -> Result<Self, Fault> {
        let storage = &graph.storages()[view.storage];
        let wrong = |problem: String| Fault::tensor(format!("storage {}", storage.key), problem);
        if shape.len() != strides.len() {
            return Err(wrong(format!("a tensor of {} sizes and {} strides", shape.len(), strides.len())));
        }
        let overflow = || wrong(format!("a tensor of shape {shape:?} and strides {strides:?} has no valid size"));
        // Bytes in 63 bits even where a size of 0 hides the others: whoever gets the shape computes with it.
        let most = shape
            .iter()
            .try_fold(storage.dtype.size(), |n, &size| n.checked_mul(size.max(1)))
            .filter(|&bytes| i64::try_from(bytes).is_ok())
            .ok_or_else(overflow)?;
        let elements = if shape.contains(&0) { 0 } else { most / storage.dtype.size() };
        let span = if elements == 0 {
            0
        } else {
            shape
                .iter()
                .zip(&strides)
                .try_fold(1_u64, |n, (&size, &stride)| (size - 1).checked_mul(stride)?.checked_add(n))
                .ok_or_else(overflow)?
        };
        if offset.checked_add(span).is_none_or(|end| end > view.elements) {
            return Err(wrong(format!(
                "a tensor of shape {shape:?} and strides {strides:?} from element {offset} does not fit in {} elements",
                view.elements
            )));
        }
        Ok(Self {
            storage: view.storage,
            dtype: storage.dtype,
            offset: view.offset + offset,
            shape,
            strides,
            elements,
            span,
        })
    }

    /// Whether the elements lie in order without gaps.
    pub(crate) fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.elements == 0
            || self.shape.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
                let in_order = size == 1 || stride == expected;
                expected *= size;
                in_order
            })
    }
}

/// Reads a tuple of sizes or strides: a few integers from 0.
pub(crate) fn sizes(graph: &Graph, id: Id) -> Option<Vec<u64>> {
    let sizes = graph.sequence(id)?;
    if sizes.len() as u64 > DIMENSIONS {
        return None; // before anything is copied
    }
    sizes
        .iter()
        .map(|&id| match graph.get(id) {
            Value::Int(int) => u64::try_from(*int).ok(),
            _ => None,
        })
        .collect()
}
