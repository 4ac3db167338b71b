//! The HTTP port over real HTTP.

// The HTTP API on sessions: each call and each of its answers, on both stores, and in an outage.
mod sessions;
// The HTTP API's callers: each role, each call, one's own user and another.
mod access;
// What happens, as operators follow it: order, permissions, breaks, the end.
mod events;
// The same by POST: who gets what, signed, again, and what a receiver can't do to others.
mod webhooks;
// The operator's list of everybody's sessions, page by page.
mod list;
// The numbers of the whole installation.
mod stats;
// The small API: videos, by HTTP Basic.
mod small;
// The HTTP doors other than the API on sessions: the release hook, probes, metrics.
mod hook_and_probes;
// The guide to problems, and the way from `/` to the console.
mod front;
// The console: who gets in, what it shows, that it has no barriers.
mod console;
// What the console makes of numbers and events.
mod console_numbers;
// What pages of other sites can do at a port without tokens.
mod pages;
// What all HTTP requests have in common: CORS, ids, limits, how they are counted.
mod wire;
// Connections to the HTTP port that are slow, silent, or many.
mod connections;
// What refusals tell at both doors: of others, and where problems are explained.
mod told;
// The OpenAPI document: it is the committed one, the service serves it, and a fuzzer that reads it
// finds no bug.
mod openapi;
// The collection of requests, sent from top to bottom.
mod collection;
