#!/usr/bin/env bash
# Whether the containers work together. It needs Docker with compose, and neither a model's key nor an
# agent: a prompt goes in through the MCP server, the loop takes it to Letta, and Letta's answer, that
# there is no such agent, is found in the log. What it makes, it removes again, and nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

export COMPOSE_PROJECT_NAME=promptyoself-smoke # volumes and containers of its own, besides yours
PROMPTYOSELF_MCP_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export PROMPTYOSELF_MCP_TOKEN

say() { printf '\n== %s\n' "$*"; }
promptyoself() { docker compose exec -T loop promptyoself "$@"; }

finish() {
    status=$?
    if [ "$status" -ne 0 ]; then
        say "failed; the last that was said:"
        docker compose logs --no-color --tail 40 || true
    fi
    docker compose down --volumes --timeout 30 >/dev/null 2>&1 || true
    exit "$status"
}
trap finish EXIT

# Tries a command every 2 seconds for so many seconds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$end" ]; then
            say "gave up on: $*"
            return 1
        fi
        sleep 2
    done
}

say "building and starting"
docker compose up --build --detach

say "Letta answers the loop"
within 300 promptyoself test
promptyoself test

say "the loop is well"
within 60 promptyoself doctor --require-loop
promptyoself doctor --quick --require-loop >/dev/null

say "a prompt goes in through the MCP server, and not without the token"
within 60 docker compose exec -T mcp python -c \
    "import socket; socket.create_connection(('127.0.0.1', 8765), 5)"
id=$(docker compose exec -T mcp python - <docker/smoke_client.py)
echo "$id"

say "the loop has taken it to Letta, which has no such agent"
failed() { promptyoself history --id "$id" --type delivery.failed | grep -q agent_not_found; }
within 60 failed
promptyoself history --id "$id" --type delivery.failed

say "the log is whole, and every slot accounted for"
promptyoself verify
promptyoself audit >/dev/null

say "passed"
