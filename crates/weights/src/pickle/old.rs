//! The instructions of protocols 0 and 1 that differ from those of the later ones: numbers and strings are lines of text, as Python 2
//! writes them.

use std::io::BufRead;

use super::Machine;
use super::graph::Value;
use crate::error::Fault;
use crate::limits::CLASS_NAME_BYTES;

/// INT, LONG, FLOAT, STRING, UNICODE, GET and PUT.
pub(super) const INSTRUCTIONS: &[u8] = b"ILFSVgp";

/// Bytes of a number's line.
const NUMBER_BYTES: u64 = CLASS_NAME_BYTES;

impl<R: BufRead> Machine<'_, R> {
    pub(super) fn old_step(&mut self, opcode: u8) -> Result<(), Fault> {
        match opcode {
            b'I' => {
                let line = self.input.line("an integer", NUMBER_BYTES)?;
                match &*line {
                    "01" => self.push(Value::Bool(true)),
                    "00" => self.push(Value::Bool(false)),
                    digits => self.integer(digits),
                }
            }
            b'L' => {
                let line = self.input.line("an integer", NUMBER_BYTES)?;
                self.integer(line.strip_suffix('L').unwrap_or(&line))
            }
            b'F' => {
                let line = self.input.line("a float", NUMBER_BYTES)?;
                let float = line.parse().map_err(|_| self.input.fault(format!("{line:?}, expected a float")))?;
                self.push(Value::Float(float))
            }
            b'S' => {
                let line = self.input.line_of_bytes("a string", self.limits.pickle_bytes)?;
                let bytes =
                    unquoted(&line).ok_or_else(|| self.input.fault("a string that is not quoted as it should be"))?;
                self.push(match String::from_utf8(bytes) {
                    Ok(text) => Value::Text(text.into()),
                    Err(_) => Value::Bytes,
                })
            }
            b'V' => {
                let line = self.input.line_of_bytes("a string", self.limits.pickle_bytes)?;
                let text = raw_unicode(&line).ok_or_else(|| self.input.fault("an escape that is no character"))?;
                self.push(Value::Text(text.into()))
            }
            b'g' | b'p' => {
                let line = self.input.line("the number of a stored value", NUMBER_BYTES)?;
                let index = line.parse().map_err(|_| self.input.fault(format!("{line:?}, expected a number")))?;
                if opcode == b'g' { self.get(index) } else { self.put(index) }
            }
            _ => unreachable!("one of INSTRUCTIONS"),
        }
    }

    fn integer(&mut self, digits: &str) -> Result<(), Fault> {
        match digits.parse() {
            Ok(int) => self.push(Value::Int(int)),
            Err(_) if digits.len() > 18 && digits.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit()) => {
                self.push(Value::Long)
            }
            Err(_) => Err(self.input.fault(format!("{digits:?}, expected an integer"))),
        }
    }
}

/// The bytes that a literal of Python 2 stands for: between quotes, with escapes.
fn unquoted(line: &[u8]) -> Option<Vec<u8>> {
    let [quote @ (b'\'' | b'"'), inside @ .., last] = line else {
        return None;
    };
    if quote != last {
        return None;
    }
    let mut bytes = Vec::with_capacity(inside.len());
    let mut rest = inside.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => hexadecimal(&[rest.next()?, rest.next()?])? as u8,
                other @ (b'\\' | b'\'' | b'"') => other,
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}

/// Latin-1, in which `\uXXXX` and `\UXXXXXXXX` stand for other characters.
fn raw_unicode(line: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let [first, ..] = rest {
        let (character, length) = match rest {
            [b'\\', b'u', digits @ ..] => (char::from_u32(hexadecimal(digits.get(..4)?)?)?, 6),
            [b'\\', b'U', digits @ ..] => (char::from_u32(hexadecimal(digits.get(..8)?)?)?, 10),
            _ => (char::from(*first), 1),
        };
        text.push(character);
        rest = &rest[length..];
    }
    Some(text)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_of_python_2() {
        for (line, expected) in [
            (r"'a dog'", Some("a dog")),
            (r#""it's""#, Some("it's")),
            (r"'\'\\\x41\t'", Some("'\\A\t")),
            (r"''", Some("")),
            (r"'", None),
            (r"'a", None),
            (r"'\q'", None),
            (r"'\x4'", None),
            ("", None),
        ] {
            assert_eq!(unquoted(line.as_bytes()), expected.map(|text| text.as_bytes().to_vec()), "{line}");
        }
        assert_eq!(raw_unicode(b"caf\xe9 \\u00e9 \\U0001f436 \\x").as_deref(), Some("caf\u{e9} \u{e9} \u{1f436} \\x"));
        for wrong in [&br"\u12"[..], br"\ud800", br"\UFFFFFFFF", br"\u 123"] {
            assert_eq!(raw_unicode(wrong), None);
        }
    }
}
