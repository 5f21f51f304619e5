//! Processes that compute together, over libtorch's own c10d: a store to meet in, and gloo to exchange tensors of the CPU.
//!
//! A call of a [`Group`] is one of all its processes: each makes the same calls in the same order.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Tensor};

type Raw = *mut c_void;

unsafe extern "C" {
    fn simla_store_open(
        host: *const c_char,
        port: u16,
        serve: bool,
        timeout_ms: i64,
        message: *mut c_char,
        length: usize,
    ) -> Raw;
    fn simla_store_port(store: Raw) -> u16;
    fn simla_store_set(
        store: Raw,
        key: *const c_char,
        bytes: *const u8,
        count: usize,
        message: *mut c_char,
        length: usize,
    ) -> bool;
    fn simla_store_get(
        store: Raw,
        key: *const c_char,
        timeout_ms: i64,
        bytes: *mut u8,
        room: usize,
        count: *mut usize,
        message: *mut c_char,
        length: usize,
    ) -> bool;
    fn simla_store_close(store: Raw);
    fn simla_group_join(
        store: Raw,
        name: *const c_char,
        address: *const c_char,
        rank: c_int,
        world: c_int,
        timeout_ms: i64,
        message: *mut c_char,
        length: usize,
    ) -> Raw;
    fn simla_group_leave(group: Raw);
    fn simla_group_sum(group: Raw, x: *const c_void, message: *mut c_char, length: usize) -> bool;
    fn simla_group_broadcast(group: Raw, x: *const c_void, message: *mut c_char, length: usize) -> bool;
    fn simla_group_gather(
        group: Raw,
        x: *const c_void,
        all: *const c_void,
        message: *mut c_char,
        length: usize,
    ) -> bool;
    fn simla_group_send(group: Raw, x: *const c_void, to: c_int, message: *mut c_char, length: usize) -> bool;
    fn simla_group_receive(
        group: Raw,
        x: *const c_void,
        from: c_int,
        timeout_ms: i64,
        message: *mut c_char,
        length: usize,
    ) -> bool;
    fn simla_cuda_stream(gpu: i64, stream: *mut *mut c_void, message: *mut c_char, length: usize) -> bool;
}

fn text(value: &str) -> Result<CString, String> {
    CString::new(value).map_err(|_| format!("{value:?}: a text with a zero in it"))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Calls `f` with room for a message, which is the error where `f` says that it failed.
pub(super) fn checked(f: impl FnOnce(*mut c_char, usize) -> bool) -> Result<(), String> {
    let mut message = [0u8; 1024];
    if f(message.as_mut_ptr().cast(), message.len()) {
        return Ok(());
    }
    let told = CStr::from_bytes_until_nul(&message).unwrap_or_default().to_string_lossy();
    // What follows the first line are places in libtorch.
    Err(told.lines().next().unwrap_or_default().to_owned())
}

/// Keys and values that all processes see.
#[derive(Debug)]
pub struct Store(Raw);

// SAFETY: a TCPStore locks its connection for each call.
unsafe impl Send for Store {}
unsafe impl Sync for Store {}

// In all calls below: texts have a zero at their end, buffers are given with their length, tensors live and are only read or, where the
// call says so, written in place; no exception crosses, what is thrown comes as a message; what is not null is ours until it is closed.
impl Store {
    /// The store that this process serves at `port` (at any that is free where it is 0), or the one that another serves, once it is there.
    ///
    /// # Errors
    /// What c10d said: the port is taken, or nobody answered within the time.
    pub fn open(host: &str, port: u16, serve: bool, timeout: Duration) -> Result<Self, String> {
        let host = text(host)?;
        let mut store = std::ptr::null_mut();
        checked(|message, length| {
            // SAFETY: as above.
            store = unsafe { simla_store_open(host.as_ptr(), port, serve, milliseconds(timeout), message, length) };
            !store.is_null()
        })?;
        Ok(Self(store))
    }

    /// Where it is served.
    pub fn port(&self) -> u16 {
        // SAFETY: the store is open.
        unsafe { simla_store_port(self.0) }
    }

    /// # Errors
    /// If the connection is lost.
    pub fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let (key, bytes) = (text(key)?, value.as_bytes());
        // SAFETY: as above.
        checked(|message, length| unsafe {
            simla_store_set(self.0, key.as_ptr(), bytes.as_ptr(), bytes.len(), message, length)
        })
    }

    /// Waits for the key.
    ///
    /// # Errors
    /// If it does not come within the time, or the connection is lost.
    pub fn get(&self, key: &str, timeout: Duration) -> Result<String, String> {
        const ROOM: usize = 1 << 16;
        let (key, mut bytes, mut count) = (text(key)?, vec![0; ROOM], 0);
        // SAFETY: as above.
        checked(|message, length| unsafe {
            simla_store_get(
                self.0,
                key.as_ptr(),
                milliseconds(timeout),
                bytes.as_mut_ptr(),
                ROOM,
                &mut count,
                message,
                length,
            )
        })?;
        bytes.truncate(count);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: nothing else has it: groups share it by `Arc`.
        unsafe { simla_store_close(self.0) }
    }
}

/// Where a process stands in a group.
#[derive(Debug, Clone, Copy)]
pub struct Seat<'a> {
    /// Number of this process, from 0.
    pub rank: usize,
    /// How many there are.
    pub world: usize,
    /// This machine's address for the others; empty for what its name or the variable GLOO_SOCKET_IFNAME says.
    pub address: &'a str,
}

/// Processes that exchange tensors of the CPU by gloo. With libtorch's CUDA library open, those of a GPU too, by way of the host.
#[derive(Debug)]
pub struct Group {
    raw: Raw,
    _store: Arc<Store>,
}

// SAFETY: a process group locks what its calls share; that all processes make them in one order is the callers' affair.
unsafe impl Send for Group {}
unsafe impl Sync for Group {}

impl Group {
    /// Groups of one store differ by `name`: calls of one do not wait for those of another. `timeout` is that of every call.
    ///
    /// # Errors
    /// If not all come within the time.
    pub fn join(store: &Arc<Store>, name: &str, seat: Seat, timeout: Duration) -> Result<Self, String> {
        let (name, address) = (text(name)?, text(seat.address)?);
        let (rank, world) = (seat.rank as c_int, seat.world as c_int);
        let mut raw = std::ptr::null_mut();
        checked(|message, length| {
            // SAFETY: as above; the store lives as long as the group.
            raw = unsafe {
                simla_group_join(
                    store.0,
                    name.as_ptr(),
                    address.as_ptr(),
                    rank,
                    world,
                    milliseconds(timeout),
                    message,
                    length,
                )
            };
            !raw.is_null()
        })?;
        Ok(Self { raw, _store: Arc::clone(store) })
    }

    /// In place of `x`: the sum over all processes, the same bits on each.
    ///
    /// # Errors
    /// What gloo said: a process is gone, or too late.
    pub fn sum(&self, x: &Tensor) -> Result<(), String> {
        contiguous(x)?;
        // SAFETY: as above.
        checked(|message, length| unsafe { simla_group_sum(self.raw, x.as_ptr().cast(), message, length) })
    }

    /// In place of `x`: what it is on rank 0.
    ///
    /// # Errors
    /// As [`Group::sum`].
    pub fn broadcast(&self, x: &Tensor) -> Result<(), String> {
        contiguous(x)?;
        // SAFETY: as above.
        checked(|message, length| unsafe { simla_group_broadcast(self.raw, x.as_ptr().cast(), message, length) })
    }

    /// Into `all` `[world x n, ...]`: `x` `[n, ...]` of every process, in the order of the ranks.
    ///
    /// # Errors
    /// As [`Group::sum`].
    pub fn gather(&self, x: &Tensor, all: &Tensor) -> Result<(), String> {
        contiguous(x)?;
        contiguous(all)?;
        let (from, to) = (x.as_ptr().cast(), all.as_ptr().cast());
        // SAFETY: as above.
        checked(|message, length| unsafe { simla_group_gather(self.raw, from, to, message, length) })
    }

    /// # Errors
    /// As [`Group::sum`].
    pub fn send(&self, x: &Tensor, to: usize) -> Result<(), String> {
        contiguous(x)?;
        // SAFETY: as above.
        checked(|message, length| unsafe {
            simla_group_send(self.raw, x.as_ptr().cast(), to as c_int, message, length)
        })
    }

    /// Waits until `from` has sent, or is gone: then that is the error.
    ///
    /// # Errors
    /// As [`Group::sum`]; and if nothing comes within the time, which counts in place of the group's.
    pub fn receive(&self, x: &Tensor, from: usize, timeout: Duration) -> Result<(), String> {
        contiguous(x)?;
        let (from, timeout) = (from as c_int, milliseconds(timeout));
        // SAFETY: as above.
        checked(|message, length| unsafe {
            simla_group_receive(self.raw, x.as_ptr().cast(), from, timeout, message, length)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: nothing else has it.
        unsafe { simla_group_leave(self.raw) }
    }
}

/// gloo reads on from the first value, whatever the strides say.
fn contiguous(x: &Tensor) -> Result<(), String> {
    match x.is_contiguous() {
        true => Ok(()),
        false => Err("a tensor whose values do not stand one after the other".into()),
    }
}

/// The stream on which torch computes on a GPU.
///
/// # Errors
/// What libtorch said.
pub(super) fn cuda_stream(gpu: usize) -> Result<*mut c_void, String> {
    let mut stream = std::ptr::null_mut();
    // SAFETY: as above.
    checked(|message, length| unsafe { simla_cuda_stream(gpu as i64, &mut stream, message, length) })?;
    Ok(stream)
}

/// Ends the process as it is, from any thread: destructors of libtorch would run beside the thread that trains.
pub(crate) fn end_process(code: c_int) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    // SAFETY: it takes any number, and does not come back.
    unsafe { _exit(code) }
}

/// The device's number among the GPUs.
pub(crate) fn gpu(device: Device) -> Option<usize> {
    match device {
        Device::Cuda(gpu) => Some(gpu),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_store_tells_what_it_was_told_and_says_what_is_wrong() {
        let store = Store::open("127.0.0.1", 0, true, PATIENCE).unwrap();
        let other = Store::open("127.0.0.1", store.port(), false, PATIENCE).unwrap();
        other.set("a/key", "its value").unwrap();
        assert_eq!(store.get("a/key", PATIENCE).unwrap(), "its value");
        let error = other.get("no key", Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("50ms") && error.contains("no key"), "{error}");
        let error = Store::open("127.0.0.1", store.port(), true, PATIENCE).unwrap_err();
        assert!(error.contains("EADDRINUSE"), "{error}");
        let free = store.port();
        drop((store, other));
        let error = Store::open("127.0.0.1", free, false, Duration::from_millis(300)).unwrap_err();
        assert!(!error.is_empty() && !error.contains('\n'), "{error}");
    }

    #[test]
    fn without_a_gpu_there_is_no_stream_and_no_crash() {
        if !tch::Cuda::is_available() {
            assert!(!cuda_stream(0).unwrap_err().is_empty());
        }
    }
}
