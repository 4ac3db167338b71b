//! `deploy/kubernetes/streamgate.yaml`: its parts agree with each other and with what streamgate does. A cluster isn't needed.

use serde_json::Value;

use testkit::process::command;

const MANIFEST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/deploy/kubernetes/streamgate.yaml"
);

fn objects() -> Vec<Value> {
    let text = std::fs::read_to_string(MANIFEST).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut objects = objects.iter();
    objects
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} is called {name}"))
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

#[tokio::test]
async fn the_configuration_in_the_config_map_is_valid() {
    let objects = objects();
    let map = object(&objects, "ConfigMap", "streamgate");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("streamgate.yaml");
    std::fs::write(&file, map["data"]["streamgate.yaml"].as_str().unwrap()).unwrap();
    let secret = object(&objects, "Secret", "streamgate");
    let url = secret["stringData"]["redis-url"].as_str().unwrap();
    let container = container(object(&objects, "Deployment", "streamgate"));
    let mut check = command(env!("CARGO_BIN_EXE_streamgate"));
    check.arg("check-config").arg(&file);
    check.env(container["env"][0]["name"].as_str().unwrap(), url);
    let checked = check.output().await.unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let shown = String::from_utf8(checked.stdout).unwrap();
    assert!(shown.contains("redis.example.internal"), "{shown}");
    let mount = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
    let args = container["args"].as_array().unwrap();
    assert_eq!(args.last().unwrap(), &format!("{mount}/streamgate.yaml"));
}

#[test]
fn the_pod_may_end_later_than_streamgate_does() {
    let objects = objects();
    let map = object(&objects, "ConfigMap", "streamgate");
    let text = map["data"]["streamgate.yaml"].as_str().unwrap();
    let settings: Value = serde_saphyr::from_str(text).unwrap();
    let deadline = settings["shutdown"]["deadline"].as_str().unwrap();
    let deadline: u64 = deadline.strip_suffix('s').unwrap().parse().unwrap();
    let pod = &object(&objects, "Deployment", "streamgate")["spec"]["template"]["spec"];
    let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > deadline, "{grace} s for {deadline} s");
}

#[test]
fn services_policies_and_probes_lead_to_ports_and_pods_that_are_there() {
    let objects = objects();
    let deployment = object(&objects, "Deployment", "streamgate");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    let container = container(deployment);
    let ports = container["ports"].as_array().unwrap();
    let names: Vec<&Value> = ports.iter().map(|port| &port["name"]).collect();
    for probe in ["readinessProbe", "livenessProbe"] {
        assert!(names.contains(&&container[probe]["httpGet"]["port"]));
    }
    for (service, port) in [("streamgate-grpc", 50051), ("streamgate", 8080)] {
        let spec = &object(&objects, "Service", service)["spec"];
        assert_eq!(&spec["selector"], labels, "{service}");
        assert_eq!(spec["ports"][0]["port"], port, "{service}");
        let target = &spec["ports"][0]["targetPort"];
        let target = ports.iter().find(|port| port["name"] == *target).unwrap();
        assert_eq!(target["containerPort"], port, "{service}");
    }
    let policy = &object(&objects, "NetworkPolicy", "streamgate")["spec"];
    assert_eq!(&policy["podSelector"]["matchLabels"], labels);
    for rule in policy["ingress"].as_array().unwrap() {
        assert!(names.contains(&&rule["ports"][0]["port"]), "{rule}");
    }
    let budget = &object(&objects, "PodDisruptionBudget", "streamgate")["spec"];
    assert_eq!(&budget["selector"]["matchLabels"], labels);
}

#[test]
fn the_container_has_no_rights_and_its_disk_is_read_only() {
    let objects = objects();
    let deployment = object(&objects, "Deployment", "streamgate");
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["automountServiceAccountToken"], false);
    let security = &container(deployment)["securityContext"];
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
}
