#!/bin/bash
# record.sh DIR OUT: asks the engine that setup.sh put into DIR one request per case and writes the raw HTTP bodies to
# OUT, with the engine's own counters for each case in OUT/counters.txt (uncached input, cached input, output).
# The files under internal/engine/testdata/llamacpp were made with it; run it again for a newer engine.
set -euo pipefail
DIR=$(cd "${1:?usage: record.sh DIR OUT}" && pwd)
mkdir -p "${2:?usage: record.sh DIR OUT}" && OUT=$(cd "$2" && pwd)
PORT=${PORT:-18390}
PIDS=()
trap 'kill "${PIDS[@]}" 2>/dev/null || true' EXIT

start() { # name port options…
	local port=$2
	"$DIR/llama-server" --alias "$1" --host 127.0.0.1 --port "$port" -t 1 --metrics --jinja --no-webui "${@:3}" >"$DIR/$1.log" 2>&1 &
	PIDS+=($!)
	for _ in $(seq 100); do curl -fs "127.0.0.1:$port/health" >/dev/null && return; sleep 0.1; done
	echo "record: the engine did not start: $DIR/$1.log" >&2
	exit 1
}
TINY=$PORT THINK=$((PORT + 1)) EMBED=$((PORT + 2)) SMALL=$((PORT + 3))
start tiny $TINY -m "$DIR/tiny.gguf" -np 4
start think $THINK -m "$DIR/think.gguf" -np 4
start embed $EMBED -m "$DIR/tiny.gguf" -np 2 --embeddings --pooling mean
start small $SMALL -m "$DIR/tiny.gguf" -np 8 -c 200 -kvu

counter() { curl -s "127.0.0.1:$1/metrics" | sed -n "s/^llamacpp:$2 //p"; }
counters() { echo "$(counter "$1" prompt_tokens_total) $(counter "$1" prompt_tokens_cached_total) $(counter "$1" tokens_predicted_total)"; }
idle() { for _ in $(seq 100); do [ "$(counter "$1" requests_processing)" = 0 ] && return; sleep 0.05; done; }

: >"$OUT/counters.txt"
case_() { # file port path body [curl options…]
	local before after
	before=$(counters "$2")
	curl -sN -o "$OUT/$1" -H 'Content-Type: application/json' -d "$4" "${@:5}" "127.0.0.1:$2$3" || true
	idle "$2"
	after=$(counters "$2")
	echo "$1 $before $after" | awk '{ printf "%-18s %d %d %d\n", $1, $5 - $2, $6 - $3, $7 - $4 }' >>"$OUT/counters.txt"
}
CHAT=/v1/chat/completions TEXT=/v1/completions
ASK='"model":"m","messages":[{"role":"user","content":"What does the meter count? ⚖️"}]'
USAGE='"stream":true,"stream_options":{"include_usage":true}'
RUNNING="$USAGE,\"timings_per_token\":true"

case_ chat.json $TINY $CHAT "{$ASK,\"seed\":10,\"max_tokens\":12}"
case_ chat.sse $TINY $CHAT "{$ASK,\"seed\":10,\"max_tokens\":12,$USAGE}"
case_ running.sse $TINY $CHAT "{$ASK,\"seed\":10,\"max_tokens\":12,$RUNNING}"
case_ nousage.sse $TINY $CHAT "{$ASK,\"seed\":10,\"max_tokens\":12,\"stream\":true}"
case_ n3.json $TINY $CHAT "{$ASK,\"seed\":13,\"n\":3}"
case_ n3.sse $TINY $CHAT "{$ASK,\"seed\":13,\"n\":3,$RUNNING}"
case_ think.json $THINK $CHAT "{$ASK,\"seed\":29}"
case_ think.sse $THINK $CHAT "{$ASK,\"seed\":29,$RUNNING}"
case_ think_n2.json $THINK $CHAT "{$ASK,\"seed\":29,\"n\":2,\"max_tokens\":24}"
case_ think_n2.sse $THINK $CHAT "{$ASK,\"seed\":29,\"n\":2,\"max_tokens\":24,$RUNNING}"
case_ logprobs.json $TINY $CHAT "{$ASK,\"seed\":2,\"n\":2,\"max_tokens\":3,\"logprobs\":true,\"top_logprobs\":1}"
case_ logprobs.sse $TINY $CHAT "{$ASK,\"seed\":2,\"n\":2,\"max_tokens\":3,\"logprobs\":true,\"top_logprobs\":1,$RUNNING}"
case_ text.json $TINY $TEXT '{"model":"m","prompt":"The engine","seed":5,"max_tokens":8}'
case_ text.sse $TINY $TEXT "{\"model\":\"m\",\"prompt\":\"The engine\",\"seed\":5,\"max_tokens\":8,$RUNNING}"
BATCH='"model":"m","prompt":["The engine","A bill is a"],"n":2,"seed":5,"max_tokens":6'
case_ batch.json $TINY $TEXT "{$BATCH}"
case_ batch.sse $TINY $TEXT "{$BATCH,$RUNNING}"
case_ embeddings.json $EMBED /v1/embeddings '{"model":"m","input":["a","the price is known"]}'
case_ overflow.json $SMALL $CHAT "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"$(printf 'word %.0s' $(seq 300))\"}]}"
case_ refused.json $TINY $CHAT "{$ASK,\"n\":5}"

# Eight streams that fill the small engine's shared memory: all end with an error event in mid-stream.
LONG="{$ASK,\"ignore_eos\":true,\"max_tokens\":170,$RUNNING}"
for _ in $(seq 7); do
	curl -sN -o /dev/null -H 'Content-Type: application/json' -d "$LONG" "127.0.0.1:$SMALL$CHAT" &
	PIDS+=($!)
done
curl -sN -o "$OUT/error.sse" -H 'Content-Type: application/json' -d "$LONG" "127.0.0.1:$SMALL$CHAT" || true

# A client that hangs up: what had arrived by then, and what the engine counted in the end.
before=$(counters $TINY)
curl -sN -H 'Content-Type: application/json' -d "{$ASK,\"ignore_eos\":true,\"max_tokens\":2000,$RUNNING}" "127.0.0.1:$TINY$CHAT" 2>/dev/null | head -c 6000 >"$OUT/hangup.sse" || true
idle $TINY
echo "hangup.sse $before $(counters $TINY)" | awk '{ printf "%-18s %d %d %d\n", $1, $5 - $2, $6 - $3, $7 - $4 }' >>"$OUT/counters.txt"
