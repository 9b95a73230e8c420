# Sourced by the suites: $work, a folder that goes with the script, and a node in it at $STOMP_PORT. With
# STOMP_PORT given, the suite runs against the broker that listens there (users guest and admin), so
# that RabbitMQ's and ActiveMQ's outcomes can be put beside. STOMP_DIALECT is the node's.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
binary=$(realpath "${1:-$root/target/debug/understudy}")
work=$(mktemp -d)
node=
trap '[ -z "$node" ] || kill "$node"; rm -rf "$work"' EXIT

if [ -z "${STOMP_PORT:-}" ]; then
    STOMP_PORT=24613
    cat > "$work/node.toml" <<TOML
[broker]
data_dir = "$work/data"
[listen]
amqp = ""
native = ""
stomp = "127.0.0.1:$STOMP_PORT"
http = "127.0.0.1:24672"
[stomp]
dialect = "${STOMP_DIALECT:-rabbitmq}"
[[users]]
name = "guest"
password = "guest"
# stomp.py's threading_test logs in by this name, whatever it is told.
[[users]]
name = "admin"
password = "password"
TOML
    "$binary" serve --config "$work/node.toml" 2> "$work/log" &
    node=$!
    until curl --silent --fail --output /dev/null http://127.0.0.1:24672/api/health/ready; do
        kill -0 "$node" || { cat "$work/log"; exit 1; }
        sleep 0.1
    done
fi

python3 -m venv "$work/venv"
python=$work/venv/bin/python
pip=("$python" -m pip --quiet --disable-pip-version-check)
# What is built from source needs these, and no others from the net at that time.
"${pip[@]}" install pytest==8.3.4 docopt==0.6.2 'setuptools<70' wheel

# The source distribution of a package of PyPI, unpacked in $work.
source_of() {
    "${pip[@]}" download --no-deps --no-binary :all: --no-build-isolation --dest "$work" "$1"
    tar -xzf "$work"/*.tar.gz -C "$work"
}

run_pytest() {
    "$python" -m pytest -q --no-header -p no:warnings -p no:cacheprovider "$@"
}
