//! What the header of a JPEG says before a pixel is decoded: its metadata, and whether zune-jpeg decodes such a file as it should.
//!
//! zune-jpeg 0.5 was compared with libjpeg on some nine thousand drawn files of any sampling, scans, restarts and marks of colour. What it
//! got wrong, without an error, is refused here. It decodes whole pictures only, neither reduced nor cropped.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use crate::error::{ImageError, broken, truncated};
use crate::format::Format;
use crate::limits::Limits;
use crate::metadata::Metadata;

/// A JPEG whose header is read.
pub(crate) type Decoder<'b> = JpegDecoder<ZCursor<&'b [u8]>>;

#[derive(Debug, Clone, Copy)]
struct Component {
    name: u8,
    /// Sampling factors.
    across: usize,
    down: usize,
}

/// What the segments before the first scan's data say.
#[derive(Default)]
struct Header {
    progressive: bool,
    width: usize,
    height: usize,
    components: Vec<Component>,
    /// Components in the first scan.
    scanned: usize,
    jfif: bool,
    /// The transform that Adobe's mark names, and whether the mark follows the frame.
    adobe: Option<(u8, bool)>,
    metadata: Metadata,
    /// Where the first scan's data begin.
    data: usize,
}

/// Opens a JPEG: its size is within `limits`, the file may hold it, and it is of a kind that is decoded right.
pub(crate) fn open<'b>(bytes: &'b [u8], limits: &Limits) -> Result<(Decoder<'b>, Metadata), ImageError> {
    let header = Header::read(bytes).ok_or_else(|| truncated(Format::Jpeg, bytes, "the header"))?;
    let options = DecoderOptions::new_fast()
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| broken(Format::Jpeg, e))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    limits.check(Format::Jpeg, width as u64, height as u64)?;
    if (width, height) != (header.width, header.height) {
        return Err(broken(Format::Jpeg, "its header can be read in two ways"));
    }
    if let Some(reason) = header.misread() {
        return Err(broken(Format::Jpeg, reason));
    }
    let end = bytes[header.data..].windows(2).rposition(|marker| marker == [0xff, 0xd9]);
    if end.is_none_or(|end| end < header.least_bytes()) {
        return Err(truncated(Format::Jpeg, bytes, "the picture's data"));
    }
    // Oddities of the header do no harm; a damaged scan would be filled with grey.
    decoder.set_options(options.set_strict_mode(true));
    Ok((decoder, header.metadata))
}

impl Header {
    /// Reads segments up to the first scan; `None` if the file ends before.
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut header = Header::default();
        let mut at = 2;
        loop {
            at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)?;
            at += bytes[at..].iter().position(|&byte| byte != 0xff)?;
            let marker = bytes[at];
            at += 1;
            // Stuffing, and markers that stand alone.
            if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd9) {
                continue;
            }
            let length = usize::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
            let segment = bytes.get(at + 2..at + length)?;
            at += length;
            match marker {
                0xc0..=0xc2 => header.frame(marker == 0xc2, segment),
                0xe0 => header.jfif |= segment.starts_with(b"JFIF\0"),
                0xe1 => header.metadata.add_jpeg(segment),
                0xee if segment.starts_with(b"Adobe") => {
                    header.adobe = segment.get(11).map(|&transform| (transform, !header.components.is_empty()));
                }
                0xda => {
                    header.scanned = segment.first().map_or(0, |&count| usize::from(count));
                    header.data = at;
                    return Some(header);
                }
                _ => {}
            }
        }
    }

    fn frame(&mut self, progressive: bool, segment: &[u8]) {
        let &[_, h0, h1, w0, w1, _, ref components @ ..] = segment else { return };
        [self.height, self.width] = [[h0, h1], [w0, w1]].map(|side| usize::from(u16::from_be_bytes(side)));
        self.progressive = progressive;
        let component = |&[name, sampling, _]: &[u8; 3]| Component {
            name,
            across: usize::from(sampling >> 4),
            down: usize::from(sampling & 15),
        };
        self.components = components.as_chunks().0.iter().map(component).collect();
    }

    /// Why zune-jpeg would decode the picture to other pixels than libjpeg does, if so.
    fn misread(&self) -> Option<String> {
        let components = self.components.as_slice();
        let names: Vec<u8> = components.iter().map(|c| c.name).collect();
        let adobe = self.adobe.map(|(transform, _)| transform);
        let contradiction = match components.len() {
            // JFIF means YCbCr, else Adobe's mark counts, else the components' names: zune-jpeg asks in another order.
            3 => (self.jfif || adobe.is_some_and(|t| t != 0)) && names == *b"RGB" || self.jfif && adobe == Some(0),
            4 => adobe == Some(1),
            _ => self.adobe.is_some_and(|(_, behind_frame)| behind_frame),
        };
        let first = components.first()?;
        let finest = |c: &Component| {
            c.across > 0 && c.down > 0 && first.across.is_multiple_of(c.across) && first.down.is_multiple_of(c.down)
        };
        if !matches!(components.len(), 1 | 3 | 4) {
            Some(format!("it has {} components; expected 1 (grey), 3 (colour) or 4 (CMYK)", components.len()))
        } else if !components.iter().all(finest) {
            let sampling: Vec<String> = components.iter().map(|c| format!("{}x{}", c.across, c.down)).collect();
            Some(format!(
                "its components are sampled {}; expected the first to be the finest, by whole numbers (save it again, \
                 for example with `magick FILE NEW.jpg`)",
                sampling.join(", ")
            ))
        } else if !self.progressive && self.scanned != components.len() {
            Some(
                "it is baseline with its colours in several scans, expected in one (save it again without loss: \
                 `jpegtran -copy all FILE > NEW.jpg`)"
                    .into(),
            )
        } else if contradiction {
            let mark = adobe.map_or("none".into(), |transform| transform.to_string());
            Some(format!(
                "what it says of its colours contradicts itself: JFIF {}, Adobe's transform {mark}, components named \
                 {} (save it again, for example with `magick FILE NEW.jpg`)",
                if self.jfif { "yes" } else { "no" },
                names.escape_ascii()
            ))
        } else {
            None
        }
    }

    /// Bytes that the scans have at the least: a bit for the mean of each block of 8 x 8 values.
    fn least_bytes(&self) -> usize {
        let (mut across, mut down, mut blocks) = (1, 1, 0);
        for c in &self.components {
            (across, down, blocks) = (across.max(c.across), down.max(c.down), blocks + c.across * c.down);
        }
        (self.width / (8 * across)) * (self.height / (8 * down)) * blocks / 8
    }
}
