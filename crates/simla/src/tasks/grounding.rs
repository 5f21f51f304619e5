//! Finding what a phrase names (docs/paper.md, 'Grounding'; weakly supervised): the model has never seen a box, boxes only judge it.
//!
//! Three questions, each against guesses that know nothing of the phrase:
//! - does the hottest point lie in the true box (pointing game)?
//! - does the best window overlap the true box?
//! - is the best of some given boxes right? The paper's question, with a detector's proposals; also asked of the true boxes of the
//!   picture, which says whether the phrase decides and not just what stands out.

use serde::Serialize;

use crate::tasks::boxes::{Bounds, Heat, best_window};

/// A phrase with what is known of its picture, in pixels.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The true box.
    pub truth: Bounds,
    /// Of the picture.
    pub width: usize,
    /// Of the picture.
    pub height: usize,
    /// True boxes of all the picture's phrases, each once.
    pub others: &'a [Bounds],
    /// A detector's.
    pub proposals: Option<&'a [Bounds]>,
}

/// Right or wrong, beside the chance that each guess has: 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// Whether the model is right.
    pub model: bool,
    /// What a guess at the middle has.
    pub centre: f64,
    /// What one that is drawn has.
    pub random: f64,
}

/// The answers to one question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answers {
    /// The true box and the picture's width and height; none where the picture could not be read.
    truth: Option<(Bounds, (f64, f64))>,
    /// Whether the hottest point lies in the true box.
    pub point: Answer,
    /// The model's box, in pixels.
    pub window: Option<Bounds>,
    /// Whether it overlaps the true box by half.
    pub window_right: bool,
    /// None where the picture has only one box.
    pub choice: Option<Answer>,
    /// None without proposals.
    pub proposal: Option<Answer>,
}

impl Answers {
    /// Of a phrase whose picture cannot be read: wrong, the guesses too.
    pub fn missing(has_proposals: bool) -> Self {
        const WRONG: Answer = Answer { model: false, centre: 0.0, random: 0.0 };
        Self {
            truth: None,
            point: WRONG,
            window: None,
            window_right: false,
            choice: None,
            proposal: has_proposals.then_some(WRONG),
        }
    }
}

/// Answers a question from the phrase's map, a value for each of `grid` x `grid` patches.
pub fn answer(map: &[f32], grid: usize, q: Question) -> Answers {
    let heat = Heat::spread(map, grid, q.width, q.height);
    let (width, height) = (q.width as f64, q.height as f64);
    let middle = (width / 2.0, height / 2.0);
    let whole = Bounds::from([0.0, 0.0, width, height]);
    let choose = |boxes: &[Bounds]| {
        let share = boxes.iter().filter(|b| b.finds(q.truth)).count() as f64;
        Answer {
            model: heat.best_of(boxes).is_some_and(|i| boxes[i].finds(q.truth)),
            centre: f64::from(nearest(boxes, middle).is_some_and(|b| b.finds(q.truth))),
            random: share / boxes.len().max(1) as f64,
        }
    };
    let window = best_window(map, grid, width, height);
    Answers {
        truth: Some((q.truth, (width, height))),
        point: Answer {
            model: heat.peak().is_some_and(|peak| q.truth.contains(peak)),
            centre: f64::from(q.truth.contains(middle)),
            random: q.truth.shared(whole) / whole.area(),
        },
        window,
        window_right: window.is_some_and(|b| b.finds(q.truth)),
        choice: (q.others.len() > 1).then(|| choose(q.others)),
        proposal: q.proposals.map(choose),
    }
}

fn nearest(boxes: &[Bounds], (x, y): (f64, f64)) -> Option<&Bounds> {
    let away = |b: &&Bounds| {
        let (cx, cy) = b.centre();
        (cx - x).hypot(cy - y)
    };
    boxes.iter().min_by(|a, b| away(a).total_cmp(&away(b)))
}

/// Shares of right answers in percent: the model's, and those of guesses that know nothing of the phrase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Shares {
    /// How many were asked.
    pub phrases: usize,
    /// The model's share.
    pub model: f64,
    /// The middle of the picture; the box that is nearest to it; for windows, one of the mean true size there.
    pub centre: f64,
    /// A point, a given box, or a window of the mean true size, drawn evenly.
    pub random: f64,
}

impl Shares {
    /// None without answers.
    pub fn of(answers: &[Answer]) -> Option<Self> {
        let share =
            |right: &dyn Fn(&Answer) -> f64| 100.0 * answers.iter().map(right).sum::<f64>() / answers.len() as f64;
        (!answers.is_empty()).then(|| Self {
            phrases: answers.len(),
            model: share(&|a| f64::from(a.model)),
            centre: share(&|a| a.centre),
            random: share(&|a| a.random),
        })
    }

    /// Points by which the model is better than the better guess; below 0: worse.
    pub fn margin(&self) -> f64 {
        self.model - self.centre.max(self.random)
    }

    /// Whether it is better by more than chance explains: twice the standard error of a share of so many phrases.
    pub fn beats_guesses(&self) -> bool {
        let share = self.model / 100.0;
        let error = 100.0 * (share * (1.0 - share) / self.phrases as f64).sqrt();
        self.margin() > 2.0 * error
    }
}

/// What an evaluation found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grounding {
    /// How many there are, unreadable pictures' included.
    pub phrases: usize,
    /// The hottest point lies in the true box.
    pub pointing: Shares,
    /// The best window overlaps the true box by half (IoU).
    pub window: Shares,
    /// The best of the picture's true boxes is the right one, where there are several.
    pub choice: Option<Shares>,
    /// The best of a detector's proposals overlaps the true box by half: the paper's measure.
    pub proposals: Option<Shares>,
}

impl Grounding {
    /// From the answers to every question; none without any.
    pub fn of(answers: &[Answers]) -> Option<Self> {
        let all = |pick: &dyn Fn(&Answers) -> Option<Answer>| {
            Shares::of(&answers.iter().filter_map(pick).collect::<Vec<_>>())
        };
        Some(Self {
            phrases: answers.len(),
            pointing: all(&|a| Some(a.point))?,
            window: Shares::of(&windows(answers))?,
            choice: all(&|a| a.choice),
            proposals: all(&|a| a.proposal),
        })
    }
}

impl Grounding {
    /// The share that says which of several models is the best: by the paper's measure, or else by the nearest to it that the data allow.
    pub fn share(&self) -> f64 {
        self.proposals.or(self.choice).unwrap_or(self.window).model
    }

    /// All shares by the names under which they are kept and shown, each with its guesses beside it.
    pub fn named(&self) -> Vec<(String, f64)> {
        let all = [
            ("pointing", Some(self.pointing)),
            ("window", Some(self.window)),
            ("choice", self.choice),
            ("proposals", self.proposals),
        ];
        let named = |(name, shares): (&str, Option<Shares>)| {
            let Shares { model, centre, random, .. } = shares?;
            let guess = |what: &str, share| (format!("grounding/{name}/{what}"), share);
            Some([(format!("grounding/{name}"), model), guess("centre", centre), guess("random", random)])
        };
        all.into_iter().filter_map(named).flatten().collect()
    }
}

/// The windows' answers. The guesses are told the mean true size, as shares of the picture's sides; the model is not.
fn windows(answers: &[Answers]) -> Vec<Answer> {
    let known: Vec<_> = answers.iter().filter_map(|a| a.truth).collect();
    let mean = |side: fn(&(Bounds, (f64, f64))) -> f64| known.iter().map(side).sum::<f64>() / known.len() as f64;
    let (across, down) = (mean(|(truth, size)| truth.width / size.0), mean(|(truth, size)| truth.height / size.1));
    // At these shares of the room that is left around it.
    let guess = |x: f64, y: f64| Bounds { x: x * (1.0 - across), y: y * (1.0 - down), width: across, height: down };
    let right = |guess: Bounds, a: &Answers| {
        a.truth.is_some_and(|(truth, (width, height))| guess.scaled(width, height).finds(truth))
    };
    const PLACES: usize = 16;
    let place = |i: usize| (i as f64 + 0.5) / PLACES as f64;
    let everywhere = || (0..PLACES * PLACES).map(|i| guess(place(i % PLACES), place(i / PLACES)));
    answers
        .iter()
        .map(|a| Answer {
            model: a.window_right,
            centre: f64::from(right(guess(0.5, 0.5), a)),
            random: everywhere().filter(|&b| right(b, a)).count() as f64 / (PLACES * PLACES) as f64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(b: [f64; 4]) -> Bounds {
        b.into()
    }

    /// A 4 x 4 map that is hot in one patch of a 40 x 40 picture.
    fn hot(row: usize, column: usize) -> Vec<f32> {
        let mut map = vec![0.0; 16];
        map[row * 4 + column] = 1.0;
        map
    }

    #[test]
    fn a_point_a_window_and_a_choice_by_hand() {
        let (left, right) = (bounds([0.0, 10.0, 10.0, 10.0]), bounds([20.0, 5.0, 20.0, 20.0]));
        let others = [left, right];
        let question = |truth| Question { truth, width: 40, height: 40, others: &others, proposals: Some(&[]) };
        // Heat in the left object.
        let map = hot(1, 0);
        let found = answer(&map, 4, question(left));
        assert!(found.point.model && found.choice.unwrap().model);
        assert_eq!((found.point.centre, found.point.random), (0.0, 100.0 / 1600.0));
        // The right object's centre, (30, 15), is nearer to the middle than the left one's, (5, 15).
        let choice = found.choice.unwrap();
        assert_eq!((choice.centre, choice.random), (0.0, 0.5));
        assert!(!found.proposal.unwrap().model, "no proposal is right");

        let wrong = answer(&map, 4, question(right));
        assert!(!wrong.point.model && !wrong.choice.unwrap().model);
        assert_eq!((wrong.point.centre, wrong.point.random), (1.0, 0.25));
        assert_eq!(wrong.choice.unwrap().centre, 1.0);

        let cold = answer(&[0.0; 16], 4, question(left));
        assert!(!cold.point.model && cold.window.is_none());
        // Among equals the first: right as often as a box that is drawn.
        assert!(cold.choice.unwrap().model && !answer(&[0.0; 16], 4, question(right)).choice.unwrap().model);
    }

    #[test]
    fn a_box_beyond_the_border_counts_where_the_picture_is() {
        let truth = bounds([30.0, 0.0, 20.0, 40.0]);
        let question = Question { truth, width: 40, height: 40, others: &[truth], proposals: None };
        let found = answer(&hot(0, 3), 4, question);
        assert!((found.point.random - 0.25).abs() < 1e-9);
        assert_eq!((found.choice, found.proposal), (None, None));
    }

    #[test]
    fn shares_are_percents_and_the_margin_is_over_the_better_guess() {
        let answers = [(true, 1.0, 0.25), (true, 0.0, 0.25), (false, 0.0, 0.5), (true, 1.0, 0.0)];
        let answers = answers.map(|(model, centre, random)| Answer { model, centre, random });
        let shares = Shares::of(&answers).unwrap();
        assert_eq!((shares.model, shares.centre, shares.random), (75.0, 50.0, 25.0));
        assert_eq!(shares.margin(), 25.0);
        // Of four phrases the standard error is 22 points, of 400 it is 2.
        assert!(!shares.beats_guesses());
        let many = Shares { phrases: 400, ..shares };
        assert!(many.beats_guesses());
        assert_eq!(Shares::of(&[]), None);
    }

    #[test]
    fn guessed_windows_have_the_mean_true_size() {
        let truth = bounds([10.0, 10.0, 20.0, 20.0]);
        let question = Question { truth, width: 40, height: 40, others: &[truth], proposals: None };
        let found = Grounding::of(&[answer(&hot(1, 1), 4, question)]).unwrap();
        assert_eq!(found.window.centre, 100.0, "the middle is right");
        assert!((5.0..60.0).contains(&found.window.random), "{found:?}");
        // A picture that cannot be read is wrong, and counts.
        let missing = [answer(&hot(1, 1), 4, question), Answers::missing(true)];
        let half = Grounding::of(&missing).unwrap();
        assert_eq!((half.phrases, half.window.centre, half.window.random), (2, 50.0, found.window.random / 2.0));
        assert_eq!((half.pointing.model, half.pointing.random), (50.0, found.pointing.random / 2.0));
        assert_eq!((half.proposals.unwrap().phrases, half.proposals.unwrap().model), (1, 0.0));
        assert!(Grounding::of(&[]).is_none());
        // Checkpoints are chosen by the paper's measure, where there are proposals.
        assert_eq!((half.share(), found.share()), (0.0, found.window.model));
        let names: Vec<String> = found.named().into_iter().map(|(name, _)| name).collect();
        let of = |share: &str| ["", "/centre", "/random"].map(|guess| format!("grounding/{share}{guess}"));
        assert_eq!(names, [of("pointing"), of("window")].concat());
    }
}
