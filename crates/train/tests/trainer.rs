//! The trainer's own work, on a task small enough to be checked by hand: accumulation, clipping, bad steps, resuming.

mod common;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use simla_train::checkpoint::{Checkpoint, Checkpoints, Contents};
use simla_train::optim::AdamWConfig;
use simla_train::{Ending, Plan, Team, TrainError, Trainer};
use tch::{Device, Kind, Tensor};

use crate::common::{Notes, Regression, batch, plan};

struct Run {
    task: Regression,
    notes: Notes,
    ending: Result<Ending, TrainError>,
}

/// Trains in `folder`, from its last checkpoint where there is one, on micro-batches of these `rows` each step.
fn train(folder: &Path, mut task: Regression, plan: Plan, rows: &[(i64, i64)]) -> Run {
    let plan = Plan { accumulate: rows.len() as u64, ..plan };
    let resume = Checkpoint::open(folder).ok();
    let config = AdamWConfig::default();
    let mut trainer = Trainer::new(&mut task, config, plan, folder, resume.as_ref(), &Arc::new(Team::alone())).unwrap();
    let first = trainer.step();
    let mut batches = (first..).flat_map(|number| {
        let of_step = rows.iter().map(move |rows| Ok::<_, Infallible>(batch(number, rows.0..rows.1)));
        of_step.collect::<Vec<_>>()
    });
    let mut notes = Notes::default();
    let stop = AtomicBool::new(false);
    let ending = trainer.run(&mut task, &mut batches, &mut notes, &stop);
    Run { task, notes, ending }
}

#[test]
fn accumulated_batches_step_as_one_batch_of_all_their_rows() {
    let folder = tempfile::tempdir().unwrap();
    let one = train(&folder.path().join("one"), Regression::new(&[]), plan(5), &[(0, 6)]);
    let rows = [(0, 2), (2, 4), (4, 6)];
    let three = train(&folder.path().join("three"), Regression::new(&[]), plan(5), &rows);
    for (one, three) in one.notes.records.iter().zip(&three.notes.records) {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-5 * a.abs();
        assert!(close(one.loss, three.loss), "{} against {}", one.loss, three.loss);
        assert!(close(one.grad_norm, three.grad_norm), "{one:?} against {three:?}");
        assert_eq!((one.scores["rows"], three.scores["rows"]), (6.0, 2.0), "means of micro-batches");
        assert_eq!((one.lr, one.epoch), (three.lr, three.epoch));
    }
    assert_eq!(three.task.ended, [true; 5], "a step ends once");
    for (one, three) in one.task.a().into_iter().zip(three.task.a()) {
        assert!((one - three).abs() < 1e-5, "{one} against {three}");
    }
}

#[test]
fn a_gradient_above_the_limit_is_scaled_to_it_and_one_below_is_left() {
    let first_moment = |clip_norm: f64| {
        let folder = tempfile::tempdir().unwrap();
        let plan = Plan { clip_norm, ..plan(1) };
        let run = train(folder.path(), Regression::new(&[]), plan, &[(0, 4)]);
        run.ending.unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let moment = checkpoint.optimizer().unwrap()["exp_avg.a"].norm().double_value(&[]);
        // After one step the first moment is (1 - beta1) times the gradient.
        (moment / 0.1, run.notes.records[0].grad_norm)
    };
    let (whole, norm) = first_moment(0.0);
    assert!((whole - norm).abs() < 1e-4 * norm && norm > 1.0, "{whole} and {norm}");
    let (clipped, before) = first_moment(0.25);
    assert!((clipped - 0.25).abs() < 1e-5 && before == norm, "{clipped} of {before}");
    let (left, _) = first_moment(2.0 * norm);
    assert!((left - norm).abs() < 1e-4 * norm);
}

#[test]
fn a_bad_step_changes_nothing_but_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path(), Regression::new(&[2, 5]), plan(6), &[(0, 2), (2, 4)]);
    assert!(matches!(run.ending, Ok(Ending::Finished)), "{:?}", run.ending);
    assert_eq!(run.task.ended, [true, true, false, true, true, false]);
    // Both micro-batches of the step.
    let named = |row| format!("batch 2, row {row}");
    let records: Vec<String> = [0, 1, 0, 1].map(named).into();
    assert_eq!(run.notes.skipped[0], (3, records));
    assert_eq!(run.notes.skipped[1].0, 6);
    assert_eq!(run.notes.saved, [6], "the weights of a run that ends with a bad step are good");
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let steps = checkpoint.optimizer().unwrap()["steps"].int64_value(&[0]);
    assert_eq!(steps, 4, "the optimiser has not seen the bad ones");
    let reasons: Vec<bool> = run.notes.records.iter().map(|r| r.skipped.is_some()).collect();
    assert_eq!(reasons, [false, false, true, false, false, true]);
}

#[test]
fn too_many_bad_steps_end_the_run_and_leave_what_was_saved_before() {
    let folder = tempfile::tempdir().unwrap();
    let every_step = Plan { save_every_steps: 1, ..plan(20) };
    let run = train(folder.path(), Regression::new(&[4, 6, 7, 8]), every_step.clone(), &[(0, 2)]);
    let error = run.ending.unwrap_err();
    assert!(matches!(error, TrainError::BadSteps { count: 3, step: 9 }), "{error}");
    assert_eq!(run.notes.saved, [1, 2, 3, 4, 6], "nothing is saved while steps go wrong");
    let again = train(folder.path(), Regression::new(&[]), every_step, &[(0, 2)]);
    assert!(matches!(again.ending, Ok(Ending::Finished)));
    assert_eq!(again.notes.records[0].step, 7);
}

#[test]
fn a_run_in_two_parts_is_bit_for_bit_the_run_in_one() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [(0, 3), (3, 6)];
    let whole = train(&folder.path().join("whole"), Regression::new(&[]), plan(9), &rows);
    let parts = folder.path().join("parts");
    // The schedule is that of the whole run.
    let first = Plan { steps: 4, ..plan(9) };
    train(&parts, Regression::new(&[]), first, &rows).ending.unwrap();
    let second = train(&parts, Regression::new(&[]), plan(9), &rows);
    let losses = |run: &Run| run.notes.records.iter().map(|r| r.loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(losses(&whole)[4..], losses(&second));
    assert_eq!(whole.task.a(), second.task.a());
}

#[test]
fn a_checkpoint_is_the_state_of_its_step_whatever_follows_while_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [(0, 3)];
    let all = folder.path().join("all");
    let every_step = Plan { save_every_steps: 1, keep: 9, ..plan(8) };
    let run = train(&all, Regression::new(&[]), every_step.clone(), &rows);
    run.ending.unwrap();
    assert_eq!(run.notes.saved, [1, 2, 3, 4, 5, 6, 7, 8], "each is told of once, in order");
    for step in [1, 4, 7] {
        // Ends at that step, so that nothing follows.
        let alone = folder.path().join(step.to_string());
        train(&alone, Regression::new(&[]), Plan { steps: step, ..plan(8) }, &rows).ending.unwrap();
        let read =
            |run: &Path, file: &str| std::fs::read(run.join(format!("checkpoints/step-{step:08}")).join(file)).unwrap();
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(read(&all, file) == read(&alone, file), "{file} of step {step}");
        }
    }
}

#[test]
fn what_cannot_be_written_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let plan = Plan { save_every_steps: 2, ..plan(50) };
    // In the place of the folder in which the checkpoint of step 4 is made.
    std::fs::create_dir_all(folder.path().join("checkpoints")).unwrap();
    let mut task = Regression::new(&[]);
    let config = AdamWConfig::default();
    let mut trainer = Trainer::new(&mut task, config, plan, folder.path(), None, &Arc::new(Team::alone())).unwrap();
    std::fs::write(folder.path().join("checkpoints/.unfinished-step-00000004"), "").unwrap();
    let mut batches = (0..).map(|number| Ok::<_, Infallible>(batch(number, 0..3)));
    let mut notes = Notes::default();
    let error = trainer.run(&mut task, &mut batches, &mut notes, &AtomicBool::new(false)).unwrap_err().to_string();
    assert!(error.contains(".unfinished-step-00000004"), "{error}");
    assert_eq!(notes.saved, [2], "what was written before is whole");
    assert_eq!(Checkpoint::open(folder.path()).unwrap().state.step, 2);
}

/// `cargo test --release -p simla-train --test trainer stops_training -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn how_long_a_checkpoint_stops_training() {
    const PARAMETERS: i64 = 50_000_000;
    struct Clock(std::time::Instant, Vec<(&'static str, u64, f64)>);
    impl simla_train::Observer<Regression> for Clock {
        fn stepped(
            &mut self,
            _: &mut Regression,
            record: &mut simla_train::metrics::StepRecord,
        ) -> Result<Option<f64>, String> {
            self.1.push(("step", record.step, self.0.elapsed().as_secs_f64()));
            Ok(None)
        }
        fn skipped(&mut self, _: u64, _: &str, _: &[String]) {}
        fn saved(&mut self, step: u64, _: &Path) {
            self.1.push(("saved", step, self.0.elapsed().as_secs_f64()));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let mut task = Regression::beside(&[], PARAMETERS);
    let plan = Plan { save_every_steps: 10, ..plan(40) };
    let config = AdamWConfig::default();
    let mut trainer = Trainer::new(&mut task, config, plan, folder.path(), None, &Arc::new(Team::alone())).unwrap();
    let mut batches = (0..).map(|number| Ok::<_, Infallible>(batch(number, 0..3)));
    let mut clock = Clock(std::time::Instant::now(), Vec::new());
    trainer.run(&mut task, &mut batches, &mut clock, &AtomicBool::new(false)).unwrap();
    let at = |what: &str, step: u64| clock.1.iter().find(|(w, s, _)| (*w, *s) == (what, step)).unwrap().2;
    for step in [10, 20, 30] {
        let usual = (at("step", step) - at("step", step - 5)) / 5.0;
        let stopped = at("step", step + 1) - at("step", step) - usual;
        println!(
            "stops training for {:.0} ms, is written after {:.0}; a step takes {:.0}",
            1e3 * stopped,
            1e3 * (at("saved", step) - at("step", step)),
            1e3 * usual
        );
    }
    // What one of as many bytes took when it was written within the step.
    let apart = tempfile::tempdir().unwrap();
    for step in 1..=3 {
        let zeros = |n: i64| BTreeMap::from([("all".to_owned(), Tensor::zeros([n], (Kind::Float, Device::Cpu)))]);
        let (config, extra) = (serde_json::Value::Null, BTreeMap::new());
        let contents = Contents {
            step,
            epoch: 0.0,
            steps_per_epoch: 1,
            seed: 0,
            best: None,
            task: "bytes".into(),
            config,
            model: zeros(PARAMETERS),
            optimizer: zeros(2 * PARAMETERS),
            extra,
        };
        let start = std::time::Instant::now();
        Checkpoints::open(apart.path(), 1).unwrap().save(contents, false).unwrap();
        println!("within the step it would take {:.0} ms", 1e3 * start.elapsed().as_secs_f64());
    }
}
