//! Where the words of a question looked, for an answer: Grad-CAM of the answer's log-likelihood on E_mm's cross-attention
//! ([`gradcam`](crate::tasks::gradcam)).

use tch::{Kind, Tensor, no_grad};

use super::{Answerer, Told};
use crate::layers::key_bias;
use crate::tasks::gradcam::{PhraseMaps, floats, gradient_of, relevance};
use simla_train::torch::device::upload;
use simla_train::torch::guard::{TorchError, guarded};

/// Grad-CAM of what the decoder says of `answer` (pieces from `[CLS]` to `[SEP]`) to the question `ids`, about one image `[1, 3, S, S]`. The
/// logit is the answer's log-likelihood, the probability that of exactly this answer among all that could be said.
///
/// # Errors
/// What libtorch could not do.
pub fn of_answer(
    model: &Answerer,
    image: &Tensor,
    ids: &[i64],
    answer: &[i64],
    layer: usize,
) -> Result<PhraseMaps, TorchError> {
    guarded(|| {
        let (w, parts) = (&model.weights.online, &model.parts);
        let text = &parts.encoders.text;
        let ids = upload(&Tensor::from_slice(ids).unsqueeze(0), w.device());
        let mask = ids.ones_like();
        let bias = key_bias(&mask, w.kind());
        let told = Told::new([(answer, 0)].into_iter(), model.config.special.pad, w.device());
        let (context, opened) = no_grad(|| {
            let context = text.images_keys_values(w, &[&parts.encoders.image_embeds(w, image)]);
            let opened = text.open(w, &text.embed_words(w, &ids, 0.0), Some(&bias), &context, layer);
            (context, opened)
        });
        let map = opened.map.detach().set_requires_grad(true);
        let states = text.close(w, &opened, &map, Some(&bias), &context);
        let question = parts.decoder.keys_values(w, &states, Some(&mask));
        let log_p = parts.tell(w, &told, &question, 0.0).log_softmax(-1, Kind::Float);
        let likelihood = log_p.gather(1, &told.labels.unsqueeze(-1), false).sum(Kind::Float).unsqueeze(0);
        let gradient = gradient_of(&likelihood, &map);
        let tokens = relevance(&map.detach(), &gradient).get(0);
        let logit = likelihood.double_value(&[0]) as f32;
        PhraseMaps {
            logit,
            probability: logit.exp(),
            phrase: floats(&tokens.mean_dim([0].as_slice(), false, Kind::Float)),
            tokens: tokens.unbind(0).iter().map(floats).collect(),
        }
    })
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::config::{ModelConfig, Preset, SpecialIds};
    use crate::tasks::vqa::Asked;

    #[test]
    fn the_likelihood_is_what_ranking_says_and_the_last_layers_words_count() {
        let config = ModelConfig {
            image_size: 16,
            vision_depth: 1,
            text_depth: 2,
            ..ModelConfig::preset(Preset::Tiny, 20, SpecialIds::FIRST)
        };
        let special = config.special;
        let model = Answerer::new(config, Kind::Float, Device::Cpu, 4);
        let image = Tensor::rand([1, 3, 16, 16], (Kind::Float, Device::Cpu));
        let (ids, answer) = ([special.cls, 7, 8, special.sep], [special.cls, 9, 10, special.sep]);
        let question = Tensor::from_slice(&ids).unsqueeze(0);
        let asked = Asked { image: image.shallow_clone(), mask: question.ones_like(), ids: question };
        let told = Told::new([(answer.as_slice(), 0)].into_iter(), special.pad, Device::Cpu);
        let (_, logits) = no_grad(|| model.tell(&model.weights.online, &asked, &told, 0.0));
        let expected =
            logits.log_softmax(-1, Kind::Float).gather(1, &told.labels.unsqueeze(-1), false).sum(Kind::Float);
        for layer in 0..2 {
            let maps = of_answer(&model, &image, &ids, &answer, layer).unwrap();
            assert!((f64::from(maps.logit) - expected.double_value(&[])).abs() < 1e-4);
            assert_eq!((maps.tokens.len(), maps.phrase.len()), (4, 4));
            assert!(maps.tokens.iter().all(|map| map.iter().any(|&v| v > 0.0)), "every word is read: {layer}");
        }
    }
}
