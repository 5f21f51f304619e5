//! Published weights through the program: imported, started from, used; and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{assert_refused, output_of, said};

/// The size of the small BERT and of the authors' small model, see the fixtures of the library.
const SIZES: &[&str] = &[
    "image_size=64",
    "patch_size=16",
    "vision_width=32",
    "vision_depth=2",
    "vision_heads=4",
    "text_width=32",
    "text_depth=12",
    "text_heads=4",
    "text_mlp=64",
    "max_positions=32",
    "embed_dim=16",
    "visual_vocab=512",
    "queue_size=20",
    "batch_size=4",
    "dvae_batch_size=4",
    "dvae_width=4",
    "dvae_steps=1",
    "steps=1",
    "workers=1",
];

fn fixture(name: &str) -> String {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../simla/tests/fixtures/import");
    tests.join(name).display().to_string()
}

/// A place for a test, with eight captioned pictures and a vocabulary of as many words as the fixtures have.
struct Place {
    folder: TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = simla_scenes::write(&folder.path().join("scenes"), 8, 2, 5, 32, |_| ()).unwrap();
        let words = (0..96).map(|i| format!("word{i}"));
        let special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"].map(String::from);
        let pieces: Vec<String> = special.into_iter().chain(words).collect();
        fs::write(folder.path().join("vocab.txt"), pieces.join("\n")).unwrap();
        Self { data: files.train, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn pretrain(&self, output: &str, more: &[&str]) -> Output {
        let (data, output) = (self.data.display().to_string(), self.path(output));
        let mut arguments = vec!["pretrain", "--data", &data, "--output", &output];
        SIZES.iter().for_each(|setting| arguments.extend(["--set", setting]));
        arguments.extend(more);
        output_of(&arguments)
    }
}

#[track_caller]
fn assert_done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_run_starts_from_deit_bert_and_dalle() {
    let place = Place::new();
    let [deit, bert, dalle, words] = ["deit", "bert", "dalle", "vocab.txt"].map(|n| place.path(n));
    let import = |what: &str, file: &str, output: &str, more: &[&str]| {
        let file = fixture(file);
        let arguments = [&["import", what, &file, "--output", output], more].concat();
        assert_done(&output_of(&arguments));
    };
    import("deit", "deit-mini.pth", &deit, &["--heads", "4"]);
    import("bert", "bert-mini.bin", &bert, &["--heads", "4", "--vocabulary", &words]);
    import("dalle", "dalle-encoder-mini.pkl", &dalle, &[]);

    // 80 px: the grid of positions is another one than the file's. The vocabulary is BERT's, by itself.
    let more = [
        "--init",
        &deit,
        &bert,
        "--dvae",
        &dalle,
        "--set",
        "image_size=80",
        "--set",
        "lr=1e-9",
        "--set",
        "warmup_lr=0",
        "--set",
        "vocab_size=500",
    ];
    let output = place.pretrain("run", &more);
    assert_done(&output);
    let said = said(&output);
    assert!(said.contains("101 word pieces"), "{said}");
    for folder in [&deit, &bert] {
        assert!(said.contains(&format!("tensors from {folder}")), "{said}");
    }

    // What the step had to begin with is what was imported.
    let tensors = |run: &str| {
        let folder = fs::read_dir(Path::new(run).join("checkpoints")).unwrap();
        let step = folder.map(|file| file.unwrap().path()).find(|path| path.is_dir()).unwrap();
        tch::Tensor::read_safetensors(step.join("model.safetensors")).unwrap()
    };
    let get = |run: &str, name: &str| {
        let found = tensors(run).into_iter().find(|(other, _)| other == name);
        found.unwrap_or_else(|| panic!("{name} in {run}")).1
    };
    for (folder, name) in [
        (&deit, "visual_encoder.blocks.1.mlp.fc1.weight"),
        (&bert, "text_encoder.bert.embeddings.word_embeddings.weight"),
    ] {
        let off = (get(&place.path("run"), name) - get(folder, name)).abs().max();
        assert!(off.double_value(&[]) < 1e-6, "{name}: {off:?}");
    }

    // Sizes that do not fit, and words without a vocabulary, are refused before anything is trained.
    let wrong = [&more[..], &["--set", "vision_width=64", "--set", "text_width=64"]].concat();
    assert_refused(&place.pretrain("wrong", &wrong), &["setting `text_width` = 64", "the weights of", "have 32"]);
    let nameless = place.path("nameless");
    import("bert", "bert-mini.bin", &nameless, &["--heads", "4"]);
    let refused = place.pretrain("nameless-run", &["--init", &nameless, "--dvae", &dalle]);
    assert_refused(&refused, &["nameless", "--vocabulary"]);
    assert_refused(&place.pretrain("other", &["--init", &dalle]), &["--init", "pass it as --dvae"]);
    let other_codes = [&more[..], &["--set", "visual_vocab=48"]].concat();
    let refused = place.pretrain("codes", &other_codes);
    assert_refused(&refused, &["512 codes", "visual_vocab = 48"]);

    let test = place.data.with_file_name("test.json").display().to_string();
    let eval = ["dvae", "eval", "--dvae", &dalle, "--data", &test, "--json"];
    let found: Value = serde_json::from_str(&assert_done(&output_of(&eval))).unwrap();
    assert_eq!(found["error"], Value::Null, "an encoder reconstructs nothing");
    assert!(found["perplexity"].as_f64().unwrap() >= 1.0);
    let sheet = output_of(&[&eval[..], &["--sheet", &place.path("sheet.png")]].concat());
    assert_refused(&sheet, &["--sheet", "without a decoder"]);
}

#[test]
fn the_authors_model_is_used_and_started_from() {
    let place = Place::new();
    let [model, words, bare] = ["model", "vocab.txt", "bare"].map(|name| place.path(name));
    let file = fixture("simla-authors-mini.pth");
    let import = ["import", "authors", &file, "--output", &model, "--vocabulary", &words];
    assert_done(&output_of(&[&import[..], &["--heads", "4"]].concat()));
    let test = place.data.with_file_name("test.json").display().to_string();
    let eval = |checkpoint: &str| {
        let arguments = ["eval", "retrieval", "--checkpoint", checkpoint, "--data", &test, "--json"];
        output_of(&arguments)
    };
    let found: Value = serde_json::from_str(&assert_done(&eval(&model))).unwrap();
    assert_eq!(found["images"], 2);
    // Their tokenizer puts no [SEP] behind a sentence: neither does what is fine-tuned from it.
    let tuned = place.path("tuned");
    let data = place.data.display().to_string();
    let sizes = ["--set", "image_size=64", "--set", "batch_size=4", "--set", "steps=1", "--set", "queue_size=8"];
    let finetune = ["finetune", "retrieval", "--checkpoint", &model, "--data", &data, "--output", &tuned];
    assert_done(&output_of(&[&finetune[..], &sizes].concat()));
    for folder in [&model, &tuned] {
        let saved = simla::tasks::pretrain::Saved::open(Path::new(folder)).unwrap();
        assert!(!saved.config.closing_sep);
        assert_eq!(saved.vocabulary.encode("word1 word2", 25), [1, 6, 7], "[CLS] and the words");
    }
    // Nor does what asks a model of a task, by hand or of a file: questions, statements and sentences are all read alike.
    for (task, records) in [("vqa", "questions"), ("nlvr2", "statements"), ("entailment", "entailments")] {
        let data = place.data.with_file_name(format!("train-{records}.json")).display().to_string();
        let tuned = place.path(task);
        let finetune = ["finetune", task, "--checkpoint", &model, "--data", &data, "--output", &tuned];
        let sizes = ["--set", "image_size=64", "--set", "batch_size=4", "--set", "steps=1"];
        assert_done(&output_of(&[&finetune[..], &sizes].concat()));
        let saved = simla::tasks::pretrain::Saved::of(Path::new(&tuned), &[task], "a model of a task").unwrap();
        assert!(!saved.config.closing_sep, "{task}");
        let vocabulary = std::sync::Arc::new(saved.vocabulary);
        let read = simla_run::downstream::sentences(&vocabulary, saved.config.max_positions);
        assert_eq!(read.encode("word1 word2"), [1, 6, 7], "{task}");
    }
    let image = place.data.with_file_name("test/00000.png").display().to_string();
    let ask = ["ask", &image, "word1 word2?", "--checkpoint", &place.path("vqa"), "--json"];
    assert!(assert_done(&output_of(&ask)).contains("answer"));
    let closing = output_of(&[&finetune[..7], &["x"], &sizes[..], &["--set", "closing_sep=true"]].concat());
    assert_refused(&closing, &["closing_sep", "false"]);

    assert_done(&output_of(&["import", "authors", &file, "--output", &bare, "--heads", "4"]));
    assert_refused(&eval(&bare), &["task `import`", "expected a model"]);
    let more = ["--init", &bare, "--vocabulary", &words];
    let more = [&more[..], &["--set", "visual_vocab=48"]].concat();
    assert_done(&place.pretrain("run", &more));
}

#[test]
fn what_is_no_such_file_is_refused_and_leaves_nothing() {
    let place = Place::new();
    let output = place.path("output");
    let refused = |what: &str, file: &str, words: &[&str]| {
        assert_refused(&output_of(&["import", what, file, "--output", &output]), words);
        assert!(!Path::new(&output).exists(), "{what} {file}");
    };
    refused("deit", &place.path("nowhere.pth"), &["nowhere.pth"]);
    refused("deit", &fixture("bert-mini.bin"), &["not a DeiT", "cls_token"]);
    refused("bert", &fixture("deit-mini.pth"), &["not a BERT", "found blocks.0"]);
    refused("authors", &fixture("deit-mini.pth"), &["not a checkpoint of the authors"]);
    refused("dalle", &fixture("deit-mini.pth"), &["not DALL-E's encoder"]);
    let whole = fs::read(fixture("deit-mini.pth")).unwrap();
    let torn = place.path("torn.pth");
    fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    refused("deit", &torn, &["torn.pth"]);
    // A pickle that would run a command, if anything in it were run.
    let hostile = place.path("hostile.pkl");
    let mark = place.path("mark");
    fs::write(&hostile, format!("cposix\nsystem\n(S'touch {mark}'\ntR.")).unwrap();
    refused("dalle", &hostile, &["hostile.pkl"]);
    assert!(!Path::new(&mark).exists());

    let words = place.path("few.txt");
    fs::write(&words, "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n").unwrap();
    let bert = fixture("bert-mini.bin");
    let few = output_of(&["import", "bert", &bert, "--output", &output, "--vocabulary", &words, "--heads", "4"]);
    assert_refused(&few, &["6 pieces", "101 words"]);
    assert!(!Path::new(&output).exists());

    let deit = fixture("deit-mini.pth");
    assert_done(&output_of(&["import", "deit", &deit, "--output", &output, "--heads", "4"]));
    let again = output_of(&["import", "deit", &deit, "--output", &output, "--heads", "4"]);
    assert_refused(&again, &["something in here already"]);
}
