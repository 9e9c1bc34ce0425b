#!/usr/bin/env bash
# The load test: three scenarios against several instances behind nginx, for every strategy.
#
# Everything is its own: release binaries, nginx with a configuration in a temporary directory, and a
# private redis-server on a free port. What it starts, it ends; what others run, it leaves alone.
# The generator and the law by which it judges are in examples/load.rs.
#
# Exit code 0: every exact strategy granted what the law allows, no more and no fewer. 1: one did
# not, or a request got no decision, or something did not run. 64: wrong usage. 69: a program is missing.

set -euo pipefail

readonly # A little more than the default of LIMITER_DENIAL_CACHE, in seconds.
DENIALS_LAST=1.1
CAPACITY=50
readonly RATE=10
readonly SCENARIOS='burst several-clients burst-then-steady'
readonly ALL='tokenbucket-lua tokenbucket-transaction tokenbucket-hash tokenbucket-memory'
readonly REPORT=docs/load-test.md

usage() {
    cat <<EOF
Usage: scripts/load-test.sh [--instances N] [--strategy NAME]...

Plays three scenarios against N instances of the release binary behind nginx and a private Redis,
prints a table and, unless --strategy was given, writes it to $REPORT.

  --instances N    instances behind nginx, 1 to 16 (default 3; tokenbucket-memory has one)
  --strategy NAME  only this strategy; may be given more than once
  --help           this text

Strategies: $ALL
EOF
}

complain() {
    printf 'load-test: %s\n' "$*" >&2
}

die() {
    complain "$@"
    exit 1
}

wrong_usage() {
    complain "$@"
    usage >&2
    exit 64
}

# --- what was asked for -----------------------------------------------------------------------

instances=3
strategies=
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h)
            usage
            exit 0
            ;;
        --instances | --strategy)
            [ $# -gt 1 ] || wrong_usage "$1 needs a value"
            if [ "$1" = --instances ]; then
                instances=$2
            else
                case " $ALL " in
                    *" $2 "*) strategies="$strategies $2" ;;
                    *) wrong_usage "no strategy '$2'" ;;
                esac
            fi
            shift 2
            ;;
        *) wrong_usage "no option '$1'" ;;
    esac
done
case $instances in
    [1-9] | 1[0-6]) ;;
    *) wrong_usage "--instances is 1 to 16, not '$instances'" ;;
esac
whole=$([ -n "$strategies" ] || echo yes)
strategies=${strategies:-$ALL}

missing=
for program in redis-server redis-cli nginx; do
    # Debian puts nginx where only root looks.
    command -v "$program" >/dev/null || PATH=$PATH:/usr/sbin:/usr/local/sbin
    command -v "$program" >/dev/null || missing="$missing $program"
done
if [ -n "$missing" ]; then
    complain "missing:$missing. Install with:"
    if [ "$(uname -s)" = Darwin ]; then
        complain '  brew install redis nginx'
    else
        complain '  sudo apt-get install -y redis-server redis-tools nginx-light'
    fi
    exit 69
fi

# --- starting and ending ----------------------------------------------------------------------

cd "$(dirname "$0")/.."
root=$PWD
tmp=$(mktemp -d "${TMPDIR:-/tmp}/tollgate-load.XXXXXX")
redis_pid=
nginx_pid=
instance_pids=

alive() {
    kill -0 "$1" 2>/dev/null
}

# Ends one process that this script started: politely, and after ten seconds by force.
end() {
    local tries=0
    kill -TERM "$1" 2>/dev/null || return 0
    while alive "$1"; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then
            complain "process $1 ($2) did not end within 10 s of SIGTERM"
            kill -KILL "$1" 2>/dev/null || true
            return 1
        fi
        sleep 0.1
    done
}

stop_service() {
    local pid failed=0
    for pid in $nginx_pid; do end "$pid" nginx || failed=1; done
    for pid in $instance_pids; do end "$pid" tollgate || failed=1; done
    nginx_pid=
    instance_pids=
    return $failed
}

clean_up() {
    local status=$?
    trap - EXIT INT TERM
    stop_service || true
    [ -z "$redis_pid" ] || end "$redis_pid" redis-server || true
    rm -rf "$tmp"
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Sets `port` to one that nobody listens on, each time another, below those the system hands out.
port=$((20000 + RANDOM % 10000))
next_port() {
    local tries=0
    while [ $tries -lt 200 ]; do
        tries=$((tries + 1))
        port=$((port + 1))
        (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || return 0
    done
    die 'found no free port'
}

# wait_for WHAT PID LOG COMMAND...: until the command succeeds, at most ten seconds.
wait_for() {
    local what=$1 pid=$2 log=$3 tries=0
    shift 3
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ $tries -gt 100 ] || ! alive "$pid"; then
            sed 's/^/  /' "$log" >&2
            die "$what did not come up"
        fi
        sleep 0.1
    done
    # Not another's, should somebody have taken the port meanwhile.
    alive "$pid" || die "$what ended as soon as it was started"
}

# healthy PORT: does GET /health there answer 200? A subshell, so that it ends with its connection.
healthy() (
    exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
    printf 'GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' >&3
    IFS= read -r -t 5 line <&3 || true
    case $line in *' 200 '*) ;; *) exit 1 ;; esac
)

# A socket in the temporary directory: these commands cannot reach another's Redis.
redis() {
    redis-cli -s "$tmp/redis.sock" "$@"
}

start_redis() {
    next_port
    redis_port=$port
    redis-server --port "$redis_port" --bind 127.0.0.1 --unixsocket "$tmp/redis.sock" \
        --dir "$tmp" --save '' --appendonly no --daemonize no >"$tmp/redis.log" 2>&1 &
    redis_pid=$!
    wait_for redis-server "$redis_pid" "$tmp/redis.log" redis ping
}

# start_instance STRATEGY NUMBER: on `port`. Nothing of the caller's environment or `.env` counts.
start_instance() {
    local log=$tmp/instance-$2.log redis_addr=127.0.0.1:$redis_port
    # It would warn that it does not use it.
    [ "$1" != tokenbucket-memory ] || redis_addr=
    (
        cd "$tmp"
        exec env -i PATH="$PATH" PORT="$port" BIND_ADDRESS=127.0.0.1 INSTANCE_ID="load-$2" \
            REDIS_ADDR="$redis_addr" REDIS_TIMEOUT=5s LIMITER_ON_STORE_ERROR=deny \
            LIMITER_STRATEGY="$1" LIMITER_CAPACITY="$CAPACITY" LIMITER_REFILL_RATE="$RATE" \
            TRUSTED_PROXIES=loopback LOG_LEVEL=warn "$target/release/tollgate"
    ) >"$log" 2>&1 &
    instance_pids="$instance_pids $!"
    wait_for "instance $2" $! "$log" healthy "$port"
}

# start_nginx PORT...: on `nginx_port`, in turn to the instances at these ports. Never asks a second
# instance: a request that was charged twice would not be nginx's to repeat.
start_nginx() {
    local upstream
    next_port
    nginx_port=$port
    mkdir -p "$tmp/nginx"
    cat >"$tmp/nginx.conf" <<EOF
daemon off;
master_process off;
pid $tmp/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path $tmp/nginx/body;
    proxy_temp_path $tmp/nginx/proxy;
    fastcgi_temp_path $tmp/nginx/fastcgi;
    uwsgi_temp_path $tmp/nginx/uwsgi;
    scgi_temp_path $tmp/nginx/scgi;
    map \$http_x_client \$client { "" \$remote_addr; default \$http_x_client; }
    upstream tollgate {
$(for upstream in "$@"; do echo "        server 127.0.0.1:$upstream max_fails=0;"; done)
        keepalive 64;
    }
    server {
        listen 127.0.0.1:$nginx_port;
        location / {
            proxy_pass http://tollgate;
            proxy_http_version 1.1;
            proxy_next_upstream off;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For \$client;
            add_header X-Upstream \$upstream_addr always;
        }
    }
}
EOF
    nginx -e stderr -p "$tmp/nginx" -c "$tmp/nginx.conf" >"$tmp/nginx.log" 2>&1 &
    nginx_pid=$!
    wait_for nginx "$nginx_pid" "$tmp/nginx.log" healthy "$nginx_port"
}

# --- one scenario -----------------------------------------------------------------------------

# field NAME: of the generator's one-line JSON in `result`.
field() {
    printf '%s\n' "$result" | sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p"
}

failures=0
table=$tmp/table.md

fail() {
    complain "FAILED: $*"
    failures=$((failures + 1))
}

# judge STRATEGY SCENARIO COUNT: of `result`, one row of the table and one line of progress.
# The racy baseline may grant too much; that is what it is there to show.
judge() {
    local over under other verdict bold
    over=$(field over) under=$(field under) other=$(field other)
    verdict=exact
    if [ "$over" -gt 0 ]; then
        verdict=+$over
    elif [ "$under" -gt 0 ]; then
        verdict=-$under
    fi
    bold="**$verdict**"
    [ "$verdict" != exact ] || bold=exact
    printf 'granted %s of %s: %s\n' "$(field granted)" "$(field requests)" "$verdict"
    [ "$over" -eq 0 ] || [ "$1" = tokenbucket-hash ] ||
        fail "$1, $2: $over more granted than the law allows"
    [ "$under" -eq 0 ] || fail "$1, $2: $under fewer granted than a correct limiter grants"
    [ "$other" -eq 0 ] || fail "$1, $2: $other answers were no decisions of the limiter"
    [ "$(field instances)" -eq "$3" ] || fail "$1, $2: only $(field instances) of $3 instances answered"

    printf '| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n' \
        "$2" "$1" "$(field instances)" "$(field requests)" "$(field granted)" "$(field allowed)" \
        "$(field fewest)" "$bold" "$other" "$(field rps)" \
        "$(field p50_ms)" "$(field p95_ms)" "$(field p99_ms)" >>"$table"
}

# start_service STRATEGY COUNT
start_service() {
    local number=1 ports=
    while [ $number -le "$2" ]; do
        next_port
        start_instance "$1" $number
        ports="$ports $port"
        number=$((number + 1))
    done
    # shellcheck disable=SC2086 # a list of numbers
    start_nginx $ports
}

# Fresh buckets for every scenario: an emptied Redis, or, for memory, a new instance. Instances do not see that Redis was
# emptied, and may go by a denial of before for as long as LIMITER_DENIAL_CACHE says: so long it waits.
play_all() {
    local strategy scenario count number=0 total
    # shellcheck disable=SC2086 # lists of words
    total=$(($(set -- $strategies; echo $#) * $(set -- $SCENARIOS; echo $#)))
    for strategy in $strategies; do
        count=$instances
        [ "$strategy" != tokenbucket-memory ] || count=1
        for scenario in $SCENARIOS; do
            number=$((number + 1))
            printf '[%2d/%d] %-24s %-18s ' $number $total "$strategy" "$scenario"
            if [ -z "$nginx_pid" ]; then start_service "$strategy" "$count"; fi
            redis flushall >/dev/null
            sleep $DENIALS_LAST
            result=$("$target/release/examples/load" "http://127.0.0.1:$nginx_port" "$scenario" \
                --capacity $CAPACITY --rate $RATE) || die "the generator failed: $strategy, $scenario"
            judge "$strategy" "$scenario" "$count"
            if [ "$strategy" = tokenbucket-memory ]; then stop; fi
        done
        stop
        if grep -h . "$tmp"/instance-*.log >&2; then complain "$strategy logged the lines above"; fi
        rm -f "$tmp"/instance-*.log
    done
}

stop() {
    stop_service || fail 'a process had to be killed'
}

# --- the report -------------------------------------------------------------------------------

cpu() {
    if [ -r /proc/cpuinfo ] && grep -q '^model name' /proc/cpuinfo; then
        sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo | head -n 1
    else
        sysctl -n machdep.cpu.brand_string 2>/dev/null || uname -m
    fi
}

commit() {
    local changed
    git rev-parse --short HEAD 2>/dev/null || { echo 'none yet'; return; }
    changed=$(git status --porcelain -- . ":!$REPORT" 2>/dev/null) || true
    [ -z "$changed" ] || echo 'with uncommitted changes'
}

report() {
    cat <<EOF
# Load test

Written by \`scripts/load-test.sh\`: run it to bring this page up to date.

| | |
| --- | --- |
| date | $(date -u '+%Y-%m-%d %H:%M UTC') |
| commit | $(commit | tr '\n' ' ' | sed 's/ $//') |
| CPU | $(cpu), $(getconf _NPROCESSORS_ONLN) cores |
| kernel | $(uname -sr) |
| Redis | $(redis-server --version | sed 's/.* v=\([^ ]*\).*/\1/') |
| nginx | $(nginx -v 2>&1 | sed 's/.*nginx\///') |

$instances instances behind one nginx, one Redis, one generator, all on this machine. Each bucket holds
$CAPACITY tokens and is refilled with $RATE per second; all buckets are full when a scenario begins.

$(cat "$table")

- **burst**: one client, 200 requests, 50 at a time.
- **several-clients**: five clients with an address each, 30 requests each, 25 at a time in all. None
  asks for more than its bucket holds, so all must be granted: nobody pays for another.
- **burst-then-steady**: one client, 120 requests, 30 at a time; 1 s of silence; 5 per second for 3 s.

**Allowed by the law** is capacity + floor(rate * time) for each client, from just before its first
request was sent until just after its last answer came, summed over clients. Where a scenario has two
parts, the law is applied to each part as well (all of the other part granted), and the smallest result
counts: tokens that nobody asked for later excuse nothing. **Must grant** is what a correct limiter
grants at least. **Over-admitted** is **exact** when what was granted lies between the two; **+37**
means 37 too many, **-37** too few. **Other answers** are neither 200 nor 429, or lack the rate-limit
headers.

\`tokenbucket-hash\` reads, decides and writes in three steps, and is kept as the racy baseline: what it
over-admits is the reason for the other strategies, and differs from run to run. \`tokenbucket-memory\`
shares nothing and so runs as one instance.

Times are those the client sees through nginx on connections opened beforehand, over all answers,
granted or denied. Requests per second of burst-then-steady include its silent second. The bursts are
short, so these figures tell how a limiter behaves when many ask at once, not how many requests it can
serve.
EOF
}

# --- all of it --------------------------------------------------------------------------------

target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$root/$target ;; esac
echo 'building the release binary and the generator'
CARGO_TARGET_DIR=$target cargo build --quiet --release --bin tollgate --example load

cat >"$table" <<'EOF'
| scenario | strategy | instances | requests | granted | allowed by the law | must grant | over-admitted | other answers | requests/s | p50 ms | p95 ms | p99 ms |
| --- | --- | --: | --: | --: | --: | --: | :-: | --: | --: | --: | --: | --: |
EOF
start_redis
play_all

echo
cat "$table"
if [ -n "$whole" ]; then
    mkdir -p "$(dirname "$REPORT")"
    report >"$tmp/report.md"
    mv "$tmp/report.md" "$REPORT"
    printf '\nwritten to %s\n' "$REPORT"
fi
[ $failures -eq 0 ] || die "failed checks: $failures, see above"
