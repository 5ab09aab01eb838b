#!/bin/bash
# picture.sh FILE: the README's picture, from the demo's own terminal after a minute, when one budget is used up. Needs tmux.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?usage: picture.sh FILE}
go build -o bin/talea ./cmd/talea
session=talea-picture-$$
tmux new-session -d -s "$session" -x 100 -y 27 'LANG=C.UTF-8 ./bin/talea demo --for 90s'
trap 'tmux kill-session -t "$session" 2>/dev/null || true' EXIT
sleep "${WAIT:-62}"
tmux capture-pane -t "$session" -e -p | go run ./test/screenshot >"$out"
tmux send-keys -t "$session" q
