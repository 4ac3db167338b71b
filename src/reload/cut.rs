//! Tells a truncated text from a changed one.
//!
//! A full disk, `: > file` or an interrupted copy leaves only the beginning of the text. Many
//! formats accept that as a valid text with less in it: limits and tokens disappear, a dry run
//! ends. So an intended end must be marked.

/// The line that marks an intended end: a comment in all guarded files.
const END: &[u8] = b"# end";

/// The error for an empty text.
pub(super) const EMPTY: &str = "the file is empty (0 bytes), as after an interrupted write; if this is intended, write the line `# end` into it";

/// Checks a changed text against the one in force.
pub(super) fn check(in_force: &[u8], changed: &[u8]) -> Result<(), String> {
    if changed.is_empty() {
        return Err(EMPTY.to_owned());
    }
    if has_end(changed) {
        return Ok(());
    }
    let lines = changed.split_inclusive(|byte| *byte == b'\n').count();
    if changed.len() < in_force.len() && in_force.starts_with(changed) {
        return Err(format!(
            "the file stops at line {lines} and is only the beginning of the text in force, as after an interrupted write; if this is intended, end the file with the line `# end`, or restart"
        ));
    }
    if has_end(in_force) {
        return Err(format!(
            "the file stops at line {lines} without the line `# end`, which the text in force ends with, as after an interrupted write; \
             end the file with the line `# end`, or restart"
        ));
    }
    Ok(())
}

/// Whether the last non-empty line marks an intended end.
fn has_end(text: &[u8]) -> bool {
    let text = text.trim_ascii_end();
    let rest = text.strip_suffix(END);
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with(b"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "limits:\n  users:\n    anna: 1\n    ben: 2\n";

    #[test]
    fn a_text_cut_at_any_byte_is_refused_with_its_line() {
        for cut in 0..TEXT.len() {
            let told = check(TEXT.as_bytes(), &TEXT.as_bytes()[..cut]).unwrap_err();
            let line = TEXT[..cut].lines().count();
            let expected = match cut {
                0 => EMPTY.to_owned(),
                _ => format!("the file stops at line {line} and is only the beginning"),
            };
            assert!(told.starts_with(&expected), "{cut}: {told}");
            // With the end marker, the shorter text is accepted.
            let meant = format!("{}\n# end\n", &TEXT[..cut]);
            assert_eq!(check(TEXT.as_bytes(), meant.as_bytes()), Ok(()), "{cut}");
        }
    }

    #[test]
    fn a_text_that_is_changed_or_longer_is_taken() {
        for changed in [
            TEXT.to_owned(),
            format!("{TEXT}    carl: 3\n"),
            TEXT.replace("anna: 1", "anna: 2"),
            TEXT.replace("    anna: 1\n", ""),
            "limits: {}\n".to_owned(),
            "#".to_owned(),
            "\n".to_owned(),
        ] {
            assert_eq!(
                check(TEXT.as_bytes(), changed.as_bytes()),
                Ok(()),
                "{changed:?}"
            );
        }
    }

    #[test]
    fn a_text_with_an_end_marker_must_keep_it() {
        for in_force in [
            "a 1\n# end\n",
            "# end",
            "a 1\r\n# end\r\n",
            "a 1\n# end \n\n",
        ] {
            for changed in [
                "b 1\n",
                "a 1\nb 1\n # end\n",
                "b 1 # end\n",
                "b 1\n# ends",
                "b 1\n# end\nc 1\n",
            ] {
                let told = check(in_force.as_bytes(), changed.as_bytes()).unwrap_err();
                assert!(
                    told.contains("without the line `# end`"),
                    "{in_force:?}, {changed:?}: {told}"
                );
            }
            for changed in ["# end", "b 1\n# end\n", "b 1\n# end\n\n"] {
                assert_eq!(
                    check(in_force.as_bytes(), changed.as_bytes()),
                    Ok(()),
                    "{in_force:?}, {changed:?}"
                );
            }
        }
    }
}
