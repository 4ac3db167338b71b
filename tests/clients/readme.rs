//! Owns taking examples out of the README, exactly as they stand there.

const README: &str = include_str!("../../README.md");

/// The first fenced block of that language behind that line.
pub(crate) fn example(behind: &str, language: &str) -> &'static str {
    let fence = format!("\n```{language}\n");
    let found = README.split_once(behind).and_then(|(_, rest)| {
        let (_, block) = rest.split_once(&fence)?;
        let (block, _) = block.split_once("\n```\n")?;
        Some(block)
    });
    found.unwrap_or_else(|| panic!("no {language} behind {behind:?} in the README"))
}
