//! What a container, or another control group of Linux, lets its processes have: versions 1 and 2.

use std::fs;
use std::path::{Path, PathBuf};

/// The processor time a second, in cores; nothing where there is no limit.
pub fn cores() -> Option<f64> {
    cores_in(Path::new("/"))
}

/// The memory in bytes; nothing where there is no limit.
pub fn memory() -> Option<u64> {
    memory_in(Path::new("/"))
}

fn cores_in(root: &Path) -> Option<f64> {
    let limits = groups(root, "cpu").into_iter().filter_map(|group| {
        let read = |name: &str| fs::read_to_string(group.join(name)).ok();
        // `max 100000` or `150000 100000`: microseconds of each period; version 1 has them in two files, and -1 for none.
        let text = read("cpu.max")
            .or_else(|| Some(format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?)))?;
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?).filter(|cores| *cores > 0.0)
    });
    limits.reduce(f64::min)
}

fn memory_in(root: &Path) -> Option<u64> {
    let limits = groups(root, "memory").into_iter().filter_map(|group| {
        let read = |name: &str| fs::read_to_string(group.join(name)).ok();
        read("memory.max").or_else(|| read("memory.limit_in_bytes"))?.trim().parse::<u64>().ok()
    });
    // Version 1 writes a number near 2^63 for none.
    limits.min().filter(|bytes| *bytes < 1 << 60)
}

/// The folders of this process's group and of those around it, for a `controller`. In a container the inner ones may not
/// be seen; the outermost is its own then.
fn groups(root: &Path, controller: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut found = Vec::new();
    // A line is `0::/user.slice/x` in version 2 and `4:cpu,cpuacct:/docker/x` in version 1.
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let mount = root.join("sys/fs/cgroup");
        let mount = match controllers {
            "" => mount,
            _ if controllers.split(',').any(|name| name == controller) => mount.join(controller),
            _ => continue,
        };
        found.extend(Path::new(path.trim_start_matches('/')).ancestors().map(|group| mount.join(group)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn version_2_takes_the_narrowest_of_the_groups_around() {
        let root = machine(&[
            ("proc/self/cgroup", "0::/outer/inner\n"),
            ("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/outer/inner/memory.max", "3000000\n"),
            ("sys/fs/cgroup/outer/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/outer/memory.max", "max\n"),
        ]);
        assert_eq!(cores_in(root.path()), Some(1.5));
        assert_eq!(memory_in(root.path()), Some(3_000_000));
    }

    #[test]
    fn version_1_in_a_container_that_sees_its_own_group_alone() {
        let root = machine(&[
            ("proc/self/cgroup", "5:memory:/docker/1f\n4:cpu,cpuacct:/docker/1f\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(cores_in(root.path()), Some(2.0));
        assert_eq!(memory_in(root.path()), None);
    }

    #[test]
    fn no_limits_are_none() {
        let root = machine(&[
            ("proc/self/cgroup", "4:cpu:/\n0::/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!((cores_in(root.path()), memory_in(root.path())), (None, None));
        let nothing = machine(&[]);
        assert_eq!((cores_in(nothing.path()), memory_in(nothing.path())), (None, None));
    }
}
