//! The compact forms of names: a UUID in sixteen bytes, and six bits for each letter, digit, `-`
//! and `_`.

/// The form of a UUID: its sixteen bytes instead of thirty-six characters. Most session ids are
/// UUIDs.
pub(super) const UUID_FORM: u8 = 16;

/// The form of a text of only letters, digits, `-` and `_`: six bits a character, and as many
/// characters as fit in the bytes.
pub(super) const PACKED_FORM: u8 = 32;

/// The same, but with one character fewer than would fit in the bytes.
pub(super) const PACKED_SHORT_FORM: u8 = 48;

/// The shortest text that packing makes shorter.
const LEAST_PACKED: usize = 4;

/// The characters with six-bit codes, in the order of their codes.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The compact form of a text, if it has one. A text has exactly one form, and the bytes of a form
/// decode to exactly one text.
pub(super) fn compact(text: &str) -> Option<(u8, Vec<u8>)> {
    if let Some(uuid) = parse_uuid(text) {
        return Some((UUID_FORM, uuid.to_vec()));
    }
    let packed = pack(text.as_bytes())?;
    let form = if room_in(&packed) == text.len() {
        PACKED_FORM
    } else {
        PACKED_SHORT_FORM
    };
    (text.len() >= LEAST_PACKED).then_some((form, packed))
}

/// Decodes the bytes of a form, if they are valid.
pub(super) fn expand(form: u8, bytes: &[u8]) -> Option<String> {
    let text = match form {
        0 => std::str::from_utf8(bytes).ok()?.to_owned(),
        UUID_FORM => format_uuid(u128::from_be_bytes(bytes.try_into().ok()?)),
        PACKED_FORM => unpack(bytes, room_in(bytes))?,
        PACKED_SHORT_FORM => unpack(bytes, room_in(bytes).checked_sub(1)?)?,
        _ => return None,
    };
    Some(text)
}

/// Packs six bits a character and pads the last byte with zeros; `None` if a character has no code.
fn pack(text: &[u8]) -> Option<Vec<u8>> {
    let mut packed = Vec::with_capacity(text.len());
    for four in text.chunks(4) {
        let mut bits = 0_u32;
        for character in four {
            bits = bits << 6 | u32::from(six_bits(*character)?);
        }
        bits <<= 8 + 6 * (4 - four.len());
        packed.extend(bits.to_be_bytes().into_iter().take(four.len().min(3)));
    }
    Some(packed)
}

/// Unpacks that many characters; `None` if anything follows them.
fn unpack(packed: &[u8], length: usize) -> Option<String> {
    let mut text = String::with_capacity(room_in(packed));
    for three in packed.chunks(3) {
        let bits = three
            .iter()
            .fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        for shift in [18, 12, 6, 0] {
            let index = usize::try_from(bits >> shift & 63).ok()?;
            text.push(char::from(*ALPHABET.get(index)?));
        }
    }
    let filling = text.split_off(length.min(text.len()));
    filling
        .bytes()
        .all(|character| six_bits(character) == Some(0))
        .then_some(text)
}

/// How many packed characters fit in those bytes.
const fn room_in(packed: &[u8]) -> usize {
    packed.len() * 8 / 6
}

/// A character's index in the [`ALPHABET`].
const fn six_bits(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// The bytes of a UUID in its usual form: lower case, with hyphens. Any other spelling is rejected,
/// so that every text decodes to exactly what was encoded.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let value = u128::from_str_radix(&text.replace('-', ""), 16).ok()?;
    (format_uuid(value) == text).then(|| value.to_be_bytes())
}

/// Formats a UUID in its usual form.
fn format_uuid(value: u128) -> String {
    let hex = format!("{value:032x}");
    let mut text = String::with_capacity(36);
    for (index, digit) in hex.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    proptest! {
        #[test]
        fn bytes_that_can_be_read_are_those_that_are_written(
            form in select(&[0, UUID_FORM, PACKED_FORM, PACKED_SHORT_FORM][..]),
            bytes in proptest::collection::vec(any::<u8>(), 1..20),
        ) {
            // A text decoded from a form that isn't its own can't match any key that we ask about,
            // so it does no harm.
            if let Some(text) = expand(form, &bytes) && let Some((own, written)) = compact(&text) && own == form {
                prop_assert_eq!(written, bytes);
            }
        }
    }
}
