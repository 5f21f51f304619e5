//! The objectives of 2.2 to 2.4, one file each: pure functions from features to a scalar. All are in f32.

pub mod answers;
pub mod itc;
pub mod itm;
pub mod negatives;
pub mod psl;
pub mod xmm;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Which losses take part: all in pre-training, fewer in the ablation of table 1. Written as a list of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Objectives {
    /// Image-text contrast.
    pub itc: bool,
    /// Image-text matching.
    pub itm: bool,
    /// Masked words (XMM).
    pub mlm: bool,
    /// Masked patches (XMM).
    pub mim: bool,
    /// Pseudo-labelled keywords.
    pub psl: bool,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { itc: true, itm: true, mlm: true, mim: true, psl: true }
    }
}

impl Objectives {
    const NONE: Self = Self { itc: false, itm: false, mlm: false, mim: false, psl: false };

    /// Those of fine-tuning on retrieval.
    pub const RETRIEVAL: Self = Self { itc: true, itm: true, ..Self::NONE };

    /// Whether there is one.
    pub fn any(self) -> bool {
        self != Self::NONE
    }
}

impl TryFrom<Vec<String>> for Objectives {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        let mut objectives = Self::NONE;
        for name in names {
            match name.as_str() {
                "itc" => objectives.itc = true,
                "itm" => objectives.itm = true,
                "mlm" => objectives.mlm = true,
                "mim" => objectives.mim = true,
                "psl" => objectives.psl = true,
                _ => return Err(format!("`{name}` is not one of itc, itm, mlm, mim, psl")),
            }
        }
        Ok(objectives)
    }
}

impl JsonSchema for Objectives {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Objectives".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": {"enum": Vec::from(Self::default())}, "minItems": 1, "uniqueItems": true})
    }
}

impl From<Objectives> for Vec<String> {
    fn from(o: Objectives) -> Self {
        let named = [("itc", o.itc), ("itm", o.itm), ("mlm", o.mlm), ("mim", o.mim), ("psl", o.psl)];
        named.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()).collect()
    }
}

/// Mean over rows of the cross-entropy of `logits` `[n, classes]` with a distribution `target` `[n, classes]`.
fn soft_cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    -(logits.log_softmax(-1, Kind::Float) * target)
        .sum_dim_intlist([-1].as_slice(), false, Kind::Float)
        .mean(Kind::Float)
}
