//! The token that a command sends to the API. It comes from a file or the environment, never from
//! an argument, which everybody on the machine can see.
//!
//! No error shows a token, or a part of one.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use http::HeaderValue;

/// The variable with the token.
const VARIABLE: &str = "STREAMGATE_TOKEN";

/// The variable with the path of the token's file.
const FILE_VARIABLE: &str = "STREAMGATE_TOKEN_FILE";

/// The length of the longest token. Servers refuse longer headers.
const MAX_BYTES: usize = 4096;

/// A token, as the value of its header. `Debug` doesn't show it.
#[derive(Debug, Clone)]
pub(super) struct Token(HeaderValue);

/// Why there is no token where one is expected.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {flaw}")]
pub(in crate::cli) struct NoToken {
    /// Where the token should be.
    place: String,
    /// What is wrong.
    flaw: TokenFlaw,
}

/// What is wrong with a token.
#[derive(Debug, thiserror::Error)]
enum TokenFlaw {
    /// It can't be read.
    #[error("the token can't be read: {0}")]
    Unreadable(std::io::Error),
    /// It is empty.
    #[error("the token is empty; write it on the first line")]
    Empty,
    /// It is too long.
    #[error("the token is too long; allowed: at most {MAX_BYTES} bytes on the first line")]
    TooLong,
    /// It has characters that can't be sent, or that end a token.
    #[error(
        "the token has a space or another character that is not allowed; allowed: printable ASCII without spaces"
    )]
    Malformed,
}

impl Token {
    /// The token of the file, or without a file, that of the environment; `None` if neither has
    /// one.
    ///
    /// # Errors
    /// The file, or the variable, has no token.
    pub(super) fn find(
        file: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, NoToken> {
        let found = if let Some(file) = file {
            Some((format!("--token-file {}", file.display()), first_line(file)))
        } else if let Some(token) = variable(VARIABLE) {
            Some((VARIABLE.to_owned(), Ok(token.into_encoded_bytes())))
        } else {
            variable(FILE_VARIABLE).map(|file| {
                let file = Path::new(&file);
                (
                    format!("{FILE_VARIABLE}={}", file.display()),
                    first_line(file),
                )
            })
        };
        found
            .map(|(place, text)| {
                let token = text.and_then(|text| Self::parse(&text));
                token.map_err(|flaw| NoToken { place, flaw })
            })
            .transpose()
    }

    /// Reads a text as a token.
    fn parse(text: &[u8]) -> Result<Self, TokenFlaw> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err(TokenFlaw::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(TokenFlaw::TooLong);
        }
        if !text.iter().all(u8::is_ascii_graphic) {
            return Err(TokenFlaw::Malformed);
        }
        let header = [b"Bearer ", text].concat();
        let mut header = HeaderValue::from_bytes(&header).map_err(|_| TokenFlaw::Malformed)?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    /// The value of `Authorization`.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.0
    }
}

/// The first line of a file, up to the greatest length of a token.
fn first_line(file: &Path) -> Result<Vec<u8>, TokenFlaw> {
    let limit = u64::try_from(2 * MAX_BYTES).unwrap_or(u64::MAX);
    let mut line = Vec::new();
    std::fs::File::open(file)
        .and_then(|file| {
            BufReader::new(file)
                .take(limit)
                .read_until(b'\n', &mut line)
        })
        .map_err(TokenFlaw::Unreadable)?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a file with that text.
    fn of_file(text: &[u8]) -> Result<Option<Token>, NoToken> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, text).unwrap();
        Token::find(Some(&file), |_| None)
    }

    fn header(token: Result<Option<Token>, NoToken>) -> Option<String> {
        let token = token.unwrap()?;
        Some(token.header().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_first_line_of_a_file_is_the_token() {
        for text in [
            &b"s3cr3t~+/="[..],
            b"s3cr3t~+/=\n",
            b" s3cr3t~+/=\t\r\n# of the night shift\n",
        ] {
            assert_eq!(header(of_file(text)).as_deref(), Some("Bearer s3cr3t~+/="));
        }
    }

    #[test]
    fn a_malformed_token_is_never_echoed() {
        let long = "s3cr3t".repeat(2000);
        for (text, expected) in [
            (&b""[..], "is empty"),
            (b"\ns3cr3t", "is empty"),
            (b"s3cr3t operator anna\n", "has a space"),
            (b"s3cr3t\x01\n", "has a space or another character"),
            ("s3cr3té".as_bytes(), "has a space or another character"),
            (b"s3cr3t\xff\n", "has a space or another character"),
            (long.as_bytes(), "is too long"),
        ] {
            let error = of_file(text).unwrap_err();
            let told = format!("{error} {error:?}");
            assert!(told.contains(expected), "{told}");
            assert!(
                told.contains("/token: the token") && !told.contains("s3cr3t"),
                "{told}"
            );
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Token::find(Some(Path::new("/nowhere/token")), |_| None).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--token-file /nowhere/token: the token can't be read: No such file"),
            "{error}"
        );
    }

    #[test]
    fn the_argument_beats_the_token_in_the_environment_which_beats_a_file_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "of-file").unwrap();
        let both = |name: &str| match name {
            VARIABLE => Some("of-variable".into()),
            FILE_VARIABLE => Some(file.clone().into_os_string()),
            _ => None,
        };
        let one = |name: &str| both(name).filter(|_| name == FILE_VARIABLE);
        for (found, expected) in [
            (Token::find(Some(&file), both), Some("Bearer of-file")),
            (Token::find(None, both), Some("Bearer of-variable")),
            (Token::find(None, one), Some("Bearer of-file")),
            (Token::find(None, |_| None), None),
        ] {
            assert_eq!(header(found).as_deref(), expected);
        }
        let empty = Token::find(None, |name| (name == VARIABLE).then(OsString::new));
        assert!(
            empty
                .unwrap_err()
                .to_string()
                .starts_with("STREAMGATE_TOKEN: the token is empty")
        );
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let shown = format!("{:?}", of_file(b"s3cr3t").unwrap());
        assert!(!shown.contains("s3cr3t"), "{shown}");
    }
}
