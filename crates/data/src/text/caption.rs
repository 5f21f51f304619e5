//! Captions as the authors clean them.

/// Words of a caption that are kept.
pub const MAX_WORDS: usize = 30;

/// Characters that are removed from a caption.
const REMOVED: &str = ",.'!?\"()*#:;~";

/// A caption as the encoders see it: lower case, punctuation removed, `-` and `/` to spaces, `<person>` to `person`,
/// runs of white space folded to one space, the first [`MAX_WORDS`] words.
///
/// Any Unicode white space separates words, also a single tab or line break (the authors fold those only in runs).
/// An empty result means that the caption says nothing.
pub fn clean(caption: &str) -> String {
    let plain = plain(caption);
    let words: Vec<&str> = plain.split_whitespace().take(MAX_WORDS).collect();
    words.join(" ")
}

/// The number of words of a caption, those beyond [`MAX_WORDS`] included.
pub fn count_words(caption: &str) -> usize {
    plain(caption).split_whitespace().count()
}

fn plain(caption: &str) -> String {
    without_marks(caption).replace("<person>", "person")
}

/// Lower case, punctuation removed, `-` and `/` to spaces.
pub(super) fn without_marks(text: &str) -> String {
    let kept = text.to_lowercase().chars().filter(|c| !REMOVED.contains(*c)).collect::<String>();
    kept.replace(['-', '/'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn follows_the_recipe_by_hand() {
        for (given, expected) in [
            ("A dog.", "a dog"),
            ("Well, \"it's\" (a) *new* #1: day; yes~ no!?", "well its a new 1 day yes no"),
            ("tri-colored and/or black", "tri colored and or black"),
            ("<person> meets <PERSON>", "person meets person"),
            ("  many \t\n spaces  ", "many spaces"),
            ("tab\tonly", "tab only"),
            ("a — dash and … stay", "a — dash and … stay"),
            ("ÉCOLE Straße İstanbul", "école straße i\u{307}stanbul"),
            ("ΟΔΟΣ", "οδος"),
            ("no\u{a0}break\u{3000}space", "no break space"),
            ("犬と猫!", "犬と猫"),
            ("don't-stop", "dont stop"),
            ("...", ""),
            (" - / - ", ""),
            ("", ""),
        ] {
            assert_eq!(clean(given), expected, "{given:?}");
        }
    }

    #[test]
    fn keeps_the_first_thirty_words() {
        let words: Vec<String> = (0..40).map(|i| format!("w{i}")).collect();
        assert_eq!(clean(&words.join(" ")), words[..30].join(" "));
        assert_eq!(clean(&words[..30].join("-")), words[..30].join(" "));
        assert_eq!((count_words(&words.join("-")), count_words(" - ")), (40, 0));
    }

    proptest! {
        #[test]
        fn any_text_gives_clean_words(text in "\\PC*") {
            let cleaned = clean(&text);
            prop_assert!(cleaned.split(' ').count() <= MAX_WORDS);
            prop_assert!(!cleaned.contains(|c| REMOVED.contains(c) || c == '-' || c == '/'));
            prop_assert!(!cleaned.contains("  "));
            prop_assert_eq!(cleaned.trim(), cleaned.as_str());
        }
    }
}
