//! Numbers in few characters.

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

#[cfg(test)]
mod tests {
    use super::*;

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
