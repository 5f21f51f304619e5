//! Exact search by hand, the graph against it, and an index that survives change, interruption and damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use simla_search::{Contents, Index, Item, SearchError};

fn contents(model: &str, features: usize) -> Contents {
    Contents { what: "pictures".into(), model: model.into(), features, payload: 3 }
}

fn item(name: &str, stamp: &str) -> Item {
    Item { name: name.into(), stamp: stamp.into() }
}

/// Three items on a plane: east, north, and between them.
fn plane() -> Vec<(Item, Vec<f32>, Vec<u8>)> {
    vec![
        (item("east", "1"), vec![1.0, 0.0], vec![1; 3]),
        (item("north", "1"), vec![0.0, 1.0], vec![2; 3]),
        (item("between", "1"), vec![0.6, 0.8], vec![3; 3]),
    ]
}

fn begun(folder: &Path) -> Index {
    let mut index = Index::open(folder, contents("a", 2)).unwrap();
    index.add(plane()).unwrap();
    index.commit().unwrap();
    index
}

fn found(index: &Index, feature: &[f32], n: usize, exact: bool) -> Vec<(String, f32)> {
    let hits = index.nearest(feature, n, exact).unwrap();
    hits.into_iter().map(|hit| (hit.name, hit.similarity)).collect()
}

/// Every file and its bytes.
fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, fs::read(entry.path()).unwrap())
    };
    fs::read_dir(folder).unwrap().map(file).collect()
}

fn unit(rng: &mut ChaCha8Rng, around: &[f32], spread: f32) -> Vec<f32> {
    let x: Vec<f32> = around.iter().map(|v| v + spread * rng.random_range(-1.0..1.0)).collect();
    let norm = x.iter().map(|v| v * v).sum::<f32>().sqrt();
    x.into_iter().map(|v| v / norm).collect()
}

#[test]
fn nearest_by_hand_and_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let expected = |index: &Index| {
        for exact in [true, false] {
            let hits = found(index, &[1.0, 0.0], 2, exact);
            assert_eq!((hits[0].0.as_str(), hits[1].0.as_str()), ("east", "between"));
            assert!((hits[0].1 - 1.0).abs() < 1e-6 && (hits[1].1 - 0.6).abs() < 1e-6);
            assert_eq!(found(index, &[1.0, 0.0], 9, exact).len(), 3);
        }
        let hit = &index.nearest(&[0.0, 1.0], 1, true).unwrap()[0];
        assert_eq!(index.payload(hit), [2; 3]);
    };
    let index = begun(folder.path());
    expected(&index);
    drop(index);
    expected(&Index::open(folder.path(), contents("a", 2)).unwrap());
}

#[test]
fn the_graph_finds_nearly_all_that_exact_search_finds() {
    let folder = tempfile::tempdir().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    const FEATURES: usize = 32;
    let centres: Vec<Vec<f32>> = (0..40).map(|_| unit(&mut rng, &[0.0; FEATURES], 1.0)).collect();
    let rows = (0..4000).map(|i| {
        let feature = unit(&mut rng, &centres[i % centres.len()], 0.3);
        (item(&i.to_string(), ""), feature, vec![0; 3])
    });
    let rows: Vec<_> = rows.collect();
    let mut index = Index::open(folder.path(), contents("a", FEATURES)).unwrap();
    index.add(rows).unwrap();
    index.commit().unwrap();
    let (mut same, mut all) = (0, 0);
    for centre in &centres {
        let query = unit(&mut rng, centre, 0.3);
        let exact = found(&index, &query, 16, true);
        let graph = found(&index, &query, 16, false);
        assert!(graph.is_sorted_by(|a, b| a.1 >= b.1));
        all += exact.len();
        same += exact.iter().filter(|(name, _)| graph.iter().any(|(other, _)| other == name)).count();
    }
    assert!(same * 100 >= all * 97, "{same} of {all}");
}

#[test]
fn only_what_is_new_or_changed_is_asked_for_and_what_is_gone_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    drop(begun(folder.path()));
    let mut index = Index::open(folder.path(), contents("a", 2)).unwrap();
    let now = [item("east", "1"), item("between", "2"), item("west", "1")];
    assert_eq!(index.keep(&now).unwrap(), [1, 2]);
    index
        .add(vec![(now[1].clone(), vec![-0.6, 0.8], vec![7; 3]), (now[2].clone(), vec![-1.0, 0.0], vec![8; 3])])
        .unwrap();
    index.commit().unwrap();
    drop(index);
    let mut index = Index::open(folder.path(), contents("a", 2)).unwrap();
    assert_eq!(index.keep(&now).unwrap(), [0usize; 0]);
    for exact in [true, false] {
        let names: Vec<String> = found(&index, &[-1.0, 0.0], 9, exact).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["west", "between", "east"], "exact: {exact}");
    }
    let before = snapshot(folder.path());
    index.commit().unwrap();
    assert!(before == snapshot(folder.path()), "nothing changed, nothing is written");
}

#[test]
fn an_update_that_is_interrupted_keeps_what_was_added() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = begun(folder.path());
    let west = item("west", "1");
    index.add(vec![(west.clone(), vec![-1.0, 0.0], vec![4; 3])]).unwrap();
    drop(index); // before it could commit
    fs::write(folder.path().join("rows-00000099"), "torn").unwrap();
    let mut index = Index::open(folder.path(), contents("a", 2)).unwrap();
    let mut all: Vec<Item> = plane().into_iter().map(|(item, ..)| item).collect();
    all.push(west);
    assert!(index.keep(&all).unwrap().is_empty());
    index.commit().unwrap();
    assert_eq!(found(&index, &[-1.0, 0.0], 1, false)[0].0, "west");
    assert!(!folder.path().join("rows-00000099").exists(), "what was torn is swept");
}

#[test]
fn room_of_forgotten_items_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = begun(folder.path());
    let rows = |round: usize| {
        (0..50).map(move |i| {
            let angle = i as f32 / 10.0;
            let feature = vec![angle.cos(), angle.sin()];
            (item(&i.to_string(), &round.to_string()), feature, vec![i as u8; 3])
        })
    };
    for round in 0..6 {
        let items: Vec<Item> = rows(round).map(|(item, ..)| item).collect();
        assert_eq!(index.keep(&items).unwrap().len(), 50);
        index.add(rows(round).collect()).unwrap();
        index.commit().unwrap();
    }
    // Half of the last round is forgotten and the rest stays in its file until more than half of all rows are of no use.
    let left: Vec<Item> = rows(5).take(20).map(|(item, ..)| item).collect();
    assert!(index.keep(&left).unwrap().is_empty());
    index.commit().unwrap();
    let rows: u64 = snapshot(folder.path())
        .iter()
        .filter(|(name, _)| name.starts_with("rows-"))
        .map(|(_, bytes)| bytes.len() as u64)
        .sum();
    assert_eq!(rows, 20 * (2 * 4 + 3));
    for exact in [true, false] {
        let hits = index.nearest(&[1.0, 0.0], 1, exact).unwrap();
        assert_eq!((hits[0].name.as_str(), index.payload(&hits[0])), ("0", &[0u8; 3][..]));
    }
}

#[test]
fn an_index_of_something_else_is_refused_and_left_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    drop(begun(folder.path()));
    let before = snapshot(folder.path());
    let other = Index::open(folder.path(), contents("another", 2)).unwrap_err();
    assert!(matches!(other, SearchError::Other { .. }));
    let text = other.to_string();
    assert!(text.contains("model a ") && text.contains("model another"), "{text}");
    assert!(Index::open(folder.path(), contents("a", 5)).is_err());
    assert!(before == snapshot(folder.path()));

    let photographs = tempfile::tempdir().unwrap();
    fs::write(photographs.path().join("beach.jpg"), "not ours").unwrap();
    let refused = Index::open(photographs.path(), contents("a", 2)).unwrap_err().to_string();
    assert!(refused.contains("beach.jpg"), "{refused}");
    assert_eq!(snapshot(photographs.path()).len(), 1);
}

#[test]
fn two_at_once_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let index = begun(folder.path());
    let second = Index::open(folder.path(), contents("a", 2));
    assert!(matches!(second, Err(SearchError::Busy { .. })));
    drop(index);
    Index::open(folder.path(), contents("a", 2)).unwrap();
}

#[test]
fn damage_is_told_and_a_damaged_graph_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    drop(begun(folder.path()));
    let of = |start: &str| {
        let names = snapshot(folder.path()).into_keys();
        folder.path().join(names.into_iter().find(|name| name.starts_with(start)).unwrap())
    };
    let graph = of("graph-");
    let mut bytes = fs::read(&graph).unwrap();
    bytes.iter_mut().for_each(|byte| *byte ^= 0x55);
    fs::write(&graph, bytes).unwrap();
    let mut index = Index::open(folder.path(), contents("a", 2)).unwrap();
    index.commit().unwrap();
    assert_eq!(found(&index, &[0.0, 1.0], 1, false)[0].0, "north");
    drop(index);

    let refused = |words: &[&str]| {
        let text = Index::open(folder.path(), contents("a", 2)).unwrap_err().to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    let rows = of("rows-");
    let bytes = fs::read(&rows).unwrap();
    fs::write(&rows, &bytes[..bytes.len() - 1]).unwrap();
    refused(&["rows-", "32 bytes, expected 3 rows of 11", "remove"]);
    fs::write(&rows, &bytes).unwrap();
    let manifest = folder.path().join("index.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen("\"row\":2", "\"row\":3", 1)).unwrap();
    refused(&["index.json", "no row"]);
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    refused(&["index.json", "damaged"]);
}

#[test]
fn some_items_alone_are_searched() {
    let folder = tempfile::tempdir().unwrap();
    let index = begun(folder.path());
    let hits = index.nearest_among(&[1.0, 0.0], 9, |name, stamp| name != "east" && stamp == "1");
    let names: Vec<&str> = hits.iter().map(|hit| hit.name.as_str()).collect();
    assert_eq!(names, ["between", "north"]);
    assert_eq!(index.nearest_among(&[1.0, 0.0], 1, |name, _| name != "east").len(), 1);
    assert!(index.nearest_among(&[1.0, 0.0], 9, |_, _| false).is_empty());
    assert_eq!(index.feature("north"), Some(vec![0.0, 1.0]));
    assert_eq!(index.feature("south"), None);
    assert_eq!(index.items().map(|(name, _)| name).collect::<Vec<_>>(), ["between", "east", "north"]);
}

#[test]
fn an_index_is_searched_while_it_grows_and_while_its_graph_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = Index::open(folder.path(), contents("a", 2)).unwrap();
    assert!(found(&index, &[1.0, 0.0], 9, false).is_empty());
    index.add(plane()).unwrap();
    let expected = found(&index, &[1.0, 0.0], 9, true);
    assert_eq!(found(&index, &[1.0, 0.0], 9, false), expected, "before any commit");
    drop(index);
    // Its graph was never written: it is made from the rows.
    let mut index = Index::open(folder.path(), contents("a", 2)).unwrap();
    index.shrink().unwrap();
    let draft = index.draft().unwrap().expect("something to write");
    assert_eq!(found(&index, &[1.0, 0.0], 9, false), expected, "the draft is not yet the index's");
    index.adopt(draft).unwrap();
    assert!(index.draft().unwrap().is_none(), "nothing has changed since");
    let kept = snapshot(folder.path());
    index.commit().unwrap();
    assert_eq!(kept, snapshot(folder.path()));
    assert_eq!(found(&index, &[1.0, 0.0], 9, false), expected);
}

#[test]
fn many_search_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut index = begun(folder.path());
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let more = (0..500).map(|nth| (item(&nth.to_string(), "1"), unit(&mut rng, &[0.0; 2], 1.0), vec![0; 3]));
    index.add(more.collect()).unwrap();
    let expected = found(&index, &[1.0, 0.0], 5, false);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(found(&index, &[1.0, 0.0], 5, false), expected)));
        }
    });
}
