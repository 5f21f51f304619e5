//! Question answering: its losses, and its ranking of candidates.

use simla::tasks::vqa::answer::Candidates;
use simla::tasks::vqa::{Answerer, Asked, Told};
use simla_train::weights::Gradients;
use tch::{Device, Kind, no_grad};

use crate::common::{Case, Differences, json};

/// Rows of pieces without their padding.
fn pieces(case: &Case, step: usize, name: &str) -> Vec<Vec<i64>> {
    let (ids, mask) = (case.input(step, &format!("{name}_ids")), case.input(step, &format!("{name}_mask")));
    let row = |row: i64| Vec::try_from(ids.get(row).masked_select(&mask.get(row).ne(0))).unwrap();
    (0..ids.size()[0]).map(row).collect()
}

fn ranks(case: &Case, step: usize, model: &Answerer, asked: &Asked, differences: &mut Differences) {
    let k = json(case.name, "config.json")["k_test"].as_u64().unwrap() as usize;
    let candidates = Candidates::of(pieces(case, step, "candidate"), model);
    let ranking = model.rank(&model.read(asked), &candidates, k);
    for (name, ours) in [
        ("rank.first_token", &ranking.first_token),
        ("rank.log_likelihood", &ranking.log_likelihood),
        ("rank.scores", &ranking.scores),
    ] {
        differences.compare(&format!("step {step}: {name}"), ours, case.output(step, name), 1e-5, 0.0);
    }
    assert_eq!(&ranking.chosen, case.output(step, "rank.chosen"), "step {step}");
    assert_eq!(&ranking.ids, case.output(step, "rank.ids"), "step {step}");
    assert_eq!(&ranking.ids.select(1, 0), case.output(step, "rank.answer"), "step {step}");
}

fn two_steps(recompute: bool) {
    let case = Case::open("vqa");
    let mut model = Answerer::new(case.config.clone(), Kind::Float, Device::Cpu, 0);
    model.weights.load(&case.weights).unwrap();
    if recompute {
        model.weights.online.recompute_layers();
    }
    let mut optimizer = case.optimizer(&model.weights.online);
    let mut gradients = Gradients::new(&model.weights.online);
    let mut differences = Differences::default();
    for (step, alpha) in case.alphas.into_iter().enumerate() {
        let asked =
            Asked { image: case.input(step, "image"), ids: case.input(step, "ids"), mask: case.input(step, "mask") };
        ranks(&case, step, &model, &asked, &mut differences);

        let counts: Vec<i64> = Vec::try_from(case.input(step, "answers")).unwrap();
        let question = counts.iter().enumerate().flat_map(|(question, &count)| vec![question; count as usize]);
        let answers: Vec<(Vec<i64>, usize)> = pieces(&case, step, "answer").into_iter().zip(question).collect();
        let rows = answers.iter().map(|(pieces, question)| (pieces.as_slice(), *question));
        let told = Told::new(rows, case.config.special.pad, Device::Cpu);
        gradients.clear();
        model.weights.begin_step();
        let (states, _) = no_grad(|| model.tell(&model.weights.online, &asked, &told, 0.0));
        let (_, logits_m) = no_grad(|| model.tell(&model.weights.teacher, &asked, &told, 0.0));
        let (loss, logits) = model.step(&asked, &told, &case.input(step, "weights"), alpha, &mut gradients);
        for (name, ours) in [("loss", &loss), ("question_states", &states)] {
            differences.compare(&format!("step {step}: {name}"), ours, case.output(step, name), 1e-5, 0.0);
        }
        // Ours are those of the pieces told alone, not of padding.
        let counted = case.input(step, "answer_mask").slice(1, 1, None, 1).flatten(0, 1).nonzero().squeeze_dim(1);
        for (name, ours) in [("logits", &logits), ("logits_m", &logits_m)] {
            let expected = case.output(step, name).flatten(0, 1).index_select(0, &counted);
            differences.compare(&format!("step {step}: {name}"), ours, &expected, 1e-5, 0.0);
        }
        case.compare_gradients(step, &mut gradients, &mut differences);
        optimizer.step(&mut model.weights.online, &mut gradients, case.lr, 1.0);
    }
    case.compare_after(&model.weights.named(), &mut differences);
    differences.none();
}

#[test]
fn vqa() {
    two_steps(false);
    two_steps(true);
    let case = Case::open("vqa");
    case.compare_start(|pretrained| {
        let mut model = Answerer::new(case.config.clone(), Kind::Float, Device::Cpu, 0);
        model.start(pretrained).unwrap();
        model.weights.named()
    });
}
