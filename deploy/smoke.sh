#!/bin/sh
# Brings the composition up from nothing, provisions, backs up, restores, moves, and takes it down.
# Needs a Docker engine with the compose plugin; uses a project of its own, so nothing else is touched.
#   deploy/smoke.sh            KEEP=1 deploy/smoke.sh leaves it running
set -eu
cd -- "$(dirname -- "$0")/.."

export COMPOSE_PROJECT_NAME="${COMPOSE_PROJECT_NAME:-tenantry-smoke}"
compose() { docker compose --ansi never "$@"; }
tenantry() { compose run --rm -T --no-deps cli "$@"; }
say() { printf 'smoke: %s\n' "$*" >&2; }

finish() {
  status=$?
  if [ "$status" != 0 ]; then
    say "failed; the last lines of every log follow"
    compose logs --tail 40 >&2 || :
  fi
  if [ -z "${KEEP:-}" ]; then
    compose --profile tools down --volumes --timeout 30 >&2 || :
  fi
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

say "building the images"
compose build
say "starting everything"
# Returns when the last one-shot has begun: all that it waits for is healthy by then.
compose up --detach
enrolled=$(docker wait "$(compose ps --all --quiet enrol)")
[ "$enrolled" = 0 ] || { say "enrol ended with $enrolled"; exit 1; }

say "the doctor's word"
tenantry doctor
say "provisioning"
tenantry tenants create smoke-clinic --name 'Smoke Clinic' --server pg-a --wait
tenantry psql smoke-clinic -- -c 'SELECT current_database(), current_user'
say "backing up, and proving it"
tenantry backup smoke-clinic --wait
tenantry restore smoke-clinic --in-place --yes --wait
say "moving from Postgres 17 to 18"
tenantry move smoke-clinic --to pg-b --wait
tenantry psql smoke-clinic -- -c 'SELECT version()'
say "catalog against reality"
tenantry check
say "everything works"
