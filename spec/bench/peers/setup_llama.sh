#!/bin/sh
# Builds llama.cpp's llama-bench and llama-quantize for this machine's processor, from the source package of
# llama-cpp-python (PyPI), and writes the models of random weights that they measure (6 GB).
#
#     [PYTHON=python3] [JOBS=n] spec/bench/peers/setup_llama.sh [FOLDER]
#
# FOLDER is build/bench/peers unless given. What is there already is not made again; LLAMA_CPP_PYTHON names another
# version of the package. Needs a C++ compiler; cmake and ninja come from PyPI where the system has none.
set -eu

package=llama-cpp-python==${LLAMA_CPP_PYTHON:-0.3.36}
here=$(cd "$(dirname "$0")" && pwd)
folder=${1:-${BUILD:-build}/bench/peers}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
venv=$folder/llama-venv

if [ ! -e "$venv/ready" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    tools=
    for tool in cmake ninja; do
        command -v "$tool" >/dev/null || tools="$tools $tool"
    done
    "$venv/bin/pip" install -q gguf numpy $tools
    touch "$venv/ready"
fi
PATH=$PATH:$venv/bin

if [ ! -d "$folder/llama_cpp_python" ]; then
    # pip builds the package's metadata before it hands out the archive; nothing is compiled for that.
    "$venv/bin/pip" download -q --no-deps --no-binary llama-cpp-python -d "$folder" "$package"
    rm -rf "$folder/unpacked" && mkdir "$folder/unpacked"
    tar -xzf "$folder"/llama_cpp_python-*.tar.gz -C "$folder/unpacked"
    mv "$folder"/unpacked/* "$folder/llama_cpp_python"
    rm -rf "$folder/unpacked" "$folder"/llama_cpp_python-*.tar.gz
fi
source=$folder/llama_cpp_python/vendor/llama.cpp

# The package says nowhere but in its list of changes what it contains.
commit=$(sed -n 's/.*update llama\.cpp to ggml-org\/llama\.cpp@\([0-9a-f]*\).*/\1/p' \
    "$folder/llama_cpp_python/CHANGELOG.md" | head -n 1)
released=$(sed -n 's/^Version: //p' "$folder/llama_cpp_python/PKG-INFO" | head -n 1)
echo "llama.cpp $commit from llama-cpp-python $released" >"$folder/llama.version"

if [ ! -x "$folder/llama/bin/llama-bench" ] || [ ! -x "$folder/llama/bin/llama-quantize" ]; then
    cmake -S "$source" -B "$folder/llama" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
        -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
        -DLLAMA_BUILD_APP=OFF -DLLAMA_OPENSSL=OFF -DGGML_CCACHE=OFF \
        -DLLAMA_BUILD_COMMIT="$commit" -DLLAMA_BUILD_NUMBER=0 >"$folder/llama.log"
    cmake --build "$folder/llama" -j "${JOBS:-$(nproc)}" --target llama-bench llama-quantize >>"$folder/llama.log"
fi

"$venv/bin/python" "$here/make_gguf.py" "$folder/models" --quantize "$folder/llama/bin/llama-quantize"
cat "$folder/llama.version"
