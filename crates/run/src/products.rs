//! FashionGen's protocol on files: products with their sub-categories, and lists of candidates that are drawn, read or written.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use simla::tasks::products::{List, Lists, Shelf};
use simla_data::{Dataset, Vocabulary};
use simla_files::write_atomically;
use simla_image::Limits;

use crate::embed::below;
use crate::progress::{Progress, say_broken};

/// Products, with the names that lists call them by: the paths of their pictures.
pub struct Products {
    /// What is ranked.
    pub shelf: Shelf,
    names: Vec<String>,
}

/// A list in a file.
#[derive(Serialize, Deserialize)]
struct Named {
    query: String,
    right: String,
    wrong: Vec<String>,
}

/// The lists in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedLists {
    image_to_text: Vec<Named>,
    text_to_image: Vec<Named>,
}

impl Products {
    /// The usable records of `dataset`, each with its first caption; of paths below `root`, names are the rest. Says which records cannot
    /// be used.
    ///
    /// # Errors
    /// If none can.
    pub fn open(dataset: &Dataset, vocabulary: &Vocabulary, max_tokens: usize, root: Option<&Path>) -> Result<Self> {
        let mut progress = Progress::patient("pictures tried", dataset.len());
        let (mut products, mut broken) = (Self { shelf: Shelf::default(), names: vec![] }, vec![]);
        let mut bytes = Vec::new();
        for position in 0..dataset.len() {
            progress.set(position + 1, String::new);
            let usable = dataset.entry(position).and_then(|entry| {
                entry.read_image(&mut bytes)?;
                simla_image::decode(&bytes, &Limits::default()).map_err(|error| entry.unreadable(error))?;
                Ok(entry)
            });
            let entry = match usable {
                Ok(entry) => entry,
                Err(error) => {
                    broken.push(error);
                    continue;
                }
            };
            products.names.push(below(&entry.image.to_string(), root));
            let shelf = &mut products.shelf;
            shelf.positions.push(position);
            shelf.products.push(entry.image_id);
            shelf.subcategories.push(entry.subcategory);
            shelf.captions.push(vocabulary.encode(&entry.captions[0], max_tokens));
        }
        drop(progress);
        say_broken(&broken, format_args!("of {} records", dataset.len()));
        if products.shelf.is_empty() {
            bail!("no usable record of a product");
        }
        Ok(products)
    }

    /// Lists in a file: `{"image_to_text": [{"query": path, "right": path, "wrong": [path]}], "text_to_image": [...]}`; a path stands for
    /// the picture, or for what is said of it.
    ///
    /// # Errors
    /// A file that is none, and a path that is no product's.
    pub fn read_lists(&self, path: &Path) -> Result<Lists> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("{shown}"))?;
        let expected =
            r#"{"image_to_text": [{"query": "1.jpg", "right": "1.jpg", "wrong": ["2.jpg"]}], "text_to_image": []}"#;
        let named: NamedLists = serde_json::from_str(&text).with_context(|| format!("{shown}: expected {expected}"))?;
        let mut places = HashMap::new();
        for (place, name) in self.names.iter().enumerate() {
            places.entry(name.as_str()).or_insert(place);
        }
        let place = |name: &String| match places.get(name.as_str()) {
            Some(&place) => Ok(place),
            None => bail!("{shown}: no usable record has the picture {name:?}"),
        };
        let list = |named: &Named| {
            let wrong = named.wrong.iter().map(place).collect::<Result<Vec<_>>>()?;
            let (query, right) = (place(&named.query)?, place(&named.right)?);
            if wrong.contains(&right) {
                bail!("{shown}: of {:?}, {:?} is right and among the wrong ones", named.query, named.right);
            }
            Ok(List { query, right, wrong })
        };
        let lists = Lists {
            image_to_text: named.image_to_text.iter().map(list).collect::<Result<_>>()?,
            text_to_image: named.text_to_image.iter().map(list).collect::<Result<_>>()?,
        };
        if lists.image_to_text.is_empty() && lists.text_to_image.is_empty() {
            bail!("{shown}: no lists in it");
        }
        Ok(lists)
    }

    /// Writes lists as [`Products::read_lists`] reads them.
    ///
    /// # Errors
    /// What the system said.
    pub fn write_lists(&self, lists: &Lists, path: &Path) -> Result<()> {
        let name = |&place: &usize| self.names[place].clone();
        let named = |lists: &[List]| {
            let named = |list: &List| Named {
                query: name(&list.query),
                right: name(&list.right),
                wrong: list.wrong.iter().map(name).collect(),
            };
            lists.iter().map(named).collect()
        };
        let all = NamedLists { image_to_text: named(&lists.image_to_text), text_to_image: named(&lists.text_to_image) };
        let text = serde_json::to_string(&all)?;
        write_atomically(path, text.as_bytes()).with_context(|| format!("{}", path.display()))
    }
}
