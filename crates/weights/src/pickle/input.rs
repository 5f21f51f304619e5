//! The bytes of a pickle, handed out no faster than they really arrive.

use std::io::{BufRead, Read};

use crate::error::Fault;

/// A reader that knows its position and the end that it may not pass.
pub(crate) struct Input<R> {
    inner: R,
    at: u64,
    start: u64,
    limit: u64,
}

impl<R: BufRead> Input<R> {
    /// Reads from `inner`; each pickle may take `limit` bytes.
    pub(crate) fn new(inner: R, limit: u64) -> Self {
        Self { inner, at: 0, start: 0, limit }
    }

    /// Bytes read since the beginning.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Grants the full limit anew: another pickle of the same stream begins here.
    pub(crate) fn begin_pickle(&mut self) {
        self.start = self.at;
    }

    /// An error about the byte that was read last.
    pub(crate) fn fault(&self, problem: impl Into<String>) -> Fault {
        Fault::Pickle { at: self.at.saturating_sub(1), problem: problem.into() }
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.charge("the pickle", N as u64)?;
        let mut filled = 0;
        while filled < N {
            match self.inner.read(&mut bytes[filled..])? {
                0 => return Err(Fault::truncated("the pickle", N as u64, filled as u64)),
                n => filled += n,
            }
        }
        Ok(bytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.array::<1>()?[0])
    }

    /// The next `length` bytes. Memory grows with what the file holds, never with what it declares.
    pub(crate) fn bytes(&mut self, what: &str, length: u64) -> Result<Vec<u8>, Fault> {
        self.charge(what, length)?;
        let mut bytes = Vec::new();
        self.inner.by_ref().take(length).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < length {
            return Err(Fault::truncated(what, length, bytes.len() as u64));
        }
        Ok(bytes)
    }

    /// The next `length` bytes as text.
    pub(crate) fn text(&mut self, what: &str, length: u64) -> Result<Box<str>, Fault> {
        let bytes = self.bytes(what, length)?;
        let text = String::from_utf8(bytes).map_err(|_| self.fault(format!("{what} is not UTF-8")))?;
        Ok(text.into_boxed_str())
    }

    /// Text up to the next line feed, at most `longest` bytes.
    pub(crate) fn line(&mut self, what: &str, longest: u64) -> Result<Box<str>, Fault> {
        let line = self.line_of_bytes(what, longest)?;
        let text = String::from_utf8(line).map_err(|_| self.fault(format!("{what} is not UTF-8")))?;
        Ok(text.into_boxed_str())
    }

    /// Bytes up to the next line feed, at most `longest`.
    pub(crate) fn line_of_bytes(&mut self, what: &str, longest: u64) -> Result<Vec<u8>, Fault> {
        let mut line = Vec::new();
        self.inner.by_ref().take(longest + 1).read_until(b'\n', &mut line)?;
        self.charge(what, line.len() as u64)?;
        match line.pop() {
            Some(b'\n') => {}
            _ if line.len() as u64 == longest => {
                return Err(Fault::limit(format!("the length of {what}"), longest + 1, longest));
            }
            _ => {
                return Err(Fault::truncated(what, line.len() as u64 + 1, line.len() as u64));
            }
        }
        Ok(line)
    }

    fn charge(&mut self, what: &str, length: u64) -> Result<(), Fault> {
        let end = (self.at - self.start).saturating_add(length);
        if end > self.limit {
            return Err(Fault::limit(format!("the pickle's length with {what}"), end, self.limit));
        }
        self.at += length;
        Ok(())
    }
}
