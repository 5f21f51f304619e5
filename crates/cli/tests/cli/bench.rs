//! The benchmarks run, measure, and refuse what cannot be measured.

use serde_json::Value;

use crate::common::{assert_refused, output_of, printed};

fn bench(arguments: &[&str]) -> Value {
    let text = printed(&[&["bench"], arguments].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn retrieval_is_timed_part_by_part() {
    let sizes = ["--images", "2", "--captions", "5", "--top-k", "3"];
    for dtype in ["f32", "bf16"] {
        let precision = ["retrieval", "--preset", "tiny", "--dtype", dtype];
        let found = bench(&[&precision[..], &sizes].concat());
        for rate in ["images_per_s", "captions_per_s", "pairs_per_s"] {
            assert!(found[rate].as_f64().unwrap() > 0.0, "{rate}: {found}");
        }
        assert_eq!((&found["top_k"], &found["dtype"]), (&3.into(), &dtype.into()));
    }
    let refused = output_of(&["bench", "retrieval", "--captions", "5", "--top-k", "6"]);
    assert_refused(&refused, &["--captions 5", "--top-k 6", "no more candidates than captions"]);
}

#[test]
fn a_step_that_computes_layers_again_takes_less_memory() {
    let step = ["step", "--preset", "tiny", "--batch", "32", "--steps", "1"];
    let peak = |more: &[&str]| bench(&[&step[..], more].concat())["peak_gib"].as_f64().unwrap();
    let (kept, recomputed) = (peak(&[]), peak(&["--recompute"]));
    assert!(recomputed < 0.9 * kept, "{recomputed} GiB against {kept} GiB");
}
