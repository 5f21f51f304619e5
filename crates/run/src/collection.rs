//! What a search goes through: the pictures of a folder, or the captions of a data file, and their index.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use simla::tasks::pretrain::Model;
use simla::tasks::search::{caption_features, patch_bytes, see};
use simla_data::record::Location;
use simla_data::sources::{IMAGE_ENDINGS, walk};
use simla_data::{Dataset, Entry, quoted};
use simla_search::{Contents, Index, Item};

use crate::output::files_of;
use crate::progress::{Progress, say_broken};
use crate::say;
use crate::sources::open_data;

/// Items that are embedded before they are put on the disk: so many are lost where the program is ended.
const CHUNK: usize = 128;

/// Where the items are.
enum Source {
    /// The folder that names of pictures are relative to.
    Pictures(PathBuf),
    /// The record of each caption.
    Captions(Dataset, HashMap<String, u64>),
}

/// The items that are there now.
pub struct Collection {
    source: Source,
    items: Vec<Item>,
}

impl Collection {
    /// All pictures under `folder`, as `--data` finds them.
    pub fn pictures(folder: &Path) -> Result<Self> {
        let walked = walk(folder, usize::MAX).with_context(|| format!("{}", quoted(folder.display())))?;
        let mut items = Vec::new();
        for path in &walked.pictures {
            // A link to nothing is missed when it is opened, like a picture that went meanwhile.
            let about = folder.join(path).metadata();
            let changed = about.as_ref().ok().and_then(|about| about.modified().ok()?.duration_since(UNIX_EPOCH).ok());
            let Some(name) = path.to_str() else {
                say!("{}: left out, its name is not UTF-8", quoted(folder.join(path).display()));
                continue;
            };
            let bytes = about.map_or(0, |about| about.len());
            items
                .push(Item { name: name.into(), stamp: format!("{bytes} {}", changed.unwrap_or_default().as_nanos()) });
        }
        if !walked.unread.is_empty() {
            say!("{}: files that are no picture: {}", quoted(folder.display()), walked.unread);
        }
        if items.is_empty() {
            bail!(
                "{}: no pictures in here (expected files that end in {})",
                quoted(folder.display()),
                IMAGE_ENDINGS.map(|ending| format!(".{ending}")).join(", ")
            );
        }
        Ok(Self { source: Source::Pictures(folder.into()), items })
    }

    /// All different captions of a data file.
    pub fn captions(data: &str, image_root: Option<&Path>) -> Result<Self> {
        let dataset = open_data(&[data.to_owned()], image_root, 1.0)?;
        let mut records = HashMap::new();
        let mut items = Vec::new();
        for record in 0..dataset.len() {
            for caption in dataset.entry(record).map(|entry| entry.captions).unwrap_or_default() {
                if records.insert(caption.clone(), record).is_none() {
                    items.push(Item { name: caption, stamp: String::new() });
                }
            }
        }
        if items.is_empty() {
            bail!("{data}: no captions in here");
        }
        Ok(Self { source: Source::Captions(dataset, records), items })
    }

    /// The files that it is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.source {
            Source::Pictures(folder) => self.items.iter().map(|item| folder.join(&item.name)).collect(),
            Source::Captions(dataset, _) => files_of(dataset),
        }
    }

    /// Whether the items are pictures; else they are captions.
    pub fn is_pictures(&self) -> bool {
        matches!(self.source, Source::Pictures(_))
    }

    /// The picture that an item is, or that it belongs to.
    pub fn picture(&self, name: &str) -> Result<Entry> {
        Ok(match &self.source {
            Source::Pictures(folder) => picture(&folder.join(name)),
            Source::Captions(dataset, records) => dataset.entry(records[name])?,
        })
    }

    /// Opens the index in `folder` and brings it up to date: what is new or has changed is embedded, what is gone is forgotten. Also
    /// how many were embedded.
    pub fn index(&self, folder: &Path, model: &Model, max_tokens: usize) -> Result<(Index, usize)> {
        let config = &model.simla.config;
        let (what, payload) = match self.source {
            Source::Pictures(_) => ("pictures", patch_bytes(config)),
            Source::Captions(..) => ("captions", 0),
        };
        let contents = Contents {
            what: what.into(),
            model: model.checkpoint.fingerprint().into(),
            features: config.embed_dim as usize,
            payload,
        };
        let mut index = Index::open(folder, contents)?;
        let missing = index.keep(&self.items)?;
        if !missing.is_empty() {
            // A feature of f32, and what matching needs.
            let each = 4.0 * config.embed_dim as f64 + payload as f64;
            say!(
                "{} {what} to embed: {:.1} MB of index, {:.1} KB each",
                missing.len(),
                each * missing.len() as f64 / 1e6,
                each / 1e3
            );
        }
        let mut unusable = Vec::new();
        let mut progress = None;
        for (nth, chunk) in missing.chunks(CHUNK).enumerate() {
            let items: Vec<Item> = chunk.iter().map(|&i| self.items[i].clone()).collect();
            let mut rows = Vec::with_capacity(items.len());
            if self.is_pictures() {
                let entries = items.iter().map(|item| self.picture(&item.name));
                let seen = see(&model.simla, &entries.collect::<Result<Vec<_>>>()?)?;
                for (item, seen) in items.into_iter().zip(seen) {
                    match seen {
                        Ok(seen) => rows.push((item, seen.feature, seen.patches)),
                        Err(error) => unusable.push(error),
                    }
                }
            } else {
                let encode = |item: &Item| model.vocabulary.encode(&item.name, max_tokens);
                let ids: Vec<Vec<i64>> = items.iter().map(encode).collect();
                let features = caption_features(&model.simla, &ids)?;
                let row = |(item, feature)| (item, feature, vec![]);
                rows.extend(items.into_iter().zip(features).map(row));
            }
            index.add(rows)?;
            progress
                .get_or_insert_with(|| Progress::new(what, 0, missing.len() as u64))
                .set((nth * CHUNK + chunk.len()) as u64, String::new);
        }
        drop(progress);
        index.commit()?;
        say_broken(&unusable, "pictures");
        if index.is_empty() {
            bail!("{}: none of the {} can be used", folder.display(), self.items.len());
        }
        Ok((index, missing.len() - unusable.len()))
    }
}

/// A picture file.
pub fn picture(path: &Path) -> Entry {
    Entry {
        image: Location::File(path.into()),
        captions: vec![],
        name: "picture".into(),
        image_id: 0,
        subcategory: None,
    }
}
