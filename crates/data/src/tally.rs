//! Which records have been seen and which of them were bad: counted once a record, judged all the time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::record::{Fault, RecordError};

/// Bad records that are kept as examples.
const EXAMPLES: usize = 10;
/// Records that must have been seen before a share is judged by a sample.
const MIN_SEEN: u64 = 100;
/// Standard deviations by which a sample's share must be above the allowed one: a data set that is just good enough is
/// refused by a judgement on a sample once in about 700.
const DEVIATIONS: f64 = 3.0;

/// What was seen of a data set.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TallyReport {
    /// Records of the data set.
    pub records: u64,
    /// Different records that were tried.
    pub seen: u64,
    /// How many of those were bad: not usable, and replaced.
    pub bad: u64,
    /// The bad ones by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// The first few bad ones: file, position and reason.
    pub examples: Vec<String>,
}

impl std::fmt::Display for TallyReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} of {} records seen, {} of them bad", self.seen, self.records, self.bad)?;
        for (fault, count) in &self.faults {
            let kind = match fault {
                Fault::MissingImage => "image file missing",
                Fault::UnreadableImage => "image unreadable",
                Fault::EmptyCaption => "caption empty",
                Fault::Malformed => "record malformed",
            };
            write!(f, "; {kind}: {count}")?;
        }
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

/// Which records one of the processes of a run has seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// Records of the data set.
    records: u64,
    /// A bit a record, 64 in each.
    tried: Vec<u64>,
    bad: BTreeMap<u64, Fault>,
    examples: Vec<String>,
}

impl TallyReport {
    /// Of what each process of a run has seen.
    pub fn of_all(all: Vec<Seen>) -> Self {
        let records = all.first().map_or(0, |seen| seen.records);
        let mut tried = vec![0; records.div_ceil(64) as usize];
        let (mut bad, mut examples) = (BTreeMap::new(), Vec::new());
        for seen in all {
            tried.iter_mut().zip(&seen.tried).for_each(|(of_all, own)| *of_all |= own);
            bad.extend(seen.bad);
            examples
                .extend(seen.examples.into_iter().filter(|example| !examples.contains(example)).collect::<Vec<_>>());
        }
        examples.truncate(EXAMPLES);
        let mut faults = BTreeMap::new();
        bad.values().for_each(|fault| *faults.entry(*fault).or_default() += 1);
        let seen = tried.iter().map(|bits: &u64| u64::from(bits.count_ones())).sum();
        Self { records, seen, bad: bad.len() as u64, faults, examples }
    }
}

/// Counts records: a bit for each, and more for a bad one.
#[derive(Debug)]
pub(crate) struct Tally {
    records: u64,
    max_bad_share: f64,
    tried: Vec<AtomicU64>,
    tried_count: AtomicU64,
    bad: Mutex<Bad>,
}

#[derive(Debug, Default)]
struct Bad {
    records: BTreeMap<u64, Fault>,
    examples: Vec<String>,
}

impl Tally {
    pub(crate) fn new(records: u64, max_bad_share: f64) -> Self {
        Tally {
            records,
            max_bad_share,
            tried: (0..records.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            tried_count: AtomicU64::new(0),
            bad: Mutex::default(),
        }
    }

    /// Notes that `record` was tried.
    pub(crate) fn note(&self, record: u64, error: Option<&RecordError>) {
        let bit = 1 << (record % 64);
        if self.tried[(record / 64) as usize].fetch_or(bit, Relaxed) & bit == 0 {
            self.tried_count.fetch_add(1, Relaxed);
        }
        if let Some(error) = error {
            let mut bad = self.bad();
            if bad.records.insert(record, error.fault()).is_none() && bad.examples.len() < EXAMPLES {
                bad.examples.push(error.to_string());
            }
        }
    }

    /// Whether the data set has more bad records than allowed: for certain, or as far as the records seen tell.
    pub(crate) fn too_many_bad(&self) -> bool {
        let (seen, bad) = (self.tried_count.load(Relaxed) as f64, self.bad().records.len() as f64);
        let share = self.max_bad_share;
        let deviation = (seen * share * (1.0 - share)).sqrt();
        bad > share * self.records as f64 || (seen >= MIN_SEEN as f64 && bad > share * seen + DEVIATIONS * deviation)
    }

    pub(crate) fn seen(&self) -> Seen {
        let bad = self.bad();
        Seen {
            records: self.records,
            tried: self.tried.iter().map(|bits| bits.load(Relaxed)).collect(),
            bad: bad.records.clone(),
            examples: bad.examples.clone(),
        }
    }

    pub(crate) fn report(&self) -> TallyReport {
        TallyReport::of_all(vec![self.seen()])
    }

    fn bad(&self) -> MutexGuard<'_, Bad> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty(name: &str) -> RecordError {
        RecordError::EmptyCaption { name: name.into() }
    }

    #[test]
    fn a_bad_record_counts_once() {
        let tally = Tally::new(100, 0.1);
        for _epoch in 0..5 {
            (0..100).for_each(|i| tally.note(i, (i < 10).then(|| empty("x")).as_ref()));
        }
        let report = tally.report();
        assert_eq!((report.seen, report.bad, report.faults[&Fault::EmptyCaption]), (100, 10, 10));
        assert_eq!(report.examples.len(), 10);
        assert!(!tally.too_many_bad(), "exactly the allowed share is allowed");
        tally.note(10, Some(&empty("y")));
        assert!(tally.too_many_bad());
    }

    #[test]
    fn a_sample_is_judged_with_patience() {
        // 99 bad of the first 99 of many: too few to judge. 30% of 100 is far above 10%; 12% is within chance.
        let many = |bad: u64, seen: u64| {
            let tally = Tally::new(1_000_000, 0.1);
            (0..seen).for_each(|i| tally.note(i, (i < bad).then(|| empty("x")).as_ref()));
            tally.too_many_bad()
        };
        assert!(!many(99, 99));
        assert!(many(30, 100));
        assert!(!many(12, 100));
        assert!(many(1_200, 10_000));
    }

    #[test]
    fn no_bad_record_at_all_may_be_asked_for() {
        let tally = Tally::new(1_000, 0.0);
        tally.note(1, None);
        assert!(!tally.too_many_bad());
        tally.note(2, Some(&empty("x")));
        assert!(tally.too_many_bad());
    }

    #[test]
    fn what_several_processes_saw_counts_once() {
        let of = |records: std::ops::Range<u64>| {
            let tally = Tally::new(200, 0.5);
            records.for_each(|i| tally.note(i, (i == 70 || i == 130).then(|| empty(&i.to_string())).as_ref()));
            tally.seen()
        };
        let report = TallyReport::of_all(vec![of(60..100), of(65..140)]);
        assert_eq!((report.records, report.seen, report.bad, report.faults[&Fault::EmptyCaption]), (200, 80, 2, 2));
        assert_eq!(report.examples.len(), 2, "{:?}", report.examples);
    }

    #[test]
    fn says_what_was_bad() {
        let tally = Tally::new(9, 0.5);
        tally.note(1, Some(&empty("a.json, record 2")));
        let text = tally.report().to_string();
        assert!(
            text.starts_with("1 of 9 records seen, 1 of them bad; caption empty: 1\n  a.json, record 2:"),
            "{text}"
        );
    }
}
