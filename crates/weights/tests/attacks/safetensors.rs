//! Headers of safetensors files that lie.

use crate::make::safetensors;
use crate::{attack, is_truncated, refused, refused_with, use_all};

fn one(dtype: &str, shape: &str, offsets: &str, data: usize) -> Vec<u8> {
    safetensors(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), data)
}

#[test]
fn the_honest_file_is_read() {
    let archive = attack(&one("F32", "[2]", "[0,8]", 8)).unwrap();
    assert_eq!(use_all(&archive).unwrap(), 1);
    let empty = attack(&one("F32", "[0,3]", "[0,0]", 0)).unwrap();
    assert_eq!(empty.tensors().unwrap()["a"].shape(), [0, 3]);
    let huge = one("F32", "[0,18446744073709551615,2]", "[0,0]", 0);
    refused_with(attack(&huge), "has no valid size");
}

#[test]
fn lengths_that_are_wrong() {
    let huge = [&(1_u64 << 55).to_le_bytes()[..], b"{}"].concat();
    refused_with(attack(&huge), "the length of the header is 36028797018963968");
    let longer = [&100_u64.to_le_bytes()[..], b"{}"].concat();
    assert!(is_truncated(&attack(&longer)));
    assert!(is_truncated(&attack(&one("F32", "[2]", "[0,8]", 7))));
    assert!(is_truncated(&attack(&one("F32", "[2]", "[0,8]", 9))));
    refused_with(attack(&one("F32", "[3]", "[0,8]", 8)), "safetensors header");
    refused_with(attack(&one("F32", "[2]", "[8,0]", 8)), "safetensors header");
    refused_with(attack(&one("F32", "[2]", "[4,12]", 12)), "safetensors header");
    refused_with(attack(&one("F32", "[18446744073709551615,2]", "[0,8]", 8)), "safetensors header");
    refused_with(attack(&one("F32", "[-1]", "[0,8]", 8)), "safetensors header");
    refused_with(attack(&one("F32", "[18446744073709551615,2,0]", "[0,0]", 0)), "safetensors header");
}

#[test]
fn headers_that_are_none() {
    refused_with(attack(&safetensors("{", 0)), "safetensors header");
    refused_with(attack(&safetensors(&"{\"a\":".repeat(100_000), 0)), "safetensors header");
    refused_with(attack(&one("F3", "[2]", "[0,8]", 8)), "safetensors header");
    refused_with(attack(&one("F8_E4M3", "[2]", "[0,2]", 2)), "elements of type F8_E4M3 are not supported");
    let dimensions = format!("[{}1]", "1,".repeat(16));
    refused_with(attack(&one("F32", &dimensions, "[0,4]", 4)), "is 17, the limit is 16");
}

#[test]
fn tensors_that_share_bytes_or_names() {
    let entry = r#"{"dtype":"U8","shape":[4],"data_offsets":[0,4]}"#;
    refused(attack(&safetensors(&format!(r#"{{"a":{entry},"b":{entry}}}"#), 4)));
    // The same name twice: JSON's last one counts, and it must still cover the file.
    let other = r#"{"dtype":"U8","shape":[4],"data_offsets":[4,8]}"#;
    refused(attack(&safetensors(&format!(r#"{{"a":{entry},"a":{other}}}"#), 8)));
}

#[test]
fn a_message_shows_the_beginning_of_a_long_text() {
    // Found by fuzzing: a type of 16,000 characters came back as a message as long.
    let message = refused(attack(&one(&"F32".repeat(10_000), "[2]", "[0,8]", 8)));
    assert!(message.starts_with("safetensors header: unknown variant `F32F32F32") && message.ends_with("..."));
    assert!(message.len() < 1000, "{} bytes", message.len());
}
