//! What a file says of how its picture is to be turned: EXIF or XMP, found where Pillow's `exif_transpose` finds them.

use exif::{In, Tag, Value};
use image::metadata::Orientation;

use crate::turn::Turn;

/// The most bytes that a compressed text may unpack to.
const MAX_TEXT: usize = 1 << 20;
/// The text of a PNG in which ImageMagick keeps EXIF.
const RAW_PROFILE: &[u8] = b"Raw profile type exif";

/// The blocks of a file that may hold an orientation.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// A TIFF structure, with or without the mark `Exif\0\0`.
    exif: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
}

impl Metadata {
    /// Takes what an APP1 segment of a JPEG holds. EXIF that is longer than a segment goes on in the next; of two wholes the first counts.
    pub(crate) fn add_jpeg(&mut self, segment: &[u8]) {
        if let Some(exif) = segment.strip_prefix(b"Exif\0\0") {
            self.exif.get_or_insert_default().extend(exif);
        } else if let Some(xmp) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            self.xmp = Some(xmp.to_vec());
        }
    }

    /// Reads the chunks of a PNG, also those behind the pixels. An `eXIf` chunk counts before ImageMagick's text.
    pub(crate) fn of_png(bytes: &[u8]) -> Self {
        let mut metadata = Metadata::default();
        let mut raw_profile = None;
        let mut rest = bytes.get(8..).unwrap_or_default();
        while let Some((&[l0, l1, l2, l3, ref kind @ ..], after)) = rest.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            let Some((data, after)) = after.split_at_checked(length) else { break };
            rest = after.get(4..).unwrap_or_default();
            match kind {
                b"eXIf" => metadata.exif = Some(data.to_vec()),
                b"tEXt" | b"zTXt" | b"iTXt" => match png_text(kind, data) {
                    Some((RAW_PROFILE, text)) => raw_profile = from_hex(&text),
                    Some((b"XML:com.adobe.xmp", text)) => metadata.xmp = Some(text),
                    _ => {}
                },
                _ => {}
            }
        }
        metadata.exif = metadata.exif.or(raw_profile);
        metadata
    }

    /// Reads the chunks of a WebP. Only those whose flag is set count, as for libwebp.
    pub(crate) fn of_webp(bytes: &[u8]) -> Self {
        let mut metadata = Metadata::default();
        let mut flags = 0;
        let mut rest = bytes.get(12..).unwrap_or_default();
        while let Some((&[ref kind @ .., l0, l1, l2, l3], after)) = rest.split_first_chunk::<8>() {
            let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
            let Some((data, after)) = after.split_at_checked(length) else { break };
            rest = after.get(length % 2..).unwrap_or_default();
            let first = match kind {
                b"VP8X" => {
                    flags = data.first().copied().unwrap_or_default();
                    continue;
                }
                b"EXIF" if flags & 8 != 0 => &mut metadata.exif,
                b"XMP " if flags & 4 != 0 => &mut metadata.xmp,
                _ => continue,
            };
            first.get_or_insert_with(|| data.to_vec());
        }
        metadata
    }

    /// How the stored picture is turned upright; not at all if nothing says.
    pub(crate) fn turn(self) -> Turn {
        let exif = self.exif.and_then(exif_orientation);
        let orientation = exif.or_else(|| self.xmp.as_deref().and_then(xmp_orientation));
        let orientation = orientation.and_then(|number| Orientation::from_exif(u8::try_from(number).ok()?));
        orientation.map_or(Turn::default(), Turn::from)
    }
}

/// The keyword of a PNG's text chunk and its text; `None` if it cannot be read.
fn png_text<'b>(kind: &[u8; 4], data: &'b [u8]) -> Option<(&'b [u8], Vec<u8>)> {
    let (key, data) = split_at_zero(data)?;
    if !(key == RAW_PROFILE || key == b"XML:com.adobe.xmp") {
        return None;
    }
    let (compressed, text) = match kind {
        b"tEXt" => (false, data),
        b"zTXt" => (true, data.strip_prefix(&[0])?),
        _ => {
            let (&[compressed, _], data) = data.split_first_chunk()?;
            let (_language, data) = split_at_zero(data)?;
            let (_translated_key, text) = split_at_zero(data)?;
            (compressed != 0, text)
        }
    };
    let text = if compressed { fdeflate::decompress_to_vec_bounded(text, MAX_TEXT).ok()? } else { text.to_vec() };
    Some((key, text))
}

fn split_at_zero(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// The bytes of ImageMagick's profile: an empty line, its name, its length, then hexadecimal digits in lines.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').skip(3).flatten().filter(|byte| !byte.is_ascii_whitespace());
    let digits: Option<Vec<u8>> = lines.map(|&digit| Some(char::from(digit).to_digit(16)? as u8)).collect();
    Some(digits?.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect())
}

/// The number of EXIF's orientation, as a short or long integer; 1 if it is something else.
fn exif_orientation(exif: Vec<u8>) -> Option<u32> {
    let exif = match exif.strip_prefix(b"Exif\0\0") {
        Some(tiff) => tiff.strip_prefix(b"Exif\0\0").unwrap_or(tiff).to_vec(),
        None => exif,
    };
    let mut reader = exif::Reader::new();
    // Cameras write much that contradicts EXIF; the orientation stands near the beginning.
    reader.continue_on_error(true);
    let read = reader.read_raw(exif).or_else(|error| error.distill_partial_result(|_| ())).ok()?;
    let field = read.get_field(Tag::Orientation, In::PRIMARY)?;
    let number = match &field.value {
        Value::Short(numbers) => numbers.first().map(|&number| number.into()),
        Value::Long(numbers) => numbers.first().copied(),
        _ => None,
    };
    Some(number.unwrap_or(1))
}

/// The digit of XMP's `tiff:Orientation`, an attribute or an element.
fn xmp_orientation(xmp: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"tiff:Orientation";
    let places = xmp.windows(NAME.len()).enumerate().filter(|&(_, name)| name == NAME);
    let mut digits = places.filter_map(|(at, _)| {
        let rest = &xmp[at + NAME.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        char::from(*value.first()?).to_digit(10)
    });
    digits.next()
}
