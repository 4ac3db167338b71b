//! Who a request comes from, and which stream it belongs to: the names, their sources, and the
//! result.
//!
//! Everything here is a pure function that reads a request through
//! [`RequestAttributes`](attributes::RequestAttributes), and imports only `util` of the crate: no
//! wire format, no runtime. So a filter inside a gateway could use the same code.

pub(crate) mod attributes;
pub(crate) mod claim;
pub(crate) mod cmcd;
pub(crate) mod cookie;
mod fact;
mod facts;
pub(crate) mod find;
mod id;
mod key;
mod message;
mod routes;
pub(crate) mod source;
mod sources;

pub use claim::Claim;
pub use fact::{Fact, FactLoss, FactName};
pub use facts::{Door, Facts, JoinedOrigin, SameOrigin};
pub use id::{ContentId, DeviceId, IdError, MAX_ID_BYTES, PlanName, SessionId, UserId};
pub use key::{Kind, SessionKey, Takeover};
pub use message::{EndMessage, MAX_MESSAGE_CHARACTERS, MessageError};
pub use routes::RouteLists;
pub use source::{ClaimPath, PathPattern, Source, SourceError};
pub use sources::Identity;
