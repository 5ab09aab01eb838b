package app

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestGroupLimit: the limit of the control group, as both versions of Linux have it, in a container and outside. F012.
func TestGroupLimit(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"none":             {map[string]string{}, 0},
		"version 2":        {map[string]string{"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "1000000\n"}, 1000000},
		"container":        {map[string]string{"/proc/self/cgroup": "0::/elsewhere\n", "/sys/fs/cgroup/memory.max": "2000000\n"}, 2000000},
		"no limit":         {map[string]string{"/proc/self/cgroup": "0::/a\n", "/sys/fs/cgroup/a/memory.max": "max\n"}, 0},
		"version 1":        {map[string]string{"/proc/self/cgroup": "9:cpu:/\n8:memory:/b\n", "/sys/fs/cgroup/memory/b/memory.limit_in_bytes": "3000000\n"}, 3000000},
		"version 1, no":    {map[string]string{"/proc/self/cgroup": "8:memory:/b\n", "/sys/fs/cgroup/memory/b/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
		"nothing to parse": {map[string]string{"/proc/self/cgroup": "\n::\n"}, 0},
	} {
		read := func(path string) ([]byte, error) {
			if text, ok := c.files[path]; ok {
				return []byte(text), nil
			}
			return nil, errors.New("none")
		}
		if got := groupLimit(read); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestSwept: what a crash has left of a file that was being replaced is gone after the next start, and what it was to
// replace is as it was (F008).
func TestSwept(t *testing.T) {
	r := witnessRig(t).mustStart()
	r.chat("good")
	r.end()
	left := []string{"data/secret.new-1", "data/admin-token.hash.new-2", "data.witness.new-3"}
	for _, name := range left {
		r.write(name, "half of")
	}
	r.mustStart()
	r.chat("good")
	for _, name := range left {
		if _, err := os.Stat(filepath.Join(r.dir, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	r.end()
}
