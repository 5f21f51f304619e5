//! `simla eval classes`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simla_pictures::canvas::save_png;
use simla_pictures::confusion::Confusion;

use crate::model::ModelArguments;
use simla_run::classes::{Classified, Top, classes, classify};
use simla_run::output::check_picture;
use simla_run::{answer, console, say};

/// Says which class pictures show, of classes that it was never trained on
///
/// The data are a folder for each class, called as the class is, with pictures in it. The class of a picture is the one whose sentence is
/// nearest by the contrast; the nearest are ranked again by the matching score. A tie counts against the right class.
#[derive(Args)]
#[command(after_help = "\
  simla eval classes --checkpoint runs/mine --data animals --template \"a photo of a {}\" --picture confusion.png")]
pub struct Arguments {
    #[command(flatten)]
    model: ModelArguments,
    /// A folder of folders of pictures
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Sentence with {} where the class is named; several are averaged
    #[arg(long, value_name = "TEXT", default_value = "a photo of a {}")]
    template: Vec<String>,
    /// Nearest classes that the matching score ranks again; 0 for none
    #[arg(long, default_value_t = 16)]
    top_k: usize,
    /// A picture (PNG) of what was taken for what
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Overwrites the file that --picture names
    #[arg(long)]
    force: bool,
    /// One JSON object in place of the table
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: Arguments) -> Result<ExitCode> {
    let classes = classes(&arguments.data)?;
    check_picture(arguments.picture.as_deref(), arguments.force, || {
        classes.iter().flat_map(|class| class.pictures.clone()).collect()
    })?;
    let model = arguments.model.open()?;
    let found = classify(&model, &classes, &arguments.template, arguments.top_k)?;
    if let Some(path) = &arguments.picture {
        let Top { top1, top5 } = found.last();
        let confusion = Confusion {
            title: "What is taken for what".into(),
            note: format!(
                "A row a true class, a column what its pictures were taken for. {} pictures of {} classes: the right one first for {top1:.1} %, \
                 among the first five for {top5:.1} %.",
                found.pictures,
                found.classes.len()
            ),
            classes: found.classes.clone(),
            counts: found.confusion.clone(),
        };
        save_png(&confusion.draw(), path)?;
        say!("{}: what is taken for what", path.display());
    }
    if arguments.json {
        let mut value = json!(found);
        let more = json!({"top1": found.last().top1, "top5": found.last().top5, "chance": found.chance(),
            "of_classes": found.of_classes()});
        value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        console::answer_json(&value)?;
    } else {
        answer!("{}", table(&found, arguments.top_k));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(found: &Classified, top_k: usize) -> String {
    let row = |name: &str, top: Top| format!("{name:<28} {:>7.1} {:>7.1}\n", top.top1, top.top5);
    let mut table = format!("{} pictures of {} classes\n", found.pictures, found.classes.len());
    table += &format!("{:<28} {:>7} {:>7}\n", "percent", "top-1", "top-5");
    table += &row("contrast (ITC)", found.itc);
    if let Some(itm) = found.itm {
        table += &row(&format!("re-ranked top {} (ITM)", top_k.min(found.classes.len())), itm);
    }
    table + &row("chance", found.chance())
}
