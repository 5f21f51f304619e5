//! The fields of a record, whatever file it is in.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::formats::Place;
use crate::record::{Entry, Location, RecordError, identity};
use crate::text::caption;

/// The path of an image file.
pub(crate) fn image<'a>(value: Option<&'a Value>, place: &Place) -> Result<&'a str, RecordError> {
    match value {
        Some(Value::String(image)) if !image.is_empty() => Ok(image),
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

/// Text of which something is left when it is cleaned.
pub(crate) fn words<'a>(field: &str, value: Option<&'a Value>, place: &Place) -> Result<&'a str, RecordError> {
    let text = string(field, value, place)?;
    match caption::count_words(text) {
        0 => Err(wrong(&place.name, field, "a string with words in it", value)),
        _ => Ok(text),
    }
}

/// Text, if there is any.
pub(crate) fn optional_string(
    field: &str,
    value: Option<&Value>,
    place: &Place,
) -> Result<Option<String>, RecordError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        value => string(field, value, place).map(|text| Some(text.to_owned())),
    }
}

/// A whole number.
pub(crate) fn integer(field: &str, value: Option<&Value>, place: &Place) -> Result<i64, RecordError> {
    let number = value.and_then(Value::as_i64);
    number.ok_or_else(|| wrong(&place.name, field, "a whole number", value))
}

/// A whole number, if there is one.
pub(crate) fn optional_integer(field: &str, value: Option<&Value>, place: &Place) -> Result<Option<i64>, RecordError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        value => integer(field, value, place).map(Some),
    }
}

/// What bytes are that are no UTF-8.
pub(crate) const NOT_UTF8: &str = "not UTF-8 text; if it is Latin-1: `iconv -f LATIN1 -t UTF-8 FILE > CONVERTED`";

/// Parses JSON. Python writes `NaN` and `Infinity`, which are no JSON and say nothing: they are read as null.
pub(crate) fn from_json<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|error| serde_json::from_slice(&finite(text).ok_or(error)?))
}

/// `text` with null for every `NaN` and `Infinity` outside of strings, where there are any.
fn finite(text: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut finite = Vec::with_capacity(text.len());
    let (mut at, mut in_string, mut found) = (0, false, false);
    while at < text.len() {
        let word = WORDS.into_iter().find(|word| !in_string && text[at..].starts_with(word));
        let taken = match (word, text[at]) {
            (Some(word), _) => word.len(),
            (None, b'\\') if in_string => 2.min(text.len() - at),
            (None, byte) => {
                in_string ^= byte == b'"';
                1
            }
        };
        finite.extend_from_slice(word.map_or(&text[at..at + taken], |_| b"null"));
        found |= word.is_some();
        at += taken;
    }
    found.then_some(finite)
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
    Ok(given_image_id(value, name)?.unwrap_or_else(|| identity(image)))
}

/// The number that stands for an image id, if there is one.
pub(crate) fn given_image_id(value: Option<&Value>, name: &str) -> Result<Option<i64>, RecordError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(id)) => Ok(Some(identity(id.as_bytes()))),
        Some(Value::Number(id)) => Ok(Some(identity(id.to_string().as_bytes()))),
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
    let kind = match value {
        Value::Null => return "null, or NaN".into(),
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
        Ok(Entry { image, captions, name, image_id, subcategory: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_writes_for_numbers_that_are_none_is_null() {
        let parsed: Value =
            from_json(br#"{"a": NaN, "b": [-Infinity, Infinity], "NaN": "a NaN \" NaN", "c": 1}"#).unwrap();
        assert_eq!(parsed, serde_json::json!({"a": null, "b": [null, null], "NaN": "a NaN \" NaN", "c": 1}));
        for text in [r#"{"a": nan}"#, r#"{"a": NaN"#, r#"{"a": NaNs}"#, r#"{"a": "x}"#, "{\"a\": \"\\"] {
            assert!(from_json::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
