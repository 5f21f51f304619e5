//! Numbers in few characters, and what many come to.

/// A number as short as its size allows: 12k, 0.0031, 1e-5.
pub fn short_number(value: f64) -> String {
    let size = value.abs();
    let trim = |text: String| {
        if text.contains('.') {
            let text = text.trim_end_matches('0').trim_end_matches('.');
            if text == "-0" { "0".into() } else { text.to_string() }
        } else {
            text
        }
    };
    if !value.is_finite() {
        "-".into()
    } else if size == 0.0 {
        "0".into()
    } else if !(1e-3..1e9).contains(&size) {
        let text = format!("{value:.1e}");
        text.replace(".0e", "e")
    } else if size >= 1e6 {
        format!("{}M", trim(format!("{:.2}", value / 1e6)))
    } else if size >= 1e4 {
        format!("{}k", trim(format!("{:.1}", value / 1e3)))
    } else if size >= 100.0 {
        trim(format!("{value:.1}"))
    } else if size >= 1.0 {
        trim(format!("{value:.2}"))
    } else {
        trim(format!("{value:.4}"))
    }
}

/// Mean of some numbers, and the standard deviation of the sample (0 for fewer than two). What is
/// not finite is left out; none: not a number.
pub fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let count = finite.len() as f64;
    let mean = finite.iter().sum::<f64>() / count;
    if finite.len() < 2 {
        return (mean, 0.0);
    }
    let squares: f64 = finite.iter().map(|v| (v - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0)).sqrt())
}

/// The smallest and the largest of some numbers, those that are not finite left out; None: there are no others.
pub fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let finite = values.into_iter().filter(|v| v.is_finite());
    finite.fold(None, |range, v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((v.min(low), v.max(high)))
    })
}

/// The values below which these shares of some numbers lie, numbers between two taken as lying on a line (R's type 7); None: no
/// finite number.
pub fn quantiles<const N: usize>(values: impl IntoIterator<Item = f64>, shares: [f64; N]) -> Option<[f64; N]> {
    let mut sorted: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    Some(shares.map(|share| {
        let at = share * last as f64;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        low + (high - low) * at.fract()
    }))
}

/// First quartile, median, third quartile.
pub const QUARTILES: [f64; 3] = [0.25, 0.5, 0.75];

/// To sort names by, the numbers at their ends as numbers: "txt_r5" before "txt_r10".
pub fn natural(name: &str) -> (&str, u64) {
    let words = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (words, name[words.len()..].parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviation_is_that_of_the_sample() {
        assert_eq!(mean_and_deviation(&[2.0, 4.0, f64::NAN, 6.0]), (4.0, 2.0));
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, 0.0));
        assert!(mean_and_deviation(&[]).0.is_nan());
    }

    #[test]
    fn quartiles_lie_between_numbers() {
        assert_eq!(quantiles([4.0, 1.0, f64::NAN, 2.0, 3.0], QUARTILES), Some([1.75, 2.5, 3.25]));
        assert_eq!(quantiles([7.0], QUARTILES), Some([7.0; 3]));
        assert_eq!(quantiles([f64::INFINITY], QUARTILES), None);
        assert_eq!((extent([2.0, f64::NAN, -1.0]), extent([])), (Some((-1.0, 2.0)), None));
    }

    #[test]
    fn numbers_in_names_count() {
        let mut names = ["b", "txt_r10", "7", "txt_r5", "a", ""];
        names.sort_by(|a, b| natural(a).cmp(&natural(b)));
        assert_eq!(names, ["", "7", "a", "b", "txt_r5", "txt_r10"]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (12_000.0, "12k"),
            (2_500_000.0, "2.5M"),
            (0.0031, "0.0031"),
            (0.00001, "1e-5"),
            (7.25, "7.25"),
            (-300.0, "-300"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(short_number(value), text);
        }
    }
}
