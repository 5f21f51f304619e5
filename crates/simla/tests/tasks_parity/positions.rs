//! Positions for another number of patches.

use simla::import::resample_positions;

use crate::common::{Differences, folder, read};

#[test]
fn pos_embed() {
    let (inputs, outputs) =
        (read(folder("pos-embed").join("inputs.safetensors")), read(folder("pos-embed").join("outputs.safetensors")));
    let mut differences = Differences::default();
    for (name, side) in [("pos_embed_6x6", 6), ("pos_embed_3x3", 3)] {
        let ours = resample_positions(&inputs["pos_embed"], side * side).unwrap();
        differences.compare(name, &ours, &outputs[name], 1e-5, 0.0);
    }
    differences.none();
}
