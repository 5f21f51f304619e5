//! What a run trains, and where its data and starting weights come from, as RUN/run.json has it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a run trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Pretraining,
    Retrieval,
    /// As retrieval, on expressions in place of captions and on pictures that are not cropped.
    Grounding,
    TextAssignment,
    Vqa,
    Nlvr2,
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
    pub data: Vec<String>,
    pub image_root: Option<PathBuf>,
    /// VQA's files of annotations.
    #[serde(default)]
    pub annotations: Vec<PathBuf>,
    /// The answers to choose among; without, they are those of the data.
    pub answers: Option<PathBuf>,
    /// Whether pictures are hidden: what can be told from the words alone.
    #[serde(default)]
    pub blind: bool,
    pub vocabulary: Option<PathBuf>,
    pub dvae: Option<PathBuf>,
    /// Folders of weights to start from, the later ones over the earlier ones.
    #[serde(default)]
    pub init: Vec<PathBuf>,
    /// The model that is fine-tuned; none in pre-training.
    pub fine_tuned: Option<PathBuf>,
    /// Held-out records, on which the model is measured while the run goes on.
    pub held_out: Option<PathBuf>,
}

impl Inputs {
    /// What the run trains.
    pub fn kind(&self) -> Kind {
        let unsaid = if self.fine_tuned.is_some() { Kind::Retrieval } else { Kind::Pretraining };
        self.kind.unwrap_or(unsaid)
    }
}
