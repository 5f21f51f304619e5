//! Pictures with phrases and the boxes that they name, to judge grounding by (specification, section 6).
//!
//! Two layouts:
//! - `[{"image", "objects": [{"phrase", "box": [left, top, width, height]}], "proposals"?: [[left, top, width, height, ...]]}]`, in pixels
//!   of the upright picture; other fields are passed over. The drawn scenes have it.
//! - the authors': `[{"image", "text", "ref_id"}]` with REFER's refs (as JSON), COCO's instances, and a detector's boxes by image id.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Left, top, width, height.
pub type Bounds = [f64; 4];

/// A picture with phrases.
#[derive(Clone, Debug, PartialEq)]
pub struct BoxedPicture {
    /// The image file.
    pub image: PathBuf,
    /// Phrases with what they name.
    pub objects: Vec<BoxedPhrase>,
    /// A detector's boxes, where there are any.
    pub proposals: Option<Vec<Bounds>>,
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

/// REFER's files beside the authors' annotations.
#[derive(Clone, Debug)]
pub struct ReferFiles {
    /// `[{"ref_id", "ann_id", "image_id", "split"}]`: REFER's pickle, written as JSON.
    pub refs: PathBuf,
    /// COCO's `{"annotations": [{"id", "bbox"}]}`.
    pub instances: PathBuf,
    /// `{image_id: [[left, top, width, height, score]]}`; without: no proposals.
    pub detections: Option<PathBuf>,
}

/// Why boxes could not be read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum BoxesError {
    #[error("{}: {error}", path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{}: {error}; expected {expected}", path.display())]
    Json { path: PathBuf, error: serde_json::Error, expected: &'static str },
    #[error("{}: no record with a phrase and a box", path.display())]
    Empty { path: PathBuf },
    #[error("{}, record {record}: the box {bounds:?} of {phrase:?}: expected left, top, width and height in pixels, the last two above 0", path.display())]
    Box { path: PathBuf, record: usize, phrase: String, bounds: Bounds },
    #[error("{}: {kind} {id} is missing; {wanted_by} needs it", path.display())]
    Missing { path: PathBuf, kind: &'static str, id: i64, wanted_by: String },
}

const BOXED: &str = r#"[{"image": "1.jpg", "objects": [{"phrase": "a dog", "box": [left, top, width, height]}]}]"#;
const AUTHORS: &str = r#"[{"image": "1.jpg", "text": "the dog on the left", "ref_id": 1}]"#;
const REFS: &str = r#"REFER's refs as JSON: [{"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "testA"}] (python3 -c "import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb')), open(sys.argv[2], 'w'))" 'refs(unc).p' refs.json)"#;
const INSTANCES: &str = r#"COCO's instances: {"annotations": [{"id": 1, "bbox": [left, top, width, height]}]}"#;
const DETECTIONS: &str = r#"{"image id": [[left, top, width, height, score]]}"#;

#[derive(Deserialize)]
struct Record {
    image: PathBuf,
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
struct Detection(Bounds);

impl TryFrom<Vec<f64>> for Detection {
    type Error = String;

    fn try_from(numbers: Vec<f64>) -> Result<Self, String> {
        match numbers.first_chunk() {
            Some(bounds) => Ok(Self(*bounds)),
            None => Err(format!("a box of {} numbers, at least 4 expected", numbers.len())),
        }
    }
}

#[derive(Deserialize)]
struct Annotated {
    image: PathBuf,
    text: String,
    ref_id: i64,
}

#[derive(Deserialize)]
struct Ref {
    ref_id: i64,
    ann_id: i64,
    image_id: i64,
    split: String,
}

#[derive(Deserialize)]
struct Instances {
    annotations: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    id: i64,
    bbox: Bounds,
}

/// Reads a file of boxes; image paths are relative to `image_root`, or else to the file. `refer` says that it has the authors' layout.
/// Pictures come in the order of the file, each once.
///
/// # Errors
/// What is wrong, in which file, and what was expected.
pub fn read_boxes(
    path: &Path,
    image_root: Option<&Path>,
    refer: Option<&ReferFiles>,
) -> Result<Vec<BoxedPicture>, BoxesError> {
    let root = image_root.or(path.parent()).unwrap_or(Path::new("."));
    let mut pictures = match refer {
        Some(files) => read_refer(path, files)?,
        None => read_objects(path)?,
    };
    pictures.retain(|picture| !picture.objects.is_empty());
    if pictures.is_empty() {
        return Err(BoxesError::Empty { path: path.into() });
    }
    for (record, picture) in pictures.iter_mut().enumerate() {
        picture.image = root.join(&picture.image);
        for BoxedPhrase { phrase, bounds, .. } in &picture.objects {
            let finite = bounds.iter().all(|number| number.is_finite());
            if !(finite && bounds[2] > 0.0 && bounds[3] > 0.0) {
                return Err(BoxesError::Box {
                    path: path.into(),
                    record: record + 1,
                    phrase: phrase.clone(),
                    bounds: *bounds,
                });
            }
        }
    }
    Ok(pictures)
}

fn read_objects(path: &Path) -> Result<Vec<BoxedPicture>, BoxesError> {
    let records: Vec<Record> = read_json(path, BOXED)?;
    let phrase = |object: Object| BoxedPhrase { phrase: object.phrase, bounds: object.r#box, split: object.split };
    Ok(records
        .into_iter()
        .map(|record| BoxedPicture {
            image: record.image,
            objects: record.objects.into_iter().map(phrase).collect(),
            proposals: record.proposals.map(|boxes| boxes.into_iter().map(|Detection(bounds)| bounds).collect()),
        })
        .collect())
}

fn read_refer(path: &Path, files: &ReferFiles) -> Result<Vec<BoxedPicture>, BoxesError> {
    let refs: Vec<Ref> = read_json(&files.refs, REFS)?;
    let refs: HashMap<i64, Ref> = refs.into_iter().map(|r| (r.ref_id, r)).collect();
    let instances: Instances = read_json(&files.instances, INSTANCES)?;
    let boxes = instances.annotations.into_iter().map(|i| (i.id, i.bbox));
    let boxes: HashMap<i64, Bounds> = boxes.collect();
    let mut detections: Option<HashMap<String, Vec<Detection>>> = match &files.detections {
        Some(path) => Some(read_json(path, DETECTIONS)?),
        None => None,
    };
    let annotated: Vec<Annotated> = read_json(path, AUTHORS)?;

    let mut pictures: Vec<BoxedPicture> = Vec::new();
    let mut place: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for Annotated { image, text, ref_id } in annotated {
        let missing =
            |path: &Path, kind, id| BoxesError::Missing { path: path.into(), kind, id, wanted_by: format!("{text:?}") };
        let found = refs.get(&ref_id).ok_or_else(|| missing(&files.refs, "ref_id", ref_id))?;
        let bounds = boxes.get(&found.ann_id).ok_or_else(|| missing(&files.instances, "annotation", found.ann_id))?;
        let at = *place.entry(image.clone()).or_insert_with(|| {
            // A picture without any detection has no proposals to be right with.
            let proposals = detections.as_mut().map(|all| {
                let found = all.remove(&found.image_id.to_string()).unwrap_or_default();
                found.into_iter().map(|Detection(bounds)| bounds).collect()
            });
            pictures.push(BoxedPicture { image, objects: vec![], proposals });
            pictures.len() - 1
        });
        pictures[at].objects.push(BoxedPhrase { bounds: *bounds, split: Some(found.split.clone()), phrase: text });
    }
    Ok(pictures)
}

fn read_json<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, BoxesError> {
    let file = File::open(path).map_err(|error| BoxesError::Io { path: path.into(), error })?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| BoxesError::Json {
        path: path.into(),
        error,
        expected,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, text) in files {
                fs::write(folder.path().join(name), text).unwrap();
            }
            Self(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn refer(&self) -> ReferFiles {
            ReferFiles {
                refs: self.path("refs.json"),
                instances: self.path("instances.json"),
                detections: Some(self.path("detections.json")),
            }
        }
    }

    const REFER: [(&str, &str); 4] = [
        (
            "data.json",
            r#"[{"image": "a.jpg", "text": "left dog", "ref_id": 5}, {"image": "b.jpg", "text": "cat", "ref_id": 6},
                {"image": "a.jpg", "text": "right dog", "ref_id": 7}]"#,
        ),
        (
            "refs.json",
            r#"[{"ref_id": 5, "ann_id": 50, "image_id": 1, "split": "testA", "sentences": []},
                {"ref_id": 6, "ann_id": 60, "image_id": 2, "split": "testB"}, {"ref_id": 7, "ann_id": 70, "image_id": 1, "split": "testA"}]"#,
        ),
        (
            "instances.json",
            r#"{"images": [], "annotations": [{"id": 50, "bbox": [0, 1, 2, 3.5], "iscrowd": 0}, {"id": 60, "bbox": [1, 1, 1, 1]},
                {"id": 70, "bbox": [9, 9, 9, 9]}]}"#,
        ),
        ("detections.json", r#"{"1": [[0, 0, 4, 4, 0.9], [5, 5, 4, 4, 0.8]]}"#),
    ];

    #[test]
    fn refers_files_are_joined_by_their_ids() {
        let files = Files::new(&REFER);
        let found = read_boxes(&files.path("data.json"), None, Some(&files.refer())).unwrap();
        assert_eq!(found.len(), 2, "pictures, each once");
        assert_eq!(found[0].image, files.path("a.jpg"));
        let phrases: Vec<_> = found[0].objects.iter().map(|o| (o.phrase.as_str(), o.bounds)).collect();
        assert_eq!(phrases, [("left dog", [0.0, 1.0, 2.0, 3.5]), ("right dog", [9.0; 4])]);
        assert_eq!(found[1].objects[0].split.as_deref(), Some("testB"));
        let first = found[0].proposals.as_ref().unwrap();
        assert_eq!(first[1], [5.0, 5.0, 4.0, 4.0]);
        assert_eq!(found[1].proposals, Some(vec![]), "detections without this picture");
    }

    #[test]
    fn a_missing_id_is_named_with_its_file() {
        for (file, text, words) in [
            ("refs.json", "[]", ["refs.json", "ref_id 5"]),
            ("instances.json", r#"{"annotations": []}"#, ["instances.json", "annotation 50"]),
        ] {
            let files = Files::new(&REFER);
            fs::write(files.path(file), text).unwrap();
            let error = read_boxes(&files.path("data.json"), None, Some(&files.refer()));
            let error = error.unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)) && error.contains("left dog"), "{error}");
        }
    }

    #[test]
    fn plain_boxes_with_and_without_proposals() {
        let files = Files::new(&[(
            "boxes.json",
            r#"[{"image": "a.png", "width": 9, "objects": [{"phrase": "a", "box": [1, 2, 3, 4], "colour": "red"}]},
                {"image": "b.png", "objects": [{"phrase": "b", "box": [0, 0, 1, 1]}], "proposals": [[0, 0, 1, 1, 0.5], [1, 1, 1, 1]]},
                {"image": "c.png", "objects": []}]"#,
        )]);
        let root = Path::new("elsewhere");
        let found = read_boxes(&files.path("boxes.json"), Some(root), None).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0].image, &found[0].proposals), (&root.join("a.png"), &None));
        assert_eq!(found[1].proposals.as_ref().unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_box_is_refused_with_its_place() {
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
            let files = Files::new(&[("boxes.json", text)]);
            let error = read_boxes(&files.path("boxes.json"), None, None).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("boxes.json"), "{error}");
        }
        let error = read_boxes(Path::new("nowhere.json"), None, None).unwrap_err();
        assert!(error.to_string().starts_with("nowhere.json: "));
    }
}
