package app

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"talea/internal/cli"
)

// TestBackup: a backup that is made under load is a ledger that is right, restores, and goes on; one that was damaged is
// refused, as is a directory that exists. The server refuses what is restored in the place of a newer ledger (F023, F129).
func TestBackup(t *testing.T) {
	r := witnessRig(t).mustStart()
	data, backup, restored := filepath.Join(r.dir, "data"), filepath.Join(r.dir, "backup"), filepath.Join(r.dir, "restored")
	ctx, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	for range 4 {
		load.Go(func() {
			for ctx.Err() == nil {
				req, err := http.NewRequest("POST", r.tenants+"/v1/chat/completions", strings.NewReader(hello))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+secretOf("good"))
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
	r.chat("good")
	out, status := r.talea("backup", "--data", data, backup)
	if status != 0 || !strings.Contains(out, "every chain unbroken") || !strings.Contains(r.stderr.String(), "copied 100 %") {
		t.Fatalf("status %d: %s%s", status, out, r.stderr.String())
	}
	if _, status := r.talea("backup", "--data", data, backup); status != 1 {
		t.Errorf("backed up over a backup: status %d", status)
	}
	stop()
	load.Wait()
	r.chat("good")
	r.end()

	if out, status := r.talea("restore", "--data", data, backup); status != 1 {
		t.Errorf("restored over a directory: %s", out)
	}
	if out, status := r.talea("restore", "--data", restored, backup); status != 0 || !strings.Contains(out, "every chain unbroken") {
		t.Fatalf("status %d: %s%s", status, out, r.stderr.String())
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, ".talea-part-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// In the place of the newer one it is refused; elsewhere nobody has seen more.
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if _, status := r.talea("restore", "--data", data, backup); status != 0 {
		t.Fatal(r.stderr.String())
	}
	r.refusesToStart(1, "--accept-rollback NAME,NAME")
	r.args = append(r.args, "--data", restored)
	r.mustStart()
	r.chat("good")
	if out, status := r.talea("ledger", "check"); status != 0 {
		t.Errorf("status %d: %s", status, out)
	}
	r.end()
}

// TestDamagedBackup: a bit that flips in any file of a backup, or in its manifest's hashes, is found.
func TestDamagedBackup(t *testing.T) {
	r := witnessRig(t).mustStart()
	r.chat("good")
	r.end()
	data, backup, restored := filepath.Join(r.dir, "data"), filepath.Join(r.dir, "backup"), filepath.Join(r.dir, "restored")
	if _, status := r.talea("backup", "--data", data, backup); status != 0 {
		t.Fatal(r.stderr.String())
	}
	for _, name := range []string{"talea.db", "secret", "manifest.json"} {
		path := filepath.Join(backup, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		at := len(b) / 2
		if name == "manifest.json" {
			at = strings.Index(string(b), `"hash": "`) + 12
		}
		b[at] ^= 1
		os.WriteFile(path, b, 0o600)
		if _, status := r.talea("restore", "--data", restored, backup); status != 1 {
			t.Errorf("%s: restored with status %d", name, status)
		}
		b[at] ^= 1
		os.WriteFile(path, b, 0o600)
	}
	if _, err := os.Stat(restored); err == nil {
		t.Error("a directory was made")
	}
	if _, status := r.talea("backup", "--data", data, "--without-secret", backup+"2"); status != 0 {
		t.Fatal(r.stderr.String())
	}
	if _, err := os.Stat(filepath.Join(backup+"2", cli.SecretFile)); err == nil {
		t.Error("the secret is in a backup without it")
	}
	// A ledger that is damaged is not backed up.
	path := filepath.Join(data, "talea.db")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(b), "acme/research/chat")
	b[at] ^= 1
	os.WriteFile(path, b, 0o600)
	if _, status := r.talea("backup", "--data", data, backup+"3"); status == 0 {
		t.Error("backed up what is damaged")
	}
	if _, err := os.Stat(backup + "3"); err == nil {
		t.Error("a directory was made")
	}
}
