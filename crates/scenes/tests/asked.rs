//! Questions, statements and sentences: their answers are true, and the text alone does not tell them.

#[path = "checker/answers.rs"]
mod answers;
mod checker;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use simla_scenes::{Scene, Split, generate, write};

const SIDE: u32 = 64;
const COUNTS: [usize; 2] = [1000, 300];

struct Part {
    scenes: BTreeMap<String, Scene>,
    mirrored: BTreeMap<String, Scene>,
    questions: Vec<Value>,
    statements: Vec<Value>,
    entailments: Vec<Value>,
}

static WRITTEN: LazyLock<([Part; 2], Vec<String>)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let files = write(&folder.path().join("scenes"), COUNTS[0], COUNTS[1], 7, SIDE, |_| ()).unwrap();
    let json = |path: &Path| -> Vec<Value> { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let part = |name: &str, split, count, [questions, statements, entailments]: [&Path; 3]| {
        let scene = |index| (format!("{name}/{index:05}.png"), generate(7, index as u64, split, SIDE));
        let scenes: BTreeMap<String, Scene> = (0..count).map(scene).collect();
        let mut mirrored = scenes.clone();
        for object in mirrored.values_mut().flat_map(|scene| &mut scene.objects) {
            object.bbox[0] = SIDE - object.bbox[0] - object.bbox[2];
        }
        let [questions, statements, entailments] = [questions, statements, entailments].map(json);
        Part { scenes, mirrored, questions, statements, entailments }
    };
    let train = [&*files.train_questions, &*files.train_statements, &*files.train_entailments];
    let test = [&*files.test_questions, &*files.test_statements, &*files.test_entailments];
    let parts = [part("train", Split::Train, COUNTS[0], train), part("test", Split::Test, COUNTS[1], test)];
    (parts, serde_json::from_slice(&fs::read(&files.answers).unwrap()).unwrap())
});

fn string<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_else(|| panic!("no {field}: {record}"))
}

/// The text of a record, what is said to be the answer, and what it is by the checker.
fn judged<'a>(record: &'a Value, scenes: &BTreeMap<String, Scene>) -> (&'a str, &'a str, String) {
    let scene = |name: &Value| &scenes[name.as_str().unwrap()];
    if let Some(question) = record["question"].as_str() {
        return (question, record["answer"][0].as_str().unwrap(), answers::answer(question, scene(&record["image"])));
    }
    let (sentence, said) = (string(record, "sentence"), string(record, "label"));
    let found = match &record["images"] {
        Value::Null => answers::label(sentence, scene(&record["image"])).to_owned(),
        images => {
            let pair = [scene(&images[0]), scene(&images[1])];
            if answers::is_true(sentence, pair) { "True" } else { "False" }.to_owned()
        }
    };
    (sentence, said, found)
}

/// The records of a part, by task.
fn tasks(part: &Part) -> [&[Value]; 3] {
    [&part.questions, &part.statements, &part.entailments]
}

/// How often each answer occurs.
fn tally<'a>(answers: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    answers.for_each(|answer| *counts.entry(answer).or_default() += 1);
    counts
}

/// Share of the answer that is given most.
fn best_constant(counts: &BTreeMap<&str, usize>) -> f64 {
    *counts.values().max().unwrap() as f64 / counts.values().sum::<usize>() as f64
}

#[test]
fn every_answer_is_true_and_what_is_not_directional_stays_true_in_the_mirror() {
    for part in &WRITTEN.0 {
        for records in tasks(part) {
            let mut changed = 0;
            for record in records {
                let (text, said, found) = judged(record, &part.scenes);
                assert_eq!(said, found, "{record}");
                if record["directional"] == Value::Bool(false) {
                    assert_eq!(said, judged(record, &part.mirrored).2, "in the mirror: {record}");
                } else {
                    let sideways = ["left of", "right of", "left", "right"].iter().any(|side| text.contains(side));
                    assert!(sideways || text.starts_with("where"), "{record}");
                    // A checker that finds no fault with the mirrored ones would find none with anything.
                    changed += usize::from(sideways && said != judged(record, &part.mirrored).2);
                }
            }
            assert!(changed > 10, "{changed} of {} are false in the mirror", records.len());
        }
    }
}

#[test]
fn the_text_alone_tells_no_more_than_a_coin() {
    for part in &WRITTEN.0 {
        for records in tasks(part) {
            let mut by_text: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            let mut asked = BTreeSet::new();
            for record in records {
                let (text, said, _) = judged(record, &part.scenes);
                by_text.entry(text).or_default().push(said);
                assert!(asked.insert(format!("{text}{}{}", record["image"], record["images"])), "twice: {record}");
            }
            for (text, said) in by_text {
                let counts = tally(said.into_iter());
                assert!(best_constant(&counts) <= 0.5, "{text}: {counts:?}");
            }
        }
    }
}

#[test]
fn answers_are_spread_and_in_the_list() {
    let (parts, list) = &*WRITTEN;
    assert!(list.is_sorted() && list.iter().collect::<BTreeSet<_>>().len() == list.len());
    for (part, count) in parts.iter().zip(COUNTS) {
        assert!(part.questions.len() as f64 > 5.8 * count as f64, "{} questions", part.questions.len());
        let mut by_type: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (index, record) in part.questions.iter().enumerate() {
            let said: Vec<&str> = record["answer"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
            assert!(said.len() == 10 && said.iter().all(|answer| *answer == said[0]), "{record}");
            assert_eq!((&record["question_id"], &record["dataset"]), (&Value::from(index), &Value::from("vqa")));
            assert!(list.iter().any(|answer| answer == said[0]), "{record}");
            let answer_type = match said[0] {
                "yes" | "no" => "yes/no",
                answer if answer.parse::<u32>().is_ok() => "number",
                _ => "other",
            };
            assert_eq!(string(record, "answer_type"), answer_type);
            by_type.entry(string(record, "question_type")).or_default().push(said[0]);
        }
        assert_eq!(by_type.len(), 8);
        for (kind, said) in by_type {
            let counts = tally(said.iter().copied());
            let most = match kind {
                "is there" | "what size" => 0.5,
                "how many" | "what pattern" => 0.4,
                "where" | "what shape" | "what colour" | "what is the background" => 0.25,
                other => panic!("an unknown type: {other}"),
            };
            println!("{kind}: {} answers, {:.3} the most frequent", said.len(), best_constant(&counts));
            assert!(best_constant(&counts) <= most, "{kind}: {counts:?}");
        }
    }
    let used: BTreeSet<&str> = parts[0].questions.iter().map(|record| record["answer"][0].as_str().unwrap()).collect();
    assert!(list.iter().all(|answer| used.contains(&**answer)), "{used:?}");
}

#[test]
fn labels_are_balanced_and_pairs_identified() {
    for (part, (split, count)) in WRITTEN.0.iter().zip(["train", "test"].into_iter().zip(COUNTS)) {
        for (records, labels, least) in [(&part.statements, 2, 1.9), (&part.entailments, 3, 5.5)] {
            let counts = tally(records.iter().map(|record| string(record, "label")));
            assert!(records.len() as f64 > least * count as f64, "{} records", records.len());
            assert!(counts.len() == labels && counts.values().all(|&n| n * labels == records.len()), "{counts:?}");
        }
        let mut groups: BTreeMap<String, usize> = BTreeMap::new();
        for record in &part.statements {
            let parts: Vec<&str> = string(record, "identifier").split('-').collect();
            assert!(matches!(parts[..], [name, _, "0" | "1", "0"] if name == split), "{record}");
            *groups.entry(format!("{} {}", parts[1], string(record, "sentence"))).or_default() += 1;
            assert_ne!(record["images"][0], record["images"][1]);
        }
        assert!(groups.values().all(|&pairs| pairs == 2), "a sentence has two pairs");
        let kinds = ["both pictures", "exactly one", "the left picture", "there"];
        for kind in kinds {
            let found = part.statements.iter().filter(|record| string(record, "sentence").starts_with(kind)).count();
            assert!(found * 10 > part.statements.len(), "{kind}: {found}");
        }
    }
}
