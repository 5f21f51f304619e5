//! Objects on S3, Google Cloud Storage, Azure and web servers, read by range.
//!
//! - An [`Object`] is read in blocks, from any thread. Blocks are kept in a cache on disk, of bounded size, which all processes of a machine
//!   share; the next ones are fetched ahead.
//! - What fails is tried again for as long as [`Options::patience`] says: requests by `object_store`, bodies that are cut off here.
//! - What is really gone is an error that names the object, the bytes, what happened and what to check. It is remembered
//!   ([`Store::failure`]): whoever passes over broken records asks whether they were broken or not reached.
//! - Credentials come from the environment alone, by the names that each service's own tools know, and stand in no message.

#![warn(missing_docs, unreachable_pub)]

mod cache;
mod client;
mod error;
mod object;
mod options;

use std::future::Future;
use std::sync::{Arc, LazyLock, OnceLock, mpsc};

use futures_util::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::{Builder, Runtime};

use cache::Cache;
use client::Clients;
use object::Shared;

pub use client::{check, is_url};
pub use error::StoreError;
pub use object::Object;
pub use options::Options;

/// Objects that are asked for at the same time.
const ASKED_TOGETHER: usize = 32;
/// Threads that talk to servers. Nothing waits on them but for the network.
const THREADS: usize = 2;

/// Where objects are found and read.
#[derive(Clone, Debug)]
pub struct Store {
    clients: Arc<Clients>,
    shared: Arc<Shared>,
}

impl Store {
    /// Opens the cache; no server is asked yet.
    ///
    /// # Errors
    /// A cache that cannot be written.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let cache = Cache::open(&options.folder, options.bytes)
            .map_err(|error| StoreError::Cache { folder: options.folder.clone(), error })?;
        Ok(Self { clients: Arc::new(Clients::new(&options)), shared: Arc::new(Shared::new(options, cache)) })
    }

    /// The objects at these addresses.
    ///
    /// # Errors
    /// One that is not there, or whose server cannot be reached.
    pub fn objects(&self, urls: &[String]) -> Result<Vec<Object>, StoreError> {
        let mut asked = Vec::with_capacity(urls.len());
        for url in urls {
            let (client, location) = self.clients.of(url)?;
            let (url, shared) = (url.clone(), Arc::clone(&self.shared));
            asked.push(async move {
                let meta = client.head(&location).await.map_err(|error| shared.options.gone(&url, None, &error))?;
                Ok(Object::new(url, meta, client, shared))
            });
        }
        wait(futures_util::stream::iter(asked).buffered(ASKED_TOGETHER).try_collect())
    }

    /// All objects below an address, with the rest of their names, in no order.
    ///
    /// # Errors
    /// A server that cannot be reached, or that gives no lists.
    pub fn below(&self, url: &str) -> Result<Vec<(String, Object)>, StoreError> {
        let (client, prefix) = self.clients.of(url)?;
        let (asked, within) = (Arc::clone(&client), prefix.clone());
        let found: Result<Vec<ObjectMeta>, _> = wait(async move { asked.list(Some(&within)).try_collect().await });
        let found = found.map_err(|error| self.shared.options.gone(url, None, &error))?;
        let object = |meta: ObjectMeta| {
            let rest: Vec<_> = meta.location.prefix_match(&prefix)?.map(|part| part.as_ref().to_owned()).collect();
            let name = rest.join("/");
            let url = format!("{}/{name}", url.trim_end_matches('/'));
            Some((name, Object::new(url, meta, Arc::clone(&client), Arc::clone(&self.shared))))
        };
        Ok(found.into_iter().filter_map(object).collect())
    }

    /// Why an object could not be read, if ever one could not.
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// The bytes that the cache may have.
    pub fn cache_bytes(&self) -> u64 {
        self.shared.options.bytes
    }
}

/// Of all stores of this process.
static FAILURE: OnceLock<String> = OnceLock::new();

/// Why an object of any store of this process could not be read, if ever one could not: what was made since is made of fewer records.
pub fn failure() -> Option<&'static str> {
    FAILURE.get().map(String::as_str)
}

/// The threads that talk to servers.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let threads = Builder::new_multi_thread().worker_threads(THREADS).thread_name("simla-store").enable_all().build();
    threads.expect("the system gives a process two threads more")
});

/// Waits for what the runtime's threads do, on any other thread.
fn wait<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let (done, result) = mpsc::sync_channel(1);
    RUNTIME.spawn(async move {
        let _ = done.send(work.await); // somebody waits
    });
    result.recv().expect("work for a server does not panic")
}
