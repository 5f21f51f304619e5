//! What the model would put in: masked words, masked patches through the tokenizer's decoder, and recommended keywords (figure 5).

use simla_data::{Batch, Pair, Vocabulary};
use tch::{Device, Kind, Tensor, no_grad};

use crate::dvae::Dvae;
use crate::inputs::tokenizer_pixels;
use crate::model::Simla;
use crate::objectives::Objectives;
use crate::step::Inputs;
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};

/// A word with the probability that the model gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Guess {
    /// A word piece.
    pub word: String,
    /// From 0 to 1.
    pub probability: f32,
}

/// One pair as the model sees it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its pieces as text.
    pub caption: String,
    /// The caption with its masked words.
    pub masked: String,
    /// Each masked word and the model's guess.
    pub words: Vec<(String, Guess)>,
    /// Recommended concepts, best first.
    pub keywords: Vec<Guess>,
    /// None without a tokenizer that decodes.
    pub decoded: Option<Decoded>,
}

/// A view through the tokenizer's decoder: RGB bytes at the tokenizer's side.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// From the tokens of the whole view: no filling can be better.
    pub original: Vec<u8>,
    /// With the model's tokens in place of the masked patches'.
    pub filled: Vec<u8>,
}

/// The model's view of every pair of `batch`, with the `keywords` best concepts. Without dropout. Patches are masked in `batch`
/// where there is a tokenizer.
///
/// # Errors
/// What libtorch could not do.
pub fn samples(
    model: &mut Simla,
    dvae: Option<&Dvae>,
    vocabulary: &Vocabulary,
    batch: &Batch<Pair>,
    keywords: i64,
) -> Result<Vec<Sample>, TorchError> {
    let dropout = std::mem::take(&mut model.config.dropout);
    let samples = guarded(|| no_grad(|| look(model, dvae, vocabulary, batch, keywords)));
    model.config.dropout = dropout;
    samples
}

fn look(
    model: &Simla,
    dvae: Option<&Dvae>,
    vocabulary: &Vocabulary,
    batch: &Batch<Pair>,
    keywords: i64,
) -> Vec<Sample> {
    let device = model.online.device();
    let tokens = dvae.map(|dvae| dvae.tokens(&tokenizer_pixels(batch, dvae.side_of(model.config.grid()), device)));
    let b = Inputs::new(batch, tokens.as_ref(), 0, model.config.special.pad, device);
    let (_, seen) = model.align(&b, 0.0, Objectives { itm: false, ..Objectives::default() });
    let logits = seen.mlm_logits.expect("MLM takes part");
    let (probability, guess) = logits.softmax(-1, Kind::Float).max_dim(-1, false);
    let (probability, guess) = (floats(&probability), integers(&guess));
    let concepts = seen.keywords.expect("PSL takes part").logits.sigmoid();
    let (scores, ids) = ranked_words(&concepts, vocabulary, keywords);

    let decoded = dvae.zip(tokens).and_then(|(dvae, tokens)| {
        let predicted = model.reconstruct(&b, 0.0).1.argmax(-1, false);
        let filled = tokens.masked_scatter(&b.patches.hidden, &predicted);
        pixels(dvae, &tokens).zip(pixels(dvae, &filled))
    });

    let mut next = 0;
    (batch.rows.iter().enumerate())
        .map(|(i, pair)| {
            let truths = pair.mlm_labels.iter().filter(|&&label| label >= 0);
            let words = truths
                .map(|&truth| {
                    let guessed =
                        Guess { word: vocabulary.word(guess[next]).to_owned(), probability: probability[next] };
                    next += 1;
                    (vocabulary.word(truth).to_owned(), guessed)
                })
                .collect();
            let hidden: Vec<i64> = (pair.ids.iter())
                .zip(&pair.mlm_labels)
                .map(|(&id, &label)| if label >= 0 { model.config.special.mask } else { id })
                .collect();
            let concept =
                |(&id, &probability): (&i64, &f32)| Guess { word: vocabulary.word(id).to_owned(), probability };
            Sample {
                caption: vocabulary.decode(&pair.ids),
                masked: with_gaps(vocabulary, &hidden, model.config.special.mask),
                words,
                keywords: ids[i].iter().zip(&scores[i]).map(concept).collect(),
                decoded: decoded
                    .as_ref()
                    .map(|(original, filled)| Decoded { original: original[i].clone(), filled: filled[i].clone() }),
            }
        })
        .collect()
}

/// The caption with `___` for masked words.
fn with_gaps(vocabulary: &Vocabulary, ids: &[i64], mask: i64) -> String {
    let mut text = String::new();
    for part in ids.split_inclusive(|&id| id == mask) {
        let (words, gap) = match part.split_last() {
            Some((&last, words)) if last == mask => (words, " ___"),
            _ => (part, ""),
        };
        text += &format!(" {}{gap}", vocabulary.decode(words));
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The best `k` content words of each row of `scores` `[B, vocab]`: scores and ids.
pub fn ranked_words(scores: &Tensor, vocabulary: &Vocabulary, k: i64) -> (Vec<Vec<f32>>, Vec<Vec<i64>>) {
    let content = upload(&Tensor::from_slice(vocabulary.content_words()), scores.device());
    let (best, at) = scores.index_select(1, &content).topk(k.min(content.numel() as i64), 1, true, true);
    let ids = content.index_select(0, &at.flatten(0, 1)).view_as(&at);
    let scores = Vec::try_from(best.to_kind(Kind::Float).to(Device::Cpu)).expect("rows of floats");
    (scores, Vec::try_from(ids.to(Device::Cpu)).expect("rows of integers"))
}

/// Tokens `[B, P]` as RGB bytes of each picture.
fn pixels(dvae: &Dvae, tokens: &Tensor) -> Option<Vec<Vec<u8>>> {
    let bytes = to_bytes(&dvae.decode_tokens(tokens)?);
    Some(
        (0..bytes.size()[0]).map(|i| Vec::try_from(bytes.get(i).contiguous().flatten(0, -1)).expect("bytes")).collect(),
    )
}

/// Pixels as the tokenizer knows them, `[B, 3, H, W]` in 0.1 to 0.9, as bytes `[B, H, W, 3]`.
pub fn to_bytes(pixels: &Tensor) -> Tensor {
    let p = (pixels - 0.1) * (255.0 / 0.8);
    p.round().clamp(0.0, 255.0).to_kind(Kind::Uint8).permute([0, 2, 3, 1]).to(Device::Cpu)
}

fn floats(x: &Tensor) -> Vec<f32> {
    Vec::try_from(x.to_kind(Kind::Float)).expect("floats")
}

fn integers(x: &Tensor) -> Vec<i64> {
    Vec::try_from(x).expect("integers")
}
