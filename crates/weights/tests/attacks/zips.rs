//! Archives that lead out of the folder, hold more than they are, or mean different things to different readers.

use std::io::{Seek, SeekFrom, Write};

use simla_weights::{Limits, read};

use crate::make::*;
use crate::{attack, refused, refused_with, use_all, within_bounds};

const NOTHING: &[u8] = b"\x80\x02}.";

#[test]
fn names_that_lead_out_of_the_folder() {
    for name in ["../evil", "/etc/passwd", "x/../../evil", "x\\evil", "x//y", "x/./y", "x/y\0z", "x/folder/"] {
        // Written under a harmless name of the same length first, since the writer has its own opinion.
        let plain = "n".repeat(name.len());
        let file = zip(&[("x/data.pkl", NOTHING), (&plain, b"")]);
        let file = replace(file, plain.as_bytes(), name.as_bytes());
        refused_with(attack(&file), "a name that could lead out of a folder");
    }
    let file = replace(zip(&[("x/data.pkl", NOTHING), ("x/yy", b"")]), b"x/yy", b"x/\xff\xfe");
    refused_with(attack(&file), "the name is not UTF-8");
}

#[test]
fn no_pickle_or_several() {
    refused_with(attack(&zip(&[("readme.txt", b"hello")])), "torch.save did not write this archive");
    refused_with(attack(&zip(&[("x/data.pkl", NOTHING), ("y/data.pkl", NOTHING)])), "there are several");
    let program = zip(&[("x/data.pkl", NOTHING), ("x/constants.pkl", NOTHING)]);
    refused_with(attack(&program), "a TorchScript program");
    let order = zip(&[("x/data.pkl", NOTHING), ("x/byteorder", b"middle")]);
    refused_with(attack(&order), "it says middle");
    refused_with(attack(b"PK\x05\x06"), "a zip archive without entries");
}

#[test]
fn two_entries_of_the_same_name() {
    let file = zip(&[("x/data.pkl", NOTHING), ("x/data/0", b"12345678"), ("x/data/1", b"87654321")]);
    refused_with(attack(&replace(file, b"x/data/1", b"x/data/0")), "two entries have the same name");
}

#[test]
fn entries_that_share_bytes() {
    // The directory's last entry (46 bytes and its name) is pointed at the first one's data.
    let mut file = zip(&[("x/data.pkl", NOTHING), ("x/aaaaaaaa", NOTHING)]);
    let last = file.len() - 22 - 46 - 10;
    file[last + 42..last + 46].copy_from_slice(&0_u32.to_le_bytes());
    refused_with(attack(&file), "two entries share bytes");
}

#[test]
fn zip_bombs() {
    // Deflated entries are refused unread, whatever they declare: in local and central header, byte 8 and 10.
    let file = zip(&[("x/data.pkl", NOTHING)]);
    let central = file.len() - 22 - 46 - 10;
    let mut deflated = file.clone();
    (deflated[8], deflated[central + 10]) = (8, 8);
    refused_with(attack(&deflated), "compressed, which torch.save never does");
    // Stored, but the sizes before and after differ by a gigabyte.
    let mut declared = file.clone();
    declared[central + 24..central + 28].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    refused_with(attack(&declared), "compressed, which torch.save never does");
    // Both sizes a gigabyte.
    declared[central + 20..central + 24].copy_from_slice(&(1_u32 << 30).to_le_bytes());
    refused_with(attack(&declared), "zip entry \"x/data.pkl\" needs 1073741824 bytes");
    // Encrypted.
    let mut encrypted = file.clone();
    (encrypted[6], encrypted[central + 8]) = (1, 1);
    refused_with(attack(&encrypted), "encrypted");
    // Data far behind the end of the file.
    let mut far = file;
    far[central + 42..central + 46].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    refused(attack(&far));
}

#[test]
fn a_checksum_that_is_wrong() {
    let file = zip(&[("x/data.pkl", NOTHING)]);
    refused_with(attack(&replace(file, NOTHING, b"\x80\x02].")), "damaged: its checksum is wrong");
}

#[test]
fn a_directory_without_end() {
    let names: Vec<String> = (0..150_000).map(|i| format!("x/{i}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    let file = zip(&entries);
    refused_with(attack(&file), "the number of zip entries is 150000, the limit is 100000");
}

#[test]
fn a_directory_that_promises_trillions_of_entries() {
    // A sparse file of 64 GiB whose end declares 2^40 entries from its middle on.
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"PK\x03\x04").unwrap();
    let end = 64_u64 << 30;
    file.seek(SeekFrom::Start(end)).unwrap();
    let count = (1_u64 << 40).to_le_bytes();
    let (size, offset) = ((32_u64 << 30).to_le_bytes(), (32_u64 << 30).to_le_bytes());
    let zip64 = [b"PK\x06\x06", &44_u64.to_le_bytes()[..], &[45, 0, 45, 0], &[0; 8], &count, &count, &size, &offset];
    file.write_all(&zip64.concat()).unwrap();
    file.write_all(&[b"PK\x06\x07", &[0; 4][..], &end.to_le_bytes(), &[1, 0, 0, 0]].concat()).unwrap();
    file.write_all(&[b"PK\x05\x06", &[0; 4][..], &[0xff; 12], &[0; 2]].concat()).unwrap();
    refused(within_bounds(|| read(file.path(), &Limits::default())));
}

#[test]
fn big_endian_numbers() {
    let value = pickle(&[&dict(&[(text("a"), two_floats())])]);
    let data = [1.0_f32.to_be_bytes(), 2.0_f32.to_be_bytes()].concat();
    let archive = attack(&zip(&[("x/data.pkl", &value), ("x/byteorder", b"big"), ("x/data/0", &data)])).unwrap();
    assert_eq!(use_all(&archive).unwrap(), 1);
    assert_eq!(archive.tensors().unwrap()["a"].load().unwrap().to_f32(), [1.0, 2.0]);
}
