//! Puts right what would hide a change from all but the first lines of a reader.

/// Nothing to put right.
pub(crate) fn nothing(_: &mut [u8]) {}

/// The checksum of every chunk of a PNG, as far as its chunks follow each other.
pub(crate) fn png(bytes: &mut [u8]) {
    let mut at = 8;
    while let Some(length) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        let data = at + 8;
        let Some(end) = data.checked_add(u32::from_be_bytes(*length) as usize) else { return };
        let Some(checked) = bytes.get(at + 4..end) else { return };
        let sum = crc32fast::hash(checked).to_be_bytes();
        let Some(place) = bytes.get_mut(end..end + 4) else { return };
        place.copy_from_slice(&sum);
        at = end + 4;
    }
}

/// The checksum of every header of a tar file, as far as its members follow each other.
pub(crate) fn tar(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<512>()) {
        if header.iter().all(|byte| *byte == 0) {
            at += 512;
            continue;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let Ok(header) = std::str::from_utf8(&header[124..135]) else { return };
        let Ok(size) = usize::from_str_radix(header.trim_matches([' ', '\0']), 8) else { return };
        at += 512 + size.next_multiple_of(512);
    }
}

/// The length of a safetensors header, which ends with the last brace.
pub(crate) fn safetensors(bytes: &mut [u8]) {
    if let Some(brace) = bytes.iter().rposition(|byte| *byte == b'}').filter(|brace| *brace > 8) {
        let length = brace as u64 - 7;
        bytes[..8].copy_from_slice(&length.to_le_bytes());
    }
}
