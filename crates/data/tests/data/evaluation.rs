//! Evaluation: every record once, in the order of the file, whole.

use std::sync::Arc;

use crate::common::{Photos, vocabulary};
use simla_data::{Batch, Dataset, LoadError, Loader, Options, Pair, Pairs, Source};

const VIEW: usize = 16 * 16 * 3;

fn start(photos: &Photos, batch: usize) -> Loader<Pairs> {
    let dataset = Dataset::open(&[Source::from(photos.json.clone())], &Options::default()).unwrap();
    let pairs = Pairs { patch_grid: 4, masked_patches: 0, ..Pairs::new(Arc::new(vocabulary())) };
    Loader::once(Arc::new(dataset), pairs, 16, batch, 3).unwrap()
}

fn whole(loader: Loader<Pairs>) -> (Vec<Batch<Pair>>, Vec<String>) {
    let batches: Vec<Batch<Pair>> = loader.map(Result::unwrap).collect();
    let records = batches.iter().flat_map(|b| b.records.clone()).collect();
    (batches, records)
}

/// The red of each view's middle.
fn reds(batch: &Batch<Pair>) -> Vec<i32> {
    batch.pictures.chunks_exact(VIEW).map(|view| i32::from(view[16 * 8 * 3])).collect()
}

#[test]
fn every_image_in_order() {
    let photos = Photos::make(11);
    let (batches, records) = whole(start(&photos, 4));
    assert_eq!(batches.iter().map(Batch::len).collect::<Vec<_>>(), [4, 4, 3]);
    assert_eq!(batches.iter().map(|b| (b.step, b.epoch)).collect::<Vec<_>>(), [(0, 0), (1, 0), (2, 0)]);
    assert!(records.iter().zip(1..).all(|(r, i)| r.ends_with(&format!("record {i}"))), "{records:?}");
    for (i, red) in batches.iter().flat_map(reds).enumerate() {
        let expected = [200, 30, 40, 240][i % 4];
        assert!((red - expected).abs() < 12, "the picture of its own record: {red}, expected {expected}");
    }
    assert!(batches.iter().all(|b| b.halves.is_empty()));
    assert_eq!(whole(start(&photos, 4)).0, batches, "the same every time");
    assert_eq!(start(&photos, 1).count(), 11);
}

#[test]
fn bad_records_leave_no_gap() {
    let photos = Photos::make(60);
    std::fs::remove_file(photos.image(1)).unwrap();
    (16..20).for_each(|i| std::fs::write(photos.image(i), "no picture").unwrap());
    photos.set_captions(7, serde_json::json!("."));
    let mut loader = start(&photos, 4);
    let batches: Vec<Batch<Pair>> = loader.by_ref().map(Result::unwrap).collect();
    let sizes: Vec<_> = batches.iter().map(|b| (b.step, b.len())).take(5).collect();
    assert_eq!(sizes, [(0, 3), (1, 3), (2, 4), (3, 4), (5, 4)], "a batch without any row is none");
    assert!(batches.iter().all(|b| b.pictures.len() == b.len() * VIEW && b.records.len() == b.len()));
    assert_eq!(reds(&batches[0])[1] / 10, 4, "the third record's blue, moved up");
    assert_eq!((loader.report().seen, loader.report().bad), (60, 6));
}

#[test]
fn too_many_bad_records_are_an_error() {
    let photos = Photos::make(10);
    for i in [8, 9] {
        std::fs::write(photos.image(i), "").unwrap();
    }
    let last = start(&photos, 4).last().unwrap();
    assert!(matches!(last, Err(LoadError::TooManyBad { .. })));
}
