//! The two encoders alone, as fine-tuned models have them (3.1): E_v, which sees the whole image, and BERT without the head of words.

use tch::Tensor;

use crate::config::ModelConfig;
use crate::layers::key_bias;
use crate::text::{Depth, Reading, Rows, TextEncoder};
use crate::vision::VisionEncoder;
use simla_train::weights::{Layout, Weights};

/// E_v and BERT under the names of the authors' fine-tuned checkpoints, `bert.` left out.
#[derive(Debug)]
pub struct Encoders {
    /// E_v.
    pub vision: VisionEncoder,
    /// E_l and E_mm, which are one.
    pub text: TextEncoder,
    depth: Depth,
    text_depth: i64,
}

impl Encoders {
    /// Their places in `layout`, with text layers as `depth` says.
    pub fn new(layout: &mut Layout, depth: Depth, c: &ModelConfig) -> Self {
        Self {
            vision: VisionEncoder::unmasked(layout, "visual_encoder", c),
            text: TextEncoder::new(layout, "text_encoder", depth, c),
            depth,
            text_depth: c.text_depth,
        }
    }

    /// E_v of images `[B, 3, S, S]`: `[B, 1 + P, D]`.
    pub fn image_embeds(&self, w: &Weights, images: &Tensor) -> Tensor {
        self.vision.forward(w, &images.to_kind(w.kind()), None)
    }

    /// E_mm of sentences `[B, L]` (`mask` is 1 where a piece is) and of their images' embeddings, as many as the [`Depth`] reads:
    /// `[B, rows, D]`.
    pub fn states(&self, w: &Weights, ids: &Tensor, mask: &Tensor, images: &[&Tensor], rows: Rows, p: f64) -> Tensor {
        let words = self.text.embed_words(w, ids, p);
        let context = self.text.images_keys_values(w, images);
        self.text.encode(w, &words, rows, Some(&key_bias(mask, w.kind())), Some(Reading::own(&context)), p)
    }

    /// The pre-trained parameter that `name` starts from; none where it belongs to a head.
    pub fn origin(&self, name: &str) -> Option<String> {
        if name.starts_with("visual_encoder.") {
            return Some(name.to_owned());
        }
        let rest = name.strip_prefix("text_encoder.")?;
        let Some((number, part)) = rest.strip_prefix("encoder.layer.").and_then(|layer| layer.split_once('.')) else {
            return Some(format!("text_encoder.bert.{rest}"));
        };
        let layer = self.depth.pretrained(number.parse().ok()?, self.text_depth);
        Some(format!("text_encoder.bert.encoder.layer.{layer}.{part}"))
    }
}
