#!/usr/bin/env bash
# Sets up a GPU host (Debian or Ubuntu) for the Kafka worker: ./setup.sh
# It can be run again at any time, and does only what is missing. `--no-models` leaves out the models (22 GB).
set -euo pipefail
cd "$(dirname "$0")"

DRIVER=580 # the oldest branch of NVIDIA's driver that runs CUDA 13, which torch is built for
ROOM=8     # GB that .venv and its downloads take

problems=()

check_gpu() {
    local found
    if ! found=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null); then
        echo "warning: nvidia-smi finds no GPU here, so everything will run on the CPU. Install NVIDIA's driver, $DRIVER or newer"
        return
    fi
    echo "$found"
    local version=${found%%$'\n'*}
    version=${version##*, }
    if ((${version%%.*} < DRIVER)); then
        echo "warning: driver $version is too old for CUDA 13, so everything will run on the CPU. Install $DRIVER or newer"
    fi
}

find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
}

check_host() {
    python=$(find_python)
    [[ -n $python ]] || problems+=("Python 3.11, 3.12 or 3.13 with venv is missing: apt-get install python3-venv, or python3.11-venv where python3 is older")
    command -v make >/dev/null || problems+=("make is missing: apt-get install make")
    local free
    free=$(df --output=avail --block-size=1G . | tail -n 1)
    [[ -e .venv/ready ]] || ((free >= ROOM)) || problems+=("$ROOM GB are needed here, and $((free)) are free: make room")
    if ((${#problems[@]})); then
        printf 'error: %s\n' "${problems[@]}" >&2
        exit 1
    fi
}

if [[ $# -gt 1 || ${1:---no-models} != --no-models ]]; then
    echo "usage: ./setup.sh [--no-models]" >&2
    exit 2
fi

echo "== this host"
check_gpu
check_host

echo "== Python packages, in .venv"
make setup PYTHON="$python"

echo "== ComfyUI"
.venv/bin/python -m pipeline comfyui | grep --invert-match '^models '

if [[ $# -eq 0 ]]; then
    echo "== models"
    .venv/bin/python -m pipeline models fetch qwen_image_edit_2509
fi

if [[ ! -e .env ]]; then
    cp .env.example .env
    echo "== .env is new: set there what differs here"
fi

echo "== the worker, without its broker"
.venv/bin/python -m pipeline worker 'worker.roots=[outputs]' run.dry_run=true
echo "start it: .venv/bin/python -m pipeline worker 'worker.roots=[FOLDER]'"
