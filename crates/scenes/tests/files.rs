//! What is written: layout, bytes, and what happens when it cannot be.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use simla_scenes::{Error, Files, Split, generate, write};

fn json(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Every file under a folder with its bytes.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(contents(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

fn write_with_threads(dir: &Path, threads: usize, seed: u64) -> Files {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| write(dir, 20, 6, seed, 48, |_| ())).unwrap()
}

#[test]
fn files_have_the_authors_layout() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("new/scenes");
    let most = AtomicUsize::new(0);
    let files = write(&dir, 12, 5, 3, 64, |done| {
        most.fetch_max(done, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(most.into_inner(), 17);
    assert_eq!(files, Files::at(&dir));
    for (split, count, pairs, boxes) in [
        (Split::Train, 12, json(&files.train), json(&files.train_boxes)),
        (Split::Test, 5, json(&files.test), json(&files.test_boxes)),
    ] {
        assert_eq!((pairs.len(), boxes.len()), (count, count));
        for (index, (pair, boxes)) in pairs.iter().zip(&boxes).enumerate() {
            let scene = generate(3, index as u64, split, 64);
            let picture = image::open(dir.join(pair["image"].as_str().unwrap())).unwrap();
            assert_eq!(picture.to_rgb8(), scene.picture);
            assert_eq!(pair["caption"], Value::from(scene.captions.clone()));
            assert_eq!(boxes["image"], pair["image"]);
            assert_eq!((&boxes["width"], &boxes["height"]), (&Value::from(64), &Value::from(64)));
            assert_eq!(boxes["compositional"], Value::from(scene.is_compositional()));
            for (record, object) in boxes["objects"].as_array().unwrap().iter().zip(&scene.objects) {
                assert_eq!(record["phrase"], Value::from(object.phrase.clone()));
                assert_eq!(record["box"], Value::from(object.bbox.to_vec()));
                assert_eq!(record["unseen"], Value::from(object.is_unseen()));
                assert_eq!(record["colour"], Value::from(object.colour.words()[0]));
            }
        }
    }
}

#[test]
fn the_bytes_depend_on_the_seed_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, threads, seed) in [("one", 1, 5), ("four", 4, 5), ("other", 4, 6)] {
        write_with_threads(&folder.path().join(name), threads, seed);
    }
    let [one, four, other] = ["one", "four", "other"].map(|name| contents(&folder.path().join(name)));
    assert_eq!(one.len(), 20 + 6 + 11);
    assert!(one == four, "the number of threads changes the files");
    assert!(one.keys().eq(other.keys()));
    // The list of answers is the same for all.
    assert!(one.iter().all(|(name, bytes)| (other[name] == *bytes) == (name == "answers.json")));
}

#[test]
fn scenes_do_not_depend_on_each_other_and_words_not_on_the_side() {
    let (small, large) = (generate(1, 900, Split::Test, 40), generate(1, 900, Split::Test, 200));
    assert_eq!(small, generate(1, 900, Split::Test, 40));
    assert_eq!((&small.captions, small.background), (&large.captions, large.background));
    for (a, b) in small.objects.iter().zip(&large.objects) {
        assert_eq!(a.phrase, b.phrase);
        assert!((0..4).all(|i| a.bbox[i].abs_diff(b.bbox[i] / 5) <= 1), "{:?} {:?}", a.bbox, b.bbox);
    }
    assert_ne!(small.captions, generate(1, 900, Split::Train, 40).captions);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("scenes");
    for (train, test, side, words) in [
        (0, 5, 64, "the number of training scenes is 0"),
        (5, 0, 64, "the number of test scenes is 0"),
        (5, 5, 8, "the side of the pictures is 8; it must be from 32 to 1024"),
        (5, 5, 5000, "the side of the pictures is 5000"),
    ] {
        let error = write(&dir, train, test, 1, side, |_| ()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(contents(folder.path()).len(), 0);
}

#[test]
fn a_folder_in_use_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("mine.txt"), "mine").unwrap();
    let error = write(folder.path(), 2, 2, 1, 64, |_| ()).unwrap_err();
    assert!(matches!(&error, Error::Occupied { path } if path == folder.path()), "{error}");
    let file = folder.path().join("mine.txt");
    assert!(matches!(write(&file, 2, 2, 1, 64, |_| ()), Err(Error::Occupied { .. })));
    assert_eq!(contents(folder.path()), BTreeMap::from([("mine.txt".to_owned(), b"mine".to_vec())]));
    // An empty folder is taken.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    write(&empty, 2, 2, 1, 64, |_| ()).unwrap();
    assert_eq!(contents(&empty).len(), 2 + 2 + 11);
}

#[test]
fn a_failure_says_where_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let below_a_file = folder.path().join("file/scenes");
    let error = write(&below_a_file, 2, 2, 1, 64, |_| ()).unwrap_err();
    assert!(error.to_string().contains(below_a_file.to_str().unwrap()), "{error}");

    // The folder comes into use while the pictures are drawn.
    let dir = folder.path().join("scenes");
    let error = write(&dir, 2, 2, 1, 64, |_| {
        fs::create_dir_all(dir.join("taken")).unwrap();
    })
    .unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == dir), "{error}");
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "scenes"]);
}
