//! streamgate limits how many streams one user watches at once, in the path of an Envoy gateway.
//!
//! Envoy asks about each stream request (`ext_authz`, gRPC); streamgate answers from a count of live sessions, allow or 429, and
//! learns from Envoy's access log (gRPC) when the stream has ended. Any other client reaches the same count over HTTP.
//!
//! # Words
//!
//! One word for each concept, in code, configuration, logs and documents alike.
//!
//! | word | meaning |
//! |---|---|
//! | *user* | the account whose streams are counted: [`identity::UserId`] |
//! | *plan* | a named tier that sets a limit: [`session::PlanName`] |
//! | *session* | one stream being watched; its key is user, kind and id: [`session::Session`] |
//! | *slot* | what a session holds; a user has as many as the limit says |
//! | *kind* | `request` (one HTTP request is the stream), `playback` (many requests are), `video` (the small API): [`session::Kind`] |
//! | *lease* | until when a session counts without a sign of life; every release only shortens it |
//! | *played* | that some of a playback has reached its viewer; until then a failure takes its start back: [`session::Flags::played`] |
//! | *provisional* | that a session counts, but its lease does not grow yet: [`session::Flags::provisional`] |
//! | *fresh*, *derived* | an id that a player made for one playback, and any other, which may start again after its end: [`identity::Identity::is_derived`] |
//! | *origin* | the device that a session comes from, as far as it is known: [`session::Facts::same_origin`] |
//! | *budget* | how many of a user's starts may still displace: [`session::Budget`] |
//! | *tombstone* | the memory that a session has ended and why, so that a late message can't bring it back: [`session::Tombstone`] |
//! | *roster* | one user's live sessions, tombstones and budget; the rule is a pure function over it: [`session::Roster`] |
//! | *admit*, *renew*, *played*, *release*, *list* | what can be done to a roster, each in one atomic step |
//! | *page* | a part of everybody's live sessions; no atomic step: [`store::Page`] |
//! | *cursor* | where a page begins: [`store::Cursor`] |
//! | *sighting* | the news that a stream was seen running: [`session::Sighting`] |
//! | *ticket* | the mark of the call that started a session, so that it can take back its own start: [`session::Ticket`] |
//! | *store* | where rosters are kept: [`store::Store`] |
//! | *ledger* | the one thing that doors talk to: [`ledger::Ledger`] |
//! | *claim* | what a door has made out of a request for a stream: [`identity::Claim`] |
//! | *door* | a way in: `ext_authz`, access log, HTTP API, command line |
//! | *takeover* | that a start asks for the slot of another session, should all be taken: [`session::Takeover`] |
//! | *displace* | to end a session so that another gets its slot; that draws on the user's budget |
//! | *in force* | the settings that apply now, of those that may change while the process runs: [`config::InForce`] |
//! | *caller* | who asks over HTTP, and so what they may do: by a token's *role* (`client`, `operator`), and by the one user to whom it is bound, if it is |
//! | *viewer* | a user whom a gateway has verified and lets through to the HTTP API, to act for themselves alone |
//! | *guide* | what each problem means, a page to which the types of problems lead: [`problem::guide`] |
//! | *dry run* | that all is decided and nobody refused (`limits.enforce: false`) |
//! | *our mark* | the metadata that our answer to a check leaves on a request, by which entries of Envoy's access log are known as ours |
//! | *grace* | how long a start at a full limit waits for a slot to come free |
//! | *outage* | the store could not answer; an error, where a refusal is a value: [`ledger::Outage`] |
//! | *outage rule* | what decides about new streams meanwhile (`store.outage`): [`config::OutageRule`] |
//! | *held lease* | a session that this instance knows the store to count, and until when: [`ledger::Ledger::lookup`] |
//! | *unsynced* | what the store is yet to be told: sessions that it does not know to run, and ends |
//!
//! # Flow
//!
//! Data flows one way, and a file imports only what stands above it in the list below.
//!
//! ```text
//!           decode           decide                                        log, dry run, undo    encode
//! Envoy ──▶ envoy::check ──▶ ledger.lookup (a held lease) ──────────────────────────────────▶ envoy::wire ──▶ Envoy
//!                       └──▶ ledger.admit ──▶ policy ──▶ store.admit ──▶ doors::outcome ────▶ envoy::wire ──▶ Envoy
//! HTTP  ──▶ http::start_service ──▶ ledger.heartbeat ──▶ store.admit ──▶ doors::outcome ────▶ http::json ──▶ HTTP
//! HTTP  ──▶ http::{sessions, release_hook, listing} ──▶ ledger.{release, list, page} ──▶ store
//! Envoy ──▶ envoy::access_log ──▶ outbox (queue) ────▶ ledger.{renew, played, release} ──▶ store
//!           ledger.run_background (renews what is held, syncs, probes) ──▶ store
//! cli::{sessions, release, doctor} ──▶ HTTP, of an instance that runs
//! ```

// Time, and small tools.
pub mod clock;

mod util;

// Who asks for which stream; the rule; then what says how many, and what was configured.
pub mod identity;

pub mod session;

pub mod policy;

pub mod config;

// What is told of a problem, whatever the door.
pub mod problem;

// Where rosters are kept.
pub mod store;

// What operators see.
pub mod telemetry;

// Files that are read again while it runs, and the certificates among them.
pub mod reload;

// What doors talk to.
pub mod ledger;

pub mod outbox;

// What the doors have in common once the ledger has decided.
pub mod doors;

// The doors.
pub mod envoy;

pub mod http;

// What the doors are served by.
pub mod server;

// All of it together.
pub mod app;

pub mod cli;

// What has to hold of all that strangers write; no part of the library.
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;

// The integration tests share these two, and know this crate by its name: the store that fails as
// told, and what reads the log.
#[cfg(test)]
extern crate self as streamgate;
#[cfg(test)]
#[path = "../tests/support/faulty_store.rs"]
mod faulty_store;
#[cfg(test)]
#[path = "../tests/support/log.rs"]
mod listened_log;
