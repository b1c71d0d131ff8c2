#!/bin/sh
# Sets up PyTorch, which spec/bench/torch_baseline.py measures and through which onednn_products.py asks oneDNN.
#
#     [PYTHON=python3] spec/bench/peers/setup_torch.sh [FOLDER]
#
# FOLDER is build/bench/peers unless given. PyPI's package brings CUDA along (5 GB): PIP_EXTRA_INDEX_URL can name an
# index with a smaller one. Where PYTHON has PyTorch already, `PYTHON=... make bench-peers` needs no set-up.
set -eu

folder=${1:-${BUILD:-build}/bench/peers}
mkdir -p "$folder"
venv=$folder/torch-venv

if [ ! -e "$venv/ready" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install -q torch==2.4.1 'numpy<2'
    touch "$venv/ready"
fi
"$venv/bin/python" -c 'import torch; print("PyTorch", torch.__version__)'
