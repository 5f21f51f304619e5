//! How much memory the process takes.

const GIB: f64 = (1u64 << 30) as f64;

/// Memory of the host that the process holds now, in GiB; 0 where the system does not say.
pub fn resident_gib() -> f64 {
    memory_stats::memory_stats().map_or(0.0, |stats| stats.physical_mem as f64 / GIB)
}

/// The most host memory that the process has ever held, in GiB; none where the system does not say.
pub fn peak_gib() -> Option<f64> {
    kibibytes("/proc/self/status", "VmHWM:")
}

/// Host memory that is free or can be freed at once, in GiB; none where the system does not say.
pub fn available_gib() -> Option<f64> {
    kibibytes("/proc/meminfo", "MemAvailable:")
}

/// The value of a line `name  1234 kB`, in GiB.
fn kibibytes(file: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / GIB)
}
