//! Captions from a small grammar, and the phrase that names an object. Everything that is said is read off the plan.

use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::plan::{Placed, Plan};
use crate::relation::{is_between, location, relations};
use crate::scene::{CAPTIONS, MAX_WORDS};
use crate::vocabulary::{Shape, Texture};

/// Of one scene or two.
pub(crate) const NUMBERS: [&str; 9] = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight"];

/// What is said of an object.
#[derive(Clone, Copy)]
struct Say {
    size: bool,
    texture: bool,
    colour: bool,
    /// Without it the object is "a thing".
    shape: bool,
}

/// Captions of the scene, all different, none longer than [`MAX_WORDS`].
pub(crate) fn captions(plan: &Plan, rng: &mut ChaCha8Rng) -> Vec<String> {
    let mut writer = Writer { plan, rng };
    let mut kinds: [fn(&mut Writer) -> String; CAPTIONS] = [
        |writer| writer.related(),
        |writer| writer.counted(),
        |writer| writer.placed(),
        |writer| writer.partial(),
        |writer| writer.summary(),
    ];
    kinds[..3].shuffle(writer.rng);
    let mut captions: Vec<String> = Vec::with_capacity(CAPTIONS);
    for kind in kinds {
        // Every kind has many forms within the limit, so this ends: a long or repeated draw is drawn again.
        let caption = loop {
            let caption = kind(&mut writer);
            if caption.split_whitespace().count() <= MAX_WORDS && !captions.contains(&caption) {
                break caption;
            }
        };
        captions.push(caption);
    }
    captions
}

/// The shortest name with at least colour and shape, and the texture if there is one, that fits no other object.
pub(crate) fn phrase(plan: &Plan, object: &Placed) -> String {
    let textured = object.texture != Texture::Plain;
    let say = [(false, textured), (false, true), (true, textured), (true, true)]
        .map(|(size, texture)| Say { size, texture, colour: true, shape: true })
        .into_iter()
        .find(|say| plan.objects.iter().filter(|other| fits(object, other, *say)).count() == 1)
        .expect("no two objects of a scene look the same");
    let mut words = vec!["the"];
    words.extend(say.size.then_some(object.size.words()[0]));
    words.extend(say.texture.then_some(object.texture.words()[0]));
    words.extend([object.colour.words()[0], object.shape.words()[0]]);
    words.join(" ")
}

/// Whether what is said of `object` is true of `other`.
fn fits(object: &Placed, other: &Placed, say: Say) -> bool {
    (!say.size || object.size == other.size)
        && (!say.texture || object.texture == other.texture)
        && (!say.colour || object.colour == other.colour)
        && (!say.shape || object.shape == other.shape)
}

struct Writer<'a> {
    plan: &'a Plan,
    rng: &'a mut ChaCha8Rng,
}

/// The three kinds that mention every object with its attributes, and the two that say less.
impl<'a> Writer<'a> {
    /// "a large red star left of a small striped blue circle on grass"
    fn related(&mut self) -> String {
        let objects = self.shuffled();
        let said = self.full_mentions(&objects);
        let caption = match objects[..] {
            [object] => {
                let lead = self.pick(&["", "there is ", "a picture of "]);
                let place = location(object).map(|place| format!(" {place}")).unwrap_or_default();
                return format!("{lead}{}{place} {}", said[0], self.background());
            }
            [a, b] => format!("{} {} {}", said[0], self.relation(a, b), said[1]),
            [a, b, c] if is_between(a, b, c) => {
                format!("{} between {} and {}", said[0], said[1], said[2])
            }
            [a, b, c] => {
                let [to_b, to_c] = [self.relation(a, b), self.relation(a, c)];
                format!("{} {to_b} {} and {to_c} {}", said[0], said[1], said[2])
            }
            _ => {
                let [first, second] = [(0, 1), (2, 3)].map(|(i, j)| self.relation(objects[i], objects[j]));
                format!("{} {first} {} while {} {second} {}", said[0], said[1], said[2], said[3])
            }
        };
        self.on_background(caption, 0.6)
    }

    /// "two objects: a large red star and a small striped blue circle"
    fn counted(&mut self) -> String {
        let objects = self.shuffled();
        let listed = list(&self.full_mentions(&objects));
        if objects.len() == 1 {
            let lead = self.pick(&["only", "just", "nothing but", "one object:"]);
            return format!("{lead} {listed} {}", self.background());
        }
        let count = self.count();
        if self.chance(0.3) {
            format!("{count} {}: {listed}", self.background())
        } else {
            self.on_background(format!("{count}: {listed}"), 0.5)
        }
    }

    /// "on grass: a large red star and a small striped blue circle"
    fn placed(&mut self) -> String {
        let objects = self.shuffled();
        let listed = list(&self.full_mentions(&objects));
        let background = self.background();
        let verb = if objects.len() == 1 { "is" } else { "are" };
        match self.rng.random_range(0..4) {
            0 => format!("{background}: {listed}"),
            1 => format!("{background} there {verb} {listed}"),
            2 => format!("there {verb} {listed} {background}"),
            _ => format!("a picture of {listed} {background}"),
        }
    }

    /// "a red star left of a striped circle on grass": some objects, some of their attributes.
    fn partial(&mut self) -> String {
        let objects = self.shuffled();
        let said: Vec<String> = objects.iter().map(|object| self.partial_mention(object)).collect();
        let caption = match objects[..] {
            [object] => match location(object) {
                Some(place) => format!("{} {place}", said[0]),
                None => format!("there is {}", said[0]),
            },
            [a, b, c, ..] if is_between(a, b, c) => {
                format!("{} between {} and {}", said[0], said[1], said[2])
            }
            _ => {
                let lead = self.pick(&["", "there is "]);
                format!("{lead}{} {} {}", said[0], self.relation(objects[0], objects[1]), said[1])
            }
        };
        self.on_background(caption, 0.9)
    }

    /// "a red star and a blue circle on grass", "two stars and a ring at night", "two objects on sand, one of them blue".
    fn summary(&mut self) -> String {
        let objects = self.shuffled();
        let background = self.background();
        if let [object] = objects[..] {
            let say = Say { size: true, texture: true, colour: true, shape: false };
            return format!("{} {background}", self.noun_phrase(object, say, true));
        }
        match self.rng.random_range(0..10) {
            0..7 => {
                let say = Say { size: false, texture: false, colour: true, shape: true };
                let said: Vec<String> = objects.iter().map(|object| self.noun_phrase(object, say, true)).collect();
                format!("{} {background}", list(&said))
            }
            7..9 => {
                let shapes = Shape::ALL.iter().filter_map(|&shape| self.counted_shape(shape)).collect::<Vec<_>>();
                format!("{} {background}", list(&shapes))
            }
            _ => {
                let [first, second] = [objects[0], objects[1]];
                let colour = self.share(first.colour.words()[0], |object| object.colour == first.colour);
                let texture = self.share(second.texture.words()[0], |object| object.texture == second.texture);
                format!("{} {background}, {colour} and {texture}", self.count())
            }
        }
    }
}

/// The parts of captions.
impl<'a> Writer<'a> {
    fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        words.choose(self.rng).expect("every value has a word")
    }

    fn background(&mut self) -> &'static str {
        self.pick(self.plan.background.words())
    }

    /// The caption, in this share of the draws with the background after it.
    fn on_background(&mut self, caption: String, share: f64) -> String {
        if self.chance(share) { format!("{caption} {}", self.background()) } else { caption }
    }

    /// The objects in random order; where one is between two others, that order comes first half of the time.
    fn shuffled(&mut self) -> Vec<&'a Placed> {
        let mut objects: Vec<&Placed> = self.plan.objects.iter().collect();
        objects.shuffle(self.rng);
        if objects.len() >= 3 && self.chance(0.5) {
            let between = |i: usize| is_between(objects[i], objects[(i + 1) % 3], objects[(i + 2) % 3]);
            if let Some(i) = (0..3).find(|&i| between(i)) {
                objects[..3].rotate_left(i);
            }
        }
        objects
    }

    /// Everything about every object. "Plain" is said now and then and goes without saying otherwise; four objects
    /// rarely have room for articles.
    fn full_mentions(&mut self, objects: &[&Placed]) -> Vec<String> {
        let article = self.chance(if objects.len() < 4 { 0.85 } else { 0.2 });
        let say_plain = self.chance(0.3);
        let mut mention = |object: &Placed| {
            let texture = say_plain || object.texture != Texture::Plain;
            self.noun_phrase(object, Say { size: true, texture, colour: true, shape: true }, article)
        };
        objects.iter().map(|object| mention(object)).collect()
    }

    /// Two attributes or three, the shape nearly always.
    fn partial_mention(&mut self, object: &Placed) -> String {
        let [mut size, mut texture, mut colour] = [self.chance(0.4), self.chance(0.6), self.chance(0.7)];
        let shape = self.chance(0.9);
        texture &= object.texture != Texture::Plain;
        colour |= !shape || !(size || texture);
        size &= !(shape && texture && colour);
        self.noun_phrase(object, Say { size, texture, colour, shape }, true)
    }

    fn noun_phrase(&mut self, object: &Placed, say: Say, article: bool) -> String {
        let mut words = Vec::with_capacity(7);
        if say.size {
            words.push(self.pick(object.size.words()));
        }
        let suffix = object.texture.suffix().filter(|_| say.texture && self.chance(0.2));
        if say.texture && suffix.is_none() {
            words.push(self.pick(object.texture.words()));
        }
        if say.colour {
            words.push(self.pick(object.colour.words()));
        }
        words.push(if say.shape { self.pick(object.shape.words()) } else { self.pick(&["thing", "object"]) });
        words.extend(suffix);
        let noun = words.join(" ");
        if article { self::article(&noun) } else { noun }
    }

    fn relation(&mut self, a: &Placed, b: &Placed) -> &'static str {
        let relation = *relations(a, b).choose(self.rng).expect("two objects that do not overlap have a relation");
        self.pick(relation.words())
    }

    /// "three objects"
    fn count(&mut self) -> String {
        format!("{} {}", NUMBERS[self.plan.objects.len()], self.pick(&["objects", "things"]))
    }

    /// "two stars", "a ring"; none where the scene has none of this shape.
    fn counted_shape(&mut self, shape: Shape) -> Option<String> {
        let count = self.plan.objects.iter().filter(|object| object.shape == shape).count();
        let noun = self.pick(shape.words());
        match count {
            0 => None,
            1 => Some(format!("a {noun}")),
            _ if noun.ends_with('s') => Some(format!("{} {noun}es", NUMBERS[count])),
            _ => Some(format!("{} {noun}s", NUMBERS[count])),
        }
    }

    /// "one of them striped"
    fn share(&mut self, word: &str, holds: impl Fn(&Placed) -> bool) -> String {
        let count = self.plan.objects.iter().filter(|object| holds(object)).count();
        let number = if count == self.plan.objects.len() { "all" } else { NUMBERS[count] };
        format!("{number} of them {word}")
    }
}

/// "a star", "an orange star"
pub(crate) fn article(noun: &str) -> String {
    format!("{} {noun}", if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
}

/// "a, b and c"
fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [item] => item.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
