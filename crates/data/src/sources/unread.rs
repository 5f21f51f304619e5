//! What a source holds and is not read: counted by kind, so that nothing is lost without a word.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Kinds that are told apart; so many are no data set's.
const MAX_KINDS: usize = 100;
/// Longest name of a kind.
const MAX_KIND: usize = 32;

/// Numbers of things by kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unread(BTreeMap<String, u64>);

impl Unread {
    /// Counts one more of a kind.
    pub(super) fn note(&mut self, kind: &str, count: u64) {
        let told_apart = kind.len() <= MAX_KIND && (self.0.len() < MAX_KINDS || self.0.contains_key(kind));
        *self.0.entry(if told_apart { kind } else { "of other kinds" }.into()).or_default() += count;
    }

    /// Counts a file or member by its ending.
    pub(super) fn note_file(&mut self, name: &Path) {
        let hidden = name.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        match name.extension() {
            _ if hidden => self.note("hidden", 1),
            Some(ending) => self.note(&format!(".{}", ending.to_string_lossy().to_lowercase()), 1),
            None => self.note("without an ending", 1),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        other.0.iter().for_each(|(kind, count)| self.note(kind, *count));
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `12 .heic, 3 .gif`.
impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (nth, (kind, count)) in self.0.iter().enumerate() {
            let comma = if nth == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {}", crate::quoted(kind))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_counted_and_their_number_is_bounded() {
        let mut unread = Unread::default();
        for name in ["a.heic", "b.HEIC", "c.gif", "README", "._a.jpg", "d.an-ending-that-is-longer-than-any-kind"] {
            unread.note_file(Path::new(name));
        }
        assert_eq!(unread.to_string(), "1 .gif, 2 .heic, 1 hidden, 1 of other kinds, 1 without an ending");
        (0..1000).for_each(|i| unread.note_file(Path::new(&format!("x.{i}"))));
        assert!(unread.0.len() <= MAX_KINDS + 1 && unread.0.values().sum::<u64>() == 1006);
    }
}
