//! The name and the help line of each metric.

/// A metric's name and what it means.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named(pub(super) &'static str, pub(super) &'static str);

pub(super) const BUILD_INFO: Named = Named(
    "streamgate_build_info",
    "Always 1, labelled with the running version",
);
pub(super) const CHECKS: Named = Named(
    "streamgate_checks_total",
    "ext_authz checks by decision and reason",
);
pub(super) const CHECK_DURATION: Named = Named(
    "streamgate_check_duration_seconds",
    "Time to answer an ext_authz check, without the grace that a start waited",
);
pub(super) const GRACE: Named = Named(
    "streamgate_grace_total",
    "Starts at a full limit that waited for a slot (limits.grace), by outcome",
);
pub(super) const STARTS: Named = Named("streamgate_starts_total", "Sessions that started, by kind");
pub(super) const LAPSES: Named = Named(
    "streamgate_leases_lapsed_total",
    "Streams of the kind request that the store no longer counted when a sign of life or their end arrived",
);
pub(super) const RENEWALS: Named = Named(
    "streamgate_renewals_total",
    "Streams seen running, by the store's answer; put_back: it did not know them",
);
pub(super) const RELEASES: Named = Named(
    "streamgate_releases_total",
    "Slots freed before their lease ran out, by who reported it",
);
pub(super) const STORE_REQUESTS: Named = Named(
    "streamgate_store_requests_total",
    "Calls to the store by operation and outcome",
);
pub(super) const STORE_DURATION: Named = Named(
    "streamgate_store_duration_seconds",
    "Time of a call to the store by operation",
);
pub(super) const STORE_UP: Named = Named(
    "streamgate_store_up",
    "1 while the store, or any shard of it, answers, 0 while none does",
);
pub(super) const STORE_SHARDS: Named = Named(
    "streamgate_store_shards",
    "Parts of the store that fail on their own: the masters of a cluster, otherwise 1",
);
pub(super) const STORE_SHARDS_OUT: Named = Named(
    "streamgate_store_shards_out",
    "Those of them that don't answer: their users' new streams are decided by store.outage",
);
pub(super) const ENFORCES: Named = Named(
    "streamgate_enforces",
    "1 while limits are enforced (limits.enforce), 0 in a dry run",
);
pub(super) const STORE_FORGOT: Named = Named(
    "streamgate_store_forgot_total",
    "Times that the store was found to have lost sessions, and was told about all held ones",
);
pub(super) const OUTAGE_RULE: Named = Named(
    "streamgate_outage_rule",
    "1 for the rule (store.outage) that decides while the store, or a shard of it, doesn't answer or is full",
);
pub(super) const SESSIONS_HELD: Named = Named(
    "streamgate_sessions_held",
    "Sessions that this instance holds in its cache",
);
pub(super) const SESSIONS_OWED: Named = Named(
    "streamgate_sessions_owed",
    "Held sessions that the store has yet to learn about: let in or seen running while it was down, or lost by it",
);
pub(super) const ENTRIES: Named = Named(
    "streamgate_access_log_entries_total",
    "Access log entries by type and result",
);
pub(super) const EVENT_LISTENERS: Named = Named(
    "streamgate_event_listeners",
    "Clients that read /v1/events from this instance",
);
pub(super) const EVENT_LISTENERS_DROPPED: Named = Named(
    "streamgate_event_listeners_dropped_total",
    "Clients of /v1/events that were disconnected because they read too slowly",
);
pub(super) const EVENTS_LOST: Named = Named(
    "streamgate_events_lost_total",
    "Events for operators that some listeners did not get; queue: too many at once, store: not told to other instances",
);
pub(super) const ACCESS_LOG_MISSING: Named = Named(
    "streamgate_access_log_missing",
    "1 while the request streams that started here are neither renewed nor ended: Envoy's access log doesn't arrive",
);
pub(super) const HTTP_REQUESTS: Named = Named(
    "streamgate_http_requests_total",
    "HTTP requests by call and outcome; refused: the stream may not start or continue",
);
pub(super) const HTTP_DURATION: Named = Named(
    "streamgate_http_request_duration_seconds",
    "Time to answer an HTTP request by call, including the grace that a start waited",
);
pub(super) const RELEASER_PENDING: Named = Named(
    "streamgate_releaser_pending",
    "Renewals and releases that wait to be delivered to the store",
);
pub(super) const RELEASER_DROPPED: Named = Named(
    "streamgate_releaser_dropped_total",
    "Renewals and releases that were given up; their leases run out instead",
);
pub(super) const UNKNOWN_PLANS: Named = Named(
    "streamgate_unknown_plan_total",
    "Requests with a plan that limits.plans doesn't have; they got the default",
);
pub(super) const MISSING_PLANS: Named = Named(
    "streamgate_missing_plan_total",
    "Requests without a plan although limits.plans has some; they got the default",
);
pub(super) const FACTS_LOST: Named = Named(
    "streamgate_facts_lost_total",
    "Devices and contents that were too long and shortened, or malformed and left out, in checks, entries and calls, including those about running streams; no stream is refused because of them",
);
pub(super) const LOG_LINES_DROPPED: Named = Named(
    "streamgate_log_lines_dropped_total",
    "Log lines of this process that were dropped, by cause",
);
pub(super) const CONNECTIONS: Named = Named(
    "streamgate_connections",
    "Connections that are open now, by port",
);
pub(super) const CONNECTIONS_CLOSED: Named = Named(
    "streamgate_connections_closed_total",
    "Connections that streamgate closed to protect others, by port and cause",
);
pub(super) const HTTP2_ERRORS: Named = Named(
    "streamgate_http2_errors_total",
    "HTTP/2 errors that streamgate sent for malformed requests and floods, by port and error",
);
pub(super) const FILES_UNUSABLE: Named = Named(
    "streamgate_files_unusable",
    "1 while followed files can't be used and the previous value stays in force",
);
pub(super) const CERTIFICATES_EXPIRE: Named = Named(
    "streamgate_certificate_expires_timestamp_seconds",
    "When the first of a port's certificates expires, 0 if it has none",
);
pub(super) const CERTIFICATES_BEGIN: Named = Named(
    "streamgate_certificate_valid_from_timestamp_seconds",
    "Since when that certificate is valid, 0 if a port has none",
);
pub(super) const RELOADS: Named = Named(
    "streamgate_reloads_total",
    "File changes by outcome; failed: the previous value stays in force",
);
pub(super) const INSTALLATION_STREAMS: Named = Named(
    "streamgate_installation_streams",
    "Live streams of all instances that share the store, by kind",
);
pub(super) const INSTALLATION_USERS: Named = Named(
    "streamgate_installation_users",
    "Users who watch something, of all instances that share the store",
);
pub(super) const INSTALLATION_USERS_AT_LIMIT: Named = Named(
    "streamgate_installation_users_at_limit",
    "Users who watch as many streams as they may, of all instances that share the store",
);
pub(super) const INSTALLATION_INSTANCES: Named = Named(
    "streamgate_installation_instances",
    "Instances that share the store and have reported lately",
);
pub(super) const INSTALLATION_COMPLETE: Named = Named(
    "streamgate_installation_complete",
    "1 while the installation's numbers have every instance's report, 0 while one is late or the store is out",
);
pub(super) const WEBHOOK_EVENTS: Named = Named(
    "streamgate_webhook_events_total",
    "Events that webhooks got, or that were given up, by outcome",
);
pub(super) const WEBHOOK_QUEUED: Named = Named(
    "streamgate_webhook_events_queued",
    "Events that wait for webhooks, or are on their way",
);
pub(super) const WEBHOOK_POSTS_FAILED: Named = Named(
    "streamgate_webhook_posts_failed_total",
    "POSTs to webhooks that failed and are sent again, by cause",
);
