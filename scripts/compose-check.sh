#!/usr/bin/env bash
# Brings the compose file up with three instances, checks it through nginx, and takes everything down.
#
#   scripts/compose-check.sh [--keep]      --keep leaves it running after the checks
#
# HTTP_PORT chooses the published port (default 8088). Needs a Docker engine and docker-compose, or its plugin.
set -euo pipefail
cd "$(dirname "$0")/.."

PROJECT=tollgate-check
NGINX_IMAGE=nginx:1.30-alpine
export HTTP_PORT=${HTTP_PORT:-8088}
URL=http://127.0.0.1:$HTTP_PORT
CAPACITY=50
# So slow that nothing is refilled while a check runs: then the law is the capacity.
SLOW=0.001
RULES=rules/compose-check.yaml
passed=0 failed=0 keep=no
[ "${1:-}" = --keep ] && keep=yes

if command -v docker-compose >/dev/null; then COMPOSE=(docker-compose); else COMPOSE=(docker compose); fi
docker info >/dev/null 2>&1 || { echo "No Docker engine answers: start one, then run this again." >&2; exit 69; }
"${COMPOSE[@]}" version >/dev/null 2>&1 || { echo "Neither docker-compose nor its plugin is installed." >&2; exit 69; }
COMPOSE+=(-p "$PROJECT")

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }

# check WHAT COMMAND...: one line of the result
check() {
  local what=$1; shift
  if "$@"; then passed=$((passed + 1)); say "ok    $what"; else failed=$((failed + 1)); say "FAIL  $what"; fi
}

clean_up() {
  local status=$?
  [ "$status" = 0 ] || "${COMPOSE[@]}" logs --tail 20 || true
  docker rm -f "$PROJECT-client-a" "$PROJECT-client-b" >/dev/null 2>&1 || true
  [ "$keep" = yes ] || "${COMPOSE[@]}" down --volumes --remove-orphans >/dev/null 2>&1 || true
  rm -rf "$work" "$RULES" "$RULES.next"
}
work=$(mktemp -d)
trap clean_up EXIT
trap 'exit 130' INT TERM

# up STRATEGY INSTANCES [NAME=VALUE ...]
up() {
  local strategy=$1 instances=$2; shift 2
  env LIMITER_STRATEGY="$strategy" LIMITER_CAPACITY=$CAPACITY LIMITER_REFILL_RATE=$SLOW REDIS_TIMEOUT=5s "$@" \
    "${COMPOSE[@]}" up -d --scale app="$instances" >>"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; return 1; }
  until_true 60 instances_are "$instances"
}

# until_true SECONDS COMMAND...: tries every half second
until_true() {
  local tries=$(($1 * 2)); shift
  while ! "$@"; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || return 1
    sleep 0.5
  done
}

status() { curl -s -o /dev/null -m 10 -w '%{http_code}' "$URL$1"; }

# The ids that answer, one a line, out of 30 requests.
ids() {
  local i
  for i in $(seq 30); do curl -s -m 5 "$URL/health?$i"; echo; done | sed -n 's/.*"instanceId":"\([^"]*\)".*/\1/p' | sort -u
}

instances_are() { [ "$(ids | wc -l)" = "$1" ]; }

# burst REQUESTS AT_ONCE: how many were granted, out of as many requests to /api
burst() {
  seq "$1" | xargs -P "$2" -I{} curl -s -o /dev/null -m 20 -w '%{http_code}\n' "$URL/api?{}" >"$work/codes"
  grep -c '^200$' "$work/codes" || true
}

forget_buckets() { "${COMPOSE[@]}" exec -T redis redis-cli FLUSHALL >/dev/null; }

# In a container of the network, so that nginx sees a private address: remaining tokens after one request.
client() { docker exec "$1" curl -s -o /dev/null -D - http://nginx/api | tr -d '\r' | sed -n 's/^x-ratelimit-remaining: //p'; }

limit_holds() {
  forget_buckets
  local granted; granted=$(burst 120 20)
  say "      $1: $granted of 120 granted, the law allows $CAPACITY"
  [ "$granted" = "$CAPACITY" ] && [ "$(grep -c '^429$' "$work/codes")" = $((120 - CAPACITY)) ]
}

two_clients_two_buckets() {
  forget_buckets
  local name
  for name in a b; do
    docker run -d --rm --name "$PROJECT-client-$name" --network "${PROJECT}_default" --entrypoint sleep \
      "$NGINX_IMAGE" 120 >/dev/null
  done
  [ "$(client "$PROJECT-client-a")" = 49 ] && [ "$(client "$PROJECT-client-a")" = 48 ] && [ "$(client "$PROJECT-client-b")" = 49 ]
}

# nginx overwrites what a client claims, so another claim is no other bucket.
a_forged_address_is_ignored() {
  forget_buckets
  local left i
  for i in 1 2 3; do
    left=$(curl -s -o /dev/null -D - -H "X-Forwarded-For: 192.0.2.$i" "$URL/api" | tr -d '\r' | sed -n 's/^x-ratelimit-remaining: //p')
  done
  [ "$left" = 47 ]
}

nginx_started() { docker inspect -f '{{.State.StartedAt}} {{.RestartCount}}' "$("${COMPOSE[@]}" ps -q nginx)"; }

scales_to_five() {
  local before; before=$(nginx_started)
  up tokenbucket-lua 5
  [ "$(nginx_started)" = "$before" ]
}

# A limit of so many, in a file that is put in the other's place.
rules_limit() {
  printf 'rules:\n  - { name: check, match: { path: /api/** }, key: ip, limit: %s/1000s, burst: %s }\n' 1 "$1" >"$RULES.next"
  mv "$RULES.next" "$RULES"
}

comes_up_with_rules() { RULES_FILE=$RULES up tokenbucket-lua 3; }

# Of every instance: nginx asks them in turn.
policy_is() {
  local path=$1 policy=$2 i
  for i in 1 2 3 4 5 6; do
    [ "$(curl -s -o /dev/null -m 10 -D - "$URL$path" | tr -d '\r' | sed -n 's/^ratelimit-policy: //p')" = "$policy" ] || return 1
  done
}

limits_alone() { curl -si "$URL/api" | grep -qi '^x-ratelimit-source: local'; }
is_not_degraded() { curl -si "$URL/api" | grep -qi '^x-ratelimit-remaining' && ! limits_alone; }
is_unhealthy_in_time() { [ "$(curl -s -o /dev/null -m 1 -w '%{http_code}' "$URL/health")" = 503 ]; }
is_healthy() { [ "$(status /health)" = 200 ]; }
is_served() { [ "$(status /api)" = 200 ]; }
containers_are_healthy() {
  local id
  for id in $("${COMPOSE[@]}" ps -q app redis); do
    [ "$(docker inspect -f '{{.State.Health.Status}}' "$id")" = healthy ] || return 1
  done
}

say "building (the first time takes some minutes)"
"${COMPOSE[@]}" build >"$work/build.log" 2>&1 || { tail -40 "$work/build.log" >&2; exit 1; }

say "three instances behind nginx on $URL"
check "three instance ids answer" up tokenbucket-lua 3
check "the containers call themselves healthy" until_true 30 containers_are_healthy
for strategy in tokenbucket-lua tokenbucket-transaction; do
  check "$strategy comes up" up "$strategy" 3
  check "the limit holds across three instances: $strategy" limit_holds "$strategy"
done
check "tokenbucket-hash comes up" up tokenbucket-hash 3
limit_holds tokenbucket-hash || say "      (tokenbucket-hash is not atomic: more is expected, and is no failure)"
check "tokenbucket-memory comes up, a bucket an instance" up tokenbucket-memory 3
granted=$(burst 200 20)
check "tokenbucket-memory grants $granted of 200, three times $CAPACITY" test "$granted" = $((3 * CAPACITY))

check "back to tokenbucket-lua" up tokenbucket-lua 3
check "two clients on private addresses have two buckets" two_clients_two_buckets
check "a forged X-Forwarded-For is ignored" a_forged_address_is_ignored
check "five instances answer, nginx was not restarted" scales_to_five
rules_limit 7
check "rules come from a file of the folder rules" comes_up_with_rules
check "each path has its own limit" until_true 10 policy_is /api/x '"check";q=7;w=7000'
check "and a path that no rule matches has none" policy_is /other ''
rules_limit 9
check "a file that is renamed into the folder is in force without a restart" \
  until_true 10 policy_is /api/x '"check";q=9;w=9000'
rm -f "$RULES"
check "back to one limit" up tokenbucket-lua 3
"${COMPOSE[@]}" stop redis >/dev/null 2>&1
check "without Redis the instances limit by themselves, and say so" until_true 10 limits_alone
check "and /health is 503 within a second" is_unhealthy_in_time
"${COMPOSE[@]}" start redis >/dev/null 2>&1
check "with Redis again /health is 200" until_true 20 is_healthy
check "and /api is 200" until_true 20 is_served
check "and nobody limits alone any more" until_true 20 is_not_degraded

printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" = 0 ]
