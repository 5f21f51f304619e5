//! From the first byte to the scan: sizes, tables, orientation.

use crate::turn::Turn;

/// What the frame header says of a colour component, and where its tables are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Component {
    id: u8,
    /// Blocks a minimum coded unit holds, across and down: 1 or 2.
    pub across: usize,
    pub down: usize,
    quantisation: usize,
    /// Which Huffman tables its coefficients use.
    pub dc: usize,
    pub ac: usize,
}

/// Everything before the entropy-coded data of a common JPEG.
pub(crate) struct Header<'b> {
    pub width: u32,
    pub height: u32,
    pub turn: Turn,
    /// One (grey) or three (Y, Cb, Cr) components.
    pub(super) components: Vec<Component>,
    /// Steps in zigzag order.
    quantisation: [Option<[u16; 64]>; 4],
    /// Sixteen counts, then the values: DC, AC.
    pub(super) huffman: [[Option<&'b [u8]>; 4]; 2],
    /// Minimum coded units between restart markers; 0 for none.
    pub(super) restart: usize,
    /// From the first byte of entropy-coded data.
    pub(super) data: &'b [u8],
}

/// Reads big-endian numbers from a slice; `None` at its end.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }
}

impl<'b> Header<'b> {
    /// The header of a common JPEG; `None` for all others, broken ones among them: a general decoder is to judge those.
    pub fn read(bytes: &'b [u8]) -> Option<Self> {
        let mut header = Header {
            width: 0,
            height: 0,
            turn: Turn::default(),
            components: Vec::new(),
            quantisation: [None; 4],
            huffman: [[None; 4]; 2],
            restart: 0,
            data: &[],
        };
        let mut adobe = None;
        let mut jfif = false;
        let mut reader = Reader(bytes);
        if reader.short()? != 0xffd8 {
            return None;
        }
        loop {
            if reader.byte()? != 0xff {
                return None;
            }
            let mut marker = reader.byte()?;
            while marker == 0xff {
                marker = reader.byte()?;
            }
            let length = reader.short()?;
            let mut segment = Reader(reader.take(usize::from(length).checked_sub(2)?)?);
            match marker {
                0xc0 | 0xc1 => header.frame(&mut segment)?,
                0xc4 => header.huffman_tables(&mut segment)?,
                0xda => {
                    header.scan(&mut segment)?;
                    header.data = reader.0;
                    return header.is_common(jfif, adobe).then_some(header);
                }
                0xdb => header.quantisation_tables(&mut segment)?,
                0xdd => header.restart = usize::from(segment.short()?),
                0xe0 => jfif |= segment.0.starts_with(b"JFIF\0"),
                0xe1 => {
                    if let Some(exif) = segment.0.strip_prefix(b"Exif\0\0") {
                        header.turn = Turn::from_exif(exif);
                    }
                }
                0xee if segment.0.starts_with(b"Adobe") => adobe = segment.0.get(11).copied(),
                0xe2..=0xef | 0xfe => {}
                _ => return None,
            }
        }
    }

    fn frame(&mut self, segment: &mut Reader<'b>) -> Option<()> {
        if segment.byte()? != 8 || !self.components.is_empty() {
            return None;
        }
        self.height = u32::from(segment.short()?);
        self.width = u32::from(segment.short()?);
        let count = segment.byte()?;
        for _ in 0..count {
            let (id, sampling, table) = (segment.byte()?, segment.byte()?, segment.byte()?);
            self.components.push(Component {
                id,
                across: usize::from(sampling >> 4),
                down: usize::from(sampling & 15),
                quantisation: usize::from(table),
                dc: 0,
                ac: 0,
            });
        }
        if let [grey] = self.components.as_mut_slice() {
            // The blocks of a single component come in rows, whatever its sampling factors say.
            (grey.across, grey.down) = (1, 1);
        }
        Some(())
    }

    fn huffman_tables(&mut self, segment: &mut Reader<'b>) -> Option<()> {
        while !segment.0.is_empty() {
            let which = segment.byte()?;
            let values: usize = segment.0.get(..16)?.iter().map(|&n| usize::from(n)).sum();
            let table = segment.take(16 + values)?;
            *self.huffman.get_mut(usize::from(which >> 4))?.get_mut(usize::from(which & 15))? = Some(table);
        }
        Some(())
    }

    fn quantisation_tables(&mut self, segment: &mut Reader<'b>) -> Option<()> {
        while !segment.0.is_empty() {
            let which = segment.byte()?;
            let mut steps = [0; 64];
            for step in &mut steps {
                *step = if which >> 4 == 0 { u16::from(segment.byte()?) } else { segment.short()? };
            }
            *self.quantisation.get_mut(usize::from(which & 15))? = Some(steps);
        }
        Some(())
    }

    fn scan(&mut self, segment: &mut Reader<'b>) -> Option<()> {
        if usize::from(segment.byte()?) != self.components.len() {
            return None;
        }
        for component in &mut self.components {
            let (id, tables) = (segment.byte()?, segment.byte()?);
            if id != component.id {
                return None;
            }
            component.dc = usize::from(tables >> 4);
            component.ac = usize::from(tables & 15);
        }
        (segment.take(3)? == [0, 63, 0]).then_some(())
    }

    /// Whether the frame is one that the scan decoder knows, with all its tables there.
    fn is_common(&self, jfif: bool, adobe: Option<u8>) -> bool {
        let tables = self.components.iter().all(|component| {
            let quantisation = self.quantisation.get(component.quantisation);
            quantisation.is_some_and(Option::is_some)
                && self.huffman[0].get(component.dc).is_some_and(Option::is_some)
                && self.huffman[1].get(component.ac).is_some_and(Option::is_some)
        });
        let layout = match self.components.as_slice() {
            [_] => true,
            [y, cb, cr] => {
                // As libjpeg: a JFIF mark means YCbCr, else Adobe's mark decides, else the names of the components.
                let ycbcr = jfif || adobe.map_or([y.id, cb.id, cr.id] != *b"RGB", |transform| transform == 1);
                let whole = |c: &Component| (c.across, c.down) == (1, 1);
                ycbcr && whole(cb) && whole(cr) && (1..=2).contains(&y.across) && (1..=2).contains(&y.down)
            }
            _ => false,
        };
        tables && layout && self.width > 0 && self.height > 0
    }

    /// The quantisation steps of a component, in zigzag order.
    pub(super) fn steps(&self, component: &Component) -> [f32; 64] {
        self.quantisation[component.quantisation].unwrap_or([0; 64]).map(f32::from)
    }
}
