//! Captions and phrases are true, complete and tell scenes apart.

mod checker;

use std::collections::HashSet;
use std::sync::LazyLock;

use checker::{describes, holds, read};
use simla_scenes::{Background, CAPTIONS, Colour, MAX_WORDS, Scene, Shape, Size, Split, Texture, generate};

const SIDE: u32 = 64;

static TRAIN: LazyLock<Vec<Scene>> = LazyLock::new(|| scenes(Split::Train));
static TEST: LazyLock<Vec<Scene>> = LazyLock::new(|| scenes(Split::Test));

fn scenes(split: Split) -> Vec<Scene> {
    (0..2000).map(|index| generate(7, index, split, SIDE)).collect()
}

#[test]
fn every_caption_is_true_of_its_scene() {
    for scene in TRAIN.iter().chain(TEST.iter()) {
        for caption in &scene.captions {
            assert!(holds(&read(caption), scene), "{caption:?}\n{:#?}", scene.objects);
        }
    }
}

#[test]
fn the_checker_finds_false_captions() {
    // Each caption with one word changed; the change makes it false unless another object happens to fit.
    let opposites = [
        ("small", "large"),
        ("red", "blue"),
        ("star", "heart"),
        ("left", "right"),
        ("above", "below"),
        ("striped", "dotted"),
    ];
    for (word, other) in opposites {
        let mut checked = 0;
        let mut found = 0;
        for scene in TRAIN.iter() {
            for caption in scene.captions.iter().filter(|caption| caption.split(' ').any(|part| part == word)) {
                if caption.contains(other) || caption.contains("corner") {
                    continue;
                }
                let false_caption = caption.split(' ').map(|part| if part == word { other } else { part });
                checked += 1;
                found += u32::from(!holds(&read(&false_caption.collect::<Vec<_>>().join(" ")), scene));
            }
        }
        assert!(checked > 30, "{word} occurs {checked} times");
        assert!(f64::from(found) > 0.97 * f64::from(checked), "{word} -> {other}: {found} of {checked} found");
    }
}

#[test]
fn captions_are_different_short_and_the_first_three_complete() {
    for scene in TEST.iter() {
        assert_eq!(scene.captions.len(), CAPTIONS);
        assert_eq!(scene.captions.iter().collect::<HashSet<_>>().len(), CAPTIONS, "{:?}", scene.captions);
        for caption in &scene.captions {
            assert!(caption.split_whitespace().count() <= MAX_WORDS, "{caption}");
        }
        for caption in &scene.captions[..3] {
            let claims = read(caption);
            assert_eq!(claims.mentions.len(), scene.objects.len(), "{caption}");
            for object in &scene.objects {
                let complete = claims.mentions.iter().any(|mention| {
                    let textured = mention.texture.is_some() || object.texture == Texture::Plain;
                    let said = mention.size.is_some() && mention.colour.is_some() && mention.shape.is_some();
                    describes(mention, object) && said && textured
                });
                assert!(complete, "{caption:?} leaves out {object:?}");
            }
        }
    }
}

#[test]
fn few_captions_fit_another_scene() {
    let scenes = &TEST[..200];
    let ambiguous = |kinds: std::ops::Range<usize>| {
        let captions = || scenes.iter().flat_map(|scene| &scene.captions[kinds.clone()]);
        let several = captions()
            .map(|caption| read(caption))
            .filter(|claims| scenes.iter().filter(|scene| holds(claims, scene)).count() > 1);
        let share = several.count() as f64 / captions().count() as f64;
        println!("captions {kinds:?} that fit several of 200 scenes: {:.1}%", 100.0 * share);
        share
    };
    assert!(ambiguous(0..3) < 0.03);
    assert!(ambiguous(3..5) < 0.2);
}

#[test]
fn a_phrase_names_one_object() {
    for scene in TRAIN.iter().chain(TEST.iter()) {
        for object in &scene.objects {
            let mention = read(&object.phrase).mentions.remove(0);
            assert!(describes(&mention, object), "{:?}: {object:?}", object.phrase);
            let fitting = scene.objects.iter().filter(|other| describes(&mention, other)).count();
            assert_eq!(fitting, 1, "{:?} in {:#?}", object.phrase, scene.objects);
        }
    }
}

#[test]
fn training_sees_every_word_but_not_every_combination() {
    let words = |caption: &String| caption.replace([',', ':'], "").split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (train, test) = (&*TRAIN, &*TEST);
    let seen: HashSet<String> = train.iter().flat_map(|scene| scene.captions.iter().flat_map(words)).collect();
    for word in test.iter().flat_map(|scene| scene.captions.iter().flat_map(words)) {
        assert!(seen.contains(&word), "training never sees {word:?}");
    }
    let combinations = |scenes: &[Scene]| -> HashSet<(Shape, Colour, Texture)> {
        scenes
            .iter()
            .flat_map(|scene| &scene.objects)
            .map(|object| (object.shape, object.colour, object.texture))
            .collect()
    };
    let (train_combinations, test_combinations) = (combinations(train), combinations(test));
    assert_eq!(train_combinations.len(), 360);
    assert_eq!(test_combinations.len(), 400);
    assert!(train.iter().all(|scene| !scene.is_compositional()));
    for object in test.iter().flat_map(|scene| &scene.objects) {
        let seen = train_combinations.contains(&(object.shape, object.colour, object.texture));
        assert_eq!(object.is_unseen(), !seen, "{object:?}");
    }
    let share = test.iter().filter(|scene| scene.is_compositional()).count() as f64 / test.len() as f64;
    assert!((0.45..0.55).contains(&share), "{share} of the test scenes are compositional");
}

#[test]
fn attributes_are_spread() {
    let train = &*TRAIN;
    let objects = || train.iter().flat_map(|scene| &scene.objects);
    let all = objects().count() as f64;
    let share =
        |holds: &dyn Fn(&simla_scenes::Object) -> bool| objects().filter(|object| holds(object)).count() as f64 / all;
    for &shape in Shape::ALL {
        let share = share(&|object| object.shape == shape);
        assert!((0.07..0.15).contains(&share), "{shape:?}: {share}");
    }
    for &colour in Colour::ALL {
        let share = share(&|object| object.colour == colour);
        assert!((0.07..0.13).contains(&share), "{colour:?}: {share}");
    }
    for &texture in Texture::ALL {
        let share = share(&|object| object.texture == texture);
        assert!((0.21..0.29).contains(&share), "{texture:?}: {share}");
    }
    for &size in Size::ALL {
        let share = share(&|object| object.size == size);
        assert!((0.3..0.7).contains(&share), "{size:?}: {share}");
    }
    for &background in Background::ALL {
        let share = train.iter().filter(|scene| scene.background == background).count() as f64 / train.len() as f64;
        assert!((0.03..0.2).contains(&share), "{background:?}: {share}");
    }
    for count in 1..=4 {
        let share = train.iter().filter(|scene| scene.objects.len() == count).count() as f64 / train.len() as f64;
        assert!((0.07..0.5).contains(&share), "{count} objects: {share}");
    }
    for phrase in ["inside", "around", "between", "left of", "right of", "above", "below", "under"] {
        let scenes = train.iter().filter(|scene| scene.captions.iter().any(|caption| caption.contains(phrase))).count();
        assert!(scenes > 15, "{phrase:?} is said of {scenes} scenes");
    }
}
