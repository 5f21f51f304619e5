//! Tensors that lie outside of their storage, have impossible sizes, or are named twice.

use crate::make::*;
use crate::{attack, refused_with, use_all, within_bounds};

/// The storage "0" has two floats.
fn alone(offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    torch_zip_of(&tensor(2, offset, shape, strides))
}

#[test]
fn the_honest_file_is_read() {
    let archive = attack(&torch_zip_of(&dict(&[(text("a"), two_floats())]))).unwrap();
    let tensor = archive.tensors().unwrap()["a"].load().unwrap();
    assert_eq!(tensor.to_f32(), [1.0, 2.0]);
}

#[test]
fn a_tensor_outside_of_its_storage() {
    for (offset, shape, strides) in [
        (0, &[3][..], &[1][..]),
        (1, &[2], &[1]),
        (0, &[2], &[2]),
        (3, &[0], &[1]),
        (i64::MAX, &[1], &[1]),
        (0, &[2, 2], &[1, 1]),
    ] {
        refused_with(attack(&alone(offset, shape, strides)), "does not fit in 2 elements");
    }
}

#[test]
fn sizes_and_strides_that_overflow() {
    let half = 1 << 32;
    refused_with(attack(&alone(0, &[half, half, half], &[0, 0, 0])), "has no valid size");
    refused_with(attack(&alone(0, &[i64::MAX, 3], &[0, 0])), "has no valid size");
    refused_with(attack(&alone(0, &[2, 2, 2, 2], &[i64::MAX; 4])), "has no valid size");
    refused_with(attack(&alone(0, &[1 << 62], &[0])), "has no valid size");
}

#[test]
fn sizes_that_a_size_of_zero_hides() {
    refused_with(attack(&alone(0, &[0, i64::MAX], &[1, 1])), "has no valid size");
    refused_with(attack(&alone(0, &[1 << 40, 0, 1 << 40], &[1, 1, 1])), "has no valid size");
}

#[test]
fn sizes_and_strides_that_are_none() {
    refused_with(attack(&alone(0, &[-1], &[1])), "shape is not a tuple of at most 16 integers from 0");
    refused_with(attack(&alone(0, &[2], &[-1])), "strides are not a tuple of at most 16 integers from 0");
    refused_with(attack(&alone(-1, &[1], &[1])), "offset is not an integer from 0");
    refused_with(attack(&alone(0, &[1, 1], &[1])), "2 sizes and 1 strides");
    refused_with(attack(&alone(0, &[1; 17], &[1; 17])), "at most 16");
    let rebuild = |arguments: Vec<u8>| torch_zip_of(&call(class("torch._utils", "_rebuild_tensor_v2"), arguments));
    refused_with(attack(&rebuild(tuple(&[int(1), int(2), int(3), int(4)]))), "a tensor on an integer");
    refused_with(attack(&rebuild(tuple(&[]))), "a tensor from 0 arguments");
    let shape_of_text = tuple(&[storage("FloatStorage", "0", 2), int(0), text("2"), ints(&[1])]);
    refused_with(attack(&rebuild(shape_of_text)), "shape is not a tuple");
    let parameter = call(class("torch._utils", "_rebuild_parameter"), tuple(&[int(1)]));
    refused_with(attack(&torch_zip_of(&parameter)), "a parameter of an integer");
}

#[test]
fn a_tensor_broadcast_to_a_terabyte() {
    let broadcast = alone(0, &[1 << 38], &[0]);
    let archive = attack(&broadcast).unwrap();
    refused_with(within_bounds(|| use_all(&archive)), "the limit is");
    refused_with(within_bounds(|| archive.root().as_tensor().unwrap().load()), "the size of a tensor in bytes");
}

#[test]
fn one_storage_named_many_times() {
    // 200 names of a tensor of a megabyte each, all on the same two floats.
    let entries: Vec<_> = (0..200).map(|i| (int(i), tensor(2, 0, &[1 << 18], &[0]))).collect();
    let archive = attack(&torch_zip_of(&dict(&entries))).unwrap();
    refused_with(use_all(&archive), "the size of all tensors up to");
}

#[test]
fn two_tensors_of_the_same_name() {
    let inner = dict(&[(text("b"), two_floats())]);
    let archive = attack(&torch_zip_of(&dict(&[(text("a"), inner), (text("a.b"), two_floats())]))).unwrap();
    refused_with(archive.tensors(), "tensor \"a.b\": two tensors have this name");
    let archive = attack(&torch_zip_of(&dict(&[(text("a"), two_floats()), (text("a"), two_floats())]))).unwrap();
    refused_with(archive.tensors(), "tensor \"a\": two tensors have this name");
    let archive = attack(&torch_zip_of(&dict(&[(b"N".to_vec(), two_floats())]))).unwrap();
    refused_with(archive.tensors(), "its key is None, not a string");
}

#[test]
fn storages_that_contradict_the_file() {
    let of = |value: Vec<u8>, storages: &[(&str, &[u8])]| attack(&torch_zip(&pickle(&[&value]), storages));
    refused_with(of(two_floats(), &[]), "zip entry \"data/0\": missing");
    refused_with(of(two_floats(), &[("0", &[0; 7])]), "7 bytes, but 2 elements of F32 are declared");
    refused_with(of(tensor(i64::MAX, 0, &[1], &[1]), &[("0", &[0; 8])]), "declares 9223372036854775807 elements");
    refused_with(of(tensor(-1, 0, &[1], &[1]), &[("0", &[0; 8])]), "number of elements is not an integer from 0");
    let longer = tuple(&[two_floats(), tensor(3, 0, &[1], &[1])]);
    refused_with(of(longer, &[("0", &[0; 8])]), "declared as 2 F32 and as 3 F32");
    let other_type = tuple(&[two_floats(), tensor_on(storage("LongStorage", "0", 2), 0, &[1], &[1])]);
    refused_with(of(other_type, &[("0", &[0; 8])]), "declared as 2 F32 and as 2 I64");
    let escape = tensor_on(storage("FloatStorage", "../../etc/passwd", 2), 0, &[2], &[1]);
    refused_with(of(escape, &[("0", &[0; 8])]), "zip entry \"data/../../etc/passwd\": missing");
}

#[test]
fn storages_of_unknown_types_are_left_alone() {
    let quantised = tensor_on(storage("QInt8Storage", "1", 2), 0, &[2], &[1]);
    let value = dict(&[(text("q"), quantised), (text("a"), two_floats())]);
    let archive = attack(&torch_zip_of(&value)).unwrap();
    assert_eq!(archive.tensors().unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn damaged_data_is_noticed() {
    let file = replace(torch_zip_of(&dict(&[(text("a"), two_floats())])), &one_two(), &[7; 8]);
    let archive = attack(&file).unwrap();
    refused_with(use_all(&archive), "storage 0\": damaged: its checksum is wrong");
}
