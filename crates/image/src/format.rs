//! What a file is, by its first bytes.

use std::fmt;

use crate::error::ImageError;

/// The picture formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg,
    /// PNG, of an animated one the default picture.
    Png,
    /// WebP, of an animated one the first frame.
    WebP,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::WebP => "WebP",
        })
    }
}

impl Format {
    /// The format of the picture that `bytes` hold.
    pub(crate) fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Ok(Format::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, ..] => Ok(Format::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Ok(Format::WebP),
            _ => {
                let (found, todo) = name(bytes);
                Err(ImageError::NoPicture { found, todo })
            }
        }
    }
}

const CONVERT: &str = "convert it first, for example with `magick FILE FILE.jpg`";
const FETCH: &str = "download or copy it again";
const LEAVE_OUT: &str = "leave it out of the data";

/// How files start that people name like pictures: what they are, and what to do.
const KINDS: [(&[u8], &str, &str); 20] = [
    (b"GIF8", "a GIF picture", CONVERT),
    (b"II*\0", "a TIFF or camera raw picture", CONVERT),
    (b"MM\0*", "a TIFF or camera raw picture", CONVERT),
    (b"II+\0", "a BigTIFF picture", CONVERT),
    (b"MM\0+", "a BigTIFF picture", CONVERT),
    (b"\xff\x0a", "a JPEG XL picture", CONVERT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", CONVERT),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", CONVERT),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture", CONVERT),
    (b"8BPS", "a Photoshop picture", CONVERT),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture", CONVERT),
    (b"\0\0\x01\0", "a Windows icon", CONVERT),
    (b"<svg", "an SVG drawing", CONVERT),
    (b"%PDF", "a PDF document", CONVERT),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file itself with `git lfs pull`"),
    (b"RIFF", "a sound or video (RIFF without WEBP)", LEAVE_OUT),
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"<?xml", "an XML text", LEAVE_OUT),
    (b"<", "a web page", FETCH),
];

/// Names what is no picture that is read, and says what to do about it.
fn name(bytes: &[u8]) -> (String, &'static str) {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let kind = KINDS.iter().find(|(start, ..)| bytes.starts_with(start) || start[0] == b'<' && text.starts_with(start));
    let (what, todo) = match bytes {
        [] => ("an empty file", FETCH),
        [_, _, _, _, b'f', b't', b'y', b'p', rest @ ..] => (container(rest), CONVERT),
        // A text may start with the same letters, but not hold the zeros of the header.
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => ("a BMP picture", CONVERT),
        _ => match kind {
            Some(&(_, what, todo)) => (what, todo),
            None if bytes.iter().all(|&byte| byte == 0) => ("a file of zeros", FETCH),
            None => ("", FETCH),
        },
    };
    if !what.is_empty() {
        return (what.into(), todo);
    }
    let start = &bytes[..bytes.len().min(24)];
    // What a text says is often why it is no picture. Its last character may be cut.
    let words = start.utf8_chunks().next().filter(|chunk| chunk.invalid().len() < 4).map_or("", |chunk| chunk.valid());
    let is_text = words.len() + 4 > start.len() && !words.contains(|c: char| c.is_control() && !c.is_whitespace());
    let found = if is_text {
        format!("a text that begins with {words:?}")
    } else {
        format!("a file that begins with {}", start[..start.len().min(12)].escape_ascii())
    };
    (found, todo)
}

/// The kind of a file in ISO's container, by its brands: the major one, a version, then those it is compatible with.
fn container(brands: &[u8]) -> &'static str {
    let has = |names: &[&[u8; 4]]| brands.as_chunks::<4>().0.iter().take(16).any(|brand| names.contains(&brand));
    if has(&[b"avif", b"avis"]) {
        "an AVIF picture"
    } else if has(&[b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"]) {
        "a HEIC picture"
    } else if has(&[b"crx "]) {
        "a camera raw picture"
    } else {
        "a video (MP4 or QuickTime)"
    }
}
