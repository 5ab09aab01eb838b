package main

import (
	"maps"
	"slices"
	"strings"
	"unicode"
)

// glyphs maps each byte to the printable rune that stands for it in a byte-level vocabulary (the mapping of GPT-2:
// printable Latin-1 stands for itself, the rest is moved behind U+0100).
func glyphs() [256]rune {
	var g [256]rune
	moved := rune(256)
	for b := range g {
		if b >= '!' && b <= '~' || b >= 0xA1 && b <= 0xAC || b >= 0xAE {
			g[b] = rune(b)
		} else {
			g[b] = moved
			moved++
		}
	}
	return g
}

// words cuts a line as the engine's "gpt-2" pre-tokeniser cuts plain prose: a run of letters, of digits or of anything
// else, each with the one space before it.
func words(line string) []string {
	class := func(r rune) int {
		switch {
		case unicode.IsSpace(r):
			return 0
		case unicode.IsLetter(r):
			return 1
		case unicode.IsNumber(r):
			return 2
		}
		return 3
	}
	var out []string
	start, last := 0, -1
	for i, r := range line {
		c := class(r)
		if i > start && c != last && last != 0 {
			out = append(out, line[start:i])
			start = i
		}
		last = c
	}
	return append(out, line[start:])
}

type merge struct{ left, right string }

// tokenizer is a byte-level byte-pair encoding: vocab[i] is the text of token i, in glyphs.
type tokenizer struct {
	glyph  [256]rune
	vocab  []string
	merges []merge
	id     map[string]int
	rank   map[merge]int
}

// train learns up to limit tokens from the lines: again and again the most frequent neighbours become one token. Ties
// go to the pair that sorts first, so that the same text gives the same bytes.
func train(lines []string, limit int) *tokenizer {
	t := &tokenizer{glyph: glyphs(), id: map[string]int{}, rank: map[merge]int{}}
	for _, r := range t.glyph {
		t.add(string(r))
	}
	count := map[string]int{}
	for _, line := range lines {
		for _, w := range words(line) {
			count[w]++
		}
	}
	distinct := slices.Sorted(maps.Keys(count))
	parts := make([][]string, len(distinct))
	for i, w := range distinct {
		parts[i] = t.bytes(w)
	}
	for len(t.vocab) < limit {
		best, n := mostFrequent(parts, func(i int) int { return count[distinct[i]] })
		if n < 2 {
			break
		}
		t.rank[best] = len(t.merges)
		t.merges = append(t.merges, best)
		t.add(best.left + best.right)
		for i := range parts {
			parts[i] = join(parts[i], best)
		}
	}
	return t
}

func (t *tokenizer) add(text string) int {
	t.id[text] = len(t.vocab)
	t.vocab = append(t.vocab, text)
	return len(t.vocab) - 1
}

func (t *tokenizer) bytes(word string) []string {
	var out []string
	for i := range len(word) {
		out = append(out, string(t.glyph[word[i]]))
	}
	return out
}

// encode returns the tokens of a line.
func (t *tokenizer) encode(line string) []int {
	var out []int
	for _, w := range words(line) {
		parts := t.bytes(w)
		for {
			best, found := merge{}, len(t.merges)
			for i := 1; i < len(parts); i++ {
				if r, ok := t.rank[merge{parts[i-1], parts[i]}]; ok && r < found {
					best, found = merge{parts[i-1], parts[i]}, r
				}
			}
			if found == len(t.merges) {
				break
			}
			parts = join(parts, best)
		}
		for _, p := range parts {
			out = append(out, t.id[p])
		}
	}
	return out
}

func mostFrequent(parts [][]string, weight func(int) int) (merge, int) {
	count := map[merge]int{}
	for i, p := range parts {
		for j := 1; j < len(p); j++ {
			count[merge{p[j-1], p[j]}] += weight(i)
		}
	}
	var best merge
	n := 0
	for m, c := range count {
		if c > n || c == n && strings.Compare(m.left+" "+m.right, best.left+" "+best.right) < 0 {
			best, n = m, c
		}
	}
	return best, n
}

func join(parts []string, m merge) []string {
	out := make([]string, 0, len(parts))
	for i := 0; i < len(parts); i++ {
		if i+1 < len(parts) && parts[i] == m.left && parts[i+1] == m.right {
			out = append(out, m.left+m.right)
			i++
		} else {
			out = append(out, parts[i])
		}
	}
	return out
}
