//! Parameters: where they live, what they are called, how they start.
//!
//! - Two flat f32 buffers hold a whole model: `matrices` (which the optimiser decays) and `vectors` (which it does not), so
//!   that the optimiser and the moving average are one pass over memory each.
//! - A *leaf* is what the code multiplies with. It may carry several published names: `query`, `key` and `value` are rows of
//!   one leaf and hence one product.
//! - Leaves are copies in the compute type, made once a step by [`Weights::refresh`], not once a use; at f32 they *are* the
//!   buffers. No ambient autocast: what type a product runs in can be read off its operands.

mod gradients;
mod recompute;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Index;

use tch::{Device, Kind, Tensor, no_grad};
use thiserror::Error;

pub use gradients::Gradients;
use recompute::Segment;

/// A parameter of a [`Layout`], by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf(usize);

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Everywhere this value.
    Constant(f64),
    /// Normal, of this standard deviation.
    Normal(f64),
    /// Normal, redrawn beyond two standard deviations.
    TruncatedNormal(f64),
    /// Uniform within plus and minus the bound.
    Uniform(f64),
}

impl Init {
    fn draw(self, mut into: Tensor) -> Tensor {
        match self {
            Self::Constant(value) => into.fill_(value),
            Self::Normal(std) => into.normal_(0.0, std),
            Self::Uniform(bound) => into.uniform_(-bound, bound),
            Self::TruncatedNormal(std) => {
                // The inverse distribution function of a uniform draw between the two cuts.
                const CUT: f64 = 2.0;
                let edge = Tensor::from(CUT * std::f64::consts::FRAC_1_SQRT_2).erf().double_value(&[]);
                into.uniform_(-edge, edge).erfinv() * (std * std::f64::consts::SQRT_2)
            }
        }
    }
}

#[derive(Debug, Clone)]
struct LeafSpec {
    /// Published names; equal shares of the first dimension.
    names: Vec<String>,
    shape: Vec<i64>,
    init: Init,
    /// Kept in f32 whatever the compute type (the temperature).
    precise: bool,
    start: i64,
}

impl LeafSpec {
    fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    fn is_matrix(&self) -> bool {
        self.shape.len() > 1
    }

    fn share(&self) -> Vec<i64> {
        let mut shape = self.shape.clone();
        if self.names.len() > 1 {
            shape[0] /= self.names.len() as i64;
        }
        shape
    }
}

/// Leaves begin at multiples of this many elements: whole cache lines, and aligned products on a GPU.
const ALIGNMENT: i64 = 64;

/// The parameters of a model before they have memory: names, shapes, starting values and places.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    leaves: Vec<LeafSpec>,
    /// Second names: the name, and that which stands for the same values.
    aliases: Vec<(String, String)>,
    matrices: i64,
    vectors: i64,
}

impl Layout {
    /// A parameter with one name.
    pub fn leaf(&mut self, name: impl Into<String>, shape: &[i64], init: Init) -> Leaf {
        self.push(vec![name.into()], shape.to_vec(), init, false)
    }

    /// A parameter that stays in f32 whatever the compute type.
    pub fn precise(&mut self, name: impl Into<String>, shape: &[i64], init: Init) -> Leaf {
        self.push(vec![name.into()], shape.to_vec(), init, true)
    }

    /// Parameters of one shape, stacked along the first dimension in the order of their names.
    pub fn fused(&mut self, names: Vec<String>, each: &[i64], init: Init) -> Leaf {
        let mut shape = each.to_vec();
        shape[0] *= names.len() as i64;
        self.push(names, shape, init, false)
    }

    /// Files carry what is called `name` a second time, as `alias`.
    pub fn alias(&mut self, alias: String, name: String) {
        self.aliases.push((alias, name));
    }

    fn push(&mut self, names: Vec<String>, shape: Vec<i64>, init: Init, precise: bool) -> Leaf {
        let mut spec = LeafSpec { names, shape, init, precise, start: 0 };
        let end = if spec.is_matrix() { &mut self.matrices } else { &mut self.vectors };
        spec.start = *end;
        *end += (spec.numel() + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        self.leaves.push(spec);
        Leaf(self.leaves.len() - 1)
    }

    /// The shape of each parameter by its published name.
    pub fn shapes(&self) -> BTreeMap<String, Vec<i64>> {
        self.leaves.iter().flat_map(|leaf| leaf.names.iter().map(|name| (name.clone(), leaf.share()))).collect()
    }

    /// Number of trainable values.
    pub fn parameters(&self) -> i64 {
        self.leaves.iter().map(LeafSpec::numel).sum()
    }
}

/// Memory for every parameter of a layout, as two flat buffers.
#[derive(Debug)]
pub struct Flat {
    /// Those of two and more dimensions, one after the other: the ones that are decayed.
    pub matrices: Tensor,
    /// The others.
    pub vectors: Tensor,
}

impl Flat {
    /// Zeros of the layout's sizes.
    pub fn zeros(layout: &Layout, kind: Kind, device: Device) -> Self {
        Self {
            matrices: Tensor::zeros([layout.matrices], (kind, device)),
            vectors: Tensor::zeros([layout.vectors], (kind, device)),
        }
    }

    /// Both buffers, matrices first.
    pub fn buffers(&mut self) -> [&mut Tensor; 2] {
        [&mut self.matrices, &mut self.vectors]
    }

    fn shallow_clone(&self) -> Self {
        Self { matrices: self.matrices.shallow_clone(), vectors: self.vectors.shallow_clone() }
    }

    fn view(&self, leaf: &LeafSpec) -> Tensor {
        let buffer = if leaf.is_matrix() { &self.matrices } else { &self.vectors };
        buffer.narrow(0, leaf.start, leaf.numel()).view(leaf.shape.as_slice())
    }

    /// Every parameter under its published name, as views of the buffers.
    pub fn named(&self, layout: &Layout) -> BTreeMap<String, Tensor> {
        let mut named = BTreeMap::new();
        for leaf in &layout.leaves {
            let view = self.view(leaf);
            let share = leaf.share();
            for (i, name) in leaf.names.iter().enumerate() {
                let part = match leaf.names.len() {
                    1 => view.shallow_clone(),
                    _ => view.narrow(0, i as i64 * share[0], share[0]),
                };
                named.insert(name.clone(), part);
            }
        }
        for (alias, name) in &layout.aliases {
            named.insert(alias.clone(), named[name].shallow_clone());
        }
        named
    }
}

/// What is wrong with tensors that were to become parameters.
#[derive(Debug, Error, PartialEq)]
#[allow(missing_docs)] // the messages say it
pub enum WeightsError {
    #[error("tensor {0} is missing")]
    Missing(String),
    #[error("tensor {name} has shape {found:?}, expected {expected:?}")]
    Shape { name: String, found: Vec<i64>, expected: Vec<i64> },
    #[error("queue_ptr is {found}, expected a slot of a queue of {size}")]
    Pointer { found: i64, size: i64 },
    #[error("tensor {0} holds values that are not finite")]
    NotFinite(String),
}

/// The parameters of a model.
#[derive(Debug)]
pub struct Weights {
    layout: Layout,
    master: Flat,
    /// Copies in the compute type; none at f32.
    copies: Option<Flat>,
    leaves: Vec<Tensor>,
    /// The same values with other leaves (see [`Weights::twin`]).
    twin: Option<Box<Weights>>,
    trainable: bool,
    /// The graphs that stand, in the order in which they were computed; none where no layer is recomputed.
    segments: Option<RefCell<Vec<Segment>>>,
}

impl Index<Leaf> for Weights {
    type Output = Tensor;

    fn index(&self, leaf: Leaf) -> &Tensor {
        &self.leaves[leaf.0]
    }
}

impl Weights {
    /// Fresh parameters, drawn from torch's generator (seed it first). `kind` is the compute type: f32 or bf16.
    pub fn new(layout: &Layout, kind: Kind, device: Device, trainable: bool) -> Self {
        let mut weights = Self::zeros(layout, kind, device, trainable);
        no_grad(|| {
            for leaf in &weights.layout.leaves {
                // Drawn on the CPU, so that a seed means the same everywhere.
                let start = Tensor::empty(leaf.shape.as_slice(), (Kind::Float, Device::Cpu));
                let start = leaf.init.draw(start);
                weights.master.view(leaf).copy_(&start);
            }
        });
        weights.refresh();
        weights
    }

    /// Memory for parameters that will be loaded or copied.
    pub fn zeros(layout: &Layout, kind: Kind, device: Device, trainable: bool) -> Self {
        let master = Flat::zeros(layout, Kind::Float, device);
        let copies = (kind != Kind::Float).then(|| Flat::zeros(layout, kind, device));
        let leaves = layout
            .leaves
            .iter()
            .map(|leaf| {
                let source = copies.as_ref().filter(|_| !leaf.precise).unwrap_or(&master);
                source.view(leaf).detach().set_requires_grad(trainable)
            })
            .collect();
        let mut weights =
            Self { layout: layout.clone(), master, copies, leaves, twin: None, trainable, segments: None };
        if trainable && device != Device::Cpu {
            weights.twin = Some(Box::new(weights.with_other_leaves()));
        }
        weights
    }

    fn with_other_leaves(&self) -> Self {
        let again = |leaf: &Tensor| leaf.detach().set_requires_grad(true);
        Self {
            layout: self.layout.clone(),
            master: self.master.shallow_clone(),
            copies: self.copies.as_ref().map(Flat::shallow_clone),
            leaves: self.leaves.iter().map(again).collect(),
            twin: None,
            trainable: true,
            segments: None,
        }
    }

    /// The same weights, for the second use of a layer in one graph. On a GPU they are other leaves: the gradients of both uses are gathered
    /// with all others at once, where libtorch would add them leaf by leaf.
    pub fn twin(&self) -> &Self {
        match &self.twin {
            // Layers that are computed again belong to the graph's own weights.
            Some(twin) if self.segments.is_none() => twin,
            _ => self,
        }
    }

    /// Names, shapes and places of the parameters.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where they are.
    pub fn device(&self) -> Device {
        self.master.matrices.device()
    }

    /// The type in which products run.
    pub fn kind(&self) -> Kind {
        self.copies.as_ref().map_or(Kind::Float, |copies| copies.matrices.kind())
    }

    /// From now on the activations of layers are computed again in the backward pass instead of being kept.
    pub fn recompute_layers(&mut self) {
        self.segments = Some(RefCell::default());
    }

    pub(crate) fn segments(&self) -> Option<&RefCell<Vec<Segment>>> {
        self.segments.as_ref()
    }

    /// The f32 values themselves. Call [`Weights::refresh`] after changing them.
    pub fn master(&mut self) -> &mut Flat {
        &mut self.master
    }

    /// The f32 value of one parameter, as a view.
    pub fn value(&self, leaf: Leaf) -> Tensor {
        self.master.view(&self.layout.leaves[leaf.0])
    }

    /// Whether every parameter is a number. (A norm that overflows is that of no usable model either.)
    pub fn is_finite(&self) -> bool {
        let [matrices, vectors] = [&self.master.matrices, &self.master.vectors].map(Tensor::norm);
        (matrices + vectors).double_value(&[]).is_finite()
    }

    /// A number that two processes with the same bits have in common, and others hardly ever.
    pub fn sum_of_bits(&self) -> i64 {
        let buffers = [&self.master.matrices, &self.master.vectors];
        let sums = buffers.map(|buffer| buffer.view_dtype(Kind::Int).sum(Kind::Int64).int64_value(&[]));
        sums[0].wrapping_add(sums[1])
    }

    /// Brings the copies in the compute type up to date. Graphs of the values before end here.
    pub fn refresh(&mut self) {
        if let Some(segments) = &mut self.segments {
            segments.get_mut().clear();
        }
        if let Some(copies) = &mut self.copies {
            no_grad(|| {
                copies.matrices.copy_(&self.master.matrices);
                copies.vectors.copy_(&self.master.vectors);
            });
        }
    }

    /// `self = momentum x self + (1 - momentum) x online`: the moving average of 2.1. The layout must be the first part of the
    /// other's.
    pub fn average(&mut self, online: &Weights, momentum: f64) {
        no_grad(|| {
            let ours = self.master.buffers();
            for (average, value) in ours.into_iter().zip([&online.master.matrices, &online.master.vectors]) {
                let _ = average.lerp_(&value.narrow(0, 0, average.size()[0]), 1.0 - momentum);
            }
        });
        self.refresh();
    }

    /// Every parameter under its published name, in f32, as views.
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        self.master.named(&self.layout)
    }

    /// Takes every parameter from `source`, under its published name after `rename`.
    ///
    /// # Errors
    /// The first tensor that is missing, has another shape, or is not finite; nothing is changed then.
    pub fn load(
        &mut self,
        source: &BTreeMap<String, Tensor>,
        rename: impl Fn(&str) -> String,
    ) -> Result<(), WeightsError> {
        let named = self.named();
        let mut found = Vec::with_capacity(named.len());
        for (name, target) in &named {
            let name = rename(name);
            let value = source.get(&name).ok_or_else(|| WeightsError::Missing(name.clone()))?;
            check(&name, value, &target.size())?;
            found.push((target, value));
        }
        no_grad(|| {
            for (target, value) in found {
                target.shallow_clone().copy_(value);
            }
        });
        self.refresh();
        Ok(())
    }

    /// In their order, those of the twin after them.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &Tensor> {
        debug_assert!(self.trainable, "gradients of weights that do not train");
        self.leaves.iter().chain(self.twin.iter().flat_map(|twin| &twin.leaves))
    }
}

/// Refuses a tensor of another shape, or with values that would poison a model.
///
/// # Errors
/// [`WeightsError::Shape`] or [`WeightsError::NotFinite`].
pub fn check(name: &str, value: &Tensor, expected: &[i64]) -> Result<(), WeightsError> {
    if value.size() != expected {
        return Err(WeightsError::Shape { name: name.into(), found: value.size(), expected: expected.into() });
    }
    if value.is_floating_point() && value.isfinite().all().int64_value(&[]) == 0 {
        return Err(WeightsError::NotFinite(name.into()));
    }
    Ok(())
}
