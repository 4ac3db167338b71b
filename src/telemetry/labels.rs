//! The values of metric labels: enums, so that the number of series of each metric is bounded and
//! known.

use crate::config::OutageRule;
use crate::identity::{Fact, FactLoss, Kind};
use crate::session::Ending;

/// Defines an enum whose variants are the values of a label.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_meta])* $variant),+
        }

        impl LabelValue for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

/// An enum whose variants are the values of a label.
pub trait LabelValue: Copy + 'static {
    /// All values, in the order of their declaration.
    const ALL: &'static [Self];

    /// The label's text.
    fn as_str(self) -> &'static str;

    /// Its index in [`Self::ALL`].
    fn index(self) -> usize;
}

impl LabelValue for OutageRule {
    const ALL: &'static [Self] = &[Self::Allow, Self::Deny, Self::Local];

    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Local => "local",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Makes labels of the rule's enums, with their own `ALL` and `as_str`.
macro_rules! labels {
    ($($name:ident),+) => {
        $(impl LabelValue for $name {
            const ALL: &'static [Self] = &Self::ALL;

            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn index(self) -> usize {
                self as usize
            }
        })+
    };
}

labels!(Fact, FactLoss, Kind);

label! {
    /// The result of a check, and why; `decision` and `reason` in one, since only some pairs exist.
    Verdict {
        /// Let in, and takes a slot from now on.
        Started => "started",
        /// Let in, and already held its slot.
        Renewed => "renewed",
        /// Let in from memory: the store certainly counts it.
        Held => "held",
        /// Let in by the outage rule `allow`.
        OutageAllowed => "outage_allowed",
        /// Let in by the outage rule `local`.
        OutageLocal => "outage_local",
        /// Let in without a slot: a `HEAD`.
        Head => "head",
        /// Let in without inspection: an `OPTIONS`.
        Preflight => "preflight",
        /// Let in without a slot by a dry run: it would have been refused.
        WouldRefuse => "would_refuse",
        /// All of the user's slots are taken.
        Full => "full",
        /// All of the user's slots are taken as far as this instance knows: the outage rule
        /// `local`.
        FullLocal => "full_local",
        /// The session has ended and its id can't be used again yet.
        Ended => "ended",
        /// Another session of the user took its slot.
        Displaced => "displaced",
        /// An operator ended it.
        Operator => "operator",
        /// The session to take over runs inside Envoy.
        NotStoppable => "not_stoppable",
        /// Nothing in the request identifies the user.
        NoUser => "no_user",
        /// Nothing in the request identifies the session.
        NoSession => "no_session",
        /// The name of the user or session is not valid.
        Malformed => "malformed",
        /// The store could not answer.
        Outage => "outage",
        /// The route's `streamgate.session` is wrong.
        Misconfigured => "misconfigured",
        /// The client left, or Envoy gave up, before the answer went out.
        Cancelled => "cancelled",
    }
}

impl Verdict {
    /// The value of the label `decision`.
    #[must_use]
    pub const fn decision(self) -> &'static str {
        match self {
            Self::Started
            | Self::Renewed
            | Self::Held
            | Self::OutageAllowed
            | Self::OutageLocal
            | Self::Head
            | Self::Preflight
            | Self::WouldRefuse => "allow",
            Self::Full
            | Self::FullLocal
            | Self::Ended
            | Self::Displaced
            | Self::Operator
            | Self::NotStoppable
            | Self::NoUser
            | Self::NoSession
            | Self::Malformed => "deny",
            Self::Outage | Self::Misconfigured | Self::Cancelled => "error",
        }
    }
}

label! {
    /// The outcome of a sighting.
    RenewalOutcome {
        /// Its lease has grown.
        Renewed => "renewed",
        /// It was unknown, and counts again: the store had lost it.
        PutBack => "put_back",
        /// It counts, but hasn't played yet or may not stay.
        Provisional => "provisional",
        /// It has ended, and stays ended.
        Ended => "ended",
        /// It was unknown, and doesn't count: it has not played, or too many streams of its user
        /// already count above the limit.
        Crowded => "crowded",
    }
}

label! {
    /// Who reported that a session is over.
    ReleaseCause {
        /// Envoy's access log.
        AccessLog => "access_log",
        /// Envoy's access log, for a request that had ended before our answer reached it.
        Abandoned => "abandoned",
        /// A client, through the release hook or the HTTP API.
        Hook => "hook",
        /// An operator, against its viewer's will.
        Operator => "operator",
        /// Its own check, which was cancelled or whose outcome remained unknown.
        Undone => "undone",
        /// Envoy's access log, for a playback that hasn't played.
        Failed => "failed",
        /// Envoy's access log, for a response that continued after its playback's end.
        Outlived => "outlived",
    }
}

impl ReleaseCause {
    /// What an end is counted as; `None` for a session that gave way to another.
    #[must_use]
    pub const fn of(ending: Ending) -> Option<Self> {
        Some(match ending {
            Ending::Stream => Self::AccessLog,
            Ending::Abandoned => Self::Abandoned,
            Ending::Outlived => Self::Outlived,
            Ending::Vouched => Self::Hook,
            Ending::Operator => Self::Operator,
            Ending::Failed => Self::Failed,
            Ending::Undone(_) => Self::Undone,
            Ending::GaveWay => return None,
        })
    }
}

label! {
    /// Where an event for operators was lost.
    EventLoss {
        /// More happened at this instance, or came from others, than its queue takes.
        Queue => "queue",
        /// It could not be told to other instances through the store.
        Store => "store",
    }
}

label! {
    /// What showed that a stream had outlived its lease.
    Lapse {
        /// A sign of life, after too long a silence.
        Periodic => "periodic",
        /// Its end.
        End => "end",
    }
}

label! {
    /// An operation of the store.
    Operation {
        /// Start a session.
        Admit => "admit",
        /// Report a stream seen running.
        Renew => "renew",
        /// Report that part of a session has played.
        Played => "played",
        /// End a session.
        Release => "release",
        /// Report streams seen running.
        RenewAll => "renew_all",
        /// List a user's live sessions.
        List => "list",
        /// Set or clear the limit of one user.
        OverrideLimit => "override_limit",
        /// List a page of all users' live sessions.
        Page => "page",
        /// Check that the store answers.
        Ping => "ping",
    }
}

label! {
    /// The store's answer.
    Outcome {
        /// It did the operation, even if the answer is a refusal.
        Ok => "ok",
        /// No answer within the deadline.
        Timeout => "timeout",
        /// There was no connection, or it broke.
        Disconnected => "disconnected",
        /// It was not asked at all.
        NotAsked => "not_asked",
        /// It has no room.
        Full => "full",
        /// It refused.
        Rejected => "rejected",
        /// The answer could not be decoded.
        Protocol => "protocol",
    }
}

label! {
    /// The type of an access log entry.
    EntryType {
        /// About a stream that is running.
        Periodic => "periodic",
        /// About a stream that has ended.
        End => "end",
        /// Any other type.
        Other => "other",
    }
}

label! {
    /// The result of an access log entry.
    EntryOutcome {
        /// A session is renewed.
        Renewal => "renewal",
        /// A session is released.
        Release => "release",
        /// A playback has begun to play.
        Played => "played",
        /// A request of a playback has failed: if nothing has played, its start is taken back.
        Failed => "failed",
        /// Nothing, correctly: the entry belongs to no session, or doesn't end its session.
        Ignored => "ignored",
        /// Nothing: the same message contains the end of the same stream.
        Superseded => "superseded",
        /// Nothing: it doesn't identify the stream's user.
        Unattributed => "unattributed",
        /// Nothing: its content can't be true.
        Malformed => "malformed",
    }
}

label! {
    /// The outcome of a start that waited for a slot.
    GraceOutcome {
        /// A slot came free in time.
        Admitted => "admitted",
        /// No slot came free.
        Refused => "refused",
        /// It didn't wait: another start of the same user is already waiting, or Envoy's deadline
        /// leaves no time.
        Skipped => "skipped",
    }
}

label! {
    /// Why a renewal or release was given up.
    DropReason {
        /// The queue is full.
        QueueFull => "queue_full",
        /// It was retried until its lease had expired anyway.
        Expired => "expired",
        /// The store can't understand it, or we can't understand the store; retrying won't help.
        Protocol => "protocol",
        /// The process ended before it could be delivered.
        Shutdown => "shutdown",
    }
}

label! {
    /// Why a log line was dropped.
    LogDrop {
        /// Standard error accepts lines too slowly, or not at all.
        QueueFull => "queue_full",
        /// Standard error is closed, or its disk is full.
        WriteFailed => "write_failed",
    }
}

label! {
    /// The kind of an HTTP call.
    Call {
        /// A start or heartbeat of a playback.
        Start => "start",
        /// List what a user watches.
        User => "user",
        /// Read one session.
        Session => "session",
        /// Release sessions.
        Release => "release",
        /// End all of a user's sessions.
        EndAll => "end_all",
        /// List all users' sessions.
        List => "list",
        /// The beginning of a stream of events.
        Events => "events",
        /// Ask whether a video may be watched.
        Video => "video",
        /// The start of a video.
        StartVideo => "start_video",
        /// A heartbeat of a video.
        RenewVideo => "renew_video",
        /// The end of a video.
        ReleaseVideo => "release_video",
        /// A path's methods, or a CORS preflight.
        Options => "options",
        /// Anything else: probes, the OpenAPI document, an instance's description, unknown paths.
        Other => "other",
    }
}

label! {
    /// The outcome of a call.
    CallOutcome {
        /// It was done, or will be.
        Ok => "ok",
        /// The stream may not start: 409, 429.
        Refused => "refused",
        /// The stream has ended and may not continue: 410.
        Ended => "ended",
        /// The stream may continue only because of a dry run.
        WouldRefuse => "would_refuse",
        /// The caller is not allowed: 401, 403.
        Denied => "denied",
        /// The request was invalid: any other 4xx.
        Invalid => "invalid",
        /// The store could not answer: 503.
        Outage => "outage",
        /// A bug: any other 5xx.
        Error => "error",
    }
}

impl CallOutcome {
    /// The outcome for an HTTP status.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            409 | 429 => Self::Refused,
            410 => Self::Ended,
            400..=499 => Self::Invalid,
            503 => Self::Outage,
            500..=599 => Self::Error,
            _ => Self::Ok,
        }
    }
}

label! {
    /// A file that is reloaded while the process runs.
    ReloadedFile {
        /// The certificate of the gRPC port.
        GrpcTls => "grpc_tls",
        /// The certificate of the HTTP port.
        HttpTls => "http_tls",
        /// The tokens of the HTTP API.
        Tokens => "tokens",
        /// The configuration.
        Config => "config",
        /// Single users' limits.
        Users => "users",
        /// The webhooks.
        Webhooks => "webhooks",
    }
}

label! {
    /// What became of an event for a webhook.
    WebhookOutcome {
        /// The receiver has it.
        Delivered => "delivered",
        /// The queue was full, and this was the oldest event.
        QueueFull => "queue_full",
        /// The receiver refused it, or wants no more.
        Refused => "refused",
        /// The receiver failed for too long.
        Expired => "expired",
        /// The webhook was removed.
        Removed => "removed",
        /// The instance stopped.
        Shutdown => "shutdown",
    }
}

label! {
    /// Why a POST to a webhook has failed, and is sent again.
    PostFailure {
        /// There was no connection, or it broke.
        Connection => "connection",
        /// No answer came in time.
        Timeout => "timeout",
        /// The receiver answered with a status that means that it may work later.
        Status => "status",
    }
}

label! {
    /// The outcome of a file change.
    ReloadOutcome {
        /// The change took effect.
        Ok => "ok",
        /// The files can't be used, and the previous value stays in force.
        Failed => "failed",
    }
}

label! {
    /// A port.
    Port {
        /// Envoy's port.
        Grpc => "grpc",
        /// The HTTP port.
        Http => "http",
    }
}

label! {
    /// Why streamgate closed a connection that would have continued.
    ClosedFor {
        /// It made no request in time.
        Silence => "silence",
        /// All places were taken, it had made no request, and no other such connection had been
        /// silent for longer.
        Crowded => "crowded",
        /// Its requests took too much memory.
        Memory => "memory",
    }
}

label! {
    /// An HTTP/2 error that we sent.
    Http2Error {
        /// A request was malformed.
        ResetProtocol => "reset_protocol_error",
        /// Requests were too frequent.
        ResetCalm => "reset_enhance_your_calm",
        /// A connection violated HTTP/2.
        GoAwayProtocol => "goaway_protocol_error",
        /// A connection flooded the port.
        GoAwayCalm => "goaway_enhance_your_calm",
    }
}
