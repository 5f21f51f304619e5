//! `simla demo`: the whole way on drawn scenes, in about ten minutes on two cores.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::HumanDuration;
use simla_run::settings::Settings;
use simla_train::Ending;

use crate::commands::eval::retrieval::table;
use crate::commands::training::code;
use crate::commands::{demo_questions, demo_report};
use crate::model::DeviceArguments;
use simla_run::compute::Compute;
use simla_run::fit::Run;
use simla_run::inputs::Inputs;
use simla_run::progress::Progress;
use simla_run::stop;
use simla_run::{answer, say};

/// Size and schedule of the demo: what learns clearly in about ten minutes on two cores.
const SETTINGS: &[&str] = &[
    "preset=tiny",
    // Mirroring and wide crops would make captions untrue: "left of", "a small ...".
    "flip=false",
    "augment=false",
    "min_scale=0.7",
    "dropout=0.0",
    "vocab_size=400",
    "dvae_steps=300",
    "steps=800",
    "warmup_steps=80",
    "save_every_minutes=5",
];
/// Pixels of a scene's side.
const SIDE: u32 = 96;
/// Candidates that matching ranks again.
const TOP_K: usize = 16;

/// Trains on drawn scenes and shows what was learned
///
/// Draws scenes of simple objects with captions, trains a visual tokenizer and a small model on them, and measures retrieval on scenes
/// that it has never seen, before and after; then the model learns to answer questions. Needs nothing but this program.
#[derive(Args)]
pub struct Arguments {
    /// Folder for scenes and run
    #[arg(long, default_value = "runs/demo", value_name = "DIR")]
    output: PathBuf,
    /// Scenes to train on
    #[arg(long, default_value_t = 4000)]
    scenes: usize,
    /// Scenes held out
    #[arg(long, default_value_t = 200)]
    held_out: usize,
    /// A setting of `simla pretrain`, over the demo's
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Steps in which the model then learns to answer questions; 0 for none
    #[arg(long, default_value_t = 600)]
    question_steps: u64,
    #[command(flatten)]
    device: DeviceArguments,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let start = Instant::now();
    let compute = Compute::alone(arguments.device.open()?);
    let assignments: Vec<String> = SETTINGS.iter().map(|&s| s.to_owned()).chain(arguments.set).collect();
    let settings = Settings::resolve(None, &assignments)?;
    let (scenes, folder) = (arguments.output.join("scenes"), arguments.output.join("run"));
    if folder.exists() {
        bail!("{}: a demo is in here already; remove it, or choose another --output", arguments.output.display());
    }
    let files = if scenes.exists() {
        simla_scenes::Files::at(&scenes)
    } else {
        let all = (arguments.scenes + arguments.held_out) as u64;
        let progress = std::sync::Mutex::new(Progress::new("scenes", 0, all));
        let show = |done: usize| progress.lock().expect("no thread panics").set(done as u64, String::new);
        std::fs::create_dir_all(&arguments.output).with_context(|| arguments.output.display().to_string())?;
        simla_scenes::write(&scenes, arguments.scenes, arguments.held_out, settings.train.seed, SIDE, show)?
    };
    let path = |file: &std::path::Path| file.display().to_string();
    let inputs = Inputs { data: vec![path(&files.train)], held_out: Some(files.test.clone()), ..Inputs::default() };
    let stop = stop::on_signal()?;
    let run = Run::prepare(&folder, settings, inputs, &compute)?;
    let held_out = run.held_out.as_ref().expect("the demo holds scenes out");
    let (dvae, ending) = run.tokenizer(&stop)?;
    if ending == Ending::Stopped {
        return Ok(code(ending));
    }
    let model = run.model()?;
    let (before, _) = held_out.evaluate(&model, TOP_K, &compute.team, "before")?;
    let (model, ending) = run.train(model, dvae, None, &stop)?;
    if ending == Ending::Stopped {
        say!("stopped: go on with simla pretrain --resume {}", folder.display());
        return Ok(code(ending));
    }
    let (after, _) = held_out.evaluate(&model, TOP_K, &compute.team, "after")?;
    let (first, last) = (before.itm.unwrap_or(before.itc), after.itm.unwrap_or(after.itc));
    answer!("Before training\n{}\nAfter training\n{}\n", table(&before), table(&after));
    answer!(
        "What was learned: the right caption of {} for a scene never seen came first for {:.0} % of the scenes (before: {:.0} %),\n\
         the right scene for {:.0} % of the captions (before: {:.0} %; chance: {:.1} %).",
        after.captions,
        last.txt_r1,
        first.txt_r1,
        last.img_r1,
        first.img_r1,
        100.0 / after.images as f64
    );
    let asked = arguments.output.join("questions");
    let questions = match arguments.question_steps {
        0 => None,
        steps => match demo_questions::learn(&asked, &folder, &files, steps, &compute, &stop)? {
            None => {
                say!("stopped: go on with simla finetune vqa --resume {}", asked.display());
                return Ok(code(Ending::Stopped));
            }
            learned => learned,
        },
    };
    let report = demo_report::write(&folder, &files, &before, &after, questions.as_ref())?;
    answer!("It took {}. Files:", HumanDuration(start.elapsed()));
    answer!("  {:<34} all of it on one page, with pictures", report.display());
    answer!("  {:<34} the scenes with their captions and boxes", scenes.display());
    answer!("  {:<34} the model: settings, checkpoints, a line of numbers for every step", folder.display());
    if questions.is_some() {
        answer!(
            "  {:<34} the model that answers questions: simla ask PICTURE QUESTION --checkpoint {0}",
            asked.display()
        );
    }
    answer!("To search the held-out scenes and see what it sees, on a page of this machine:");
    answer!("  simla serve --checkpoint {} --images {}", folder.display(), scenes.join("test").display());
    answer!("Next, with your own pictures (a JSON file of [{{\"image\": \"path\", \"caption\": \"text\"}}, ...]):");
    answer!("  simla pretrain --data captions.json --output runs/mine --set preset=small");
    Ok(ExitCode::SUCCESS)
}
