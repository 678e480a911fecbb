#!/usr/bin/env bash
# Whether the containers work together. It needs Docker with compose, and neither a model's key nor an
# agent: a prompt goes in through the MCP server, the loop takes it to Letta, and Letta's answer, that
# there is no such agent, is found in the log. It runs beside containers of yours: it has its own names,
# its own image and no ports, and reads neither .env nor your settings. What it makes, it removes again
# (the builder's cache stays).
set -euo pipefail
cd "$(dirname "$0")/.."

unset "${!LETTA_@}" "${!PROMPTYOSELF_@}" "${!COMPOSE_@}" OPENAI_API_KEY SECURE
export COMPOSE_PROJECT_NAME=promptyoself-smoke # so its containers and volumes are named
IMAGE=promptyoself-smoke
PROMPTYOSELF_MCP_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export PROMPTYOSELF_MCP_TOKEN

say() { printf '\n== %s\n' "$*"; }
compose() {
    docker compose --env-file /dev/null --file docker-compose.yml --file docker/smoke.yml "$@"
}
promptyoself() { compose exec -T loop promptyoself "$@"; }

finish() {
    status=$?
    if [ "$status" -ne 0 ]; then
        say "failed; the last that was said:"
        compose ps --all || true
        compose logs --no-color --tail 40 || true
    fi
    compose down --volumes --timeout 30 >/dev/null 2>&1 || true
    docker image rm "$IMAGE" >/dev/null 2>&1 || true
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
compose up --build --detach

say "Letta answers the loop"
within 300 promptyoself test
promptyoself test

say "the loop is well"
within 60 promptyoself doctor --require-loop
promptyoself doctor --quick --require-loop >/dev/null

say "both are healthy"
healthy() {
    [ "$(docker inspect --format '{{.State.Health.Status}}' "$(compose ps --quiet "$1")")" = healthy ]
}
within 90 healthy loop
within 90 healthy mcp

say "a prompt goes in through the MCP server, and not without the token"
id=$(compose exec -T mcp python - <docker/smoke_client.py)
echo "$id"

say "the loop has taken it to Letta, which has no such agent"
failed() { promptyoself history --id "$id" --type delivery.failed | grep -q agent_not_found; }
within 60 failed
promptyoself history --id "$id" --type delivery.failed

say "the log is whole, and every slot accounted for"
promptyoself verify
promptyoself audit >/dev/null

say "passed"
