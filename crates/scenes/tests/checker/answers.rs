//! Answers questions, and judges statements and sentences, by what the checker reads in them.

use simla_scenes::{Object, Scene};

use crate::checker::{centre, describes, holds, name, read};

fn says(claim: &str, scene: &Scene) -> bool {
    holds(&read(claim), scene)
}

fn count(mention: &str, scene: &Scene) -> usize {
    let mention = read(mention).mentions.remove(0);
    scene.objects.iter().filter(|object| describes(&mention, object)).count()
}

/// The answer to a question; panics where the scene has none.
pub fn answer(question: &str, scene: &Scene) -> String {
    let question = question.strip_suffix('?').unwrap_or_else(|| panic!("no question: {question}"));
    let between = |start: &str, end: &str| question.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
    let the = |noun: &str| {
        let mention = read(&format!("the {noun}")).mentions.remove(0);
        let fitting: Vec<&Object> = scene.objects.iter().filter(|object| describes(&mention, object)).collect();
        assert_eq!(fitting.len(), 1, "{question}: {:#?}", scene.objects);
        fitting[0]
    };
    if let Some(claim) = between("is there ", "") {
        return if says(claim, scene) { "yes" } else { "no" }.to_owned();
    } else if let Some(nouns) = between("how many ", " are there") {
        return count(&format!("no {nouns}"), scene).to_string();
    } else if let Some(noun) = between("what size is the ", "") {
        return name(the(noun).size);
    } else if let Some(noun) = between("what pattern does the ", " have") {
        return name(the(noun).texture);
    } else if let Some(noun) = between("what colour is the ", "") {
        return name(the(noun).colour);
    } else if let Some(noun) = between("what shape is the ", "") {
        return name(the(noun).shape);
    } else if let Some(noun) = between("where is the ", "") {
        let part = |x: f64| usize::from(x > 0.38) + usize::from(x > 0.62);
        let [x, y] = centre(the(noun)).map(|x| part(x / f64::from(scene.picture.width())));
        return match (["top", "", "bottom"][y], ["left", "", "right"][x]) {
            ("", "") => "in the middle".to_owned(),
            (vertical, "") => format!("at the {vertical}"),
            ("", horizontal) => format!("on the {horizontal}"),
            (vertical, horizontal) => format!("in the {vertical} {horizontal} corner"),
        };
    }
    assert_eq!(question, "what is the background");
    name(scene.background)
}

/// Whether a statement is true of two pictures.
pub fn is_true(sentence: &str, [left, right]: [&Scene; 2]) -> bool {
    if let Some(claim) = sentence.strip_prefix("both pictures show ") {
        return says(claim, left) && says(claim, right);
    } else if let Some(claim) = sentence.strip_prefix("exactly one picture shows ") {
        return says(claim, left) != says(claim, right);
    } else if let Some(rest) = sentence.strip_prefix("the left picture has more ") {
        let nouns = rest.strip_suffix(" than the right one").unwrap_or_else(|| panic!("than what? {sentence}"));
        let [left, right] = [left, right].map(|scene| count(&format!("no {nouns}"), scene));
        return left > right;
    }
    let words: Vec<&str> = sentence.split(' ').collect();
    let [.., "in", "the", "two", "pictures"] = words[..] else { panic!("not understood: {sentence}") };
    let number = ["one", "two", "three", "four", "five", "six", "seven", "eight"].iter().position(|&n| n == words[2]);
    let noun = [if words[1] == "is" { "the" } else { "no" }, &words[3..words.len() - 4].join(" ")].join(" ");
    [left, right].map(|scene| count(&noun, scene)).iter().sum::<usize>() == number.expect("a number") + 1
}

/// Whether a sentence is an entailment, neutral or a contradiction of a picture.
pub fn label(sentence: &str, scene: &Scene) -> &'static str {
    let hidden = ["heavy", "magnetic", "wooden", "famous", "old", "new", "cold", "expensive"];
    let (visible, unknown): (Vec<&str>, Vec<&str>) = sentence.split(' ').partition(|word| !hidden.contains(word));
    let ["there", "is", article, ref claim @ ..] = visible[..] else { panic!("not understood: {sentence}") };
    assert!(["a", "an", "no"].contains(&article) && unknown.len() < 2, "{sentence}");
    match (says(&claim.join(" "), scene), article == "no", unknown.is_empty()) {
        (true, _, false) => "neutral",
        (shown, negated, _) if shown != negated => "entailment",
        _ => "contradiction",
    }
}
