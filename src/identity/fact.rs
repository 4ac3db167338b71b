//! Facts that are only shown to viewers and operators. No text in them ever stops a stream.

use std::borrow::Cow;

use super::id::{ContentId, DeviceId, IdError, MAX_ID_BYTES};

/// The end of a shortened text.
const ELLIPSIS: char = '…';

/// How many bytes of an overlong text are kept.
const KEPT_BYTES: usize = MAX_ID_BYTES - ELLIPSIS.len_utf8();

/// A fact that is only shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The device that a session plays on.
    Device,
    /// What a session is watching.
    Content,
}

impl Fact {
    /// All facts.
    pub const ALL: [Self; 2] = [Self::Device, Self::Content];

    /// The fact's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Content => "content",
        }
    }
}

/// What happens to a fact that can't be kept unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactLoss {
    /// It is longer than [`MAX_ID_BYTES`], and its end is cut off.
    Shortened,
    /// It is not text, has control characters or is given twice with different values, and is left
    /// out.
    LeftOut,
}

impl FactLoss {
    /// All losses.
    pub const ALL: [Self; 2] = [Self::Shortened, Self::LeftOut];

    /// The loss's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shortened => "shortened",
            Self::LeftOut => "left_out",
        }
    }
}

/// A name that is only shown.
pub trait FactName: Sized {
    /// The fact.
    const FACT: Fact;

    /// The name, if the text is valid unchanged.
    ///
    /// # Errors
    /// The text is empty, longer than [`MAX_ID_BYTES`], or has a control character.
    fn whole(text: &str) -> Result<Self, IdError>;

    /// The text of the name.
    fn text(&self) -> &str;

    /// Whether the name was shortened, so that two equal ones may stand for different texts. An
    /// unshortened text of the same length that ends in an ellipsis counts as shortened.
    fn is_shortened(&self) -> bool {
        let text = self.text();
        text.len() >= KEPT_BYTES && text.ends_with(ELLIPSIS)
    }

    /// As much of a text as can be kept; pass `None` for a value that isn't text. An empty text is
    /// no fact. `lost` is called for what is not kept.
    fn keep(text: Option<&str>, lost: &impl Fn(Fact, FactLoss)) -> Option<Self> {
        let kept = match text {
            Some("") => return None,
            Some(text) => Self::whole(&shorten(text)).ok(),
            None => None,
        };
        match (&kept, text) {
            (None, _) => lost(Self::FACT, FactLoss::LeftOut),
            (Some(_), Some(text)) if text.len() > MAX_ID_BYTES => {
                lost(Self::FACT, FactLoss::Shortened);
            }
            (Some(_), _) => {}
        }
        kept
    }
}

/// The text, cut at a character boundary if it is too long for a name.
fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_ID_BYTES {
        return text.into();
    }
    let (kept, _) = text.split_at(text.floor_char_boundary(KEPT_BYTES));
    format!("{kept}{ELLIPSIS}").into()
}

/// Implements [`FactName`] for a name.
macro_rules! fact_names {
    ($($name:ident => $fact:ident),+) => {
        $(impl FactName for $name {
            const FACT: Fact = Fact::$fact;

            fn whole(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }

            fn text(&self) -> &str {
                self.as_str()
            }
        })+
    };
}

fact_names!(DeviceId => Device, ContentId => Content);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// What is kept of a device's text, and the reported losses.
    fn kept(text: Option<&str>) -> (Option<String>, Vec<FactLoss>) {
        let losses = RefCell::new(Vec::new());
        let device = DeviceId::keep(text, &|fact, loss| {
            assert_eq!(fact, Fact::Device);
            losses.borrow_mut().push(loss);
        });
        (device.map(|device| device.to_string()), losses.into_inner())
    }

    #[test]
    fn overlong_facts_are_cut_and_invalid_ones_left_out() {
        let cut = |text: &str| (Some(text.to_owned()), vec![FactLoss::Shortened]);
        let whole = |text: &str| (Some(text.to_owned()), vec![]);
        let none = || (None, vec![FactLoss::LeftOut]);
        let letters = |count| "x".repeat(count);
        let (wide, widest) = ("é".repeat(200), "\u{1f600}".repeat(100));
        for (text, expected) in [
            (Some("tv"), whole("tv")),
            (Some(""), (None, vec![])),
            (Some(&*letters(256)), whole(&letters(256))),
            (Some(&*letters(257)), cut(&format!("{}…", letters(253)))),
            (Some(&*letters(40_000)), cut(&format!("{}…", letters(253)))),
            (Some(&*wide), cut(&format!("{}…", "é".repeat(126)))),
            (Some(&*widest), cut(&format!("{}…", "\u{1f600}".repeat(63)))),
            (Some("a\nb"), none()),
            (Some(&*format!("{}\n", letters(252))), none()),
            // The part that is cut off does no harm.
            (
                Some(&*format!("{}\n", letters(256))),
                cut(&format!("{}…", letters(253))),
            ),
            (None, none()),
        ] {
            assert_eq!(kept(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_kept_as_far_as_a_name_may_go(text in "\\PC{1,300}") {
            let (kept, losses) = kept(Some(&text));
            let kept = kept.unwrap();
            prop_assert!(kept.len() <= MAX_ID_BYTES);
            if text.len() <= MAX_ID_BYTES {
                prop_assert_eq!(kept, text);
            } else {
                let beginning = kept.strip_suffix(ELLIPSIS).unwrap();
                prop_assert!(text.starts_with(beginning) && beginning.len() + 3 >= KEPT_BYTES);
                prop_assert_eq!(losses, vec![FactLoss::Shortened]);
            }
        }
    }
}
