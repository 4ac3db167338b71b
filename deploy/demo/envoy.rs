//! Envoy's configuration: the template with the ports filled in.

use crate::failure::Failure;
use crate::ports::Ports;

const TEMPLATE: &str = include_str!("envoy.yaml.in");

/// Fills in the template; a remaining placeholder is a mistake in the template.
pub(crate) fn configuration(ports: Ports, backend: u16) -> Result<String, Failure> {
    // In comments `${…}` is only a mention, not a placeholder.
    let mut filled: String = TEMPLATE
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    for (name, port) in [
        ("${GATEWAY_PORT}", ports.gateway),
        ("${GRPC_PORT}", ports.grpc),
        ("${HTTP_PORT}", ports.http),
        ("${BACKEND_PORT}", backend),
        ("${ADMIN_PORT}", ports.envoy_admin),
    ] {
        filled = filled.replace(name, &port.to_string());
    }
    match filled.lines().find(|line| line.contains("${")) {
        Some(line) => Err(Failure::new(format!(
            "deploy/demo/envoy.yaml.in has a placeholder nobody fills in: {}",
            line.trim()
        ))),
        None => Ok(filled),
    }
}
