//! Statements about two pictures, true or false (NLVR2). Two layouts are read:
//!
//! - the authors': `[{"images": [left, right], "sentence", "label": "True" | "False"}]`;
//! - NLVR2's own, a record a line: `{"identifier": "split-set-pair-sentence", "sentence", "label", "directory"?}`, with the pictures
//!   `split-set-pair-img0.png` (left) and `-img1.png`, in the folder or in folders of the split and the directory.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use super::{Format, Place};
use crate::loader::SettingError;
use crate::record::{Location, RecordError};
use crate::sources::fields;
use crate::text::{Sentences, caption};

/// How statements become rows.
#[derive(Clone, Debug)]
pub struct Statements {
    /// Cuts them.
    pub sentences: Sentences,
    /// Whether a statement that is not said to be true or false is refused.
    pub labelled: bool,
}

/// A statement and its pictures.
#[derive(Clone, Debug)]
pub struct PairStatement {
    /// The left picture and the right one.
    pub images: [Location; 2],
    /// The words as they are in the data.
    pub sentence: String,
    /// Whether it is true, where that is known.
    pub label: Option<bool>,
    /// What the statement is known by, where the data say so.
    pub identifier: Option<String>,
    /// Equal for one sentence about several pairs of pictures: the identifier without its third field, or else the pictures' set and the
    /// sentence.
    pub group: String,
    /// File and position.
    pub name: String,
}

/// A statement as a step reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// Its word pieces, `[L]`.
    pub ids: Vec<i64>,
    /// 1 where it is true, 0 where it is false.
    pub label: Option<i64>,
    /// The words as they are in the data.
    pub sentence: String,
    /// See [`PairStatement::identifier`].
    pub identifier: Option<String>,
    /// See [`PairStatement::group`].
    pub group: String,
}

/// The fields of a record that matter; others are allowed.
#[derive(Deserialize)]
struct Fields {
    images: Option<Value>,
    sentence: Option<Value>,
    label: Option<Value>,
    identifier: Option<Value>,
    directory: Option<Value>,
}

impl Format for Statements {
    type Entry = PairStatement;
    type Row = Statement;
    const PICTURES: usize = 2;
    const EXAMPLE: &'static str =
        r#"[{"images": ["left.png", "right.png"], "sentence": "both show a dog", "label": "True"}]"#;

    fn read(json: &[u8], place: &Place) -> Result<Vec<PairStatement>, RecordError> {
        let Fields { images, sentence, label, identifier, directory } = place.fields::<Self, _>(json)?;
        let sentence = fields::words("sentence", sentence.as_ref(), place)?.to_owned();
        let label = match &label {
            None | Some(Value::Null) => None,
            Some(Value::Bool(label)) => Some(*label),
            Some(Value::String(label)) if label.eq_ignore_ascii_case("true") => Some(true),
            Some(Value::String(label)) if label.eq_ignore_ascii_case("false") => Some(false),
            other => return Err(fields::wrong(&place.name, "label", r#""True" or "False""#, other.as_ref())),
        };
        let identifier = fields::optional_string("identifier", identifier.as_ref(), place)?;
        let names = match (&images, &identifier) {
            (None, Some(identifier)) => {
                let Some((pair, _)) = identifier.rsplit_once('-').filter(|(pair, _)| pair.split('-').count() == 3)
                else {
                    let expected = "split-set-pair-sentence, like dev-850-0-1, since there are no `images`";
                    return Err(fields::wrong(&place.name, "identifier", expected, Some(&identifier.as_str().into())));
                };
                let directory = match &directory {
                    Some(Value::Number(number)) => Some(number.to_string()),
                    other => fields::optional_string("directory", other.as_ref(), place)?,
                };
                [0, 1].map(|side| official_names(pair, side, directory.as_deref()))
            }
            _ => authors_images(images.as_ref(), place)?.map(|name| vec![name]),
        };
        let group = match &identifier {
            Some(identifier) if identifier.split('-').count() == 4 => {
                let fields: Vec<&str> = identifier.split('-').collect();
                [fields[0], fields[1], fields[3]].join("-")
            }
            _ => format!("{}: {sentence}", set_of(&names[0][0])),
        };
        let [left, right] = names;
        let images = [place.picture(&left)?.0, place.picture(&right)?.0];
        Ok(vec![PairStatement { images, sentence, label, identifier, group, name: place.name.clone() }])
    }

    fn name(entry: &PairStatement) -> &str {
        &entry.name
    }

    fn texts(entry: PairStatement) -> Vec<String> {
        vec![entry.sentence]
    }

    fn pictures(entry: &PairStatement) -> Vec<Location> {
        entry.images.to_vec()
    }

    fn check(&self, _: u32) -> Result<(), SettingError> {
        self.sentences.check()
    }

    fn row(&self, entry: PairStatement, _: &mut ChaCha8Rng) -> Result<Statement, RecordError> {
        if self.labelled && entry.label.is_none() {
            return Err(fields::wrong(&entry.name, "label", r#""True" or "False""#, None));
        }
        Ok(Statement {
            ids: self.sentences.encode(&caption::clean(&entry.sentence)),
            label: entry.label.map(i64::from),
            sentence: entry.sentence,
            identifier: entry.identifier,
            group: entry.group,
        })
    }
}

fn authors_images(images: Option<&Value>, place: &Place) -> Result<[String; 2], RecordError> {
    let wrong = || fields::wrong(&place.name, "images", "the paths of two image files, left and right", images);
    let Some(Value::Array(two)) = images else { return Err(wrong()) };
    let names: Vec<String> =
        two.iter().filter_map(Value::as_str).filter(|s| !s.is_empty()).map(str::to_owned).collect();
    match <[String; 2]>::try_from(names) {
        Ok(names) if two.len() == 2 => Ok(names),
        _ => Err(wrong()),
    }
}

/// Where NLVR2 keeps a picture of a pair.
fn official_names(pair: &str, side: usize, directory: Option<&str>) -> Vec<String> {
    let file = format!("{pair}-img{side}.png");
    let split = pair.split('-').next().unwrap_or_default();
    let mut names = vec![format!("{split}/{file}"), format!("images/{split}/{file}")];
    if let Some(directory) = directory {
        names.extend(["", "train/", "images/train/"].map(|above| format!("{above}{directory}/{file}")));
    }
    [vec![file], names].concat()
}

/// The set in the name of a picture: `test1-0` of `test1/test1-0-3-img0.png`.
fn set_of(image: &str) -> &str {
    let file = image.rsplit('/').next().unwrap_or(image);
    let mut dashes = file.match_indices('-').map(|(at, _)| at);
    let (first, second) = (dashes.next(), dashes.next());
    let end = if file.contains("-img") { second } else { first };
    end.map_or(file, |end| &file[..end])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::formats::check::{examples, refusals};
    use crate::text::vocabulary::tests::numbered;

    fn statements(labelled: bool) -> Statements {
        Statements { sentences: Sentences::new(Arc::new(numbered(9))), labelled }
    }

    #[test]
    fn the_authors_layout() {
        let text = r#"[{"images": ["dev/dev-1-0-img0.png", "dev/dev-1-0-img1.png"], "sentence": "W1.", "label": "True"},
            {"images": ["dev/dev-1-2-img0.png", "dev/dev-1-2-img1.png"], "sentence": "W1.", "label": "False"},
            {"images": ["dev/dev-2-0-img0.png", "dev/dev-2-0-img1.png"], "sentence": "W1.", "label": "False"}]"#;
        let pictures = ["1-0-img0", "1-0-img1", "1-2-img0", "1-2-img1", "2-0-img0", "2-0-img1"]
            .map(|p| format!("dev/dev-{p}.png"));
        let rows = examples(statements(true), "s.json", text, &pictures.each_ref().map(String::as_str));
        assert_eq!(rows.iter().map(|row| row.label).collect::<Vec<_>>(), [Some(1), Some(0), Some(0)]);
        assert_eq!(rows[0].ids, [2, 6, 3]);
        assert!(rows[0].group == rows[1].group && rows[0].group != rows[2].group, "{}", rows[0].group);
    }

    #[test]
    fn nlvr2s_own_layout() {
        let text = r#"{"identifier": "train-1-0-0", "sentence": "w1", "label": "False", "directory": 33, "left_url": "http://..."}
            {"identifier": "train-1-1-0", "sentence": "w1", "directory": 33}
            {"identifier": "dev-4-1-0", "sentence": "w2", "label": "true"}"#;
        let pictures = [
            "images/train/33/train-1-0-img0.png",
            "images/train/33/train-1-0-img1.png",
            "33/train-1-1-img0.png",
            "33/train-1-1-img1.png",
            "dev/dev-4-1-img0.png",
            "dev-4-1-img1.png",
        ];
        let rows = examples(statements(false), "s.json", text, &pictures);
        assert_eq!(rows.iter().map(|row| row.label).collect::<Vec<_>>(), [Some(0), None, Some(1)]);
        assert_eq!(
            rows.iter().map(|row| row.group.as_str()).collect::<Vec<_>>(),
            ["train-1-0", "train-1-0", "dev-4-0"]
        );
        assert_eq!(rows[2].identifier.as_deref(), Some("dev-4-1-0"));
    }

    #[test]
    fn what_is_no_statement_is_named() {
        refusals::<Statements>(&[
            (
                r#"{"images": ["a.png"], "sentence": "w1", "label": "True"}"#,
                "field `images`: expected the paths of two image files",
            ),
            (r#"{"images": ["a.png", 2], "sentence": "w1", "label": "True"}"#, "field `images`"),
            (r#"{"images": ["a", "b", "c"], "sentence": "w1", "label": "True"}"#, "field `images`"),
            (
                r#"{"images": ["a", "b"], "sentence": "", "label": "True"}"#,
                "field `sentence`: expected a string with words",
            ),
            (
                r#"{"images": ["a", "b"], "sentence": "w1", "label": "maybe"}"#,
                "field `label`: expected \"True\" or \"False\", found a string: \"maybe\"",
            ),
            (
                r#"{"identifier": "dev-1", "sentence": "w1", "label": "True"}"#,
                "field `identifier`: expected split-set-pair-sentence",
            ),
        ]);
    }

    #[test]
    fn a_label_is_needed_to_train() {
        let entry = PairStatement {
            images: [(); 2].map(|()| Location::File("a".into())),
            sentence: "w1".into(),
            label: None,
            identifier: None,
            group: String::new(),
            name: "s.json, record 4".into(),
        };
        let mut rng = rand_chacha::rand_core::SeedableRng::seed_from_u64(0);
        assert!(statements(false).row(entry.clone(), &mut rng).is_ok());
        let error = statements(true).row(entry, &mut rng).unwrap_err().to_string();
        assert!(error.contains("s.json, record 4: field `label`"), "{error}");
    }
}
