//! Expressions that single something out in a picture, for grounding: `[{"image", "text", "ref_id"?}]`, as the authors have them, an entry
//! an expression.

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use super::pairs::{Pair, Pairs};
use super::{Format, Place};
use crate::loader::SettingError;
use crate::record::{Entry, Location, RecordError, identity};
use crate::sources::fields;

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
        let path = fields::image(image.as_ref(), place)?;
        let text = fields::string("text", text.as_ref(), place)?;
        let ref_id = fields::optional_integer("ref_id", ref_id.as_ref(), place)?;
        let image_id = identity(path.as_os_str().as_encoded_bytes());
        let image = image.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        let pair = Entry::new(Location::File(path), vec![text.to_owned()], place.name.clone(), image_id)?;
        Ok(vec![Expression { pair, image, ref_id }])
    }

    fn name(entry: &Expression) -> &str {
        &entry.pair.name
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
