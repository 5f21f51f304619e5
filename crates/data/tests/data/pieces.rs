//! Word pieces are bert-base-uncased's: expected ones by the tokenizer in pure Python of `transformers` 4.49 with the
//! authors' cleaning, 25 pieces at most. The vocabulary is BERT's, trimmed to the pieces that can occur in these captions.

use std::path::Path;

use serde::Deserialize;
use simla_data::Vocabulary;

#[derive(Deserialize)]
struct Case {
    caption: String,
    pieces: Vec<String>,
}

#[test]
fn pieces_are_berts() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let vocabulary = Vocabulary::open(&fixtures.join("bert-vocab-trimmed.txt")).unwrap();
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(fixtures.join("bert-pieces.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 23);
    for Case { caption, pieces } in cases {
        let ids = vocabulary.encode(&caption, 25);
        let found: Vec<&str> = ids.iter().map(|id| vocabulary.word(*id)).collect();
        assert_eq!(found, pieces, "{caption:?}");
    }
}
