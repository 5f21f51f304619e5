//! Brace patterns: `shards/{00000..00041}.tar`, `{coco,sbu}.tar`.

/// Paths that a pattern may stand for.
pub const MAX_PATHS: usize = 1_000_000;

/// All paths that `pattern` stands for, in order; the pattern itself where it has no braces. The error says what is wrong.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, String> {
    let mut done = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let Some(length) = rest[open..].find('}') else {
            return Err("a brace is opened and not closed".into());
        };
        let choices = choices(&rest[open + 1..open + length])?;
        if done.len().saturating_mul(choices.len()) > MAX_PATHS {
            return Err(format!("it stands for more than {MAX_PATHS} paths"));
        }
        let before = &rest[..open];
        done = done.iter().flat_map(|path| choices.iter().map(move |c| format!("{path}{before}{c}"))).collect();
        rest = &rest[open + length + 1..];
    }
    done.iter_mut().for_each(|path| path.push_str(rest));
    Ok(done)
}

/// What one pair of braces stands for: numbers from a to b, as wide as a, or the parts between commas.
fn choices(inside: &str) -> Result<Vec<String>, String> {
    let Some((from, to)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(str::to_string).collect());
    };
    let number = |text: &str| match text.parse::<u64>() {
        Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err(format!("{{{inside}}}: expected two numbers, like {{00000..00041}}")),
    };
    let (first, last) = (number(from)?, number(to)?);
    if last < first {
        return Err(format!("{{{inside}}}: the second number is smaller than the first"));
    }
    if last - first >= MAX_PATHS as u64 {
        return Err(format!("{{{inside}}}: more than {MAX_PATHS} paths"));
    }
    Ok((first..=last).map(|n| format!("{n:0width$}", width = from.len())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_ranges_and_lists() {
        assert_eq!(expand("a.tar").unwrap(), ["a.tar"]);
        assert_eq!(expand("s/{008..011}.tar").unwrap(), ["s/008.tar", "s/009.tar", "s/010.tar", "s/011.tar"]);
        assert_eq!(expand("{a,b}-{1..2}.tar").unwrap(), ["a-1.tar", "a-2.tar", "b-1.tar", "b-2.tar"]);
        assert_eq!(expand("{9..10}").unwrap(), ["9", "10"]);
        assert_eq!(expand("x{,y}").unwrap(), ["x", "xy"]);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        for (pattern, reason) in [
            ("a{1..2", "not closed"),
            ("{2..1}", "smaller than the first"),
            ("{a..b}", "expected two numbers"),
            ("{+1..2}", "expected two numbers"),
            ("{-1..2}", "expected two numbers"),
            ("{0..18446744073709551615}", "more than 1000000"),
            ("{0..9999}{0..9999}", "more than 1000000"),
            ("{0..99999999999999999999}", "expected two numbers"),
        ] {
            let error = expand(pattern).unwrap_err();
            assert!(error.contains(reason), "{pattern}: {error}");
        }
    }
}
