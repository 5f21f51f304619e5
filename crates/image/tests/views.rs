//! Training views: repeatable, and of what the recipe says.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use simla_image::{Recipe, Scratch, halve};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    std::fs::read(folder.join(name)).unwrap()
}

fn draw(recipe: &Recipe, bytes: &[u8], seed: u64, scratch: &mut Scratch) -> (Vec<u8>, Vec<u8>) {
    let area = (recipe.side * recipe.side * 3) as usize;
    let (mut view, mut half) = (vec![0; area], vec![0; area / 4]);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    recipe.draw(bytes, &mut rng, scratch, &mut view, &mut half).unwrap();
    (view, half)
}

#[test]
fn a_view_depends_on_the_seed_alone() {
    let recipe = Recipe { side: 64, ..Recipe::default() };
    let names = ["ycbcr-420.jpg", "progressive.jpg", "rgba.png", "lossy.webp", "turned-7.jpg"];
    let mut used = Scratch::default();
    for seed in 0..10 {
        for name in names {
            let bytes = fixture(name);
            let first = draw(&recipe, &bytes, seed, &mut Scratch::default());
            assert!(first == draw(&recipe, &bytes, seed, &mut used), "{name}: working memory shows");
            assert!(first != draw(&recipe, &bytes, seed + 1000, &mut used), "{name}: the seed does not show");
        }
    }
}

#[test]
fn the_half_is_the_view_halved() {
    let recipe = Recipe { side: 64, ..Recipe::default() };
    for seed in 0..5 {
        let (view, half) = draw(&recipe, &fixture("ycbcr-420.jpg"), seed, &mut Scratch::default());
        let mut expected = vec![0; half.len()];
        halve(&view, 64, &mut expected);
        assert!(half == expected);
    }
}

/// The whole picture, not augmented, as the training path makes it.
fn whole(side: u32) -> Recipe {
    Recipe {
        side,
        scale: (1.0, 1.0),
        ratio: (75.0 / 53.0, 75.0 / 53.0),
        flip: false,
        augment: false,
        ..Recipe::default()
    }
}

#[test]
fn a_crop_of_everything_is_the_evaluation_view() {
    for (name, recipe) in [("ycbcr-420.jpg", whole(64)), ("rgb.png", whole(64)), ("lossy.webp", whole(64))] {
        let bytes = fixture(name);
        let (view, _) = draw(&recipe, &bytes, 0, &mut Scratch::default());
        let mut expected = vec![0; 64 * 64 * 3];
        simla_image::evaluation_view(&bytes, 64, &recipe.limits, &mut expected).unwrap();
        assert!(view == expected, "{name}");
    }
}

#[test]
fn a_mirrored_view_is_the_mirror_image() {
    let plain = whole(32);
    let flipping = Recipe { flip: true, ..plain.clone() };
    let bytes = fixture("turned-6.jpg");
    let turned = Recipe { ratio: (53.0 / 75.0, 53.0 / 75.0), ..plain };
    let flipping = Recipe { ratio: turned.ratio, ..flipping };
    let (straight, _) = draw(&turned, &bytes, 0, &mut Scratch::default());
    let mirrored: Vec<u8> = straight
        .chunks_exact(32 * 3)
        .flat_map(|row| row.chunks_exact(3).rev().flatten().copied().collect::<Vec<u8>>())
        .collect();
    let views: Vec<Vec<u8>> = (0..20).map(|seed| draw(&flipping, &bytes, seed, &mut Scratch::default()).0).collect();
    let (same, other): (Vec<_>, Vec<_>) = views.iter().partition(|view| **view == straight);
    assert!(same.len() > 3 && other.len() > 3);
    assert!(other.iter().all(|view| **view == mirrored));
}
