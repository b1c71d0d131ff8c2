#!/bin/sh
# Sets up OpenVINO and writes the models of random weights that spec/bench/peers/openvino_baseline.py measures (2.4 GB;
# 4 GB more while they are made).
#
#     [PYTHON=python3] spec/bench/peers/setup_openvino.sh [FOLDER]
#
# FOLDER is build/bench/peers unless given. What is there already is not made again. optimum-intel exports by PyTorch,
# whose package on PyPI brings CUDA along (5 GB): PIP_EXTRA_INDEX_URL can name an index with a smaller one.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${BUILD:-build}/bench/peers}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
venv=$folder/openvino-venv

if [ ! -e "$venv/ready" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install -q optimum-intel==2.2.0 transformers==5.5.4 openvino==2026.4.1 \
        openvino-genai==2026.4.1.0 nncf==3.4.0
    touch "$venv/ready"
fi
# Nothing is asked of the hub, and nobody is told: its telemetry stays quiet where CI is set.
HF_HUB_OFFLINE=1 CI=true "$venv/bin/python" "$here/openvino_baseline.py" "$folder/models" --prepare
