//! Reads a caption back and says whether it is true of a scene. It shares no code or tables with the generator: words
//! are its own, and places are those of the boxes in pixels.

use simla_scenes::{Object, Scene};

/// What a caption says of one object, or of `count` objects alike.
#[derive(Clone, Debug, Default)]
pub struct Mention {
    pub size: Option<&'static str>,
    pub texture: Option<&'static str>,
    pub colour: Option<&'static str>,
    pub shape: Option<&'static str>,
    pub count: Option<usize>,
}

/// Everything that a caption says.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    pub mentions: Vec<Mention>,
    /// Mention, relation, mentions.
    pub relations: Vec<(usize, &'static str, Vec<usize>)>,
    pub background: Option<&'static str>,
    pub location: Option<&'static str>,
    /// How many objects there are.
    pub total: Option<usize>,
    /// How many of all objects have an attribute.
    pub shares: Vec<(Mention, usize)>,
}

type Words = &'static [(&'static str, &'static str)];

const SIZES: Words = &[("small", "small"), ("little", "small"), ("large", "large"), ("big", "large")];
const TEXTURES: Words = &[
    ("plain", "plain"),
    ("solid", "plain"),
    ("striped", "striped"),
    ("dotted", "dotted"),
    ("spotted", "dotted"),
    ("checkered", "checkered"),
    ("checked", "checkered"),
];
const SUFFIXES: Words = &[("with stripes", "striped"), ("with dots", "dotted"), ("with checks", "checkered")];
const COLOURS: [&str; 10] = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white"];
const SHAPES: Words = &[
    ("circle", "circle"),
    ("disc", "circle"),
    ("square", "square"),
    ("triangle", "triangle"),
    ("star", "star"),
    ("ring", "ring"),
    ("hoop", "ring"),
    ("cross", "cross"),
    ("heart", "heart"),
    ("hexagon", "hexagon"),
    ("diamond", "diamond"),
    ("crescent", "crescent"),
    ("moon", "crescent"),
];
const BACKGROUNDS: Words = &[
    ("on a white background", "white"),
    ("on white", "white"),
    ("on a grey background", "grey"),
    ("on grey", "grey"),
    ("on a black background", "black"),
    ("on black", "black"),
    ("on a cream background", "cream"),
    ("on cream", "cream"),
    ("on a gradient", "gradient"),
    ("on a shaded background", "gradient"),
    ("in the sky", "sky"),
    ("against a cloudy sky", "sky"),
    ("on grass", "grass"),
    ("on a meadow", "grass"),
    ("in the sea", "sea"),
    ("on the water", "sea"),
    ("at night", "night"),
    ("in the night sky", "night"),
    ("on sand", "sand"),
    ("on a sandy beach", "sand"),
    ("on noise", "noise"),
    ("on a noisy background", "noise"),
];
const LOCATIONS: [&str; 9] = [
    "in the top left corner",
    "in the top right corner",
    "in the bottom left corner",
    "in the bottom right corner",
    "at the top",
    "at the bottom",
    "on the left",
    "on the right",
    "in the middle",
];
const RELATIONS: Words = &[
    ("to the left of", "left"),
    ("left of", "left"),
    ("to the right of", "right"),
    ("right of", "right"),
    ("above", "above"),
    ("over", "above"),
    ("below", "below"),
    ("under", "below"),
    ("beneath", "below"),
    ("inside", "inside"),
    ("within", "inside"),
    ("around", "around"),
    ("between", "between"),
];
const NUMBERS: [&str; 5] = ["no", "one", "two", "three", "four"];

struct Reader<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl Reader<'_> {
    fn eat(&mut self, phrase: &str) -> bool {
        let length = phrase.split(' ').count();
        let found = self.words[self.at..].iter().take(length).copied().eq(phrase.split(' '));
        self.at += if found { length } else { 0 };
        found
    }

    fn eat_of(&mut self, words: Words) -> Option<&'static str> {
        words.iter().find(|(phrase, _)| self.eat(phrase)).map(|(_, meaning)| *meaning)
    }

    fn number(&mut self) -> Option<usize> {
        NUMBERS.iter().position(|number| self.eat(number))
    }

    /// Adjectives in any order.
    fn adjectives(&mut self, mention: &mut Mention) {
        loop {
            if let Some(size) = self.eat_of(SIZES) {
                assert!(mention.size.replace(size).is_none(), "two sizes: {:?}", self.words);
            } else if let Some(texture) = self.eat_of(TEXTURES) {
                assert!(mention.texture.replace(texture).is_none(), "two textures: {:?}", self.words);
            } else if let Some(colour) = COLOURS.into_iter().find(|colour| self.eat(colour)) {
                assert!(mention.colour.replace(colour).is_none(), "two colours: {:?}", self.words);
            } else {
                return;
            }
        }
    }

    fn mention(&mut self) -> Mention {
        let article = ["a", "an", "the"].into_iter().find(|article| self.eat(article));
        if let (Some(article), Some(word)) = (article, self.words.get(self.at)) {
            assert!(article == "the" || (article == "an") == word.starts_with('o'), "{article} before {word}");
        }
        let mut mention = Mention { count: self.number(), ..Mention::default() };
        self.adjectives(&mut mention);
        let noun = self.words.get(self.at).unwrap_or_else(|| panic!("a noun is missing: {:?}", self.words));
        let singular = match mention.count {
            Some(_) => {
                noun.strip_suffix("ses").map(|stem| format!("{stem}s")).unwrap_or(noun.trim_end_matches('s').into())
            }
            None => noun.to_string(),
        };
        mention.shape = SHAPES.iter().find(|(word, _)| *word == singular).map(|(_, shape)| *shape);
        assert!(
            mention.shape.is_some() || ["thing", "object"].contains(&singular.as_str()),
            "{noun:?} is no noun: {:?}",
            self.words
        );
        self.at += 1;
        if let Some(texture) = self.eat_of(SUFFIXES) {
            assert!(mention.texture.replace(texture).is_none(), "two textures: {:?}", self.words);
        }
        mention
    }
}

/// Reads a caption; panics where it does not understand it.
pub fn read(caption: &str) -> Claims {
    let plain = caption.replace([',', ':'], "");
    let mut reader = Reader { words: plain.split(' ').collect(), at: 0 };
    let mut claims = Claims::default();
    let mut subject = None;
    let mut pending: Option<(&'static str, Vec<usize>)> = None;
    let mut only = false;
    while reader.at < reader.words.len() {
        if let Some(background) = reader.eat_of(BACKGROUNDS) {
            assert!(claims.background.replace(background).is_none(), "two backgrounds: {caption}");
        } else if let Some(place) = LOCATIONS.into_iter().find(|place| reader.eat(place)) {
            claims.location = Some(place);
        } else if ["there is", "there are", "a picture of", "and"].iter().any(|phrase| reader.eat(phrase)) {
        } else if reader.eat("while") {
            subject = None;
        } else if ["only", "just", "nothing but"].iter().any(|phrase| reader.eat(phrase)) {
            only = true;
        } else if let Some(relation) = reader.eat_of(RELATIONS) {
            pending = Some((relation, Vec::new()));
        } else if let Some(total) = total(&mut reader) {
            claims.total = Some(total);
        } else if let Some(share) = share(&mut reader, claims.total) {
            claims.shares.push(share);
        } else {
            claims.mentions.push(reader.mention());
            let mention = claims.mentions.len() - 1;
            match &mut pending {
                None => subject = Some(mention),
                Some((relation, others)) => {
                    others.push(mention);
                    if others.len() == if *relation == "between" { 2 } else { 1 } {
                        let subject = subject.unwrap_or_else(|| panic!("a relation of nothing: {caption}"));
                        claims.relations.push((subject, *relation, std::mem::take(others)));
                        pending = None;
                    }
                }
            }
        }
    }
    assert!(pending.is_none(), "a relation to nothing: {caption}");
    if only {
        claims.total = Some(claims.mentions.len());
    }
    claims
}

/// "three objects"
fn total(reader: &mut Reader) -> Option<usize> {
    (1..NUMBERS.len()).find(|&number| {
        let nouns = if number == 1 { ["object", "thing"] } else { ["objects", "things"] };
        nouns.iter().any(|noun| reader.eat(&format!("{} {noun}", NUMBERS[number])))
    })
}

/// "one of them striped"
fn share(reader: &mut Reader, total: Option<usize>) -> Option<(Mention, usize)> {
    let number = (1..NUMBERS.len())
        .find(|&number| reader.eat(&format!("{} of them", NUMBERS[number])))
        .or_else(|| if reader.eat("all of them") { total } else { None })?;
    let mut mention = Mention::default();
    reader.adjectives(&mut mention);
    Some((mention, number))
}

/// Whether the caption is true of the scene.
pub fn holds(claims: &Claims, scene: &Scene) -> bool {
    let objects = &scene.objects;
    let count = |mention: &Mention| objects.iter().filter(|object| describes(mention, object)).count();
    claims.background.is_none_or(|background| background == name(scene.background))
        && claims.total.is_none_or(|total| total == objects.len())
        && claims.shares.iter().all(|(mention, number)| count(mention) == *number)
        && claims.mentions.iter().all(|mention| mention.count.is_none_or(|number| count(mention) == number))
        && assign(claims, scene, &mut Vec::new())
}

/// Whether the mentions from `chosen.len()` on can be given different objects so that all relations hold.
fn assign(claims: &Claims, scene: &Scene, chosen: &mut Vec<usize>) -> bool {
    let Some(mention) = claims.mentions.get(chosen.len()) else {
        let object = |mention: usize| &scene.objects[chosen[mention]];
        let side = f64::from(scene.picture.width());
        let related = claims.relations.iter().all(|(subject, relation, others)| {
            let others: Vec<&Object> = others.iter().map(|&other| object(other)).collect();
            is_related(object(*subject), relation, &others, side)
        });
        return related && claims.location.is_none_or(|place| is_at(object(0), place, side));
    };
    (0..scene.objects.len()).any(|index| {
        let fits = !chosen.contains(&index) && describes(mention, &scene.objects[index]);
        chosen.push(index);
        let found = fits && assign(claims, scene, chosen);
        chosen.pop();
        found
    })
}

pub fn describes(mention: &Mention, object: &Object) -> bool {
    mention.size.is_none_or(|size| size == name(object.size))
        && mention.texture.is_none_or(|texture| texture == name(object.texture))
        && mention.colour.is_none_or(|colour| colour == name(object.colour))
        && mention.shape.is_none_or(|shape| shape == name(object.shape))
}

/// The name in the files.
pub fn name(value: impl std::fmt::Debug) -> String {
    format!("{value:?}").to_lowercase()
}

pub fn centre(object: &Object) -> [f64; 2] {
    let [x, y, width, height] = object.bbox.map(f64::from);
    [x + width / 2.0, y + height / 2.0]
}

fn is_related(a: &Object, relation: &str, others: &[&Object], side: f64) -> bool {
    let b = others[0];
    let [dx, dy] = [0, 1].map(|axis| (centre(b)[axis] - centre(a)[axis]) / side);
    let along = |along: f64, across: f64| along > 0.08 && along > 0.6 * across.abs();
    let within = |a: &Object, b: &Object| {
        (0..2).all(|axis| {
            a.bbox[axis] > b.bbox[axis] && a.bbox[axis] + a.bbox[axis + 2] < b.bbox[axis] + b.bbox[axis + 2]
        })
    };
    match relation {
        "left" => along(dx, dy),
        "right" => along(-dx, dy),
        "above" => along(dy, dx),
        "below" => along(-dy, dx),
        "inside" => within(a, b),
        "around" => within(b, a),
        "between" => {
            let c = others[1];
            let apart = |a: &Object, b: &Object| (centre(a)[0] - centre(b)[0]).hypot(centre(a)[1] - centre(b)[1]);
            // The way from b to c is hardly longer by way of a, which is nearer to both than they are to each other.
            apart(b, a) + apart(a, c) < 1.12 * apart(b, c) && apart(b, a).max(apart(a, c)) < 0.85 * apart(b, c)
        }
        other => panic!("an unknown relation: {other}"),
    }
}

fn is_at(object: &Object, place: &str, side: f64) -> bool {
    let [x, y] = centre(object).map(|x| x / side);
    let vertical = !place.contains("top") || y < 0.38;
    let vertical = vertical && (!place.contains("bottom") || y > 0.62);
    let horizontal = !place.contains("left") || x < 0.38;
    let horizontal = horizontal && (!place.contains("right") || x > 0.62);
    let middle = !place.contains("middle") || ((0.38..0.62).contains(&x) && (0.38..0.62).contains(&y));
    vertical && horizontal && middle
}
