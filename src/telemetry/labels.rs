//! The values that labels of metrics have: enums, so that no metric ever has more series than can be counted here.

use crate::config::OutageRule;
use crate::identity::{Fact, FactLoss, Kind};
use crate::session::Ending;

/// Makes an enum whose variants are the values of a label.
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
    /// All of them, in the order of their declaration.
    const ALL: &'static [Self];

    /// The value as it is written.
    fn as_str(self) -> &'static str;

    /// Its place in [`Self::ALL`].
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

/// Makes labels of enums that the rule has, by their own `ALL` and `as_str`.
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
    /// What a check came to, and why; `decision` and `reason` in one, since only some pairs exist.
    Verdict {
        /// Let in, and takes a slot from now on.
        Started => "started",
        /// Let in, and held its slot already.
        Renewed => "renewed",
        /// Let in from memory: the store surely counts it.
        Held => "held",
        /// Let in by the outage rule `allow`.
        OutageAllowed => "outage_allowed",
        /// Let in by the outage rule `local`.
        OutageLocal => "outage_local",
        /// Let in without a slot: a `HEAD`.
        Head => "head",
        /// Let in without being looked at: an `OPTIONS`.
        Preflight => "preflight",
        /// Let in without a slot by a dry run: it would have been refused.
        WouldRefuse => "would_refuse",
        /// All of the user's slots are taken.
        Full => "full",
        /// All of the user's slots are taken as far as this instance knows: the outage rule `local`.
        FullLocal => "full_local",
        /// The session has ended and its id can't be used again yet.
        Ended => "ended",
        /// Another session of the user took its slot.
        Displaced => "displaced",
        /// An operator ended it.
        Operator => "operator",
        /// What it was to take over runs inside Envoy.
        NotStoppable => "not_stoppable",
        /// Nothing in the request says whose it is.
        NoUser => "no_user",
        /// Nothing in the request says which stream it is.
        NoSession => "no_session",
        /// Something that names the user or the session is no name.
        Malformed => "malformed",
        /// The store could not answer.
        Outage => "outage",
        /// The route asks for something that can't be had: its `streamgate.session` is wrong.
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
    /// What came of the news that a stream was seen running.
    RenewalOutcome {
        /// Its lease has grown.
        Renewed => "renewed",
        /// It was unknown, and counts again: the store had forgotten it.
        PutBack => "put_back",
        /// It counts, but has yet to play or may not stay.
        Provisional => "provisional",
        /// It has ended, and stays so.
        Ended => "ended",
        /// It was unknown, and does not count: it has not played, or too many streams of its user count above the limit already.
        Crowded => "crowded",
    }
}

label! {
    /// Who said that a session is over.
    ReleaseCause {
        /// Envoy's access log.
        AccessLog => "access_log",
        /// Envoy's access log, of a request that had ended before our answer reached it.
        Abandoned => "abandoned",
        /// A client, through the release hook or the HTTP API.
        Hook => "hook",
        /// An operator, against its viewer's will.
        Operator => "operator",
        /// Its own check, which was cancelled or whose outcome stayed unknown.
        Undone => "undone",
        /// Envoy's access log, of a playback of which nothing has played.
        Failed => "failed",
        /// Envoy's access log, of a response that ran on after its playback's end.
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
    /// What showed that a stream had outlived its lease.
    Lapse {
        /// A sign of life, after too long a silence.
        Periodic => "periodic",
        /// Its end.
        End => "end",
    }
}

label! {
    /// What the store was asked.
    Operation {
        /// May this session start?
        Admit => "admit",
        /// This stream was seen running.
        Renew => "renew",
        /// Some of this session has played.
        Played => "played",
        /// This session is over.
        Release => "release",
        /// These streams were seen running.
        RenewAll => "renew_all",
        /// Which sessions are live?
        List => "list",
        /// Which sessions of anybody are live?
        Page => "page",
        /// Are you there?
        Ping => "ping",
    }
}

label! {
    /// How the store answered.
    Outcome {
        /// It did what it was asked, be the answer a refusal.
        Ok => "ok",
        /// Not within the deadline.
        Timeout => "timeout",
        /// There was no connection, or it broke.
        Disconnected => "disconnected",
        /// It was not asked at all.
        NotAsked => "not_asked",
        /// It has no room.
        Full => "full",
        /// It would not.
        Rejected => "rejected",
        /// Not in a way that can be understood.
        Protocol => "protocol",
    }
}

label! {
    /// What kind of access log entry came.
    EntryType {
        /// One of a stream that is running.
        Periodic => "periodic",
        /// One of a stream that has ended.
        End => "end",
        /// Any other.
        Other => "other",
    }
}

label! {
    /// What an access log entry led to.
    EntryOutcome {
        /// A session is renewed.
        Renewal => "renewal",
        /// A session is released.
        Release => "release",
        /// A playback has begun to play.
        Played => "played",
        /// A request of a playback has failed: nothing has played, its start is taken back.
        Failed => "failed",
        /// Nothing, as it should: the entry is of no session, or of one that its end doesn't end.
        Ignored => "ignored",
        /// Nothing: an end of the same stream stands in the same message.
        Superseded => "superseded",
        /// Nothing: it lacks what would say whose stream it is.
        Unattributed => "unattributed",
        /// Nothing: what it says can't be true.
        Malformed => "malformed",
    }
}

label! {
    /// What became of a start that waited for a slot.
    GraceOutcome {
        /// A slot came free in time.
        Admitted => "admitted",
        /// None did.
        Refused => "refused",
        /// Another start of the same user waits already, or Envoy's deadline leaves no room.
        Skipped => "skipped",
    }
}

label! {
    /// Why a renewal or release was given up.
    DropReason {
        /// The queue is full.
        QueueFull => "queue_full",
        /// It has been tried until its lease had run out anyway.
        Expired => "expired",
        /// The store can't make sense of it, or we of the store; trying again won't help.
        Protocol => "protocol",
        /// The process ended before it could be delivered.
        Shutdown => "shutdown",
    }
}

label! {
    /// Why a log line was dropped.
    LogDrop {
        /// Standard error takes lines more slowly than they come, or not at all.
        QueueFull => "queue_full",
        /// Standard error is closed, or its disk is full.
        WriteFailed => "write_failed",
    }
}

label! {
    /// What was asked over HTTP.
    Call {
        /// A start or heartbeat of a playback.
        Start => "start",
        /// What a user watches.
        User => "user",
        /// One session.
        Session => "session",
        /// The end of sessions.
        Release => "release",
        /// The end of all of a user's sessions.
        EndAll => "end_all",
        /// Everybody's sessions.
        List => "list",
        /// Whether a video may be watched.
        Video => "video",
        /// The start of a video.
        StartVideo => "start_video",
        /// A heartbeat of a video.
        RenewVideo => "renew_video",
        /// The end of a video.
        ReleaseVideo => "release_video",
        /// What an address knows, or what a browser may send.
        Options => "options",
        /// Anything else: probes, the document, what an instance tells of itself, what isn't there.
        Other => "other",
    }
}

label! {
    /// What came of it.
    CallOutcome {
        /// It was done, or is going to be.
        Ok => "ok",
        /// The stream may not start: 409, 429.
        Refused => "refused",
        /// The stream has ended and may not go on: 410.
        Ended => "ended",
        /// It may by a dry run alone.
        WouldRefuse => "would_refuse",
        /// Whoever asked may not: 401, 403.
        Denied => "denied",
        /// The request was not what it should be: any other 4xx.
        Invalid => "invalid",
        /// The store could not answer: 503.
        Outage => "outage",
        /// A bug: any other 5xx.
        Error => "error",
    }
}

impl CallOutcome {
    /// The outcome that an HTTP status is.
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
    /// What is read anew while the process runs.
    ReloadedFile {
        /// The certificate of the gRPC port.
        GrpcTls => "grpc_tls",
        /// The certificate of the HTTP port.
        HttpTls => "http_tls",
        /// Who may use the HTTP API.
        Tokens => "tokens",
        /// The configuration.
        Config => "config",
        /// Single users' limits.
        Users => "users",
    }
}

label! {
    /// What became of files that have changed.
    ReloadOutcome {
        /// They are in force.
        Ok => "ok",
        /// They can't be used, and what was read before stays in force.
        Failed => "failed",
    }
}

label! {
    /// What a connection came to.
    Port {
        /// Envoy's.
        Grpc => "grpc",
        /// Everybody else's.
        Http => "http",
    }
}

label! {
    /// Why streamgate closed a connection that would have gone on.
    ClosedFor {
        /// It made no request in time.
        Silence => "silence",
        /// All places were taken, it had made no request, and no other such connection had been silent for longer.
        Crowded => "crowded",
        /// Its requests took too much memory.
        Memory => "memory",
    }
}

label! {
    /// An HTTP/2 error that was sent.
    Http2Error {
        /// A request was malformed.
        ResetProtocol => "reset_protocol_error",
        /// A request came too often.
        ResetCalm => "reset_enhance_your_calm",
        /// A connection did not keep to HTTP/2.
        GoAwayProtocol => "goaway_protocol_error",
        /// A connection flooded the port.
        GoAwayCalm => "goaway_enhance_your_calm",
    }
}
