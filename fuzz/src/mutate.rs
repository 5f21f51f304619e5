//! Changes of bytes, in the way of the great fuzzers. (Crates for it change typed values, or come with a whole fuzzer.)

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// The largest input.
pub(crate) const MAX_BYTES: usize = 1 << 18;
/// Where formats keep what harms most: a change in two falls among so many bytes of the beginning or the end.
const MARGIN: usize = 128;
/// Numbers at which counts, sizes and offsets go wrong.
const NUMBERS: [u64; 18] = [
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];
/// The same for numbers in words.
const DIGITS: [&str; 12] = [
    "0",
    "-1",
    "00",
    "1e999",
    "-0",
    "0.1",
    "2147483648",
    "4294967295",
    "9223372036854775808",
    "18446744073709551615",
    "340282366920938463463374607431768211456",
    "77777777777",
];

/// One of the seeds, changed once or more, twice on average.
pub(crate) fn mutated(seeds: &[Vec<u8>], words: &[&[u8]], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = seeds.choose(rng).cloned().unwrap_or_default();
    loop {
        change(&mut bytes, seeds, words, rng);
        bytes.truncate(MAX_BYTES);
        if rng.random_bool(0.5) {
            return bytes;
        }
    }
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[&[u8]], rng: &mut ChaCha8Rng) {
    let at = place(bytes, rng);
    let word = words.choose(rng).copied().unwrap_or(b"\0");
    match rng.random_range(0..13) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.random_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.random();
            }
        }
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..end(bytes, at, rng))),
        4 => {
            let noise: Vec<u8> = (0..rng.random_range(1..16)).map(|_| rng.random()).collect();
            insert(bytes, at, &noise);
        }
        5 => {
            let part = bytes[at..end(bytes, at, rng)].to_vec();
            insert(bytes, place(bytes, rng), &part);
        }
        6 => {
            // The same part again and again: nesting, endless lists.
            let part = if rng.random_bool(0.5) { word } else { &bytes[at..(at + 16).min(bytes.len())] };
            let part = part.repeat(1 << rng.random_range(1..15));
            insert(bytes, at, &part[..part.len().min(MAX_BYTES)]);
        }
        7 => {
            // The beginning of this one, the end of another one.
            if let Some(other) = seeds.choose(rng) {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[place(other, rng)..]);
            }
        }
        8 => insert(bytes, at, word),
        9 => overwrite(bytes, at, word),
        10 => {
            let near = (bytes.len() as u64).wrapping_add_signed(rng.random_range(-2..3));
            let number = *NUMBERS.choose(rng).filter(|_| rng.random_bool(0.8)).unwrap_or(&near);
            let width = 1 << rng.random_range(0..4);
            write_number(bytes, at, number, width, rng.random());
        }
        11 => {
            // A count or length that is a little off.
            let width = 1 << rng.random_range(0..4);
            let big_endian = rng.random();
            if let Some(number) = read_number(bytes, at, width, big_endian) {
                write_number(bytes, at, number.wrapping_add_signed(rng.random_range(-16..17)), width, big_endian);
            }
        }
        _ => {
            let is_number = |byte: &u8| byte.is_ascii_digit();
            let start = bytes[at..].iter().position(is_number).map_or(at, |skipped| at + skipped);
            let length = bytes[start..].iter().take_while(|byte| is_number(byte)).count();
            let digits = DIGITS.choose(rng).copied().unwrap_or_default();
            bytes.splice(start..start + length, digits.bytes());
        }
    }
}

/// Somewhere in the bytes, or right behind them.
fn place(bytes: &[u8], rng: &mut ChaCha8Rng) -> usize {
    let margin = MARGIN.min(bytes.len());
    match rng.random_range(0..4) {
        0 => rng.random_range(0..=margin),
        1 => bytes.len() - rng.random_range(0..=margin),
        _ => rng.random_range(0..=bytes.len()),
    }
}

/// The end of a part that begins at `at`, more often a short one.
fn end(bytes: &[u8], at: usize, rng: &mut ChaCha8Rng) -> usize {
    let longest = (bytes.len() - at).min(1 << rng.random_range(0..12));
    at + rng.random_range(0..=longest)
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}

fn overwrite(bytes: &mut [u8], at: usize, part: &[u8]) {
    let length = part.len().min(bytes.len() - at);
    bytes[at..at + length].copy_from_slice(&part[..length]);
}

fn read_number(bytes: &[u8], at: usize, width: usize, big_endian: bool) -> Option<u64> {
    let mut number = [0; 8];
    number[..width].copy_from_slice(bytes.get(at..at + width)?);
    if big_endian {
        number[..width].reverse();
    }
    Some(u64::from_le_bytes(number))
}

fn write_number(bytes: &mut [u8], at: usize, number: u64, width: usize, big_endian: bool) {
    let mut number = number.to_le_bytes();
    if big_endian {
        number[..width].reverse();
    }
    overwrite(bytes, at, &number[..width]);
}
