package app

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func witnessRig(t *testing.T) *rig {
	r := newRig(t)
	r.env["TALEA_ADMIN_TOKEN"] = "a-token-for-all-starts-of-this-test"
	return r
}

func (r *rig) chat(key string) {
	r.t.Helper()
	resp := r.ask(key, hello)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
		r.t.Fatalf("status %d, %v", resp.StatusCode, err)
	}
}

// keepCopy copies the data directory of a server that does not run.
func (r *rig) keepCopy(name string) {
	r.t.Helper()
	if err := os.CopyFS(filepath.Join(r.dir, name), os.DirFS(filepath.Join(r.dir, "data"))); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) putBack(name string) {
	r.t.Helper()
	if err := os.RemoveAll(filepath.Join(r.dir, "data")); err != nil {
		r.t.Fatal(err)
	}
	if name == "" {
		return
	}
	if err := os.CopyFS(filepath.Join(r.dir, "data"), os.DirFS(filepath.Join(r.dir, name))); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) end() {
	r.t.Helper()
	r.stop()
	if status := <-r.ended; status != 0 {
		r.t.Fatalf("ended with %d: %s", status, r.stderr.String())
	}
}

// refusesToStart starts the server with more arguments, and wants it to end with the status and the words.
func (r *rig) refusesToStart(status int, words string, args ...string) {
	r.t.Helper()
	kept := r.args
	r.args = append(append([]string{}, r.args...), args...)
	defer func() { r.args = kept }()
	before := len(r.stderr.String())
	if r.start() {
		r.t.Fatalf("it has started, with %v", args)
	}
	if got := <-r.ended; got != status || !strings.Contains(r.stderr.String()[before:], words) {
		r.t.Errorf("with %v: ended with %d: %s\nwant %d, %s", args, got, r.stderr.String(), status, words)
	}
}

// F022, F023: a directory in which the ledger is missing, or is yesterday's, is refused; nothing is made in it. Two people
// can accept it, and both are in the log.
func TestWitness(t *testing.T) {
	for name, c := range map[string]struct{ put, words string }{
		"deleted":     {"", "had"},
		"yesterday's": {"yesterday", "entries and has"},
	} {
		t.Run(name, func(t *testing.T) {
			r := witnessRig(t).mustStart()
			r.chat("good")
			r.end()
			r.keepCopy("yesterday")
			r.mustStart()
			r.chat("good")
			r.end()
			r.putBack(c.put)
			r.refusesToStart(1, c.words)
			r.refusesToStart(1, "--accept-rollback NAME,NAME")
			if _, err := os.Stat(filepath.Join(r.dir, "data", "talea.db")); c.put == "" && err == nil {
				t.Error("a new ledger was made")
			}
			for _, names := range []string{"anna", "anna,", "anna,Anna", ",", "a,b,c"} {
				r.refusesToStart(2, "the names of two people", "--accept-rollback", names)
			}
			if c.put == "" { // the installation's secret is lost with it
				r.write("data/secret", string(make([]byte, 32)))
			}
			kept := r.args
			r.args = append(append([]string{}, kept...), "--accept-rollback", "anna, ben")
			r.mustStart()
			r.chat("good")
			r.end()
			r.args = kept
			r.mustStart() // what was accepted is what is witnessed now
			r.chat("good")
			if out, code := r.talea("ledger", "check"); code != 0 || !strings.Contains(out, "1 times a start was told") {
				t.Errorf("%d %s", code, out)
			}
			r.end()
		})
	}
}

// F123: a ledger with another history of the same length is refused too.
func TestWitnessOfAFork(t *testing.T) {
	r := witnessRig(t).mustStart()
	r.end()
	r.keepCopy("before")
	r.mustStart()
	r.chat("good")
	r.end()
	witness := filepath.Join(r.dir, "data.witness")
	b, err := os.ReadFile(witness)
	if err != nil {
		t.Fatal(err)
	}
	r.putBack("before")
	if err := os.Remove(witness); err != nil {
		t.Fatal(err)
	}
	r.mustStart()
	r.chat("good")
	r.end()
	if err := os.WriteFile(witness, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r.refusesToStart(1, "has another entry")
}

func TestWitnessCannotBeKept(t *testing.T) {
	r := witnessRig(t)
	r.refusesToStart(1, "cannot keep the witness that --witness names", "--witness", filepath.Join(r.dir, "absent", "witness"))
	r.write("data.witness", "{}{}")
	r.refusesToStart(1, "cannot use the witness")
	r.write("data.witness", `{"at":"2026-01-01T00:00:00Z","heads":[{"organisation":1,"entry":1,"hash":"00"}]}`)
	r.refusesToStart(1, "the head of organisation 1 cannot be read")
}
