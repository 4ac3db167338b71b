//! The files in `deploy/` and `envoy/`, and the image.

// What can be said of the files in `envoy/` without starting Envoy.
mod envoy_files;
// What `streamgate envoy-config` writes, in a real Envoy, and what `streamgate envoy-check` finds.
mod envoy_config;
// The image, compose.yaml and its Envoy, as far as possible without a Docker engine.
mod deploy_files;
// The example configuration of a release, its versions, the notes of its tag.
mod release_files;
// The objects for Kubernetes.
mod kubernetes;
// The files for Prometheus and Grafana: alerts that fire and clear, and a dashboard whose every
// query returns data.
mod prometheus;
