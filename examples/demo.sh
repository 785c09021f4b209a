#!/bin/sh
# The buyer's question: one trillion tokens through Qwen2.5-7B take so long on 64 A100; how long on 64 of each of these?
# The list of chips stands here and nowhere else. Usage: sh examples/demo.sh [FOLDER]
set -eu

out=${1:-out}
count=64
chips="
nvidia-a800-sxm-80gb nvidia-h100-sxm-80gb nvidia-h200-sxm-141gb nvidia-h20-96gb
huawei-ascend-910b3 huawei-ascend-910c
amd-mi300x intel-gaudi3 google-tpu-v5p
moore-mtt-s4000 iluvatar-bi-v150 kunlun-p800 hygon-dcu-k100-ai enflame-s60
"

on=
for chip in $chips; do
  on="$on${on:+,}${count}x $chip"
done

# Nobody whom we read states the network of some of these chips' servers. Without the assumption Sapper names what is missing
# and gives no answer for them; with it their answers are graded "assumed".
exec sapper assess qwen2.5-7b --train-tokens 1T --reference "${count}x nvidia-a100-sxm-80gb" --on "$on" \
  --assume scale_out=200Gb/s --out "$out"
