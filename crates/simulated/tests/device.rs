//! What would be wrong on a GPU is found on the simulated one. Each case runs in a process of its own, which some do not survive.

use std::process::{Command, Output};

use simla_simulated::{Counts, on_device};
use simla_train::torch::device;
use simla_train::torch::guard::{TorchError, guarded};
use simla_train::torch::operations::product;
use tch::{Device, Kind, Tensor};

const CASE: &str = "SIMULATED_CASE";

/// Runs a case of [`case`] on the device.
fn run(case: &str, more: &[(&str, &str)]) -> (Output, Option<Counts>) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["case", "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    let output = on_device(&mut command, &log).env(CASE, case).envs(more.iter().copied()).output().unwrap();
    let counts = log.exists().then(|| Counts::read(&log));
    (output, counts)
}

#[track_caller]
fn went_well(case: &str, more: &[(&str, &str)]) -> Counts {
    let (output, counts) = run(case, more);
    assert!(output.status.success(), "{case}: {}", String::from_utf8_lossy(&output.stderr));
    counts.expect("a process that comes to its end writes its log")
}

fn numbers(size: &[i64], device: Device) -> Tensor {
    Tensor::arange(size.iter().product::<i64>(), (Kind::Float, device)).view(size)
}

/// The cases, in the process that [`run`] starts.
#[test]
#[ignore = "a part of the other tests"]
fn case() {
    let gpu = device::open("cuda").unwrap();
    let x = numbers(&[4, 8], gpu);
    match std::env::var(CASE).unwrap().as_str() {
        "the host reads memory of the device" => {
            // SAFETY: none; that is the case.
            #[allow(unsafe_code)]
            let value = unsafe { x.data_ptr().cast::<f32>().read_volatile() };
            println!("{value}");
        }
        "a pinned buffer is written during its copy" => {
            let host = numbers(&[4, 8], Device::Cpu).internal_pin_memory(gpu);
            let _copy = host.to_device_(gpu, Kind::Float, true, false);
            let _ = host.shallow_clone().fill_(1.0);
        }
        "operands on two devices" => {
            for other in [Device::Cpu, Device::Cuda(1)] {
                let error = guarded(|| &x + numbers(&[4, 8], other)).unwrap_err().to_string();
                assert!(error.contains("at least two devices"), "{error}");
            }
            assert_eq!(device::upload(&(&x * 2.0), Device::Cpu).double_value(&[0, 1]), 2.0, "numbers are no operands");
        }
        "values that nobody wrote" => {
            let unwritten = Tensor::empty([100], (Kind::Float, gpu));
            assert!(unwritten.sum(Kind::Float).double_value(&[]).is_nan());
        }
        "draws" => {
            let drawn = |device: Device| {
                tch::manual_seed(5);
                Tensor::rand([20], (Kind::Float, device)).to(Device::Cpu)
            };
            assert!(drawn(gpu).equal(&drawn(gpu)));
            assert!(!drawn(gpu).equal(&drawn(Device::Cpu)));
        }
        "a full device" => {
            let error = guarded(|| Tensor::zeros([1 << 20], (Kind::Float, gpu))).unwrap_err();
            assert!(
                matches!(&error, TorchError::OutOfMemory(said) if said.starts_with("CUDA out of memory")),
                "{error}"
            );
        }
        "products" => {
            let (x, y) = ((numbers(&[9, 7], gpu) / 70.0).exp(), (numbers(&[7, 5], gpu) / 40.0).exp());
            let whole = x.to(Device::Cpu).matmul(&y.to(Device::Cpu));
            let apart = |found: Tensor| (found.to(Device::Cpu) - &whole).abs().max().double_value(&[]);
            assert!(apart(x.matmul(&y)) < 1e-5, "as the device is opened");
            device::use_tf32(gpu, true);
            assert!(apart(x.matmul(&y)) > 1e-4, "three digits");
            assert!(apart(product(&x, &y)) < 1e-5, "of the contrast");
        }
        "attention" => {
            let qkv = Tensor::randn([3, 2, 4, 9, 8], (Kind::BFloat16, gpu)).unbind(0);
            let _ = Tensor::scaled_dot_product_attention(
                &qkv[0],
                &qkv[1],
                &qkv[2],
                None::<Tensor>,
                0.0,
                false,
                None,
                false,
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_host_that_touches_what_is_not_its_own_dies_with_a_word() {
    for (case, word) in [
        ("the host reads memory of the device", "the host touched memory of the device"),
        ("a pinned buffer is written during its copy", "the host touched pinned memory during a copy"),
    ] {
        let (output, _) = run(case, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{case}: {said}");
    }
}

#[test]
fn what_a_gpu_refuses_is_refused_and_what_it_draws_is_its_own() {
    for case in ["operands on two devices", "values that nobody wrote", "draws"] {
        let counts = went_well(case, &[]);
        assert!(counts.peak_bytes[0] > 0 && counts.waits.values().sum::<u64>() > 0, "{counts:?}");
    }
    went_well("a full device", &[("SIMULATED_KIB", "2048")]);
}

#[test]
fn products_are_whole_unless_that_is_given_up_and_cudnn_attends_to_nothing() {
    let counts = went_well("products", &[]);
    assert_eq!((counts.operations["mm.out"], counts.operations["mm.out in TF32"]), (2, 1));
    let counts = went_well("attention", &[]);
    assert_eq!(counts.operations["attention"], 1);
    assert!(!counts.operations.contains_key("(attention of cuDNN)"), "{counts:?}");
}
