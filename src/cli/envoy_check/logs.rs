//! Checks of the access loggers: immediate ends, reports of running streams, nothing lost in an
//! outage.

use super::envoy::{Envoy, Manager, cluster_of, is_streamgate};
use super::filters::{check_cluster, marks};
use super::finding::Findings;
use super::identity::headers_written;
use super::node::At;
use crate::identity::Source;

/// The piece that these are in.
const PIECE: &str = "access_log";

/// The filter whose metadata tells streamgate's answers.
const CHECK: &str = "envoy.filters.http.ext_authz";

/// Ends that wait longer than that are late, in seconds.
const AT_ONCE: f64 = 0.3;

/// What a buffer holds that outlives a restart, in bytes for each worker.
const DURABLE: f64 = 262_144.0;

/// What streamgate takes in one message, in bytes.
const LARGEST: f64 = 16_777_216.0;

/// A logger that reports to streamgate.
struct Logger<'a> {
    /// The logger.
    at: At<'a>,
    /// Its settings.
    settings: At<'a>,
    /// Its common settings.
    common: At<'a>,
}

/// The loggers that report to streamgate.
fn loggers<'a>(manager: &Manager<'a>) -> Vec<Logger<'a>> {
    let check = check_cluster(manager);
    let loggers = manager.settings.list("access_log").into_iter();
    let loggers = loggers.filter_map(|at| {
        let settings = at.get("typed_config")?;
        let common = settings.get("common_config")?;
        let service = common.get("grpc_service")?;
        let is_ours = is_streamgate(&service)
            || common.text_of("log_name").contains("streamgate")
            || (!check.is_empty() && cluster_of(&service) == check);
        let is_ours = settings.is_a("HttpGrpcAccessLogConfig") && is_ours;
        is_ours.then_some(Logger {
            at,
            settings,
            common,
        })
    });
    loggers.collect()
}

/// The clusters that the loggers lead to.
pub(super) fn log_clusters<'a>(manager: &Manager<'a>) -> Vec<&'a str> {
    let services = loggers(manager).into_iter();
    let services = services.filter_map(|it| it.common.get("grpc_service"));
    let mut clusters: Vec<_> = services.map(|service| cluster_of(&service)).collect();
    clusters.dedup();
    clusters
}

/// Checks the loggers.
pub(super) fn logs(
    envoy: &Envoy<'_>,
    manager: &Manager<'_>,
    user: Option<&Source>,
    findings: &mut Findings,
) {
    let loggers = loggers(manager);
    if loggers.is_empty() {
        findings.add(
            &manager.settings,
            "access_log",
            Some(PIECE),
            "no gRPC access logger reports to streamgate: it learns of no end, and slots stay taken until their leases expire",
        );
        return;
    }
    together(manager, &loggers, findings);
    for logger in &loggers {
        filters(manager, logger, findings);
        headers(manager, logger, user, findings);
        if let Some(service) = logger.common.get("grpc_service") {
            super::clusters::service(
                envoy,
                &service,
                "this logger's grpc_service",
                PIECE,
                findings,
            );
        }
        let buffer = logger.common.get("buffer_size_bytes");
        if let Some(size) = buffer
            && size.number().is_some_and(|size| size >= LARGEST)
        {
            findings.add(
                &size,
                "buffer",
                Some(PIECE),
                "Envoy sends the buffer as one message, and streamgate takes at most 16 MiB: a larger one is lost",
            );
        }
    }
}

/// Checks what the loggers do together.
fn together(manager: &Manager<'_>, loggers: &[Logger<'_>], findings: &mut Findings) {
    let at = loggers.first().map_or(&manager.settings, |it| &it.at);
    let admits = |kind| loggers.iter().any(|it| it.admits(kind));
    findings.need(
        admits("DownstreamPeriodic"),
        at,
        "periodic",
        PIECE,
        "no logger sends DownstreamPeriodic entries: leases of running streams expire, and the limit does not hold",
    );
    if !admits("DownstreamEnd") {
        findings.add(
            at,
            "ends",
            Some(PIECE),
            "no logger sends DownstreamEnd entries: slots stay taken until their leases expire",
        );
        return;
    }
    let ends = || loggers.iter().filter(|it| it.admits("DownstreamEnd"));
    findings.need(
        ends().any(Logger::is_fast),
        at,
        "fast",
        PIECE,
        "no logger sends ends immediately (buffer_size_bytes: 1): slots become free up to a second late, and changing channel at the limit is refused",
    );
    findings.need(
        ends().any(|it| it.buffer() >= DURABLE),
        at,
        "durable",
        PIECE,
        "no logger of ends has a buffer that outlives a restart of streamgate (buffer_size_bytes: 3145728)",
    );
}

/// Checks which entries a logger sends.
fn filters(manager: &Manager<'_>, logger: &Logger<'_>, findings: &mut Findings) {
    for filter in logger.metadata_filters() {
        let Some(matcher) = filter.get("matcher") else {
            continue;
        };
        let namespace = matcher.text_of("filter");
        if namespace == CHECK {
            findings.need(
                !filter.is("match_if_key_not_found", false),
                &filter,
                "log_filter",
                PIECE,
                "match_if_key_not_found is false: the end of a stream whose client left during the check is not reported, and its slot stays taken",
            );
        } else if !marks(manager, namespace) {
            findings.add(
                &filter,
                "mark",
                Some("http_filters"),
                format!(
                    "this logger requires metadata of {namespace:?}, which no set_metadata filter before ext_authz writes: it reports nothing"
                ),
            );
        }
    }
}

/// Checks which headers a logger sends.
fn headers(
    manager: &Manager<'_>,
    logger: &Logger<'_>,
    user: Option<&Source>,
    findings: &mut Findings,
) {
    let named = "additional_request_headers_to_log";
    let sent = logger.settings.list(named);
    let sent: Vec<_> = sent
        .iter()
        .filter_map(At::text)
        .map(str::to_ascii_lowercase)
        .collect();
    for secret in ["authorization", "cookie"] {
        if sent.iter().any(|it| it == secret) {
            findings.add(
                &logger.settings,
                "secret",
                Some(PIECE),
                format!("{named} has {secret}: each log entry contains credentials; remove it"),
            );
        }
    }
    let mut users = headers_written(manager);
    if let Some(Source::Header(name)) = user {
        users.push(name.as_str().to_owned());
    }
    if let Some(missing) = users.iter().find(|name| !sent.contains(name))
        && !users.iter().any(|name| sent.contains(name))
    {
        findings.add(
            &logger.settings,
            "log_headers",
            Some(PIECE),
            format!("{named} lacks {missing}: an end without an answer to its check can't be matched to its user"),
        );
    }
}

impl<'a> Logger<'a> {
    /// Whether entries of that type come through.
    fn admits(&self, kind: &str) -> bool {
        let mut filters = self.filters("log_type_filter").into_iter();
        filters.all(|filter| {
            let types = filter.list("types");
            let listed = types.iter().any(|it| it.text() == Some(kind));
            listed != filter.is("exclude", true)
        })
    }

    /// Those filters, alone or joined by `and`. A filter joined by `or` decides nothing alone.
    fn filters(&self, kind: &str) -> Vec<At<'a>> {
        let Some(filter) = self.at.get("filter") else {
            return Vec::new();
        };
        let mut all = filter
            .get("and_filter")
            .map(|and| and.list("filters"))
            .unwrap_or_default();
        all.push(filter);
        all.iter().filter_map(|it| it.get(kind)).collect()
    }

    /// The filters on metadata.
    fn metadata_filters(&self) -> Vec<At<'a>> {
        self.filters("metadata_filter")
    }

    /// The size of its buffer.
    fn buffer(&self) -> f64 {
        let size = self.common.get("buffer_size_bytes");
        size.and_then(|it| it.number()).unwrap_or(16_384.0)
    }

    /// Whether entries are sent immediately.
    fn is_fast(&self) -> bool {
        let flush = self.common.get("buffer_flush_interval");
        let flush = flush.and_then(|it| it.seconds()).unwrap_or(1.0);
        self.buffer() <= 1.0 || flush <= AT_ONCE
    }
}
