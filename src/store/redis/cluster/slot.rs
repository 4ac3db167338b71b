//! The slots of a cluster: which one a key belongs to, and a small tag in each of them.

use std::iter;
use std::sync::LazyLock;

/// How many slots every cluster has.
pub(in crate::store::redis) const SLOTS: u16 = 16384;

/// A number for each slot: as a hash tag, it belongs to that slot.
static TAGS: LazyLock<Vec<u32>> = LazyLock::new(tags);

/// The slot of a key: the checksum of its hash tag, or of the whole key if it has none.
pub(in crate::store::redis) fn of(key: &[u8]) -> u16 {
    crc16(hash_tag(key)) % SLOTS
}

/// A hash tag that belongs to that slot.
pub(in crate::store::redis) fn tag_of(slot: u16) -> u32 {
    TAGS.get(usize::from(slot)).copied().unwrap_or_default()
}

/// What is between the first `{` and the first `}` after it, if that isn't empty; else the key.
fn hash_tag(key: &[u8]) -> &[u8] {
    let mut parts = key.splitn(2, |byte| *byte == b'{').skip(1);
    let behind = parts.next().unwrap_or_default();
    match behind.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(end) => behind.get(..end).unwrap_or(key),
    }
}

/// CRC16 as XMODEM computes it: polynomial 0x1021, beginning with 0. The shifts stand for the usual
/// table of 256 numbers.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        let mut mixed = (crc >> 8) ^ u16::from(*byte);
        mixed ^= mixed >> 4;
        (crc << 8) ^ (mixed << 12) ^ (mixed << 5) ^ mixed
    })
}

/// The smallest number for each slot.
fn tags() -> Vec<u32> {
    let mut tags: Vec<Option<u32>> = iter::repeat_n(None, usize::from(SLOTS)).collect();
    let mut missing = SLOTS;
    for number in 0.. {
        if missing == 0 {
            break;
        }
        let slot = usize::from(of(number.to_string().as_bytes()));
        if let Some(tag @ None) = tags.get_mut(slot) {
            *tag = Some(number);
            missing -= 1;
        }
    }
    tags.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_specification_s_vectors_hold() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("{user1000}.followers", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("foo}bar{", "foo}bar{"),
            ("", ""),
        ] {
            assert_eq!(hash_tag(key.as_bytes()), tag.as_bytes(), "{key}");
        }
        for (key, slot) in [("", 0), ("foo", 12182), ("bar", 5061), ("x{foo}", 12182)] {
            assert_eq!(of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn each_slot_has_a_tag_of_its_own() {
        for slot in 0..SLOTS {
            assert_eq!(of(tag_of(slot).to_string().as_bytes()), slot);
        }
        assert_eq!(tag_of(SLOTS), 0);
    }
}
