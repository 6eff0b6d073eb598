#!/bin/sh
# Makes the throw-away environment of a peer.
#
#     comparisons/peers/make_env.sh torch|pfl|flower DIR [cpu|gpu]
#
# With cpu (the default), PyTorch comes as its CPU build from PyTorch's own index; where that cannot
# be reached, name a build that pip finds by itself, as in TORCH=torch==2.13.0+cpu. With gpu,
# PyTorch is PyPI's build for CUDA. PYTHON chooses the interpreter; pfl 0.6 needs 3.10 to 3.12.
set -eu

here=$(dirname "$0")
usage="usage: $0 torch|pfl|flower DIR [cpu|gpu]"
peer=${1:?$usage}
dir=${2:?$usage}
build=${3:-cpu}
requirements=$here/requirements/$peer.txt
[ -f "$requirements" ] || { echo "$usage" >&2; exit 2; }

"${PYTHON:-python3}" -m venv --clear "$dir"
pip="$dir/bin/python -m pip --disable-pip-version-check"
case $build in
    cpu) if [ -n "${TORCH:-}" ]; then
             $pip install "$TORCH"
         else
             $pip install torch --index-url https://download.pytorch.org/whl/cpu
         fi ;;
    gpu) ;;
    *) echo "$usage" >&2; exit 2 ;;
esac
$pip install --requirement "$requirements"
# What was installed, for the record.
$pip freeze > "$dir/versions.txt"
