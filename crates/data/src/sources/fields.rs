//! The fields of a record, whatever file it is in.

use serde_json::Value;

use crate::caption;
use crate::record::{Entry, Location, RecordError, identity};

/// A caption or several.
pub(super) fn captions(value: Option<Value>, name: &str) -> Result<Vec<String>, RecordError> {
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
pub(super) fn image_id(value: Option<&Value>, image: &[u8], name: &str) -> Result<i64, RecordError> {
    match value {
        None | Some(Value::Null) => Ok(identity(image)),
        Some(Value::String(id)) => Ok(identity(id.as_bytes())),
        Some(Value::Number(id)) => Ok(identity(id.to_string().as_bytes())),
        other => Err(wrong(name, "image_id", "a number or a string", other)),
    }
}

/// The error for a field that is not as it should be.
pub(super) fn wrong(name: &str, field: &str, expected: &'static str, value: Option<&Value>) -> RecordError {
    let found = value.map_or("nothing".into(), describe);
    RecordError::Field { name: name.into(), field: field.into(), expected, found }
}

/// A value for a message: what it is and how it begins.
fn describe(value: &Value) -> String {
    let kind = match value {
        Value::Null => return "null".into(),
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("{kind}: {}", brief(&value.to_string(), 60))
}

/// The first `shown` characters of a text that is longer.
pub(super) fn brief(text: &str, shown: usize) -> String {
    match text.char_indices().nth(shown) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into(),
    }
}

impl Entry {
    /// An entry with those of `captions` that say something.
    pub(super) fn new(
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
