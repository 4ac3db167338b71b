//! Envoy takes the name of its cluster for the `:authority` of checks unless it is configured, and the names that Istio and Contour give
//! are no host names. The HTTP/2 library refuses those before any code of ours runs.

use serde_json::json;

use testkit::envoy_files::{CLUSTERS, at_mut};
use testkit::gateway::Setup;
use testkit::stack::Stack;

/// Names that are no host names.
const STRANGE: [&str; 2] = [
    "outbound|50051||streamgate.ns.svc.cluster.local",
    "unix:///run/streamgate.sock|x",
];

/// The demo's Envoy, whose checks go through a cluster of that name.
fn through(cluster: &str, setup: Setup) -> Setup {
    let mut copy = setup.the_cluster("streamgate");
    copy["name"] = cluster.into();
    copy["load_assignment"]["cluster_name"] = cluster.into();
    let setup = setup.edit(|config| at_mut(config, CLUSTERS).as_array_mut().unwrap().push(copy));
    setup.check(json!({"grpc_service": {"envoy_grpc": {"cluster_name": cluster}}}))
}

#[tokio::test]
async fn checks_pass_through_a_cluster_with_any_name() {
    for cluster in STRANGE {
        let stack = Stack::start_with(&[], |setup| through(cluster, setup)).await;
        let viewers = &stack.viewers;
        drop(viewers.watch(viewers.http1("alice", "/live/1")).await);
    }
}

#[tokio::test]
async fn a_cluster_whose_name_is_no_host_name_is_warned_about() {
    for cluster in STRANGE {
        let stack = Stack::start_with(&[], |setup| {
            let unset = json!({"grpc_service": {"envoy_grpc": {"authority": ""}}});
            through(cluster, setup).check(unset)
        })
        .await;
        let viewers = &stack.viewers;
        let refusal = viewers.refused(viewers.http1("alice", "/live/1")).await;
        assert_eq!(refusal.status, 503);
        let labels = [("port", "grpc"), ("error", "reset_protocol_error")];
        let errors = "streamgate_http2_errors_total";
        let streamgate = &stack.streamgate;
        streamgate
            .metric_becomes(errors, &labels, |count| count >= 1.0)
            .await;
        streamgate.says("set `authority: streamgate` in").await;
    }
}
