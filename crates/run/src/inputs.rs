//! What a run trains, and where its data and starting weights come from, as RUN/run.json has it.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use simla_data::store::is_url;
use simla_data::{Dataset, Fingerprint, Format, quoted};
use simla_train::checkpoint::Checkpoint;

use crate::progress::{Count, Progress};

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// On pairs, by all objectives.
    Pretraining,
    /// On pairs, by contrast and matching.
    Retrieval,
    /// As retrieval, on expressions in place of captions and on pictures that are not cropped.
    Grounding,
    /// Which of two pictures a caption is of: what NLVR2 starts from.
    TextAssignment,
    /// Questions with answers.
    Vqa,
    /// Statements about two pictures.
    Nlvr2,
    /// Sentences that a picture entails, or not.
    Entailment,
}

impl Kind {
    /// The command that trains it, as it is typed.
    pub fn command(self) -> &'static str {
        match self {
            Self::Pretraining => "simla pretrain",
            Self::Retrieval => "simla finetune retrieval",
            Self::Grounding => "simla finetune grounding",
            Self::TextAssignment => "simla finetune text-assignment",
            Self::Vqa => "simla finetune vqa",
            Self::Nlvr2 => "simla finetune nlvr2",
            Self::Entailment => "simla finetune entailment",
        }
    }

    /// What to do with the model of such a run, which is in `folder`.
    pub fn next(self, folder: &str) -> String {
        let evaluated = match self {
            Self::Pretraining | Self::Retrieval => "retrieval",
            Self::Grounding => "grounding",
            Self::TextAssignment => return format!("simla finetune nlvr2 --checkpoint {folder} --data STATEMENTS"),
            Self::Vqa => "vqa",
            Self::Nlvr2 => "nlvr2",
            Self::Entailment => "entailment",
        };
        format!("simla eval {evaluated} --checkpoint {folder} --data HELD_OUT.json")
    }
}

/// Where a run's data come from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// None in runs of earlier versions.
    pub kind: Option<Kind>,
    /// Sources of records, as `--data` names them.
    pub data: Vec<String>,
    /// What image paths are relative to, where it is not the file's own folder.
    pub image_root: Option<PathBuf>,
    /// VQA's files of annotations.
    #[serde(default)]
    pub annotations: Vec<PathBuf>,
    /// The answers to choose among; without, they are those of the data.
    pub answers: Option<PathBuf>,
    /// Whether pictures are hidden: what can be told from the words alone.
    #[serde(default)]
    pub blind: bool,
    /// A file of word pieces; without, they are learned from the captions.
    pub vocabulary: Option<PathBuf>,
    /// A visual tokenizer's run; without, one is trained first.
    pub dvae: Option<PathBuf>,
    /// Folders of weights to start from, the later ones over the earlier ones.
    #[serde(default)]
    pub init: Vec<PathBuf>,
    /// The model that is fine-tuned; none in pre-training.
    pub fine_tuned: Option<PathBuf>,
    /// Held-out records, on which the model is measured while the run goes on.
    pub held_out: Option<PathBuf>,
    /// By which all of it is known again in another place.
    #[serde(default)]
    pub known_by: KnownBy,
    /// Whether it is in another place than before: what is known of it must be so there.
    #[serde(skip)]
    pub moved: Moved,
}

/// Checksums of what a run is made of; none in runs of earlier versions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownBy {
    /// Of the records.
    pub data: Option<Fingerprint>,
    /// Of those held out.
    pub held_out: Option<Fingerprint>,
    /// Of the tokenizer's weights.
    pub dvae: Option<String>,
    /// Of each folder of starting weights.
    #[serde(default)]
    pub init: Vec<String>,
}

/// What is said to be elsewhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moved {
    /// The records.
    pub data: bool,
    /// Those held out.
    pub held_out: bool,
    /// The tokenizer.
    pub dvae: bool,
    /// The starting weights.
    pub init: bool,
}

impl Inputs {
    /// The same with absolute paths: a run goes on from any folder.
    ///
    /// # Errors
    /// If the system does not tell the current folder.
    pub fn absolute(self) -> io::Result<Self> {
        // The address of an object is one from anywhere.
        let path = |path: PathBuf| if is_url(&path) { Ok(path) } else { std::path::absolute(path) };
        let optional = |given: Option<PathBuf>| given.map(path).transpose();
        // A pattern of shards and a weight behind the name stay what they are.
        let text = |text: String| Ok(path(PathBuf::from(&text))?.into_os_string().into_string().unwrap_or(text));
        Ok(Self {
            data: self.data.into_iter().map(text).collect::<io::Result<_>>()?,
            image_root: optional(self.image_root)?,
            annotations: self.annotations.into_iter().map(path).collect::<io::Result<_>>()?,
            answers: optional(self.answers)?,
            vocabulary: optional(self.vocabulary)?,
            dvae: optional(self.dvae)?,
            init: self.init.into_iter().map(path).collect::<io::Result<_>>()?,
            fine_tuned: optional(self.fine_tuned)?,
            held_out: optional(self.held_out)?,
            ..self
        })
    }

    /// Checks data that are elsewhere now, and takes their checksum where they have none.
    ///
    /// # Errors
    /// Other records than the run began with.
    pub fn know<F: Format>(&mut self, data: &Dataset<F>) -> Result<()> {
        let root = self.image_root.as_deref();
        known("--data", self.moved.data, &mut self.known_by.data, || fingerprint(data, root))
    }

    /// As [`Inputs::know`], for weights.
    ///
    /// # Errors
    /// Other weights than the run began with.
    pub fn know_weights(&mut self) -> Result<()> {
        if let Some(dvae) = &self.dvae {
            weights("--dvae", dvae, self.moved.dvae, &mut self.known_by.dvae)?;
        }
        if self.known_by.init.is_empty() || self.moved.init {
            let mut before = std::mem::take(&mut self.known_by.init).into_iter();
            for folder in &self.init {
                let mut known = before.next();
                weights("--init", folder, self.moved.init, &mut known)?;
                self.known_by.init.extend(known);
            }
            if before.next().is_some() {
                bail!("--init: the run began with more folders of weights");
            }
        }
        Ok(())
    }

    /// As [`Inputs::know`], for data that are held out.
    ///
    /// # Errors
    /// Other records than the run began with.
    pub fn know_held_out<F: Format>(&mut self, held_out: &Dataset<F>) -> Result<()> {
        let root = self.image_root.as_deref();
        known("--eval-data", self.moved.held_out, &mut self.known_by.held_out, || fingerprint(held_out, root))
    }
}

/// The records of a data set, with progress.
fn fingerprint<F: Format>(data: &Dataset<F>, image_root: Option<&Path>) -> Result<Fingerprint> {
    let count = Count::new(Progress::patient("names read", data.len()));
    Ok(data.fingerprint(image_root, |more| count.more(more))?)
}

/// Takes the checksum of records, or checks that records which are elsewhere now are the same.
fn known(
    option: &str,
    moved: bool,
    before: &mut Option<Fingerprint>,
    now: impl FnOnce() -> Result<Fingerprint>,
) -> Result<()> {
    if before.is_some() && !moved {
        return Ok(());
    }
    let now = now()?;
    match before {
        Some(before) if before.records != now.records => bail!(
            "{option}: {} records, but the run began with {}; it goes on with the same ones alone (a new --output takes others)",
            now.records,
            before.records
        ),
        Some(before) if before.names != now.names => bail!(
            "{option}: as many records as the run began with, but not the same pictures in the same order; it goes on with \
             those alone (a new --output takes others)"
        ),
        _ => {}
    }
    *before = Some(now);
    Ok(())
}

/// As [`known`], for weights.
fn weights(option: &str, folder: &Path, moved: bool, before: &mut Option<String>) -> Result<()> {
    if before.is_some() && !moved {
        return Ok(());
    }
    let now = Checkpoint::open(folder)?.fingerprint().to_owned();
    if before.as_ref().is_some_and(|before| *before != now) {
        bail!("{option} {}: other weights than those that the run began with", quoted(folder.display()));
    }
    *before = Some(now);
    Ok(())
}

impl Inputs {
    /// What the run trains.
    pub fn kind(&self) -> Kind {
        let unsaid = if self.fine_tuned.is_some() { Kind::Retrieval } else { Kind::Pretraining };
        self.kind.unwrap_or(unsaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stay_what_they_are_and_paths_become_absolute() {
        let data = ["s3://bucket/{000..041}.tar@2", "shards/{0..4}.tar"].map(String::from).to_vec();
        let inputs = Inputs { data, held_out: Some("https://host/a.tar".into()), ..Inputs::default() };
        let inputs = inputs.absolute().unwrap();
        assert_eq!(inputs.data[0], "s3://bucket/{000..041}.tar@2");
        assert!(inputs.data[1].starts_with('/') && inputs.data[1].ends_with("/shards/{0..4}.tar"));
        assert_eq!(inputs.held_out.unwrap().to_str(), Some("https://host/a.tar"));
    }
}
