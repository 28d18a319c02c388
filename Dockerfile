# Postel and its Collector in one image, built from the checkout; compose.yaml runs a container of it for each part.

FROM golang:1.26.6-bookworm AS collector
ENV CGO_ENABLED=0 GOFLAGS=-trimpath GOTOOLCHAIN=local
WORKDIR /build
COPY collector-config/builder.yaml ./
COPY collector-config/extensions ./extensions
# As `make collector` does it: the builder is of the release that the manifest names, and compiles into ./sources.
RUN version=$(sed -n 's/^  version: //p' builder.yaml) && \
    go install "go.opentelemetry.io/collector/cmd/builder@v$version" && \
    builder --config builder.yaml --ldflags "-s -w"

FROM python:3.13-slim-bookworm AS postel
WORKDIR /build
COPY requirements/runtime.txt requirements/runtime.txt
# Into a folder that the next stage takes as a whole; the locked versions, and no other.
RUN python -m venv /opt/postel && \
    /opt/postel/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.txt
COPY . .
RUN /opt/postel/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/postel postel && \
    install -d -o postel -g postel -m 0700 /var/lib/postel
COPY --from=collector /build/sources/postel-otelcol /usr/local/bin/postel-otelcol
COPY --from=postel /opt/postel /opt/postel
ENV PATH=/opt/postel/bin:/usr/local/bin:/usr/bin:/bin \
    POSTEL_DATA_DIR=/var/lib/postel \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/postel
# By number, so that who runs it can see that it is not root.
USER 10001:10001
ENTRYPOINT ["postel"]
CMD ["--help"]
