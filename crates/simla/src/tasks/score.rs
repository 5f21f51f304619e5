//! Shares of right answers, and how far chance moves them.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a wrong answer with this score comes before a right one with that. A tie counts against the right one, so that equal scores for all
/// win nothing; and so does a score that is no number, so that a model which has lost its numbers finds nothing.
pub fn precedes(wrong: f32, right: f32) -> bool {
    wrong.partial_cmp(&right) != Some(Ordering::Less)
}

/// How many of some questions were answered right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Right ones.
    pub right: u64,
    /// All.
    pub of: u64,
}

impl Share {
    /// 0 to 1; 0 of nothing.
    pub fn value(self) -> f64 {
        self.right as f64 / self.of.max(1) as f64
    }

    /// The standard error that so many questions leave, each as if drawn by itself.
    pub fn standard_error(self) -> f64 {
        let p = self.value();
        (p * (1.0 - p) / self.of.max(1) as f64).sqrt()
    }

    /// One more, right or not.
    pub fn count(&mut self, right: bool) {
        self.right += u64::from(right);
        self.of += 1;
    }
}

/// In percent, with the standard error: `76.35 ± 0.32 (13404 of 17558)`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let percent = 100.0 * self.value();
        write!(f, "{percent:.2} ± {:.2} ({} of {})", 100.0 * self.standard_error(), self.right, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_answer_has_to_be_worse_to_come_after() {
        assert!(!precedes(0.1, 0.2) && precedes(0.2, 0.1) && precedes(0.2, 0.2));
        for (wrong, right) in [(f32::NAN, 0.2), (0.2, f32::NAN), (f32::NAN, f32::NAN)] {
            assert!(precedes(wrong, right), "{wrong}, {right}");
        }
    }

    #[test]
    fn a_share_and_its_spread() {
        let share = Share { right: 80, of: 100 };
        assert_eq!((share.value(), share.standard_error()), (0.8, (0.8f64 * 0.2 / 100.0).sqrt()));
        assert_eq!(share.to_string(), "80.00 ± 4.00 (80 of 100)");
        assert_eq!(Share::default().to_string(), "0.00 ± 0.00 (0 of 0)");
    }
}
