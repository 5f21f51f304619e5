//! Programs in the pickle that run things, need much from little, or make no sense.

use crate::make::*;
use crate::{attack, refused_with, use_all, within_bounds};

#[test]
fn calls_are_noted_and_never_made() {
    let marker = tempfile::tempdir().unwrap().path().join("ran");
    let command = format!("touch {}", marker.display());
    for (module, name) in [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "Popen")] {
        let value = dict(&[
            (text("attack"), call(class(module, name), tuple(&[text(&command)]))),
            (text("tensor"), two_floats()),
        ]);
        let archive = attack(&torch_zip_of(&value)).unwrap();
        assert_eq!(archive.root().get("attack").unwrap().class(), Some((module, name)));
        assert_eq!(use_all(&archive).unwrap(), 1);
        assert!(!marker.exists());
    }
}

#[test]
fn a_list_that_holds_itself() {
    // The list, stored as value 0, gets itself and a tensor.
    let value = [b"]q\x00h\x00a", &two_floats()[..], b"a"].concat();
    let archive = attack(&torch_zip_of(&value)).unwrap();
    assert_eq!(use_all(&archive).unwrap(), 1);
    assert!(archive.tensors().unwrap().contains_key("1"));
}

#[test]
fn a_dict_and_an_object_that_hold_each_other() {
    let object = [&class("a", "B")[..], b")\x81q\x01"].concat();
    let value = [
        b"}q\x00",
        &text("object")[..],
        &object,
        b"}",
        &text("back"),
        b"h\x00s",
        &text("tensor"),
        &two_floats(),
        b"sbs",
    ]
    .concat();
    let archive = attack(&torch_zip_of(&value)).unwrap();
    assert_eq!(archive.tensors().unwrap().into_keys().collect::<Vec<_>>(), ["object.tensor"]);
}

#[test]
fn lists_of_lists_of_the_same_list() {
    // Sixty lists, each holding the one before twice: 2^60 paths to one tensor.
    let mut value = [b"]", &two_floats()[..], b"aq\x00"].concat();
    for _ in 0..60 {
        value = [&value[..], b"0](h\x00h\x00eq\x00"].concat();
    }
    let archive = attack(&torch_zip_of(&value)).unwrap();
    refused_with(within_bounds(|| use_all(&archive)), "the number of names");
}

#[test]
fn deep_nesting() {
    // 100,000 lists in each other: no recursion builds, walks or drops them.
    let nested = [vec![b']'; 100_000], vec![b'a'; 99_999]].concat();
    let archive = attack(&torch_zip_of(&nested)).unwrap();
    assert_eq!(use_all(&archive).unwrap(), 0);
    let around_tensor = [vec![b']'; 100_000], two_floats(), vec![b'a'; 100_000]].concat();
    let archive = attack(&torch_zip_of(&around_tensor)).unwrap();
    refused_with(use_all(&archive), "containers around a tensor is 65, the limit is 64");
}

#[test]
fn huge_declared_lengths() {
    let string8 = [b"\x8d", &u64::MAX.to_le_bytes()[..], b"abc"].concat();
    let string4 = [b"X", &u32::MAX.to_le_bytes()[..], b"abc"].concat();
    let bytes8 = [b"\x8e", &(1_u64 << 62).to_le_bytes()[..]].concat();
    let array8 = [b"\x96", &(1_u64 << 40).to_le_bytes()[..]].concat();
    for value in [string8, string4, bytes8, array8] {
        refused_with(attack(&torch_zip_of(&value)), "the pickle's length with a string");
    }
    // Within the limit of a pickle, yet not there: memory grows with what is there.
    let string = [b"X", &(60_u32 << 20).to_le_bytes()[..], b"abc"].concat();
    refused_with(attack(&torch_zip_of(&string)), "a string needs 62914560 bytes, 4 are there");
    let long4 = [b"\x8b", &i32::MAX.to_le_bytes()[..]].concat();
    refused_with(attack(&torch_zip_of(&long4)), "the length of an integer is 2147483647, the limit is 64");
    let negative = [b"\x8b", &(-1_i32).to_le_bytes()[..]].concat();
    refused_with(attack(&torch_zip_of(&negative)), "an integer of -1 bytes");
}

#[test]
fn a_memo_of_four_billion() {
    let value = [b"}r", &u32::MAX.to_le_bytes()[..], b"0j", &u32::MAX.to_le_bytes()].concat();
    let archive = attack(&torch_zip_of(&value)).unwrap();
    assert_eq!(archive.root().kind(), "a dict");
}

#[test]
fn a_flood_of_instructions() {
    let flood = |instruction: u8| torch_zip_of(&vec![instruction; 20 << 20]);
    refused_with(attack(&flood(b'N')), "the number of values in the pickle");
    refused_with(attack(&flood(b'}')), "the number of values in the pickle");
    refused_with(attack(&flood(b'(')), "the number of instructions");
    let mut copies = vec![b'2'; 20 << 20];
    copies[0] = b'N';
    refused_with(attack(&torch_zip_of(&copies)), "the number of instructions");
    let memo: Vec<u8> = (0..4_000_000_u32).flat_map(|i| [&b"r"[..], &i.to_le_bytes()].concat()).collect();
    refused_with(attack(&torch_zip_of(&[b"N", &memo[..]].concat())), "the number of instructions");
}

#[test]
fn a_long_list_copied_over_and_over() {
    // A list of 100,000 pairs, made a dict 100,000 times.
    let pairs = [b"](", &b"NN\x86".repeat(100_000)[..], b"eq\x00"].concat();
    let copy = [&class("collections", "OrderedDict")[..], b"q\x010", &b"h\x01h\x00\x85R0".repeat(100_000)].concat();
    refused_with(attack(&torch_zip_of(&[pairs, copy].concat())), "the number of instructions");
    // A class name of a kilobyte, said a million times.
    let name = [&text(&"n".repeat(1000))[..], b"q\x00", &b"h\x00h\x00\x930".repeat(900_000)].concat();
    refused_with(attack(&torch_zip_of(&name)), "the number of instructions");
    // A persistent id of a million parts.
    let id = [&b"("[..], &vec![b'N'; 900_000], b"tQ"].concat();
    refused_with(attack(&torch_zip_of(&id)), "it has 900000 parts");
}

#[test]
fn instructions_that_need_what_is_not_there() {
    for (value, words) in [
        (&b""[..], "it stops with 0 values"),
        (b"NN", "it stops with 2 values"),
        (b"(N", "it stops with 1 values"),
        (b"0", "where there is none"),
        (b"t", "needs a mark"),
        (b"N(0", "where there is none"),
        (b"](Nu", "a key without a value"),
        (b"NNNs", "entries for None"),
        (b"Na", "where there is none"),
        (b"NNa", "elements for None"),
        (b"NNb", "attributes for None"),
        (b"NNR", "the arguments of a call are None"),
        (b"h\x07", "value 7 is used before it is stored"),
        (b"NQ", "it is None, not a tuple"),
        (b")Q", "neither a storage nor a module"),
        (b"NN\x93", "a class whose module or name is not a string"),
        (b"U\x05ab", "a string needs 5 bytes, 3 are there"),
        (b"X\x02\x00\x00\x00\xff\xfe", "a string is not UTF-8"),
        (b"cos", "a module name needs"),
    ] {
        refused_with(attack(&torch_zip_of(value)), words);
    }
}

#[test]
fn instructions_that_no_checkpoint_needs() {
    // Text integers, floats and strings of protocol 0, instances by name, the extension registry, out-of-band buffers.
    for value in [&b"I1\n"[..], b"F1.0\n", b"S'a'\n", b"Va\n", b"(ios\nsystem\n", b"(o", b"\x82\x01", b"P1\n", b"\x97"]
    {
        refused_with(attack(&torch_zip_of(value)), "which no checkpoint needs");
    }
    refused_with(attack(&torch_zip(b"\x80\x09N.", &[])), "protocol 9, expected 2 to 5");
    let line = [b"c", &vec![b'a'; 5000][..], b"\nb\n"].concat();
    refused_with(attack(&torch_zip_of(&line)), "the length of a module name");
}

#[test]
fn a_name_of_a_megabyte_over_many_tensors() {
    let inner: Vec<(Vec<u8>, Vec<u8>)> = (0..1000).map(|i| (int(i), two_floats())).collect();
    let archive = attack(&torch_zip_of(&dict(&[(text(&"n".repeat(1 << 20)), dict(&inner))]))).unwrap();
    refused_with(within_bounds(|| use_all(&archive)), "the length of a tensor's name");
}
