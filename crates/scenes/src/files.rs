//! Scenes as files in the authors' layout (docs/paper.md, 'Captions'), with their boxes and what is asked of them beside them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use rayon::prelude::*;
use serde::Serialize;

use crate::ask::{Asker, answers};
use crate::plan::Plan;
use crate::scene::{Object, Scene, Split, generate};
use crate::vocabulary::{Background, Colour, Shape, Size, Texture};

/// Least side of a picture: below it textures cannot be drawn.
pub const MIN_SIDE: u32 = 32;
/// Largest side of a picture.
pub const MAX_SIDE: u32 = 1024;
/// Most scenes of a split.
pub const MAX_SCENES: usize = 10_000_000;

/// What [`write()`] has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `[{"image", "caption": [str]}]`, for training; paths are relative to the file.
    pub train: PathBuf,
    /// The same for held-out scenes.
    pub test: PathBuf,
    /// `[{"image", "width", "height", "background", "compositional", "objects": [{"phrase", "box": [x, y, width, height],
    /// "shape", "colour", "texture", "size", "unseen"}]}]` for training.
    pub train_boxes: PathBuf,
    /// The same for held-out scenes.
    pub test_boxes: PathBuf,
    /// `[{"image", "question", "question_id", "answer": [10 equal str], "dataset", "question_type", "answer_type",
    /// "directional"}]` for training.
    pub train_questions: PathBuf,
    /// The same for held-out scenes.
    pub test_questions: PathBuf,
    /// Every answer that there can be: `[str]`.
    pub answers: PathBuf,
    /// `[{"images": [left, right], "sentence", "label": "True" | "False", "identifier", "directional"}]` for training.
    pub train_statements: PathBuf,
    /// The same for held-out scenes.
    pub test_statements: PathBuf,
    /// `[{"image", "sentence", "label": "entailment" | "neutral" | "contradiction", "directional"}]` for training.
    pub train_entailments: PathBuf,
    /// The same for held-out scenes.
    pub test_entailments: PathBuf,
}

impl Files {
    /// Where [`write()`] puts its files in `dir`.
    pub fn at(dir: &Path) -> Files {
        let file = |name: &str| dir.join(name);
        Files {
            train: file("train.json"),
            test: file("test.json"),
            train_boxes: file("train-boxes.json"),
            test_boxes: file("test-boxes.json"),
            train_questions: file("train-questions.json"),
            test_questions: file("test-questions.json"),
            answers: file("answers.json"),
            train_statements: file("train-statements.json"),
            test_statements: file("test-statements.json"),
            train_entailments: file("train-entailments.json"),
            test_entailments: file("test-entailments.json"),
        }
    }
}

/// Why scenes could not be written. Nothing is left behind in that case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting out of its range.
    #[error("{setting} is {value}; it must be from {min} to {max}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// What was given.
        value: usize,
        /// Least value allowed.
        min: usize,
        /// Largest value allowed.
        max: usize,
    },
    /// The folder is in use.
    #[error("{} exists and is not an empty folder: remove it or choose another one for the scenes", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder could not be written.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// What was tried: "write", "create", "move the scenes to".
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A picture could not be encoded.
    #[error("cannot encode the picture {}: {source}", path.display())]
    Encode {
        /// Its file.
        path: PathBuf,
        /// What the encoder said.
        source: image::ImageError,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space, or ask for fewer or smaller pictures"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder that you may write to"
        }
        _ => "",
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_owned(), source }
}

/// Writes `train` and `test` scenes of `side` x `side` pixels to `dir`, which must not exist or be empty: pictures as
/// PNG in `dir/train` and `dir/test`, and the files of [`Files`].
///
/// The bytes depend on the arguments alone, not on the number of threads. All is written beside `dir` under a temporary
/// name and moved there at the end: `dir` is complete or not there. `progress` is called with the number of pictures
/// written so far, from several threads.
///
/// # Errors
/// A setting out of range, a folder in use, or a file that cannot be written.
pub fn write(
    dir: &Path,
    train: usize,
    test: usize,
    seed: u64,
    side: u32,
    progress: impl Fn(usize) + Sync,
) -> Result<Files, Error> {
    for (setting, value, min, max) in [
        ("the number of training scenes", train, 1, MAX_SCENES),
        ("the number of test scenes", test, 1, MAX_SCENES),
        ("the side of the pictures", side as usize, MIN_SIDE as usize, MAX_SIDE as usize),
    ] {
        if !(min..=max).contains(&value) {
            return Err(Error::Setting { setting, value, min, max });
        }
    }
    refuse_occupied(dir)?;
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    let partial =
        tempfile::Builder::new().prefix(".scenes-").tempdir_in(parent).map_err(failed("create a folder in", parent))?;

    // A folder within, so that it has the usual permissions, which the temporary one has not.
    let scenes = partial.path().join("scenes");
    let done = AtomicUsize::new(0);
    let count = || progress(done.fetch_add(1, Ordering::Relaxed) + 1);
    let files = Files::at(&scenes);
    for (split, scenes_of_split, captions, boxes, texts) in [
        (
            Split::Train,
            train,
            &files.train,
            &files.train_boxes,
            [&files.train_questions, &files.train_statements, &files.train_entailments],
        ),
        (
            Split::Test,
            test,
            &files.test,
            &files.test_boxes,
            [&files.test_questions, &files.test_statements, &files.test_entailments],
        ),
    ] {
        let folder = split_name(split);
        let records = pictures(&scenes.join(folder), split, scenes_of_split, seed, side, &count)?;
        let (pairs, objects, plans): (Vec<Pair>, Vec<Boxes>, Vec<Plan>) = records.into_iter().collect();
        write_json(captions, &pairs)?;
        write_json(boxes, &objects)?;
        let images: Vec<String> = pairs.into_iter().map(|pair| pair.image).collect();
        let mut asker = Asker::new(&images, &plans, seed, split);
        let [questions, statements, entailments] = texts;
        write_json(questions, &asker.questions())?;
        write_json(statements, &asker.statements(folder))?;
        write_json(entailments, &asker.entailments())?;
    }
    write_json(&files.answers, &answers())?;

    if dir.exists() {
        // Empty, as checked above; not every system moves a folder onto an empty one.
        fs::remove_dir(dir).map_err(failed("replace", dir))?;
    }
    fs::rename(&scenes, dir).map_err(failed("move the scenes to", dir))?;
    Ok(Files::at(dir))
}

fn refuse_occupied(dir: &Path) -> Result<(), Error> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::Occupied { path: dir.to_owned() }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::Occupied { path: dir.to_owned() }),
        Err(error) => Err(failed("read", dir)(error)),
    }
}

fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Test => "test",
    }
}

/// A record of the authors' layout.
#[derive(Serialize)]
struct Pair {
    image: String,
    caption: Vec<String>,
}

/// A record of the boxes.
#[derive(Serialize)]
struct Boxes {
    image: String,
    width: u32,
    height: u32,
    background: Background,
    compositional: bool,
    objects: Vec<BoxedObject>,
}

#[derive(Serialize)]
struct BoxedObject {
    phrase: String,
    r#box: [u32; 4],
    shape: Shape,
    colour: Colour,
    texture: Texture,
    size: Size,
    unseen: bool,
}

impl BoxedObject {
    fn new(object: Object) -> BoxedObject {
        BoxedObject {
            unseen: object.is_unseen(),
            phrase: object.phrase,
            r#box: object.bbox,
            shape: object.shape,
            colour: object.colour,
            texture: object.texture,
            size: object.size,
        }
    }
}

/// Writes the pictures of a split to `folder` and returns their records in order.
fn pictures(
    folder: &Path,
    split: Split,
    count: usize,
    seed: u64,
    side: u32,
    done: &(impl Fn() + Sync),
) -> Result<Vec<(Pair, Boxes, Plan)>, Error> {
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    (0..count)
        .into_par_iter()
        .map(|index| {
            let name = format!("{index:05}.png");
            let scene = generate(seed, index as u64, split, side);
            write_picture(&folder.join(&name), &scene)?;
            done();
            let image = format!("{}/{name}", split_name(split));
            let boxes = Boxes {
                image: image.clone(),
                width: side,
                height: side,
                background: scene.background,
                compositional: scene.is_compositional(),
                objects: scene.objects.into_iter().map(BoxedObject::new).collect(),
            };
            Ok((Pair { image, caption: scene.captions }, boxes, scene.plan))
        })
        .collect()
}

fn write_picture(path: &Path, scene: &Scene) -> Result<(), Error> {
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&scene.picture, scene.picture.width(), scene.picture.height(), image::ExtendedColorType::Rgb8)
        .map_err(|source| Error::Encode { path: path.to_owned(), source })?;
    fs::write(path, bytes).map_err(failed("write", path))
}

/// One record a line, so that the file can be read by eye and compared line by line.
fn write_json(path: &Path, records: &[impl Serialize]) -> Result<(), Error> {
    let lines = || -> io::Result<()> {
        let mut file = io::BufWriter::new(fs::File::create(path)?);
        for (i, record) in records.iter().enumerate() {
            file.write_all(if i == 0 { b"[\n" } else { b",\n" })?;
            serde_json::to_writer(&mut file, record)?;
        }
        file.write_all(b"\n]\n")?;
        file.flush()
    };
    lines().map_err(failed("write", path))
}
