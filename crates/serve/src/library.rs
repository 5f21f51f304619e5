//! The pictures of a folder and their index, which is brought up to date in the background while it is searched.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use anyhow::{Context, Result};
use serde::Serialize;
use simla::tasks::kept::Kept;
use simla::tasks::search::{Seen, views};
use simla_data::Entry;
use simla_run::collection::{Collection, changed, kept_by, picture};
use simla_run::console::in_full;
use simla_run::progress::{NAMED, Progress, say_broken};
use simla_search::{Hit, Index, Item};

use crate::engine::Engine;
use crate::pictures::unusable;
use crate::refusal::Refusal;

/// Pictures that the model looks at in one turn: others wait no longer than that.
const TURN: usize = 4;
/// Pictures that go to the disk together at first, so that something is found soon; later more do.
const FIRST: usize = 16;

/// A number that stands for a picture, of its name: stays the same as long as the name does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u64);

impl Id {
    pub fn of(name: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(name.as_bytes()).as_bytes();
        Self(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// The number that such digits stand for.
    pub fn parse(digits: &str) -> Option<Self> {
        let digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        (digits.len() == 16 && digits.bytes().all(digit)).then(|| u64::from_str_radix(digits, 16).ok().map(Self))?
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which pictures are wanted.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// A folder, with those in it; empty for all.
    pub folder: String,
    /// Seconds after 1970 in which the file was changed, the first and the one after the last.
    pub from: Option<u64>,
    pub until: Option<u64>,
}

impl Filter {
    /// Whether all pictures are wanted.
    pub fn is_open(&self) -> bool {
        self.folder.is_empty() && self.from.is_none() && self.until.is_none()
    }

    pub fn takes(&self, name: &str, stamp: &str) -> bool {
        let inside =
            self.folder.is_empty() || name.strip_prefix(self.folder.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let when = changed(stamp).unwrap_or_default();
        inside && self.from.is_none_or(|from| when >= from) && self.until.is_none_or(|until| when < until)
    }
}

/// How far the index is.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Indexing {
    /// Whether pictures are being indexed now.
    pub running: bool,
    /// Pictures that were embedded or could not be used, of all that were new or had changed.
    pub done: usize,
    pub all: usize,
    /// Pictures that cannot be used.
    pub unusable: usize,
    /// Why, of the first few.
    pub first_unusable: Vec<String>,
    /// Why indexing ended before its time.
    pub error: Option<String>,
}

/// A folder of pictures with its index.
pub struct Library {
    folder: PathBuf,
    index: RwLock<Index>,
    kept: Kept,
    /// Values of a patch.
    width: usize,
    ids: RwLock<HashMap<Id, String>>,
    indexing: Mutex<Indexing>,
    /// Whether somebody wants the folder to be looked through again.
    again: Mutex<bool>,
    wake: Condvar,
    stop: AtomicBool,
}

impl Library {
    /// A folder with its open index, as it is now; a patch has `width` values.
    pub fn new(folder: &Path, index: Index, width: usize) -> Self {
        let ids = index.items().map(|(name, _)| (Id::of(name), name.to_owned())).collect();
        Self {
            folder: folder.into(),
            kept: kept_by(index.contents()),
            index: RwLock::new(index),
            width,
            ids: RwLock::new(ids),
            indexing: Mutex::new(Indexing { running: true, ..Indexing::default() }),
            again: Mutex::new(true),
            wake: Condvar::new(),
            stop: AtomicBool::new(false),
        }
    }

    /// The index, to be searched.
    pub fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a picture of the index.
    pub fn name(&self, id: Id) -> Option<String> {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The file of a picture of the index.
    pub fn entry(&self, name: &str) -> Entry {
        picture(&self.folder.join(name))
    }

    /// Reads the file of a picture of the index.
    ///
    /// # Errors
    /// If it cannot be read; nothing is said of where the folder is.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        self.entry(name).read_image(&mut bytes).map_err(|error| unusable(self.inside(error)))?;
        Ok(bytes)
    }

    /// The words of an error, with paths as they are in the folder.
    fn inside(&self, error: impl std::fmt::Display) -> String {
        error.to_string().replace(&format!("{}/", self.folder.display()), "")
    }

    /// How far the index is.
    pub fn indexing(&self) -> Indexing {
        self.indexing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The nearest pictures of those that are wanted, `skip` of them left out, with their stamps, and what the matching needs of the
    /// first `matched`.
    ///
    /// # Errors
    /// If the index cannot be searched.
    pub fn nearest(&self, feature: &[f32], want: &Near) -> Result<Nearest, Refusal> {
        let index = self.index();
        let count = want.skip + want.top + usize::from(want.except.is_some());
        let mut hits = match want.filter.is_open() {
            true => index.nearest(feature, count, want.exact).map_err(Refusal::server)?,
            false => index.nearest_among(feature, count, |name, stamp| want.filter.takes(name, stamp)),
        };
        hits.retain(|hit| want.except.as_ref() != Some(&hit.name));
        hits.truncate(want.skip + want.top);
        let hits = hits.split_off(want.skip.min(hits.len()));
        let unpacked = |hit: &Hit| self.kept.unpack(index.payload(hit), self.width);
        let patches = hits.iter().take(want.matched).map(unpacked).collect();
        Ok(Nearest { hits, patches, searched: index.len() })
    }

    /// When the file of a picture was changed, in seconds after 1970.
    pub fn date(&self, name: &str) -> Option<u64> {
        self.index().stamp(name).and_then(changed)
    }

    /// Pictures that are wanted, the newest first: how many, and the names of `top` after `skip`.
    pub fn newest(&self, filter: &Filter, skip: usize, top: usize) -> (usize, Vec<String>) {
        let index = self.index();
        let wanted = index.items().filter(|(name, stamp)| filter.takes(name, stamp));
        let mut all: Vec<(u64, &str)> =
            wanted.map(|(name, stamp)| (changed(stamp).unwrap_or_default(), name)).collect();
        all.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        (all.len(), all.iter().skip(skip).take(top).map(|(_, name)| (*name).to_owned()).collect())
    }

    /// The folders with pictures, each with how many are in it and below.
    pub fn folders(&self) -> BTreeMap<String, usize> {
        let mut folders = BTreeMap::new();
        for (name, _) in self.index().items() {
            for (end, _) in name.match_indices('/') {
                *folders.entry(name[..end].to_owned()).or_insert(0) += 1;
            }
        }
        folders
    }

    /// Has the folder looked through again.
    pub fn look_again(&self) {
        *self.again.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    /// Ends [`Library::keep_current`] after the pictures that it has in hand.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake.notify_all();
    }

    /// Brings the index up to date, and again whenever that is asked for, until it is stopped. For a thread of its own.
    pub fn keep_current(self: Arc<Self>, engine: &Engine, side: usize) {
        loop {
            {
                let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
                while !*again && !self.stopped() {
                    again = self.wake.wait(again).unwrap_or_else(PoisonError::into_inner);
                }
                *again = false;
            }
            if self.stopped() {
                return;
            }
            self.tell(|indexing| *indexing = Indexing { running: true, ..Indexing::default() });
            let outcome = self.bring_up_to_date(engine, side);
            self.tell(|indexing| {
                indexing.running = false;
                indexing.error = outcome.as_ref().err().map(|error| self.inside(in_full(error)));
            });
            if let (Err(error), false) = (outcome, self.stopped()) {
                simla_run::say!("indexing: {}", in_full(&error));
            }
        }
    }

    fn bring_up_to_date(&self, engine: &Engine, side: usize) -> Result<()> {
        let collection = Collection::pictures(&self.folder)?;
        let missing = {
            let mut index = self.change();
            let missing = collection.missing(&mut index)?;
            let ids = index.items().map(|(name, _)| (Id::of(name), name.to_owned())).collect();
            *self.ids.write().unwrap_or_else(PoisonError::into_inner) = ids;
            missing
        };
        self.tell(|indexing| indexing.all = missing.len());
        let mut progress = Progress::patient("pictures", missing.len() as u64);
        let (mut broken, mut rest, mut chunk) = (Vec::new(), missing.as_slice(), FIRST);
        while !rest.is_empty() && !self.stopped() {
            let (now, later) = rest.split_at(chunk.min(rest.len()));
            (rest, chunk) = (later, (2 * chunk).min(self.index().piece()));
            let mut rows = Vec::with_capacity(now.len());
            for few in now.chunks(TURN) {
                let items: Vec<&Item> = few.iter().map(|&at| collection.item(at)).collect();
                let entries: Vec<Entry> = items.iter().map(|item| self.entry(&item.name)).collect();
                let (mut usable, mut pixels) = (vec![], vec![]);
                for (item, view) in items.into_iter().zip(views(&entries, side)) {
                    match view {
                        Ok(view) => {
                            usable.push(item);
                            pixels.push(view);
                        }
                        Err(error) => broken.push(self.inside(error)),
                    }
                }
                let seen = engine.index(pixels).map_err(|refusal| anyhow::anyhow!(refusal.message))?;
                let row = |(item, seen): (&Item, Seen)| {
                    (item.clone(), seen.feature, self.kept.pack(seen.patches, self.width))
                };
                rows.extend(usable.into_iter().zip(seen).map(row));
            }
            let names: Vec<String> = rows.iter().map(|(item, ..)| item.name.clone()).collect();
            self.change().add(rows)?;
            let ids = names.into_iter().map(|name| (Id::of(&name), name));
            self.ids.write().unwrap_or_else(PoisonError::into_inner).extend(ids);
            let done = missing.len() - rest.len();
            progress.set(done as u64, String::new);
            self.tell(|indexing| {
                indexing.done = done;
                indexing.unusable = broken.len();
                indexing.first_unusable = broken.iter().take(NAMED).cloned().collect();
            });
        }
        drop(progress);
        say_broken(&broken, "pictures");
        // Searches go on while the graph is written.
        self.change().shrink()?;
        let draft = self.index().draft()?;
        if let Some(draft) = draft {
            self.change().adopt(draft).context("the index")?;
        }
        Ok(())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn tell(&self, what: impl FnOnce(&mut Indexing)) {
        what(&mut self.indexing.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What of the index is wanted.
#[derive(Debug, Clone, Default)]
pub struct Near {
    pub filter: Filter,
    /// A picture that is not wanted: the query itself.
    pub except: Option<String>,
    pub skip: usize,
    pub top: usize,
    /// Of so many, the patches too.
    pub matched: usize,
    pub exact: bool,
}

/// What is near.
pub struct Nearest {
    pub hits: Vec<Hit>,
    /// None where the index keeps none.
    pub patches: Option<Vec<Vec<u8>>>,
    /// Pictures in the index.
    pub searched: usize,
}
