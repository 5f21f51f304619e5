//! The graph (HNSW, by `usearch`) over the features. All in it can be made again from the rows.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use usearch::{IndexOptions, MetricKind, ScalarKind};

use crate::error::SearchError;

/// Neighbours that are looked at for each answer, at least: recall beyond 0.99 on features like ours.
const EXPANSION: usize = 128;

/// A graph over features of length one, under keys.
pub(crate) struct Graph {
    index: usearch::Index,
    /// The library has room for as many searches at a time as it was told, no more, and one breadth for all: they take turns.
    turn: Mutex<()>,
}

impl Graph {
    pub(crate) fn new(features: usize) -> Result<Self, String> {
        let options = IndexOptions {
            dimensions: features,
            metric: MetricKind::IP,
            quantization: ScalarKind::F32,
            connectivity: 0, // the library's choice
            expansion_add: EXPANSION,
            expansion_search: EXPANSION,
            multi: false,
        };
        let index = usearch::Index::new(&options).map_err(|e| e.to_string())?;
        Ok(Self { index, turn: Mutex::new(()) })
    }

    /// Reads the graph in `path`, which must have this checksum.
    pub(crate) fn open(path: &Path, features: usize, checksum: &str) -> Result<Self, String> {
        // The library trusts what it reads: nothing that has changed since it was written may reach it.
        let found = checksum_of(path).map_err(|e| e.to_string())?;
        if found != checksum {
            return Err("its checksum differs".into());
        }
        let graph = Self::new(features)?;
        let path = path.to_str().ok_or("its path is not UTF-8")?;
        graph.index.load(path).map_err(|e| e.to_string())?;
        Ok(graph)
    }

    pub(crate) fn add(&self, key: u64, feature: &[f32]) -> Result<(), String> {
        if self.index.size() == self.index.capacity() {
            const FIRST: usize = 1024;
            let more = (2 * self.index.capacity()).max(FIRST);
            self.index.reserve(more).map_err(|e| e.to_string())?;
        }
        self.index.add(key, feature).map_err(|e| e.to_string())
    }

    pub(crate) fn remove(&self, key: u64) -> Result<(), String> {
        self.index.remove(key).map(|_| ()).map_err(|e| e.to_string())
    }

    /// Keys and products of the nearest `n`, nearest first.
    pub(crate) fn nearest(&self, feature: &[f32], n: usize) -> Result<Vec<(u64, f32)>, String> {
        if self.index.size() == 0 {
            return Ok(vec![]);
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.index.change_expansion_search(EXPANSION.max(2 * n));
        let found = self.index.search(feature, n).map_err(|e| e.to_string())?;
        let similar = found.distances.into_iter().map(|distance| 1.0 - distance);
        Ok(found.keys.into_iter().zip(similar).collect())
    }

    /// Writes the graph to a new file, syncs it, and returns its checksum.
    pub(crate) fn save(&self, path: &Path) -> Result<String, SearchError> {
        let failed = |reason: String| SearchError::Graph { path: path.into(), reason };
        let text = path.to_str().ok_or_else(|| failed("its path is not UTF-8".into()))?;
        self.index.save(text).map_err(|e| failed(e.to_string()))?;
        let sync = || std::fs::File::open(path)?.sync_all();
        sync().map_err(SearchError::io(path))?;
        checksum_of(path).map_err(SearchError::io(path))
    }
}

fn checksum_of(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap(path)?;
    Ok(hasher.finalize().to_hex().to_string())
}
