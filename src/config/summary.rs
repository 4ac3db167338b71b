//! The settings in effect as YAML, without secrets: what `check-config` prints, and what is
//! compared where configurations or instances may differ.
//!
//! The summary can be read back, passwords aside. It leaves out keys that have no effect.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use super::Config;
use super::load::form::{Form, Rendered, quoted};
use super::load::section::{Key, Keys};

/// The values of all keys that have an effect, in the order of the documentation's table.
#[derive(Default)]
pub(super) struct Summary {
    lines: Vec<Line>,
}

/// A key and its value.
pub(super) struct Line {
    /// The key.
    pub(super) key: Key,
    /// The value.
    pub(super) value: Rendered,
    /// The whole value, where it may hold a secret.
    exposed: Option<String>,
}

/// The name of a key; for a map, with the name of one of its entries.
pub(super) type SettingName = (&'static str, Option<String>);

/// The value of one key, or of one entry of a map.
pub(super) struct Setting {
    /// The key, or that of the map.
    pub(super) key: Key,
    /// The value as the summary shows it.
    pub(super) shown: String,
    /// The whole value, where it may hold a secret.
    pub(super) exposed: Option<String>,
}

impl Keys for Summary {
    fn key<T>(&mut self, key: Key, form: Form<'_, T>, place: &mut T) -> bool {
        if key.is_shown {
            self.lines.push(Line {
                key,
                value: form.show(place),
                exposed: form.exposed(place),
            });
        }
        true
    }

    fn absent(&mut self, section: &'static str) {
        self.lines.push(Line {
            key: Key::new(section, ""),
            value: Rendered::Line("null".to_owned()),
            exposed: None,
        });
    }
}

impl Summary {
    /// The keys and their values.
    pub(super) fn lines(self) -> Vec<Line> {
        self.lines
    }

    /// The settings by name. Each entry of a map is a setting of its own.
    pub(super) fn settings(self) -> BTreeMap<SettingName, Setting> {
        let mut settings = BTreeMap::new();
        for Line {
            key,
            value,
            exposed,
        } in self.lines
        {
            let setting = |shown| Setting {
                key,
                shown,
                exposed: exposed.clone(),
            };
            match value {
                Rendered::Line(shown) => {
                    settings.insert((key.name, None), setting(shown));
                }
                Rendered::Map(entries) => {
                    let entries = entries.into_iter();
                    settings.extend(
                        entries.map(|(name, shown)| ((key.name, Some(name)), setting(shown))),
                    );
                }
            }
        }
        settings
    }
}

impl Config {
    /// The values of all keys.
    pub(super) fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        // A visitor of keys may set them, so it needs a copy.
        self.clone().keys(&mut summary);
        summary
    }
}

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut open: Vec<&str> = Vec::new();
        for Line { key, value, .. } in self.summary().lines {
            let mut names: Vec<_> = key.name.split('.').collect();
            let name = names.pop().unwrap_or_default();
            for (depth, section) in names.iter().enumerate() {
                if open.get(depth) != Some(section) {
                    writeln!(f, "{:1$}{section}:", "", 2 * depth)?;
                    open.truncate(depth);
                    open.push(section);
                }
            }
            let indent = 2 * names.len();
            match value {
                Rendered::Map(entries) if !entries.is_empty() => {
                    writeln!(f, "{:indent$}{name}:", "")?;
                    for (name, value) in entries {
                        writeln!(f, "{:indent$}  {}: {value}", "", quoted(&name))?;
                    }
                }
                value => writeln!(f, "{:indent$}{name}: {value}", "")?,
            }
            open = names;
        }
        Ok(())
    }
}
