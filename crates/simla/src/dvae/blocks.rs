//! What DALL-E's encoder and decoder are made of, with its parameter names.

use tch::Tensor;

use simla_train::weights::{Init, Layout, Leaf, Weights};

/// A convolution with same padding.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Leaf,
    bias: Leaf,
    padding: i64,
}

impl Conv {
    pub(crate) fn new(layout: &mut Layout, name: &str, inputs: i64, outputs: i64, kernel: i64) -> Self {
        let fan_in = (inputs * kernel * kernel) as f64;
        let weight = [outputs, inputs, kernel, kernel];
        Self {
            weight: layout.leaf(format!("{name}.w"), &weight, Init::Normal(fan_in.sqrt().recip())),
            bias: layout.leaf(format!("{name}.b"), &[outputs], Init::Constant(0.0)),
            padding: kernel / 2,
        }
    }

    pub(crate) fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        x.conv2d(&w[self.weight], Some(&w[self.bias]), 1, self.padding, 1, 1)
    }
}

/// `id_path(x) + gain * res_path(x)`; the residual path is a quarter as wide.
#[derive(Debug)]
pub(super) struct Block {
    /// None where the widths are equal.
    id_path: Option<Conv>,
    res_path: [Conv; 4],
    /// 1 / (number of blocks)^2.
    gain: f64,
}

impl Block {
    pub(crate) fn new(
        layout: &mut Layout,
        name: &str,
        inputs: i64,
        outputs: i64,
        kernels: [i64; 4],
        gain: f64,
    ) -> Self {
        let inner = outputs / 4;
        let widths = [(inputs, inner), (inner, inner), (inner, inner), (inner, outputs)];
        let id_path = (inputs != outputs).then(|| Conv::new(layout, &format!("{name}.id_path"), inputs, outputs, 1));
        let res_path = [0, 1, 2, 3].map(|i| {
            let (inputs, outputs) = widths[i];
            Conv::new(layout, &format!("{name}.res_path.conv_{}", i + 1), inputs, outputs, kernels[i])
        });
        Self { id_path, res_path, gain }
    }

    pub(crate) fn forward(&self, w: &Weights, x: &Tensor) -> Tensor {
        let residual = self.res_path.iter().fold(x.shallow_clone(), |x, conv| conv.forward(w, &x.relu()));
        let identity = match &self.id_path {
            Some(conv) => conv.forward(w, x),
            None => x.shallow_clone(),
        };
        identity + residual * self.gain
    }
}
