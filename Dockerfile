# streamgate alone, as small as glibc allows: the program, the C library, and the authorities for
# rediss://. No shell.
#
#   docker build --tag streamgate .
#
# Works with both builders, classic and BuildKit. docs/containers.md has the line that runs it, and
# explains the contents.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies, in a separate layer that only Cargo.toml and Cargo.lock invalidate, built for an
# empty program. Nothing of the workspace's other members is built, but cargo reads their manifests.
COPY Cargo.toml Cargo.lock ./
COPY crates/testkit/Cargo.toml crates/testkit/
COPY deploy/demo/Cargo.toml deploy/demo/
RUN mkdir src \
 && echo 'fn main() {}' | tee src/main.rs >deploy/demo/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --bin streamgate

# The program. Its files are older than that build, so we touch them to make cargo rebuild.
COPY src src
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin streamgate

# Debian 12's C library as in the stage above. `nonroot` of `cc` rather than a static program:
# musl's allocator is slow when many threads share it, and we measure and test with glibc.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/streamgate /usr/local/bin/streamgate

# A published port leads to the container's address, so loopback would be unreachable. Like all
# variables, these override the configuration file.
ENV STREAMGATE_GRPC__LISTEN=0.0.0.0:50051 \
    STREAMGATE_HTTP__LISTEN=0.0.0.0:8080
EXPOSE 50051 8080

# By number, so that Kubernetes' runAsNonRoot can verify that it isn't root. Nothing is written, so
# any other user works too.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/streamgate"]
CMD ["serve"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=2 CMD ["/usr/local/bin/streamgate", "health"]

# Last, because they change with every commit.
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="streamgate" \
      org.opencontainers.image.description="Limits how many streams one user watches at once, in the path of an Envoy gateway, counted in Redis." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
