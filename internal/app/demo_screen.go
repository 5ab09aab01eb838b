package app

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// demoScreen is a terminal that is drawn on line by line, only where a line has changed.
type demoScreen struct {
	out           *os.File
	before        *term.State
	width, height int
	shown         []string
}

// openScreen takes over the terminal that out is, or returns nil where it is none. quit is called for q and Ctrl-C.
func openScreen(out io.Writer, quit func()) *demoScreen {
	f, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" {
		return nil
	}
	s := &demoScreen{out: f}
	if in := os.Stdin; term.IsTerminal(int(in.Fd())) {
		if before, err := term.MakeRaw(int(in.Fd())); err == nil {
			s.before = before
			go func() {
				key := make([]byte, 1)
				for {
					if _, err := in.Read(key); err != nil || strings.ContainsAny(string(key), "qQ\x03") {
						quit()
						return
					}
				}
			}()
		}
	}
	f.WriteString("\x1b[?1049h\x1b[?25l\x1b[?7l") // a screen of its own, no cursor, no wrapping
	s.measure()
	return s
}

// measure notes the size of the terminal; after a change everything is drawn again.
func (s *demoScreen) measure() {
	w, h, err := term.GetSize(int(s.out.Fd()))
	if err != nil || w < 1 || h < 1 {
		w, h = 80, 24
	}
	if w != s.width || h != s.height {
		s.width, s.height, s.shown = w, h, nil
		s.out.WriteString("\x1b[2J")
	}
}

// draw shows lines that were made for the screen's present size, and then looks at the size for the next ones.
func (s *demoScreen) draw(lines []string) {
	var b strings.Builder
	for i := range max(len(lines), len(s.shown)) {
		line := ""
		if i < len(lines) {
			line = lines[i]
		}
		if i >= len(s.shown) || s.shown[i] != line {
			fmt.Fprintf(&b, "\x1b[%d;1H%s\x1b[0m\x1b[K", i+1, line)
		}
	}
	s.out.WriteString(b.String())
	s.shown = lines
	s.measure()
}

// close gives the terminal back as it was.
func (s *demoScreen) close() {
	s.out.WriteString("\x1b[?7h\x1b[?25h\x1b[?1049l")
	if s.before != nil {
		term.Restore(int(os.Stdin.Fd()), s.before)
	}
}
