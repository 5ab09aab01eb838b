package app

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// metric reads one metric of the operators' port.
func (r *rig) metric(name string) string {
	r.t.Helper()
	req, err := http.NewRequest("GET", r.admin+"/metrics", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func (r *rig) until(what string, is func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("it never came about that %s; log:\n%s", what, r.log.String())
		}
	}
}

// F016: the disk of the export is full, and nothing else is. Requests are served and charged, the lag grows and is shown;
// when there is space again the export catches up, without a restart and without a gap.
func TestExportDiskFull(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(r.dir, "records")
	series := filepath.Join(dir, "organisation-1")
	if err := os.MkdirAll(series, 0o750); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(series, "000000000001.ndjson")
	r.args = append(r.args, "--export", dir)
	r.mustStart()
	r.until("the export has begun", func() bool { return r.metric("talea_export_lag_entries") == "0" })
	if err := os.Symlink("/dev/full", file); err != nil { // every write to it is ENOSPC
		t.Fatal(err)
	}
	for range 10 {
		resp := r.ask("good", `{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":20}`)
		if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 200 || resp.Header.Get("X-Cost") == "" {
			t.Fatalf("status %d, cost %q, %v: %s", resp.StatusCode, resp.Header.Get("X-Cost"), err, b)
		}
	}
	r.until("the lag shows", func() bool { lag := r.metric("talea_export_lag_entries"); return lag != "" && lag != "0" })
	r.until("the log says why", func() bool {
		return strings.Contains(r.log.String(), "no space left on device") && strings.Contains(r.log.String(), "charging records are not exported")
	})
	if got := r.status("/readyz"); got != 200 {
		t.Errorf("readyz says %d while only the export's disk is full", got)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	r.until("the export catches up", func() bool { return r.metric("talea_export_lag_entries") == "0" })
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) != 11 || !strings.Contains(lines[1], `{"record":1,`) || !strings.Contains(lines[10], `{"record":10,`) {
		t.Errorf("%d lines, want an opening and 10 records:\n%s", len(lines), text)
	}
	if !strings.Contains(r.log.String(), "charging records are exported again") {
		t.Error("the log does not say that it goes on")
	}
}
