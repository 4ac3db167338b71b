//! Reads protobuf messages field by field, without copying anything.

/// How deep groups may be nested, as in prost. Nobody sends any: protobuf has given them up.
const MAX_DEPTH: u32 = 100;

/// Why bytes can't be decoded as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::envoy) enum FieldError {
    /// They end within a field.
    #[error("buffer underflow")]
    Underflow,
    /// A number has too many bytes.
    #[error("invalid varint")]
    Varint,
    /// A field's number or type doesn't exist.
    #[error("invalid key value: {0}")]
    Key(u64),
    /// The field has another type.
    #[error("invalid wire type: expected {0}")]
    WireType(&'static str),
    /// A group ends that has not begun, or groups are nested too deeply.
    #[error("unexpected end group tag, or groups that are nested too deeply")]
    Group,
    /// A text is not UTF-8.
    #[error("invalid string value: data is not UTF-8 encoded")]
    NotText,
}

/// The fields of a message that have not been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageFields<'a>(pub(super) &'a [u8]);

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// A message, a text or bytes.
    Bytes(&'a [u8]),
    /// A number of variable length.
    Number(u64),
    /// A number of fixed length or a group, which was skipped.
    Other,
}

impl<'a> Field<'a> {
    /// The bytes of a message.
    pub(super) fn bytes(self) -> Result<&'a [u8], FieldError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) | Self::Other => Err(FieldError::WireType("a length")),
        }
    }

    /// A number.
    pub(super) fn number(self) -> Result<u64, FieldError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) | Self::Other => Err(FieldError::WireType("a number")),
        }
    }

    /// A text.
    pub(super) fn text(self) -> Result<&'a str, FieldError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| FieldError::NotText)
    }
}

impl<'a> MessageFields<'a> {
    /// The next field's number, and what it holds; `None` at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, FieldError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire) = self.key()?;
        let field = match wire {
            0 => Field::Number(self.varint()?),
            2 => Field::Bytes(self.with_length()?),
            _ => {
                self.skip(number, wire, 0)?;
                Field::Other
            }
        };
        Ok(Some((number, field)))
    }

    /// A field's number and wire type.
    #[inline]
    fn key(&mut self) -> Result<(u32, u8), FieldError> {
        let key = self.varint()?;
        let (number, wire) = (u32::try_from(key >> 3), key & 7);
        match (number, u8::try_from(wire)) {
            (Ok(number), Ok(wire)) if number > 0 && key <= u64::from(u32::MAX) && wire < 6 => {
                Ok((number, wire))
            }
            _ => Err(FieldError::Key(key)),
        }
    }

    /// Bytes after their length.
    #[inline]
    fn with_length(&mut self) -> Result<&'a [u8], FieldError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| FieldError::Underflow)?)
    }

    /// That many bytes.
    #[inline]
    fn take(&mut self, length: usize) -> Result<&'a [u8], FieldError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(FieldError::Underflow)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number: seven bits in each byte, the lowest first.
    #[inline]
    fn varint(&mut self) -> Result<u64, FieldError> {
        let (&first, rest) = self.0.split_first().ok_or(FieldError::Underflow)?;
        if first < 0x80 {
            self.0 = rest;
            return Ok(u64::from(first));
        }
        self.long_varint()
    }

    /// One of several bytes.
    fn long_varint(&mut self) -> Result<u64, FieldError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(FieldError::Underflow)?;
            self.0 = rest;
            if shift == 63 && byte > 1 {
                return Err(FieldError::Varint);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FieldError::Varint)
    }

    /// Skips what follows a key.
    fn skip(&mut self, number: u32, wire: u8, depth: u32) -> Result<(), FieldError> {
        match wire {
            0 => self.varint().map(drop),
            1 => self.take(8).map(drop),
            2 => self.with_length().map(drop),
            3 if depth < MAX_DEPTH => loop {
                let (inner, wire) = self.key()?;
                if wire == 4 {
                    return if inner == number {
                        Ok(())
                    } else {
                        Err(FieldError::Group)
                    };
                }
                self.skip(inner, wire, depth + 1)?;
            },
            5 => self.take(4).map(drop),
            _ => Err(FieldError::Group),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::encoding::{DecodeContext, decode_key, skip_field};

    use super::*;

    /// The numbers of a message's fields.
    fn numbers(bytes: &[u8]) -> Result<Vec<u32>, FieldError> {
        let (mut fields, mut numbers) = (MessageFields(bytes), Vec::new());
        while let Some((number, _)) = fields.next()? {
            numbers.push(number);
        }
        Ok(numbers)
    }

    /// The same as prost reads it.
    fn prosts(mut bytes: &[u8]) -> Option<Vec<u32>> {
        let mut numbers = Vec::new();
        while !bytes.is_empty() {
            let (number, wire) = decode_key(&mut bytes).ok()?;
            skip_field(wire, number, &mut bytes, DecodeContext::default()).ok()?;
            numbers.push(number);
        }
        Some(numbers)
    }

    proptest! {
        /// Bytes below 40 are frequent, because they are keys and lengths.
        #[test]
        fn any_bytes_are_read_as_prost_reads_them(
            bytes in vec(prop_oneof![4 => 0_u8..40, 1 => any::<u8>()], 0..60),
        ) {
            prop_assert_eq!(numbers(&bytes).ok(), prosts(&bytes));
        }
    }

    #[test]
    fn numbers_have_at_most_64_bits() {
        let of = |last: u8| [&[0x08][..], &[0xff; 9], &[last]].concat();
        assert_eq!(numbers(&of(1)), Ok(vec![1]));
        assert_eq!(numbers(&of(2)), Err(FieldError::Varint));
        assert_eq!(numbers(&of(0x80)), Err(FieldError::Varint));
        assert_eq!(numbers(&[0xff; 3]), Err(FieldError::Underflow));
        // The largest number of a field is 2^29 - 1.
        assert_eq!(
            numbers(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 0]),
            Ok(vec![(1 << 29) - 1])
        );
        assert!(matches!(
            numbers(&[0xf8, 0xff, 0xff, 0xff, 0x1f, 0]),
            Err(FieldError::Key(_))
        ));
    }

    #[test]
    fn groups_are_skipped_up_to_prosts_depth() {
        for depth in [1, 99, 100, 101, 10_000] {
            let nested = [vec![0x0b; depth], vec![0x0c; depth]].concat();
            let read = numbers(&nested);
            assert_eq!(read.clone().ok(), prosts(&nested), "{depth}");
            assert_eq!(read.is_ok(), depth <= 100, "{depth}");
        }
        assert_eq!(numbers(&[0x0b, 0x14]), Err(FieldError::Group));
        assert_eq!(numbers(&[0x0c]), Err(FieldError::Group));
    }
}
