//! What a search goes through: the pictures of a folder, or the captions of a data file, and their index.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use simla::tasks::kept::Kept;
use simla::tasks::pretrain::Model;
use simla::tasks::search::{caption_features, see};
use simla_data::record::Location;
use simla_data::sources::{IMAGE_ENDINGS, walk};
use simla_data::{Dataset, Entry, quoted};
use simla_search::{Contents, Index, Item};

use crate::output::files_of;
use crate::progress::{Progress, say_broken};
use crate::say;
use crate::sources::open_data;

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
            items.push(Item { name: name.into(), stamp: stamp(bytes, changed.unwrap_or_default()) });
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

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item: never, where it was opened.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The item at a position.
    pub fn item(&self, at: usize) -> &Item {
        &self.items[at]
    }

    /// Opens the index in `folder` as it is. Of pictures it keeps what is asked for, or what it keeps already.
    ///
    /// # Errors
    /// If it is of other things or another model, keeps something else, is damaged, or in use.
    pub fn open(&self, folder: &Path, model: &Model, kept: Option<Kept>) -> Result<Index> {
        let (what, payload) = match self.source {
            Source::Captions(..) => (self.what().into(), 0),
            Source::Pictures(_) => {
                let kept = match kept {
                    Some(kept) => kept,
                    None => Index::contents_of(folder)?.map(|contents| kept_by(&contents)).unwrap_or_default(),
                };
                (pictures_keeping(kept), kept.bytes(&model.simla.config))
            }
        };
        let config = &model.simla.config;
        let (model, features) = (model.checkpoint.fingerprint().into(), config.embed_dim as usize);
        Ok(Index::open(folder, Contents { what, model, features, payload })?)
    }

    /// Forgets what is gone or has changed; positions of the items that have to be embedded.
    ///
    /// # Errors
    /// If the index cannot be changed.
    pub fn missing(&self, index: &mut Index) -> Result<Vec<usize>> {
        Ok(index.keep(&self.items)?)
    }

    /// Opens the index in `folder` and brings it up to date: what is new or has changed is embedded, what is gone is forgotten. Also
    /// how many were embedded.
    pub fn index(&self, folder: &Path, model: &Model, max_tokens: usize, kept: Option<Kept>) -> Result<(Index, usize)> {
        let mut index = self.open(folder, model, kept)?;
        let (kept, width) = (kept_by(index.contents()), model.simla.config.vision_width as usize);
        let missing = self.missing(&mut index)?;
        if !missing.is_empty() {
            // A feature of f32, and what matching needs.
            let Contents { features, payload, .. } = index.contents();
            let each = (4 * features + payload) as f64;
            say!(
                "{} {} to embed: {:.1} MB of index, {:.1} KB each{}",
                missing.len(),
                self.what(),
                each * missing.len() as f64 / 1e6,
                each / 1e3,
                if *payload > 0 && kept == Kept::Half { "; --patches makes it smaller" } else { "" }
            );
        }
        let mut unusable = Vec::new();
        let mut progress = None;
        let mut rest = missing.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(index.piece().min(rest.len()));
            rest = later;
            let items: Vec<Item> = now.iter().map(|&i| self.items[i].clone()).collect();
            let mut rows = Vec::with_capacity(items.len());
            if self.is_pictures() {
                let entries = items.iter().map(|item| self.picture(&item.name));
                let seen = see(&model.simla, &entries.collect::<Result<Vec<_>>>()?)?;
                for (item, seen) in items.into_iter().zip(seen) {
                    match seen {
                        Ok(seen) => rows.push((item, seen.feature, kept.pack(seen.patches, width))),
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
                .get_or_insert_with(|| Progress::new(self.what(), 0, missing.len() as u64))
                .set((missing.len() - rest.len()) as u64, String::new);
        }
        drop(progress);
        index.commit()?;
        say_broken(&unusable, "pictures");
        if index.is_empty() {
            bail!("{}: none of the {} can be used", folder.display(), self.items.len());
        }
        Ok((index, missing.len() - unusable.len()))
    }

    /// What the items are.
    fn what(&self) -> &'static str {
        match self.source {
            Source::Pictures(_) => "pictures",
            Source::Captions(..) => "captions",
        }
    }
}

/// What an index of pictures is called that keeps so much of each.
fn pictures_keeping(kept: Kept) -> String {
    match kept {
        Kept::Half => "pictures".into(), // as it was when nothing else could be chosen
        kept => format!("pictures (patches: {kept})"),
    }
}

/// How much an index keeps of each picture.
pub fn kept_by(contents: &Contents) -> Kept {
    [Kept::EightBits, Kept::Nothing]
        .into_iter()
        .find(|&kept| contents.what == pictures_keeping(kept))
        .unwrap_or_default()
}

/// The stamp of a file of so many bytes that was changed so long after 1970.
fn stamp(bytes: u64, changed: Duration) -> String {
    format!("{bytes} {}", changed.as_nanos())
}

/// When the file of a picture with this stamp was changed, in seconds after 1970.
pub fn changed(stamp: &str) -> Option<u64> {
    let (_, nanoseconds) = stamp.split_once(' ')?;
    u64::try_from(nanoseconds.parse::<u128>().ok()? / 1_000_000_000).ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_when() {
        assert_eq!(changed(&stamp(17, Duration::from_millis(1_234_567))), Some(1234));
        for none in ["", "17", "17 later", "17 -1"] {
            assert_eq!(changed(none), None, "{none}");
        }
    }
}
