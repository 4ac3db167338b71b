//! The bytes of reports and tallies: numbers of variable length, and texts with their lengths.

/// Collects bytes.
#[derive(Debug, Default)]
pub(super) struct Encoder(Vec<u8>);

/// Takes bytes apart again. Everything is checked: another version, or anybody, may have written
/// them.
#[derive(Debug)]
pub(super) struct Decoder<'a>(&'a [u8]);

// === impl Encoder ===

impl Encoder {
    /// Adds a number in one to ten bytes, seven bits each.
    pub(super) fn number(&mut self, number: impl Into<u64>) {
        let mut rest: u64 = number.into();
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                self.0.push(low & 0x7f);
                return;
            }
            self.0.push(low | 0x80);
        }
    }

    /// Adds a number of items.
    pub(super) fn count(&mut self, count: usize) {
        self.number(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// Adds a digest in eight bytes.
    pub(super) fn word(&mut self, word: u64) {
        self.0.extend(word.to_be_bytes());
    }

    /// Adds a text, preceded by its length.
    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len());
        self.0.extend(text.as_bytes());
    }

    /// All bytes so far.
    pub(super) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

// === impl Decoder ===

impl<'a> Decoder<'a> {
    /// A decoder of these bytes.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next number.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    /// The next number, if it fits.
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Option<T> {
        T::try_from(self.number()?).ok()
    }

    /// How many items follow; `None` if there can't be that many in the rest.
    pub(super) fn count(&mut self) -> Option<usize> {
        let count: usize = self.small()?;
        (count <= self.0.len()).then_some(count)
    }

    /// The next digest.
    pub(super) fn word(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*first))
    }

    /// The next text.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = self.count()?;
        let (first, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        str::from_utf8(first).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(numbers in prop::collection::vec(any::<u64>(), 0..9), text in ".{0,9}") {
            let mut encoder = Encoder::default();
            for number in &numbers {
                encoder.number(*number);
                encoder.word(*number);
            }
            encoder.text(&text);
            let bytes = encoder.bytes();
            let mut decoder = Decoder::new(&bytes);
            for number in numbers {
                prop_assert_eq!(decoder.number(), Some(number));
                prop_assert_eq!(decoder.word(), Some(number));
            }
            prop_assert_eq!(decoder.text(), Some(&*text));
            prop_assert_eq!(decoder.number(), None);
        }
    }
}
