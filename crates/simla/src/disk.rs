//! What to say of a disk that takes no more.

use std::io;

/// Advice to append to a message about `error` while writing; empty where there is none.
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ": free some space, or keep fewer checkpoints (--set keep=N), and go on with --resume; the last checkpoint is whole"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_gets_advice_and_a_missing_file_none() {
        const ENOSPC: i32 = 28;
        const ENOENT: i32 = 2;
        assert!(advice(&io::Error::from_raw_os_error(ENOSPC)).contains("keep=N"));
        assert_eq!(advice(&io::Error::from_raw_os_error(ENOENT)), "");
    }
}
