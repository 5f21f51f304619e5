//! Packing into shards and looking at a data set.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use simla_data::{
    Dataset, InspectOptions, Loader, LoaderPlan, Options, PackError, PackOptions, Packed, Pairs, Source, inspect, pack,
};
use simla_image::Recipe;

use crate::common::{Photos, vocabulary};

fn open(path: &Path) -> Dataset {
    Dataset::open(&[Source::from(path.to_path_buf())], &Options::default()).unwrap()
}

fn packed(photos: &Photos, folder: &Path, shard_size: usize, shuffle: Option<u64>) -> Result<Packed, PackError> {
    pack(&open(&photos.json), folder, &PackOptions { shard_size, shuffle, side: None }, |_| {})
}

#[test]
fn shards_hold_what_the_source_holds() {
    let photos = Photos::make(25);
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new/shards");
    let packed = packed(&photos, &target, 10, None).unwrap();
    assert_eq!((packed.records, packed.shards.len()), (25, 3));
    let names: BTreeSet<String> =
        std::fs::read_dir(&target).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(names, ["00000.tar", "00001.tar", "00002.tar"].map(String::from).into(), "nothing unfinished is left");
    let (before, after) = (open(&photos.json), open(&target));
    assert_eq!(after.len(), 25);
    for index in 0..25 {
        let (before, after) = (before.record(index).unwrap(), after.record(index).unwrap());
        assert_eq!((before.image, before.captions), (after.image, after.captions));
    }
    assert!(after.entry(11).unwrap().name.ends_with("00001.tar, record 2 (000010001.png)"));
    let bytes: u64 = packed.shards.iter().map(|s| std::fs::metadata(s).unwrap().len()).sum();
    assert_eq!(packed.bytes, bytes);
}

#[test]
fn large_photographs_are_shrunk_and_small_ones_copied() {
    let folder = tempfile::tempdir().unwrap();
    let drawn =
        |side: u32| image::RgbImage::from_fn(side + side / 3, side, |x, y| image::Rgb([x, y, x * y].map(|v| v as u8)));
    for (name, side) in [("large.png", 300), ("small.png", 40)] {
        drawn(side).save(folder.path().join(name)).unwrap();
    }
    let json = folder.path().join("pairs.json");
    std::fs::write(&json, r#"[{"image": "large.png", "caption": "a"}, {"image": "small.png", "caption": "b"}]"#)
        .unwrap();
    let target = folder.path().join("shards");
    let options = PackOptions { shuffle: None, side: Some(48), ..PackOptions::default() };
    let packed = pack(&open(&json), &target, &options, |_| {}).unwrap();
    let shrunk = packed.shrunk.unwrap();
    assert_eq!((packed.records, shrunk.pictures), (2, 1));
    assert!(10 * shrunk.bytes_after < shrunk.bytes_before, "{shrunk:?}");
    assert!(shrunk.decode_s_after > 0.0 && shrunk.decode_s_after < shrunk.decode_s_before, "{shrunk:?}");
    let after = open(&target);
    let side = |index| {
        let record = after.record(index).unwrap();
        simla_image::decode(&record.image, &simla_image::Limits::default()).unwrap().dimensions()
    };
    assert_eq!((side(0), side(1)), ((64, 48), (53, 40)));
    assert_eq!(after.record(1).unwrap().image, std::fs::read(folder.path().join("small.png")).unwrap());
    let refused = pack(&open(&json), &folder.path().join("no"), &PackOptions { side: Some(0), ..options }, |_| {});
    assert!(refused.unwrap_err().to_string().contains("`side` = 0: expected from 1"));
}

#[test]
fn the_order_is_random_but_the_same_again() {
    let photos = Photos::make(30);
    let folder = tempfile::tempdir().unwrap();
    let captions = |name: &str, seed: Option<u64>| {
        packed(&photos, &folder.path().join(name), 8, seed).unwrap();
        open(&folder.path().join(name)).captions(|_| ()).collect::<Vec<_>>()
    };
    let (plain, once, again, other) =
        (captions("a", None), captions("b", Some(1)), captions("c", Some(1)), captions("d", Some(2)));
    assert_eq!(once, again);
    assert!(once != plain && once != other);
    assert_eq!(once.iter().collect::<BTreeSet<_>>(), plain.iter().collect());
    let bytes = |name: &str| std::fs::read(folder.path().join(name).join("00001.tar")).unwrap();
    assert_eq!(bytes("b"), bytes("c"), "byte for byte");
}

#[test]
fn equal_images_stay_equal() {
    let photos = Photos::make(2);
    let list = r#"[{"image": "images/0.png", "caption": "a", "image_id": 3}, {"image": "images/1.png", "caption": "b", "image_id": 4},
        {"image": "images/0.png", "caption": "c", "image_id": 3}]"#;
    std::fs::write(&photos.json, list).unwrap();
    let folder = tempfile::tempdir().unwrap();
    packed(&photos, folder.path(), 10, None).unwrap();
    let after = open(folder.path());
    let ids: Vec<i64> = (0..3).map(|i| after.entry(i).unwrap().image_id).collect();
    assert!(ids[0] == ids[2] && ids[0] != ids[1]);
}

#[test]
fn bad_records_are_left_out_and_too_many_refused() {
    let photos = Photos::make(30);
    std::fs::write(photos.image(7), "no picture").unwrap();
    photos.set_captions(8, serde_json::json!(""));
    let folder = tempfile::tempdir().unwrap();
    let packed_once = packed(&photos, &folder.path().join("a"), 100, None).unwrap();
    assert_eq!((packed_once.records, packed_once.report.bad), (28, 2));
    assert!(packed_once.report.examples.iter().any(|e| e.contains("7.png")), "{:?}", packed_once.report);
    assert_eq!(open(&folder.path().join("a")).len(), 28);

    let error = packed(&photos, &folder.path().join("a"), 100, None).unwrap_err().to_string();
    assert!(error.contains("there is already") && error.contains("00000.tar"), "{error}");
    assert!(packed(&photos, &folder.path().join("b"), 0, None).unwrap_err().to_string().contains("`shard_size` = 0"));
    (0..5).for_each(|i| std::fs::remove_file(photos.image(i)).unwrap());
    assert!(matches!(packed(&photos, &folder.path().join("c"), 100, None), Err(PackError::TooManyBad { .. })));
    // What an earlier call left when it was killed.
    std::fs::create_dir(folder.path().join(".unfinished-d")).unwrap();
    std::fs::write(folder.path().join(".unfinished-d/00009.tar"), "torn").unwrap();
    assert!(packed(&photos, &folder.path().join("d"), 0, None).is_err());
    let left = || -> Vec<_> {
        let files = std::fs::read_dir(folder.path()).unwrap();
        files.map(|f| f.unwrap().file_name()).collect()
    };
    assert!(!left().contains(&"c".into()), "{:?}", left());
    photos.restore(5);
    packed(&photos, &folder.path().join("d"), 100, None).unwrap();
    assert_eq!(open(&folder.path().join("d")).len(), 28);
    let mut left = left();
    left.sort();
    assert_eq!(left, ["a", "d"]);
}

#[test]
fn training_reads_mixed_sources() {
    let (photos, more) = (Photos::make(40), Photos::make(20));
    let folder = tempfile::tempdir().unwrap();
    packed(&photos, folder.path(), 4, Some(0)).unwrap();
    let sources = [Source::from(folder.path().to_path_buf()), Source { path: more.json.clone(), weight: 2.0 }];
    let dataset = Arc::new(Dataset::open(&sources, &Options::default()).unwrap());
    let plan = |workers| LoaderPlan { batch: 8, steps: 20, workers, ..LoaderPlan::default() };
    let recipe = Recipe { side: 16, ..Recipe::default() };
    let start = |plan| {
        let pairs = Pairs { patch_grid: 4, masked_patches: 5, ..Pairs::new(Arc::new(vocabulary())) };
        Loader::start(Arc::clone(&dataset), pairs, recipe.clone(), plan).unwrap()
    };
    let all = |plan| start(plan).map(Result::unwrap).collect::<Vec<_>>();
    let batches = all(plan(1));
    assert_eq!(start(plan(1)).steps_per_epoch(), 10);
    assert_eq!(all(plan(4)), batches);
    for first_step in [1, 9, 10, 13] {
        let resumed = LoaderPlan { first_step, ..plan(2) };
        assert_eq!(all(resumed), batches[first_step as usize..]);
    }
    let ranks = [0, 1].map(|rank| all(LoaderPlan { rank, world: 2, ..plan(2) }));
    for (step, whole) in batches.iter().enumerate() {
        assert_eq!(&ranks[step % 2][step / 2], whole, "two ranks take turns");
    }
    for epoch in batches.chunks(10) {
        let names: Vec<&String> = epoch.iter().flat_map(|b| &b.records).collect();
        assert_eq!(names.iter().filter(|n| n.contains(".tar")).count(), 40);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 60, "the shards once, the other twice");
    }
}

#[test]
fn inspection_counts() {
    let photos = Photos::make(30);
    std::fs::write(photos.image(7), "no picture").unwrap();
    photos.set_captions(8, serde_json::json!("..."));
    photos.set_captions(9, serde_json::json!(vec!["zebra "; 40].concat()));
    let look = InspectOptions { samples: 5, ..InspectOptions::default() };
    let seen = inspect(&open(&photos.json), Some(&vocabulary()), &look, || ()).unwrap();
    assert_eq!((seen.records, seen.captions, seen.sources[0].1), (30, 28 * 3 + 1, 30));
    // "a red square number w3", "red!", "the mark at w3"; 40 zebras.
    assert_eq!((seen.words[5], seen.words[1], seen.words[4], seen.words[31]), (28, 28, 28, 1));
    let pieces = seen.pieces.unwrap();
    assert_eq!((pieces.pieces, pieces.unknown, pieces.cut), (28 * 10 + 30, 30, 1));
    assert_eq!((seen.images.decoded, seen.images.width, seen.images.height), (28, [40, 43, 46], [36; 3]));
    assert_eq!((seen.report.bad, seen.samples.len()), (2, 5));
    assert!(seen.samples.iter().all(|s| s.width >= 40 && s.height == 36 && !s.captions.is_empty()));
    assert!(
        serde_json::to_string(&inspect(&open(&photos.json), None, &look, || ()).unwrap())
            .unwrap()
            .contains("\"unreadable_image\":1")
    );
}
