# streamgate alone, as small as glibc allows: the program, the C library, the authorities that rediss:// is trusted by. No shell.
#
#   docker build --tag streamgate .
#
# For both builders, classic and BuildKit. docs/containers.md has the line that runs it, and says what is inside and why.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies, in a layer of their own that only Cargo.toml and Cargo.lock can make stale: built for a program that does nothing.
# The workspace's other member isn't built, but has to be there.
COPY Cargo.toml Cargo.lock ./
COPY deploy/demo/Cargo.toml deploy/demo/
RUN mkdir src \
 && echo 'fn main() {}' | tee src/main.rs >deploy/demo/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --bin streamgate

# The program. Its files are older than that build, so that cargo has to be told that they are new.
COPY src src
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --bin streamgate

# Debian 12's C library as in the stage above. `nonroot` of `cc` and not a static program: musl's allocator is slow where many threads
# share it, and what is measured and tested is glibc.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/streamgate /usr/local/bin/streamgate

# A port that is published leads here, so loopback would be out of reach. These beat the configuration file, as all variables do.
ENV STREAMGATE_GRPC__LISTEN=0.0.0.0:50051 \
    STREAMGATE_HTTP__LISTEN=0.0.0.0:8080
EXPOSE 50051 8080

# By number, so that Kubernetes' runAsNonRoot can see that it isn't root. Nothing is written, so any other will do.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/streamgate"]
CMD ["serve"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=2 CMD ["/usr/local/bin/streamgate", "health"]

# Last, since they change with every commit.
ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="streamgate" \
      org.opencontainers.image.description="Limits how many streams one user watches at once, in the path of an Envoy gateway, counted in Redis." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian12:nonroot"
