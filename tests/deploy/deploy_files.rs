//! What can be said of the image, of compose.yaml and of its Envoy's configuration without a Docker
//! engine. `make image-check` and `make compose-check` build and run them.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use testkit::docs;
use testkit::envoy_files::{
    CLUSTERS, CONNECTION_MANAGER, LISTENER, at, at_mut, read, route_mut, set,
};
use testkit::process::command;

/// Where compose.yaml has everything, by cluster.
const ADDRESSES: [(&str, &str, u16); 4] = [
    ("streamgate", "streamgate", 50051),
    ("streamgate_access_log", "streamgate", 50051),
    ("streamgate_http", "streamgate", 8080),
    ("origin", "backend", 9000),
];

fn text(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name)
}

fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut items = list.as_array().unwrap().iter();
    items
        .find(|item| item["name"] == name)
        .unwrap_or_else(|| panic!("nothing is called {name}"))
}

fn named_mut<'a>(list: &'a mut Value, name: &str) -> &'a mut Value {
    let mut items = list.as_array_mut().unwrap().iter_mut();
    items
        .find(|item| item["name"] == name)
        .unwrap_or_else(|| panic!("nothing is called {name}"))
}

fn check_filter(envoy: &mut Value) -> &mut Value {
    let filters = at_mut(envoy, &format!("{CONNECTION_MANAGER}/http_filters"));
    at_mut(
        named_mut(filters, "envoy.filters.http.ext_authz"),
        "/typed_config",
    )
}

/// `envoy/envoy.yaml` with the changes that the first line of compose's file lists, as far as they
/// are about the gateway itself.
fn as_compose_needs_it(compose: &Value) -> Value {
    let mut envoy = read("envoy/envoy.yaml");
    *at_mut(&mut envoy, "/admin/address/socket_address/port_value") = json!(9902);
    let listen = format!("{LISTENER}/address/socket_address/address");
    *at_mut(&mut envoy, &listen) = json!("0.0.0.0");
    for (cluster, address, port) in ADDRESSES {
        let ours = cluster != "origin";
        let cluster = named_mut(at_mut(&mut envoy, CLUSTERS), cluster);
        set(
            cluster,
            json!({"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}),
        );
        if ours {
            cluster["connect_timeout"] = json!("0.1s");
        }
        let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
        *at_mut(cluster, endpoint) =
            json!({"socket_address": {"address": address, "port_value": port}});
        if let Some(breakers) = cluster.pointer_mut("/circuit_breakers/thresholds/0") {
            breakers["max_retries"] = breakers["max_requests"].clone();
        }
    }
    // New parts are copied from compose's file; the other tests here check them.
    for cluster in ["streamgate", "streamgate_access_log", "streamgate_http"] {
        let checks = named(at(compose, CLUSTERS), cluster)["health_checks"].clone();
        named_mut(at_mut(&mut envoy, CLUSTERS), cluster)["health_checks"] = checks;
    }
    let mut theirs = compose.clone();
    for key in ["retry_policy", "timeout"] {
        let value = check_filter(&mut theirs)["grpc_service"][key].clone();
        check_filter(&mut envoy)["grpc_service"][key] = value;
    }
    let retry = route_mut(&mut theirs, "/v1/users")["route"]["retry_policy"].clone();
    route_mut(&mut envoy, "/v1/users")["route"]["retry_policy"] = retry;
    envoy
}

#[test]
fn compose_s_gateway_is_the_shipped_one_with_other_addresses_and_retries() {
    let compose = read("deploy/compose/envoy.yaml");
    let shipped = as_compose_needs_it(&compose);
    assert_eq!(at(&compose, LISTENER), at(&shipped, LISTENER));
    assert_eq!(compose["admin"], shipped["admin"]);
    for (cluster, ..) in ADDRESSES {
        let of = |envoy| named(at(envoy, CLUSTERS), cluster).clone();
        assert_eq!(of(&compose), of(&shipped), "{cluster}");
    }
    let names = |list: &Value| -> BTreeSet<String> {
        let items = list.as_array().unwrap().iter();
        items.map(|it| it["name"].to_string()).collect()
    };
    let mut expected = names(at(&shipped, CLUSTERS));
    expected.insert(json!("administrator").to_string());
    assert_eq!(names(at(&compose, CLUSTERS)), expected);
}

#[test]
fn compose_s_other_listeners_show_the_api_and_of_the_administrator_s_port_the_statistics_alone() {
    let compose = read("deploy/compose/envoy.yaml");
    let listeners = at(&compose, "/static_resources/listeners");
    assert_eq!(listeners.as_array().unwrap().len(), 3);
    let routes = |listener: &str| -> Vec<Value> {
        let manager = "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes";
        let routes = named(listeners, listener).pointer(manager).unwrap();
        let routes = routes.as_array().unwrap().iter();
        routes
            .map(|it| json!([it["match"], it["route"]["cluster"]]))
            .collect()
    };
    assert_eq!(
        routes("statistics"),
        [
            json!([{"path": "/stats/prometheus"}, "administrator"]),
            json!([{"path": "/ready"}, "administrator"])
        ]
    );
    let post = json!([{"name": ":method", "string_match": {"exact": "POST"}}]);
    assert_eq!(
        routes("api"),
        [
            json!([{"prefix": "/", "headers": post}, "streamgate_http"]),
            json!([{"prefix": "/"}, "streamgate_http"])
        ]
    );
    let admin = at(&compose, "/admin/address/socket_address/address");
    assert_eq!(admin, "127.0.0.1");
}

/// A retry must not be cut off before a start at a full limit has waited for its slot.
#[test]
fn a_check_that_is_put_to_another_streamgate_is_told_as_compose_has_it() {
    let mut compose = read("deploy/compose/envoy.yaml");
    let service = &check_filter(&mut compose)["grpc_service"];
    let page = "docs/envoy/several-instances.md";
    let told = docs::example(page, "More than one streamgate", "yaml");
    let told: Value = serde_saphyr::from_str(told).unwrap();
    assert_eq!(told["retry_policy"], service["retry_policy"]);
    let seconds = |value: &Value| -> f64 {
        let text = value.as_str().unwrap().strip_suffix('s').unwrap();
        text.parse().unwrap()
    };
    let one_try = seconds(&service["retry_policy"]["retry_back_off"]["max_interval"]);
    assert!(one_try > seconds(&service["timeout"]), "{service}");
}

#[test]
fn every_service_of_compose_is_bounded_watched_and_without_rights() {
    let compose = read_compose();
    let services = compose["services"].as_object().unwrap();
    let mut published = Vec::new();
    for (name, service) in services {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        let limit = service["mem_limit"].as_str().unwrap_or_default();
        assert!(limit.ends_with('m'), "{name} has a limit of memory");
        // Both our images bring their own health check, and a user.
        if service["build"].is_null() {
            assert_eq!(service["healthcheck"]["test"][0], "CMD", "{name}");
            let user = service["user"].as_str().unwrap_or("0");
            assert!(!user.starts_with('0'), "{name} is not root");
            let image = service["image"].as_str().unwrap();
            let (_, version) = image.split_once(':').expect("a version");
            assert!(version.contains('.'), "{image} is one version");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            let port = port.as_str().unwrap();
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
            let (_, default) = port.split_once(":-").unwrap();
            let (default, _) = default.split_once('}').unwrap();
            published.push(default.parse::<u16>().unwrap());
        }
    }
    published.sort_unstable();
    assert_eq!(published, [3000, 8080, 9090, 10000]);
    for streamgate in ["streamgate-1", "streamgate-2"] {
        assert_eq!(services[streamgate]["image"], "streamgate");
    }
    let redis = services["redis"]["command"].to_string();
    assert!(
        redis.contains(r#""--maxmemory-policy","noeviction""#),
        "{redis}"
    );
    assert_eq!(services["grafana"]["profiles"], json!(["dashboards"]));
}

/// compose.yaml with its merge keys resolved.
fn read_compose() -> Value {
    fn merged(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.values_mut().for_each(merged);
                if let Some(Value::Object(base)) = map.remove("<<") {
                    for (key, value) in base {
                        map.entry(key).or_insert(value);
                    }
                }
            }
            Value::Array(list) => list.iter_mut().for_each(merged),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut compose: Value = serde_saphyr::from_str(&text("deploy/compose.yaml")).unwrap();
    merged(&mut compose);
    compose
}

#[test]
fn the_image_is_of_this_version_built_by_the_oldest_rust_and_runs_as_nobody_without_a_shell() {
    let manifest = text("Cargo.toml");
    let said = |key: &str| {
        let mut lines = manifest.lines();
        let found = lines.find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        found.unwrap().trim_end_matches('"').to_owned()
    };
    let dockerfile = text("Dockerfile");
    let lines: Vec<&str> = dockerfile.lines().collect();
    assert!(lines.contains(&format!("ARG VERSION={}", said("version")).as_str()));
    let rust = said("rust-version");
    for file in ["Dockerfile", "deploy/demo/Dockerfile"] {
        let text = text(file);
        let bases: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("FROM "))
            .collect();
        let expected = [
            format!("rust:{rust}-slim-bookworm AS build"),
            "gcr.io/distroless/cc-debian12:nonroot".to_owned(),
        ];
        assert_eq!(bases, expected, "{file}");
        assert!(text.contains("\nUSER 65532:65532\n"), "{file}");
        let (_, last) = text.rsplit_once("\nFROM ").unwrap();
        for line in last.lines() {
            for instruction in ["ENTRYPOINT ", "CMD "] {
                if let Some((_, arguments)) = line.split_once(instruction) {
                    assert!(arguments.starts_with('['), "{file}: {line} needs a shell");
                }
            }
            assert!(!line.starts_with("RUN "), "{file}: {line} needs a shell");
        }
        let builds: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("cargo build"))
            .collect();
        assert_eq!(builds.len(), 2, "{file}");
        for build in builds {
            assert!(build.contains(" --locked "), "{file}: {build}");
        }
    }
}

/// Runs `prereqs.sh` for a command that no machine has, with stand-ins for what it calls: who it
/// is, sudo and apt-get.
async fn prereqs(user: &str, apt_get: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let scripts = [("id", user), ("sudo", "exit 1"), ("apt-get", apt_get)];
    for (name, script) in scripts {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let mut path = folder.path().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    let mut prereqs = command("deploy/prereqs.sh");
    prereqs.arg("no-such-command:no-such-package");
    let ran = prereqs.env("PATH", path).output().await.unwrap();
    let told = String::from_utf8(ran.stderr).unwrap();
    (ran.status.code(), told)
}

const INSTALL: &str = "apt-get install -y --no-install-recommends no-such-package";

#[tokio::test]
async fn missing_packages_are_installed_in_one_line_where_allowed() {
    let (code, told) = prereqs("echo 0", "echo \"$@\"").await;
    let line = "Installing with apt-get: no-such-package\n";
    assert_eq!((code, told.as_str()), (Some(0), line));
    let (code, told) = prereqs("echo 1000", "exit 1").await;
    let line = format!("Missing on this machine. Run: sudo apt-get update && sudo {INSTALL}\n");
    assert_eq!((code, told), (Some(1), line));
}

#[tokio::test]
async fn an_installation_that_fails_shows_why_and_what_to_run() {
    let (code, told) = prereqs("echo 0", "echo \"E: no network\"; exit 100").await;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("E: no network"), "{told}");
    assert!(told.contains(INSTALL), "{told}");
}
