//! What a file is by its first bytes, where its name says otherwise or it has to be changed before it can be read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// First bytes that tell.
pub(super) const HEAD: u64 = 8;

/// The first bytes of a file.
pub(super) fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}

/// How a file is compressed, and the command that unpacks it. Records are read in any order, which no compressed file allows.
pub(super) fn compression(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let kinds: [(&[u8], _, _); 6] = [
        (b"\x1f\x8b", "gzip", "gzip -dc FILE > UNPACKED"),
        (b"\x28\xb5\x2f\xfd", "zstd", "zstd -dc FILE > UNPACKED"),
        (b"\xfd7zXZ\0", "xz", "xz -dc FILE > UNPACKED"),
        (b"BZh91AY&", "bzip2", "bzip2 -dc FILE > UNPACKED"),
        (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc FILE > UNPACKED"),
        (b"PK\x03\x04", "zip", "unzip FILE -d FOLDER"),
    ];
    let (_, kind, command) = kinds.into_iter().find(|(magic, ..)| head.starts_with(magic))?;
    Some((kind, command))
}

/// Whether a text that should begin with two ASCII characters is UTF-16, with or without a mark.
pub(super) fn is_utf16(head: &[u8]) -> bool {
    matches!(
        head,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=0x7f, 0, 1..=0x7f, ..] | [1..=0x7f, 0, 1..=0x7f, 0, ..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        assert_eq!(compression(b"\x1f\x8b\x08\0").unwrap().0, "gzip");
        assert_eq!(compression(b"PK\x03\x04").unwrap().0, "zip");
        for other in [b"000.jpg\0".as_slice(), b"", b"BZh.jpg\0"] {
            assert!(compression(other).is_none());
        }
        for text in [b"\xff\xfe[\0".as_slice(), b"\xfe\xff\0[", b"[\0{\0", b"\0i\0m"] {
            assert!(is_utf16(text));
        }
        for text in [b"[{".as_slice(), b"", b"i", b"\xef\xbb\xbf[", b"\0\0\0\0", b"{\0\"i"] {
            assert!(!is_utf16(text));
        }
    }
}
