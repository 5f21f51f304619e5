//! PyTorch's AdamW state, which knows parameters by number only.
//!
//! The numbers count the parameters in the order in which the optimiser was given them. That order is not in the file; it
//! is found by trying those that the authors' code can give, and taking the one in which every moment has its parameter's
//! shape.

use std::collections::{BTreeMap, HashSet};

use simla_weights::{Node, ReadError, TensorRef};
use tch::Tensor;

use super::{Tensors, load};

/// Why moments could not be given to parameters.
pub(super) enum Unmatched {
    Read(ReadError),
    Because(String),
}

impl From<ReadError> for Unmatched {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

type Parameter<'a> = (String, TensorRef<'a>);

/// The state of one parameter in the file.
struct State<'a> {
    step: i64,
    exp_avg: TensorRef<'a>,
    exp_avg_sq: TensorRef<'a>,
}

/// AdamW's moments under `exp_avg.NAME` and `exp_avg_sq.NAME` for the trained ones of `weights`, and `steps`; `None` when the
/// optimiser has made no step yet. `all` is the model's parameters in their order of registration.
pub(super) fn adamw(
    optimizer: Node,
    all: &[Parameter],
    weights: &Tensors,
) -> Result<Option<Tensors>, Unmatched> {
    let because = |why: &str| Unmatched::Because(why.into());
    let groups = optimizer
        .get("param_groups")
        .ok_or_else(|| because("it has no param_groups"))?
        .elements();
    let groups: Vec<Vec<i64>> = groups
        .iter()
        .map(|group| indices(*group))
        .collect::<Option<_>>()
        .ok_or_else(|| because("its param_groups do not number their parameters"))?;
    let states = states(optimizer)?;
    if states.is_empty() {
        return Ok(None);
    }

    let matching = orders(all).into_iter().find(|order| {
        let lengths = order.iter().map(Vec::len);
        lengths.eq(groups.iter().map(Vec::len)) && fits(&groups, order, &states)
    });
    let Some(order) = matching else {
        let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
        return Err(Unmatched::Because(format!(
            "no order of the parameters fits its groups of {lengths:?}"
        )));
    };

    let mut moments = Tensors::new();
    for (index, (name, _)) in groups.iter().flatten().zip(order.iter().flatten()) {
        let Some(weight) = weights.get(name).filter(|_| !is_momentum(name)) else {
            continue;
        };
        // A parameter that no loss has reached yet has no state.
        let (exp_avg, exp_avg_sq) = match states.get(index) {
            Some(state) => (load(&state.exp_avg)?, load(&state.exp_avg_sq)?),
            None => (weight.zeros_like(), weight.zeros_like()),
        };
        moments.insert(format!("exp_avg.{name}"), exp_avg);
        moments.insert(format!("exp_avg_sq.{name}"), exp_avg_sq);
    }
    let steps = states.values().map(|state| state.step).max().unwrap_or(0);
    moments.insert("steps".into(), Tensor::from_slice(&[steps]));
    Ok(Some(moments))
}

fn indices(group: Node) -> Option<Vec<i64>> {
    group
        .get("params")?
        .elements()
        .into_iter()
        .map(Node::as_i64)
        .collect()
}

fn states(optimizer: Node<'_>) -> Result<BTreeMap<i64, State<'_>>, Unmatched> {
    let mut states = BTreeMap::new();
    for (index, state) in optimizer
        .get("state")
        .map(Node::entries)
        .unwrap_or_default()
    {
        let tensor = |key: &str| state.get(key).and_then(Node::as_tensor);
        let (Some(index), Some(exp_avg), Some(exp_avg_sq)) =
            (index.as_i64(), tensor("exp_avg"), tensor("exp_avg_sq"))
        else {
            return Err(Unmatched::Because("it is not AdamW's".into()));
        };
        // A number before PyTorch 1.12, a tensor of one float since.
        let step = match (state.get("step"), tensor("step")) {
            (_, Some(step)) if step.shape().iter().product::<usize>() == 1 => {
                load(&step)?.double_value(&[]) as i64
            }
            (Some(step), None) => step.as_i64().unwrap_or(0),
            _ => 0,
        };
        states.insert(
            index,
            State {
                step,
                exp_avg,
                exp_avg_sq,
            },
        );
    }
    Ok(states)
}

/// The orders in which the authors' code can have given parameters to the optimiser, as groups.
fn orders<'a>(all: &[Parameter<'a>]) -> Vec<Vec<Vec<Parameter<'a>>>> {
    let online: Vec<_> = all
        .iter()
        .filter(|(name, _)| !is_momentum(name))
        .cloned()
        .collect();
    let mut orders = Vec::new();
    for given in [once(&online), once(all), online, all.to_vec()] {
        // Without decay: vectors and biases, as the authors' helper tells them. The temperature, a scalar, decays.
        let (plain, decayed): (Vec<_>, Vec<_>) = given
            .iter()
            .cloned()
            .partition(|(name, tensor)| tensor.shape().len() == 1 || name.ends_with(".bias"));
        orders.extend([
            vec![given],
            vec![plain.clone(), decayed.clone()],
            vec![decayed, plain],
        ]);
    }
    orders
}

/// Whether a name is of the momentum model, which has no gradients: `visual_encoder_m.norm.bias`.
fn is_momentum(name: &str) -> bool {
    name.split('.')
        .next()
        .is_some_and(|top| top.ends_with("_m"))
}

/// Tied parameters under their first name only, as PyTorch's `parameters()` lists them.
fn once<'a>(parameters: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
    let mut seen = HashSet::new();
    parameters
        .iter()
        .filter(|(_, tensor)| seen.insert(tensor.identity()))
        .cloned()
        .collect()
}

/// Whether every moment has the shape of the parameter that it would belong to.
fn fits(groups: &[Vec<i64>], order: &[Vec<Parameter>], states: &BTreeMap<i64, State>) -> bool {
    let pairs = groups.iter().flatten().zip(order.iter().flatten());
    let mut found = 0;
    for (index, (_, parameter)) in pairs {
        if let Some(state) = states.get(index) {
            found += 1;
            if state.exp_avg.shape() != parameter.shape()
                || state.exp_avg_sq.shape() != parameter.shape()
            {
                return false;
            }
        }
    }
    found == states.len()
}
