// Command screenshot draws what a terminal shows as an SVG, for the README: text stays text, and the bars are drawn, so
// that they look alike in every font. It does not take the picture; tmux does:
//
//	tmux new-session -d -s demo -x 96 -y 28 'go run ./cmd/talea demo'
//	tmux capture-pane -t demo -e -p | go run ./test/screenshot > docs/demo.svg
//
// # Invariants
//
//   - The picture refers to nothing outside itself.
//
// Start reading at main.
package main

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Sizes, in pixels. Letters of a monospaced font are 0.6 as wide as high, more or less: each run of text is given its
// exact length.
const (
	cellWidth  = 8.4
	cellHeight = 19
	fontSize   = 14
	margin     = 18
)

// style is how a cell is shown: the SGR codes that tell.
type style struct {
	bold, dim bool
	colour    int // 31 to 36, 0 for the text's own
}

type cell struct {
	char rune
	style
}

// colours are dark enough for a white card, which reads on light and dark pages alike.
var colours = map[int]string{0: "#1f2328", 31: "#cf222e", 32: "#1a7f37", 33: "#9a6700", 34: "#0550ae", 35: "#8250df", 36: "#0a6470"}

const dimmed = "#6e7781"

func (s style) fill() string {
	if s.dim && s.colour == 0 {
		return dimmed
	}
	return colours[s.colour]
}

func main() {
	lines, err := read(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "screenshot: "+err.Error())
		os.Exit(1)
	}
	io.WriteString(os.Stdout, draw(lines))
}

// read turns what a terminal was sent into cells, without the empty lines at the end.
func read(r io.Reader) (lines [][]cell, err error) {
	var now style
	in := bufio.NewScanner(r)
	for in.Scan() {
		var line []cell
		text := []rune(in.Text())
		for i := 0; i < len(text); i++ {
			if text[i] != '\x1b' {
				line = append(line, cell{text[i], now})
				continue
			}
			end := i + 2
			for end < len(text) && (text[end] == ';' || '0' <= text[end] && text[end] <= '9') {
				end++
			}
			if end < len(text) && text[end] == 'm' {
				now = now.after(string(text[i+2 : end]))
			}
			i = end
		}
		lines = append(lines, line)
	}
	for len(lines) > 0 && len(lines[len(lines)-1]) == 0 {
		lines = lines[:len(lines)-1]
	}
	return lines, in.Err()
}

// after is the style after the codes of one sequence.
func (s style) after(codes string) style {
	for code := range strings.SplitSeq(codes, ";") {
		switch n, _ := strconv.Atoi(code); { // no number is 0, as terminals have it
		case n == 0:
			s = style{}
		case n == 1:
			s.bold = true
		case n == 2:
			s.dim = true
		case n == 22:
			s.bold, s.dim = false, false
		case n == 39:
			s.colour = 0
		case colours[n] != "":
			s.colour = n
		}
	}
	return s
}

// draw makes the picture.
func draw(lines [][]cell) string {
	columns := 0
	for _, l := range lines {
		columns = max(columns, len(l))
	}
	width, height := float64(columns)*cellWidth+2*margin, len(lines)*cellHeight+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %d" width="%.0f" height="%d" role="img" aria-label="talea demo in a terminal" font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="%d" xml:space="preserve">`+"\n",
		width, height, width, height, fontSize)
	fmt.Fprintf(&b, `<rect x="0.5" y="0.5" width="%.0f" height="%d" rx="10" fill="#ffffff" stroke="#d0d7de"/>`+"\n", width-1, height-1)
	for row, line := range lines {
		for from := 0; from < len(line); {
			to := from + 1
			for to < len(line) && line[to].style == line[from].style && isBar(line[to].char) == isBar(line[from].char) && (isBar(line[from].char) == 0 || line[to].char == line[from].char) {
				to++
			}
			drawRun(&b, line[from:to], margin+float64(from)*cellWidth, margin+row*cellHeight)
			from = to
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// isBar is the thickness of a rune that is drawn as a bar, 0 for letters.
func isBar(r rune) float64 {
	switch r {
	case '━', '╍':
		return 5
	case '─':
		return 1.5
	}
	return 0
}

// drawRun draws cells of one style, at the upper left corner of the first.
func drawRun(b *strings.Builder, run []cell, x float64, y int) {
	s := run[0].style
	if thick := isBar(run[0].char); thick > 0 {
		dashes := ""
		if run[0].char == '╍' {
			dashes = ` stroke-dasharray="4.2 1.4"`
		}
		middle := float64(y) + cellHeight/2
		fmt.Fprintf(b, `<path d="M%.1f %.1fh%.1f" stroke="%s" stroke-width="%.1f"%s/>`+"\n", x, middle, float64(len(run))*cellWidth, s.fill(), thick, dashes)
		return
	}
	// Blanks around the text need no drawing, and would be lost.
	for len(run) > 0 && run[0].char == ' ' {
		run, x = run[1:], x+cellWidth
	}
	for len(run) > 0 && run[len(run)-1].char == ' ' {
		run = run[:len(run)-1]
	}
	if len(run) == 0 {
		return
	}
	var text strings.Builder
	for _, c := range run {
		text.WriteRune(c.char)
	}
	weight := ""
	if s.bold {
		weight = ` font-weight="600"`
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%d" textLength="%.1f" fill="%s"%s>`, x, y+fontSize, float64(len(run))*cellWidth, s.fill(), weight)
	xml.EscapeText(b, []byte(text.String()))
	b.WriteString("</text>\n")
}
