#!/bin/sh
# The buyer's question: one trillion tokens through Qwen2.5-7B took so long on 64 A100; how long on 64 of each of these?
# One list of chips, in one place. Usage: sh examples/demo.sh [FOLDER]
set -eu

OUT=${1:-out}
CHIPS="a800-sxm-80gb h100-sxm h20 ascend-910b3 mi300x gaudi3 tpu-v5p mtt-s4000 bi-v150 kunlun-p800"

set --
for chip in $CHIPS; do
  set -- "$@" "64x $chip"
done
on=$(printf '%s,' "$@")

exec sapper assess qwen2.5-7b --train-tokens 1T --reference a100-sxm-80gb --on "${on%,}" --out "$OUT"
