//! Envoy in front of the servers: the demo's configuration, in which the request of a player is
//! checked and then answered by Envoy itself.

use std::net::SocketAddr;

use serde_json::json;
use testkit::envoy_files::{CONNECTION_MANAGER, at_mut, route_mut};
use testkit::gateway::{Gateway, Setup};

/// The filters of a check.
const CHECK_FILTERS: [&str; 2] = [
    "envoy.filters.http.set_metadata",
    "envoy.filters.http.ext_authz",
];

/// Starts an Envoy that asks that server about each request, or nobody.
pub(crate) async fn start(asked: Option<SocketAddr>) -> Gateway {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let setup = Setup::demo(&[asked.unwrap_or(nowhere)], nowhere);
    let setup = setup.without_access_log().edit(|config| {
        let route = route_mut(config, "/vod").as_object_mut().unwrap();
        route.remove("route");
        route.insert("direct_response".to_owned(), json!({"status": 200}));
    });
    let setup = setup.edit(|config| {
        if asked.is_none() {
            let filters = at_mut(config, &format!("{CONNECTION_MANAGER}/http_filters"));
            let filters = filters.as_array_mut().unwrap();
            filters.retain(|filter| CHECK_FILTERS.iter().all(|name| filter["name"] != *name));
        }
    });
    setup.start_beside().await
}
