//! A picture and a sentence that contradicts it, follows from it, or neither (SNLI-VE). Two layouts are read:
//!
//! - the authors': `[{"image": "4705552913", "sentence", "label"}]`, the image without its ending;
//! - SNLI-VE's own, a record a line: `{"Flickr30K_ID", "sentence2", "gold_label", "pairID"}`.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use super::{Format, Place};
use crate::loader::SettingError;
use crate::record::{Location, RecordError};
use crate::sources::{IMAGE_ENDINGS, fields};
use crate::text::{Sentences, caption};

/// What a label stands for, in the order of the classes.
pub const LABELS: [&str; 3] = ["contradiction", "neutral", "entailment"];
const EXPECTED: &str = r#""contradiction", "neutral" or "entailment""#;

/// How sentences become rows.
#[derive(Clone, Debug)]
pub struct Entailments {
    /// Cuts them.
    pub sentences: Sentences,
    /// Whether a record without a label is refused.
    pub labelled: bool,
}

/// A sentence and the picture that it is held against.
#[derive(Clone, Debug)]
pub struct Hypothesis {
    /// The picture.
    pub image: Location,
    /// The words as they are in the data.
    pub sentence: String,
    /// The class, a place in [`LABELS`], where it is known.
    pub label: Option<i64>,
    /// What the record is known by, where the data say so.
    pub pair_id: Option<String>,
    /// File and position.
    pub name: String,
}

/// A sentence as a step reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entailment {
    /// Its word pieces, `[L]`.
    pub ids: Vec<i64>,
    /// The class, a place in [`LABELS`].
    pub label: Option<i64>,
    /// The words as they are in the data.
    pub sentence: String,
    /// See [`Hypothesis::pair_id`].
    pub pair_id: Option<String>,
}

/// The fields of a record that matter; others are allowed.
#[derive(Deserialize)]
struct Fields {
    #[serde(alias = "Flickr30K_ID", alias = "Flickr30kID", alias = "Flikr30kID")]
    image: Option<Value>,
    #[serde(alias = "sentence2")]
    sentence: Option<Value>,
    #[serde(alias = "gold_label")]
    label: Option<Value>,
    #[serde(alias = "pairID")]
    pair_id: Option<Value>,
}

impl Format for Entailments {
    type Entry = Hypothesis;
    type Row = Entailment;
    const EXAMPLE: &'static str = r#"[{"image": "1.jpg", "sentence": "a dog is asleep", "label": "contradiction"}]"#;

    fn read(json: &[u8], place: &Place) -> Result<Vec<Hypothesis>, RecordError> {
        let Fields { image, sentence, label, pair_id } = place.fields::<Self, _>(json)?;
        let image = match &image {
            Some(Value::Number(number)) => number.to_string(),
            other => fields::image(other.as_ref(), place)?.to_owned(),
        };
        let known = |label: &str| LABELS.iter().position(|known| *known == label);
        let label = match &label {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if known(text).is_some() => known(text).map(|class| class as i64),
            other => return Err(fields::wrong(&place.name, "label", EXPECTED, other.as_ref())),
        };
        Ok(vec![Hypothesis {
            sentence: fields::words("sentence", sentence.as_ref(), place)?.to_owned(),
            label,
            pair_id: fields::optional_string("pair_id", pair_id.as_ref(), place)?,
            image: place.picture(&with_ending(image))?.0,
            name: place.name.clone(),
        }])
    }

    fn name(entry: &Hypothesis) -> &str {
        &entry.name
    }

    fn texts(entry: Hypothesis) -> Vec<String> {
        vec![entry.sentence]
    }

    fn pictures(entry: &Hypothesis) -> Vec<Location> {
        vec![entry.image.clone()]
    }

    fn check(&self, _: u32) -> Result<(), SettingError> {
        self.sentences.check()
    }

    fn row(&self, entry: Hypothesis, _: &mut ChaCha8Rng) -> Result<Entailment, RecordError> {
        if self.labelled && entry.label.is_none() {
            return Err(fields::wrong(&entry.name, "label", EXPECTED, None));
        }
        Ok(Entailment {
            ids: self.sentences.encode(&caption::clean(&entry.sentence)),
            label: entry.label,
            sentence: entry.sentence,
            pair_id: entry.pair_id,
        })
    }
}

/// The name as it is where it has an ending, or else with each that a picture may have.
fn with_ending(name: String) -> Vec<String> {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_lowercase());
    match ending.is_some_and(|ending| IMAGE_ENDINGS.contains(&ending.as_str())) {
        true => vec![name],
        false => IMAGE_ENDINGS.iter().map(|ending| format!("{name}.{ending}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::formats::check::{examples, refusals};
    use crate::text::vocabulary::tests::numbered;

    fn entailments(labelled: bool) -> Entailments {
        Entailments { sentences: Sentences::new(Arc::new(numbered(9))), labelled }
    }

    #[test]
    fn the_authors_layout_and_snli_ves() {
        let authors = r#"[{"image": "12", "sentence": "W1!", "label": "neutral"}, {"image": "a_b", "sentence": "w2", "label": "entailment"}]"#;
        let rows = examples(entailments(true), "e.json", authors, &["12.jpg", "a_b.png"]);
        assert_eq!(rows.iter().map(|row| row.label).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert_eq!(rows[0].ids, [2, 6, 3]);
        let own = r#"{"Flickr30K_ID": "12", "sentence1": "x", "sentence2": "w1", "gold_label": "contradiction", "pairID": "12.jpg#0r1c"}
            {"Flikr30kID": "12.jpg", "sentence2": "w3", "pairID": null}"#;
        let rows = examples(entailments(false), "e.jsonl", own, &["12.jpg"]);
        assert_eq!((rows[0].label, rows[0].pair_id.as_deref()), (Some(0), Some("12.jpg#0r1c")));
        assert_eq!((rows[1].label, rows[1].ids.as_slice()), (None, [2, 8, 3].as_slice()));
    }

    #[test]
    fn what_is_none_of_the_three_is_named() {
        refusals::<Entailments>(&[
            (
                r#"{"image": "1", "sentence": "w1", "label": "-"}"#,
                "field `label`: expected \"contradiction\", \"neutral\" or \"entailment\", found a string: \"-\"",
            ),
            (r#"{"image": "1", "sentence": "w1", "label": 2}"#, "field `label`"),
            (
                r#"{"image": "1", "sentence": " . ", "label": "neutral"}"#,
                "field `sentence`: expected a string with words",
            ),
            (r#"{"sentence": "w1", "label": "neutral"}"#, "field `image`"),
        ]);
    }
}
