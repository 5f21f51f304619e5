//! Gradients of a model's parameters, summed over the losses and batches of a step.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor, no_grad};

use super::recompute::Segment;
use super::{Flat, Layout, Weights};
use crate::seed::draw_seed;

/// Adds a gradient to a sum of gradients. On the CPU by rows: torch makes a copy of a gradient of another type in the sum's first, and
/// that of some rows stays in the cache.
fn accumulate(sum: &Tensor, gradient: &Tensor) {
    const ELEMENTS: i64 = 1 << 17;
    let rows = sum.size().first().copied().unwrap_or(1);
    if sum.device() != Device::Cpu || gradient.kind() == sum.kind() || rows == 1 {
        let _ = sum.shallow_clone().g_add_(gradient);
        return;
    }
    let at_once = (ELEMENTS * rows / sum.numel() as i64).max(1);
    for (mut sum, gradient) in sum.split(at_once, 0).into_iter().zip(gradient.split(at_once, 0)) {
        let _ = sum.g_add_(&gradient);
    }
}

/// Gradients of every parameter, in f32, laid out as the parameters are.
#[derive(Debug)]
pub struct Gradients {
    flat: Flat,
    layout: Layout,
    /// Which leaves hold a gradient of the present step.
    touched: Vec<bool>,
}

impl Gradients {
    pub fn new(weights: &Weights) -> Self {
        Self {
            flat: Flat::zeros(&weights.layout, Kind::Float, weights.device()),
            touched: vec![false; weights.layout.leaves.len()],
            layout: weights.layout.clone(),
        }
    }

    /// Adds the gradient of `loss`, and frees its graph.
    pub fn backward(&mut self, loss: &Tensor, weights: &Weights) {
        let seed = draw_seed();
        let mut segments = weights.segments().map(RefCell::take).unwrap_or_default();
        let mut of_others = Vec::new();
        self.add(loss, weights, &mut segments);
        while let Some(segment) = segments.pop() {
            if segment.reached() {
                self.add(&segment.loss(weights), weights, &mut segments);
            } else {
                of_others.insert(0, segment);
            }
        }
        if let Some(segments) = weights.segments() {
            segments.replace(of_others);
        }
        tch::manual_seed(seed);
    }

    /// Adds what of the gradient of `loss` lies between it and the leaves of the segments `before` it.
    fn add(&mut self, loss: &Tensor, weights: &Weights, before: &mut [Segment]) {
        let leaves = before.iter().flat_map(|segment| &segment.leaves);
        let inputs: Vec<&Tensor> = weights.leaves().iter().chain(leaves).collect();
        let mut gradients = Tensor::run_backward(&[loss], &inputs, false, false).into_iter();
        no_grad(|| {
            for ((leaf, touched), gradient) in self.layout.leaves.iter().zip(&mut self.touched).zip(gradients.by_ref())
            {
                if !gradient.defined() {
                    continue;
                }
                let mut sum = self.flat.view(leaf);
                if std::mem::replace(touched, true) {
                    accumulate(&sum, &gradient);
                } else {
                    sum.copy_(&gradient);
                }
            }
            let sums = before.iter_mut().flat_map(|segment| &mut segment.gradients);
            for (sum, gradient) in sums.zip(gradients).filter(|(_, g)| g.defined()) {
                *sum = Some(match sum.take() {
                    Some(sum) => sum + gradient,
                    None => gradient,
                });
            }
        });
    }

    /// Forgets the gradients: the next [`Gradients::backward`] starts a sum anew.
    pub fn clear(&mut self) {
        self.touched.fill(false);
    }

    /// The sums, with zeros where no loss reached a parameter.
    pub fn flat(&mut self) -> &mut Flat {
        no_grad(|| {
            for (leaf, touched) in self.layout.leaves.iter().zip(&mut self.touched) {
                if !std::mem::replace(touched, true) {
                    let _ = self.flat.view(leaf).zero_();
                }
            }
        });
        &mut self.flat
    }

    /// Every gradient under its parameter's published name.
    pub fn named(&mut self) -> BTreeMap<String, Tensor> {
        self.flat();
        self.flat.named(&self.layout)
    }
}
