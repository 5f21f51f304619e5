//! What can be said of a scene, and whether it is true there. Truth is read off the plan, words are made apart from it.

use rand::Rng;
use rand::seq::{IndexedRandom, index};
use rand_chacha::ChaCha8Rng;

use crate::describe::article;
use crate::plan::{Placed, Plan};
use crate::relation::{Relation, location, relations};
use crate::vocabulary::Background;

/// What an object looks like, by the usual names: size, texture, colour, shape.
pub(crate) fn looks(object: &Placed) -> [&'static str; 4] {
    [object.size.words()[0], object.texture.words()[0], object.colour.words()[0], object.shape.words()[0]]
}

/// Some of [`looks`]: "red star"; all of them left open: "object".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look(pub [Option<&'static str>; 4]);

impl Look {
    /// `count` of the looks of an object, drawn among those in `from`.
    pub(crate) fn draw(rng: &mut ChaCha8Rng, object: &Placed, from: &[usize], count: usize) -> Look {
        let mut said = [None; 4];
        for choice in index::sample(rng, from.len(), count) {
            said[from[choice]] = Some(looks(object)[from[choice]]);
        }
        Look(said)
    }

    fn alike(self, object: &Placed) -> impl Iterator<Item = bool> {
        self.0.into_iter().zip(looks(object)).filter_map(|(said, has)| said.map(|said| said == has))
    }

    pub(crate) fn fits(self, object: &Placed) -> bool {
        self.alike(object).all(|same| same)
    }

    pub(crate) fn count(self, plan: &Plan) -> usize {
        plan.objects.iter().filter(|object| self.fits(object)).count()
    }

    /// The object that it fits, if it is one alone.
    pub(crate) fn only(self, plan: &Plan) -> Option<&Placed> {
        let mut fitting = plan.objects.iter().filter(|object| self.fits(object));
        fitting.next().filter(|_| fitting.next().is_none())
    }

    /// "red star", "striped thing"
    pub(crate) fn noun(self) -> String {
        let [.., shape] = self.0;
        let open = if self.0 == [None; 4] { "object" } else { "thing" };
        let adjectives = self.0[..3].iter().flatten().copied();
        adjectives.chain([shape.unwrap_or(open)]).collect::<Vec<_>>().join(" ")
    }

    /// "red stars"
    pub(crate) fn nouns(self) -> String {
        let noun = self.noun();
        if noun.ends_with('s') { noun + "es" } else { noun + "s" }
    }
}

/// "a red star", "a star left of a blue thing", "a star at the top", "a star on grass".
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    look: Look,
    more: More,
}

#[derive(Clone, Copy, Debug)]
enum More {
    Nothing,
    Related(Relation, Look),
    At(&'static str),
    On(Background),
}

impl Claim {
    /// One that is true of the scene.
    pub(crate) fn draw(rng: &mut ChaCha8Rng, plan: &Plan) -> Claim {
        const ANY: [usize; 4] = [0, 1, 2, 3];
        let [object, other] = [0; 2].map(|_| plan.objects.choose(rng).expect("a scene has objects"));
        let more = match rng.random_range(0..5) {
            0 | 1 => {
                let relation = relations(object, other).choose(rng).copied();
                relation.map(|relation| More::Related(relation, Look::draw(rng, other, &ANY, 1)))
            }
            2 => location(object).map(More::At),
            3 => Some(More::On(plan.background)),
            _ => None,
        };
        // Of one look alone, most is true by chance: where no more is said, there are two.
        let look = Look::draw(rng, object, &ANY, if more.is_none() { 2 } else { 1 });
        Claim { look, more: more.unwrap_or(More::Nothing) }
    }

    /// None where it is unclear, or false with nothing in the scene that comes near.
    pub(crate) fn holds(&self, plan: &Plan) -> Option<bool> {
        let fitting: Vec<&Placed> = plan.objects.iter().filter(|object| self.look.fits(object)).collect();
        let mut truths: Vec<Option<bool>> = match self.more {
            More::Nothing => {
                let near = plan.objects.iter().any(|object| self.look.alike(object).any(|same| same));
                return near.then_some(!fitting.is_empty());
            }
            More::On(background) => fitting.iter().map(|_| Some(background == plan.background)).collect(),
            More::At(place) => fitting.iter().map(|object| is_at(object, place)).collect(),
            More::Related(relation, look) => {
                let others: Vec<&Placed> = plan.objects.iter().filter(|object| look.fits(object)).collect();
                let pairs = fitting.iter().flat_map(|&a| others.iter().map(move |&b| (a, b)));
                pairs.filter(|(a, b)| a != b).map(|(a, b)| is_related(a, relation, b)).collect()
            }
        };
        // One that is true makes it true; one that is unclear leaves it open whether it is false.
        truths.sort_by_key(|truth| [Some(true), None, Some(false)].iter().position(|known| known == truth));
        truths.first().copied().flatten()
    }

    /// Whether a mirrored picture changes its truth.
    pub(crate) fn is_directional(&self) -> bool {
        match self.more {
            More::Related(relation, _) => matches!(relation, Relation::Left | Relation::Right),
            More::At(place) => place.contains("left") || place.contains("right"),
            _ => false,
        }
    }

    /// With a word before the look, if there is one: "a heavy red star on grass".
    pub(crate) fn text(&self, word: Option<&str>) -> String {
        let more = match self.more {
            More::Nothing => String::new(),
            More::Related(relation, look) => format!(" {} {}", relation.words()[0], article(&look.noun())),
            More::At(place) => format!(" {place}"),
            More::On(background) => format!(" {}", background.words()[0]),
        };
        let noun = word.into_iter().map(str::to_owned).chain([self.look.noun()]).collect::<Vec<_>>().join(" ");
        article(&noun) + &more
    }
}

/// Clear where the relation or its opposite holds.
fn is_related(a: &Placed, relation: Relation, b: &Placed) -> Option<bool> {
    let found = relations(a, b);
    match (found.contains(&relation), relation.opposite()) {
        (true, _) => Some(true),
        (false, None) => Some(false),
        (false, Some(opposite)) => found.contains(&opposite).then_some(false),
    }
}

/// Unclear near the borders of places, and where one place is a part of the other: a corner, and the side it is on.
fn is_at(object: &Placed, place: &'static str) -> Option<bool> {
    let found = location(object)?;
    let shared = ["top", "bottom", "left", "right"].iter().any(|side| place.contains(side) && found.contains(side));
    if found == place { Some(true) } else { (!shared).then_some(false) }
}
