//! Questions, statements about two pictures, and sentences that a picture entails, contradicts or leaves open.
//!
//! Each text is used twice, with two different answers (VQA v2's balanced pairs): whoever looks at the text alone is
//! right half of the time at most. Scenes are asked about things that come near, so that what is false is not absurd.

use std::collections::{HashMap, HashSet};

use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::claim::{Claim, Look, looks};
use crate::describe::NUMBERS;
use crate::plan::Plan;
use crate::relation::{PLACES, location};
use crate::scene::Split;
use crate::vocabulary::{Background, Colour, Shape, Size, Texture};

/// Scenes in which the two answers to a text are looked for.
const LOOKED_AT: usize = 300;

/// Texts that are tried for a scene before it goes without one.
const TRIES: usize = 20;

/// What a picture cannot tell of an object.
const HIDDEN: [&str; 8] = ["heavy", "magnetic", "wooden", "famous", "old", "new", "cold", "expensive"];

/// A record of the authors' questions; `question_type`, `answer_type` and `directional` are ours.
#[derive(Serialize)]
pub(crate) struct Question<'a> {
    image: &'a str,
    question: String,
    question_id: usize,
    /// Ten annotators who agree.
    answer: [String; 10],
    dataset: &'static str,
    question_type: &'static str,
    answer_type: &'static str,
    directional: bool,
}

/// A record of the authors' statements, with the identifier of the official files: `split-set-pair-sentence`.
#[derive(Serialize)]
pub(crate) struct Statement<'a> {
    /// Left, right.
    images: [&'a str; 2],
    sentence: String,
    label: &'static str,
    identifier: String,
    directional: bool,
}

/// A record of the authors' visual entailment.
#[derive(Serialize)]
pub(crate) struct Entailment<'a> {
    image: &'a str,
    sentence: String,
    label: &'static str,
    directional: bool,
}

/// Every answer to a question.
pub(crate) fn answers() -> Vec<String> {
    let names = Colour::ALL.iter().map(|colour| colour.words()[0]);
    let names = names.chain(Shape::ALL.iter().map(|shape| shape.words()[0]));
    let names = names.chain(Texture::ALL.iter().map(|texture| texture.words()[0]));
    let names = names.chain(Size::ALL.iter().map(|size| size.words()[0])).chain(PLACES).chain(["yes", "no"]);
    let mut answers: Vec<String> =
        names.map(str::to_owned).chain((0..=4).map(|count: usize| count.to_string())).collect();
    answers.extend(Background::ALL.iter().map(|&background| name(background)));
    answers.sort();
    answers.dedup();
    answers
}

fn name(background: Background) -> String {
    format!("{background:?}").to_lowercase()
}

enum Asked {
    Whether(Claim),
    HowMany(Look),
    /// Which of [`looks`], of the one object that looks like this.
    What(usize, Look),
    Where(Look),
    Background,
}

impl Asked {
    /// None where the question has no clear answer.
    fn answer(&self, plan: &Plan) -> Option<String> {
        match *self {
            Asked::Whether(claim) => claim.holds(plan).map(|holds| if holds { "yes" } else { "no" }.to_owned()),
            Asked::HowMany(look) => Some(look.count(plan).to_string()),
            Asked::What(which, look) => look.only(plan).map(|object| looks(object)[which].to_owned()),
            Asked::Where(look) => look.only(plan).and_then(location).map(str::to_owned),
            Asked::Background => Some(name(plan.background)),
        }
    }

    /// The question and its type.
    fn text(&self) -> (String, &'static str) {
        match *self {
            Asked::Whether(claim) => (format!("is there {}?", claim.text(None)), "is there"),
            Asked::HowMany(look) => (format!("how many {} are there?", look.nouns()), "how many"),
            Asked::What(0, look) => (format!("what size is the {}?", look.noun()), "what size"),
            Asked::What(1, look) => (format!("what pattern does the {} have?", look.noun()), "what pattern"),
            Asked::What(2, look) => (format!("what colour is the {}?", look.noun()), "what colour"),
            Asked::What(_, look) => (format!("what shape is the {}?", look.noun()), "what shape"),
            Asked::Where(look) => (format!("where is the {}?", look.noun()), "where"),
            Asked::Background => ("what is the background?".to_owned(), "what is the background"),
        }
    }
}

enum Stated {
    Both(Claim),
    ExactlyOne(Claim),
    /// The left picture has more.
    More(Look),
    Total(usize, Look),
}

impl Stated {
    fn holds(&self, left: &Plan, right: &Plan) -> Option<bool> {
        match self {
            Stated::Both(claim) => {
                let [left, right] = [claim.holds(left)?, claim.holds(right)?];
                (left || right).then_some(left && right)
            }
            Stated::ExactlyOne(claim) => Some(claim.holds(left)? != claim.holds(right)?),
            Stated::More(look) => Some(look.count(left) > look.count(right)),
            Stated::Total(count, look) => Some(look.count(left) + look.count(right) == *count),
        }
    }

    fn text(&self) -> String {
        match self {
            Stated::Both(claim) => format!("both pictures show {}", claim.text(None)),
            Stated::ExactlyOne(claim) => format!("exactly one picture shows {}", claim.text(None)),
            Stated::More(look) => format!("the left picture has more {} than the right one", look.nouns()),
            Stated::Total(1, look) => format!("there is one {} in the two pictures", look.noun()),
            Stated::Total(count, look) => format!("there are {} {} in the two pictures", NUMBERS[*count], look.nouns()),
        }
    }
}

/// A sentence of a visible claim, its label where that is true, and where it is false.
type Sentence = (Claim, String, [&'static str; 2]);

/// Draws the texts of a split: a function of its scenes, the seed and nothing else.
pub(crate) struct Asker<'a> {
    images: &'a [String],
    plans: &'a [Plan],
    rng: ChaCha8Rng,
    /// Which pictures each text has been used with.
    used: HashMap<String, HashSet<[usize; 2]>>,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(images: &'a [String], plans: &'a [Plan], seed: u64, split: Split) -> Asker<'a> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Streams of scenes count up from 0.
        rng.set_stream(u64::MAX - u64::from(split == Split::Test));
        Asker { images, plans, rng, used: HashMap::new() }
    }

    /// Of each scene and its like, two each: yes or no, a number, another answer; fewer where no second answer is found.
    pub(crate) fn questions(&mut self) -> Vec<Question<'a>> {
        let mut questions = Vec::new();
        for (scene, kind) in (0..self.plans.len()).flat_map(|scene| [(scene, 0), (scene, 1), (scene, 2)]) {
            let answer_type = ["yes/no", "number", "other"][kind];
            let found = self.attempt(|asker| {
                let asked = asker.draw_question(scene, kind)?;
                let plans = asker.plans;
                let (question, question_type) = asked.text();
                let pair = asker.contrast(&question, scene, |other| [other; 2], |other| asked.answer(&plans[other]))?;
                let directional = match &asked {
                    Asked::Whether(claim) => claim.is_directional(),
                    asked => matches!(asked, Asked::Where(_)),
                };
                Some((question, question_type, directional, pair))
            });
            let Some((question, question_type, directional, pair)) = found else { continue };
            for ([scene, _], answer) in pair {
                questions.push(Question {
                    image: &self.images[scene],
                    question: question.clone(),
                    question_id: questions.len(),
                    answer: std::array::from_fn(|_| answer.clone()),
                    dataset: "vqa",
                    question_type,
                    answer_type,
                    directional,
                });
            }
        }
        questions
    }

    fn draw_question(&mut self, scene: usize, kind: usize) -> Option<Asked> {
        let plan = &self.plans[scene];
        let rng = &mut self.rng;
        let object = plan.objects.choose(rng)?;
        Some(match kind {
            0 => Asked::Whether(Claim::draw(rng, plan)),
            1 => {
                let said = usize::from(rng.random_bool(0.9));
                Asked::HowMany(Look::draw(rng, object, &[0, 1, 2, 3], said))
            }
            _ => match rng.random_range(0..11) {
                0 => Asked::Background,
                1 | 2 => Asked::Where(Look::draw(rng, object, &[1, 2, 3], 1)),
                draw => {
                    let which = [0, 1, 2, 2, 2, 3, 3, 3][draw - 3];
                    let others: Vec<usize> = (0..4).filter(|&other| other != which).collect();
                    Asked::What(which, Look::draw(rng, object, &others, 1))
                }
            },
        })
    }

    /// Two of each scene, with two others: true and false.
    pub(crate) fn statements(&mut self, split: &str) -> Vec<Statement<'a>> {
        let mut statements = Vec::new();
        for scene in 0..self.plans.len() {
            let found = self.attempt(|asker| {
                let stated = asker.draw_statement(scene)?;
                let (plans, on_the_left) = (asker.plans, asker.rng.random_bool(0.5));
                let sides = |other| if on_the_left { [scene, other] } else { [other, scene] };
                let holds = |other| {
                    let [left, right] = sides(other).map(|scene| &plans[scene]);
                    if other == scene { None } else { stated.holds(left, right) }
                };
                let sentence = stated.text();
                let directional =
                    matches!(&stated, Stated::Both(claim) | Stated::ExactlyOne(claim) if claim.is_directional());
                asker.contrast(&sentence, scene + 1, sides, holds).map(|pair| (sentence, directional, pair))
            });
            let Some((sentence, directional, pairs)) = found else { continue };
            for (pair, (sides, holds)) in pairs.into_iter().enumerate() {
                statements.push(Statement {
                    images: sides.map(|scene| self.images[scene].as_str()),
                    sentence: sentence.clone(),
                    label: if holds { "True" } else { "False" },
                    identifier: format!("{split}-{scene}-{pair}-0"),
                    directional,
                });
            }
        }
        statements
    }

    fn draw_statement(&mut self, scene: usize) -> Option<Stated> {
        let (plans, rng) = (self.plans, &mut self.rng);
        let other = plans.choose(rng)?;
        let plan = &plans[scene];
        let said = usize::from(rng.random_bool(0.9));
        let object = plan.objects.choose(rng)?;
        let look = Look::draw(rng, object, &[0, 1, 2, 3], said);
        Some(match rng.random_range(0..4) {
            0 => Stated::Both(Claim::draw(rng, plan)),
            // Of another scene: "exactly one" is then also false where none does.
            1 => {
                let shown = if rng.random_bool(0.5) { plan } else { other };
                Stated::ExactlyOne(Claim::draw(rng, shown))
            }
            2 => Stated::More(look),
            _ => Stated::Total(look.count(plan) + look.count(other), look),
        })
    }

    /// Of each scene and its like, six: two of each label. "There is a heavy star" is left open by a picture with a star
    /// and contradicted by one without; "there is no heavy star" is left open by the former and entailed by the latter.
    pub(crate) fn entailments(&mut self) -> Vec<Entailment<'a>> {
        let mut entailments = Vec::new();
        for scene in 0..self.plans.len() {
            let sentences: Option<Vec<_>> = (0..3)
                .map(|kind| {
                    self.attempt(|asker| {
                        let (claim, sentence, labels) = asker.draw_sentence(scene, kind);
                        let plans = asker.plans;
                        let holds = |other| claim.holds(&plans[other]);
                        let pair = asker.contrast(&sentence, scene, |other| [other; 2], holds)?;
                        Some((claim, sentence, labels, pair))
                    })
                })
                .collect();
            // All three or none: together they have every label twice.
            for (claim, sentence, [where_true, where_false], pair) in sentences.into_iter().flatten() {
                for ([scene, _], holds) in pair {
                    entailments.push(Entailment {
                        image: &self.images[scene],
                        sentence: sentence.clone(),
                        label: if holds { where_true } else { where_false },
                        directional: claim.is_directional(),
                    });
                }
            }
        }
        entailments
    }

    fn draw_sentence(&mut self, scene: usize, kind: usize) -> Sentence {
        let rng = &mut self.rng;
        let claim = Claim::draw(rng, &self.plans[scene]);
        let hidden = HIDDEN.choose(rng).copied();
        let without =
            |text: String| text.split_once(' ').map(|(_, noun)| format!("there is no {noun}")).unwrap_or(text);
        match kind {
            0 if rng.random_bool(0.5) => (claim, without(claim.text(None)), ["contradiction", "entailment"]),
            0 => (claim, format!("there is {}", claim.text(None)), ["entailment", "contradiction"]),
            1 => (claim, format!("there is {}", claim.text(hidden)), ["neutral", "contradiction"]),
            _ => (claim, without(claim.text(hidden)), ["neutral", "entailment"]),
        }
    }

    fn attempt<T>(&mut self, mut draw: impl FnMut(&mut Self) -> Option<T>) -> Option<T> {
        (0..TRIES).find_map(|_| draw(self))
    }

    /// Two pictures (or pairs of them: `subject` of a scene) with different answers to the text, that it was not used with
    /// yet. Of all answers that are found, each is as likely as another: rare ones come as often as usual ones.
    fn contrast<A: PartialEq>(
        &mut self,
        text: &str,
        from: usize,
        subject: impl Fn(usize) -> [usize; 2],
        answer: impl Fn(usize) -> Option<A>,
    ) -> Option<[([usize; 2], A); 2]> {
        let used = self.used.entry(text.to_owned()).or_default();
        let mut found: Vec<([usize; 2], A)> = Vec::new();
        for scene in (from..from + self.plans.len().min(LOOKED_AT)).map(|scene| scene % self.plans.len()) {
            let Some(answer) = answer(scene).filter(|_| !used.contains(&subject(scene))) else { continue };
            if found.iter().all(|(_, known)| *known != answer) {
                found.push((subject(scene), answer));
            }
        }
        found.shuffle(&mut self.rng);
        found.truncate(2);
        let pair: [_; 2] = found.try_into().ok()?;
        used.extend(pair.iter().map(|(subject, _)| *subject));
        Some(pair)
    }
}
