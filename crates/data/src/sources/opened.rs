//! Shards whose bytes are read by range: files, or objects on a store.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use simla_store::{Object, Store};

use crate::order::WINDOW_SHARDS;

/// Files that are kept open.
const OPEN_FILES: usize = 64;

/// A shard.
#[derive(Debug)]
pub enum Shard {
    /// A file on a disk.
    File(File),
    /// An object on a store.
    Object(Object),
}

impl Shard {
    /// Its length in bytes.
    pub(super) fn size(&self) -> io::Result<u64> {
        match self {
            Shard::File(file) => Ok(file.metadata()?.len()),
            Shard::Object(object) => Ok(object.size()),
        }
    }

    /// Fills `bytes` with those from `offset` on.
    pub(crate) fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Shard::File(file) => file.read_exact_at(bytes, offset),
            Shard::Object(object) => object.read_exact_at(bytes, offset),
        }
    }
}

/// Some shards, in their order.
#[derive(Debug)]
pub(super) enum Shards {
    Files {
        paths: Vec<PathBuf>,
        open: Mutex<VecDeque<(usize, Arc<Shard>)>>,
    },
    Objects {
        store: Store,
        shards: Vec<(PathBuf, Arc<Shard>)>,
        /// Bytes of as many of the largest as are read at the same time.
        window: u64,
    },
}

impl Shards {
    pub(crate) fn files(paths: Vec<PathBuf>) -> Self {
        Shards::Files { paths, open: Mutex::default() }
    }

    pub(crate) fn objects(store: Store, objects: Vec<Object>) -> Self {
        let mut sizes: Vec<u64> = objects.iter().map(Object::size).collect();
        sizes.sort_unstable();
        let window = sizes.iter().rev().take(WINDOW_SHARDS).sum();
        let shard = |object: Object| (PathBuf::from(object.url()), Arc::new(Shard::Object(object)));
        Shards::Objects { store, shards: objects.into_iter().map(shard).collect(), window }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Shards::Files { paths, .. } => paths.len(),
            Shards::Objects { shards, .. } => shards.len(),
        }
    }

    /// The path or address of one.
    pub(crate) fn path(&self, shard: usize) -> &Path {
        match self {
            Shards::Files { paths, .. } => &paths[shard],
            Shards::Objects { shards, .. } => &shards[shard].0,
        }
    }

    /// One to read; a file is kept open for the next who asks.
    pub(crate) fn open(&self, shard: usize) -> io::Result<Arc<Shard>> {
        let (paths, open) = match self {
            Shards::Objects { shards, .. } => return Ok(Arc::clone(&shards[shard].1)),
            Shards::Files { paths, open } => (paths, open),
        };
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, file)) = open.iter().find(|(known, _)| *known == shard) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(Shard::File(File::open(&paths[shard])?));
        if open.len() == OPEN_FILES {
            open.pop_front();
        }
        open.push_back((shard, Arc::clone(&file)));
        Ok(file)
    }

    /// Has one fetched, if there is room for it beside those that are read now.
    pub(crate) fn read_soon(&self, shard: usize) {
        if let Shards::Objects { store, shards, window } = self
            && 2 * window <= store.cache_bytes()
            && let Shard::Object(object) = &*shards[shard].1
        {
            object.read_soon();
        }
    }

    /// What is to be known about reading them.
    pub(crate) fn warning(&self) -> Option<String> {
        match self {
            Shards::Objects { store, window, .. } if *window > store.cache_bytes() => Some(format!(
                "the {WINDOW_SHARDS} shards that are read at the same time have up to {} MB, the cache {} MB: much is fetched again and again; \
                 more is set by SIMLA_STORE_CACHE_GB",
                window / 1_000_000,
                store.cache_bytes() / 1_000_000
            )),
            _ => None,
        }
    }

    /// Why one could not be read, if ever one could not be reached.
    pub(crate) fn failure(&self) -> Option<&str> {
        match self {
            Shards::Files { .. } => None,
            Shards::Objects { store, .. } => store.failure(),
        }
    }
}
