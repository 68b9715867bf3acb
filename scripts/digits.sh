#!/bin/sh
# Compresses the digits model that comes with adaptkit and says where the report is.
output=${1:-runs/digits-edge}
case $output in /*) ;; *) output=$(pwd)/$output ;; esac
set -- .
. "$(dirname "$0")/environment.sh"
if [ -e "$output/report.html" ]; then
  echo "an earlier run stands in $output; remove it to run again"
else
  resume=""
  if [ -e "$output" ]; then resume="--resume"; fi
  .venv/bin/adaptkit compress digits-edge --output "$output" $resume
fi
echo "report: $output/report.html"
