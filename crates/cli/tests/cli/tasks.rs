//! Questions, statements about two pictures, and entailment through the program: fine-tuned, resumed, measured, scored, asked by hand.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::common::{Scenes, assert_done, assert_refused, copy, metrics, output_of, printed, said};

/// Scenes and a model that has seen them for two steps, made once.
struct Place {
    scenes: Scenes,
    model: String,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let scenes = Scenes::new();
    let trained = scenes.pretrain("run", &["--set", "steps=2"]);
    assert!(trained.status.success(), "{}", said(&trained));
    let model = scenes.path("run").display().to_string();
    Place { scenes, model }
});

impl Place {
    fn path(&self, name: &str) -> String {
        self.scenes.path(name).display().to_string()
    }

    /// A file of the scenes.
    fn data(&self, name: &str) -> String {
        self.scenes.train.with_file_name(name).display().to_string()
    }

    fn finetune(&self, task: &str, data: &str, output: &str, more: &[&str]) -> Output {
        let (data, output) = (self.data(data), self.path(output));
        let start = ["finetune", task, "--checkpoint", &self.model, "--data", &data, "--output", &output];
        output_of(&[&start[..], &["--set", "batch_size=8"], more].concat())
    }
}

fn json_of(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).unwrap()
}

/// A copy of a run of six steps as it was after three.
fn halfway(whole: &Path, part: &Path) {
    copy(whole, part);
    let checkpoints = part.join("checkpoints");
    fs::remove_dir_all(checkpoints.join("step-00000006")).unwrap();
    fs::write(checkpoints.join("latest"), "step-00000003").unwrap();
}

/// Resumes the copy and compares what it ends with.
#[track_caller]
fn assert_resumed(task: &str, whole: &Path) {
    let part = whole.with_extension("part");
    halfway(whole, &part);
    assert_done(&output_of(&["finetune", task, "--resume", &part.display().to_string()]));
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &Path| fs::read(run.join("checkpoints/step-00000006").join(name)).unwrap();
        assert!(read(whole) == read(&part), "{task}: {name} differs");
    }
}

const SIX: &[&str] = &["--set", "steps=6", "--set", "save_every_steps=3", "--set", "dropout=0.1"];

#[test]
fn questions_are_learned_answered_and_scored() {
    let place = &*PLACE;
    let (test, answers) = (place.data("test-questions.json"), place.data("answers.json"));
    let held_out = ["--eval-data", &test, "--set", "eval_every_steps=3"];
    let output = place.finetune("vqa", "train-questions.json", "vqa", &[SIX, &held_out].concat());
    assert_done(&output);
    assert!(
        said(&output).contains("answers, among them the commonest of 100.0 % of the questions"),
        "{}",
        said(&output)
    );
    assert!(said(&output).contains("step 3: held-out accuracy"), "{}", said(&output));
    assert_eq!(said(&output).matches("among them the commonest").count(), 1, "answers are counted once a run");
    let run = place.scenes.path("vqa");
    let rows = metrics(&run);
    assert_eq!(rows.len(), 6);
    assert_resumed("vqa", &run);
    let evaluations = fs::read_to_string(run.join("evaluation.jsonl")).unwrap();
    assert_eq!(evaluations.lines().count(), 2);
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("image_size = 48") && config.contains("max_answers = 3128"), "{config}");
    printed(&["report", &run.display().to_string()]);

    let run = run.display().to_string();
    let said_file = place.path("said.json");
    let eval = ["eval", "vqa", "--checkpoint", &run, "--data", &test, "--json"];
    let found = json_of(&[&eval[..], &["--predictions", &said_file]].concat());
    let last: Value = serde_json::from_str(evaluations.lines().last().unwrap()).unwrap();
    assert_eq!(found["accuracy"], last["held_out/accuracy"], "as while it trained");
    assert!(found["answer_types"]["yes/no"]["questions"].as_u64().unwrap() > 0);
    let scored = json_of(&["score", "vqa", "--predictions", &said_file, "--data", &test, "--json"]);
    assert_eq!(found, scored);
    assert_eq!(json_of(&[&eval[..], &["--blind"]].concat())["blind"], true);
    let table = printed(&eval[..6]);
    assert!(table.contains("by type of answer") && table.contains('±'), "{table}");

    // One that is missing, one too many.
    let all: Vec<Value> = serde_json::from_slice(&fs::read(&said_file).unwrap()).unwrap();
    let score = |predictions: &[Value]| {
        let path = place.path("changed.json");
        fs::write(&path, serde_json::to_vec(predictions).unwrap()).unwrap();
        output_of(&["score", "vqa", "--predictions", &path, "--data", &test])
    };
    assert_refused(&score(&all[1..]), &["is not answered"]);
    assert_refused(&score(&[&all[..], &all[..1]].concat()), &["answered twice"]);
    assert_refused(&output_of(&[&eval[..], &["--predictions", &said_file]].concat()), &["said.json", "--force"]);

    let picture = place.data("test/00000.png");
    let ask = ["ask", &picture, "what color is the circle?", "--checkpoint", &run];
    let asked = json_of(&[&ask[..], &["--json"]].concat());
    let listed: Vec<Value> = serde_json::from_slice(&fs::read(&answers).unwrap()).unwrap();
    assert_eq!(asked["answers"].as_array().unwrap().len(), 5);
    assert!(asked["answers"].as_array().unwrap().iter().all(|answer| listed.contains(&answer["answer"])));
    assert_eq!(asked["made_up"], false);
    let heat = place.path("heat.png");
    let shown = printed(&[&ask[..], &["--heat", &heat]].concat());
    assert!(shown.lines().count() == 6 && shown.contains(" %  "), "{shown}");
    assert!(fs::metadata(&heat).unwrap().len() > 1000);
    let made_up = output_of(&[&ask[..], &["--make-up"]].concat());
    assert!(made_up.status.success() && said(&made_up).contains("made up by a beam search"), "{}", said(&made_up));

    let refused = |arguments: &[&str], words: &[&str]| assert_refused(&output_of(arguments), words);
    refused(&["ask", &picture, " ?", "--checkpoint", &run], &["says nothing"]);
    refused(&["ask", "none.png", "what?", "--checkpoint", &run], &["none.png"]);
    refused(&["ask", &test, "what?", "--checkpoint", &run], &["test-questions.json"]);
    refused(&["ask", &picture, "what?", "--checkpoint", &place.model], &["task `pretrain`", "simla finetune vqa"]);
    refused(&[&ask[..], &["--heat", &picture]].concat(), &["00000.png"]);
    let other = place.path("other.json");
    fs::write(&other, r#"["perhaps", "maybe"]"#).unwrap();
    refused(&[&ask[..], &["--answers", &other]].concat(), &["other.json", "not the list"]);
    refused(&["eval", "retrieval", "--checkpoint", &run, "--data", &test], &["task `vqa`"]);
    refused(&["finetune", "nlvr2", "--resume", &run], &["simla finetune vqa --resume"]);
    refused(&["finetune", "vqa", "--resume", &run, "--set", "queue_size=9"], &["queue_size", "does nothing"]);
    let strange = place.finetune("vqa", "train-questions.json", "strange", &["--answers", &other]);
    assert_refused(&strange, &["none of these answers"]);
    assert!(!place.scenes.path("strange").exists());
    let unanswered = place.finetune("vqa", "train-statements.json", "strange", &[]);
    assert_refused(&unanswered, &["train-statements.json", "record 1", "image"]);
}

#[test]
fn vqas_own_files_and_visual_genomes_are_read() {
    let place = &*PLACE;
    let questions: Vec<Value> = serde_json::from_slice(&fs::read(place.data("test-questions.json")).unwrap()).unwrap();
    let (mut asked, mut answered) = (vec![], vec![]);
    let pictures = place.scenes.path("coco");
    fs::create_dir(&pictures).unwrap();
    for (id, question) in questions.iter().take(16).enumerate() {
        let name = format!("COCO_val2014_{id:012}.jpg");
        let picture = place.scenes.train.with_file_name(question["image"].as_str().unwrap());
        fs::copy(picture, pictures.join(&name)).unwrap();
        asked.push(json!({"image_id": id, "question": question["question"], "question_id": id}));
        let answers: Vec<Value> = question["answer"].as_array().unwrap().iter().map(|a| json!({"answer": a})).collect();
        answered.push(json!({"question_id": id, "image_id": id, "question_type": "what", "answer_type": "other", "answers": answers}));
    }
    let write = |name: &str, value: &Value| {
        let path = place.path(name);
        fs::write(&path, serde_json::to_vec(value).unwrap()).unwrap();
        path
    };
    let asked = write("asked.json", &json!({"data_subtype": "val2014", "questions": asked}));
    let answered = write("answered.json", &json!({"annotations": answered}));
    let (output, root) = (place.path("official"), pictures.display().to_string());
    let train = ["finetune", "vqa", "--checkpoint", &place.model, "--data", &asked, "--image-root", &root];
    let settings = ["--set", "batch_size=8", "--set", "steps=1", "--set", "image_size=32"];
    let output_of_it = ["--output", &output];
    assert_refused(&output_of(&[&train[..], &settings, &output_of_it].concat()), &["answer", "annotations"]);
    let annotated = ["--annotations", &answered];
    assert_done(&output_of(&[&train[..], &settings, &["--output", &place.path("official2")], &annotated].concat()));
    let run = place.path("official2");
    let eval = ["eval", "vqa", "--checkpoint", &run, "--data", &asked, "--image-root", &root, "--json"];
    let unknown = output_of(&eval);
    assert_refused(&unknown, &["none of the 16 questions has answers", "--annotations"]);
    let server = place.path("server.json");
    assert_eq!(json_of(&[&eval[..], &["--predictions", &server]].concat())["questions"], 16);
    let found = json_of(&[&eval[..], &annotated].concat());
    let scored = json_of(&["score", "vqa", "--predictions", &server, "--data", &answered, "--json"]);
    assert_eq!(found, scored);

    // A picture that is missing: measured without it, but no file for the server.
    fs::remove_file(pictures.join("COCO_val2014_000000000003.jpg")).unwrap();
    let without = output_of(&[&eval[..], &annotated].concat());
    assert!(without.status.success() && said(&without).contains("000000000003"), "{}", said(&without));
    let file = place.path("partial.json");
    assert_refused(&output_of(&[&eval[..], &["--predictions", &file]].concat()), &["every record", "000000000003"]);
    assert!(!Path::new(&file).exists());
}

#[test]
fn statements_are_learned_after_text_assignment_judged_and_scored() {
    let place = &*PLACE;
    let assigned = place.finetune("text-assignment", "train.json", "assigned", SIX);
    assert_done(&assigned);
    assert!(said(&assigned).contains("next: simla finetune nlvr2 --checkpoint"), "{}", said(&assigned));
    assert_resumed("text-assignment", &place.scenes.path("assigned"));
    assert!(metrics(&place.scenes.path("assigned"))[0].to_string().contains("text_assignment"));
    let small = place.finetune("text-assignment", "train.json", "small", &["--set", "batch_size=2"]);
    assert_refused(&small, &["batch_size", "at least 3"]);

    let place_of = |name: &str| place.path(name);
    let (data, test) = (place.data("train-statements.json"), place.data("test-statements.json"));
    let (assigned, output) = (place_of("assigned"), place_of("nlvr2"));
    let start = ["finetune", "nlvr2", "--checkpoint", &assigned, "--data", &data, "--output", &output];
    let more = ["--set", "batch_size=8", "--eval-data", &test, "--set", "accumulate=2", "--set", "dtype=bf16"];
    let done = output_of(&[&start[..], SIX, &more].concat());
    assert_done(&done);
    let saved = fs::read_to_string(place.scenes.path("nlvr2/config.toml")).unwrap();
    assert!(saved.contains("image_size = 48"), "larger than in text assignment: {saved}");
    assert_resumed("nlvr2", &place.scenes.path("nlvr2"));

    let file = place_of("statements.csv");
    let eval = ["eval", "nlvr2", "--checkpoint", &output, "--data", &test, "--json"];
    let found = json_of(&[&eval[..], &["--predictions", &file]].concat());
    assert!(found["accuracy"].is_number() && found["groups"].as_u64() <= found["statements"].as_u64());
    let scored = json_of(&["score", "nlvr2", "--predictions", &file, "--data", &test, "--json"]);
    assert_eq!(found, scored);
    let lines = fs::read_to_string(&file).unwrap();
    fs::write(&file, lines.lines().skip(1).collect::<Vec<_>>().join("\n")).unwrap();
    assert_refused(&output_of(&["score", "nlvr2", "--predictions", &file, "--data", &test]), &["no prediction for"]);

    let (left, right) = (place.data("test/00000.png"), place.data("test/00001.png"));
    let compared = json_of(&["compare", &left, &right, "both show a circle", "--checkpoint", &output, "--json"]);
    let classes = compared["classes"].as_array().unwrap();
    let sum: f64 = classes.iter().map(|class| class["probability"].as_f64().unwrap()).sum();
    assert!(classes.len() == 2 && (sum - 1.0).abs() < 1e-5, "{compared}");
    let broken = output_of(&["compare", &left, &test, "both", "--checkpoint", &output]);
    assert_refused(&broken, &["test-statements.json"]);
}

#[test]
fn entailment_is_learned_judged_and_scored() {
    let place = &*PLACE;
    let test = place.data("test-entailments.json");
    let output = place.finetune("entailment", "train-entailments.json", "entailment", SIX);
    assert_done(&output);
    assert_resumed("entailment", &place.scenes.path("entailment"));
    let run = place.path("entailment");
    let file = place.path("labels.json");
    let eval = ["eval", "entailment", "--checkpoint", &run, "--data", &test, "--json"];
    let found = json_of(&[&eval[..], &["--predictions", &file]].concat());
    assert!(found["classes"]["neutral"].is_number(), "{found}");
    let scored = json_of(&["score", "entailment", "--predictions", &file, "--data", &test, "--json"]);
    assert_eq!(found, scored);
    let blind = place.finetune("entailment", "train-entailments.json", "blind", &["--blind", "--set", "steps=1"]);
    assert_done(&blind);
    assert!(fs::read_to_string(place.path("blind/run.json")).unwrap().contains("\"blind\": true"));

    let picture = place.data("test/00000.png");
    let sentence = ["entail", &picture, "there is a circle", "--checkpoint", &run];
    let shown = printed(&sentence);
    assert!(["contradiction", "neutral", "entailment"].iter().all(|label| shown.contains(label)), "{shown}");
    assert_eq!(json_of(&[&sentence[..], &["--json"]].concat())["classes"].as_array().unwrap().len(), 3);
    assert_refused(&output_of(&["entail", &picture, "?", "--checkpoint", &run]), &["says nothing"]);
    assert_refused(&output_of(&["entail", &picture, "a dog", "--checkpoint", &place.model]), &["task `pretrain`"]);

    let wrong = place.path("wrong.json");
    fs::write(&wrong, r#"[{"image": "a.png", "sentence": "a dog", "label": "perhaps"}]"#).unwrap();
    let refused = output_of(&[
        "finetune",
        "entailment",
        "--checkpoint",
        &place.model,
        "--data",
        &wrong,
        "--output",
        &place.path("w"),
    ]);
    assert_refused(&refused, &["wrong.json", "record 1", "perhaps", "contradiction"]);
}
