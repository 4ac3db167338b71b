//! Owns reading Envoy's configuration files, pasting `envoy/fragments/` into one as `docs/envoy/install.md` tells a reader to do
//! by hand, and giving a configuration the ports of a test. Envoy itself isn't started here.
//!
//! Envoy reads JSON as well as YAML: write the value to a file that ends in `.json`.

use serde_json::Value;

use crate::tools::repository;

/// The one listener of all our files, and the HTTP connection manager in it.
pub const LISTENER: &str = "/static_resources/listeners/0";
/// The HTTP connection manager of all our files.
pub const CONNECTION_MANAGER: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
/// The clusters of all our files.
pub const CLUSTERS: &str = "/static_resources/clusters";

/// A YAML file, named from the root of the repository, with its anchors resolved and each `${PORT}` of a template as 1.
pub fn read(name: &str) -> Value {
    let text = std::fs::read_to_string(repository(name)).expect(name);
    serde_saphyr::from_str(&fill_in(&text)).expect(name)
}

fn fill_in(template: &str) -> String {
    let mut parts = template.split("${");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once('}').expect("a closing brace");
        filled.push('1');
        filled.push_str(rest);
    }
    filled
}

/// A file of `envoy/fragments/`, by its name without `.yaml`.
pub fn fragment(name: &str) -> Value {
    read(&format!("envoy/fragments/{name}.yaml"))
}

/// The part of a configuration at a JSON pointer.
pub fn at<'a>(envoy: &'a Value, pointer: &str) -> &'a Value {
    envoy.pointer(pointer).expect(pointer)
}

/// The same, to change it.
pub fn at_mut<'a>(envoy: &'a mut Value, pointer: &str) -> &'a mut Value {
    envoy.pointer_mut(pointer).expect(pointer)
}

/// A list at a JSON pointer, made if it is missing from its map.
fn list_mut<'a>(envoy: &'a mut Value, map: &str, key: &str) -> &'a mut Vec<Value> {
    let map = at_mut(envoy, map).as_object_mut().expect(map);
    let list = map.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    list.as_array_mut().expect(key)
}

fn items(list: Value) -> Vec<Value> {
    match list {
        Value::Array(items) => items,
        other => vec![other],
    }
}

/// Sets in `base` what `addition` says: maps key by key, anything else replaced.
pub fn set(base: &mut Value, addition: Value) {
    match (base, addition) {
        (Value::Object(base), Value::Object(addition)) => {
            for (key, value) in addition {
                set(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, addition) => *base = addition,
    }
}

/// Puts streamgate into somebody's Envoy: every fragment but those for routes.
pub fn paste_fragments(envoy: &mut Value) {
    set(at_mut(envoy, LISTENER), fragment("listener"));
    set(
        at_mut(envoy, CONNECTION_MANAGER),
        fragment("http_connection_manager"),
    );
    list_mut(envoy, CONNECTION_MANAGER, "access_log").extend(items(fragment("access_log")));
    list_mut(envoy, "/static_resources", "clusters").extend(items(fragment("clusters")));
    let filters = list_mut(envoy, CONNECTION_MANAGER, "http_filters");
    let router = filters.pop().expect("the router is the last filter");
    filters.extend(items(fragment("http_filters")));
    filters.push(router);
}

/// The route that matches `path`, which is written there as `path` or as `path_separated_prefix`.
pub fn route_mut<'a>(envoy: &'a mut Value, path: &str) -> &'a mut Value {
    let routes = format!("{CONNECTION_MANAGER}/route_config/virtual_hosts/0/routes");
    let routes = at_mut(envoy, &routes).as_array_mut().expect("routes");
    let matches = |route: &&mut Value| {
        ["/match/path", "/match/path_separated_prefix"]
            .iter()
            .any(|way| route.pointer(way).is_some_and(|found| found == path))
    };
    routes.iter_mut().find(matches).expect(path)
}

/// Where Envoy listens: for streams, and for its administrator.
pub fn listen_on(envoy: &mut Value, port: u16, admin_port: u16) {
    *at_mut(
        envoy,
        &format!("{LISTENER}/address/socket_address/port_value"),
    ) = port.into();
    *at_mut(envoy, "/admin/address/socket_address/port_value") = admin_port.into();
}

/// Where a cluster's one endpoint is.
pub fn send_to(envoy: &mut Value, cluster: &str, port: u16) {
    let clusters = at_mut(envoy, CLUSTERS).as_array_mut().expect("clusters");
    let mut clusters = clusters.iter_mut();
    let cluster = clusters
        .find(|found| found.pointer("/name").is_some_and(|name| name == cluster))
        .expect(cluster);
    let address =
        "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
    *at_mut(cluster, address) = port.into();
}
