#!/usr/bin/env bash
# A federation in containers, from nothing: builds the image, makes a demo cohort and its keys, runs it, compares the model with the
# simulation's, then breaks things on purpose (compose_faults.py). Exit code 0 when everything was as expected.
#
#   bash tests/e2e/compose_e2e.sh             KEEP=1 leaves containers, volumes and the folder for a look; FAULTS="went-on" plays that one alone
#
# Needs a Docker engine on this machine, docker compose (v2, or docker-compose 1.29) and python3. Works on a copy of the project in a
# temporary folder, under a compose project and image tags of its own, and removes all of it.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
sites=3
demo=(demo.patients=40 demo.slices_per_series=6 demo.size=64 data.size=64)
split=(partition.num_sites=$sites)
arguments=(rounds=${ROUNDS:-2} seed=7 model.image_size=32 train.batch_size=8 tracking=none model.recalibrate=false)

if docker compose version >/dev/null 2>&1; then COMPOSE="docker compose"
elif command -v docker-compose >/dev/null; then COMPOSE="docker-compose"
else echo "compose: expected docker compose or docker-compose, got neither; install one" >&2; exit 2; fi
docker info >/dev/null 2>&1 || { echo "docker: expected a running engine, got none; start it, or set DOCKER_HOST" >&2; exit 2; }

export COMPOSE COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-fl-rsna-e2e-$$}
export FL_IMAGE=${COMPOSE_PROJECT_NAME}:this FL_SITE_CPUS=${FL_SITE_CPUS:-1.0} FL_SERVER_CPUS=${FL_SERVER_CPUS:-1.0}
work=$(mktemp -d "${TMPDIR:-/tmp}/fl-rsna-e2e.XXXXXX")

clean_up() {
  [[ -z ${KEEP:-} ]] || { echo "kept: $work, compose project $COMPOSE_PROJECT_NAME"; return; }
  cd "$work" && { [[ ! -f .env ]] || $COMPOSE down --volumes --timeout 2 >/dev/null 2>&1 || true; }
  docker volume ls --quiet --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" | xargs -r docker volume rm >/dev/null || true
  docker image rm --force "$FL_IMAGE" "${COMPOSE_PROJECT_NAME}:other" >/dev/null 2>&1 || true
  cd / && rm -rf "$work"
}
trap clean_up EXIT

say() { printf '%5ss  %s\n' "$SECONDS" "$*"; }

# Runs the image's own fl_rsna on the folder, as the user who types this.
in_image() { docker run --rm --user "$(id -u):$(id -g)" --shm-size 1g --network none -v "$work:/federation" "$FL_IMAGE" "$@"; }

model_of() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["model_sha256"])' "runs/$1/summary.json"; }

git -C "$repo" ls-files -z --cached --others --exclude-standard | (cd "$repo" && tar --null --files-from=- -cf -) | tar -C "$work" -xf -
cd "$work"

say "building $FL_IMAGE"
docker build --tag "$FL_IMAGE" . >build.log 2>&1 || { tail -30 build.log; exit 1; }
say "image: $(docker image inspect --format '{{.Size}}' "$FL_IMAGE" | awk '{printf "%.2f GB", $1 / 1e9}')"

in_image python scripts/demo_sites.py --sites $sites "${demo[@]}" "${split[@]}"
say "cohort and keys are there"

$COMPOSE up -d >up.log 2>&1 || { cat up.log; exit 1; }
say "superlink and sites are up"
started=$SECONDS
$COMPOSE run --rm -T coordinator run.name=calm "${arguments[@]}" >calm.log 2>&1 || { cat calm.log; $COMPOSE logs --tail 30; exit 1; }
deployed=$(model_of calm)
say "containers: model $deployed after $((SECONDS - started)) s"

started=$SECONDS
in_image python -m fl_rsna.simulate engine=local engine.workers=0 partition.name=demo-$sites-sites run.name=simulated "${demo[@]}" "${arguments[@]}" >simulated.log 2>&1 \
  || { cat simulated.log; exit 1; }
simulated=$(model_of simulated)
say "simulation: model $simulated after $((SECONDS - started)) s"
[[ $deployed == "$simulated" ]] || { echo "parity: expected one model, got $deployed in containers and $simulated simulated" >&2; exit 1; }
echo "parity: $deployed"

if [[ -x $repo/.venv/bin/python ]]; then # a second opinion: another machine's Python and libraries may round otherwise
  PYTHONPATH=$work "$repo/.venv/bin/python" -m fl_rsna.simulate engine=local partition.name=demo-$sites-sites run.name=host "${demo[@]}" "${arguments[@]}" >host.log 2>&1 \
    && say "on the host, without containers: model $(model_of host)" || say "on the host: failed, $(tail -1 host.log)"
fi

in_image python -m fl_rsna.partition partition.name=other partition.seed=1 "${demo[@]}" "${split[@]}" >other.log || { cat other.log; exit 1; }
docker build --quiet --tag "$COMPOSE_PROJECT_NAME:other" - >/dev/null 2>&1 <<OTHER
FROM $FL_IMAGE
USER root
RUN python -c "import fl_rsna.task as changed; open(changed.__file__, 'a').write('# not the code that the others run')"
USER 10001:10001
OTHER
say "faults"
python3 tests/e2e/compose_faults.py --model "$deployed" ${FAULTS:+--only $FAULTS} -- "${arguments[@]}"
say "done"
