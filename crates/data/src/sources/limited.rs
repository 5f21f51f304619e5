//! A reader that knows how far it is and stops where a record grows too long, so that a hostile file cannot make a parser
//! collect it all in memory.

use std::cell::Cell;
use std::io::{self, Read};

/// Longest record in bytes. The longest of real ones have a few dozen captions.
pub const MAX_RECORD_BYTES: u64 = 1 << 20;

/// How far a [`Limited`] reader is and how far it may go.
pub(super) struct Progress {
    at: Cell<u64>,
    limit: Cell<u64>,
}

impl Progress {
    /// Of a reader that is at byte `at`, and whose parser reads at most `ahead` bytes more than it needs.
    pub fn new(at: u64, ahead: u64) -> Self {
        Progress { at: Cell::new(at), limit: Cell::new(at + MAX_RECORD_BYTES + ahead) }
    }

    /// The byte that is read next.
    pub fn at(&self) -> u64 {
        self.at.get()
    }

    /// Notes that a record is complete: the next may be as long again.
    pub fn next_record(&self, ahead: u64) {
        self.limit.set(self.at.get() + MAX_RECORD_BYTES + ahead);
    }
}

/// A reader that fails at the limit.
pub(super) struct Limited<'a, R> {
    pub inner: R,
    pub progress: &'a Progress,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Progress { at, limit } = self.progress;
        if at.get() >= limit.get() {
            return Err(io::Error::other(format!(
                "longer than {MAX_RECORD_BYTES} bytes, the most that a record may have"
            )));
        }
        let count = self.inner.read(buffer)?;
        at.set(at.get() + count as u64);
        Ok(count)
    }
}
