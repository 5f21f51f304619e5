//! Numbers and strangers' words in the length that a page has room for.

use crate::numbers::short_number;
use serde_json::Value;
use std::time::Duration;

/// Longest caption or word on the page, in characters.
const MAX_CHARACTERS: usize = 600;

/// A cell of a table.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".into(),
        Some(Value::String(text)) => clipped(text),
        Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => grouped(whole),
            (None, real) => short_number(real.unwrap_or(f64::NAN)),
        },
        Some(other) => clipped(&other.to_string()),
    }
}

/// The text, or its beginning where it is too long for a page.
pub(super) fn clipped(text: &str) -> String {
    let mut characters = text.chars();
    let mut kept: String = characters.by_ref().take(MAX_CHARACTERS).collect();
    if characters.next().is_some() {
        kept.push('…');
    }
    kept
}

/// 1234567 as 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(|g| String::from_utf8_lossy(g)).collect();
    groups.join(",")
}

/// Seconds in words; None: not a time.
pub(super) fn duration(seconds: f64) -> Option<String> {
    const TEN_YEARS: f64 = 3.2e8;
    if !(0.0..TEN_YEARS).contains(&seconds) {
        return None;
    }
    // Coarser the longer: no seconds beside hours.
    let unit = match seconds {
        s if s < 600.0 => 1,
        s if s < 86_400.0 => 60,
        _ => 3600,
    };
    let whole = seconds as u64 / unit * unit;
    Some(humantime::format_duration(Duration::from_secs(whole)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_readable() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(duration(75.0).as_deref(), Some("1m 15s"));
        assert_eq!(duration(90_061.0).as_deref(), Some("1day 1h"));
        for nonsense in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(duration(nonsense), None);
        }
        assert_eq!(clipped(&"x".repeat(10_000)).chars().count(), MAX_CHARACTERS + 1);
    }
}
