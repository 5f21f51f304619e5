//! REFER's files, which say where the true box of an expression is, and which boxes a detector found.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::expression::Expression;
use super::objects::{Bounds, BoxedPhrase, BoxedPicture, Detection};
use crate::sources::OpenError;

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

const REFS: &str = r#"REFER's refs as JSON: [{"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "testA"}] (python3 -c "import json, pickle, sys; json.dump(pickle.load(open(sys.argv[1], 'rb')), open(sys.argv[2], 'w'))" 'refs(unc).p' refs.json)"#;
const INSTANCES: &str = r#"COCO's instances: {"annotations": [{"id": 1, "bbox": [left, top, width, height]}]}"#;
const DETECTIONS: &str = r#"{"image id": [[left, top, width, height, score]]}"#;

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

/// The pictures of `expressions` with all their phrases and true boxes.
pub(super) fn join(expressions: Vec<Expression>, files: &ReferFiles) -> Result<Vec<BoxedPicture>, OpenError> {
    let refs: Vec<Ref> = read_json(&files.refs, REFS)?;
    let refs: HashMap<i64, Ref> = refs.into_iter().map(|r| (r.ref_id, r)).collect();
    let instances: Instances = read_json(&files.instances, INSTANCES)?;
    let boxes = instances.annotations.into_iter().map(|i| (i.id, i.bbox));
    let boxes: HashMap<i64, Bounds> = boxes.collect();
    let mut detections: Option<HashMap<String, Vec<Detection>>> = match &files.detections {
        Some(path) => Some(read_json(path, DETECTIONS)?),
        None => None,
    };

    let mut pictures: Vec<BoxedPicture> = Vec::new();
    let mut place: BTreeMap<String, usize> = BTreeMap::new();
    for Expression { mut pair, ref_id, .. } in expressions {
        let phrase = pair.captions.swap_remove(0);
        let missing = |path: &Path, what: String| OpenError::Missing {
            path: path.into(),
            what,
            wanted_by: format!("{}: {phrase:?}", pair.name),
        };
        let ref_id = ref_id.ok_or_else(|| missing(&files.refs, "a `ref_id` of the record".into()))?;
        let found = refs.get(&ref_id).ok_or_else(|| missing(&files.refs, format!("ref_id {ref_id}")))?;
        let annotation = || missing(&files.instances, format!("annotation {}", found.ann_id));
        let bounds = *boxes.get(&found.ann_id).ok_or_else(annotation)?;
        let at = *place.entry(pair.image.to_string()).or_insert_with(|| {
            // A picture without any detection has no proposals to be right with.
            let proposals = detections.as_mut().map(|all| {
                let found = all.remove(&found.image_id.to_string()).unwrap_or_default();
                found.into_iter().map(|Detection(bounds)| bounds).collect()
            });
            pictures.push(BoxedPicture { image: pair.image, objects: vec![], proposals, name: pair.name.clone() });
            pictures.len() - 1
        });
        let object = BoxedPhrase { phrase, bounds, split: Some(found.split.clone()) };
        let annotation = format!("{}, annotation {}", files.instances.display(), found.ann_id);
        object.check(&annotation)?;
        pictures[at].objects.push(object);
    }
    Ok(pictures)
}

/// A whole file of another kind than a list of records.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, OpenError> {
    let file = File::open(path).map_err(|error| OpenError::Io { path: path.into(), error })?;
    serde_json::from_reader(BufReader::new(file)).map_err(|error| OpenError::NotJson {
        path: path.into(),
        error,
        expected,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::formats::objects::read_boxes;

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
        assert_eq!(found[0].image.to_string(), files.path("a.jpg").display().to_string());
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
}
