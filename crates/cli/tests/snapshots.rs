//! What people read, word for word: a change of it is seen, and meant. `cargo insta review` takes new wordings over.

mod common;

use common::{output_of, printed, refusal};

#[test]
fn a_section_of_settings() {
    insta::assert_snapshot!(printed(&["settings", "saving"]));
}

#[test]
fn refusals() {
    let refused = |arguments: &[&str]| refusal(&output_of(arguments));
    let all = [
        refused(&["settings", "saveing"]),
        refused(&["pretrain", "--data", "no.json", "--output", "no", "--set", "batchsize=3"]),
        refused(&["pretrain", "--data", "no.json", "--output", "no", "--set", "lr=fast"]),
        refused(&["pretrain", "--data", "no.json", "--output", "no", "--set", "temperature=2"]),
        refused(&["eval", "retrieval", "--checkpoint", "no-run", "--data", "no.json"]),
    ];
    insta::assert_snapshot!(all.join("\n"));
}
