//! Builds checkpoints by hand, with any number in them wrong.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

pub const EMPTY_DICT: &[u8] = b"}";
pub const STOP: &[u8] = b".";

/// A pickle of protocol 2: the instructions, framed by PROTO and STOP.
pub fn pickle(instructions: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x02", &instructions.concat()[..], STOP].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn int(value: i64) -> Vec<u8> {
    [b"\x8a\x08", &value.to_le_bytes()[..]].concat()
}

pub fn tuple(parts: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &parts.concat()[..], b"t"].concat()
}

pub fn ints(values: &[i64]) -> Vec<u8> {
    tuple(&values.iter().map(|&value| int(value)).collect::<Vec<_>>())
}

pub fn class(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn call(function: Vec<u8>, arguments: Vec<u8>) -> Vec<u8> {
    [function, arguments, b"R".to_vec()].concat()
}

/// A dict of the entries.
pub fn dict(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<u8> = entries.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
    [b"}(", &entries[..], b"u"].concat()
}

pub fn storage(class_name: &str, key: &str, elements: i64) -> Vec<u8> {
    let id = [text("storage"), class("torch", class_name), text(key), text("cpu"), int(elements)];
    [&tuple(&id)[..], b"Q"].concat()
}

/// `_rebuild_tensor_v2` on a storage.
pub fn tensor_on(storage: Vec<u8>, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    let hooks = call(class("collections", "OrderedDict"), tuple(&[]));
    let arguments = [storage, int(offset), ints(shape), ints(strides), b"\x89".to_vec(), hooks];
    call(class("torch._utils", "_rebuild_tensor_v2"), tuple(&arguments))
}

/// A tensor on the storage "0" of `elements` floats.
pub fn tensor(elements: i64, offset: i64, shape: &[i64], strides: &[i64]) -> Vec<u8> {
    tensor_on(storage("FloatStorage", "0", elements), offset, shape, strides)
}

/// Two floats, 1 and 2, on the storage "0".
pub fn two_floats() -> Vec<u8> {
    tensor(2, 0, &[2], &[1])
}

/// The bytes of storage "0" for [`two_floats`].
pub fn one_two() -> Vec<u8> {
    [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat()
}

/// A torch file of the zip kind with this pickle and these storages.
pub fn torch_zip(pickle: &[u8], storages: &[(&str, &[u8])]) -> Vec<u8> {
    let mut entries = vec![("x/data.pkl".to_owned(), pickle), ("x/byteorder".to_owned(), b"little")];
    entries.extend(storages.iter().map(|(key, bytes)| (format!("x/data/{key}"), *bytes)));
    let entries: Vec<(&str, &[u8])> = entries.iter().map(|(name, bytes)| (&name[..], *bytes)).collect();
    zip(&entries)
}

/// A torch file of the zip kind whose structure is `value` and that has [`one_two`] as storage "0".
pub fn torch_zip_of(value: &[u8]) -> Vec<u8> {
    torch_zip(&pickle(&[value]), &[("0", &one_two())])
}

/// A zip archive of these entries, stored.
pub fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in entries {
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Every occurrence of `from` made `to`, of the same length.
pub fn replace(mut bytes: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    let mut count = 0;
    while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
        bytes[at + found..][..to.len()].copy_from_slice(to);
        at += found + to.len();
        count += 1;
    }
    assert!(count > 0, "nothing to replace");
    bytes
}

/// A torch file of the stream kind: structure, keys and the data after them.
pub fn torch_stream(structure: &[u8], keys: &[&str], data: &[u8]) -> Vec<u8> {
    let magic = pickle(&[b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"]);
    let version = pickle(&[&int(1001)]);
    let machine = pickle(&[EMPTY_DICT]);
    let keys: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
    let keys = pickle(&[b"](", &keys, b"e"]);
    [magic, version, machine, pickle(&[structure]), keys, data.to_vec()].concat()
}

/// A safetensors file with this header and this many bytes of data.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}
