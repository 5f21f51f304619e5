//! Layers whose activations are computed again in the backward pass instead of being kept: less memory for one more forward.
//!
//! - The graph is cut into segments. What a segment computes are leaves of the graph that goes on from it;
//!   [`Gradients::backward`](crate::weights::Gradients::backward) walks from the last segment to the first, each with the gradients
//!   that those after it have left at its leaves.
//! - Behind a leaf the graph is walked once: what several segments read has to be one.
//! - A layer that is computed again draws what it drew before, and what is drawn after it does not depend on that.

use std::fmt;

use tch::{Kind, Tensor, no_grad};

use super::Weights;
use crate::seed::draw_seed;

/// Computes the values of a segment's leaves, with their graph.
type Outputs = Box<dyn FnOnce(&Weights) -> Vec<Tensor> + Send>;

/// Part of a graph that has been cut.
pub(crate) struct Segment {
    pub leaves: Vec<Tensor>,
    /// The loss's by each leaf; none where no loss has reached it.
    pub gradients: Vec<Option<Tensor>>,
    outputs: Outputs,
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Segment").field(&self.leaves).finish()
    }
}

impl Segment {
    fn new(leaves: Vec<Tensor>, outputs: impl FnOnce(&Weights) -> Vec<Tensor> + Send + 'static) -> Self {
        Self { gradients: leaves.iter().map(|_| None).collect(), leaves, outputs: Box::new(outputs) }
    }

    pub(crate) fn reached(&self) -> bool {
        self.gradients.iter().any(Option::is_some)
    }

    /// A scalar with the gradients of the loss that has reached this segment.
    pub(crate) fn loss(self, w: &Weights) -> Tensor {
        let outputs = (self.outputs)(w).into_iter().zip(self.gradients);
        outputs.filter_map(|(output, gradient)| Some((output * gradient?).sum(Kind::Float))).sum()
    }
}

impl Weights {
    /// A layer `f` of `x`, whose activations are not kept if layers are recomputed.
    pub fn layer(&self, x: Tensor, f: impl Fn(&Weights, &Tensor) -> Tensor + Send + 'static) -> Tensor {
        if !x.requires_grad() {
            return f(self, &x);
        }
        let seed = draw_seed();
        tch::manual_seed(seed);
        let Some(segments) = self.segments() else {
            return f(self, &x);
        };
        let y = no_grad(|| f(self, &x)).set_requires_grad(true);
        let again = move |w: &Weights| {
            tch::manual_seed(seed);
            vec![f(w, &x)]
        };
        let segment = Segment::new(vec![y.shallow_clone()], again);
        segments.borrow_mut().push(segment);
        y
    }

    /// Leaves in place of tensors of one graph that several layers read, if layers are recomputed.
    pub fn cut(&self, outputs: Vec<Tensor>) -> Vec<Tensor> {
        match self.segments() {
            Some(segments) if outputs[0].requires_grad() => {
                let leaf = |x: &Tensor| x.detach().set_requires_grad(true);
                let leaves: Vec<Tensor> = outputs.iter().map(leaf).collect();
                let copies = leaves.iter().map(Tensor::shallow_clone).collect();
                segments.borrow_mut().push(Segment::new(copies, |_| outputs));
                leaves
            }
            _ => outputs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::{Gradients, Init, Layout};
    use tch::Device;

    #[test]
    fn graphs_that_stand_side_by_side_are_walked_each_on_its_own() {
        let mut layout = Layout::default();
        let leaf = layout.leaf("one", &[1], Init::Constant(1.0));
        let mut w = Weights::new(&layout, Kind::Float, Device::Cpu, true);
        w.recompute_layers();
        let mut gradients = Gradients::new(&w);
        let mut added = |loss: &Tensor| {
            gradients.backward(loss, &w);
            let gradient = gradients.named()["one"].double_value(&[]);
            (gradient, w.segments().unwrap().borrow().len())
        };
        let times = |x: &Tensor, n: i64| w.layer(x.shallow_clone(), move |_, x| x * n);
        let shared = w.cut(vec![&w[leaf] * 3]).remove(0);
        let first = times(&times(&shared, 2), 5) + times(&shared, 100);
        let second = times(&(&w[leaf] * 1), 7);
        assert_eq!(added(&first), (330.0, 1), "one segment waits");
        assert_eq!(added(&second), (337.0, 0));
    }
}
