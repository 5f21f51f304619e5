//! Pictures that records name, in a folder or in shards; records in compressed files.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simla_data::{Dataset, Loader, OpenError, Options, Questions, Sentences, Source};

use crate::common::{Photos, vocabulary};

/// Questions about `images/0.png`, `images/1.png`, ... beside `photos`.
fn questions(photos: &Photos, count: usize) -> PathBuf {
    let record = |i| {
        let image = format!("images/{i}.png");
        serde_json::json!({"image": image, "question": "number?", "question_id": i, "answer": "red"})
    };
    let path = photos.folder.path().join("questions.json");
    std::fs::write(&path, serde_json::to_vec(&(0..count).map(record).collect::<Vec<_>>()).unwrap()).unwrap();
    path
}

fn open(path: &Path, root: Option<PathBuf>) -> Result<Dataset<Questions>, OpenError> {
    let options = Options { image_root: root, ..Options::default() };
    Dataset::of(&[Source::from(path.to_path_buf())], &options, &mut |_, _, _| ())
}

fn views(data: Dataset<Questions>) -> Vec<u8> {
    let questions = Questions::training(Sentences::new(Arc::new(vocabulary())));
    let loader = Loader::once(Arc::new(data), questions, 16, 4, 2).unwrap();
    loader.flat_map(|batch| batch.unwrap().pictures).collect()
}

fn shard(path: &Path, photos: &Photos, names: &[(usize, &str)]) {
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    for (photo, name) in names {
        tar.append_path_with_name(photos.image(*photo), name).unwrap();
    }
    tar.finish().unwrap();
}

#[test]
fn shards_give_the_pictures_that_a_folder_gives() {
    let photos = Photos::make(4);
    let path = questions(&photos, 4);
    let expected = views(open(&path, None).unwrap());
    let folder = tempfile::tempdir().unwrap();
    // By the whole name, by the file's name alone.
    shard(&folder.path().join("a-0.tar"), &photos, &[(0, "images/0.png"), (2, "./images/2.png")]);
    shard(&folder.path().join("a-1.tar"), &photos, &[(3, "images/3.png"), (1, "images/1.png")]);
    for root in [folder.path().to_path_buf(), folder.path().join("a-{0..1}.tar")] {
        assert_eq!(views(open(&path, Some(root)).unwrap()), expected);
    }
    let one = open(&path, Some(folder.path().join("a-0.tar")));
    let error = one.unwrap().entry(1).unwrap_err().to_string();
    assert!(error.contains("questions.json, record 2: image file images/1.png: no member of that name"), "{error}");
}

#[test]
fn roots_that_cannot_be_read_are_refused() {
    let photos = Photos::make(2);
    let path = questions(&photos, 2);
    let folder = tempfile::tempdir().unwrap();
    let cut = folder.path().join("cut.tar");
    shard(&cut, &photos, &[(0, "0.png"), (1, "1.png")]);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..600]).unwrap();
    for (root, words) in
        [(cut, "cut.tar"), (folder.path().join("none"), "`image_root` = "), (folder.path().join("n.tar"), "n.tar")]
    {
        let error = open(&path, Some(root)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_gzipped_file_that_is_cut_off_is_refused() {
    let photos = Photos::make(2);
    let path = questions(&photos, 2);
    let zipped = photos.folder.path().join("questions.json.gz");
    let mut file = flate2::write::GzEncoder::new(Vec::new(), Default::default());
    file.write_all(&std::fs::read(&path).unwrap()).unwrap();
    let bytes = file.finish().unwrap();
    std::fs::write(&zipped, &bytes).unwrap();
    assert_eq!(views(open(&zipped, None).unwrap()), views(open(&path, None).unwrap()));
    std::fs::write(&zipped, &bytes[..bytes.len() - 9]).unwrap();
    let error = open(&zipped, None).unwrap_err().to_string();
    assert!(error.contains("questions.json.gz: "), "{error}");
}
