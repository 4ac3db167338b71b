//! Owns how `src/envoy/descriptors.bin` comes to be: what gRPC reflection tells about the two Envoy
//! services.
//!
//! `envoy-types` carries Rust code and the `.proto` files it was made from, but no descriptor set,
//! and reflection needs one. It is compiled here from those very files, in process (`protox`: no
//! `protoc` to install), and committed, so that building streamgate needs neither. The first test
//! fails when `envoy-types` has moved on; then run
//!
//! ```text
//! UPDATE=1 cargo test --test integration reflection_descriptors
//! ```
//!
//! and commit the file. It holds neither comments nor source positions, and none of the custom
//! options (validation rules, versioning): a reflection client wants names, numbers and types.

#![expect(clippy::expect_used, reason = "what fails here fails its test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use prost_types::FileDescriptorSet;
use serde::Deserialize;

const COMMITTED: &[u8] = include_bytes!("../../src/envoy/descriptors.bin");
const SERVICES: [&str; 2] = [
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/accesslog/v3/als.proto",
];

/// The parts of cargo's answer that we use.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
}

/// Where cargo keeps the sources of `envoy-types`. We ask cargo, so that a vendored copy is found
/// as well.
fn proto_dir() -> PathBuf {
    let question = "metadata --format-version=1 --locked --offline --filter-platform=host-tuple";
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(question.split(' '))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = cargo.output().expect("cargo runs");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo metadata: {complaint}");
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let mut packages = metadata.packages.into_iter();
    let envoy_types = packages.find(|package| package.name == "envoy-types");
    let manifest = envoy_types.expect("a dependency").manifest_path;
    manifest.with_file_name("proto")
}

/// Both services with everything they import, dependencies first.
fn compile(protos: &Path) -> Vec<u8> {
    let roots = std::fs::read_dir(protos).expect("envoy-types ships its .proto files");
    let roots: BTreeSet<PathBuf> = roots
        .map(|root| root.expect("a readable entry").path())
        .collect();
    let set = protox::compile(SERVICES, roots).expect("the .proto files of envoy-types compile");
    FileDescriptorSet {
        file: set.file.into_iter().map(without_source).collect(),
    }
    .encode_to_vec()
}

fn without_source(file: prost_types::FileDescriptorProto) -> prost_types::FileDescriptorProto {
    prost_types::FileDescriptorProto {
        source_code_info: None,
        ..file
    }
}

#[test]
fn the_committed_descriptors_are_those_of_envoy_types() {
    let compiled = compile(&proto_dir());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/envoy/descriptors.bin"),
            &compiled,
        )
        .expect("writable");
    } else {
        assert!(
            compiled == COMMITTED,
            "src/envoy/descriptors.bin is out of date; see the head of this file"
        );
    }
}

#[test]
fn every_import_is_in_the_set_and_stands_before_its_importer() {
    let mut seen = BTreeSet::new();
    for file in FileDescriptorSet::decode(COMMITTED)
        .expect("a descriptor set")
        .file
    {
        for import in &file.dependency {
            assert!(
                seen.contains(import),
                "{} imports {import}, which isn't there yet",
                file.name()
            );
        }
        seen.insert(file.name().to_owned());
    }
    for service in SERVICES {
        assert!(seen.contains(service), "{service} is missing");
    }
}

#[test]
fn reflection_accepts_them_beside_the_health_service() {
    let configure = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(COMMITTED)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    assert!(configure().build_v1().is_ok());
    assert!(configure().build_v1alpha().is_ok());
}
