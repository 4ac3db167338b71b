//! Owns what can be said of the files in `envoy/` without starting Envoy: the fragments and `envoy.yaml` say the same, and
//! the fragments fit into an Envoy that knew nothing of streamgate.

#![expect(clippy::expect_used, reason = "what fails here fails its test")]

use serde_json::{Value, json};

use testkit::docs;
use testkit::envoy_files::{
    CLUSTERS, CONNECTION_MANAGER, LISTENER, at, at_mut, fragment, listen_on, paste_fragments, read,
    route_mut, send_to, set,
};

/// What a gateway of one's own decides for itself, so that no fragment has it.
const OWN_LISTENER_KEYS: [&str; 3] = ["name", "address", "filter_chains"];
const OWN_MANAGER_KEYS: [&str; 7] = [
    "@type",
    "stat_prefix",
    "codec_type",
    "use_remote_address",
    "access_log",
    "route_config",
    "http_filters",
];
const OWN_FILTERS: [&str; 2] = ["envoy.filters.http.cors", "envoy.filters.http.router"];
const OWN_CLUSTERS: [&str; 2] = ["origin", "streamgate_http"];

fn without_keys(map: &Value, keys: &[&str]) -> Value {
    let map = map.as_object().expect("a map").iter();
    map.filter(|(key, _)| !keys.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().expect("a list").iter();
    items
        .map(|item| {
            item.pointer("/name")
                .and_then(Value::as_str)
                .expect("a name")
        })
        .collect()
}

fn without_names(list: &Value, left_out: &[&str]) -> Value {
    let items = list.as_array().expect("a list").iter();
    items
        .zip(names(list))
        .filter(|(_, name)| !left_out.contains(name))
        .map(|(item, _)| item.clone())
        .collect()
}

/// A route without what it matches and where it leads.
fn settings(mut route: Value) -> Value {
    let map = route.as_object_mut().expect("a route");
    map.remove("match");
    map.remove("direct_response");
    if let Some(action) = map.get_mut("route").and_then(Value::as_object_mut) {
        action.remove("cluster");
    }
    route
}

/// Everything that is called `key`, at any depth.
fn find_all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| find_all(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| find_all(value, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn fragments_hold_what_envoy_yaml_holds() {
    let envoy = read("envoy/envoy.yaml");
    let manager = at(&envoy, CONNECTION_MANAGER);
    assert_eq!(
        fragment("listener"),
        without_keys(at(&envoy, LISTENER), &OWN_LISTENER_KEYS)
    );
    assert_eq!(
        fragment("http_connection_manager"),
        without_keys(manager, &OWN_MANAGER_KEYS)
    );
    assert_eq!(&fragment("access_log"), at(manager, "/access_log"));
    assert_eq!(
        fragment("http_filters"),
        without_names(at(manager, "/http_filters"), &OWN_FILTERS)
    );
    assert_eq!(
        fragment("clusters"),
        without_names(at(&envoy, CLUSTERS), &OWN_CLUSTERS)
    );
}

/// Without it Envoy sends the name of its cluster, which in many meshes is no host name: then every check fails.
#[test]
fn every_shipped_file_sets_the_authority_of_calls_to_streamgate() {
    for name in [
        "envoy/envoy.yaml",
        "envoy/fragments/access_log.yaml",
        "envoy/fragments/clusters.yaml",
        "envoy/fragments/http_filters.yaml",
        "deploy/compose/envoy.yaml",
        "deploy/demo/envoy.yaml.in",
    ] {
        let file = read(name);
        let mut calls = Vec::new();
        find_all(&file, "envoy_grpc", &mut calls);
        find_all(&file, "grpc_health_check", &mut calls);
        assert!(!calls.is_empty(), "{name}");
        for call in calls {
            assert_eq!(call["authority"], "streamgate", "{name}: {call}");
        }
    }
}

#[test]
fn the_fragment_of_the_api_s_cluster_holds_what_envoy_yaml_holds() {
    let envoy = read("envoy/envoy.yaml");
    let others = ["origin", "streamgate", "streamgate_access_log"];
    assert_eq!(
        fragment("cluster-api"),
        without_names(at(&envoy, CLUSTERS), &others)
    );
}

#[test]
fn route_fragments_hold_what_the_routes_of_envoy_yaml_hold() {
    let mut envoy = read("envoy/envoy.yaml");
    for (path, name) in [
        ("/live", "route-endless"),
        ("/vod", "route-playback"),
        ("/healthz", "route-unchecked"),
        ("/v1/users", "route-api"),
    ] {
        assert_eq!(
            fragment(name),
            settings(route_mut(&mut envoy, path).clone()),
            "{name} and the route {path}"
        );
    }
}

#[test]
fn the_route_with_a_cookie_is_the_playbacks_route_with_the_cookie() {
    let mut issued = fragment("route-issued");
    let filter = "/typed_per_filter_config/envoy.filters.http.ext_authz";
    let said = format!("{filter}/check_settings/context_extensions");
    let said = at_mut(&mut issued, &said).as_object_mut().expect("a map");
    assert_eq!(said.remove("streamgate.issue"), Some(json!("cookie")));
    let path = said.remove("streamgate.cookie_path").expect("a path");
    assert_eq!(issued, fragment("route-playback"));
    let path = path.as_str().expect("a text");
    let page = docs::text("docs/envoy/cookies.md");
    assert!(page.contains(path), "{path} is explained");
}

#[test]
fn the_way_over_tls_is_told_as_its_fragment_has_it() {
    let text = |name: &str| std::fs::read_to_string(name).expect(name);
    let fragment = text("envoy/fragments/tls.yaml");
    let (_, settings) = fragment.split_once('\n').expect("a comment first");
    let told = docs::example("docs/tls.md", "Envoy's side", "yaml");
    assert_eq!(told, settings.trim());
}

#[test]
fn pasting_keeps_what_a_gateway_had_and_puts_ours_before_its_router() {
    let mut envoy = read("tests/fixtures/plain-envoy.yaml");
    paste_fragments(&mut envoy);
    let manager = at(&envoy, CONNECTION_MANAGER);
    let filters = ["jwt_authn", "set_metadata", "ext_authz", "router"]
        .map(|name| format!("envoy.filters.http.{name}"));
    assert_eq!(names(at(manager, "/http_filters")), filters);
    assert_eq!(
        names(at(&envoy, CLUSTERS)),
        ["backend", "streamgate", "streamgate_access_log"]
    );
    let grpc = "envoy.access_loggers.http_grpc";
    assert_eq!(
        names(at(manager, "/access_log")),
        ["envoy.access_loggers.file", grpc, grpc]
    );
    assert_eq!(at(manager, "/stat_prefix"), "plain");
    assert_eq!(
        at(manager, "/access_log_options/access_log_flush_interval"),
        "5s"
    );
}

#[test]
fn a_fragment_set_in_a_route_leaves_its_cluster_alone() {
    let mut envoy = read("tests/fixtures/plain-envoy.yaml");
    let route = route_mut(&mut envoy, "/live");
    set(route, fragment("route-endless"));
    assert_eq!(
        at(route, "/route"),
        &json!({"cluster": "backend", "timeout": "0s"})
    );
}

#[test]
fn every_port_can_be_chosen() {
    let mut envoy = read("envoy/envoy.yaml");
    listen_on(&mut envoy, 1, 2);
    for (cluster, port) in [
        ("streamgate", 3),
        ("streamgate_access_log", 4),
        ("origin", 5),
        ("streamgate_http", 6),
    ] {
        send_to(&mut envoy, cluster, port);
    }
    let mut ports = Vec::new();
    find_all(&envoy, "port_value", &mut ports);
    ports.sort_by_key(|port| port.as_u64());
    assert_eq!(ports, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn credentials_are_never_logged() {
    let envoy = read("envoy/envoy.yaml");
    let mut logged = Vec::new();
    find_all(&envoy, "additional_request_headers_to_log", &mut logged);
    assert_eq!(logged.len(), 2, "both loggers tell whose stream it was");
    for headers in logged {
        let headers = headers.to_string().to_lowercase();
        assert!(headers.contains("x-user-id"));
        assert!(
            !headers.contains("authorization") && !headers.contains("cookie"),
            "{headers}"
        );
    }
}

#[test]
fn the_demo_tells_streamgate_what_envoy_yaml_tells_it() {
    let shipped = read("envoy/envoy.yaml");
    let demo = read("deploy/demo/envoy.yaml.in");
    let manager = |file, path| at(at(file, CONNECTION_MANAGER), path).clone();
    // The demo has one more, for what it prints.
    let loggers = without_names(
        &manager(&demo, "/access_log"),
        &["envoy.access_loggers.stdout"],
    );
    assert_eq!(loggers, manager(&shipped, "/access_log"));
    let options = "/access_log_options";
    assert_eq!(manager(&demo, options), manager(&shipped, options));
    for (name, demo, shipped) in ["streamgate", "streamgate_access_log"].map(|name| {
        let cluster = |file| {
            let mut clusters = at(file, CLUSTERS).as_array().expect("a list").iter();
            let found = clusters
                .find(|cluster| cluster["name"] == name)
                .expect("a cluster");
            without_keys(found, &["load_assignment"])
        };
        (name, cluster(&demo), cluster(&shipped))
    }) {
        assert_eq!(demo, shipped, "{name}");
    }
}
