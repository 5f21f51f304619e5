//! Captions that lie beside an image: a `.txt` with one caption, a `.json` with `caption` (one or several) and perhaps
//! `image_id`, as `img2dataset` writes them. The JSON's captions count where there are any.

use serde::Deserialize;
use serde_json::Value;

use super::fields;
use crate::record::{Entry, Location, RecordError};

/// Longest caption file.
pub const MAX_TEXT_BYTES: u64 = 1 << 20;

/// Endings of images, in lower case.
pub const IMAGE_ENDINGS: [&str; 6] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp"];

#[derive(Default, Deserialize)]
struct Fields {
    caption: Option<Value>,
    image_id: Option<Value>,
}

/// The entry of an image with what lies beside it; `identity` names the image where the JSON does not.
pub(super) fn entry(
    image: Location,
    text: Option<Vec<u8>>,
    json: Option<Vec<u8>>,
    name: String,
    identity: &[u8],
) -> Result<Entry, RecordError> {
    let malformed = |problem: String| RecordError::Malformed { name: name.clone(), problem };
    let beside: Fields = match &json {
        Some(json) => fields::from_json(json).map_err(|e| malformed(format!("its .json file: {e}")))?,
        None => Fields::default(),
    };
    let captions = match (beside.caption, text) {
        (Some(caption), _) => fields::captions(Some(caption), &name)?,
        (None, Some(text)) => {
            let text = String::from_utf8(text).map_err(|_| malformed("its .txt file is not UTF-8 text".into()))?;
            vec![text.trim().to_owned()] // an editor's last line break is no part of it
        }
        (None, None) => return Err(no_caption(name)),
    };
    let image_id = fields::image_id(beside.image_id.as_ref(), identity, &name)?;
    Entry::new(image, captions, name, image_id)
}

/// The error for an image with nothing beside it.
pub(super) fn no_caption(name: String) -> RecordError {
    let problem =
        "no caption: expected a .txt file, or a .json file with `caption`, of the same name beside the image".into();
    RecordError::Malformed { name, problem }
}
