FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# The dependencies alone first: this layer is made again only when they change. Examples and benches are not here.
COPY Cargo.toml Cargo.lock ./
RUN sed -i -E '/^\[\[(example|bench|test)\]\]/,/^$/d' Cargo.toml \
    && mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin tollgate && rm -r src
COPY src src
# Newer than what was built above, whatever their dates in the checkout.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bin tollgate

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin tollgate
COPY --from=build /build/target/release/tollgate /usr/local/bin/tollgate
USER 10001
EXPOSE 8080
# Whether the server answers; a Redis that is away is not cured by a restart.
HEALTHCHECK --interval=5s --timeout=3s --start-period=2s --retries=3 CMD ["tollgate", "healthcheck"]
ENTRYPOINT ["tollgate"]
