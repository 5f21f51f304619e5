//! Expressions that single something out in a picture, for grounding: `[{"image", "text", "ref_id"?}]`, as the authors have them, an entry
//! an expression.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use super::pairs::{Pair, Pairs};
use super::{Format, Place, refer};
use crate::loader::SettingError;
use crate::record::{Entry, Location, RecordError};
use crate::sources::{self, OpenError, Options, Records, Watch, fields};

/// How expressions become rows: like captions. Those of one image file are each other's positives.
#[derive(Clone, Debug)]
pub struct Expressions(pub Pairs);

/// An expression and its picture.
#[derive(Clone, Debug)]
pub struct Expression {
    /// Picture and words.
    pub pair: Entry,
    /// The image file as the record names it.
    pub image: String,
    /// What REFER knows it by.
    pub ref_id: Option<i64>,
}

/// The fields of a record that matter; others are allowed.
#[derive(Deserialize)]
struct Fields {
    image: Option<Value>,
    text: Option<Value>,
    ref_id: Option<Value>,
}

impl Format for Expressions {
    type Entry = Expression;
    type Row = Pair;
    const EXAMPLE: &'static str = r#"[{"image": "1.jpg", "text": "the dog on the left", "ref_id": 1}]"#;

    fn read(json: &[u8], place: &Place) -> Result<Vec<Expression>, RecordError> {
        let Fields { image, text, ref_id } = place.fields::<Self, _>(json)?;
        let image = fields::image(image.as_ref(), place)?.to_owned();
        let text = fields::words("text", text.as_ref(), place)?.to_owned();
        let ref_id = fields::optional_integer("ref_id", ref_id.as_ref(), place)?;
        let (location, image_id) = place.picture(std::slice::from_ref(&image))?;
        let pair = Entry::new(location, vec![text], place.name.clone(), image_id)?;
        Ok(vec![Expression { pair, image, ref_id }])
    }

    fn name(entry: &Expression) -> &str {
        &entry.pair.name
    }

    fn texts(entry: Expression) -> Vec<String> {
        entry.pair.captions
    }

    fn pictures(entry: &Expression) -> Vec<Location> {
        vec![entry.pair.image.clone()]
    }

    fn check(&self, side: u32) -> Result<(), SettingError> {
        self.0.check(side)
    }

    fn row(&self, entry: Expression, rng: &mut ChaCha8Rng) -> Result<Pair, RecordError> {
        self.0.row(entry.pair, rng)
    }
}

/// Opens expressions as pairs of a picture and a caption: REFER's refs with the `instances.json` beside them, or the authors' list.
pub(super) fn open_pairs(path: &Path, options: &Options, watch: Watch) -> Result<Box<dyn Records>, OpenError> {
    if refer::is_refs(path) {
        return Ok(Box::new(InMemory(refer::pairs(path, options)?)));
    }
    Ok(Box::new(OfExpressions(sources::open_json::<Expressions>(path, options, watch)?)))
}

/// Pairs that are read as expressions.
#[derive(Debug)]
struct OfExpressions(Box<dyn Records<Expression>>);

impl Records for OfExpressions {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        Ok(self.0.entry(index)?.pair)
    }
}

#[derive(Debug)]
struct InMemory(Vec<Entry>);

impl Records for InMemory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn entry(&self, index: u64) -> Result<Entry, RecordError> {
        Ok(self.0[index as usize].clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::formats::check::{examples, refusals};
    use crate::text::vocabulary::tests::numbered;

    #[test]
    fn expressions_of_one_file_are_of_one_image() {
        let text = r#"[{"image": "a.png", "text": "W1, w2!"}, {"image": "b.png", "text": "w3", "ref_id": 7}, {"image": "a.png", "text": "w4"}]"#;
        let pairs = Pairs { patch_grid: 4, masked_patches: 0, ..Pairs::new(Arc::new(numbered(9))) };
        let rows = examples(Expressions(pairs), "e.json", text, &["a.png", "b.png"]);
        assert_eq!(rows[0].ids, [2, 6, 7, 3]);
        assert!(rows[0].image_id == rows[2].image_id && rows[0].image_id != rows[1].image_id);
    }

    #[test]
    fn what_is_no_expression_is_named() {
        refusals::<Expressions>(&[
            (r#"{"image": "a.png"}"#, "field `text`: expected a string, found nothing"),
            (r#"{"image": "a.png", "text": "?!"}"#, "field `text`: expected a string with words in it"),
            (r#"{"image": "a.png", "text": "a", "ref_id": "x"}"#, "field `ref_id`: expected a whole number"),
            (r#"{"image": 3, "text": "a"}"#, "field `image`"),
        ]);
    }
}
