//! REFER's files, which say where the true box of an expression is, and which boxes a detector found: `refs(unc).p`, a pickle that is
//! read without being run, or the same as JSON; COCO's `instances.json`; a detector's boxes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use simla_weights::{Limits, Node, read_data};

use super::expression::Expression;
use super::is_among;
use super::objects::{Bounds, BoxedPhrase, BoxedPicture, Detection};
use crate::record::{Entry, Location, RecordError};
use crate::sources::{OpenError, Options, Pictures};
use crate::text::caption;

/// REFER's files.
#[derive(Clone, Debug)]
pub struct ReferFiles {
    /// `[{"ref_id", "ann_id", "image_id", "split", "sentences": [{"sent"}]}]`: REFER's pickle, or the same as JSON.
    pub refs: PathBuf,
    /// COCO's `{"images": [{"id", "file_name"}], "annotations": [{"id", "bbox"}]}`.
    pub instances: PathBuf,
    /// `{image_id: [[left, top, width, height, score]]}`; without: no proposals.
    pub detections: Option<PathBuf>,
}

const REFS: &str = r#"REFER's refs: [{"ref_id": 1, "ann_id": 1, "image_id": 1, "split": "testA", "sentences": [{"sent": "left dog"}]}]"#;
const INSTANCES: &str = r#"COCO's instances: {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": [{"id": 1, "bbox": [left, top, width, height]}]}"#;
const DETECTIONS: &str = r#"{"image id": [[left, top, width, height, score]]}"#;

#[derive(Deserialize)]
struct Ref {
    ref_id: i64,
    ann_id: i64,
    image_id: i64,
    split: String,
    #[serde(default)]
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    sent: String,
}

#[derive(Deserialize)]
struct Instances {
    #[serde(default)]
    images: Vec<Image>,
    annotations: Vec<Instance>,
}

#[derive(Deserialize)]
struct Image {
    id: i64,
    file_name: String,
}

#[derive(Deserialize)]
struct Instance {
    id: i64,
    bbox: Bounds,
}

/// Whether a file is REFER's refs by its name.
pub(super) fn is_refs(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    is_pickle(ending) || (name.starts_with("refs") && ending == "json")
}

fn is_pickle(ending: &str) -> bool {
    ["p", "pkl", "pickle"].contains(&ending)
}

impl ReferFiles {
    /// As [`ReferFiles::with`]; none where `path` is called otherwise than refs are (`refs(unc).p`, `refs.json`).
    pub fn beside(path: &Path) -> Option<Self> {
        is_refs(path).then(|| Self::with(path))
    }

    /// Refs with the `instances.json` beside them, and `dets.json` where it is there.
    pub fn with(refs: &Path) -> Self {
        let detections = Some(refs.with_file_name("dets.json")).filter(|path| path.exists());
        Self { refs: refs.into(), instances: refs.with_file_name("instances.json"), detections }
    }
}

/// REFER's own files as records: the pictures of the refs of `splits` (none: all), with every sentence and its true box. Pictures are
/// relative to `image_root`, or else to `instances`; they come in the order of the refs, each once.
///
/// # Errors
/// What is wrong, in which file and record, and what was expected.
pub fn read_refer(
    files: &ReferFiles,
    image_root: Option<&Path>,
    splits: &[String],
) -> Result<Vec<BoxedPicture>, OpenError> {
    let refs = refs_of(&files.refs, splits)?;
    let instances = read_instances(&files.instances)?;
    let options = Options { image_root: image_root.map(Path::to_path_buf), ..Options::default() };
    let pictures = options.pictures(&files.instances)?;
    let mut join = Join::new(files, &instances)?;
    for (record, found) in &refs {
        let name = format!("{}, ref_id {}", files.refs.display(), found.ref_id);
        let image = picture(files, &instances, &pictures, found, record)?.0;
        for Sentence { sent } in &found.sentences {
            join.add(image.clone(), &name, sent, found)?;
        }
    }
    Ok(join.pictures)
}

/// The expressions of refs as pairs, for training; one that says nothing is passed over.
pub(super) fn pairs(path: &Path, options: &Options) -> Result<Vec<Entry>, OpenError> {
    let files = ReferFiles { refs: path.into(), instances: path.with_file_name("instances.json"), detections: None };
    let instances = read_instances(&files.instances)?;
    let pictures = options.pictures(&files.instances)?;
    let mut pairs = Vec::new();
    for (record, found) in &refs_of(path, &options.splits)? {
        let (image, image_id) = picture(&files, &instances, &pictures, found, record)?;
        let said = found.sentences.iter().filter(|Sentence { sent }| caption::count_words(sent) > 0);
        for Sentence { sent } in said {
            pairs.push(Entry::new(image.clone(), vec![sent.clone()], record.clone(), image_id)?);
        }
    }
    match pairs.is_empty() {
        true => Err(OpenError::Empty { path: path.into() }),
        false => Ok(pairs),
    }
}

/// The picture of a ref, and the number that stands for it. Its file is called what COCO calls it: the refs' own names have the
/// annotation's number in them.
fn picture(
    files: &ReferFiles,
    instances: &ReadInstances,
    pictures: &Pictures,
    found: &Ref,
    record: &str,
) -> Result<(Location, i64), OpenError> {
    let file = instances.files.get(&found.image_id).ok_or_else(|| OpenError::Missing {
        path: files.instances.clone(),
        what: format!("image {}", found.image_id),
        wanted_by: record.into(),
    })?;
    Ok(pictures.find(std::slice::from_ref(file), record)?)
}

/// The refs of some splits, each with its place.
fn refs_of(path: &Path, splits: &[String]) -> Result<Vec<(String, Ref)>, OpenError> {
    let named = |(number, found): (usize, Ref)| (format!("{}, record {}", path.display(), number + 1), found);
    let all: Vec<(String, Ref)> = read_refs(path)?.into_iter().enumerate().map(named).collect();
    if all.is_empty() {
        return Err(OpenError::Empty { path: path.into() });
    }
    let asked: Vec<_> = all.into_iter().filter(|(_, found)| is_among(splits, &found.split)).collect();
    match asked.is_empty() {
        true => Err(OpenError::Split { path: path.into(), splits: splits.to_vec() }),
        false => Ok(asked),
    }
}

fn read_refs(path: &Path) -> Result<Vec<Ref>, OpenError> {
    let io = |error| OpenError::Io { path: path.into(), error };
    let mut first = [0];
    let is_text = File::open(path).and_then(|mut file| file.read(&mut first)).map_err(io)? == 1;
    // A pickle of a list begins with `]`, `(` or a protocol.
    if is_text && matches!(first[0], b'[' | b'{' | b' ' | b'\n') {
        return read_json(path, REFS);
    }
    let archive = read_data(path, &Limits::of_data())?;
    let records = archive.root().elements();
    (1..).zip(records).map(|(number, record)| ref_of(record, &format!("{}, record {number}", path.display()))).collect()
}

/// A ref in a pickle.
fn ref_of(record: Node, name: &str) -> Result<Ref, OpenError> {
    let wrong = |field: &str, expected, found: Option<Node>| RecordError::Field {
        name: name.into(),
        field: field.into(),
        expected,
        found: found.map_or("nothing", Node::kind).into(),
    };
    let get = |field: &str| record.get(field);
    let integer =
        |field: &str| get(field).and_then(Node::as_i64).ok_or_else(|| wrong(field, "a whole number", get(field)));
    let sentence = |sentence: Node| {
        let sent = sentence.get("sent");
        let text = sent.and_then(Node::as_str).ok_or_else(|| wrong("sent", "a string", sent))?;
        Ok(Sentence { sent: text.into() })
    };
    let split = get("split").and_then(Node::as_str).ok_or_else(|| wrong("split", "a string", get("split")))?;
    let sentences = get("sentences").map(Node::elements).unwrap_or_default();
    Ok(Ref {
        ref_id: integer("ref_id")?,
        ann_id: integer("ann_id")?,
        image_id: integer("image_id")?,
        split: split.into(),
        sentences: sentences.into_iter().map(sentence).collect::<Result<_, RecordError>>()?,
    })
}

/// What is needed of COCO's instances, by their ids.
struct ReadInstances {
    files: HashMap<i64, String>,
    boxes: HashMap<i64, Bounds>,
}

fn read_instances(path: &Path) -> Result<ReadInstances, OpenError> {
    let Instances { images, annotations } = read_json(path, INSTANCES)?;
    Ok(ReadInstances {
        files: images.into_iter().map(|image| (image.id, image.file_name)).collect(),
        boxes: annotations.into_iter().map(|instance| (instance.id, instance.bbox)).collect(),
    })
}

/// Puts phrases, their true boxes and a detector's together, picture by picture.
struct Join<'a> {
    files: &'a ReferFiles,
    instances: &'a ReadInstances,
    detections: Option<HashMap<String, Vec<Detection>>>,
    pictures: Vec<BoxedPicture>,
    place: BTreeMap<String, usize>,
}

impl<'a> Join<'a> {
    fn new(files: &'a ReferFiles, instances: &'a ReadInstances) -> Result<Self, OpenError> {
        let detections = files.detections.as_ref().map(|path| read_json(path, DETECTIONS)).transpose()?;
        Ok(Self { files, instances, detections, pictures: vec![], place: BTreeMap::new() })
    }

    fn add(&mut self, image: Location, name: &str, phrase: &str, found: &Ref) -> Result<(), OpenError> {
        let bounds = *self.instances.boxes.get(&found.ann_id).ok_or_else(|| OpenError::Missing {
            path: self.files.instances.clone(),
            what: format!("annotation {}", found.ann_id),
            wanted_by: format!("{name}: {phrase:?}"),
        })?;
        let at = *self.place.entry(image.to_string()).or_insert_with(|| {
            // A picture without any detection has no proposals to be right with.
            let proposals = self.detections.as_mut().map(|all| {
                let found = all.remove(&found.image_id.to_string()).unwrap_or_default();
                found.into_iter().map(|Detection(bounds)| bounds).collect()
            });
            self.pictures.push(BoxedPicture { image, objects: vec![], proposals, name: name.into() });
            self.pictures.len() - 1
        });
        let object = BoxedPhrase { phrase: phrase.into(), bounds, split: Some(found.split.clone()) };
        object.check(&format!("{}, annotation {}", self.files.instances.display(), found.ann_id))?;
        self.pictures[at].objects.push(object);
        Ok(())
    }
}

/// The pictures of `expressions` with all their phrases and true boxes, those of `splits`.
pub(super) fn join(
    expressions: Vec<Expression>,
    files: &ReferFiles,
    splits: &[String],
) -> Result<Vec<BoxedPicture>, OpenError> {
    let refs: HashMap<i64, Ref> = read_refs(&files.refs)?.into_iter().map(|r| (r.ref_id, r)).collect();
    let instances = read_instances(&files.instances)?;
    let mut join = Join::new(files, &instances)?;
    for Expression { mut pair, ref_id, .. } in expressions {
        let phrase = pair.captions.swap_remove(0);
        let missing = |what: String| OpenError::Missing {
            path: files.refs.clone(),
            what,
            wanted_by: format!("{}: {phrase:?}", pair.name),
        };
        let ref_id = ref_id.ok_or_else(|| missing("a `ref_id` of the record".into()))?;
        let found = refs.get(&ref_id).ok_or_else(|| missing(format!("ref_id {ref_id}")))?;
        if is_among(splits, &found.split) {
            join.add(pair.image, &pair.name, &phrase, found)?;
        }
    }
    match join.pictures.is_empty() {
        true => Err(OpenError::Split { path: files.refs.clone(), splits: splits.to_vec() }),
        false => Ok(join.pictures),
    }
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

    /// As `refs.json` of [`REFER`], with sentences, as Python 2 pickled it.
    const PICKLE: &str = "(lp0\n(dp1\nS'ref_id'\np2\nI5\nsS'ann_id'\np3\nI50\nsS'image_id'\np4\nI1\nsS'split'\np5\nS'testA'\np6\ns\
        S'file_name'\nS'a_50.jpg'\nsS'sentences'\np7\n(lp8\n(dS'sent'\np9\nS'left dog'\nsa(dg9\nVthe dog\nsasa(dp10\ng2\nI6\nsg3\nI60\ns\
        g4\nI2\nsg5\nS'train'\np11\nsg7\n(l(dg9\nS'cat'\nsa(dg9\nS'?'\nsasa.";

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
            r#"{"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}], "annotations": [{"id": 50, "bbox": [0, 1, 2, 3.5], "iscrowd": 0}, {"id": 60, "bbox": [1, 1, 1, 1]},
                {"id": 70, "bbox": [9, 9, 9, 9]}]}"#,
        ),
        ("detections.json", r#"{"1": [[0, 0, 4, 4, 0.9], [5, 5, 4, 4, 0.8]]}"#),
    ];

    #[test]
    fn refers_files_are_joined_by_their_ids() {
        let files = Files::new(&REFER);
        let found = read_boxes(&files.path("data.json"), None, Some(&files.refer()), &[]).unwrap();
        assert_eq!(found.len(), 2, "pictures, each once");
        assert_eq!(found[0].image.to_string(), files.path("a.jpg").display().to_string());
        let phrases: Vec<_> = found[0].objects.iter().map(|o| (o.phrase.as_str(), o.bounds)).collect();
        assert_eq!(phrases, [("left dog", [0.0, 1.0, 2.0, 3.5]), ("right dog", [9.0; 4])]);
        assert_eq!(found[1].objects[0].split.as_deref(), Some("testB"));
        let first = found[0].proposals.as_ref().unwrap();
        assert_eq!(first[1], [5.0, 5.0, 4.0, 4.0]);
        assert_eq!(found[1].proposals, Some(vec![]), "detections without this picture");
    }

    fn pickled() -> (Files, ReferFiles) {
        let files = Files::new(&REFER);
        fs::write(files.path("refs(unc).p"), PICKLE).unwrap();
        let refer = ReferFiles { refs: files.path("refs(unc).p"), ..files.refer() };
        (files, refer)
    }

    #[test]
    fn refers_own_files_are_records_by_split() {
        let (files, refer) = pickled();
        let of = |splits: &[&str]| {
            let splits: Vec<String> = splits.iter().map(|&split| split.into()).collect();
            read_refer(&refer, None, &splits)
        };
        let all = of(&[]).unwrap();
        assert_eq!((all.len(), all[1].objects.len()), (2, 2));
        let people = of(&["testA"]).unwrap();
        let [picture] = &people[..] else { panic!("{people:?}") };
        // COCO's name, not the refs' own.
        assert_eq!(picture.image.to_string(), files.path("a.jpg").display().to_string());
        let phrases: Vec<_> = picture.objects.iter().map(|o| (o.phrase.as_str(), o.bounds)).collect();
        assert_eq!(phrases, [("left dog", [0.0, 1.0, 2.0, 3.5]), ("the dog", [0.0, 1.0, 2.0, 3.5])]);
        assert_eq!(picture.proposals.as_ref().unwrap().len(), 2);
        let error = of(&["testB"]).unwrap_err().to_string();
        assert!(error.contains("refs(unc).p") && error.contains("split `testB`"), "{error}");
        let elsewhere = read_refer(&refer, Some(files.0.path()), &["testA".into()]).unwrap();
        assert_eq!(elsewhere[0].image.to_string(), picture.image.to_string());

        let beside = ReferFiles::beside(&refer.refs).unwrap();
        assert_eq!(beside.instances, files.path("instances.json"));
        assert!(ReferFiles::beside(&files.path("refs.json")).is_some());
        assert!(ReferFiles::beside(&files.path("data.json")).is_none());
    }

    #[test]
    fn refs_are_pairs_to_train_on() {
        let (_files, refer) = pickled();
        let options = |split: &str| Options { expressions: true, splits: vec![split.into()], ..Options::default() };
        let open = |split: &str| crate::Dataset::open(&[crate::Source::from(refer.refs.clone())], &options(split));
        let train = open("train").unwrap();
        assert_eq!(
            (train.len(), train.entry(0).unwrap().captions),
            (1, vec!["cat".to_owned()]),
            "a sentence without words"
        );
        let people = open("testA").unwrap();
        let ids: Vec<i64> = (0..2).map(|i| people.entry(i).unwrap().image_id).collect();
        assert!(ids[0] == ids[1] && ids[0] != train.entry(0).unwrap().image_id);
    }

    #[test]
    fn what_is_no_ref_is_named() {
        let (files, refer) = pickled();
        for (pickle, words) in [
            ("(lp0\n(dS'ref_id'\nI5\nsa.", "record 1: field `split`: expected a string, found nothing"),
            ("(l(dS'ref_id'\nS'5'\nsS'split'\nS'a'\nsa.", "field `ref_id`: expected a whole number, found a string"),
            ("(l.", "no records in it"),
            ("(lp0\nI5x\n.", "expected an integer"),
        ] {
            fs::write(&refer.refs, pickle).unwrap();
            let error = read_refer(&refer, None, &[]).unwrap_err().to_string();
            assert!(error.contains("refs(unc).p") && error.contains(words), "{error}");
        }
        fs::write(files.path("refs(unc).p"), PICKLE).unwrap();
        fs::write(&refer.instances, r#"{"annotations": []}"#).unwrap();
        let error = read_refer(&refer, None, &[]).unwrap_err().to_string();
        assert!(error.contains("instances.json") && error.contains("image 1 is missing"), "{error}");
    }

    #[test]
    fn a_missing_id_is_named_with_its_file() {
        for (file, text, words) in [
            ("refs.json", "[]", ["refs.json", "ref_id 5"]),
            ("instances.json", r#"{"annotations": []}"#, ["instances.json", "annotation 50"]),
        ] {
            let files = Files::new(&REFER);
            fs::write(files.path(file), text).unwrap();
            let error = read_boxes(&files.path("data.json"), None, Some(&files.refer()), &[]);
            let error = error.unwrap_err().to_string();
            assert!(words.iter().all(|w| error.contains(w)) && error.contains("left dog"), "{error}");
        }
    }
}
