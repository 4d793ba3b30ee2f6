# syntax=docker/dockerfile:1

# The build runs on the builder's own platform and cross-compiles: the binary is pure Go.
ARG GO_VERSION=1.26.8
FROM --platform=$BUILDPLATFORM golang:${GO_VERSION}-bookworm AS build
WORKDIR /src

# The modules change rarely: they have a layer of their own.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

# .dockerignore lets the sources of the binary through and nothing else.
COPY . .
ARG TARGETOS TARGETARCH
ARG VERSION=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /pgsidecar ./cmd/pgsidecar

# No shell, no libc, no package manager: certificates of authorities, time zones and the binary. It writes no file, so a
# read-only root file system is all that it needs.
FROM gcr.io/distroless/static-debian12:nonroot

ARG VERSION=unknown
LABEL org.opencontainers.image.title="pgsidecar" \
      org.opencontainers.image.description="A sidecar proxy for PostgreSQL that pools connections by transaction" \
      org.opencontainers.image.version=$VERSION

COPY --from=build /pgsidecar /pgsidecar

# By number, so that Kubernetes can check runAsNonRoot without reading the image's /etc/passwd.
USER 65532:65532

# Clients on 6432; probes, metrics and status on 6433. Both are on loopback unless the configuration says otherwise.
EXPOSE 6432 6433

# Docker asks; Kubernetes has probes of its own and ignores it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["/pgsidecar", "health"]

# SIGTERM, the default stop signal, is the one that drains.
ENTRYPOINT ["/pgsidecar"]
