//! The index: which items there are, where their rows lie, and how both change together.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use simla_files::{UNFINISHED, write_atomically};

use crate::error::SearchError;
use crate::graph::Graph;
use crate::rows::{self, Rows};

const MANIFEST: &str = "index.json";
const LOCK: &str = "lock";
const ROWS: &str = "rows-";
const GRAPH: &str = "graph-";

/// What an index is of. Another one is refused: its features would mean something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// What the items are: "pictures", say.
    pub what: String,
    /// Identity of the model that made the features, a checksum of its weights.
    pub model: String,
    /// Values of a feature.
    pub features: usize,
    /// Bytes of a payload.
    pub payload: usize,
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        const SHOWN: usize = 10;
        let model: String = self.model.chars().take(SHOWN).collect();
        write!(f, "{} as seen by model {model} ({} features)", self.what, self.features)
    }
}

/// A thing that can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Names are distinct.
    pub name: String,
    /// Differs when the thing has changed.
    pub stamp: String,
}

/// A thing that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The item's name.
    pub name: String,
    /// Product of its feature with the query's, -1 to 1.
    pub similarity: f32,
    key: u64,
}

/// A graph that is on the disk, but not yet the index's.
pub struct Draft {
    /// Where it had to be made.
    made: Option<Graph>,
    file: u32,
    checksum: String,
}

/// Where an item's row is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    stamp: String,
    file: u32,
    row: u32,
}

impl Place {
    /// Never used twice, since numbers of files are not.
    fn key(&self) -> u64 {
        u64::from(self.file) << 32 | u64::from(self.row)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    contents: Contents,
    /// Number of the next file.
    next: u32,
    items: BTreeMap<String, Place>,
    /// Files of rows: number and count.
    rows: BTreeMap<u32, u32>,
    /// Number and checksum; none while items are added.
    graph: Option<(u32, String)>,
}

impl Manifest {
    fn new(contents: Contents) -> Self {
        Self { contents, next: 0, items: BTreeMap::new(), rows: BTreeMap::new(), graph: None }
    }
}

/// An open index. No other process opens it meanwhile.
pub struct Index {
    folder: PathBuf,
    manifest: Manifest,
    rows: BTreeMap<u32, Rows>,
    /// Of all items; none where it has to be made anew.
    graph: Option<Graph>,
    /// Name of each key.
    names: HashMap<u64, String>,
    changed: bool,
    _lock: File,
}

impl Index {
    /// Opens the index in `folder`; where there is none, begins one.
    ///
    /// # Errors
    /// If it is of other `contents`, damaged, in use, or a folder of other things: it is left as it was.
    pub fn open(folder: &Path, contents: Contents) -> Result<Self, SearchError> {
        let path = folder.join(MANIFEST);
        if !path.exists() {
            claim(folder)?;
        }
        let lock = lock(folder)?;
        let manifest = match path.exists() {
            true => read(&path, &contents)?,
            false => Manifest::new(contents),
        };
        let (features, payload) = (manifest.contents.features, manifest.contents.payload);
        let mut rows = BTreeMap::new();
        for (&file, &count) in &manifest.rows {
            let open = Rows::open(&folder.join(rows_name(file)), count.into(), features, payload);
            rows.insert(file, open?);
        }
        // A graph that cannot be read is made anew: all that is in it is in the rows.
        let read = manifest
            .graph
            .as_ref()
            .and_then(|(file, checksum)| Graph::open(&folder.join(graph_name(*file)), features, checksum).ok());
        let changed = read.is_none();
        let graph = match read {
            // That of nothing grows with what is added.
            None if manifest.items.is_empty() => {
                Some(Graph::new(features).map_err(|reason| graph_error(folder, reason))?)
            }
            read => read,
        };
        let names = manifest.items.iter().map(|(name, place)| (place.key(), name.clone())).collect();
        Ok(Self { folder: folder.into(), changed, manifest, rows, graph, names, _lock: lock })
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.manifest.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.manifest.items.is_empty()
    }

    /// Forgets items that are not among `found`, or have changed. Returns the positions of those of `found` that have to be
    /// added. On disk from the next [`Index::add`] or [`Index::commit`] on.
    ///
    /// # Errors
    /// If the graph cannot be changed.
    pub fn keep(&mut self, found: &[Item]) -> Result<Vec<usize>, SearchError> {
        let stamps: HashMap<&str, &str> = found.iter().map(|item| (item.name.as_str(), item.stamp.as_str())).collect();
        let mut gone = Vec::new();
        self.manifest.items.retain(|name, place| {
            let stays = stamps.get(name.as_str()) == Some(&place.stamp.as_str());
            if !stays {
                gone.push(place.key());
            }
            stays
        });
        for key in gone {
            self.changed = true;
            self.names.remove(&key);
            if let Some(graph) = &self.graph {
                let removed = graph.remove(key);
                removed.map_err(|reason| graph_error(&self.folder, reason))?;
            }
        }
        let known = |item: &Item| self.manifest.items.contains_key(&item.name);
        Ok((0..found.len()).filter(|&i| !known(&found[i])).collect())
    }

    /// How many items to add at a time. What is added in one piece is lost where the program is ended meanwhile, and held in memory; but
    /// each piece writes the names of all items once more, so that a large index grows by larger pieces.
    pub fn piece(&self) -> usize {
        const LEAST: usize = 128;
        const SHARE: usize = 50; // of what is there
        const BYTES: usize = 256 << 20;
        let Contents { features, payload, .. } = self.manifest.contents;
        (self.len() / SHARE).min(BYTES / (4 * features + payload)).max(LEAST)
    }

    /// Adds items with their features and payloads; they are on the disk when this returns.
    ///
    /// # Errors
    /// What the system said; the index is then as it was before.
    ///
    /// # Panics
    /// If a feature or a payload is not as long as the contents say.
    pub fn add(&mut self, added: Vec<(Item, Vec<f32>, Vec<u8>)>) -> Result<(), SearchError> {
        let contents = &self.manifest.contents;
        let fits = |(_, feature, payload): &(Item, Vec<f32>, Vec<u8>)| {
            feature.len() == contents.features && payload.len() == contents.payload
        };
        assert!(added.iter().all(fits), "rows as long as the contents say");
        if added.is_empty() {
            return Ok(());
        }
        let rows = added.iter().map(|(_, feature, payload)| (feature.as_slice(), payload.as_slice()));
        let file = write_rows(&self.folder, &mut self.manifest, rows)?;
        let count = self.manifest.rows[&file];
        let path = self.folder.join(rows_name(file));
        let contents = &self.manifest.contents;
        let open = Rows::open(&path, count.into(), contents.features, contents.payload)?;
        self.rows.insert(file, open);
        for ((item, feature, _), row) in added.into_iter().zip(0..) {
            let place = Place { stamp: item.stamp, file, row };
            if let Some(graph) = &self.graph {
                let added = graph.add(place.key(), &feature);
                added.map_err(|reason| graph_error(&self.folder, reason))?;
            }
            self.names.insert(place.key(), item.name.clone());
            self.manifest.items.insert(item.name, place);
        }
        self.changed = true;
        // Where this is the last thing that happens, the graph is made anew next time.
        self.manifest.graph = None;
        self.write()
    }

    /// Brings the graph up to date, gives back the room of forgotten items, and puts all of it on the disk. Nothing is written
    /// where nothing has changed.
    ///
    /// What searches meanwhile does the same in three steps, of which the long one needs no index of its own: [`Index::shrink`],
    /// [`Index::draft`], [`Index::adopt`].
    ///
    /// # Errors
    /// What the system said; the index is then as it was before.
    pub fn commit(&mut self) -> Result<(), SearchError> {
        self.shrink()?;
        match self.draft()? {
            Some(draft) => self.adopt(draft),
            None => Ok(()),
        }
    }

    /// Gives back the room of forgotten items where it is much: the first step of [`Index::commit`].
    ///
    /// # Errors
    /// What the system said; the index is then as it was before.
    pub fn shrink(&mut self) -> Result<(), SearchError> {
        if !self.changed {
            return Ok(());
        }
        let live: BTreeSet<u32> = self.manifest.items.values().map(|place| place.file).collect();
        self.manifest.rows.retain(|file, _| live.contains(file));
        self.rows.retain(|file, _| live.contains(file));
        let all: usize = self.manifest.rows.values().map(|&count| count as usize).sum();
        if all > 2 * self.len() {
            self.compact()?;
        }
        Ok(())
    }

    /// Writes the graph of all items, which is made where there is none: the second step of [`Index::commit`], and the long one. None
    /// where nothing has changed. The index must not be changed until it is adopted.
    ///
    /// # Errors
    /// What the system said.
    pub fn draft(&self) -> Result<Option<Draft>, SearchError> {
        if !self.changed {
            return Ok(None);
        }
        let made = match self.graph {
            Some(_) => None,
            None => Some(self.graph_of_rows().map_err(|reason| graph_error(&self.folder, reason))?),
        };
        let graph = made.as_ref().or(self.graph.as_ref()).expect("one of them");
        let file = self.manifest.next;
        let checksum = graph.save(&self.folder.join(graph_name(file)))?;
        Ok(Some(Draft { made, file, checksum }))
    }

    /// Takes a graph that was written, the last step of [`Index::commit`].
    ///
    /// # Errors
    /// What the system said; on disk, the index is then as it was before.
    ///
    /// # Panics
    /// If the index was changed since the draft.
    pub fn adopt(&mut self, draft: Draft) -> Result<(), SearchError> {
        assert_eq!(draft.file, self.manifest.next, "an index that was not changed since the draft");
        self.manifest.next += 1;
        self.manifest.graph = Some((draft.file, draft.checksum));
        if let Some(made) = draft.made {
            self.graph = Some(made);
        }
        self.write()?;
        self.changed = false;
        self.sweep()
    }

    fn graph_of_rows(&self) -> Result<Graph, String> {
        let graph = Graph::new(self.manifest.contents.features)?;
        for place in self.manifest.items.values() {
            graph.add(place.key(), &self.rows[&place.file].feature(place.row.into()))?;
        }
        Ok(graph)
    }

    /// What the index in `folder` is of, where there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn contents_of(folder: &Path) -> Result<Option<Contents>, SearchError> {
        let path = folder.join(MANIFEST);
        path.exists().then(|| Ok(manifest(&path)?.contents)).transpose()
    }

    /// What it is of.
    pub fn contents(&self) -> &Contents {
        &self.manifest.contents
    }

    /// The items, by name.
    pub fn items(&self) -> impl Iterator<Item = (&str, &str)> {
        self.manifest.items.iter().map(|(name, place)| (name.as_str(), place.stamp.as_str()))
    }

    /// The stamp of an item.
    pub fn stamp(&self, name: &str) -> Option<&str> {
        Some(self.manifest.items.get(name)?.stamp.as_str())
    }

    /// The feature of an item.
    pub fn feature(&self, name: &str) -> Option<Vec<f32>> {
        let place = self.manifest.items.get(name)?;
        Some(self.rows[&place.file].feature(place.row.into()))
    }

    /// The `n` items nearest to a feature of length one, nearest first: of all (`exact`), or by the graph, which may miss one.
    /// Call [`Index::commit`] after changes.
    ///
    /// # Errors
    /// If the graph cannot be searched.
    pub fn nearest(&self, feature: &[f32], n: usize, exact: bool) -> Result<Vec<Hit>, SearchError> {
        let found = match &self.graph {
            Some(graph) if !exact => graph.nearest(feature, n).map_err(|reason| graph_error(&self.folder, reason))?,
            _ => self.scan(feature, n, |_, _| true),
        };
        Ok(self.hits(found))
    }

    /// The `n` nearest, of those items alone whose name and stamp are `among` what is wanted.
    pub fn nearest_among(&self, feature: &[f32], n: usize, among: impl Fn(&str, &str) -> bool) -> Vec<Hit> {
        self.hits(self.scan(feature, n, among))
    }

    fn hits(&self, found: Vec<(u64, f32)>) -> Vec<Hit> {
        let hit = |(key, similarity): (u64, f32)| {
            let name = self.names.get(&key)?.clone();
            Some(Hit { name, similarity, key })
        };
        found.into_iter().filter_map(hit).collect()
    }

    fn scan(&self, feature: &[f32], n: usize, among: impl Fn(&str, &str) -> bool) -> Vec<(u64, f32)> {
        let items = self.manifest.items.iter().filter(|(name, place)| among(name, &place.stamp));
        let product = |place: &Place| self.rows[&place.file].product(place.row.into(), feature);
        let mut all: Vec<(u64, f32)> = items.map(|(_, place)| (place.key(), product(place))).collect();
        let nearer = |a: &(u64, f32), b: &(u64, f32)| b.1.total_cmp(&a.1);
        if (1..all.len()).contains(&n) {
            all.select_nth_unstable_by(n - 1, nearer);
        }
        all.truncate(n);
        all.sort_by(nearer);
        all
    }

    /// The payload of an item that was found.
    pub fn payload(&self, hit: &Hit) -> &[u8] {
        self.rows[&((hit.key >> 32) as u32)].payload(hit.key & u64::from(u32::MAX))
    }

    /// Copies the rows that are still of use into one file.
    fn compact(&mut self) -> Result<(), SearchError> {
        let old: Vec<Place> = self.manifest.items.values().cloned().collect();
        let kept: Vec<(Vec<f32>, &[u8])> = old
            .iter()
            .map(|place| {
                let rows = &self.rows[&place.file];
                (rows.feature(place.row.into()), rows.payload(place.row.into()))
            })
            .collect();
        let rows = kept.iter().map(|(feature, payload)| (feature.as_slice(), *payload));
        let file = write_rows(&self.folder, &mut self.manifest, rows)?;
        let contents = &self.manifest.contents;
        let count = old.len() as u32;
        let open = Rows::open(&self.folder.join(rows_name(file)), count.into(), contents.features, contents.payload)?;
        self.rows = BTreeMap::from([(file, open)]);
        self.manifest.rows = BTreeMap::from([(file, count)]);
        for (place, row) in self.manifest.items.values_mut().zip(0..) {
            (place.file, place.row) = (file, row);
        }
        let items = self.manifest.items.iter();
        self.names = items.map(|(name, place)| (place.key(), name.clone())).collect();
        self.graph = None;
        Ok(())
    }

    fn write(&self) -> Result<(), SearchError> {
        let path = self.folder.join(MANIFEST);
        let text = serde_json::to_vec(&self.manifest).expect("a manifest is JSON");
        write_atomically(&path, &text).map_err(SearchError::io(&path))
    }

    /// Removes files that the index no longer names, and what an interrupted process left.
    fn sweep(&self) -> Result<(), SearchError> {
        let mut named: Vec<String> = self.manifest.rows.keys().map(|file| rows_name(*file)).collect();
        named.extend(self.manifest.graph.iter().map(|(file, _)| graph_name(*file)));
        for name in names(&self.folder)? {
            if is_ours(&name) && name != MANIFEST && name != LOCK && !named.contains(&name) {
                let path = self.folder.join(name);
                fs::remove_file(&path).map_err(SearchError::io(&path))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "index of {} {} in {}", self.len(), self.manifest.contents, self.folder.display())
    }
}

fn rows_name(file: u32) -> String {
    format!("{ROWS}{file:08}")
}

fn graph_name(file: u32) -> String {
    format!("{GRAPH}{file:08}")
}

fn is_ours(name: &str) -> bool {
    [MANIFEST, LOCK].contains(&name) || [ROWS, GRAPH, UNFINISHED].iter().any(|start| name.starts_with(start))
}

fn names(folder: &Path) -> Result<Vec<String>, SearchError> {
    let list = || -> std::io::Result<Vec<String>> {
        let name = |entry: std::io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs::read_dir(folder)?.map(name).collect()
    };
    list().map_err(SearchError::io(folder))
}

fn graph_error(folder: &Path, reason: String) -> SearchError {
    SearchError::Graph { path: folder.into(), reason }
}

fn damaged(path: &Path, reason: String) -> SearchError {
    SearchError::Damaged { path: path.into(), reason }
}

fn manifest(path: &Path) -> Result<Manifest, SearchError> {
    let text = fs::read(path).map_err(SearchError::io(path))?;
    serde_json::from_slice(&text).map_err(|e| damaged(path, e.to_string()))
}

/// Reads a manifest and checks that it holds together.
fn read(path: &Path, expected: &Contents) -> Result<Manifest, SearchError> {
    let manifest = manifest(path)?;
    if manifest.contents != *expected {
        return Err(SearchError::Other {
            path: path.parent().unwrap_or(path).into(),
            found: Box::new(manifest.contents),
            expected: Box::new(expected.clone()),
        });
    }
    for (name, place) in &manifest.items {
        if manifest.rows.get(&place.file).is_none_or(|count| place.row >= *count) {
            return Err(damaged(path, format!("no row for `{name}`")));
        }
    }
    Ok(manifest)
}

/// Makes the folder of a new index, in which nothing else may be.
fn claim(folder: &Path) -> Result<(), SearchError> {
    fs::create_dir_all(folder).map_err(SearchError::io(folder))?;
    match names(folder)?.into_iter().find(|name| !is_ours(name)) {
        None => Ok(()),
        Some(found) => Err(SearchError::NotAnIndex { path: folder.into(), found }),
    }
}

fn lock(folder: &Path) -> Result<File, SearchError> {
    let path = folder.join(LOCK);
    let file = File::create(&path).map_err(SearchError::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SearchError::Busy { path: folder.into() }),
        Err(TryLockError::Error(source)) => Err(SearchError::Io { path, source }),
    }
}

/// Writes rows under the next number.
fn write_rows<'a>(
    folder: &Path,
    manifest: &mut Manifest,
    of: impl ExactSizeIterator<Item = (&'a [f32], &'a [u8])>,
) -> Result<u32, SearchError> {
    let (file, count) = (manifest.next, of.len() as u32);
    rows::write(&folder.join(rows_name(file)), of)?;
    manifest.next += 1;
    manifest.rows.insert(file, count);
    Ok(file)
}
