//! streamgate limits how many streams one user watches at once, in the path of an Envoy gateway.
//!
//! Envoy asks about each stream request (`ext_authz`, gRPC). streamgate answers from a count of
//! live sessions, allow or 429, and learns from Envoy's access log (gRPC) when the stream has
//! ended. Any other client uses the same count over HTTP.
//!
//! # Words
//!
//! One word for each concept, in code, configuration, logs and documents alike.
//!
//! - *user*: the account whose streams are counted: [`identity::UserId`]
//! - *plan*: a named tier that sets a limit: [`identity::PlanName`]
//! - *session*: one stream being watched; its key is user, kind and id: [`session::Session`]
//! - *slot*: what a session holds; a user has as many slots as the limit says
//! - *kind*: `request` (one HTTP request is the stream), `playback` (many requests are), `video`
//!   (the small API): [`identity::Kind`]
//! - *lease*: how long a session counts without a sign of life; every release only shortens it
//! - *played*: part of a playback has reached its viewer; before that, a failure takes its start
//!   back: [`session::Flags::played`]
//! - *provisional*: a session counts, but its lease doesn't grow yet:
//!   [`session::Flags::provisional`]
//! - *fresh*: an id that a player made for one playback; *derived*: any other id, which may start
//!   again after its end: [`identity::Identity::is_derived`]
//! - *origin*: the device that a session comes from, as far as known:
//!   [`identity::Facts::same_origin`]
//! - *budget*: how many of a user's starts may still displace: [`session::Budget`]
//! - *tombstone*: the record that a session has ended and why, so that a late message can't bring
//!   it back: [`session::Tombstone`]
//! - *roster*: one user's live sessions, tombstones and budget; the rule is a pure function over
//!   it: [`session::Roster`]
//! - *admit*, *renew*, *played*, *release*, *list*: the operations on a roster, each one atomic
//!   step
//! - *page*: a part of all users' live sessions, read without atomicity: [`store::Page`]
//! - *cursor*: where a page begins: [`store::Cursor`]
//! - *sighting*: the report that a stream was seen running: [`session::Sighting`]
//! - *ticket*: identifies the call that started a session, so that this call can take its own start
//!   back: [`session::Ticket`]
//! - *store*: where rosters are kept: [`store::Store`]
//! - *ledger*: the only module that doors talk to: [`ledger::Ledger`]
//! - *claim*: what a door decoded from a request for a stream: [`identity::Claim`]
//! - *door*: a way in: `ext_authz`, access log, HTTP API, command line
//! - *takeover*: a start that asks for another session's slot in case all are taken:
//!   [`identity::Takeover`]
//! - *displace*: to end a session so that another gets its slot; this draws on the user's budget
//! - *in force*: the current values of the settings that may change while the process runs:
//!   [`config::InForce`]
//! - *caller*: who calls the HTTP API, and so what they may do: by a token's *role* (`client`,
//!   `operator`), and by the user that the token is bound to, if any
//! - *viewer*: a user whom a gateway has verified and lets through to the HTTP API, to act only for
//!   themselves
//! - *guide*: the page that explains each problem; the types of problems link to it:
//!   [`problem::guide`]
//! - *dry run*: decisions are made and counted, but nothing is refused (`limits.enforce: false`)
//! - *our mark*: the metadata that an answer to a check leaves on a request, which identifies our
//!   entries in Envoy's access log
//! - *grace*: how long a start at a full limit waits for a slot to come free
//! - *outage*: the store could not answer; it is an error, whereas a refusal is a value:
//!   [`ledger::Outage`]
//! - *outage rule*: what decides about new streams during an outage (`store.outage`):
//!   [`config::OutageRule`]
//! - *held lease*: a session that the store counts as far as this instance knows, and until when:
//!   [`ledger::Ledger::lookup`]
//! - *event*: something that happened in the installation, told to operators who listen:
//!   [`events::Events`]
//! - *webhook*: a receiver that an instance sends its events to, by signed POSTs:
//!   [`webhooks::Webhooks`]
//! - *unsynced*: sessions and ends that the store has yet to learn about
//!
//! # Flow
//!
//! Data flows one way, and a file imports only modules declared above its own below.
//!
//! ```text
//! Envoy ─▶ envoy::check ─▶ ledger.lookup (a held lease) ─▶ envoy::wire ─▶ Envoy
//!                      └─▶ ledger.admit ─▶ policy ─▶ store.admit
//!                              └─▶ doors::outcome ─▶ envoy::wire ─▶ Envoy
//! HTTP  ─▶ http::start_service ─▶ ledger.heartbeat ─▶ store.admit
//!                              └─▶ doors::outcome ─▶ http::json ─▶ HTTP
//! HTTP  ─▶ http::{sessions, release_hook, listing} ─▶ ledger.{release, list, page} ─▶ store
//! Envoy ─▶ envoy::access_log ─▶ outbox ─▶ ledger.{renew, played, release} ─▶ store
//!          ledger.run_background (renews what is held, syncs, probes) ─▶ store
//! cli::{sessions, release, doctor} ─▶ HTTP, of a running instance
//! ```
//!
//! The doors decode, the ledger and the store decide, `doors::outcome` logs, applies a dry run and
//! undoes, and `envoy::wire` and `http::json` encode.

// Time, and small tools.
pub mod clock;

mod util;

// Who asks for which stream; the rule; the limits; the configuration.
pub mod identity;

pub mod session;

pub mod policy;

pub mod config;

// The description of a problem, the same at each door.
pub mod problem;

// Storage of rosters.
pub mod store;

// Logs, metrics and traces.
pub mod telemetry;

// What happens, for operators who listen.
pub mod events;

// Files that are read again while the process runs, such as certificates.
pub mod reload;

// Events by POST.
pub mod webhooks;

// The numbers of a whole installation.
pub mod statistics;

// The part that doors talk to, and its background queue.
pub mod ledger;

pub mod outbox;

// What the doors share once the ledger has decided.
pub mod doors;

// The doors.
pub mod envoy;

pub mod http;

// The servers behind the doors.
pub mod server;

// The wiring.
pub mod app;

pub mod cli;

// Properties of the decoders of untrusted input; not part of the library.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
