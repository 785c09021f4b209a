#!/bin/sh
# One job over unlike chips, from the question to the proof: sh examples/mix/demo.sh [FOLDER]
set -eu

out=${1:-out}
mkdir -p "$out"
sapper mix plan qwen2.5-7b --on examples/clusters/two-kinds.toml --global-batch 128 --explain \
  --out "$out/plan.json" --page "$out/plan.html" --svg "$out/step.svg" --trace "$out/step.trace.json"
if python3 -c 'import torch, transformers' 2>/dev/null; then
  sapper mix check "$out/plan.json"
else
  echo "PyTorch and Transformers are not installed here, so that the plan is not checked"
fi
