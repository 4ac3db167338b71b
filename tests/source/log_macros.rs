//! The arguments of a logging macro are evaluated only where its level is enabled, so nothing in
//! them may have an effect. And they name users only where `telemetry.log_users` can replace them
//! by hashes. Here the sources are searched for calls that break these rules.

use std::path::{Path, PathBuf};

/// The macros that evaluate their arguments only sometimes.
const MACROS: [&str; 15] = [
    "trace",
    "debug",
    "info",
    "warn",
    "error",
    "event",
    "span",
    "trace_span",
    "debug_span",
    "info_span",
    "warn_span",
    "error_span",
    "debug_assert",
    "debug_assert_eq",
    "debug_assert_ne",
];

/// Calls that change their receiver, whatever its type.
const CHANGING_CALLS: [&str; 6] = [
    ".fetch_",
    ".next(",
    ".recv(",
    ".send(",
    ".send_replace(",
    ".store(",
];

/// The source with everything that is no code blanked out: comments, strings, characters. Each
/// string leaves a `0` behind, since what follows it follows an expression.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let is_in_word = before.is_alphanumeric() || before == '_';
        let (length, left) = match not_code(rest) {
            Some((length, left)) if !(is_in_word && first.is_alphabetic()) => (length, left),
            _ => (first.len_utf8(), ""),
        };
        let (skipped, behind) = rest.split_at(length);
        if length == first.len_utf8() && left.is_empty() {
            code.push(first);
            before = first;
        } else {
            code.push_str(left);
            let lines = skipped.matches('\n').count();
            code.extend(std::iter::repeat_n('\n', lines));
            before = ' ';
        }
        rest = behind;
    }
    code
}

/// The length of the comment, string or character that begins here, and what replaces it.
fn not_code(rest: &str) -> Option<(usize, &'static str)> {
    if rest.starts_with("//") {
        return Some((rest.find('\n').unwrap_or(rest.len()), " "));
    }
    if rest.starts_with("/*") {
        let end = rest.find("*/").map_or(rest.len(), |end| end + 2);
        return Some((end, " "));
    }
    let prefix = rest.len() - rest.trim_start_matches(['b', 'c', 'r']).len();
    let is_raw = rest[..prefix].contains('r');
    let hashes = rest[prefix..].len() - rest[prefix..].trim_start_matches('#').len();
    let body = prefix + hashes;
    if prefix <= 2 && rest[body..].starts_with('"') && (is_raw || hashes == 0) {
        let body = body + 1;
        let length = if is_raw {
            let end = format!("\"{}", "#".repeat(hashes));
            rest[body..].find(&end).map(|at| at + end.len())
        } else {
            end_of_quoted(&rest[body..], '"')
        };
        return Some((length.map_or(rest.len(), |length| body + length), "0"));
    }
    // `'a` is a lifetime, `'a'` a character.
    let inside = rest.strip_prefix('\'')?;
    let mut characters = inside.char_indices();
    let (_, first) = characters.next()?;
    let (second_at, second) = characters.next()?;
    match (first, second) {
        ('\\', _) => end_of_quoted(inside, '\'').map(|length| (1 + length, "0")),
        (_, '\'') => Some((1 + second_at + 1, "0")),
        _ => None,
    }
}

/// Where a quoted text ends, its quote included.
fn end_of_quoted(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            character if character == quote => return Some(at + character.len_utf8()),
            _ => {}
        }
    }
    None
}

/// The arguments of each call of these macros, and the line on which it begins.
fn calls(code: &str) -> Vec<(usize, &str)> {
    let mut calls = Vec::new();
    for (at, _) in code.match_indices('!') {
        let name = code[..at]
            .rsplit(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        let arguments = code[at + 1..].trim_start();
        if !MACROS.contains(&name.unwrap_or_default()) || !arguments.starts_with(['(', '[', '{']) {
            continue;
        }
        let mut depth = 0;
        let end = arguments.char_indices().find_map(|(end, character)| {
            match character {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(end)
        });
        let end = end.expect("what is opened is closed");
        calls.push((code[..at].matches('\n').count() + 1, &arguments[1..end]));
    }
    calls
}

/// The expressions with an effect in the arguments of a macro.
fn effects(arguments: &str) -> Vec<String> {
    let squeezed: String = arguments.split_whitespace().collect::<Vec<_>>().join(" ");
    let squeezed = squeezed.replace(" .", ".").replace(". ", ".");
    let has_word = |text: &str| {
        squeezed.match_indices(text).any(|(at, _)| {
            let behind = squeezed[at + text.len()..].chars().next();
            behind.is_none_or(|c| !c.is_alphanumeric() && c != '_')
        })
    };
    let mut found = Vec::new();
    for text in [".await", "&mut", "& mut"] {
        if has_word(text) {
            found.push(text.to_owned());
        }
    }
    // `?field` begins an argument and has it formatted; the operator follows an expression.
    let is_operator = |at: usize| {
        let before = squeezed[..at].trim_end().chars().next_back();
        before.is_some_and(|c| !matches!(c, ',' | '=' | '(' | '{'))
    };
    if squeezed.match_indices('?').any(|(at, _)| is_operator(at)) {
        found.push("?".to_owned());
    }
    let calls = CHANGING_CALLS
        .iter()
        .filter(|call| squeezed.contains(**call));
    found.extend(calls.map(|call| (*call).to_owned()));
    found
}

/// The arguments that name a user in another way than `user.id = …`, as a string.
fn named_users(arguments: &str) -> Vec<&str> {
    let mut depth = 0;
    let arguments = arguments.split(|c| {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    let is_word = |word: &str| ["user", "UserId"].contains(&word);
    let names_user = |it: &&str| {
        it.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(is_word)
    };
    let is_allowed = |it: &&str| {
        let value = it.strip_prefix("user.id = ");
        value.is_some_and(|value| !value.starts_with(['%', '?']))
    };
    let arguments = arguments.map(str::trim).filter(names_user);
    arguments.filter(|it| !is_allowed(it)).collect()
}

/// Every Rust file below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn no_logging_macro_has_an_effect_in_its_arguments() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in sources(&root) {
        let code = code_of(&std::fs::read_to_string(&path).unwrap());
        for (line, arguments) in calls(&code) {
            seen += 1;
            let effects = effects(arguments).join(", ");
            if !effects.is_empty() {
                wrong.push(format!("{}:{line}: {effects}", path.display()));
            }
        }
    }
    assert!(seen >= 40, "found only {seen} calls: the search is broken");
    assert!(
        wrong.is_empty(),
        "evaluated only where the level is enabled; bind it to a name before the macro:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_log_line_names_a_user_only_in_the_field_that_is_hashed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut seen, mut wrong) = (0, Vec::new());
    for path in sources(&root) {
        let source = std::fs::read_to_string(&path).unwrap();
        let code = code_of(&source);
        for (line, arguments) in calls(&code) {
            seen += arguments.matches("user.id = ").count();
            let named = named_users(arguments).into_iter().map(str::to_owned);
            let lines = source.lines().skip(line - 1);
            let lines = lines.take(arguments.lines().count());
            let in_text = lines.filter(|line| line.contains("{user"));
            for what in named.chain(in_text.map(|line| line.trim().to_owned())) {
                wrong.push(format!("{}:{line}: {what}", path.display()));
            }
        }
    }
    assert!(seen >= 10, "found only {seen} users: the search is broken");
    assert!(
        wrong.is_empty(),
        "`telemetry.log_users: hashed` hides only `user.id = user.as_str()`:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_user_in_another_field_is_found() {
    for (source, expected) in [
        (r#"info!(user.id = user.as_str(), a = f(1, 2), "x");"#, ""),
        (
            r#"info!(user.id = claim.user.as_str(), users = 3, "a user");"#,
            "",
        ),
        (r#"info!(%user, "x");"#, "%user"),
        (
            r#"info!(a, who = claim.user.as_str(), "x");"#,
            "who = claim.user.as_str()",
        ),
        (r#"info!(user.id = %user, "x");"#, "user.id = %user"),
        (r#"info!("{} came", user);"#, "user"),
    ] {
        let code = code_of(source);
        let calls = calls(&code).into_iter();
        let found: Vec<_> = calls.flat_map(|(_, it)| named_users(it)).collect();
        assert_eq!(found.join("; "), expected, "{source}");
    }
}

#[test]
fn an_effect_is_found_and_a_formatting_sign_is_not() {
    for (source, expected) in [
        (
            r#"info!(signal = self.next(&n).await, "x");"#,
            ".await .next(",
        ),
        ("warn!(a = list\n    .recv()\n    .await);", ".await .recv("),
        (r#"tracing::debug!(value = read()?, "x");"#, "?"),
        (r#"error!("{}", take(&mut list));"#, "&mut"),
        (r##"info!(x = r#"") "# .len(), y = f()?);"##, "?"),
        (r"info!(c = '(', y = f()?);", "?"),
        ("debug_assert!(count.fetch_add(1) == 0);", ".fetch_"),
        // Nothing here has an effect.
        (
            r#"debug!(?notice, user = ?user, { a = ?b }, "really?");"#,
            "",
        ),
        (r#"info!("a .await, a &mut and f()? in \"a string\"");"#, ""),
        ("info!(x); // f().await\nf().await;", ""),
        ("info!(x, /* f()? */ y);", ""),
        ("not_info!(f()?);", ""),
    ] {
        let code = code_of(source);
        let found: Vec<_> = calls(&code)
            .into_iter()
            .flat_map(|(_, arguments)| effects(arguments))
            .collect();
        assert_eq!(found.join(" "), expected, "{source}");
    }
}
