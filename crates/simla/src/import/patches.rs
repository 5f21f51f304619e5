//! Patch kernels for patches of another side.

use tch::{Device, Kind, Tensor};

use super::Tensors;

/// Kernels `[D, 3, p, p]` of a patch embedding for patches of `side` pixels: `[D, 3, side, side]`, in f32.
///
/// They give a patch that is resampled to `side` what the old ones give the patch itself: with B the matrix of the pixels'
/// (bicubic) resampling, the kernels w become the pseudo-inverse of B's transpose times w, which is exact where patches grow and the
/// best in least squares where they shrink (FlexiViT, Beyer et al. 2023, section 3.4).
pub fn resample_kernels(kernels: &Tensor, side: i64) -> Tensor {
    let (features, channels, old, _) = kernels.size4().expect("[D, channels, p, p]");
    let kernels = kernels.to_kind(Kind::Double);
    if old == side {
        return kernels.to_kind(Kind::Float);
    }
    let pixels = Tensor::eye(old * old, (Kind::Double, Device::Cpu)).view([old * old, 1, old, old]);
    let transposed = resize(&pixels, side).view([old * old, side * side]); // B's transpose: a row an old pixel
    const RCOND: f64 = 1e-9;
    let resampled = kernels.view([features * channels, old * old]).matmul(&transposed.pinverse(RCOND).transpose(0, 1));
    resampled.view([features, channels, side, side]).to_kind(Kind::Float)
}

/// Pictures `[N, C, H, W]` at another side: bicubic, with antialiasing where they shrink.
fn resize(pictures: &Tensor, side: i64) -> Tensor {
    pictures.internal_upsample_bicubic2d_aa([side, side], false, None, None)
}

/// Resamples the patch kernels of a whole model's `weights`, online and momentum, where they are for patches of another side.
pub fn fit_patches(weights: &mut Tensors, side: i64) {
    for name in ["visual_encoder.patch_embed.proj.weight", "visual_encoder_m.patch_embed.proj.weight"] {
        if let Some(kernels) = weights.get_mut(name).filter(|kernels| kernels.dim() == 4) {
            *kernels = resample_kernels(kernels, side);
        }
    }
}
