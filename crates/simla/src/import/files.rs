//! Published weights on disk: one file, or the shards that an index joins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use simla_weights::{Archive, Limits, Node, ReadError, TensorRef};

use super::ImportError;

/// What a folder of published weights holds, the first that is there.
const PUBLISHED: [&str; 4] =
    ["model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"];
/// The largest index that is read: 16 MiB name a hundred thousand tensors.
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// More shards than any model is cut into.
const MAX_SHARDS: usize = 1000;

/// A file of weights, or all shards of one.
pub(super) struct Published {
    /// What was asked for.
    path: PathBuf,
    shards: Vec<Archive>,
    /// The shard of each tensor, where an index says so.
    index: BTreeMap<String, usize>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Published {
    /// Opens a file, the shards that an index names, or what a folder holds of these.
    ///
    /// # Errors
    /// A file that cannot be read, an index without its shards.
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let asked = path.to_owned();
        let path = match path.is_dir() {
            true => PUBLISHED.iter().map(|name| path.join(name)).find(|path| path.exists()).ok_or_else(|| {
                ImportError::Index {
                    path: asked.clone(),
                    reason: format!("a folder without {}", PUBLISHED.join(" or ")),
                }
            })?,
            false => asked,
        };
        if !path.to_string_lossy().ends_with(".index.json") {
            let shards = vec![read(&path)?];
            return Ok(Self { path, shards, index: BTreeMap::new() });
        }
        let wrong = |reason: String| ImportError::Index { path: path.clone(), reason };
        let length = fs::metadata(&path).map_err(|e| wrong(e.to_string()))?.len();
        if length > MAX_INDEX_BYTES {
            return Err(wrong(format!("{length} bytes, at most {MAX_INDEX_BYTES} are read of an index")));
        }
        let text = fs::read(&path).map_err(|e| wrong(e.to_string()))?;
        let Index { weight_map } = serde_json::from_slice(&text).map_err(|e| wrong(e.to_string()))?;
        let names: BTreeSet<&String> = weight_map.values().collect();
        let names: Vec<&String> = names.into_iter().collect();
        if names.len() > MAX_SHARDS {
            return Err(wrong(format!("{} shards, at most {MAX_SHARDS} are read", names.len())));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut shards = Vec::new();
        for name in &names {
            if Path::new(name).file_name().is_none_or(|plain| plain != name.as_str()) {
                return Err(wrong(format!("the shard {name:?} is no name of a file beside it")));
            }
            let shard = folder.join(name);
            if !shard.exists() {
                let held = weight_map.iter().filter(|(_, of)| of == name).map(|(tensor, _)| tensor.clone()).collect();
                return Err(wrong(format!("the shard {name} is not beside it; it holds {}", listed(held))));
            }
            shards.push(read(&shard)?);
        }
        let place = |name: &String| names.binary_search(&name).expect("collected from the same map");
        let index = weight_map.iter().map(|(tensor, shard)| (tensor.clone(), place(shard))).collect();
        Ok(Self { path, shards, index })
    }

    /// The file, or the index.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The outermost value of the first file.
    pub(super) fn root(&self) -> Node<'_> {
        self.shards[0].root()
    }

    /// The state dict: `model` or `state_dict` of a training checkpoint, or the file itself; the names that wrappers of training put
    /// before each (`module.`, `_orig_mod.`) are taken off.
    ///
    /// # Errors
    /// Tensors that cannot be told apart, or that the index promises and no shard holds.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, TensorRef<'_>>, ImportError> {
        let mut all = BTreeMap::new();
        for (shard, archive) in self.shards.iter().enumerate() {
            let root = archive.root();
            let dict = ["model", "state_dict"].into_iter().find_map(|key| root.get(key)).unwrap_or(root);
            let tensors = dict.tensors()?;
            let promised = self.index.iter().filter(|(_, of)| **of == shard);
            let lacking: Vec<String> =
                promised.map(|(name, _)| name.clone()).filter(|name| !tensors.contains_key(name)).collect();
            if !lacking.is_empty() {
                let file = archive.path().file_name().unwrap_or_default().to_string_lossy();
                let reason = format!("the shard {file} lacks {}", listed(lacking));
                return Err(ImportError::Index { path: self.path.clone(), reason });
            }
            for (second, tensor) in tensors {
                if all.insert(second.clone(), tensor).is_some() {
                    let reason = format!("two shards hold {second}");
                    return Err(ImportError::Index { path: self.path.clone(), reason });
                }
            }
        }
        renamed(&self.path, all, unwrapped)
    }
}

fn read(path: &Path) -> Result<Archive, ReadError> {
    simla_weights::read(path, &Limits::default())
}

/// A name without what distributed training and compilation put before it.
fn unwrapped(mut name: &str) -> String {
    while let Some(rest) = ["module.", "_orig_mod."].iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name.to_owned()
}

/// The tensors under other names, which must stay distinct.
pub(super) fn renamed<'a>(
    path: &Path,
    tensors: BTreeMap<String, TensorRef<'a>>,
    rename: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, TensorRef<'a>>, ImportError> {
    let mut origins: BTreeMap<String, (String, TensorRef)> = BTreeMap::new();
    for (second, tensor) in tensors {
        let name = rename(&second);
        if let Some((first, _)) = origins.get(&name) {
            return Err(ImportError::Twice { path: path.into(), first: first.clone(), second, name });
        }
        origins.insert(name, (second, tensor));
    }
    Ok(origins.into_iter().map(|(name, (_, tensor))| (name, tensor)).collect())
}

/// The first names, and how many more there are.
pub(super) fn listed(names: Vec<String>) -> String {
    const SHOWN: usize = 3;
    match names.len() {
        0 => "no tensors at all".into(),
        n if n <= SHOWN => names.join(", "),
        n => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
    }
}

/// What a file whose name says that it is one shard of several lacks: the word for it.
pub(super) fn shard_hint(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = name.split(['-', '.']).collect::<Vec<_>>();
    match part[..] {
        [.., number, "of", all, _] if number.parse::<u32>().is_ok() && all.parse::<u32>().is_ok() => format!(
            "; this is shard {} of {}: give the index (model.safetensors.index.json) or their folder",
            number.trim_start_matches('0'),
            all.trim_start_matches('0')
        ),
        _ => String::new(),
    }
}

/// Heads of attention as the `config.json` beside published weights says them (`num_attention_heads`): shapes do not tell.
pub fn published_heads(path: &Path) -> Option<i64> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let text = fs::read(folder.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&text).ok()?;
    config["num_attention_heads"].as_i64()
}
