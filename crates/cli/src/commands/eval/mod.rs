//! `simla eval`.

pub mod classes;
pub mod entailment;
pub mod grounding;
mod judged;
pub mod nlvr2;
pub mod products;
pub mod retrieval;
pub mod vqa;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// Measures what a model has learned
#[derive(Subcommand)]
pub enum Command {
    Retrieval(retrieval::Arguments),
    Grounding(grounding::Arguments),
    Vqa(vqa::Arguments),
    Nlvr2(nlvr2::Arguments),
    Entailment(entailment::Arguments),
    Classes(classes::Arguments),
    Products(products::Arguments),
}

pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Retrieval(arguments) => retrieval::run(arguments),
        Command::Grounding(arguments) => grounding::run(arguments),
        Command::Vqa(arguments) => vqa::run(arguments),
        Command::Nlvr2(arguments) => nlvr2::run(arguments),
        Command::Entailment(arguments) => entailment::run(arguments),
        Command::Classes(arguments) => classes::run(arguments),
        Command::Products(arguments) => products::run(arguments),
    }
}

#[cfg(test)]
mod tests {
    use simla::tasks::boxes::Bounds;
    use simla::tasks::classify::Outcome;
    use simla::tasks::grounding::{Answers, Grounding, Question, answer};
    use simla::tasks::nlvr::Reasoning;
    use simla::tasks::retrieval::{Recalls, Retrieval};
    use simla::tasks::vqa_score::{Prediction, score};
    use simla_data::Annotation;

    use super::*;

    /// Every table that an evaluation prints, of results worked by hand in the tests of their tasks.
    #[test]
    fn tables() {
        let itc = Recalls::new(&[0, 4, 9, 10], &[0, 0, 1, 5]);
        let found =
            Retrieval { images: 4, captions: 20, items: 4, top_k: 2, itc, itm: Some(Recalls::new(&[0; 4], &[0; 4])) };
        let retrieval = retrieval::table(&found);

        // Two objects, one of them found: by its point, among both, and among proposals of which none is right for the other.
        let [left, right] = [[0.0, 10.0, 10.0, 10.0], [20.0, 5.0, 20.0, 20.0]].map(Bounds::from);
        let mut map = [0.0; 16];
        map[4] = 1.0;
        let (others, proposals) = ([left, right], [left]);
        let asked = |truth| Question { truth, width: 40, height: 40, others: &others, proposals: Some(&proposals) };
        let answers = [answer(&map, 4, asked(left)), answer(&map, 4, asked(right)), Answers::missing(true)];
        let grounding = grounding::table(&Grounding::of(&answers).unwrap());

        let annotation = |question_id, answer: &str, kind: &str| Annotation {
            question_id,
            question_type: Some("what".into()),
            answer_type: Some(kind.into()),
            answers: vec![answer.into(); 10],
            name: String::new(),
        };
        let truth = [annotation(1, "red", "other"), annotation(2, "yes", "yes/no")];
        let said =
            [(1, "red"), (2, "no")].map(|(question_id, answer)| Prediction { question_id, answer: answer.into() });
        let vqa = vqa::table(&score(&said, &truth).unwrap(), "questions");

        let nlvr2 = nlvr2::table(&Reasoning::new([("a", true), ("a", false), ("b", true)]), "percent right");
        let outcome = Outcome { confusion: vec![vec![3, 1, 0], vec![0, 2, 0], vec![1, 1, 2]] };
        let entailment = entailment::table(&outcome, "percent right, pictures hidden");
        insta::assert_snapshot!([retrieval, grounding, vqa, nlvr2, entailment].join("\n"));
    }
}
