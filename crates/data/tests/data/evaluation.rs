//! Evaluation sets: every image once, in the order of the file, with all its captions.

use std::sync::Arc;

use crate::common::{Photos, vocabulary};
use simla_data::{Dataset, EvaluationBatch, EvaluationPlan, EvaluationSet, LoadError, Options, Source};

fn start(photos: &Photos, batch: usize) -> EvaluationSet {
    let dataset = Dataset::open(&[Source::from(photos.json.clone())], &Options::default()).unwrap();
    let plan = EvaluationPlan { batch, side: 16, workers: 3, ..EvaluationPlan::default() };
    EvaluationSet::start(Arc::new(dataset), Arc::new(vocabulary()), plan).unwrap()
}

fn whole(set: EvaluationSet) -> (Vec<EvaluationBatch>, Vec<String>, Vec<usize>) {
    let batches: Vec<EvaluationBatch> = set.map(Result::unwrap).collect();
    let records = batches.iter().flat_map(|b| b.records.clone()).collect();
    let image_of = batches.iter().flat_map(|b| b.image_of.clone()).collect();
    (batches, records, image_of)
}

#[test]
fn every_image_in_order_with_its_captions() {
    let photos = Photos::make(11);
    let (batches, records, image_of) = whole(start(&photos, 4));
    assert_eq!(batches.iter().map(|b| (b.first, b.size)).collect::<Vec<_>>(), [(0, 4), (4, 4), (8, 3)]);
    assert!(
        records
            .iter()
            .enumerate()
            .all(|(i, r)| r.contains(&format!("record {} ", i + 1)) || r.ends_with(&format!("record {}", i + 1)))
    );
    assert_eq!(image_of, (0..11).flat_map(|i| [i; 3]).collect::<Vec<_>>());
    let captions: Vec<&String> = batches.iter().flat_map(|b| &b.captions).collect();
    assert_eq!((captions[0].as_str(), captions[16].as_str()), ("a red square number w0", "green!"));
    let ids: Vec<&Vec<i64>> = batches.iter().flat_map(|b| &b.ids).collect();
    assert_eq!((ids.len(), ids[1].as_slice()), (33, [2, 11, 3].as_slice()), "[CLS] red [SEP]");
    for (batch, nth) in batches.iter().flat_map(|b| (0..b.size).map(move |i| (b, i))) {
        let view = &batch.images[nth * 16 * 16 * 3..][..16 * 16 * 3];
        let red = i32::from(view[16 * 8 * 3]);
        let expected = [200, 30, 40, 240][(batch.first + nth) % 4];
        assert!((red - expected).abs() < 12, "the picture of its own record: {red}, expected {expected}");
    }
    assert_eq!(whole(start(&photos, 4)).0, batches, "the same every time");
}

#[test]
fn bad_records_leave_no_gap() {
    let photos = Photos::make(30);
    std::fs::remove_file(photos.image(1)).unwrap();
    photos.set_captions(7, serde_json::json!("."));
    photos.set_captions(8, serde_json::json!(["red", ".", "blue"]));
    let mut set = start(&photos, 4);
    let batches: Vec<EvaluationBatch> = set.by_ref().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(|b| (b.first, b.size)).take(3).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 4)]);
    assert_eq!(batches[2].image_of[..3], [6, 6, 7], "the empty one of three captions is left out");
    assert_eq!(batches[0].images.len(), 3 * 16 * 16 * 3);
    assert_eq!(i32::from(batches[0].images[16 * 16 * 3 + 16 * 8 * 3]) / 10, 4, "the third record's blue, moved up");
    assert_eq!(set.report().bad, 2);
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

#[test]
fn dropping_a_set_ends_its_threads() {
    let photos = Photos::make(60);
    let mut set = start(&photos, 1);
    assert!(set.next().is_some());
    drop(set);
}
