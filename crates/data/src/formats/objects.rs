//! Pictures with phrases and the boxes of what they name, to judge grounding by:
//! `[{"image", "objects": [{"phrase", "box": [left, top, width, height]}], "proposals"?: [[left, top, width, height, ...]]}]`, in pixels of
//! the upright picture. The drawn scenes have it.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde::Deserialize;

use super::expression::Expressions;
use super::refer::{self, ReferFiles};
use super::{Format, Place, is_among};
use crate::dataset::{Dataset, Source};
use crate::record::{Location, RecordError};
use crate::sources::{OpenError, Options};

/// Left, top, width, height.
pub type Bounds = [f64; 4];

/// Pictures with phrases and boxes; one without any phrase is passed over.
#[derive(Clone, Copy, Debug)]
pub struct Objects;

/// A picture with phrases.
#[derive(Clone, Debug)]
pub struct BoxedPicture {
    /// Where the picture is.
    pub image: Location,
    /// Phrases with what they name.
    pub objects: Vec<BoxedPhrase>,
    /// A detector's boxes, where there are any.
    pub proposals: Option<Vec<Bounds>>,
    /// File and position, for messages.
    pub name: String,
}

/// A phrase and the box of what it names.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxedPhrase {
    /// The words.
    pub phrase: String,
    /// Where it is.
    pub bounds: Bounds,
    /// Part of the data that it belongs to (`testA`, ...), where the data say so.
    pub split: Option<String>,
}

/// The fields of a record that matter; others are allowed.
#[derive(Deserialize)]
struct Fields {
    image: String,
    objects: Vec<Object>,
    proposals: Option<Vec<Detection>>,
}

#[derive(Deserialize)]
struct Object {
    phrase: String,
    r#box: Bounds,
    split: Option<String>,
}

/// A box, whatever follows it.
#[derive(Deserialize)]
#[serde(try_from = "Vec<f64>")]
pub(super) struct Detection(pub Bounds);

impl TryFrom<Vec<f64>> for Detection {
    type Error = String;

    fn try_from(numbers: Vec<f64>) -> Result<Self, String> {
        match numbers.first_chunk() {
            Some(bounds) => Ok(Self(*bounds)),
            None => Err(format!("a box of {} numbers, at least 4 expected", numbers.len())),
        }
    }
}

impl BoxedPhrase {
    /// Refuses what is no box.
    pub(super) fn check(&self, name: &str) -> Result<(), RecordError> {
        let Self { phrase, bounds, .. } = self;
        if bounds.iter().all(|number| number.is_finite()) && bounds[2] > 0.0 && bounds[3] > 0.0 {
            return Ok(());
        }
        let expected = "left, top, width and height in pixels, the last two above 0";
        let problem = format!("the box {bounds:?} of {phrase:?}: expected {expected}");
        Err(RecordError::Malformed { name: name.into(), problem })
    }
}

impl Format for Objects {
    type Entry = BoxedPicture;
    type Row = BoxedPicture;
    const EXAMPLE: &'static str =
        r#"[{"image": "1.jpg", "objects": [{"phrase": "a dog", "box": [left, top, width, height]}]}]"#;

    fn read(json: &[u8], place: &Place) -> Result<Vec<BoxedPicture>, RecordError> {
        let Fields { image, objects, proposals } = place.fields::<Self, _>(json)?;
        let phrase = |object: Object| BoxedPhrase { phrase: object.phrase, bounds: object.r#box, split: object.split };
        let objects: Vec<BoxedPhrase> = objects.into_iter().map(phrase).collect();
        objects.iter().try_for_each(|object| object.check(&place.name))?;
        if objects.is_empty() {
            return Ok(vec![]);
        }
        let proposals = proposals.map(|boxes| boxes.into_iter().map(|Detection(bounds)| bounds).collect());
        let (image, _) = place.picture(&[image])?;
        Ok(vec![BoxedPicture { image, objects, proposals, name: place.name.clone() }])
    }

    fn name(entry: &BoxedPicture) -> &str {
        &entry.name
    }

    fn texts(entry: BoxedPicture) -> Vec<String> {
        entry.objects.into_iter().map(|object| object.phrase).collect()
    }

    fn pictures(entry: &BoxedPicture) -> Vec<Location> {
        vec![entry.image.clone()]
    }

    fn row(&self, entry: BoxedPicture, _: &mut ChaCha8Rng) -> Result<BoxedPicture, RecordError> {
        Ok(entry)
    }
}

/// Reads a file of boxes; image paths are relative to `image_root`, or else to the file. `refer` says that it has the authors' layout, and
/// where REFER's files are. Pictures come in the order of the file, each once; phrases of other `splits` than these are left out (none: all
/// are there).
///
/// # Errors
/// What is wrong, in which file and record, and what was expected.
pub fn read_boxes(
    path: &Path,
    image_root: Option<&Path>,
    refer: Option<&ReferFiles>,
    splits: &[String],
) -> Result<Vec<BoxedPicture>, OpenError> {
    let mut pictures = match refer {
        Some(files) => return refer::join(read_all::<Expressions>(path, image_root)?, files, splits),
        None => read_all::<Objects>(path, image_root)?,
    };
    if !splits.is_empty() {
        for picture in &mut pictures {
            picture.objects.retain(|object| object.split.as_ref().is_some_and(|split| is_among(splits, split)));
        }
        pictures.retain(|picture| !picture.objects.is_empty());
        if pictures.is_empty() {
            return Err(OpenError::Split { path: path.into(), splits: splits.to_vec() });
        }
    }
    Ok(pictures)
}

/// All records of a file, none of which may be bad.
pub(super) fn read_all<F: Format>(path: &Path, image_root: Option<&Path>) -> Result<Vec<F::Entry>, OpenError> {
    let options = Options { image_root: image_root.map(Path::to_path_buf), max_bad_share: 0.0, ..Options::default() };
    let dataset = Dataset::<F>::of(&[Source::from(path.to_path_buf())], &options, &mut |_, _, _| ())?;
    (0..dataset.len()).map(|index| Ok(dataset.entry(index)?)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn plain_boxes_with_and_without_proposals() {
        let folder = tempfile::tempdir().unwrap();
        let (path, root) = (folder.path().join("boxes.json"), folder.path().join("elsewhere"));
        let text = r#"[{"image": "a.png", "width": 9, "objects": [{"phrase": "a", "box": [1, 2, 3, 4], "colour": "red"}]},
            {"image": "b.png", "objects": [{"phrase": "b", "box": [0, 0, 1, 1]}], "proposals": [[0, 0, 1, 1, 0.5], [1, 1, 1, 1]]},
            {"image": "c.png", "objects": []}]"#;
        fs::write(&path, text).unwrap();
        fs::create_dir(&root).unwrap();
        let found = read_boxes(&path, Some(&root), None, &[]).unwrap();
        assert_eq!(found.len(), 2);
        let file = |picture: &BoxedPicture| PathBuf::from(picture.image.to_string());
        assert_eq!((file(&found[0]), &found[0].proposals), (root.join("a.png"), &None));
        assert_eq!(found[1].proposals.as_ref().unwrap().len(), 2);
        assert_eq!(file(&read_boxes(&path, None, None, &[]).unwrap()[0]), folder.path().join("a.png"));
        let text = r#"[{"image": "a.png", "objects": [{"phrase": "a", "box": [1, 2, 3, 4], "split": "val"}, {"phrase": "b", "box": [1, 2, 3, 4]}]}]"#;
        fs::write(&path, text).unwrap();
        let of = |split: &str| read_boxes(&path, None, None, &[split.into()]);
        assert_eq!(of("val").unwrap()[0].objects.len(), 1);
        assert!(of("test").unwrap_err().to_string().contains("no record of split `test`"));
    }

    #[test]
    fn what_is_no_box_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boxes.json");
        for (text, words) in [
            ("[]", "no record"),
            (r#"[{"image": "a.png"}]"#, "missing field `objects`"),
            (r#"[{"image": "a.png", "objects": [{"phrase": "a", "box": [1, 2, 3]}]}]"#, "invalid length 3"),
            (
                r#"[{"image": "a.png", "objects": [{"phrase": "a", "box": [1, 2, 0, 4]}]}]"#,
                "record 1: the box [1.0, 2.0, 0.0, 4.0] of \"a\"",
            ),
            (r#"[{"image": "a.png", "objects": [], "proposals": [[1]]}]"#, "a box of 1 numbers"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read_boxes(&path, None, None, &[]).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("boxes.json"), "{error}");
        }
        let error = read_boxes(Path::new("nowhere.json"), None, None, &[]).unwrap_err();
        assert!(error.to_string().starts_with("data nowhere.json: "));
    }
}
