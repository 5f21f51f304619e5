//! One object, read in blocks.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, Shared as Joined};
use futures_util::{FutureExt, TryStreamExt};
use object_store::{GetOptions, GetResult, ObjectMeta, ObjectStore};
use tokio::sync::Semaphore;

use crate::cache::{Cache, DEAR, Found};
use crate::client::{FIRST_PAUSE, LONGEST_PAUSE};
use crate::error::what;
use crate::{FAILURE, Options, RUNTIME, StoreError, wait};

/// Blocks that are fetched at the same time: so many are in memory.
const TOGETHER: usize = 16;
/// Blocks that are fetched ahead of one that is read.
const AHEAD: u64 = 4;
/// Blocks of objects that are read soon that are fetched at the same time, so that those that are read now come first.
const SOON_TOGETHER: usize = 4;
/// How soon an object whose blocks were looked for is looked at again.
const SOON_AGAIN: Duration = Duration::from_secs(60);
/// How often one looks whether another process has fetched a block.
const LOOK: Duration = Duration::from_millis(20);

/// What the objects of a store have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub options: Options,
    pub cache: Arc<Cache>,
    /// Blocks that are on their way.
    coming: Mutex<HashMap<String, Coming>>,
    now: Semaphore,
    soon: Semaphore,
    pub failure: OnceLock<String>,
}

/// A block on its way, for all who wait for it.
type Coming = Joined<BoxFuture<'static, Result<Bytes, Arc<StoreError>>>>;

impl Shared {
    pub(crate) fn new(options: Options, cache: Cache) -> Self {
        let [now, soon] = [TOGETHER, SOON_TOGETHER].map(Semaphore::new);
        let (coming, failure) = Default::default();
        Self { options, cache: Arc::new(cache), coming, now, soon, failure }
    }

    /// Remembers why an object cannot be read; the first reason counts.
    fn failed(&self, error: &StoreError) -> &str {
        let failure = self.failure.get_or_init(|| error.to_string());
        FAILURE.get_or_init(|| failure.clone());
        failure
    }
}

/// An object that was there when it was opened.
#[derive(Clone, Debug)]
pub struct Object(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    url: String,
    meta: ObjectMeta,
    /// Which object it is, and which state of it: begins the names of its blocks.
    key: String,
    client: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
    /// When it was last said to be read soon.
    expected: Mutex<Option<Instant>>,
}

impl Object {
    pub(crate) fn new(url: String, meta: ObjectMeta, client: Arc<dyn ObjectStore>, shared: Arc<Shared>) -> Self {
        let state = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.timestamp().to_string());
        let key = blake3::hash(format!("{url}\0{}\0{state}\0{}", meta.size, shared.options.block).as_bytes());
        let key = key.to_hex()[..32].to_owned();
        Object(Arc::new(Inner { url, meta, key, client, shared, expected: Mutex::default() }))
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.0.meta.size
    }

    /// Fills `bytes` with those from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] where there are fewer; else a [`StoreError`], which the store remembers.
    pub fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        let Inner { shared, .. } = &*self.0;
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.size()) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "failed to fill whole buffer"));
        }
        while !bytes.is_empty() {
            let (block, within) = (offset / shared.options.block, offset % shared.options.block);
            let length = (bytes.len() as u64).min(shared.options.block - within);
            let (part, rest) = bytes.split_at_mut(length as usize);
            self.read(block, within, part)?;
            (bytes, offset) = (rest, offset + length);
        }
        Ok(())
    }

    /// What was kept about it under this name, for as long as it stays what it is.
    pub fn kept(&self, name: &str) -> Option<Vec<u8>> {
        self.0.shared.cache.load(&format!("{}-{name}{DEAR}", self.0.key))
    }

    /// Keeps something about it; where the cache takes no more, it is found out again next time.
    pub fn keep(&self, name: &str, content: &[u8]) {
        let _ = self.0.shared.cache.put(&format!("{}-{name}{DEAR}", self.0.key), content);
    }

    /// Has all of it fetched, as it will be read soon; the call does not wait.
    pub fn read_soon(&self) {
        let mut expected = self.0.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if expected.is_some_and(|then| then.elapsed() < SOON_AGAIN) {
            return;
        }
        *expected = Some(Instant::now());
        let object = self.clone();
        RUNTIME.spawn(async move {
            let shared = &object.0.shared;
            for block in 0..object.blocks() {
                if !shared.cache.has(&object.name(block)) {
                    let _permit = shared.soon.acquire().await;
                    let _ = object.coming(block).await; // who reads it tries again, and says so
                }
            }
        });
    }

    fn blocks(&self) -> u64 {
        self.size().div_ceil(self.0.shared.options.block)
    }

    fn range(&self, block: u64) -> Range<u64> {
        let length = self.0.shared.options.block;
        block * length..((block + 1) * length).min(self.size())
    }

    fn name(&self, block: u64) -> String {
        format!("{}-{block}", self.0.key)
    }

    fn read(&self, block: u64, within: u64, bytes: &mut [u8]) -> io::Result<()> {
        let shared = &self.0.shared;
        let Range { start, end } = self.range(block);
        let found = shared.cache.read(&self.name(block), end - start, bytes, within);
        if found == Found::Again {
            return Ok(());
        }
        if let Some(failure) = shared.failure.get() {
            return Err(io::Error::other(failure.as_str())); // at once: others have waited for long
        }
        let coming = (found == Found::No).then(|| self.coming(block));
        for next in block + 1..self.blocks().min(block + 1 + AHEAD) {
            if !shared.cache.has(&self.name(next)) {
                drop(self.coming(next)); // it comes all the same
            }
        }
        if let Some(coming) = coming {
            let failed = |error: Arc<StoreError>| io::Error::other(shared.failed(&error));
            let whole = wait(coming).map_err(failed)?;
            bytes.copy_from_slice(&whole[within as usize..][..bytes.len()]);
        }
        Ok(())
    }

    /// A block that is fetched, from now on or already.
    fn coming(&self, block: u64) -> Coming {
        let name = self.name(block);
        let mut all = self.0.shared.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || {
            let (object, name) = (self.clone(), name.clone());
            let work = RUNTIME.spawn(async move {
                let fetched = object.fetch(block).await;
                object.0.shared.coming.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                fetched.map_err(Arc::new)
            });
            work.map(|done| done.expect("fetching does not panic")).boxed().shared()
        };
        all.entry(name.clone()).or_insert_with(start).clone()
    }

    /// Fetches a block, or waits until another process has; it is in the cache then.
    async fn fetch(&self, block: u64) -> Result<Bytes, StoreError> {
        let (Inner { shared, .. }, name) = (&*self.0, self.name(block));
        let _permit = shared.now.acquire().await;
        let mut claim = None;
        while claim.is_none() {
            if let Some(content) = shared.cache.load(&name) {
                return Ok(content.into());
            }
            claim = shared.cache.claim(&name);
            if claim.is_none() {
                tokio::time::sleep(LOOK).await;
            }
        }
        let content = self.get(self.range(block)).await?;
        let (cache, kept) = (Arc::clone(&shared.cache), content.clone());
        let put = tokio::task::spawn_blocking(move || cache.put(&name, &kept)).await;
        put.expect("writing does not panic")
            .map_err(|error| StoreError::Cache { folder: shared.options.folder.clone(), error })?;
        Ok(content)
    }

    /// Asks for some bytes until they come, all of them, or for as long as it may take.
    async fn get(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let Inner { url, meta, client, shared, .. } = &*self.0;
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
            // The library has tried for as long as it may.
            let answer = client
                .get_opts(&meta.location, options)
                .await
                .map_err(|e| shared.options.gone(url, Some(&range), &e))?;
            if self.has_changed(&answer.meta) {
                return Err(StoreError::Changed { what: what(url, Some(&range)) });
            }
            let length = (range.end - range.start) as usize;
            let error = match body(answer, length).await {
                Ok(bytes) if bytes.len() == length => return Ok(bytes),
                Ok(bytes) => object_store::Error::Generic {
                    store: "store",
                    source: format!("{} bytes came, expected {length}", bytes.len()).into(),
                },
                Err(error) => error,
            };
            if began.elapsed() > shared.options.patience {
                return Err(shared.options.gone(url, Some(&range), &error));
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Whether the object is another now. Times of lists are finer than those of answers.
    fn has_changed(&self, now: &ObjectMeta) -> bool {
        let then = &self.0.meta;
        let is_other = match (&then.e_tag, &now.e_tag) {
            (Some(then), Some(now)) => then != now,
            _ => then.last_modified.timestamp() != now.last_modified.timestamp(),
        };
        is_other || then.size != now.size
    }
}

/// What an answer holds, until it is longer than it should be.
async fn body(answer: GetResult, length: usize) -> object_store::Result<Bytes> {
    let (mut parts, mut all) = (answer.into_stream(), Vec::with_capacity(length));
    while let Some(part) = parts.try_next().await?
        && all.len() <= length
    {
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}
