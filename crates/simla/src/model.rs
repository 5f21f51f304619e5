//! The whole model of 2.1: encoders, projections and heads, their momentum copy, and the queues.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use crate::config::ModelConfig;
use crate::layers::Linear;
use crate::objectives::psl;
use crate::queue::Queues;
use crate::text::{Depth, KeysValues, Rows, TextEncoder, WordHead};
use crate::vision::VisionEncoder;
use simla_train::weights::{Init, Layout, Leaf, Weights, WeightsError};

/// What has a momentum copy: both encoders, both projections, the MIM and concept heads. The online and the momentum model are
/// this one type, over different [`Weights`].
#[derive(Debug)]
pub struct Towers {
    /// E_v.
    pub vision: VisionEncoder,
    /// From its `[CLS]`, width D, to the contrast's E.
    pub vision_proj: Linear,
    /// E_l and E_mm, which are one.
    pub text: TextEncoder,
    /// Guesses masked words (MLM).
    pub word_head: WordHead,
    /// From E_l's `[CLS]` to E.
    pub text_proj: Linear,
    /// From each patch query to the visual vocabulary (MIM).
    pub mim_head: Linear,
    /// From the scaled image feature, E, to the vocabulary (PSL).
    pub concept_head: Linear,
    /// [`ModelConfig::concept_scale`].
    concept_scale: f64,
}

impl Towers {
    fn new(layout: &mut Layout, c: &ModelConfig) -> Self {
        let vision = VisionEncoder::new(layout, "visual_encoder", c);
        let vision_proj = Linear::new(layout, "vision_proj", c.vision_width, c.embed_dim);
        let text = TextEncoder::new(layout, "text_encoder.bert", Depth::Single, c);
        Self {
            vision,
            vision_proj,
            word_head: WordHead::new(layout, "text_encoder.cls.predictions", &text, c),
            text,
            text_proj: Linear::new(layout, "text_proj", c.text_width, c.embed_dim),
            mim_head: Linear::new(layout, "mim_head", c.vision_width, c.visual_vocab),
            concept_head: Linear::new(layout, "concept_head", c.embed_dim, c.vocab_size),
            concept_scale: c.concept_scale,
        }
    }

    /// The contrastive feature of images, from E_v's output `[B, 1 + P, D]`: `[B, E]`, of length one, in f32.
    pub fn image_feat(&self, w: &Weights, image_embeds: &Tensor) -> Tensor {
        normalize(&self.vision_proj.forward(w, &image_embeds.select(1, 0)))
    }

    /// The contrastive feature of captions, from E_l's output, [CLS] first: `[B, E]`, of length one, in f32.
    pub fn text_feat(&self, w: &Weights, text_embeds: &Tensor) -> Tensor {
        normalize(&self.text_proj.forward(w, &text_embeds.select(1, 0)))
    }

    /// E_l over embedded words: the rows asked for, `[B, rows, D]`.
    pub fn text_embeds(&self, w: &Weights, words: &Tensor, bias: &Tensor, rows: Rows, p: f64) -> Tensor {
        self.text.encode(w, words, rows, Some(bias), None, p)
    }

    /// Keys and values of images for E_mm, every layer.
    pub fn image_context(&self, w: &Weights, image_embeds: &Tensor) -> KeysValues {
        self.text.keys_values(w, image_embeds, None)
    }

    /// Logits of concepts from the scaled image feature `[B, E]`, in f32: `[B, vocab]`.
    pub fn concept_logits(&self, w: &Weights, image_feat: &Tensor) -> Tensor {
        self.concept_head.forward(w, &(image_feat * self.concept_scale).to_kind(w.kind())).to_kind(Kind::Float)
    }
}

pub(crate) fn normalize(x: &Tensor) -> Tensor {
    const EPS: f64 = 1e-12;
    let x = x.to_kind(Kind::Float);
    let norm = x.norm_scalaropt_dim(2.0, [-1].as_slice(), true).clamp_min(EPS);
    x / norm
}

/// SIMLA: the online model, the momentum model and the queues.
#[derive(Debug)]
pub struct Simla {
    /// Its sizes.
    pub config: ModelConfig,
    /// What online and momentum model have in common.
    pub towers: Towers,
    /// From E_mm's `[CLS]` to match or not; online alone.
    pub itm_head: Linear,
    temp: Leaf,
    /// Weights that train.
    pub online: Weights,
    /// Their average, of the towers alone.
    pub momentum: Weights,
    /// Momentum features of earlier batches.
    pub queues: Queues,
    /// What PSL takes for a keyword.
    pub psl: psl::Rule,
}

/// A model before its parameters have memory.
struct Parts {
    layout: Layout,
    /// The first part of the layout: what has a momentum copy.
    averaged: Layout,
    towers: Towers,
    itm_head: Linear,
    temp: Leaf,
}

impl Parts {
    fn new(config: &ModelConfig) -> Self {
        let mut layout = Layout::default();
        let towers = Towers::new(&mut layout, config);
        let averaged = layout.clone();
        let itm_head = Linear::new(&mut layout, "itm_head", config.text_width, 2);
        let temp = layout.precise("temp", &[], Init::Constant(config.temperature));
        Self { layout, averaged, towers, itm_head, temp }
    }
}

/// The temperature is kept in here (2.1).
const TEMPERATURES: (f64, f64) = (0.001, 0.5);

impl Simla {
    /// A fresh model that computes in `kind` (f32 or bf16). The start is a function of `seed` alone.
    pub fn new(config: ModelConfig, kind: Kind, device: Device, seed: i64) -> Self {
        tch::manual_seed(seed);
        let parts = Parts::new(&config);
        let online = Weights::new(&parts.layout, kind, device, true);
        let mut momentum = Weights::zeros(&parts.averaged, kind, device, false);
        momentum.average(&online, 0.0);
        let queues = Queues::new(config.embed_dim, config.queue_size, device);
        Self::of(config, parts, online, momentum, queues)
    }

    /// Memory for a model that will be loaded and used, but not trained: without what only training needs, a momentum model and
    /// queues.
    pub fn for_use(config: ModelConfig, kind: Kind, device: Device) -> Self {
        let parts = Parts::new(&config);
        let online = Weights::zeros(&parts.layout, kind, device, true);
        let momentum = Weights::zeros(&Layout::default(), kind, device, false);
        let queues = Queues::new(config.embed_dim, 0, device);
        Self::of(config, parts, online, momentum, queues)
    }

    fn of(config: ModelConfig, parts: Parts, online: Weights, momentum: Weights, queues: Queues) -> Self {
        let Parts { towers, itm_head, temp, .. } = parts;
        Self { config, towers, itm_head, temp, online, momentum, queues, psl: psl::Rule::default() }
    }

    /// The parameters of a model of these sizes, before they have memory.
    pub fn layout(config: &ModelConfig) -> Layout {
        Parts::new(config).layout
    }

    /// Starts the concept head's biases, of online and momentum model, at these log-odds of each word (see [`psl::prior`]).
    ///
    /// # Errors
    /// If there are more or fewer of them than words.
    pub fn expect_concepts(&mut self, log_odds: &[f32]) -> Result<(), WeightsError> {
        let mut all = self.online.named();
        all.insert("concept_head.bias".into(), Tensor::from_slice(log_odds));
        self.online.load(&all, str::to_owned)?;
        self.momentum.average(&self.online, 0.0);
        Ok(())
    }

    /// The temperature, as a scalar that learns.
    pub fn temp(&self) -> &Tensor {
        &self.online[self.temp]
    }

    /// Before a step: the temperature is brought into its range, the momentum model moves towards the online one.
    pub fn begin_step(&mut self) {
        no_grad(|| {
            let _ = self.online.value(self.temp).clamp_(TEMPERATURES.0, TEMPERATURES.1);
        });
        self.momentum.average(&self.online, self.config.momentum);
    }

    /// Every tensor of a checkpoint under the authors' names (docs/paper.md, 'Checkpoint layout'), as views in f32.
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        let mut named = self.online.named();
        named.extend(self.momentum.named().into_iter().map(|(name, tensor)| (momentum_name(&name), tensor)));
        named.extend(self.queues.named());
        named
    }

    /// Takes all of [`Simla::named`] from `source`.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape or not finite.
    pub fn load(&mut self, source: &BTreeMap<String, Tensor>) -> Result<(), WeightsError> {
        self.queues.load(source)?;
        self.online.load(source, str::to_owned)?;
        self.momentum.load(source, momentum_name)
    }
}

/// `visual_encoder.norm.bias` to `visual_encoder_m.norm.bias`.
pub fn momentum_name(name: &str) -> String {
    match name.split_once('.') {
        Some((top, rest)) => format!("{top}_m.{rest}"),
        None => format!("{name}_m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Preset, SpecialIds};

    fn tiny(kind: Kind) -> Simla {
        let config = ModelConfig {
            vision_depth: 1,
            text_depth: 2,
            queue_size: 8,
            ..ModelConfig::preset(Preset::Tiny, 50, SpecialIds::FIRST)
        };
        Simla::new(config, kind, Device::Cpu, 3)
    }

    #[test]
    fn the_momentum_model_starts_as_a_copy_and_moves_by_its_share() {
        let mut model = tiny(Kind::Float);
        let name = "visual_encoder.pos_embed";
        let copy = |model: &Simla, name: &str| model.named()[name].copy();
        assert!(copy(&model, name).equal(&copy(&model, "visual_encoder_m.pos_embed")));
        let before = copy(&model, name);
        no_grad(|| {
            let _ = model.online.named().remove(name).unwrap().g_add_scalar_(1.0);
        });
        model.begin_step();
        let moved = (copy(&model, "visual_encoder_m.pos_embed") - before).mean(Kind::Double).double_value(&[]);
        assert!((moved - (1.0 - model.config.momentum)).abs() < 1e-6, "{moved}");
    }

    #[test]
    fn no_parameter_of_the_momentum_model_takes_a_gradient() {
        let model = tiny(Kind::Float);
        let image = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        assert!(model.towers.vision.forward(&model.online, &image, None).requires_grad());
        assert!(!model.towers.vision.forward(&model.momentum, &image, None).requires_grad());
    }

    #[test]
    fn a_model_to_be_used_is_the_online_model_alone() {
        let trained = tiny(Kind::Float);
        let image = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
        let embeds = |model: &Simla| model.towers.vision.forward(&model.online, &image, None);
        let mut used = Simla::for_use(trained.config.clone(), Kind::Float, Device::Cpu);
        used.load(&trained.named()).unwrap();
        assert!(embeds(&used).equal(&embeds(&trained)));
        let names = |named: BTreeMap<String, Tensor>| named.into_keys().collect::<Vec<_>>();
        assert_eq!(names(used.named()), names(trained.online.named()));
        assert_eq!(used.momentum.master().matrices.numel(), 0);

        let mut lacking = trained.online.named();
        lacking.remove("visual_encoder.pos_embed");
        let missing = WeightsError::Missing("visual_encoder.pos_embed".into());
        assert_eq!(used.load(&lacking), Err(missing));
    }

    #[test]
    fn concepts_start_at_what_is_expected_of_them() {
        let mut model = tiny(Kind::Float);
        let odds: Vec<f32> = (0..50).map(|word| word as f32 / 10.0 - 4.0).collect();
        model.expect_concepts(&odds).unwrap();
        let nothing_seen = Tensor::zeros([1, model.config.embed_dim], (Kind::Float, Device::Cpu));
        for weights in [&model.online, &model.momentum] {
            let logits = model.towers.concept_logits(weights, &nothing_seen);
            assert_eq!(Vec::<f32>::try_from(logits.detach().get(0)).unwrap(), odds);
        }
        assert!(model.expect_concepts(&odds[1..]).is_err());
    }

    #[test]
    fn the_temperature_is_brought_into_its_range() {
        let mut model = tiny(Kind::BFloat16);
        no_grad(|| {
            let _ = model.online.named().remove("temp").unwrap().fill_(7.0);
        });
        model.begin_step();
        assert_eq!((model.temp().double_value(&[]), model.temp().kind()), (0.5, Kind::Float));
    }

    #[test]
    fn what_was_named_is_loaded_and_another_shape_is_refused() {
        let source = tiny(Kind::Float);
        let mut named = source.named();
        let mut target = tiny(Kind::Float);
        no_grad(|| {
            let _ = target.online.master().matrices.zero_();
        });
        target.load(&named).unwrap();
        assert!(target.online.master().matrices.equal(&{ source }.online.master().matrices));
        named.insert("itm_head.weight".into(), Tensor::zeros([2, 5], (Kind::Float, Device::Cpu)));
        let error = target.load(&named).unwrap_err().to_string();
        assert_eq!(error, "tensor itm_head.weight has shape [2, 5], expected [2, 128]");
        named.remove("temp");
        named.remove("itm_head.weight");
        assert!(target.load(&named).unwrap_err().to_string().contains("missing"));
    }
}
