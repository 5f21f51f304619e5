//! Huffman-coded numbers from the entropy-coded data.

use super::scan::Failure;

/// Bits that a table looks up at once. Longer codes are rare.
const LOOK: u32 = 10;
/// As a run of zeros: no further coefficient in this block.
const END_OF_BLOCK: u32 = 64;

/// The bits of a scan, with stuffed bytes removed. Behind a marker or the end of the file come zeros that are counted.
pub(super) struct Bits<'b> {
    data: &'b [u8],
    at: usize,
    /// The next bits, from the top.
    held: u64,
    count: u32,
    /// How many of the held bits, from below, are made up.
    made_up: u32,
}

impl<'b> Bits<'b> {
    pub fn new(data: &'b [u8]) -> Self {
        Bits { data, at: 0, held: 0, count: 0, made_up: 0 }
    }

    /// Holds at least 32 bits afterwards: a code (16) and the number behind it (15).
    #[inline(always)]
    fn fill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(next) = self.data[self.at..].first_chunk::<8>() {
            let next = u64::from_be_bytes(*next);
            // No byte is 0xff, that is, no byte of the complement is zero.
            if (!next).wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 == 0 {
                self.held |= next >> self.count;
                let bytes = (63 - self.count) >> 3;
                self.at += bytes as usize;
                self.count += bytes * 8;
                return;
            }
        }
        self.fill_bytewise();
    }

    #[cold]
    #[inline(never)]
    fn fill_bytewise(&mut self) {
        while self.count <= 56 {
            let byte = match self.data[self.at..] {
                [0xff, 0x00, ..] => {
                    self.at += 2;
                    0xff
                }
                [] | [0xff, ..] => {
                    self.made_up += 8;
                    0
                }
                [byte, ..] => {
                    self.at += 1;
                    byte
                }
            };
            self.held |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline(always)]
    fn drop(&mut self, count: u32) {
        self.held <<= count;
        self.count -= count;
    }

    /// The next `count` (1 to 15) bits as JPEG writes signed numbers: those that start with a zero bit are negative.
    #[inline(always)]
    fn number(&mut self, count: u32) -> i32 {
        let raw = (self.held >> (64 - count)) as i32;
        let negative = !((self.held as i64) >> 63) as i32;
        self.drop(count);
        raw + (negative & (1 - (1 << count)))
    }

    /// Whether bits were used that the file does not have.
    #[inline(always)]
    pub fn overrun(&self) -> bool {
        self.made_up > self.count
    }

    /// Moves behind the restart marker that must come now.
    pub fn restart(&mut self, expected: u8) -> Result<(), Failure> {
        while let [0xff, 0xff, ..] = self.data[self.at..] {
            self.at += 1;
        }
        match self.data[self.at..] {
            [0xff, marker, ..] if marker == 0xd0 + expected => {
                *self = Bits { at: self.at + 2, ..Bits::new(self.data) };
                Ok(())
            }
            [] | [_] => Err(Failure::Truncated),
            _ => Err(Failure::Broken("a restart marker is missing or out of order")),
        }
    }
}

/// A Huffman table, of which most codes, with the number behind them, are found in one look.
///
/// An entry holds, from below: bits to drop (5), bits of the number that still follows (4), zeros before it (7), the number if
/// already known (16).
pub(super) struct Table {
    entries: [u32; 1 << LOOK],
    /// For each length, the first 16-bit word behind its codes, and what to add to a code for the place of its value.
    ends: [u32; 17],
    places: [i32; 17],
    values: [u32; 256],
}

impl Table {
    /// From the sixteen counts and the values; `ac` for tables whose symbols hold a run of zeros.
    pub fn new(definition: &[u8], ac: bool) -> Result<Self, Failure> {
        let (counts, symbols) = definition.split_at(16);
        let mut table = Table { entries: [0; 1 << LOOK], ends: [0; 17], places: [0; 17], values: [0; 256] };
        if symbols.len() > 256 {
            return Err(Failure::Broken("a Huffman table has more than 256 codes"));
        }
        for (value, &symbol) in table.values.iter_mut().zip(symbols) {
            let symbol = u32::from(symbol);
            let (run, size) = match (ac, symbol) {
                (false, 0..=15) => (0, symbol),
                (false, _) => return Err(Failure::Broken("a DC difference of more than 15 bits")),
                (true, 0xf0) => (16, 0),
                (true, _) if symbol & 15 == 0 => (END_OF_BLOCK, 0),
                (true, _) => (symbol >> 4, symbol & 15),
            };
            *value = run << 9 | size << 5;
        }
        let (mut code, mut place) = (0_u32, 0_usize);
        for length in 1..=16_u32 {
            table.places[length as usize] = place as i32 - code as i32;
            for _ in 0..counts[length as usize - 1] {
                if code >= 1 << length {
                    return Err(Failure::Broken("a Huffman table has too many short codes"));
                }
                if length <= LOOK {
                    table.enter(code, length, table.values[place]);
                }
                code += 1;
                place += 1;
            }
            table.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(table)
    }

    /// Enters a code of `length` bits for each continuation, the number behind it resolved where it fits.
    fn enter(&mut self, code: u32, length: u32, value: u32) {
        let free = LOOK - length;
        let size = value >> 5 & 15;
        for rest in 0..1_u32 << free {
            let entry = if size == 0 || size > free {
                value | length
            } else {
                let raw = (rest >> (free - size)) as i32;
                let number = if raw >> (size - 1) == 0 { raw + 1 - (1 << size) } else { raw };
                (number as u32) << 16 | (value & !(15 << 5)) | (length + size)
            };
            self.entries[(code << free | rest) as usize] = entry;
        }
    }

    /// The entry of a code longer than `LOOK` bits.
    #[cold]
    #[inline(never)]
    fn search(&self, bits: &Bits) -> Result<u32, Failure> {
        let word = (bits.held >> 48) as u32;
        for length in LOOK + 1..=16 {
            if word < self.ends[length as usize] {
                let code = (word >> (16 - length)) as i32;
                let place = (code + self.places[length as usize]) as usize & 255;
                return Ok(self.values[place] | length);
            }
        }
        Err(Failure::Broken("a code that its Huffman table does not have"))
    }

    /// The zeros before the next number, and the number; a number 0 after a run of 16 or `END_OF_BLOCK` zeros stands for itself.
    #[inline(always)]
    pub fn next(&self, bits: &mut Bits) -> Result<(u32, i32), Failure> {
        bits.fill();
        let mut entry = self.entries[(bits.held >> (64 - LOOK)) as usize];
        if entry == 0 {
            entry = self.search(bits)?;
        }
        bits.drop(entry & 31);
        let size = entry >> 5 & 15;
        let number = if size == 0 { entry as i32 >> 16 } else { bits.number(size) };
        Ok((entry >> 9 & 127, number))
    }
}
