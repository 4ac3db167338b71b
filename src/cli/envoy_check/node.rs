//! A YAML or JSON file as a tree that knows where each value stands.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// A value, and the line where it begins.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The line, from 1 on; 0 if it is unknown.
    line: u64,
    /// The value.
    value: NodeValue,
}

/// A value.
#[derive(Debug, Clone)]
enum NodeValue {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// Any number.
    Number(f64),
    /// A text.
    Text(String),
    /// Items.
    List(Vec<Node>),
    /// Names in `snake_case`, and values.
    Map(Vec<(String, Node)>),
}

/// A place in a tree: the value, and the path to it.
#[derive(Debug, Clone)]
pub(super) struct At<'a> {
    /// The value.
    node: &'a Node,
    /// The path.
    path: String,
}

impl Node {
    /// The place of the whole tree.
    pub(super) fn root(&self) -> At<'_> {
        At {
            node: self,
            path: String::new(),
        }
    }
}

impl<'a> At<'a> {
    /// The line where it begins.
    pub(super) fn line(&self) -> u64 {
        self.node.line
    }

    /// The path to it: `static_resources.listeners[0].name`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What a map has by that name. `null` counts as unset.
    pub(super) fn get(&self, name: &str) -> Option<At<'a>> {
        let NodeValue::Map(entries) = &self.node.value else {
            return None;
        };
        let (_, node) = entries.iter().find(|(key, _)| key == name)?;
        if matches!(node.value, NodeValue::Null) {
            return None;
        }
        let dot = if self.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{name}", self.path);
        Some(At { node, path })
    }

    /// The node at the end of a path of names.
    pub(super) fn find(&self, names: &[&str]) -> Option<At<'a>> {
        let mut at = self.clone();
        for name in names {
            at = at.get(name)?;
        }
        Some(at)
    }

    /// The items of a list by that name.
    pub(super) fn list(&self, name: &str) -> Vec<At<'a>> {
        self.get(name).map(|list| list.items()).unwrap_or_default()
    }

    /// The items of a list.
    pub(super) fn items(&self) -> Vec<At<'a>> {
        let NodeValue::List(items) = &self.node.value else {
            return Vec::new();
        };
        let items = items.iter().enumerate().map(|(index, node)| At {
            node,
            path: format!("{}[{index}]", self.path),
        });
        items.collect()
    }

    /// The entries of a map.
    pub(super) fn entries(&self) -> Vec<(&'a str, At<'a>)> {
        let NodeValue::Map(entries) = &self.node.value else {
            return Vec::new();
        };
        let names = entries.iter().map(|(name, _)| name.as_str());
        names
            .filter_map(|name| Some((name, self.get(name)?)))
            .collect()
    }

    /// Whether it is a map.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.node.value, NodeValue::Map(_))
    }

    /// The text.
    pub(super) fn text(&self) -> Option<&'a str> {
        match &self.node.value {
            NodeValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text by that name; empty if there is none.
    pub(super) fn text_of(&self, name: &str) -> &'a str {
        self.get(name).and_then(|at| at.text()).unwrap_or_default()
    }

    /// Whether it is that boolean.
    pub(super) fn is(&self, name: &str, wanted: bool) -> bool {
        let found = self.get(name);
        found.is_some_and(|at| matches!(at.node.value, NodeValue::Bool(value) if value == wanted))
    }

    /// The number. protobuf's JSON writes large ones as text.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.node.value {
            NodeValue::Number(number) => Some(*number),
            NodeValue::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The seconds of a duration such as `0.5s`.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.text()?.strip_suffix('s')?.parse().ok()
    }

    /// Whether the `@type` is that message.
    pub(super) fn is_a(&self, message: &str) -> bool {
        let kind = self.text_of("@type");
        kind.rsplit(['.', '/']).next() == Some(message)
    }
}

/// A name as Envoy's documentation writes it: protobuf's JSON also takes `lowerCamelCase`.
fn snake_case(name: &str) -> String {
    if !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(|c| c.is_ascii_alphanumeric())
    {
        return name.to_owned();
    }
    let mut snake = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(character.to_ascii_lowercase());
    }
    snake
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = serde_saphyr::Spanned::<NodeValue>::deserialize(deserializer)?;
        Ok(Self {
            line: spanned.referenced.line(),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for NodeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Reads any value.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = NodeValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<NodeValue, E> {
        Ok(NodeValue::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<NodeValue, E> {
        Ok(NodeValue::Bool(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "what is compared here is far below 2^52"
    )]
    fn visit_u64<E>(self, value: u64) -> Result<NodeValue, E> {
        Ok(NodeValue::Number(value as f64))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "what is compared here is far below 2^52"
    )]
    fn visit_i64<E>(self, value: i64) -> Result<NodeValue, E> {
        Ok(NodeValue::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<NodeValue, E> {
        Ok(NodeValue::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<NodeValue, E> {
        Ok(NodeValue::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NodeValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(NodeValue::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeValue, A::Error> {
        let mut entries = Vec::new();
        while let Some((name, node)) = map.next_entry::<String, Node>()? {
            entries.push((snake_case(&name), node));
        }
        Ok(NodeValue::Map(entries))
    }
}
