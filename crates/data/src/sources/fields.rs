//! The fields of a record, whatever file it is in.

use std::path::PathBuf;

use serde_json::Value;

use crate::formats::Place;
use crate::record::{Entry, Location, RecordError, identity};
use crate::text::caption;

/// The path of an image file.
pub(crate) fn image(value: Option<&Value>, place: &Place) -> Result<PathBuf, RecordError> {
    match value {
        Some(Value::String(image)) if !image.is_empty() => Ok(place.root.join(image)),
        other => Err(wrong(&place.name, "image", "the path of an image file", other)),
    }
}

/// Text.
pub(crate) fn string<'a>(field: &str, value: Option<&'a Value>, place: &Place) -> Result<&'a str, RecordError> {
    match value {
        Some(Value::String(text)) => Ok(text),
        other => Err(wrong(&place.name, field, "a string", other)),
    }
}

/// A whole number, if there is one.
pub(crate) fn optional_integer(field: &str, value: Option<&Value>, place: &Place) -> Result<Option<i64>, RecordError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(number) => Ok(Some(number)),
            None => Err(wrong(&place.name, field, "a whole number", Some(value))),
        },
    }
}

/// A caption or several.
pub(crate) fn captions(value: Option<Value>, name: &str) -> Result<Vec<String>, RecordError> {
    let text = |caption| match caption {
        Value::String(caption) => Ok(caption),
        other => Err(wrong(name, "caption", "a list of nothing but strings", Some(&other))),
    };
    match value {
        Some(Value::String(caption)) => Ok(vec![caption]),
        Some(Value::Array(captions)) => captions.into_iter().map(text).collect(),
        other => Err(wrong(name, "caption", "a string or a list of strings", other.as_ref())),
    }
}

/// The number that stands for an image id: of `value`, or else of `image`, which names the image.
pub(crate) fn image_id(value: Option<&Value>, image: &[u8], name: &str) -> Result<i64, RecordError> {
    match value {
        None | Some(Value::Null) => Ok(identity(image)),
        Some(Value::String(id)) => Ok(identity(id.as_bytes())),
        Some(Value::Number(id)) => Ok(identity(id.to_string().as_bytes())),
        other => Err(wrong(name, "image_id", "a number or a string", other)),
    }
}

/// The error for a field that is not as it should be.
pub(crate) fn wrong(name: &str, field: &str, expected: &'static str, value: Option<&Value>) -> RecordError {
    let found = value.map_or("nothing".into(), describe);
    RecordError::Field { name: name.into(), field: field.into(), expected, found }
}

/// A value for a message: what it is and how it begins.
fn describe(value: &Value) -> String {
    const SHOWN: usize = 60;
    let text = value.to_string();
    let kind = match value {
        Value::Null => return "null".into(),
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{kind}: {}...", &text[..end]),
        None => format!("{kind}: {text}"),
    }
}

impl Entry {
    /// An entry with those of `captions` that say something.
    pub(crate) fn new(
        image: Location,
        mut captions: Vec<String>,
        name: String,
        image_id: i64,
    ) -> Result<Self, RecordError> {
        captions.retain(|c| !caption::clean(c).is_empty());
        if captions.is_empty() {
            return Err(RecordError::EmptyCaption { name });
        }
        Ok(Entry { image, captions, name, image_id })
    }
}
