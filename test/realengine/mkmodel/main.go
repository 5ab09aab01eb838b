// Command mkmodel writes a very small language model for tests: a GGUF file of the llama architecture that a real
// engine loads like any other. Its vocabulary is a byte-level BPE learnt from a text, and what it says is that text's
// bigram statistics, stored in real transformer weights: the embedding is one-hot, the layers are zero, and the output
// matrix holds the logarithms. Answers look like the text and end by themselves. The same text gives the same bytes.
//
//	mkmodel -o tiny.gguf [-think] [-text file]
//
// With -think the model opens every answer with <think>…</think>, which engines send as reasoning.
package main

import (
	"bufio"
	_ "embed"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
)

//go:embed corpus.txt
var corpus string

const (
	headSize = 64
	context  = 4096
	unseen   = -12 // log weight of a pair of tokens that the text does not have

	// template writes each message as <|role|>text<|end|>.
	template = `{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
	// thinkTemplate tells the engine, by what it does with earlier answers, how this model marks its reasoning.
	thinkTemplate = `{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' and m['reasoning_content'] %}<think>{{ m['reasoning_content'] }}</think>{% endif %}{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`
)

// specials are the control tokens, after the learnt vocabulary.
type specials struct{ bos, eos, system, user, assistant, end, think, unthink int }

func main() {
	out := flag.String("o", "tiny.gguf", "file to write")
	text := flag.String("text", "", "text to learn from, one answer a line (default: a built-in one)")
	limit := flag.Int("vocab", 1024, "largest vocabulary")
	think := flag.Bool("think", false, "a model that thinks before it answers")
	flag.Parse()
	if err := run(*out, *text, *limit, *think); err != nil {
		fmt.Fprintln(os.Stderr, "mkmodel:", err)
		os.Exit(1)
	}
}

func run(out, text string, limit int, think bool) error {
	source := corpus
	if text != "" {
		b, err := os.ReadFile(text)
		if err != nil {
			return fmt.Errorf("cannot read the text: %w", err)
		}
		source = string(b)
	}
	lines := strings.FieldsFunc(source, func(r rune) bool { return r == '\n' })
	tok := train(lines, limit-8)
	var sp specials
	for _, s := range []struct {
		text string
		id   *int
	}{{"<|bos|>", &sp.bos}, {"<|endoftext|>", &sp.eos}, {"<|system|>", &sp.system}, {"<|user|>", &sp.user},
		{"<|assistant|>", &sp.assistant}, {"<|end|>", &sp.end}, {"<think>", &sp.think}, {"</think>", &sp.unthink}} {
		*s.id = tok.add(s.text)
	}
	f := model(tok, bigrams(tok, sp, lines, think), sp, think)
	w, err := os.Create(out)
	if err != nil {
		return fmt.Errorf("cannot write the model: %w", err)
	}
	buf := bufio.NewWriter(w)
	if err = f.writeTo(buf); err == nil {
		err = buf.Flush()
	}
	if closing := w.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("cannot write the model: %w", err)
	}
	return nil
}

// bigrams counts which token follows which: next[a][b].
func bigrams(tok *tokenizer, sp specials, lines []string, think bool) []map[int]float64 {
	next := make([]map[int]float64, len(tok.vocab))
	for i := range next {
		next[i] = map[int]float64{}
	}
	for _, line := range lines {
		ids := tok.encode(line)
		for _, opener := range []int{sp.bos, sp.assistant, sp.think, sp.unthink} {
			next[opener][ids[0]]++
		}
		for i := 1; i < len(ids); i++ {
			next[ids[i-1]][ids[i]]++
		}
		next[ids[len(ids)-1]][sp.eos]++
	}
	next[sp.end][sp.eos]++
	if think {
		next[sp.assistant] = map[int]float64{sp.think: 1}
		for _, row := range next { // where a line ends, the thought or the answer ends: the model does not know which
			if n := row[sp.eos]; n > 0 {
				row[sp.eos], row[sp.unthink] = n/2, n/2
			}
		}
	}
	return next
}

// model puts the statistics into weights. A one-hot row goes through the layers unchanged (they add zero), is scaled by
// the last norm to length 1, and picks its column of the output matrix.
func model(tok *tokenizer, next []map[int]float64, sp specials, think bool) *file {
	v := len(tok.vocab)
	d := (v + headSize - 1) / headSize * headSize
	total := make([]float64, v)
	for a, row := range next {
		for b := range v { // in order: sums of floats depend on it
			total[a] += row[b]
		}
	}
	fill := func(x float32) func(int, []float32) {
		return func(_ int, out []float32) {
			for i := range out {
				out[i] = x
			}
		}
	}
	zero := fill(0)
	f := &file{}
	header(f, tok, sp, v, d, think)
	f.tensors = []tensor{
		{"token_embd.weight", d, v, func(row int, out []float32) { out[row] = 1 }},
		{"output_norm.weight", d, 1, fill(float32(1 / math.Sqrt(float64(d))))},
		{"output.weight", d, v, func(row int, out []float32) {
			for a := range v {
				out[a] = unseen
				if n := next[a][row]; n > 0 {
					out[a] = float32(math.Log(n / total[a]))
				}
			}
		}},
		{"blk.0.attn_norm.weight", d, 1, fill(1)},
		{"blk.0.attn_q.weight", d, d, zero},
		{"blk.0.attn_k.weight", d, headSize, zero},
		{"blk.0.attn_v.weight", d, headSize, zero},
		{"blk.0.attn_output.weight", d, d, zero},
		{"blk.0.ffn_norm.weight", d, 1, fill(1)},
		{"blk.0.ffn_gate.weight", d, headSize, zero},
		{"blk.0.ffn_down.weight", headSize, d, zero},
		{"blk.0.ffn_up.weight", d, headSize, zero},
	}
	return f
}

func header(f *file, tok *tokenizer, sp specials, v, d int, think bool) {
	kinds := make([]int32, v) // 1 an ordinary token, 3 control, 4 shown in the text
	for i := range kinds {
		switch {
		case i >= sp.think:
			kinds[i] = 4
		case i >= sp.bos:
			kinds[i] = 3
		default:
			kinds[i] = 1
		}
	}
	var merges []string
	for _, m := range tok.merges {
		merges = append(merges, m.left+" "+m.right)
	}
	chat, name := template, "talea-tiny"
	if think {
		chat, name = thinkTemplate, "talea-tiny-think"
	}
	f.set("general.architecture", "llama")
	f.set("general.name", name)
	f.set("general.file_type", 1)
	f.set("llama.block_count", 1)
	f.set("llama.context_length", context)
	f.set("llama.embedding_length", d)
	f.set("llama.feed_forward_length", headSize)
	f.set("llama.attention.head_count", d/headSize)
	f.set("llama.attention.head_count_kv", 1)
	f.set("llama.rope.dimension_count", headSize)
	f.set("llama.vocab_size", v)
	f.set("llama.attention.layer_norm_rms_epsilon", float32(1e-9))
	f.set("tokenizer.ggml.model", "gpt2")
	f.set("tokenizer.ggml.pre", "gpt-2")
	f.set("tokenizer.ggml.tokens", tok.vocab)
	f.set("tokenizer.ggml.token_type", kinds)
	f.set("tokenizer.ggml.merges", merges)
	f.set("tokenizer.ggml.bos_token_id", sp.bos)
	f.set("tokenizer.ggml.eos_token_id", sp.eos)
	f.set("tokenizer.ggml.add_bos_token", true)
	f.set("tokenizer.chat_template", chat)
}
