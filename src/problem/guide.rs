//! The guide to problems: what each reason means, what a viewer sees, and what a client should do.
//! The types of problems link to it.

/// The guide, as Markdown. Each reason has a section with its name.
pub const TEXT: &str = include_str!("guide.md");

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;

    use super::TEXT;
    use crate::problem::Reason;

    /// The chapter about problems that viewers encounter.
    const FOR_VIEWERS: &str = "What a viewer may meet";

    /// Words that a viewer must not see.
    const INTERNALS: &[&str] = &[
        "streamgate",
        "envoy",
        "gateway",
        "redis",
        "store",
        "lease",
        "session",
        "slot",
        "header",
        "cookie",
        "cmcd",
        "token",
        "configur",
        "log",
        "http",
        "null",
        "{",
        "}",
        "\"",
    ];

    /// A section's text, line by line.
    pub(crate) struct Section {
        chapter: &'static str,
        lines: BTreeMap<&'static str, &'static str>,
    }

    impl Section {
        /// The section about a reason.
        pub(crate) fn of(reason: &str) -> Self {
            sections()
                .remove(reason)
                .expect("each reason has a section")
        }

        fn is_for_viewers(&self) -> bool {
            self.chapter == FOR_VIEWERS
        }

        /// The text after the line's name.
        pub(crate) fn line(&self, name: &str) -> &'static str {
            self.lines.get(name).copied().unwrap_or_default()
        }

        /// The words in backticks on a line.
        pub(crate) fn words(&self, name: &str) -> Vec<&'static str> {
            self.line(name).split('`').skip(1).step_by(2).collect()
        }
    }

    fn sections() -> BTreeMap<&'static str, Section> {
        let mut sections = BTreeMap::new();
        for chapter in TEXT.split("\n## ").skip(1) {
            let mut parts = chapter.split("\n### ");
            let head = parts.next().unwrap_or_default();
            let chapter = head.lines().next().unwrap_or_default();
            for part in parts {
                let (reason, text) = part.split_once('\n').unwrap_or((part, ""));
                let lines = text
                    .lines()
                    .filter_map(|line| line.strip_prefix("- ")?.split_once(": "));
                let lines = lines.collect();
                let earlier = sections.insert(reason, Section { chapter, lines });
                assert!(earlier.is_none(), "{reason} has two sections");
            }
        }
        sections
    }

    /// Checks that a problem matches its section in the guide, and that its wording suits its
    /// audience.
    pub(crate) fn assert_explained(problem: &Value, headers: &[&str]) {
        let text = |field: &str| problem[field].as_str().expect("a text");
        let (section, detail) = (Section::of(text("reason")), text("detail"));
        let status = problem["status"].to_string();
        assert!(section.line("Status").contains(&status), "{problem}");
        for header in headers {
            let named = section.words("Headers").contains(header);
            assert!(named, "{header} of {problem}");
        }
        let always = ["type", "title", "status", "detail", "reason"];
        let fields = problem.as_object().expect("an object").keys();
        for field in fields.filter(|field| !always.contains(&field.as_str())) {
            let named = section.words("Fields").contains(&field.as_str());
            assert!(named, "{field} of {problem}");
        }
        let is_sentence = detail.starts_with(char::is_uppercase) && detail.ends_with('.');
        assert!(is_sentence, "{detail}");
        if section.is_for_viewers() {
            let lower = detail.to_lowercase();
            let internal = INTERNALS.iter().find(|internal| lower.contains(**internal));
            assert_eq!(internal, None, "{detail}");
            // One sentence for what happened, and one for what to do.
            assert!(detail.matches('.').count() > 1, "{detail}");
            // The numbers in the guide are examples.
            let shown = section.line("A viewer sees").trim_matches('"');
            let is_other = problem["limit"].as_u64().is_some_and(|limit| limit != 3);
            assert!(is_other || detail == shown, "{detail}\n{shown}");
        }
    }

    #[test]
    fn exactly_the_reasons_have_complete_sections() {
        let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let sections = sections();
        for (name, section) in &sections {
            assert!(reasons.contains(name), "{name} is no reason");
            let mut lines = vec!["Status", "Headers", "Fields", "It means", "A client"];
            if section.is_for_viewers() {
                lines.push("A viewer sees");
            }
            lines.sort_unstable();
            let found: Vec<_> = section.lines.keys().copied().collect();
            assert_eq!(found, lines, "{name}");
        }
        assert_eq!(sections.len(), reasons.len(), "{:?}", sections.keys());
    }
}
