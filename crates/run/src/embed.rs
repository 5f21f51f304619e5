//! Contrastive features of pictures, captions and phrases, for those who have a vector database already. Features are of length one: their
//! product is the similarity.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, FloatType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use simla::tasks::pretrain::Model;
use simla::tasks::search::{caption_features, phrase, see};
use simla_data::sources::walk;
use simla_data::{Dataset, Entry};
use simla_files::write_atomically;

use crate::collection::picture;
use crate::progress::{Progress, say_broken};

/// Items that are looked at between two reports of progress.
const CHUNK: usize = 64;

/// Features with what they are of.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Of each row: a picture's path; `PATH#N` of its Nth caption; a phrase itself.
    pub names: Vec<String>,
    /// What was read, of captions.
    pub texts: Option<Vec<String>>,
    /// Numbers of a row.
    pub width: usize,
    /// Row by row.
    pub values: Vec<f32>,
}

impl Features {
    fn of(model: &Model) -> Self {
        let width = model.simla.config.embed_dim as usize;
        Self { names: vec![], texts: None, width, values: vec![] }
    }

    /// Of all pictures under `folder`, called by their paths there.
    ///
    /// # Errors
    /// A folder that cannot be read, or none of whose pictures can.
    pub fn of_folder(model: &Model, folder: &Path) -> Result<Self> {
        let walked = walk(folder, usize::MAX).with_context(|| folder.display().to_string())?;
        let entries = walked.pictures.iter().map(|path| (path.display().to_string(), Ok(picture(&folder.join(path)))));
        Self::of_pictures(model, entries.collect(), &folder.display().to_string())
    }

    /// Of the pictures of a data set, each once, called by their paths below `root`.
    ///
    /// # Errors
    /// If none can be read.
    pub fn of_images(model: &Model, dataset: &Dataset, root: Option<&Path>, what: &str) -> Result<Self> {
        let mut seen = HashSet::new();
        let mut entries = Vec::new();
        for position in 0..dataset.len() {
            let entry = dataset.entry(position);
            let name = match &entry {
                Ok(entry) => below(&entry.image.to_string(), root),
                Err(_) => format!("record {}", position + 1),
            };
            if seen.insert(name.clone()) {
                entries.push((name, entry.map_err(anyhow::Error::from)));
            }
        }
        Self::of_pictures(model, entries, what)
    }

    fn of_pictures(model: &Model, entries: Vec<(String, Result<Entry>)>, what: &str) -> Result<Self> {
        let mut features = Self::of(model);
        let (mut broken, all) = (Vec::new(), entries.len());
        let mut progress = Progress::new("pictures", 0, all as u64);
        let (mut names, mut chunk) = (Vec::new(), Vec::new());
        for (done, (name, entry)) in (1..).zip(entries) {
            match entry {
                Ok(entry) => {
                    names.push(name);
                    chunk.push(entry);
                }
                Err(error) => broken.push(error),
            }
            if chunk.len() < CHUNK && done < all {
                continue;
            }
            for (name, seen) in names.drain(..).zip(see(&model.simla, &chunk)?) {
                match seen {
                    Ok(seen) => {
                        features.names.push(name);
                        features.values.extend(seen.feature);
                    }
                    Err(error) => broken.push(error.into()),
                }
            }
            chunk.clear();
            progress.set(done as u64, String::new);
        }
        drop(progress);
        say_broken(&broken, format_args!("of {all} pictures"));
        if features.names.is_empty() {
            bail!("{what}: no usable picture");
        }
        Ok(features)
    }

    /// Of every caption of a data set.
    ///
    /// # Errors
    /// If there is none.
    pub fn of_captions(
        model: &Model,
        dataset: &Dataset,
        root: Option<&Path>,
        max_tokens: usize,
        what: &str,
    ) -> Result<Self> {
        let mut features = Self::of(model);
        let (mut texts, mut counts, mut broken) = (Vec::new(), HashMap::new(), Vec::new());
        for position in 0..dataset.len() {
            let entry = match dataset.entry(position) {
                Ok(entry) => entry,
                Err(error) => {
                    broken.push(error);
                    continue;
                }
            };
            let image = below(&entry.image.to_string(), root);
            for caption in entry.captions {
                let nth = counts.entry(image.clone()).or_insert(0);
                features.names.push(format!("{image}#{nth}"));
                *nth += 1;
                texts.push(caption);
            }
        }
        say_broken(&broken, format_args!("of {} records", dataset.len()));
        if texts.is_empty() {
            bail!("{what}: no usable caption");
        }
        let ids: Vec<Vec<i64>> = texts.iter().map(|text| model.vocabulary.encode(text, max_tokens)).collect();
        features.read(model, &ids)?;
        features.texts = Some(texts);
        Ok(features)
    }

    /// Of phrases.
    ///
    /// # Errors
    /// One that says nothing, or nothing that the model knows; and none at all.
    pub fn of_phrases(model: &Model, phrases: Vec<String>, max_tokens: usize) -> Result<Self> {
        if phrases.is_empty() {
            bail!("no phrases: expected one a line");
        }
        let ids = phrases.iter().map(|text| phrase(&model.vocabulary, text, max_tokens));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let mut features = Self { names: phrases, ..Self::of(model) };
        features.read(model, &ids)?;
        Ok(features)
    }

    fn read(&mut self, model: &Model, ids: &[Vec<i64>]) -> Result<()> {
        let mut progress = Progress::new("texts", 0, ids.len() as u64);
        for (nth, chunk) in ids.chunks(CHUNK).enumerate() {
            self.values.extend(caption_features(&model.simla, chunk)?.into_iter().flatten());
            progress.set((nth * CHUNK + chunk.len()) as u64, String::new);
        }
        Ok(())
    }

    /// Writes them by the ending of `path`. `.safetensors`: a tensor `features` `[n, E]`, names and texts as lists of JSON in the
    /// metadata. `.npy`: the array, names and texts in `.names.json` beside it. `.parquet`: columns `name`, `text` and `feature`.
    ///
    /// # Errors
    /// Another ending, and what the system said.
    pub fn save(&self, path: &Path) -> Result<()> {
        let write = || -> Result<()> {
            match Ending::of(path)? {
                Ending::Safetensors => self.safetensors(path),
                Ending::Npy => self.npy(path),
                Ending::Parquet => self.parquet(path),
            }
        };
        write().with_context(|| path.display().to_string())
    }

    fn bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    fn safetensors(&self, path: &Path) -> Result<()> {
        let bytes = self.bytes();
        let view = TensorView::new(Dtype::F32, vec![self.names.len(), self.width], &bytes)?;
        let mut metadata = HashMap::from([("names".to_owned(), serde_json::to_string(&self.names)?)]);
        if let Some(texts) = &self.texts {
            metadata.insert("texts".into(), serde_json::to_string(texts)?);
        }
        let file = safetensors::serialize([("features", view)], Some(metadata))?;
        Ok(write_atomically(path, &file)?)
    }

    fn npy(&self, path: &Path) -> Result<()> {
        let shape = format!("({}, {})", self.names.len(), self.width);
        let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        // Magic, version and the header's length take ten bytes; the data begin at a multiple of 64 (NumPy's format 1.0).
        const BEFORE: usize = 10;
        let end = (BEFORE + header.len() + 1).next_multiple_of(64) - BEFORE;
        header += &" ".repeat(end - header.len() - 1);
        header.push('\n');
        let length = u16::try_from(header.len()).expect("a short header").to_le_bytes();
        let file = [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), &self.bytes()].concat();
        write_atomically(path, &file)?;
        let names = json!({"names": self.names, "texts": self.texts});
        Ok(write_atomically(&path.with_extension("names.json"), names.to_string().as_bytes())?)
    }

    fn parquet(&self, path: &Path) -> Result<()> {
        let text = |name: &str, repetition| {
            let field = Type::primitive_type_builder(name, Physical::BYTE_ARRAY);
            field.with_repetition(repetition).with_logical_type(Some(LogicalType::String)).build().map(Arc::new)
        };
        let element = Type::primitive_type_builder("element", Physical::FLOAT);
        let element = element.with_repetition(Repetition::REQUIRED).build()?;
        let list = Type::group_type_builder("list").with_repetition(Repetition::REPEATED);
        let list = list.with_fields(vec![Arc::new(element)]).build()?;
        let feature = Type::group_type_builder("feature").with_repetition(Repetition::REQUIRED);
        let feature = feature
            .with_logical_type(Some(LogicalType::List))
            .with_fields(vec![Arc::new(list)])
            .build()
            .map(Arc::new)?;
        let fields = vec![text("name", Repetition::REQUIRED)?, text("text", Repetition::OPTIONAL)?, feature];
        let schema = Arc::new(Type::group_type_builder("features").with_fields(fields).build()?);
        let aside = path.with_extension(format!("{}.unfinished", std::process::id()));
        let file = File::create(&aside)?;
        let write = || -> Result<()> {
            let mut writer = SerializedFileWriter::new(&file, schema, Arc::new(WriterProperties::builder().build()))?;
            let mut rows = writer.next_row_group()?;
            let strings =
                |texts: &[String]| texts.iter().map(|text| ByteArray::from(text.as_str())).collect::<Vec<_>>();
            let count = self.names.len();
            let mut column = rows.next_column()?.expect("the names");
            column.typed::<ByteArrayType>().write_batch(&strings(&self.names), None, None)?;
            column.close()?;
            let mut column = rows.next_column()?.expect("the texts");
            let texts = self.texts.as_deref().unwrap_or_default();
            let is_there = vec![i16::from(self.texts.is_some()); count];
            column.typed::<ByteArrayType>().write_batch(&strings(texts), Some(&is_there), None)?;
            column.close()?;
            let mut column = rows.next_column()?.expect("the features");
            // A list begins where the level of repetition is 0.
            let begins: Vec<i16> = (0..self.values.len()).map(|i| i16::from(i % self.width != 0)).collect();
            let is_there = vec![1; self.values.len()];
            column.typed::<FloatType>().write_batch(&self.values, Some(&is_there), Some(&begins))?;
            column.close()?;
            rows.close()?;
            writer.close()?;
            (&file).flush()?;
            file.sync_all()?;
            std::fs::rename(&aside, path)?;
            Ok(())
        };
        let written = write();
        if written.is_err() {
            let _: io::Result<()> = std::fs::remove_file(&aside);
        }
        written
    }
}

/// How the name of a file of features may end.
pub const ENDINGS: &[&str] = &["safetensors", "npy", "parquet"];

/// The file beside `path` that has the names, where the features' own format has no place for them.
pub fn names_beside(path: &Path) -> Option<PathBuf> {
    matches!(Ending::of(path), Ok(Ending::Npy)).then(|| path.with_extension("names.json"))
}

enum Ending {
    Safetensors,
    Npy,
    Parquet,
}

impl Ending {
    fn of(path: &Path) -> Result<Self> {
        Ok(match path.extension().and_then(|ending| ending.to_str()) {
            Some("safetensors") => Self::Safetensors,
            Some("npy") => Self::Npy,
            Some("parquet") => Self::Parquet,
            _ => bail!("{}: expected a name that ends in .safetensors, .npy or .parquet", path.display()),
        })
    }
}

/// A path as it is called below `root`.
pub(crate) fn below(path: &str, root: Option<&Path>) -> String {
    let below = root.and_then(|root| Path::new(path).strip_prefix(root).ok());
    below.map_or(path.to_owned(), |below| below.display().to_string())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;

    use super::*;

    fn features(texts: Option<Vec<String>>) -> Features {
        let names = vec!["a, b.jpg#0".into(), "c.jpg#0".into()];
        Features { names, texts, width: 3, values: vec![1.0, 0.0, -0.5, 0.25, 0.0, 1.0] }
    }

    #[test]
    fn every_format_gives_the_same_numbers_back() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for texts in [None, Some(vec!["one".to_owned(), "zw\u{f6}lf".to_owned()])] {
            let features = features(texts);
            for name in ["f.safetensors", "f.npy", "f.parquet"] {
                features.save(&at(name)).unwrap();
            }
            let bytes = std::fs::read(at("f.safetensors")).unwrap();
            let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let tensor = file.tensor("features").unwrap();
            assert_eq!((tensor.shape(), tensor.data()), (&[2, 3][..], &features.bytes()[..]));
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let metadata = header.metadata().clone().unwrap();
            assert_eq!(metadata["names"], r#"["a, b.jpg#0","c.jpg#0"]"#);
            assert_eq!(metadata.contains_key("texts"), features.texts.is_some());

            let bytes = std::fs::read(at("f.npy")).unwrap();
            let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
            assert_eq!((start % 64, &bytes[start..]), (0, &features.bytes()[..]));
            let header = std::str::from_utf8(&bytes[10..start]).unwrap();
            assert!(header.contains("'shape': (2, 3)") && header.ends_with(" \n"), "{header:?}");
            let names = std::fs::read_to_string(at("f.names.json")).unwrap();
            assert!(names.contains("c.jpg#0"));

            let reader = SerializedFileReader::new(File::open(at("f.parquet")).unwrap()).unwrap();
            let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
            assert_eq!((rows.len(), rows[1].get_string(0).unwrap().as_str()), (2, "c.jpg#0"));
            let text = rows[1].get_string(1).ok().map(String::as_str);
            assert_eq!(text, features.texts.as_ref().map(|_| "zw\u{f6}lf"));
            let list = rows[1].get_list(2).unwrap();
            assert_eq!(format!("{list:?}").matches("Float(").count(), 3);
            assert!(format!("{list:?}").contains("Float(0.25)"), "{list:?}");
        }
        let error = features(None).save(&at("f.csv")).unwrap_err();
        assert!(format!("{error:#}").contains(".safetensors, .npy or .parquet"));
    }
}
