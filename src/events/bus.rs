//! The form in which instances tell each other events.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::Event;

/// How many bytes of events go into one message, approximately.
const MESSAGE: usize = 32 * 1024;

/// The longest message that is read. Nothing that we send is nearly as long.
const LONGEST: usize = 1024 * 1024;

/// A message, as it is read: events of types that another version has added are skipped.
#[derive(Debug, Deserialize)]
struct Heard<'a> {
    /// The instance that has sent it.
    from: &'a str,
    /// What happened there.
    events: Vec<Value>,
}

/// A message, as it is written.
#[derive(Debug, Serialize)]
struct Said<'a> {
    /// The instance that sends it.
    from: &'a str,
    /// What happened here.
    events: &'a [Event],
}

/// The messages with these events: each with the number of its events.
pub(super) fn messages(from: &str, events: &[Event]) -> Vec<(usize, Vec<u8>)> {
    let mut messages = Vec::new();
    let mut rest = events;
    while !rest.is_empty() {
        let mut size = 0;
        let fitting = rest.iter().take_while(|event| {
            let fits = size < MESSAGE;
            size += event.to_json().len();
            fits
        });
        let (these, others) = rest.split_at(fitting.count().clamp(1, rest.len()));
        let said = Said {
            from,
            events: these,
        };
        // Text and numbers always have a form in JSON.
        messages.push((these.len(), serde_json::to_vec(&said).unwrap_or_default()));
        rest = others;
    }
    messages
}

/// The events in a message, unless it is our own or can't be read.
pub(super) fn events_in(message: &[u8], own: &str) -> Vec<Event> {
    if message.len() > LONGEST {
        return Vec::new();
    }
    match serde_json::from_slice::<Heard<'_>>(message) {
        Ok(heard) if heard.from != own => {
            let events = heard.events.into_iter();
            events
                .filter_map(|it| serde_json::from_value(it).ok())
                .collect()
        }
        Ok(_) | Err(_) => Vec::new(),
    }
}
