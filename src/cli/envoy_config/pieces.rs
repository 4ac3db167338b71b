//! The pieces of YAML, each in a file of its own with its reasons.

use super::fill::Piece;

/// Declares each piece by the name of its file.
macro_rules! pieces {
    ($($name:ident = $file:literal;)*) => {
        $(
            #[doc = concat!("`pieces/", $file, ".yaml`.")]
            pub(super) const $name: Piece = Piece::new(include_str!(concat!("pieces/", $file, ".yaml")));
        )*
    };
}

pieces! {
    ACCESS_LOG = "access_log";
    CIRCUIT_BREAKERS = "circuit_breakers";
    CLUSTER_API = "cluster-api";
    CLUSTER_LOGIN = "cluster-login";
    CLUSTER_ORIGIN = "cluster-origin";
    CLUSTERS = "clusters";
    CORS_API = "cors-api";
    CORS_FILTER = "cors-filter";
    CORS_POLICY = "cors-policy";
    EDGE = "edge";
    EDGE_BEHIND = "edge-behind";
    FILTER_CHAIN = "filter_chain";
    GATEWAY = "gateway";
    HEALTH_API = "health-api";
    HTTP_CONNECTION_MANAGER = "http_connection_manager";
    HTTP_FILTERS = "http_filters";
    KEYS_EXAMPLE = "keys-example";
    KEYS_REMOTE = "keys-remote";
    LISTENER = "listener";
    LOGIN_BASIC = "login-basic";
    LOGIN_HEADER = "login-header";
    LOGIN_JWT = "login-jwt";
    LOGIN_OFF = "login-off";
    LOGIN_PRINCIPAL = "login-principal";
    LOGIN_TLS = "login-tls";
    RETRY_API = "retry-api";
    RETRY_CHECK = "retry-check";
    ROUTE_API = "route-api";
    ROUTE_ENDLESS = "route-endless";
    ROUTE_ISSUED = "route-issued";
    ROUTE_PLAYBACK = "route-playback";
    ROUTE_UNCHECKED = "route-unchecked";
    TLS = "tls";
    TLS_IDENTITY = "tls-identity";
}
