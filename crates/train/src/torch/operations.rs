//! What libtorch can do on a GPU and tch cannot ask for: operations on many tensors at once, AdamW as one, products in whole f32, and copies
//! to the host for which nobody waits.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};

use tch::{Cuda, Device, Kind, Tensor};

use super::group::checked;

type Raw = *const c_void;

unsafe extern "C" {
    fn simla_configure(tf32: bool, message: *mut c_char, length: usize) -> bool;
    fn simla_copy(to: *const Raw, from: *const Raw, count: usize, message: *mut c_char, length: usize) -> bool;
    fn simla_add(sums: *const Raw, others: *const Raw, count: usize, message: *mut c_char, length: usize) -> bool;
    fn simla_adamw(
        parameter: Raw,
        gradient: Raw,
        exp_avg: Raw,
        exp_avg_sq: Raw,
        step: i64,
        scale: f64,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        message: *mut c_char,
        length: usize,
    ) -> bool;
    fn simla_product(x: Raw, y: Raw, message: *mut c_char, length: usize) -> *mut c_void;
    fn simla_linear_beside(
        x: Raw,
        weight: Raw,
        bias: Raw,
        both: *mut *mut c_void,
        message: *mut c_char,
        length: usize,
    ) -> bool;
    fn simla_add_kept(residual: Raw, x: Raw, kept: Raw, scale: f64, message: *mut c_char, length: usize)
    -> *mut c_void;
    fn simla_keep_order(seen: Raw, message: *mut c_char, length: usize) -> bool;
    fn simla_select(x: Raw, rows: Raw, message: *mut c_char, length: usize) -> *mut c_void;
    fn simla_on_host(
        tensors: *const Raw,
        copies: *mut *mut c_void,
        count: usize,
        message: *mut c_char,
        length: usize,
    ) -> bool;
}

/// What libtorch throws becomes a panic, as tch makes of it: [`guarded`](super::guard::guarded) tells it.
fn done(result: Result<(), String>) {
    result.unwrap_or_else(|message| panic!("{message}"));
}

fn raw(x: &Tensor) -> Raw {
    x.as_ptr().cast()
}

fn all_raw(tensors: &[&Tensor]) -> Vec<Raw> {
    tensors.iter().map(|x| raw(x)).collect()
}

// In all calls below: tensors live and are read, or written in place where the call says so; lists have as many as is said; no exception
// crosses, what is thrown comes as a message; tensors that are made are ours.

/// How GPUs compute from here on: whether products in f32 may be in TF32; and without attention of cuDNN.
///
/// # Panics
/// Where libtorch fails, as of all that follow.
pub fn configure(tf32: bool) {
    // SAFETY: as above.
    done(checked(|message, length| unsafe { simla_configure(tf32, message, length) }));
}

/// Copies each of `from` to its place, of whatever type.
pub fn copy_all(to: &[&Tensor], from: &[&Tensor]) {
    each(to, from, simla_copy);
}

/// Adds each of `others`, all of one type, to its sum, of one type too.
pub fn add_all(sums: &[&Tensor], others: &[&Tensor]) {
    each(sums, others, simla_add);
}

type OfLists = unsafe extern "C" fn(*const Raw, *const Raw, usize, *mut c_char, usize) -> bool;

fn each(to: &[&Tensor], from: &[&Tensor], f: OfLists) {
    assert_eq!(to.len(), from.len());
    if !to.is_empty() {
        let (to, from) = (all_raw(to), all_raw(from));
        // SAFETY: as above.
        done(checked(|message, length| unsafe { f(to.as_ptr(), from.as_ptr(), to.len(), message, length) }));
    }
}

/// A step of AdamW.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// From 1.
    pub number: i64,
    /// What gradients are multiplied by.
    pub scale: f64,
    /// The learning rate.
    pub lr: f64,
    /// Shares of the old value that the moments keep.
    pub betas: (f64, f64),
    /// Share of the value that is taken off, times the learning rate.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// AdamW on `parameter`, its `gradient` (which is scaled then) and its moments, in place.
pub fn adamw([parameter, gradient, exp_avg, exp_avg_sq]: [&Tensor; 4], step: Step) {
    let Step { number, scale, lr, betas, weight_decay, eps } = step;
    let [parameter, gradient, exp_avg, exp_avg_sq] = [parameter, gradient, exp_avg, exp_avg_sq].map(raw);
    // SAFETY: as above.
    done(checked(|message, length| unsafe {
        simla_adamw(
            parameter,
            gradient,
            exp_avg,
            exp_avg_sq,
            number,
            scale,
            lr,
            betas.0,
            betas.1,
            weight_decay,
            eps,
            message,
            length,
        )
    }));
}

/// `x y` of two matrices, in whole f32 whatever [`configure`] allows.
pub fn product(x: &Tensor, y: &Tensor) -> Tensor {
    if x.device() == Device::Cpu || x.kind() != Kind::Float {
        return x.matmul(y);
    }
    made_of(x, y, simla_product)
}

/// The `rows` `[n]` of `x` `[m, ...]`, some of them several times or never. On a GPU its gradient is the same every time, bit for bit.
pub fn select(x: &Tensor, rows: &Tensor) -> Tensor {
    if x.device() == Device::Cpu {
        return x.index_select(0, rows);
    }
    made_of(x, rows, simla_select)
}

/// Of `x` `[n]`: for each of `count`, the sum of those values whose place in `owners` `[n]` names it. The same every time, bit for bit.
pub fn sums_by(x: &Tensor, owners: &Tensor, count: i64) -> Tensor {
    if x.device() == Device::Cpu {
        return Tensor::zeros([count], (x.kind(), x.device())).index_add(0, owners, x);
    }
    // There libtorch adds in whatever order they come.
    let is_owned = Tensor::arange(count, (owners.kind(), x.device())).unsqueeze(1).eq_tensor(owners);
    product(&is_owned.to_kind(x.kind()), &x.unsqueeze(1)).squeeze_dim(1)
}

/// `x W' + b` `[..., outputs]` of `x` `[..., inputs]`, and `x` itself for one more use, whose gradient the backward pass adds to within a
/// product, in its place. So that use has to be one that `x W' + b` comes back to: a residual.
pub fn linear_beside(x: &Tensor, weight: &Tensor, bias: &Tensor) -> (Tensor, Tensor) {
    let mut both = [std::ptr::null_mut(); 2];
    // SAFETY: as above.
    done(checked(|message, length| unsafe {
        simla_linear_beside(raw(x), raw(weight), raw(bias), both.as_mut_ptr(), message, length)
    }));
    // SAFETY: as above.
    let [y, x] = both.map(|tensor| unsafe { Tensor::from_ptr(tensor.cast()) });
    (y, x)
}

/// `residual + scale x kept x x`, where `kept` says which elements of `x` are.
pub fn add_kept(residual: &Tensor, x: &Tensor, kept: &Tensor, scale: f64) -> Tensor {
    // SAFETY: as above.
    made(|message, length| unsafe { simla_add_kept(raw(residual), raw(x), raw(kept), scale, message, length) })
}

/// The backward pass of attention, which gave `seen`, will add in one order: on a GPU it is the same every time then, bit for bit.
pub fn keep_order(seen: &Tensor) {
    // SAFETY: as above.
    done(checked(|message, length| unsafe { simla_keep_order(raw(seen), message, length) }));
}

type OfTwo = unsafe extern "C" fn(Raw, Raw, *mut c_char, usize) -> *mut c_void;

fn made_of(x: &Tensor, y: &Tensor, f: OfTwo) -> Tensor {
    // SAFETY: as above.
    made(|message, length| unsafe { f(raw(x), raw(y), message, length) })
}

/// The new tensor that `f` gives, or the message that it writes.
fn made(f: impl FnOnce(*mut c_char, usize) -> *mut c_void) -> Tensor {
    let mut tensor = std::ptr::null_mut();
    done(checked(|message, length| {
        tensor = f(message, length);
        !tensor.is_null()
    }));
    // SAFETY: as above.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}

/// Tensors as they are at this moment, on their way to the host.
#[derive(Debug)]
pub struct OnHost {
    tensors: BTreeMap<String, Tensor>,
    from: Device,
}

impl OnHost {
    /// Of tensors that are on one device or on the host. What comes from a GPU comes while that goes on.
    pub fn copy(tensors: &BTreeMap<String, Tensor>) -> Self {
        let from = tensors.values().map(Tensor::device).find(|device| device.is_cuda()).unwrap_or(Device::Cpu);
        let given = all_raw(&tensors.values().collect::<Vec<_>>());
        let mut copies = vec![std::ptr::null_mut(); given.len()];
        // SAFETY: as above.
        done(checked(|message, length| unsafe {
            simla_on_host(given.as_ptr(), copies.as_mut_ptr(), given.len(), message, length)
        }));
        // SAFETY: as above.
        let copies = copies.into_iter().map(|copy| unsafe { Tensor::from_ptr(copy.cast()) });
        Self { tensors: tensors.keys().cloned().zip(copies).collect(), from }
    }

    /// Waits until they are there.
    pub fn arrived(self) -> BTreeMap<String, Tensor> {
        if let Device::Cuda(index) = self.from {
            Cuda::synchronize(index as i64);
        }
        self.tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(size: &[i64], kind: Kind) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind)
    }

    #[test]
    fn many_are_copied_and_added_as_one_after_the_other() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let sizes: [&[i64]; 4] = [&[3, 4], &[5], &[1 << 24], &[2, 2]];
            let others = sizes.map(|size| random(size, kind));
            let sums = sizes.map(|size| random(size, Kind::Float));
            let expected: Vec<Tensor> = sums.iter().zip(&others).map(|(sum, other)| sum + other).collect();
            add_all(&sums.each_ref(), &others.each_ref());
            assert!(sums.iter().zip(&expected).all(|(sum, expected)| sum.equal(expected)), "{kind:?}");
            copy_all(&sums.each_ref(), &others.each_ref());
            assert!(sums.iter().zip(&others).all(|(copy, other)| copy.equal(&other.to_kind(Kind::Float))));
        }
        add_all(&[], &[]);
    }

    #[test]
    fn copies_keep_what_was_and_share_what_was_shared() {
        let flat = random(&[10], Kind::Float);
        let parts = [
            ("row", flat.narrow(0, 2, 4)),
            ("column", flat.view([5, 2]).select(1, 1)),
            ("other", random(&[3], Kind::Float)),
        ];
        let named: BTreeMap<String, Tensor> = parts.into_iter().map(|(name, part)| (name.to_owned(), part)).collect();
        let before: Vec<Tensor> = named.values().map(Tensor::copy).collect();
        let copies = OnHost::copy(&named);
        let _ = tch::no_grad(|| flat.shallow_clone().fill_(7.0));
        let copies = copies.arrived();
        assert!(copies.values().zip(&before).all(|(copy, before)| copy.equal(before)));
        let _ = copies["row"].narrow(0, 1, 1).fill_(5.0);
        assert_eq!(copies["column"].double_value(&[1]), 5.0, "the third of ten is in both");
    }

    #[test]
    fn products_and_rows_have_libtorchs_values_and_gradients() {
        let leaf = |size: &[i64]| random(size, Kind::Float).set_requires_grad(true);
        let (x, y, rows) = (leaf(&[5, 3]), leaf(&[3, 4]), Tensor::from_slice(&[4i64, 0, 4, 2]));
        let whole = leaf(&[5, 2, 3]);
        let weights = [random(&[5, 4], Kind::Float), random(&[4, 2, 3], Kind::Float)];
        let with_gradients = |made: [Tensor; 2]| {
            let loss =
                made.iter().zip(&weights).map(|(made, weights)| (made * weights).sum(Kind::Float)).sum::<Tensor>();
            let gradients = Tensor::run_backward(&[loss], &[&x, &y, &whole], false, false);
            made.into_iter().chain(gradients).collect::<Vec<_>>()
        };
        let ours = with_gradients([super::made_of(&x, &y, simla_product), super::made_of(&whole, &rows, simla_select)]);
        let theirs = with_gradients([x.matmul(&y), whole.index_select(0, &rows)]);
        assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| ours.allclose(theirs, 1e-5, 1e-6, false)));
    }

    #[test]
    fn a_linear_layer_beside_its_residual_has_libtorchs_values_and_gradients() {
        let leaf = |size: &[i64]| random(size, Kind::Float).set_requires_grad(true);
        let leaves = [leaf(&[2, 5, 3]), leaf(&[4, 3]), leaf(&[4])];
        let [x, weight, bias] = &leaves;
        let factors = [random(&[2, 5, 4], Kind::Float), random(&[2, 5, 3], Kind::Float)];
        let gradients = |y: Tensor, x: Tensor| {
            let loss = (y.square() * &factors[0]).sum(Kind::Float) + (x * &factors[1]).sum(Kind::Float);
            Tensor::run_backward(&[loss], &leaves, false, false)
        };
        let (y, again) = linear_beside(x, weight, bias);
        assert!(y.equal(&x.linear(weight, Some(bias))) && again.equal(x));
        let ours = gradients(y, again);
        let theirs = gradients(x.linear(weight, Some(bias)), x.shallow_clone());
        assert!(ours.iter().zip(&theirs).all(|(ours, theirs)| ours.allclose(theirs, 1e-5, 1e-6, false)));
        // Where nobody reads the one or the other.
        let (y, again) = linear_beside(x, weight, bias);
        let alone = Tensor::run_backward(&[y.sum(Kind::Float)], &[x], true, false).remove(0);
        assert!(alone.allclose(
            &weight.sum_dim_intlist([0].as_slice(), false, Kind::Float).expand_as(x),
            1e-5,
            1e-6,
            false
        ));
        let passed = Tensor::run_backward(&[again.sum(Kind::Float)], &[x], false, false).remove(0);
        assert!(passed.equal(&x.ones_like()));
    }

    #[test]
    fn what_is_kept_is_added_and_takes_gradients() {
        let leaf = || random(&[3, 4], Kind::Float).set_requires_grad(true);
        let (residual, x) = (leaf(), leaf());
        let kept = random(&[3, 4], Kind::Float).gt(0.0);
        let sum = add_kept(&residual, &x, &kept, 1.25);
        assert!(sum.allclose(&(&residual + &x * &kept * 1.25), 1e-5, 1e-6, false));
        let factor = random(&[3, 4], Kind::Float);
        let gradients = Tensor::run_backward(&[(sum * &factor).sum(Kind::Float)], &[residual, x], false, false);
        assert!(gradients[0].equal(&factor));
        assert!(gradients[1].allclose(&(&factor * &kept * 1.25), 1e-5, 1e-6, false));
    }

    #[test]
    fn values_are_summed_by_their_owners() {
        let sums = sums_by(&Tensor::from_slice(&[1.0f32, 2.0, 4.0]), &Tensor::from_slice(&[2i64, 0, 2]), 4);
        assert_eq!(Vec::<f32>::try_from(sums).unwrap(), [2.0, 0.0, 5.0, 0.0]);
    }

    #[test]
    fn what_is_thrown_is_told() {
        let (x, y) = (random(&[2], Kind::Float), random(&[3], Kind::Float));
        let error = super::super::guard::guarded(|| add_all(&[&x], &[&y])).unwrap_err().to_string();
        assert!(error.starts_with("libtorch: ") && error.contains('3'), "{error}");
    }
}
