//! Files of the older stream kind whose parts contradict each other.

use crate::make::*;
use crate::{attack, is_truncated, refused_with, use_all};

/// A storage as it follows the pickles: the number of elements, then their bytes.
fn data(elements: i64, bytes: &[u8]) -> Vec<u8> {
    [&elements.to_le_bytes()[..], bytes].concat()
}

#[test]
fn the_honest_file_is_read() {
    let file = torch_stream(&dict(&[(text("a"), two_floats())]), &["0"], &data(2, &one_two()));
    let archive = attack(&file).unwrap();
    assert_eq!(use_all(&archive).unwrap(), 1);
    assert_eq!(archive.tensors().unwrap()["a"].load().unwrap().to_f32(), [1.0, 2.0]);
}

#[test]
fn lengths_that_are_wrong() {
    let file = |elements, bytes: &[u8]| torch_stream(&two_floats(), &["0"], &data(elements, bytes));
    refused_with(attack(&file(3, &one_two())), "3 elements, but 2 are declared");
    refused_with(attack(&file(-1, &one_two())), "18446744073709551615 elements, but 2 are declared");
    assert!(is_truncated(&attack(&file(2, &[0; 7]))));
    assert!(is_truncated(&attack(&torch_stream(&two_floats(), &["0"], &[0; 3]))));
    let huge = torch_stream(&tensor(1 << 40, 0, &[1], &[1]), &["0"], &data(1 << 40, &[0; 64]));
    refused_with(attack(&huge), "storage 0 needs 4398046511104 bytes, 64 are there");
}

#[test]
fn keys_that_are_wrong() {
    let two = data(2, &one_two());
    refused_with(attack(&torch_stream(&two_floats(), &[], &two)), "storage 0\": its data is missing");
    refused_with(attack(&torch_stream(&two_floats(), &["1"], &two)), "declared nowhere");
    let twice = [&two[..], &two].concat();
    refused_with(attack(&torch_stream(&two_floats(), &["0", "0"], &twice)), "its data is there twice");
    let version = replace(torch_stream(&two_floats(), &["0"], &two), &int(1001), &int(1002));
    refused_with(attack(&version), "a format version other than 1001");
}

#[test]
fn views_of_storages() {
    // Files of PyTorch before 0.4 name a part of a storage: (key, offset, size).
    let with_view = |view: Vec<u8>| {
        let id = [text("storage"), class("torch", "FloatStorage"), text("0"), text("cpu"), int(2), view];
        let part = [&tuple(&id)[..], b"Q"].concat();
        let value = dict(&[(text("a"), tensor_on(part, 0, &[1], &[1]))]);
        attack(&torch_stream(&value, &["0"], &data(2, &one_two())))
    };
    let second = with_view(tuple(&[text("v"), int(1), int(1)])).unwrap();
    assert_eq!(second.tensors().unwrap()["a"].load().unwrap().to_f32(), [2.0]);
    for view in [
        tuple(&[text("v"), int(1), int(2)]),
        tuple(&[text("v"), int(i64::MAX), int(i64::MAX)]),
        tuple(&[text("v"), int(-1), int(1)]),
        tuple(&[text("v")]),
        text("v"),
    ] {
        refused_with(with_view(view), "the view of the storage");
    }
    refused_with(with_view(tuple(&[text("v"), int(0), int(0)])), "does not fit in 0 elements");
}
