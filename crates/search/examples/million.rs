//! How long a search takes among a million features, which are drawn: by the graph, by comparing
//! with all, and by comparing with those of one folder of a hundred.
//!
//!     cargo run --release -p simla-search --example million -- FOLDER [COUNT]

use std::path::PathBuf;
use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use simla_search::{Contents, Hit, Index, Item};

/// The paper's size of a feature.
const FEATURES: usize = 256;
/// Features lie around so many centres, as pictures of a kind do.
const CENTRES: usize = 2000;
const FOLDERS: usize = 100;
const SEARCHES: usize = 200;
const TOP: usize = 24;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().expect("million FOLDER [COUNT]"));
    let count: usize = arguments.next().map_or(1_000_000, |count| count.parse().expect("a number"));
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let centres: Vec<Vec<f32>> = (0..CENTRES).map(|_| unit(&mut rng, &[0.0; FEATURES])).collect();
    let contents = Contents { what: "drawn features".into(), model: "none".into(), features: FEATURES, payload: 0 };
    let mut index = Index::open(&folder, contents).expect("an index");
    let start = Instant::now();
    while index.len() < count {
        let row = |nth: usize| {
            let item = Item { name: format!("{:02}/{nth:08}", nth % FOLDERS), stamp: String::new() };
            (item, unit(&mut rng, &centres[nth % CENTRES]), vec![])
        };
        let piece = index.len()..count.min(index.len() + index.piece());
        index.add(piece.map(row).collect()).expect("added");
    }
    println!("{} features drawn and added in {:.0} s", index.len(), start.elapsed().as_secs_f64());
    index.commit().expect("committed");
    let queries: Vec<Vec<f32>> = (0..SEARCHES).map(|nth| unit(&mut rng, &centres[nth % CENTRES])).collect();
    let graph = |query: &[f32]| index.nearest(query, TOP, false).expect("searched");
    let exact = |query: &[f32]| index.nearest(query, TOP, true).expect("searched");
    let folder = |query: &[f32]| index.nearest_among(query, TOP, |name, _| name.starts_with("07/"));
    type Search<'a> = &'a dyn Fn(&[f32]) -> Vec<Hit>;
    let ways: [(&str, Search, &[Vec<f32>]); 3] =
        [("graph", &graph, &queries), ("exact", &exact, &queries[..20]), ("one folder", &folder, &queries[..20])];
    for (name, search, queries) in ways {
        let mut times: Vec<f64> = vec![];
        for query in queries {
            let start = Instant::now();
            search(query);
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!("{} features, {name}: p50 {:.2} ms, p99 {:.2} ms", index.len(), at(0.5), at(0.99));
    }
    let recall = |query: &Vec<f32>| {
        let right = exact(query);
        graph(query).iter().filter(|hit| right.iter().any(|other| other.name == hit.name)).count() as f64 / TOP as f64
    };
    let recalls: f64 = queries[..20].iter().map(recall).sum();
    println!("recall of the graph: {:.3}", recalls / 20.0);
}

/// Length one, around a centre.
fn unit(rng: &mut ChaCha8Rng, around: &[f32]) -> Vec<f32> {
    let spread = 1.5 / (FEATURES as f32).sqrt();
    let x: Vec<f32> = around.iter().map(|v| v + spread * rng.random_range(-1.0..1.0)).collect();
    let norm = x.iter().map(|v| v * v).sum::<f32>().sqrt();
    x.into_iter().map(|v| v / norm).collect()
}
