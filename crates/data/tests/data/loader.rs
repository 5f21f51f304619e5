//! Batches: the same whatever the workers, whole wherever a run resumes, and unharmed by bad records.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::common::{Photos, vocabulary};
use simla_data::{Batch, Dataset, LoadError, Loader, LoaderPlan, Options, Pair, Pairs, Source};
use simla_image::Recipe;

fn plan(batch: usize, steps: u64) -> LoaderPlan {
    LoaderPlan { batch, steps, workers: 2, ..LoaderPlan::default() }
}

fn recipe() -> Recipe {
    Recipe { side: 32, ..Recipe::default() }
}

fn pairs() -> Pairs {
    Pairs { patch_grid: 4, masked_patches: 5, ..Pairs::new(Arc::new(vocabulary())) }
}

fn dataset(photos: &Photos) -> Arc<Dataset> {
    Arc::new(Dataset::open(&[Source::from(photos.json.clone())], &Options::default()).unwrap())
}

fn start(photos: &Photos, plan: LoaderPlan) -> Result<Loader<Pairs>, LoadError> {
    Loader::start(dataset(photos), pairs(), recipe(), plan)
}

fn batches(photos: &Photos, plan: LoaderPlan) -> Vec<Batch<Pair>> {
    start(photos, plan).unwrap().map(Result::unwrap).collect()
}

#[test]
fn shapes_and_contents() {
    let photos = Photos::make(20);
    let batches = batches(&photos, plan(4, 10));
    assert_eq!(batches.len(), 10);
    for (step, batch) in batches.iter().enumerate() {
        assert_eq!((batch.step, batch.epoch), (step as u64, step as u64 / 5));
        assert_eq!((batch.len(), batch.side), (4, 32));
        assert_eq!(batch.pictures.len(), 4 * 32 * 32 * 3);
        assert_eq!(batch.halves.len(), 4 * 16 * 16 * 3);
        assert!(batch.pictures.chunks(32 * 32 * 3).all(|view| view.iter().any(|p| *p != 0)));
        for Pair { ids, mlm_ids, mlm_labels, masked_patches, .. } in &batch.rows {
            assert!(ids.len() <= 25 && ids.len() == mlm_ids.len() && ids.len() == mlm_labels.len());
            assert_eq!((ids[0], ids[ids.len() - 1]), (2, 3));
            assert!(mlm_labels.iter().any(|l| *l >= 0));
            assert_eq!((masked_patches.len(), masked_patches.iter().filter(|m| **m).count()), (16, 5));
        }
    }
    for epoch in batches.chunks(5) {
        let mut names: Vec<&String> = epoch.iter().flat_map(|b| &b.records).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 20, "every record once an epoch");
    }
    assert_ne!(batches[0].records, batches[5].records, "another order in the next epoch");
    assert!(batches[0].records[0].contains("photos.json, record "), "{}", batches[0].records[0]);
}

#[test]
fn nothing_depends_on_workers_or_on_where_a_run_resumes() {
    let photos = Photos::make(21);
    let all = batches(&photos, plan(4, 12));
    for workers in [1, 3, 8] {
        assert_eq!(batches(&photos, LoaderPlan { workers, ..plan(4, 12) }), all);
    }
    for first_step in [1, 4, 5, 11] {
        assert_eq!(batches(&photos, LoaderPlan { first_step, ..plan(4, 12) }), all[first_step as usize..]);
    }
    assert_ne!(batches(&photos, LoaderPlan { seed: 1, ..plan(4, 12) })[0].pictures, all[0].pictures);
    assert!(batches(&photos, LoaderPlan { first_step: 12, ..plan(4, 12) }).is_empty());
}

#[test]
fn ranks_take_turns_with_the_batches_of_one_process() {
    let photos = Photos::make(20); // three epochs and a part, each of five batches
    let one = batches(&photos, plan(4, 17));
    for first_step in [0, 6] {
        let ranks: Vec<Vec<Batch<Pair>>> =
            (0..3).map(|rank| batches(&photos, LoaderPlan { first_step, rank, world: 3, ..plan(4, 17) })).collect();
        let mut turns: Vec<_> = ranks.into_iter().map(Vec::into_iter).collect();
        for (nth, whole) in one[first_step as usize..].iter().enumerate() {
            assert_eq!(turns[nth % 3].next().as_ref(), Some(whole));
        }
        assert!(turns.iter_mut().all(|rest| rest.next().is_none()));
    }
}

#[test]
fn each_caption_of_an_image_has_its_turn() {
    let photos = Photos::make(4); // each has three captions
    let mut seen: BTreeMap<(String, Vec<i64>), usize> = BTreeMap::new();
    for batch in batches(&photos, plan(4, 300)) {
        for (row, record) in batch.rows.into_iter().zip(batch.records) {
            *seen.entry((record, row.ids)).or_default() += 1;
        }
    }
    assert_eq!(seen.len(), 12);
    assert!(seen.values().all(|n| (65..135).contains(n)), "each about 100 times: {seen:?}");
}

#[test]
fn bad_records_are_replaced_and_counted_once() {
    let photos = Photos::make(100);
    let before = batches(&photos, plan(10, 30));
    std::fs::remove_file(photos.image(3)).unwrap();
    std::fs::write(photos.image(14), b"no picture").unwrap();
    let bytes = std::fs::read(photos.image(15)).unwrap();
    std::fs::write(photos.image(15), &bytes[..bytes.len() / 2]).unwrap();
    photos.set_captions(59, serde_json::json!(["", "?!", " . "]));
    photos.set_captions(60, serde_json::json!(17));
    photos.set_captions(61, serde_json::json!(["", "a green square"]));
    let bad = [3, 14, 15, 59, 60].map(|i| format!("record {} ", i + 1));
    let is_bad = |name: &str| bad.iter().any(|b| format!("{name} ").contains(b.as_str()));

    let mut loader = start(&photos, plan(10, 30)).unwrap();
    let after: Vec<Batch<Pair>> = loader.by_ref().map(Result::unwrap).collect();
    let mut replaced = 0;
    for (before, after) in before.iter().zip(&after) {
        for row in 0..10 {
            assert!(!is_bad(&after.records[row]), "{}", after.records[row]);
            if is_bad(&before.records[row]) {
                replaced += 1;
            } else {
                assert_eq!(before.records[row], after.records[row], "nothing shifts");
                let view = row * 32 * 32 * 3..(row + 1) * 32 * 32 * 3;
                assert_eq!(before.pictures[view.clone()], after.pictures[view]);
            }
        }
    }
    assert_eq!(replaced, 15, "five bad records in each of three epochs");
    let report = loader.report();
    assert_eq!((report.records, report.seen, report.bad), (100, 100, 5));
    let faults = serde_json::to_value(&report.faults).unwrap();
    assert_eq!(
        faults,
        serde_json::json!({"missing_image": 1, "unreadable_image": 2, "empty_caption": 1, "malformed": 1})
    );
    let text = report.to_string();
    assert!(text.contains("photos.json, record 4: image file") && text.contains("3.png"), "{text}");
    assert!(
        text.contains("record 61: field `caption`: expected a string or a list of strings, found a number: 17"),
        "{text}"
    );
    assert_eq!(after, batches(&photos, LoaderPlan { workers: 5, ..plan(10, 30) }), "substitutes are drawn by position");
}

#[test]
fn too_many_bad_records_end_a_run_before_it_begins() {
    let photos = Photos::make(40);
    for i in 0..5 {
        std::fs::remove_file(photos.image(i)).unwrap();
    }
    let error = start(&photos, plan(4, 10)).err().unwrap();
    assert!(matches!(error, LoadError::TooManyBad { .. }));
    let text = error.to_string();
    assert!(
        text.contains(
            "more than a share of 0.1 (`max_bad_share`): 40 of 40 records seen, 5 of them bad; image file missing: 5"
        ),
        "{text}"
    );
    assert!(text.contains("0.png"), "{text}");
    std::fs::copy(photos.image(9), photos.image(0)).unwrap();
    assert_eq!(batches(&photos, plan(4, 10)).len(), 10, "four of forty are allowed");
}

#[test]
fn too_many_bad_records_are_noticed_on_the_way_too() {
    let photos = Photos::make(60);
    let mut loader = start(&photos, LoaderPlan { preflight: 0, prefetch: 1, ..plan(4, 1000) }).unwrap();
    assert!(loader.next().unwrap().is_ok());
    for i in 0..60 {
        let _ = std::fs::remove_file(photos.image(i));
    }
    let error = loader.find_map(Result::err).expect("an error instead of 1000 steps");
    assert!(matches!(error, LoadError::TooManyBad { .. }), "{error}");
    assert!(loader.next().is_none(), "nothing after an error");
}

#[test]
fn some_batches_are_ready_before_they_are_asked_for_and_no_more() {
    let photos = Photos::make(400);
    let prefetching = LoaderPlan { preflight: 0, prefetch: 4, ..plan(4, 100) };
    let mut loader = start(&photos, prefetching).unwrap();
    let tried = |loader: &Loader<Pairs>| loader.report().seen;
    let patience = std::time::Instant::now();
    while tried(&loader) < 4 * 4 {
        assert!(patience.elapsed().as_secs() < 60, "nothing is prepared");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    // Four wait to be taken, and each of two builders holds one more.
    assert!(tried(&loader) <= 6 * 4, "{}", tried(&loader));
    assert!(loader.next().unwrap().is_ok());
}

#[test]
fn settings_are_refused_at_start() {
    let photos = Photos::make(5);
    let refused = |plan: LoaderPlan| start(&photos, plan).err().unwrap().to_string();
    assert!(refused(plan(1, 1)).contains("`batch` = 1"));
    assert!(refused(plan(6, 1)).contains("`batch` = 6: expected at most the 5 records"));
    let uneven = Pairs { patch_grid: 5, ..pairs() };
    let error = Loader::start(dataset(&photos), uneven, recipe(), plan(2, 1)).err().unwrap().to_string();
    assert!(error.contains("`patch_grid` = 5"), "{error}");
}

#[test]
fn dropping_a_loader_ends_its_threads_soon() {
    let photos = Photos::make(30);
    let begin = std::time::Instant::now();
    for taken in 0..4 {
        let mut loader = start(&photos, LoaderPlan { preflight: 0, ..plan(8, 1_000_000) }).unwrap();
        for _ in 0..taken {
            loader.next().unwrap().unwrap();
        }
    }
    assert!(begin.elapsed().as_secs() < 10);
}

#[test]
fn half_size_views_are_made_where_they_are_asked_for() {
    let photos = Photos::make(8);
    let (with, without) = (plan(4, 4), LoaderPlan { halves: false, ..plan(4, 4) });
    for (mut with, without) in batches(&photos, with).into_iter().zip(batches(&photos, without)) {
        assert!(!with.halves.is_empty());
        with.halves.clear();
        assert_eq!(with, without);
    }
}

#[test]
fn the_order_and_all_draws_are_those_of_the_first_version() {
    // What a run resumes with must be what it would have gone on with. Pictures are left out: decoders round as they like.
    let photos = Photos::make(21);
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3); // FNV-1a
        }
    };
    for batch in batches(&photos, plan(4, 12)) {
        for (row, record) in batch.rows.iter().zip(&batch.records) {
            for list in [&row.ids, &row.mlm_ids, &row.mlm_labels] {
                list.iter().for_each(|value| feed(&value.to_le_bytes()));
            }
            feed(&row.masked_patches.iter().map(|hidden| u8::from(*hidden)).collect::<Vec<_>>());
            feed(record.rsplit(' ').next().unwrap().as_bytes());
        }
    }
    assert_eq!(hash, 0xf752_7b3e_e2c3_5f4e);
}
